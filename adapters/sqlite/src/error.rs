//! What an error of SQLite means for a command.
//!
//! Everything before the commit is certain: a transaction that did not commit
//! changed nothing. Only a commit can leave open what happened.

use job_engine::{Rejection, StoreError};

/// Primary result codes of SQLite: <https://www.sqlite.org/rescode.html>.
mod code {
    pub(super) const BUSY: i32 = 5;
    pub(super) const LOCKED: i32 = 6;
    pub(super) const TOO_BIG: i32 = 18;
    pub(super) const CONSTRAINT: i32 = 19;
    pub(super) const MISMATCH: i32 = 20;
}

/// The extended code of a transaction that began as a reader, and whose view of
/// the database was out of date when it came to write.
const BUSY_SNAPSHOT: i32 = 517;

/// What to do about an error of SQLite in a transaction of the application, beside what it
/// says itself: "; " and a sentence, or nothing.
pub fn advice(error: &sqlx::Error) -> &'static str {
    match result_code(error) {
        Some(BUSY_SNAPSHOT) => {
            "; the transaction began as a reader, and another has written since: begin it as a \
             writer, by job::backend::begin_immediate"
        }
        Some(extended) if primary(extended) == code::BUSY => {
            "; another transaction was writing, and one that begins as a reader does not wait \
             for it: begin by job::backend::begin_immediate, and give the options of your pool \
             a busy_timeout of some seconds"
        }
        _ => "",
    }
}

/// An error before the commit.
///
/// Data that breaks a constraint or is too big stays so, and is rejected. All
/// else may pass: another writer that is slow, a full disk, a file that someone
/// has to restore.
pub(crate) fn failed(error: sqlx::Error) -> StoreError {
    match result_code(&error).map(primary) {
        Some(code::CONSTRAINT | code::TOO_BIG | code::MISMATCH) => {
            StoreError::Rejected(Rejection::Data(error.to_string()))
        }
        _ => StoreError::Failed(format!("{error}{}", advice(&error))),
    }
}

/// An error of the begin of a transaction of the store's own. That has waited for others as
/// long as it may, and most likely the one that waits for it has one of them open.
pub(crate) fn begin_failed(error: sqlx::Error) -> StoreError {
    let busy = result_code(&error).map(primary) == Some(code::BUSY);
    if busy || matches!(error, sqlx::Error::PoolTimedOut) {
        return StoreError::Failed(format!(
            "{error}; another transaction was open all the time: is it one of this process? \
             Spawn in that (`.in_tx(&mut tx)`), keep the state of a run in that \
             (`update_execution_state_in_op`), or end it first"
        ));
    }
    failed(error)
}

/// An error of the commit. Busy and locked mean that it did not happen; after
/// an I/O error, it may turn out either way when the file is next opened.
pub(crate) fn commit_failed(error: sqlx::Error) -> StoreError {
    match result_code(&error).map(primary) {
        Some(code::BUSY | code::LOCKED) => StoreError::Failed(error.to_string()),
        _ => StoreError::Unknown(error.to_string()),
    }
}

fn result_code(error: &sqlx::Error) -> Option<i32> {
    error.as_database_error()?.code()?.parse().ok()
}

/// The low byte of an extended result code is the primary one.
fn primary(extended: i32) -> i32 {
    extended & 0xff
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::error::Error;
    use std::fmt;

    use sqlx::error::{DatabaseError, ErrorKind};

    use super::*;

    #[derive(Debug)]
    struct Code(i32);

    impl fmt::Display for Code {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "code {}", self.0)
        }
    }

    impl Error for Code {}

    impl DatabaseError for Code {
        fn message(&self) -> &str {
            "an error of SQLite"
        }

        fn code(&self) -> Option<Cow<'_, str>> {
            Some(self.0.to_string().into())
        }

        fn as_error(&self) -> &(dyn Error + Send + Sync + 'static) {
            self
        }

        fn as_error_mut(&mut self) -> &mut (dyn Error + Send + Sync + 'static) {
            self
        }

        fn into_error(self: Box<Self>) -> Box<dyn Error + Send + Sync + 'static> {
            self
        }

        fn kind(&self) -> ErrorKind {
            ErrorKind::Other
        }
    }

    fn sqlite(code: i32) -> sqlx::Error {
        sqlx::Error::Database(Box::new(Code(code)))
    }

    #[test]
    fn data_that_breaks_a_constraint_or_is_too_big_is_rejected() {
        // Unique (extended), datatype of a strict table (extended), too big.
        for code in [2067, 3091, 18] {
            let error = failed(sqlite(code));
            assert!(matches!(error, StoreError::Rejected(Rejection::Data(_))));
        }
    }

    #[test]
    fn all_else_before_the_commit_has_failed_for_sure() {
        // Busy, locked, I/O, corrupt, full, read-only, no database.
        for code in [5, 6, 266, 11, 13, 8, 26] {
            assert!(matches!(failed(sqlite(code)), StoreError::Failed(_)));
        }
        let error = failed(sqlx::Error::WorkerCrashed);
        assert!(matches!(error, StoreError::Failed(_)));
    }

    #[test]
    fn what_did_not_wait_for_a_writer_is_told_how_to_begin() {
        // Busy, busy while the log is recovered, and a snapshot that is out of date.
        for code in [5, 261, BUSY_SNAPSHOT] {
            let advice = advice(&sqlite(code));
            assert!(advice.contains("job::backend::begin_immediate"), "{code}");
            assert!(failed(sqlite(code)).to_string().ends_with(advice));
        }
        // Locked within the process, constraint, full.
        for code in [6, 19, 13] {
            assert_eq!(advice(&sqlite(code)), "", "{code}");
        }
        assert_eq!(advice(&sqlx::Error::WorkerCrashed), "");
    }

    #[test]
    fn what_waited_for_a_writer_in_vain_is_told_to_join_it() {
        for error in [sqlite(5), sqlx::Error::PoolTimedOut] {
            let text = begin_failed(error).to_string();
            assert!(text.contains(".in_tx"), "{text}");
            assert!(!text.contains("begin_immediate"), "{text}");
        }
        assert!(!begin_failed(sqlite(13)).to_string().contains(".in_tx"));
    }

    #[test]
    fn a_commit_that_was_not_just_busy_leaves_the_outcome_unknown() {
        assert!(matches!(commit_failed(sqlite(5)), StoreError::Failed(_)));
        // I/O of an fsync.
        let error = commit_failed(sqlite(1034));
        assert!(matches!(error, StoreError::Unknown(_)));
        let error = commit_failed(sqlx::Error::WorkerCrashed);
        assert!(matches!(error, StoreError::Unknown(_)));
    }
}
