//! Points in time as the engine sees them: data, never read from a clock.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point in time: microseconds since the Unix epoch, UTC.
///
/// The range is the years 1 to 9999, which every store and every calendar type
/// around it can hold; a time outside is moved to the nearest end. So "the far
/// past" is due at once and "the far future" stays pending, and no arithmetic
/// overflows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// 0001-01-01T00:00:00Z.
    pub const MIN: Self = Self(-62_135_596_800_000_000);
    /// 9999-12-31T23:59:59.999999Z.
    pub const MAX: Self = Self(253_402_300_799_999_999);
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(0);

    /// The time that lies `micros` microseconds after the Unix epoch, moved
    /// into the range.
    pub const fn from_micros(micros: i64) -> Self {
        if micros < Self::MIN.0 {
            Self::MIN
        } else if micros > Self::MAX.0 {
            Self::MAX
        } else {
            Self(micros)
        }
    }

    /// Microseconds since the Unix epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// `duration` later, at most [`Timestamp::MAX`]. Fractions of a microsecond
    /// are rounded up, so that nothing is ever early.
    pub fn saturating_add(self, duration: Duration) -> Self {
        let micros = i64::try_from(duration.as_nanos().div_ceil(1_000)).unwrap_or(i64::MAX);
        Self::from_micros(self.0.saturating_add(micros))
    }

    /// How long after `earlier` this is; zero if it is not after it.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        i64::deserialize(deserializer).map(Self::from_micros)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}us", self.0)
    }
}

/// When a job is to run next, before the store's clock has been asked.
///
/// A delay is added to the *store's* now, so the clocks of workers do not
/// matter for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Due {
    /// At once.
    Now,
    /// So long after the store's now.
    In(Duration),
    /// At this time; a time in the past is at once.
    At(Timestamp),
}

impl Due {
    /// The time that this means on a store whose clock shows `now`.
    pub fn resolve(self, now: Timestamp) -> Timestamp {
        match self {
            Due::Now => now,
            Due::In(delay) => now.saturating_add(delay),
            Due::At(at) => at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_stays_in_range_at_both_ends() {
        assert_eq!(Timestamp::MAX.saturating_add(Duration::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::from_micros(i64::MIN), Timestamp::MIN);
        assert_eq!(
            Timestamp::MIN.saturating_since(Timestamp::MAX),
            Duration::ZERO
        );
        let all = Timestamp::MAX.saturating_since(Timestamp::MIN);
        assert_eq!(Timestamp::MIN.saturating_add(all), Timestamp::MAX);
    }

    #[test]
    fn a_delay_is_rounded_up_so_that_nothing_is_early() {
        let due = Due::In(Duration::from_nanos(1)).resolve(Timestamp::EPOCH);
        assert_eq!(due.as_micros(), 1);
    }

    #[test]
    fn a_time_is_shown_with_its_unit() {
        assert_eq!(Timestamp::from_micros(-5).to_string(), "-5us");
    }
}
