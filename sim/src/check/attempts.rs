//! Attempts rise by exactly one a failed or lost run and stay within the cap;
//! crashes are counted apart.

use std::time::Duration;

use job_engine::lifecycle::RunEnd;
use job_engine::store::{Outcome, TypePolicy, Written};

use super::books::{Books, EndedAs, Seen};
use super::transition::{Change, Transition};
use super::{Verdict, ensure};
use crate::scenario::RetrySpec;

/// How far the length of a run, as its worker sees it, may be from what the
/// books say, beside the drift of its clock: hosts of a cluster tick every 10 ms.
const SLACK: Duration = Duration::from_millis(25);

pub(super) fn transition(books: &Books, change: &Transition<'_>) -> Verdict {
    let Some((before, after)) = change.both() else {
        return Ok(());
    };
    match change.change {
        Change::Claim(_, job) => {
            ensure!(
                job.attempt == before.attempt && after.attempt == before.attempt,
                "attempts.claim",
                "attempt {} was claimed, as {} says the answer and {} the row",
                before.attempt,
                job.attempt,
                after.attempt
            );
            let book = books.job(change.job);
            let retries =
                book.map(|book| &books.scenario.types[book.spec.job_type as usize].retries);
            let caps = retries
                .into_iter()
                .flatten()
                .map(|retry| retry.attempts_max);
            let cap = caps.map(|cap| cap.unwrap_or(u32::MAX)).max();
            ensure!(
                cap.is_none_or(|cap| job.attempt <= cap.max(1)),
                "attempts.cap",
                "attempt {} begins, {cap:?} are allowed",
                job.attempt
            );
        }
        Change::Finish(finish, Written::Applied) if change.ran(finish.run) => {
            finished(books, change, before, after, &finish.outcome)?;
        }
        Change::Reclaim(Some(policy), reclaimed) => {
            let Some(lease) = before.lease else {
                return Ok(());
            };
            let alive = lease.expires_at.saturating_since(lease.claimed_at);
            lost(policy, before, after, reclaimed.end, alive)?;
        }
        Change::Reclaim(None, reclaimed) => ensure!(
            false,
            "attempts.unknown_type",
            "a job of the type {} was taken back by a worker that does not know it",
            reclaimed.job_type
        ),
        Change::Spawn(..)
        | Change::Left(..)
        | Change::Finish(..)
        | Change::Heartbeat(..)
        | Change::Checkpoint(..)
        | Change::Hold(..) => {
            ensure!(
                (after.attempt, after.crashes) == (before.attempt, before.crashes)
                    && after.interruptions == before.interruptions
                    && after.undecodable_since == before.undecodable_since,
                "attempts.untouched",
                "{:?} changed the attempt {} to {}",
                change.change,
                before.attempt,
                after.attempt
            )
        }
    }
    Ok(())
}

fn finished(
    books: &Books,
    change: &Transition<'_>,
    before: Seen,
    after: Seen,
    outcome: &Outcome,
) -> Verdict {
    let attempt = before.attempt;
    let expected = match outcome {
        Outcome::Completed => return Ok(()),
        Outcome::Rescheduled { .. } => 1,
        Outcome::Snoozed { .. } | Outcome::Released | Outcome::Interrupted => attempt,
        Outcome::Undecodable { .. } => {
            undecodable(books, change, before, false)?;
            attempt
        }
        Outcome::Errored { .. } if ended_undecodable(books, change) => {
            return undecodable(books, change, before, true);
        }
        // Its runner gave it up.
        Outcome::Errored { .. } if gives_up(books, change) => return Ok(()),
        Outcome::Errored { .. } => {
            let Some(retry) = retry_of(books, change) else {
                return Ok(());
            };
            let cap = retry.attempts_max;
            ensure!(
                cap.is_some_and(|cap| attempt >= cap),
                "attempts.gave_up",
                "the job was given up at attempt {attempt} of {cap:?}"
            );
            counts(books, change, retry, attempt)?;
            return Ok(());
        }
        Outcome::Retried { attempt: next, .. } => {
            let Some(retry) = retry_of(books, change) else {
                return Ok(());
            };
            next_attempt(books, change, retry, attempt, *next)?;
            *next
        }
    };
    let put_back = matches!(
        outcome,
        Outcome::Released | Outcome::Interrupted | Outcome::Undecodable { .. }
    );
    let crashes = if put_back { before.crashes } else { 0 };
    let interruptions = match outcome {
        Outcome::Interrupted => before.interruptions + 1,
        _ if put_back => before.interruptions,
        _ => 0,
    };
    ensure!(
        after.interruptions == interruptions,
        "attempts.interruptions",
        "a job that was interrupted {} times ended a run by {:?}, and {} are counted",
        before.interruptions,
        outcome.end(),
        after.interruptions
    );
    ensure!(
        after.attempt == expected && after.crashes == crashes,
        "attempts.next",
        "attempt {attempt} ended by {:?}, and attempt {} after {} crashes follows",
        outcome.end(),
        after.attempt,
        after.crashes
    );
    Ok(())
}

/// Whether the runner said that its failure is final.
pub(super) fn gives_up(books: &Books, change: &Transition<'_>) -> bool {
    let run = books.job(change.job).and_then(|book| book.runs.last());
    let by_runner = !change.call.is_of_engine();
    by_runner || run.is_some_and(|run| run.ended == Some(EndedAs::Errored))
}

/// Whether the run ended because its config could not be decoded.
fn ended_undecodable(books: &Books, change: &Transition<'_>) -> bool {
    let run = books.job(change.job).and_then(|book| book.runs.last());
    run.is_some_and(|run| run.ended == Some(EndedAs::Undecodable))
}

