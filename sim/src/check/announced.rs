//! Workers that listen hear at once of jobs that are due again: of those that others have put
//! back, or found to be lost.

use job_engine::Reply;
use job_engine::lifecycle::RunEnd;
use job_engine::store::Written;

use super::books::{Books, Life};
use super::obligations::{Obligation, SLACK_US};
use super::{Verdict, Violation};
use crate::event::{Event, Who};
use crate::scenario::{Fault, type_place};

/// An announcement is a call of the store and a message, and may wait for others.
const TRAVELS: u64 = 3;
/// How long trouble may last on, in microseconds.
const SETTLES_US: u64 = 60_000_000;
/// A process that dies so soon after has perhaps not announced anything.
const DIES_US: u64 = 50_000;

pub(super) fn event(books: &mut Books, event: &Event<'_>) -> Verdict {
    let Event::Answered {
        call,
        result: Ok(reply),
    } = event
    else {
        return Ok(());
    };
    let Some(worker) = books.worker(call.who).filter(|w| w.is_up(call.who)) else {
        return Ok(());
    };
    let mut due: Vec<u32> = match reply {
        Reply::Finished(written) if call.is_of_engine() => {
            let ends = worker.owed.ends().iter().zip(written);
            let put_back =
                ends.filter(|(end, written)| end.for_others && **written == Written::Applied);
            put_back.map(|(end, _)| end.place).collect()
        }
        Reply::Reclaimed(reclaimed) => {
            let lost = reclaimed.iter().filter(|job| job.end == RunEnd::Lost);
            lost.map(|job| type_place(&job.job_type)).collect()
        }
        _ => return Ok(()),
    };
    due.sort_unstable();
    due.dedup();
    let since_us = books.now.true_us;
    let by_us = since_us + TRAVELS * books.scenario.latency_us.1 + SLACK_US;
    let mut hear = Vec::new();
    for place in due {
        let others = books
            .workers
            .iter()
            .filter(|other| other.key != call.who.worker);
        let listen = others.filter(|other| other.life == Life::Up && other.listening);
        let know = listen.filter(|other| other.knobs.knows(place));
        hear.extend(know.map(|other| Hear {
            who: other.who(),
            of: call.who,
            place,
            since_us,
        }));
    }
    for one in hear {
        books.obligations.add(by_us, Obligation::Hear(one));
    }
    Ok(())
}

/// Who is to hear of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Hear {
    pub(super) who: Who,
    of: Who,
    place: u32,
    since_us: u64,
}

impl Hear {
    /// Whether it has heard of it, or something has kept it from that.
    pub(super) fn is_done(self, books: &Books) -> bool {
        let Some(worker) = books.worker(self.who) else {
            return true;
        };
        let heard = worker.heard_us[self.place as usize] >= self.since_us;
        let hinders = worker.paused
            || worker.held_up_until >= self.since_us
            || worker.shutdown_us.is_some()
            || !worker.listening
            || worker.listening_us >= self.since_us;
        let dies = books.worker(self.of).is_some_and(|of| {
            of.incarnation != self.of.incarnation
                || (of.life == Life::Crashed && of.ended_us <= self.since_us + DIES_US)
        });
        heard || hinders || dies || is_troubled(books, self.since_us)
    }

    pub(super) fn broken(self, now_us: u64) -> Violation {
        let text = format!(
            "{} put jobs back at {} us or found them to be lost, and at {now_us} us {} has not \
             heard of it",
            self.of, self.since_us, self.who
        );
        Violation::new("announced.unheard", text).of(self.who)
    }
}

/// Whether something between processes goes wrong since then, or did a while before: an
/// announcement that is not answered keeps those behind it waiting.
fn is_troubled(books: &Books, since_us: u64) -> bool {
    let calm_us = books.scenario.calm_from_ms * 1_000;
    let mut faults = books.scenario.faults.iter();
    faults.any(|fault| match fault {
        // What shrinking makes of the others happens at no known time.
        Fault::Message { .. } => true,
        Fault::Net { .. }
        | Fault::Partition { .. }
        | Fault::Store { .. }
        | Fault::StoreRestart { .. }
        | Fault::Deaf { .. }
        | Fault::Announcements { .. } => fault.span_ms().is_some_and(|(from_ms, until_ms)| {
            from_ms * 1_000 <= books.now.true_us
                && (until_ms * 1_000).min(calm_us) + SETTLES_US >= since_us
        }),
        _ => false,
    })
}
