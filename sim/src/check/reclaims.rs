//! No job is taken back from a healthy, connected worker, and none at all while
//! nothing goes wrong.

use job_engine::worker::SETTLE_TIMEOUT;

use super::books::Books;
use super::pace::ERROR_WAIT_LAST_US;
use super::transition::{Change, Transition};
use super::{Verdict, Violation, ensure};
use crate::scenario::Knobs;

pub(super) fn transition(books: &Books, change: &Transition<'_>) -> Verdict {
    let Change::Reclaim(_, reclaimed) = change.change else {
        return Ok(());
    };
    let run = books.run(reclaimed.run);
    ensure!(
        !books.fault_free,
        "reclaims.fault_free",
        "run {} was taken back although nothing went wrong",
        reclaimed.run.fence
    );
    let Some(run) = run else { return Ok(()) };
    let quiet_us = books
        .worker(run.who)
        .map_or(0, |worker| quiet_us(&worker.knobs));
    if books.is_undisturbed(run.who, quiet_us) {
        return Err(Violation::new(
            "reclaims.healthy",
            format!(
                "run {} of {} was taken back, and nothing had befallen that worker for {} s",
                reclaimed.run.fence,
                run.who,
                quiet_us / 1_000_000
            ),
        )
        .of(run.who));
    }
    Ok(())
}

/// How long the consequences of a disturbance may last: a command that was lost
/// is waited for, then tried again after the longest wait, and the lease of what
/// it would have renewed runs out meanwhile.
pub(super) fn quiet_us(knobs: &Knobs) -> u64 {
    let store_timeout = knobs.store_timeout().as_micros() as u64;
    let settling = SETTLE_TIMEOUT.as_micros() as u64;
    knobs.lease_ms * 1_000 * 2 + store_timeout * 2 + ERROR_WAIT_LAST_US + settling
}