/// A job that cannot be decoded is put back for as long as its type says, and no longer.
fn undecodable(books: &Books, change: &Transition<'_>, before: Seen, over: bool) -> Verdict {
    let Some(retry) = retry_of(books, change) else {
        return Ok(());
    };
    let max = Duration::from_millis(retry.undecodable_max_ms);
    let claimed_at = before.lease.map(|lease| lease.claimed_at);
    let since = before.undecodable_since.zip(claimed_at);
    let waited = since.map_or(Duration::ZERO, |(since, at)| at.saturating_since(since));
    // The claim may have been repeated, and told another time.
    let told_later = books
        .now
        .store
        .saturating_since(claimed_at.unwrap_or(books.now.store));
    ensure!(
        !over || waited + told_later >= max,
        "attempts.undecodable",
        "a job that nobody could decode for {waited:?} was given up; {max:?} are allowed"
    );
    ensure!(
        over || waited < max,
        "attempts.undecodable",
        "a job that nobody could decode for {waited:?} is put back; {max:?} are allowed"
    );
    Ok(())
}

/// A failure counts, unless the run was healthy: it lived for longer than the longest wait,
/// so many times.
fn next_attempt(
    books: &Books,
    change: &Transition<'_>,
    retry: &RetrySpec,
    attempt: u32,
    next: u32,
) -> Verdict {
    if next == attempt + 1 {
        let cap = retry.attempts_max.unwrap_or(u32::MAX).max(1);
        ensure!(
            next <= cap,
            "attempts.cap",
            "attempt {next} is to follow, {cap} are allowed"
        );
        return counts(books, change, retry, attempt);
    }
    let lived_us = lived_us(books, change);
    let lived = Duration::from_micros(lived_us + lived_us / 500);
    let lived = lived + SLACK + disturbance(books, change);
    let healthy_after = healthy_after(retry).filter(|_| attempt > 1);
    ensure!(
        next == 1 && healthy_after.is_some_and(|after| lived >= after),
        "attempts.next",
        "attempt {attempt}, which lasted {lived_us} us, failed, and attempt {next} is to follow"
    );
    Ok(())
}

/// The failure of a healthy run does not count.
fn counts(books: &Books, change: &Transition<'_>, retry: &RetrySpec, attempt: u32) -> Verdict {
    let lived_us = lived_us(books, change);
    let lived = Duration::from_micros(lived_us - lived_us / 500);
    let healthy_after = healthy_after(retry).filter(|_| attempt > 1);
    ensure!(
        healthy_after.is_none_or(|after| lived <= after + SLACK + disturbance(books, change)),
        "attempts.healthy",
        "attempt {attempt}, which lasted {lived_us} us, failed, and counts"
    );
    Ok(())
}

/// How long the last run of the job was at work.
fn lived_us(books: &Books, change: &Transition<'_>) -> u64 {
    let run = books.job(change.job).and_then(|book| book.runs.last());
    let started_us = run.map_or(0, |run| run.started_us.unwrap_or(run.ended_us));
    run.map_or(0, |run| run.ended_us.saturating_sub(started_us))
}

/// How much longer than it was a run may seem to a worker whose clock was set.
fn disturbance(books: &Books, change: &Transition<'_>) -> Duration {
    let sets_clock = |fault: &crate::scenario::Fault| matches!(fault, crate::scenario::Fault::ClockJump { worker, .. } if *worker == change.call.who.worker);
    if books.scenario.faults.iter().any(sets_clock) {
        Duration::from_secs(3_600)
    } else {
        Duration::ZERO
    }
}

fn lost(policy: &TypePolicy, before: Seen, after: Seen, end: RunEnd, alive: Duration) -> Verdict {
    let healthy = alive >= policy.healthy_after;
    let crashes = if healthy { 1 } else { before.crashes + 1 };
    let again = healthy && before.attempt > 1;
    let attempt = if again { 1 } else { before.attempt + 1 };
    let crashed_out = policy.crashes_max.is_some_and(|max| crashes >= max.max(1));
    let tried_out = policy.attempts_max.is_some_and(|max| attempt > max.max(1));
    let expected = if crashed_out || tried_out {
        RunEnd::Abandoned
    } else {
        RunEnd::Lost
    };
    ensure!(
        end == expected,
        "attempts.crash",
        "attempt {} was lost after {} crashes: it ended as {end:?} instead of {expected:?}",
        before.attempt,
        before.crashes
    );
    ensure!(
        end == RunEnd::Abandoned || (after.attempt, after.crashes) == (attempt, crashes),
        "attempts.crash",
        "attempt {} was lost after {} crashes: attempt {} after {} follows",
        before.attempt,
        before.crashes,
        after.attempt,
        after.crashes
    );
    Ok(())
}

/// How the worker that sends the command retries the job.
pub(super) fn retry_of<'a>(books: &'a Books, change: &Transition<'_>) -> Option<&'a RetrySpec> {
    let worker = books.worker(change.call.who)?;
    if worker.incarnation != change.call.who.incarnation {
        // It has another edition by now; what it had is not known here.
        return None;
    }
    let spec = &books.job(change.job)?.spec;
    let of_type = &books.scenario.types[spec.job_type as usize];
    Some(of_type.retry(worker.knobs.edition))
}

/// The wait after this attempt, without jitter, in milliseconds.
pub(super) fn base_backoff_ms(retry: &RetrySpec, attempt: u32) -> u128 {
    let doubled = u128::from(retry.min_backoff_ms) << attempt.saturating_sub(1).min(60);
    doubled.min(u128::from(retry.max_backoff_ms))
}

fn healthy_after(retry: &RetrySpec) -> Option<Duration> {
    let ms = retry.max_backoff_ms * u64::from(retry.reset_after_multiples);
    (ms > 0).then(|| Duration::from_millis(ms))
}
