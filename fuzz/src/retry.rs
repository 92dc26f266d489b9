//! Retry arithmetic: no overflow, waits within their bounds, and an end.

use std::time::Duration;

use job_engine::RetrySettings;
use job_engine::limits::COUNT_MAX;
use job_engine::retry::Verdict;
use job_engine::store::{AfterCrash, CRASHED_TOO_OFTEN, LOST_AT_LAST_ATTEMPT, TypePolicy};

use crate::source::Source;

/// A job is failed from its first attempt on for at most so many times.
const FAILURES_MAX: u32 = 300;

/// Checks the waits and verdicts that one choice of settings leads to.
pub fn run(data: &[u8]) {
    let mut source = Source::new(data);
    let settings = source.retry();
    let policy = source.policy();
    loop {
        let attempt = source.u32();
        let draw = source.u64();
        let ran = source.duration();
        waits(&settings, attempt, draw);
        failure(&settings, attempt, ran, draw);
        crash(&policy, attempt, source.u32(), ran);
        if source.is_empty() {
            break;
        }
    }
    let (ran, draw) = (source.duration(), source.u64());
    failing(&settings, ran, draw);
    crashing(&policy);
}

/// The wait is what the documentation of `RetrySettings` says, computed by
/// doubling it again and again.
fn waits(settings: &RetrySettings, attempt: u32, draw: u64) {
    let base = settings.backoff(attempt);
    let mut expected = settings.min_backoff.min(settings.max_backoff);
    for _ in 1..attempt {
        if expected == settings.max_backoff || expected.is_zero() {
            break;
        }
        expected = expected.saturating_mul(2).min(settings.max_backoff);
    }
    assert_eq!(
        base, expected,
        "the backoff of attempt {attempt} of {settings:?}"
    );
    let next = settings.backoff(attempt.saturating_add(1));
    assert!(base <= next, "{base:?} then {next:?} of {settings:?}");

    let wait = settings.jittered_backoff(attempt, draw);
    assert!(wait <= settings.max_backoff, "{wait:?} of {settings:?}");
    let pct = u32::from(settings.backoff_jitter_pct.min(100));
    // A nanosecond for what is rounded away.
    let spread = share(base, pct) + 1;
    let moved = wait.as_nanos().abs_diff(base.as_nanos());
    assert!(moved <= spread, "{base:?} became {wait:?} of {settings:?}");
    let more = settings.jittered_backoff(attempt, draw.saturating_add(1 << 32));
    assert!(wait <= more, "a larger draw gave {more:?} after {wait:?}");
}

fn share(of: Duration, pct: u32) -> u128 {
    of.as_nanos() * u128::from(pct) / 100
}

fn failure(settings: &RetrySettings, attempt: u32, ran: Duration, draw: u64) {
    let multiples = settings.attempt_reset_after_backoff_multiples;
    let verdict = settings.after_failure(attempt, ran, draw);
    // The longest wait, so many times over.
    let threshold = match attempt {
        0 | 1 => Duration::ZERO,
        _ => settings.max_backoff.saturating_mul(multiples),
    };
    if !threshold.is_zero() && ran > threshold {
        let delay = settings.jittered_backoff(1, draw);
        let again = Verdict::Retry { delay, attempt: 1 };
        assert_eq!(verdict, again, "{attempt} ran {ran:?} with {settings:?}");
        return;
    }
    let is_last = settings.n_attempts.is_some_and(|cap| attempt >= cap);
    let expected = match is_last {
        true => Verdict::GiveUp,
        false => Verdict::Retry {
            delay: settings.jittered_backoff(attempt, draw),
            attempt: attempt.saturating_add(1).min(COUNT_MAX),
        },
    };
    assert_eq!(verdict, expected, "{attempt} ran {ran:?} with {settings:?}");
    let warns = settings.n_warn_attempts.is_none_or(|last| attempt <= last);
    assert_eq!(settings.is_warning(attempt), warns);
}

/// A job runs as often as it may, and no more often, however long its runs take, unless
/// they are healthy.
fn failing(settings: &RetrySettings, ran: Duration, draw: u64) {
    let ran = ran.min(settings.healthy_after());
    let mut attempt = 1;
    for runs in 1..=FAILURES_MAX {
        match settings.after_failure(attempt, ran, draw) {
            Verdict::GiveUp => {
                let allowed = settings.n_attempts.map(|cap| cap.max(1));
                assert_eq!(Some(runs), allowed, "runs of {settings:?}");
                return;
            }
            Verdict::Retry { attempt: next, .. } => {
                assert_eq!(next, attempt + 1, "after {attempt} of {settings:?}");
                attempt = next;
            }
        }
    }
    let cap = settings.n_attempts.unwrap_or(u32::MAX);
    assert!(cap > FAILURES_MAX, "{FAILURES_MAX} runs of {settings:?}");
}

/// What follows a crash is what the documentation of `TypePolicy` says.
fn crash(policy: &TypePolicy, attempt: u32, crashes: u32, alive: Duration) {
    let healthy = alive >= policy.healthy_after;
    let next = |count: u32| count.saturating_add(1).min(COUNT_MAX);
    // The first attempt has nothing to start again.
    let attempt_next = if healthy && attempt > 1 {
        1
    } else {
        next(attempt)
    };
    let crashes_next = if healthy { 1 } else { next(crashes) };
    let after = policy.after_crash(attempt, crashes, alive);
    let crashed_out = policy
        .crashes_max
        .is_some_and(|max| crashes_next >= max.max(1));
    let used_up = policy
        .attempts_max
        .is_some_and(|max| attempt_next > max.max(1));
    let expected = match (crashed_out, used_up) {
        (true, _) => AfterCrash::Abandon(CRASHED_TOO_OFTEN),
        (false, true) => AfterCrash::Abandon(LOST_AT_LAST_ATTEMPT),
        (false, false) => AfterCrash::Retry {
            attempt: attempt_next,
            crashes: crashes_next,
        },
    };
    assert_eq!(
        after, expected,
        "{attempt}, {crashes}, {alive:?} of {policy:?}"
    );
}

/// A job that crashes again and again at once is given up as soon as it may not
/// run any more, for whichever of the two reasons comes first.
fn crashing(policy: &TypePolicy) {
    if policy.healthy_after.is_zero() {
        // Every crash is one of a healthy run.
        return;
    }
    let (mut attempt, mut crashes) = (1, 0);
    for runs in 1..=FAILURES_MAX {
        match policy.after_crash(attempt, crashes, Duration::ZERO) {
            AfterCrash::Retry {
                attempt: next_attempt,
                crashes: next_crashes,
            } => (attempt, crashes) = (next_attempt, next_crashes),
            AfterCrash::Abandon(_) => {
                let limits = [policy.attempts_max, policy.crashes_max];
                let allowed = limits.into_iter().flatten().min().map(|max| max.max(1));
                assert_eq!(Some(runs), allowed, "runs of {policy:?}");
                return;
            }
        }
    }
    let limits = [policy.attempts_max, policy.crashes_max];
    let beyond = limits.into_iter().flatten().all(|max| max > FAILURES_MAX);
    assert!(beyond, "{FAILURES_MAX} crashes of {policy:?}");
}
