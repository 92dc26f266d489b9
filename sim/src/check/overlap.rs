//! Two runs of one job overlap only after a lost lease, and the loser is told.
//! Nobody is told without need.

use job_engine::lifecycle::RunEnd;
use job_engine::worker::StopReason;

use super::books::{Books, EndedAs};
use super::obligations::{Obligation, SLACK_US};
use super::reclaims::quiet_us;
use super::{Verdict, Violation};
use crate::event::{Event, Who};
use crate::scenario::job_key;

pub(super) fn event(books: &mut Books, event: &Event<'_>) -> Verdict {
    match event {
        Event::Started { who, job } => started(books, *who, job.run),
        Event::Told {
            who,
            run,
            reason: StopReason::LeaseLost,
        } => {
            let known = books.run(*run).is_some_and(|run| run.stale);
            let quiet = books
                .worker(*who)
                .map_or(0, |worker| quiet_us(&worker.knobs));
            if known || !books.is_undisturbed(*who, quiet) {
                return Ok(());
            }
            Err(Violation::new(
                "overlap.needless",
                format!(
                    "run {} in {who} is told that its lease may be lost, and nothing befell it",
                    run.fence
                ),
            )
            .of_job(job_key(run.job))
            .of(*who))
        }
        _ => Ok(()),
    }
}

fn started(books: &mut Books, who: Who, run: job_engine::Run) -> Verdict {
    let Some(book) = books.job(run.job) else {
        return Ok(());
    };
    let earlier = book.runs.iter().enumerate();
    let earlier = earlier.take((run.fence.0 - 1).max(0) as usize);
    let mut tell = Vec::new();
    for (place, other) in earlier {
        let settled = matches!(other.ended, Some(EndedAs::Settled));
        if !other.is_executing() || other.committing || settled {
            continue;
        }
        if !matches!(other.recorded, Some(RunEnd::Lost)) {
            return Err(Violation::new(
                "overlap.running",
                format!(
                    "run {} starts in {who} while run {} is at work in {}, recorded as {:?}",
                    run.fence,
                    place + 1,
                    other.who,
                    other.recorded
                ),
            )
            .of_job(job_key(run.job))
            .of(who));
        }
        let fence = job_engine::Fence(place as i64 + 1);
        // It is known by its fence.
        let loser = job_engine::Run { fence, ..run };
        // By the clock of the store, which was set forward, its lease ran out so
        // much earlier.
        let jumped_us = books.store_ahead_us() - other.renewed_ahead_us;
        let jumped_us = u64::try_from(jumped_us).unwrap_or(0);
        // By its own clock, which was set back, it ran out so much later.
        let back_us = books.set_back_us(other.who, other.claimed_us);
        let by_us = books.now.true_us + SLACK_US + jumped_us + back_us;
        tell.push((by_us, Obligation::Tell(other.who, loser)));
    }
    for (by_us, obligation) in tell {
        books.obligations.add(by_us, obligation);
    }
    Ok(())
}
