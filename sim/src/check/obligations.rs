//! What must have happened by a certain time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use job_engine::Run;

use super::announced::Hear;
use super::belief;
use super::books::{Books, Life};
use super::{Verdict, Violation};
use crate::event::{Disturbance, Who};
use crate::scenario::job_key;

/// How late it may be, in microseconds.
pub(super) const SLACK_US: u64 = 200_000;
/// When it is looked at again while the process cannot do it.
const AGAIN_US: u64 = 500_000;

/// All of them, by time.
#[derive(Clone, Debug, Default)]
pub(super) struct Obligations {
    heap: BinaryHeap<Reverse<(u64, Obligation)>>,
}

/// One.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Obligation {
    /// The runner of a run that another one overlaps is told.
    Tell(Who, Run),
    /// A runner is aborted that has not ended.
    Abort(Who, Run),
    /// A runner is told that its lease may have run out, if it was not renewed.
    Believe(Who, Run),
    /// A job that waits for a place is put back, as its worker shuts down.
    PutBack(Who, Run),
    /// A worker hears of jobs that others have put back.
    Hear(Hear),
    /// A worker has stopped.
    Stop(Who),
}

impl Obligations {
    pub(super) fn add(&mut self, by_us: u64, obligation: Obligation) {
        self.heap.push(Reverse((by_us, obligation)));
    }

    /// A process, or all, can do nothing for so long.
    pub(super) fn delay(&mut self, who: Option<Who>, by_us: u64, by: Disturbance) {
        let concerns = |obligation: &Obligation| {
            who.is_none_or(|who| obligation.who() == who)
                && (by.holds_up() || obligation.needs_the_store())
        };
        let heap = std::mem::take(&mut self.heap).into_iter();
        self.heap = heap
            .map(|Reverse((at_us, obligation))| {
                let more_us = if concerns(&obligation) { by_us } else { 0 };
                Reverse((at_us + more_us, obligation))
            })
            .collect();
    }
}

impl Obligation {
    /// Whether it cannot be met while the store does not answer.
    fn needs_the_store(&self) -> bool {
        !matches!(self, Obligation::Believe(..) | Obligation::PutBack(..))
    }

    fn who(&self) -> Who {
        match self {
            Obligation::Tell(who, _)
            | Obligation::Abort(who, _)
            | Obligation::Believe(who, _)
            | Obligation::PutBack(who, _)
            | Obligation::Stop(who) => *who,
            Obligation::Hear(hear) => hear.who,
        }
    }
}

/// Looks at those whose time has come.
pub(super) fn check(books: &mut Books) -> Verdict {
    let now_us = books.now.true_us;
    while let Some(Reverse((by_us, obligation))) = books.obligations.heap.peek().copied() {
        if by_us >= now_us {
            break;
        }
        books.obligations.heap.pop();
        let (who, done) = match obligation {
            Obligation::Tell(who, run) => {
                let book = books.run(run);
                let done = book.is_none_or(|book| book.told.is_some() || !book.is_executing());
                (who, done)
            }
            Obligation::Abort(who, run) => {
                let book = books.run(run);
                let done =
                    book.is_none_or(|book| book.aborted || !book.is_executing() || book.committing);
                (who, done)
            }
            Obligation::Believe(who, run) => {
                let book = books.run(run).filter(|book| !belief::is_told(book));
                if let Some(until_us) = book.map(|book| belief::until_us(books, who, book))
                    && until_us > by_us
                {
                    books.obligations.add(until_us, obligation);
                    continue;
                }
                (who, book.is_none())
            }
            Obligation::PutBack(who, run) => {
                let book = books.run(run);
                let done = book.is_none_or(|book| book.concluded || book.recorded.is_some());
                // While others are being put back, or cannot be, it waits for its turn.
                let waits = books.worker(who).is_some_and(|w| w.pace.is_recording());
                if waits && !done {
                    let again = now_us + AGAIN_US;
                    books.obligations.add(again, obligation);
                    continue;
                }
                (who, done)
            }
            Obligation::Hear(hear) => (hear.who, hear.is_done(books)),
            Obligation::Stop(who) => (who, false),
        };
        let worker = books.worker(who);
        let gone = worker
            .is_none_or(|worker| worker.incarnation != who.incarnation || worker.life != Life::Up);
        if done || gone {
            continue;
        }
        let paused = worker.is_some_and(|worker| worker.paused);
        let until = match obligation.needs_the_store() {
            true => {
                let disturbed = worker.map_or(0, |worker| worker.disturbed_until);
                disturbed.max(books.all_disturbed_until)
            }
            false => worker.map_or(0, |worker| worker.held_up_until),
        };
        if paused || until + SLACK_US >= now_us {
            let again = now_us.max(until) + AGAIN_US;
            books.obligations.add(again, obligation);
            continue;
        }
        return Err(broken(obligation, by_us, now_us));
    }
    Ok(())
}

fn broken(obligation: Obligation, by_us: u64, now_us: u64) -> Violation {
    let when = format!("by {by_us} us; it is {now_us} us");
    match obligation {
        Obligation::Tell(who, run) => Violation::new(
            "overlap.told",
            format!(
                "another run of the job started, and run {} in {who} was to be told {when}",
                run.fence
            ),
        )
        .of_job(job_key(run.job))
        .of(who),
        Obligation::Abort(who, run) => Violation::new(
            "shutdown.abort",
            format!("run {} in {who} was to be aborted {when}", run.fence),
        )
        .of_job(job_key(run.job))
        .of(who),
        Obligation::PutBack(who, run) => Violation::new(
            "shutdown.unstarted",
            format!(
                "{who} shuts down, and was to put run {} back, which it never started, {when}",
                run.fence
            ),
        )
        .of_job(job_key(run.job))
        .of(who),
        Obligation::Believe(who, run) => belief::untold(who, run, by_us, now_us),
        Obligation::Hear(hear) => hear.broken(now_us),
        Obligation::Stop(who) => {
            Violation::new("shutdown.late", format!("{who} was to stop {when}")).of(who)
        }
    }
}
