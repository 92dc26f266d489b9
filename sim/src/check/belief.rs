//! A run starts only under a lease that its worker may believe in, and whoever runs under
//! one that may have run out is told.

use job_engine::Run;
use job_engine::worker::StopReason;

use super::books::{Books, RunBook};
use super::obligations::{Obligation, SLACK_US};
use super::{Verdict, Violation};
use crate::event::{Event, Who};
use crate::scenario::job_key;

/// The clock of a worker may be slow, by so much as a share of a lease.
const SLOW: u64 = 500;

pub(super) fn event(books: &mut Books, event: &Event<'_>) -> Verdict {
    let Event::Started { who, job } = event else {
        return Ok(());
    };
    let (who, run) = (*who, job.run);
    let Some(book) = books.run(run) else {
        return Ok(());
    };
    let (stale, until_us) = (book.stale, until_us(books, who, book));
    let now_us = books.now.true_us;
    let text = if stale {
        format!(
            "{who} starts run {} after the store said that its lease is lost",
            run.fence
        )
    } else if now_us > until_us {
        format!(
            "{who} starts run {} at {now_us} us, and its lease had run out by {until_us} us",
            run.fence
        )
    } else {
        books
            .obligations
            .add(until_us, Obligation::Believe(who, run));
        return Ok(());
    };
    let violation = Violation::new("belief.started", text);
    Err(violation.of_job(job_key(run.job)).of(who))
}

/// When it can no longer believe in the lease, for certain: it counts from when it asked for
/// it, which was before it got it.
pub(super) fn until_us(books: &Books, who: Who, run: &RunBook) -> u64 {
    let since_us = run.believed_until_us.saturating_sub(run.claimed_us);
    // By its own clock, which was set back, it is not so late.
    let back_us = books.set_back_us(who, run.claimed_us);
    let slack_us = since_us / SLOW + back_us + SLACK_US;
    run.believed_until_us.saturating_add(slack_us)
}

/// Whether its runner needs not to be told.
pub(super) fn is_told(run: &RunBook) -> bool {
    run.told == Some(StopReason::LeaseLost) || run.aborted || !run.is_executing()
}

pub(super) fn untold(who: Who, run: Run, by_us: u64, now_us: u64) -> Violation {
    let text = format!(
        "the lease of run {} in {who} was renewed for the last time so long ago that it was to \
         be told by {by_us} us; it is {now_us} us",
        run.fence
    );
    let violation = Violation::new("belief.untold", text);
    violation.of_job(job_key(run.job)).of(who)
}
