//! The clock of a worker: ahead of the true time or behind, fast or slow, and
//! set now and then.

use job_engine::Timestamp;

use crate::scenario::{START, WorkerSpec};

/// See the module. Times are microseconds of true time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    shown: i64,
    since_us: u64,
    ppm: i64,
}

const MILLION: i64 = 1_000_000;
/// Beyond every simulation, in microseconds: how long exactly does not matter.
const LONG_US: i64 = 11 * 366 * 24 * 3_600 * MILLION;
/// With eleven years of microseconds, products with it fit.
const PPM_MAX: i64 = 10_000;

impl Clock {
    pub(super) fn new(spec: &WorkerSpec) -> Self {
        Self {
            shown: START.as_micros() + spec.clock_ahead_ms * 1_000,
            since_us: 0,
            ppm: i64::from(spec.clock_drift_ppm).clamp(-PPM_MAX, PPM_MAX),
        }
    }

    /// What it shows.
    pub(super) fn read(&self, now_us: u64) -> Timestamp {
        let passed = (now_us - self.since_us).cast_signed();
        Timestamp::from_micros(self.shown + passed + passed * self.ppm / MILLION)
    }

    /// When it shows `at`, or more; `now_us` if it does already.
    pub(super) fn when(&self, at: Timestamp, now_us: u64) -> u64 {
        let ahead = at.as_micros() - self.shown;
        if self.ppm == 0 || ahead > LONG_US {
            let when = self.since_us.saturating_add_signed(ahead);
            return when.max(now_us);
        }
        let passed = ahead - ahead * self.ppm / (MILLION + self.ppm);
        let mut when = self.since_us.saturating_add_signed(passed).max(now_us);
        // The drift is rounded towards zero.
        while self.read(when) < at {
            when += 1;
        }
        while when > now_us && self.read(when - 1) >= at {
            when -= 1;
        }
        when
    }

    /// Sets it forward or back.
    pub(super) fn jump(&mut self, now_us: u64, by_ms: i64) {
        self.shown = self.read(now_us).as_micros() + by_ms * 1_000;
        self.since_us = now_us;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Knobs;

    fn clock(clock_ahead_ms: i64, clock_drift_ppm: i32) -> Clock {
        Clock::new(&WorkerSpec {
            key: 0,
            start_ms: 0,
            clock_ahead_ms,
            clock_drift_ppm,
            knobs: Knobs::default(),
        })
    }

    #[test]
    fn a_time_is_reached_when_it_is_shown_and_not_before() {
        for ppm in [-500, -1, 0, 1, 333] {
            let mut clock = clock(-5_000, ppm);
            clock.jump(1_000_000, 250);
            for ahead in [1, 999, 1_000_000, 3_600_000_000] {
                let at = Timestamp::from_micros(clock.read(2_000_000).as_micros() + ahead);
                let when = clock.when(at, 2_000_000);
                assert!(clock.read(when) >= at && clock.read(when - 1) < at);
            }
        }
    }

    #[test]
    fn what_is_shown_already_is_reached_now() {
        let clock = clock(60_000, 0);
        assert_eq!(clock.when(START, 77), 77);
    }
}
