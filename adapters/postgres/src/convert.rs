//! Between the engine's values and those of Postgres.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use job_engine::{ClaimId, Due, Fence, JobId, Run, Timestamp, WorkerId};
use job_tokio::{to_datetime, to_timestamp};
use sqlx::postgres::PgRow;
use sqlx::postgres::types::PgInterval;
use sqlx::{Decode, Postgres, Row, Type};

pub(crate) type Time = DateTime<Utc>;

/// A point in time as the statements take it.
pub(crate) fn time(at: Timestamp) -> Time {
    to_datetime(at)
}

/// A point in time that was read.
pub(crate) fn timestamp(at: Time) -> Timestamp {
    to_timestamp(at)
}

/// The last time that there is; the statements cut their sums to it.
pub(crate) fn time_max() -> Time {
    to_datetime(Timestamp::MAX)
}

/// A duration as an interval of whole microseconds, rounded up, and at most one
/// more than the range of [`Timestamp`]. Added to any time in it, that is still
/// far from where Postgres overflows, and it is longer than any two times are
/// apart.
pub(crate) fn interval(duration: Duration) -> PgInterval {
    let range = Timestamp::MAX.as_micros() - Timestamp::MIN.as_micros();
    let micros = i64::try_from(duration.as_nanos().div_ceil(1_000)).unwrap_or(i64::MAX);
    PgInterval {
        months: 0,
        days: 0,
        microseconds: micros.min(range + 1),
    }
}

/// A due time, as a time or as a delay: one of them is given.
pub(crate) fn due(due: Due) -> (Option<Time>, Option<PgInterval>) {
    match due {
        Due::Now => (None, Some(interval(Duration::ZERO))),
        Due::In(delay) => (None, Some(interval(delay))),
        Due::At(at) => (Some(time(at)), None),
    }
}

/// A count as the tables hold it.
pub(crate) fn count(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// The column `name` of a row, with the name in the error if it does not fit.
pub(crate) fn get<'r, T>(row: &'r PgRow, name: &str) -> Result<T, sqlx::Error>
where
    T: Decode<'r, Postgres> + Type<Postgres>,
{
    row.try_get(name)
}

/// A count that was read.
pub(crate) fn get_count(row: &PgRow, name: &str) -> Result<u32, sqlx::Error> {
    let count: i32 = row.try_get(name)?;
    u32::try_from(count).map_err(|error| corrupt(name, error))
}

/// A point in time that was read.
pub(crate) fn get_time(row: &PgRow, name: &str) -> Result<Timestamp, sqlx::Error> {
    row.try_get(name).map(timestamp)
}

/// The run that the columns `id`, `fence`, `worker` and `claim_seq` name.
pub(crate) fn get_run(row: &PgRow) -> Result<Run, sqlx::Error> {
    Ok(Run {
        job: JobId(row.try_get("id")?),
        fence: Fence(row.try_get("fence")?),
        claim: ClaimId {
            worker: WorkerId(row.try_get("worker")?),
            seq: row.try_get("claim_seq")?,
        },
    })
}

/// The runs that a statement returned.
pub(crate) fn get_runs(rows: &[PgRow]) -> Result<BTreeSet<Run>, sqlx::Error> {
    rows.iter().map(get_run).collect()
}

/// The tables hold what this version does not write.
pub(crate) fn corrupt(
    name: &str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> sqlx::Error {
    sqlx::Error::ColumnDecode {
        index: name.to_owned(),
        source: source.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_rounded_up_and_cut() {
        assert_eq!(interval(Duration::from_nanos(1)).microseconds, 1);
        assert_eq!(interval(Duration::from_micros(7)).microseconds, 7);
        let longest = interval(Duration::MAX).microseconds;
        let all = Timestamp::MAX.saturating_since(Timestamp::MIN);
        assert_eq!(interval(all).microseconds + 1, longest);
        // 294,276 is the last year of Postgres.
        let year = 365 * 24 * 3_600 * 1_000_000;
        assert!(longest / year + 9_999 < 294_276);
    }

    #[test]
    fn a_count_beyond_the_column_is_its_greatest() {
        assert_eq!(count(u32::MAX), i32::MAX);
        assert_eq!(count(3), 3);
    }
}
