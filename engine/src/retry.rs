//! What happens after a failed run: how long to wait, and when to give up.

use std::time::Duration;

use crate::limits::COUNT_MAX;

/// How a job type retries after an error.
///
/// The wait before the next attempt is `min_backoff * 2^(attempt - 1)`, at most
/// `max_backoff`, moved at random by up to `backoff_jitter_pct` percent either
/// way and never above `max_backoff`. No value of any field overflows.
///
/// By default a job that fails at once is tried 30 times within 18 hours:
///
/// | after attempt | it waits | since the first run |
/// |---|---|---|
/// | 1 | 1 s | 1 s |
/// | 2 | 2 s | 3 s |
/// | 3 | 4 s | 7 s |
/// | 4 | 8 s | 15 s |
/// | 5 | 16 s | 31 s |
/// | 6 | 32 s | 1 min 3 s |
/// | 7 | 1 min 4 s | 2 min 7 s |
/// | 8 | 2 min 8 s | 4 min 15 s |
/// | 9 | 4 min 16 s | 8 min 31 s |
/// | 10 | 8 min 32 s | 17 min 3 s |
/// | 11 | 17 min 4 s | 34 min 7 s |
/// | 12 | 34 min 8 s | 1 h 8 min 15 s |
/// | 13 to 29 | 1 h each | 18 h 8 min 15 s |
/// | 30 | the job ends as errored | |
///
/// Each wait is up to a fifth shorter or, below the hour, longer, and the time that the
/// runs take comes on top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetrySettings {
    /// Attempts in all, the first included, until one lives for so long that they start
    /// again ([`attempt_reset_after_backoff_multiples`](Self::attempt_reset_after_backoff_multiples));
    /// `None` retries for ever. Default 30. A job always runs once: 0 means the same as 1.
    pub n_attempts: Option<u32>,
    /// Failures up to this attempt are logged as warnings, later ones as errors;
    /// `None` keeps all at warning. The final one is an error in any case.
    /// Default 3.
    pub n_warn_attempts: Option<u32>,
    /// The wait after the first failure. Default 1 s. With 0, a job that fails is tried again
    /// at once each time: 0 doubled is 0.
    pub min_backoff: Duration,
    /// The longest wait. Default 1 h. Below `min_backoff` it wins.
    pub max_backoff: Duration,
    /// Jitter in percent of the wait, 0 to 100; above 100 counts as 100.
    /// Default 20.
    pub backoff_jitter_pct: u8,
    /// A run that fails, or loses its lease, only after it had lived for longer than
    /// this many times `max_backoff` was healthy: the job starts again at attempt 1.
    /// So a resident job that ran for days is not ended by its thirtieth failure in a
    /// year, and a job that takes minutes to fail is. Default 3, with the other defaults
    /// 3 h; 0 never starts again. The time that a job waits for a worker does not count.
    pub attempt_reset_after_backoff_multiples: u32,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self {
            n_attempts: Some(30),
            n_warn_attempts: Some(3),
            min_backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(60 * 60),
            backoff_jitter_pct: 20,
            attempt_reset_after_backoff_multiples: 3,
        }
    }
}

/// What to do after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Run again.
    Retry {
        /// After this wait.
        delay: Duration,
        /// As this attempt.
        attempt: u32,
    },
    /// End the job as errored.
    GiveUp,
}

impl RetrySettings {
    /// Retries for ever, and keeps every failure at the level of a warning.
    pub fn repeat_indefinitely() -> Self {
        Self {
            n_attempts: None,
            n_warn_attempts: None,
            ..Self::default()
        }
    }

    /// The wait after `attempt` (from 1) failed, without jitter.
    pub fn backoff(&self, attempt: u32) -> Duration {
        // Below, a factor that overflows stands for more than any maximum.
        if self.min_backoff.is_zero() {
            return Duration::ZERO;
        }
        let max = self.max_backoff;
        let nanos = 1_u128
            .checked_shl(attempt.saturating_sub(1))
            .and_then(|factor| self.min_backoff.as_nanos().checked_mul(factor));
        match nanos {
            Some(nanos) if nanos < max.as_nanos() => from_nanos(nanos),
            _ => max,
        }
    }

    /// The wait after `attempt` failed; `draw` is a uniformly random number.
    pub fn jittered_backoff(&self, attempt: u32, draw: u64) -> Duration {
        let wait = jitter(self.backoff(attempt), self.backoff_jitter_pct, draw);
        wait.min(self.max_backoff)
    }

