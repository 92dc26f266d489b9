//! Between the engine's points in time and those of applications.

use chrono::{DateTime, Utc};
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
