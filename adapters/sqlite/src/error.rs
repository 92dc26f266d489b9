//! What an error of SQLite means for a command.

use job_engine::{Rejection, StoreError};

/// Constraint failed, and string or blob too big (primary result codes of
/// SQLite).
const REFUSED: [i32; 2] = [19, 18];
/// Busy and locked.
const BUSY: [i32; 2] = [5, 6];

/// An error before the commit: the transaction is rolled back, so nothing
/// changed.
pub(crate) fn failed(error: sqlx::Error) -> StoreError {
    match primary_code(&error) {
        Some(code) if REFUSED.contains(&code) => {
            StoreError::Rejected(Rejection::Data(error.to_string()))
        }
        _ => StoreError::Failed(error.to_string()),
    }
}

/// An error of the commit. Busy means that it did not happen.
pub(crate) fn commit_failed(error: sqlx::Error) -> StoreError {
    match primary_code(&error) {
        Some(code) if BUSY.contains(&code) => StoreError::Failed(error.to_string()),
        _ => StoreError::Unknown(error.to_string()),
    }
}

/// The low byte of an extended result code is the primary one.
fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let code: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}