    /// What follows the failure of `attempt`, which ran for `ran`.
    pub fn after_failure(&self, attempt: u32, ran: Duration, draw: u64) -> Verdict {
        if self.was_healthy(attempt, ran) {
            return Verdict::Retry {
                delay: self.jittered_backoff(1, draw),
                attempt: 1,
            };
        }
        let next = attempt.saturating_add(1).min(COUNT_MAX);
        match self.n_attempts {
            Some(cap) if attempt >= cap => Verdict::GiveUp,
            _ => Verdict::Retry {
                delay: self.jittered_backoff(attempt, draw),
                attempt: next,
            },
        }
    }

    /// Whether the failure of `attempt` is no more than a warning.
    pub fn is_warning(&self, attempt: u32) -> bool {
        self.n_warn_attempts.is_none_or(|last| attempt <= last)
    }

    /// A run that lives for longer counts as healthy.
    ///
    /// Without a backoff, or with a multiple of zero, every failure would be one
    /// of a healthy run and the job would be retried for ever, so none is.
    pub fn healthy_after(&self) -> Duration {
        let multiples = self.attempt_reset_after_backoff_multiples;
        let threshold = self.max_backoff.saturating_mul(multiples);
        if threshold.is_zero() {
            Duration::MAX
        } else {
            threshold
        }
    }

    fn was_healthy(&self, attempt: u32, ran: Duration) -> bool {
        // The first attempt has nothing to start again.
        attempt > 1 && ran > self.healthy_after()
    }
}

/// `base` moved by up to `pct` percent (at most 100) either way, as `draw` says.
pub(crate) fn jitter(base: Duration, pct: u8, draw: u64) -> Duration {
    let spread = base.as_nanos() / 100 * u128::from(pct.min(100));
    // `draw` scaled to 0..=2 * spread. Both factors fit: a Duration has fewer
    // than 2^94 nanoseconds, so the high 32 bits of the draw are used.
    let offset = ((2 * spread) * u128::from(draw >> 32)) / u128::from(u32::MAX);
    let nanos = base.as_nanos() - spread + offset;
    from_nanos(nanos)
}

