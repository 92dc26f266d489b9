//! Between the engine's points in time and those of applications.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use job_engine::Timestamp;

/// A point in time as applications see it.
pub fn to_datetime(at: Timestamp) -> DateTime<Utc> {
    // The range of `Timestamp` is far inside that of `DateTime`.
    DateTime::from_timestamp_micros(at.as_micros()).expect("the years 1 to 9999 fit")
}

/// A point in time as the engine sees it: whole microseconds, rounded down, and
/// moved into the years 1 to 9999.
pub fn to_timestamp(at: DateTime<Utc>) -> Timestamp {
    Timestamp::from_micros(at.timestamp_micros())
}

/// `at`, moved into the years 1 to 9999.
pub(crate) fn clamp(at: DateTime<Utc>) -> DateTime<Utc> {
    at.clamp(to_datetime(Timestamp::MIN), to_datetime(Timestamp::MAX))
}

/// Whether an artificial clock ever shows `at`: not after the year 9999.
pub(crate) fn is_reached(at: DateTime<Utc>) -> bool {
    at <= to_datetime(Timestamp::MAX)
}

/// So long after `at`, to the nanosecond; `None` if no artificial clock ever
/// shows that.
pub(crate) fn later(at: DateTime<Utc>, duration: Duration) -> Option<DateTime<Utc>> {
    let duration = TimeDelta::from_std(duration).ok()?;
    at.checked_add_signed(duration).filter(|at| is_reached(*at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_goes_there_and_back() {
        for at in [Timestamp::MIN, Timestamp::EPOCH, Timestamp::MAX] {
            assert_eq!(to_timestamp(to_datetime(at)), at);
        }
        assert_eq!(to_timestamp(DateTime::<Utc>::MAX_UTC), Timestamp::MAX);
        assert_eq!(to_timestamp(DateTime::<Utc>::MIN_UTC), Timestamp::MIN);
    }
}
