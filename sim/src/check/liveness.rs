//! When the faults have ceased, everything comes to rest: due jobs run, ends
//! are recorded, lost jobs are found.

use std::time::Duration;

use job_engine::ModelStore;
use job_engine::lifecycle::{RunEnd, State};

use super::books::{Books, JobBook, Life, RunBook, Seen};
use super::{Verdict, Violation};
use crate::scenario::Scenario;

/// What may take so long after the faults ceased, apart from leases and polls: the
/// longest wait after an error of the store, 15 s and its jitter, and a second or
/// two for all else.
const SETTLE_US: u64 = 21_000_000;

/// The waits between the tries of a claim that brings too much, in milliseconds.
const LONG_REPLY_WAITS_MS: u64 = 60_000;

/// How long the liveness phase of a scenario must be, in milliseconds, for all
/// of it to be checked.
pub fn calm_ms(scenario: &Scenario) -> u64 {
    bound_us(scenario).div_ceil(1_000)
}

fn bound_us(scenario: &Scenario) -> u64 {
    let configured = scenario.workers.iter().map(|worker| &worker.knobs);
    let changed = scenario.faults.iter().filter_map(|fault| match fault {
        crate::scenario::Fault::Restart { knobs, .. } => knobs.as_ref(),
        _ => None,
    });
    let knobs = configured.chain(changed);
    let longest = knobs
        .map(|k| {
            let store_timeout_ms = k.store_timeout().as_millis() as u64;
            k.lease_ms * 8 / 5 + k.poll_ms.max(k.poll_deaf_ms) + store_timeout_ms
        })
        .max();
    // A backlog takes its time, on a single place if need be.
    let work_ms: u64 = scenario
        .jobs
        .iter()
        .flat_map(|job| &job.runs)
        .map(|run| run.work_ms)
        .sum();
    (longest.unwrap_or(0) + work_ms + long_replies_ms(scenario)) * 1_000 + SETTLE_US
}

/// Claims that bring too much ask for less and less, each after it was waited for.
fn long_replies_ms(scenario: &Scenario) -> u64 {
    if scenario.claimed_job_ms == 0 {
        return 0;
    }
    let timeouts = scenario.workers.iter();
    let timeouts = timeouts.map(|worker| worker.knobs.store_timeout().as_millis() as u64);
    let brought = scenario.jobs.len() as u64 * 10 * scenario.claimed_job_ms;
    8 * timeouts.max().unwrap_or(0) + LONG_REPLY_WAITS_MS + brought
}

pub(super) fn finish(books: &Books, model: &ModelStore) -> Verdict {
    let Some(calm_since) = books.calm_since else {
        return Ok(());
    };
    let bound_us = bound_us(&books.scenario);
    let calm_us = books.now.true_us - calm_since;
    if calm_us < bound_us {
        return Ok(());
    }
    for job in model.jobs() {
        let Some(book) = books.job(job.id) else {
            continue;
        };
        let Some(seen) = book.seen else { continue };
        if let Some(text) = stuck(books, book, seen, bound_us) {
            return Err(Violation::new("liveness.stuck", text).of_job(book.spec.key));
        }
        if let Some(text) = futile(book, seen, calm_since) {
            return Err(Violation::new("liveness.futile", text).of_job(book.spec.key));
        }
    }
    Ok(())
}

/// It is claimed again and again, and nobody crashes; yet no claim becomes a run.
fn futile(book: &JobBook, seen: Seen, calm_since: u64) -> Option<String> {
    let ended = matches!(seen.state, State::Completed | State::Errored);
    let moves = |run: &RunBook| {
        run.started_us.is_some_and(|at| at >= calm_since)
            || (run.ended.is_some() && run.ended_us >= calm_since)
    };
    if ended || book.runs.iter().any(moves) {
        return None;
    }
    let in_vain = book.runs.iter().filter(|run| {
        run.claimed_us >= calm_since
            && run.started_us.is_none()
            && run.recorded == Some(RunEnd::Lost)
    });
    let claims = in_vain.count();
    (claims >= 3).then(|| {
        format!("it was claimed and lost {claims} times since the faults ceased, and never started")
    })
}

fn stuck(books: &Books, book: &JobBook, seen: Seen, bound_us: u64) -> Option<String> {
    let served = books.workers.iter().any(|worker| {
        worker.life == Life::Up
            && worker.shutdown_us.is_none()
            && worker.knobs.knows(book.spec.job_type)
    });
    if !served {
        return None;
    }
    let store = books.now.store;
    let bound = Duration::from_micros(bound_us);
    let calm_since = books.calm_since.unwrap_or(0);
    match seen.state {
        State::Completed | State::Errored => None,
        State::Pending => {
            let waits = store.saturating_since(seen.due_at);
            (waits > bound).then(|| format!("it has been due for {waits:?} and nobody runs it"))
        }
        State::Running => {
            let lease = seen.lease?;
            let lapsed = store.saturating_since(lease.expires_at);
            if lapsed > bound {
                return Some(format!(
                    "its lease ran out {lapsed:?} ago, and nobody found it"
                ));
            }
            let run = book.run(seen.fence)?;
            let since = run.ended.map_or(run.claimed_us, |_| run.ended_us);
            let since = since.max(calm_since);
            let unrecorded_us = books.now.true_us - since;
            (unrecorded_us > bound_us).then(|| {
                format!(
                    "its run {} has not ended, or that is not recorded, for {unrecorded_us} us: {:?}",
                    seen.fence, run.ended
                )
            })
        }
    }
}
