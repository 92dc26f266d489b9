//! The wait after a failure is within the bounds of the backoff for that
//! attempt; a wait that a runner asked for is what it asked for.

use std::time::Duration;

use job_engine::Due;
use job_engine::store::{Outcome, Written};

use super::attempts::{base_backoff_ms, retry_of};
use super::books::Books;
use super::transition::{Change, Transition};
use super::{Verdict, ensure};
use crate::scenario::EndSpec;

/// A job that cannot be decoded waits for at least and at most so long.
const UNDECODABLE_WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

pub(super) fn transition(books: &Books, change: &Transition<'_>) -> Verdict {
    let Change::Finish(finish, Written::Applied) = change.change else {
        return Ok(());
    };
    let (Some((before, after)), true) = (change.both(), change.ran(finish.run)) else {
        return Ok(());
    };
    let store = books.now.store;
    match &finish.outcome {
        Outcome::Retried { delay, attempt, .. } => {
            ensure!(
                after.due_at == store.saturating_add(*delay),
                "backoff.due",
                "a retry in {delay:?} at {store} is due at {}",
                after.due_at
            );
            let Some(retry) = retry_of(books, change) else {
                return Ok(());
            };
            let failed = if *attempt == 1 { 1 } else { before.attempt };
            let base = base_backoff_ms(retry, failed) * 1_000_000;
            let spread = base / 100 * u128::from(retry.jitter_pct.min(100));
            let max = u128::from(retry.max_backoff_ms) * 1_000_000;
            let nanos = delay.as_nanos();
            ensure!(
                nanos >= base - spread && nanos <= (base + spread).min(max),
                "backoff.bounds",
                "the wait after attempt {failed} is {delay:?}, of {base} ns and {}%, at most {max} ns",
                retry.jitter_pct
            );
        }
        Outcome::Rescheduled { due } | Outcome::Snoozed { due } => {
            let asked = books
                .job(change.job)
                .map(|book| book.spec.run(finish.run.fence.0));
            let asked = asked.and_then(|run| match run.end {
                EndSpec::RescheduleMs(ms)
                | EndSpec::RescheduleTxMs(ms)
                | EndSpec::SnoozeMs(ms)
                | EndSpec::SnoozeTxMs(ms) => Some(ms),
                _ => None,
            });
            // A runner that yields to a shutdown asks for at once.
            let waits = match (due, asked) {
                (Due::Now, _) | (_, None) => Duration::ZERO,
                (_, Some(ms)) => Duration::from_millis(ms),
            };
            ensure!(
                after.due_at == store.saturating_add(waits),
                "backoff.asked",
                "a run asked for {waits:?} at {store}, and the next is due at {}",
                after.due_at
            );
        }
        Outcome::Undecodable { delay, .. } => {
            let waited = before.undecodable_since.map_or(Duration::ZERO, |since| {
                let claimed_at = before.lease.map_or(store, |lease| lease.claimed_at);
                claimed_at.saturating_since(since)
            });
            let least = (waited / 2).clamp(UNDECODABLE_WAIT.0, UNDECODABLE_WAIT.1);
            ensure!(
                after.due_at == store.saturating_add(*delay)
                    && *delay >= least
                    && *delay <= UNDECODABLE_WAIT.1,
                "backoff.undecodable",
                "a job that nobody could decode for {waited:?} waits for {delay:?}, until {}",
                after.due_at
            );
        }
        Outcome::Released | Outcome::Interrupted => ensure!(
            after.due_at == store,
            "backoff.released",
            "a job that was put back at {store} is due at {}",
            after.due_at
        ),
        Outcome::Completed | Outcome::Errored { .. } => {}
    }
    Ok(())
}
