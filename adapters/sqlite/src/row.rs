//! Between the engine's values and the columns of SQLite.

use std::collections::BTreeSet;

use job_engine::{ClaimId, Fence, JobId, Run, StoreError, Timestamp, WorkerId};
use serde::Serialize;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use sqlx::types::Uuid;

use crate::error::failed;

/// The rows of a batch, as the one parameter that `json_each` reads.
pub(crate) fn json<T: Serialize>(rows: &[T]) -> String {
    serde_json::to_string(rows).expect("texts, numbers and nulls have a JSON form")
}

/// An id as `unhex` reads it.
pub(crate) fn hex(id: Uuid) -> String {
    id.as_simple().to_string()
}

/// A column of a row.
pub(crate) fn get<'r, T>(row: &'r SqliteRow, column: &str) -> Result<T, StoreError>
where
    T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    row.try_get(column).map_err(failed)
}

pub(crate) fn time(row: &SqliteRow, column: &str) -> Result<Timestamp, StoreError> {
    get(row, column).map(Timestamp::from_micros)
}

pub(crate) fn some_time(row: &SqliteRow, column: &str) -> Result<Option<Timestamp>, StoreError> {
    let micros: Option<i64> = get(row, column)?;
    Ok(micros.map(Timestamp::from_micros))
}

/// An attempt or a count.
pub(crate) fn count(row: &SqliteRow, column: &str) -> Result<u32, StoreError> {
    let count: i64 = get(row, column)?;
    u32::try_from(count).map_err(|_| corrupt("a count that is none"))
}

pub(crate) fn run(row: &SqliteRow) -> Result<Run, StoreError> {
    Ok(Run {
        job: JobId(get(row, "id")?),
        fence: Fence(get(row, "fence")?),
        claim: ClaimId {
            worker: WorkerId(get(row, "worker")?),
            seq: get(row, "claim_seq")?,
        },
    })
}

pub(crate) fn runs(rows: &[SqliteRow]) -> Result<BTreeSet<Run>, StoreError> {
    rows.iter().map(run).collect()
}

/// The tables hold what no version of this program writes.
pub(crate) fn corrupt(what: &str) -> StoreError {
    StoreError::Failed(format!("the tables hold {what}"))
}