fn from_nanos(nanos: u128) -> Duration {
    match u64::try_from(nanos / 1_000_000_000) {
        Ok(secs) => Duration::new(secs, (nanos % 1_000_000_000) as u32),
        Err(_) => Duration::MAX,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_duration() -> impl Strategy<Value = Duration> {
        prop_oneof![
            Just(Duration::ZERO),
            Just(Duration::MAX),
            (any::<u64>(), 0..1_000_000_000_u32).prop_map(|(s, n)| Duration::new(s, n)),
            (0..100_000_u64).prop_map(Duration::from_millis),
        ]
    }

    fn any_settings() -> impl Strategy<Value = RetrySettings> {
        (
            any::<Option<u32>>(),
            any_duration(),
            any_duration(),
            any::<u8>(),
            any::<u32>(),
        )
            .prop_map(|(n_attempts, min, max, pct, multiples)| RetrySettings {
                n_attempts,
                n_warn_attempts: None,
                min_backoff: min,
                max_backoff: max,
                backoff_jitter_pct: pct,
                attempt_reset_after_backoff_multiples: multiples,
            })
    }

    proptest! {
        #[test]
        fn the_wait_is_within_the_jitter_and_never_above_the_maximum(
            settings in any_settings(), attempt in any::<u32>(), draw in any::<u64>()
        ) {
            let wait = settings.jittered_backoff(attempt, draw);
            let base = settings.backoff(attempt);
            let spread = base.as_nanos() / 100 * u128::from(settings.backoff_jitter_pct.min(100));
            prop_assert!(wait <= settings.max_backoff);
            prop_assert!(wait.as_nanos() >= base.as_nanos() - spread);
            prop_assert!(wait.as_nanos() <= base.as_nanos() + spread);
        }

        #[test]
        fn a_job_never_runs_beyond_its_attempts(
            settings in any_settings(), ran in any_duration(), draw in any::<u64>()
        ) {
            let cap = settings.n_attempts.unwrap_or(u32::MAX);
            if let Verdict::Retry { attempt, .. } = settings.after_failure(cap, ran, draw) {
                prop_assert!(attempt <= cap);
            }
        }
    }

    #[test]
    fn the_wait_doubles_up_to_the_maximum() {
        let settings = RetrySettings {
            max_backoff: Duration::from_secs(10),
            ..RetrySettings::default()
        };
        let waits: Vec<u64> = (1..=6).map(|n| settings.backoff(n).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
        assert_eq!(settings.backoff(u32::MAX).as_secs(), 10);
    }

    /// Found by fuzzing: it waited for `max_backoff` from attempt 129 on.
    #[test]
    fn a_job_without_backoff_never_waits_however_often_it_fails() {
        let settings = RetrySettings {
            min_backoff: Duration::ZERO,
            ..RetrySettings::default()
        };
        for attempt in [1, 2, 128, 129, u32::MAX] {
            assert_eq!(settings.backoff(attempt), Duration::ZERO, "{attempt}");
        }
    }

    #[test]
    fn the_jitter_reaches_both_of_its_ends() {
        let second = Duration::from_secs(1);
        assert_eq!(jitter(second, 20, 0), Duration::from_millis(800));
        assert_eq!(jitter(second, 20, u64::MAX), Duration::from_millis(1_200));
        assert_eq!(jitter(second, 255, 0), Duration::ZERO);
    }

    #[test]
    fn zero_attempts_mean_one() {
        let settings = RetrySettings {
            n_attempts: Some(0),
            ..RetrySettings::default()
        };
        let verdict = settings.after_failure(1, Duration::ZERO, 0);
        assert_eq!(verdict, Verdict::GiveUp);
    }

    #[test]
    fn a_job_without_backoff_gives_up_however_long_its_runs_take() {
        let settings = RetrySettings {
            n_attempts: Some(2),
            min_backoff: Duration::ZERO,
            ..RetrySettings::default()
        };
        let verdict = settings.after_failure(2, Duration::from_secs(60), 0);
        assert_eq!(verdict, Verdict::GiveUp);
        let settings = RetrySettings {
            attempt_reset_after_backoff_multiples: 0,
            ..RetrySettings::default()
        };
        let verdict = settings.after_failure(30, Duration::from_secs(60), 0);
        assert_eq!(verdict, Verdict::GiveUp);
        assert_eq!(settings.healthy_after(), Duration::MAX);
    }

    #[test]
    fn a_long_healthy_run_starts_the_count_again() {
        let settings = RetrySettings::default();
        let three_hours = Duration::from_secs(3 * 3600);
        let short = settings.after_failure(3, three_hours, u64::MAX / 2);
        assert!(matches!(short, Verdict::Retry { attempt: 4, .. }));
        let longer = three_hours + Duration::from_secs(1);
        let long = settings.after_failure(3, longer, u64::MAX / 2);
        assert!(matches!(long, Verdict::Retry { attempt: 1, .. }));
        // Also at the cap: the job had recovered.
        let capped = settings.after_failure(30, longer, 0);
        assert!(matches!(capped, Verdict::Retry { attempt: 1, .. }));
    }

    #[test]
    fn the_failure_of_a_first_attempt_counts_however_long_it_lived() {
        let verdict = RetrySettings::default().after_failure(1, Duration::MAX, 0);
        assert!(matches!(verdict, Verdict::Retry { attempt: 2, .. }));
    }

    #[test]
    fn failures_are_warnings_up_to_an_attempt() {
        let settings = RetrySettings {
            n_warn_attempts: Some(3),
            ..RetrySettings::default()
        };
        let warnings = (1..=5).filter(|attempt| settings.is_warning(*attempt));
        assert_eq!(warnings.collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn what_is_repeated_indefinitely_neither_ends_nor_alarms() {
        let settings = RetrySettings::repeat_indefinitely();
        let verdict = settings.after_failure(1_000_000, Duration::ZERO, 0);
        assert!(matches!(verdict, Verdict::Retry { .. }));
        assert!(settings.is_warning(1_000_000));
        assert_eq!(settings.max_backoff, RetrySettings::default().max_backoff);
    }

    /// It was set back to attempt 1 after each run that had taken longer than three times
    /// the wait before it.
    #[test]
    fn a_job_that_takes_its_time_to_fail_is_given_up_after_as_many_attempts() {
        for (attempts, secs) in [(30, 4), (30, 300), (2, 30)] {
            let settings = RetrySettings {
                n_attempts: Some(attempts),
                backoff_jitter_pct: 0,
                ..RetrySettings::default()
            };
            let (mut attempt, mut waits) = (1, Vec::new());
            while let Verdict::Retry {
                delay,
                attempt: next,
            } = settings.after_failure(attempt, Duration::from_secs(secs), 0)
            {
                waits.push(delay);
                assert_eq!(next, attempt + 1);
                attempt = next;
            }
            assert_eq!(attempt, attempts);
            let expected = (1..attempts).map(|failed| settings.backoff(failed));
            assert_eq!(waits, expected.collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_documented_times_are_those_of_the_defaults() {
        let settings = RetrySettings::default();
        assert_eq!(settings.n_attempts, Some(30));
        let secs = |attempts| {
            (1..=attempts)
                .map(|n| settings.backoff(n).as_secs())
                .sum::<u64>()
        };
        assert_eq!(secs(12), 3600 + 8 * 60 + 15);
        assert_eq!(secs(29), 18 * 3600 + 8 * 60 + 15);
        assert_eq!(settings.healthy_after(), Duration::from_secs(3 * 3600));
    }
}
