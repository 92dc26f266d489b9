//! What an error of the database means for a command.

use job_engine::{Rejection, StoreError};
use sqlx::postgres::{PgDatabaseError, PgSeverity};

/// Characters that are kept of what the database says.
const TEXT_LEN_MAX: usize = 300;

/// Whether a command was refused, failed for sure, or may have been carried
/// out, given the error of one statement of it or of its commit.
///
/// An error that the server reports undoes the statement, and the transaction
/// around it. The exception is one that ends the connection: it may arrive
/// after the commit. The same goes for everything that is wrong with the
/// connection itself.
///
/// The text is short and has no data of the user in it.
pub fn store_error(error: sqlx::Error) -> StoreError {
    match &error {
        sqlx::Error::Database(database) => {
            let code = database.code().unwrap_or_default();
            // Without detail and context, which quote the data.
            let text = cut(&format!("{} ({code})", database.message()));
            let ends_connection =
                database
                    .try_downcast_ref::<PgDatabaseError>()
                    .is_none_or(|error| {
                        matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic)
                    });
            verdict(&code, ends_connection, text)
        }
        // From before anything was sent.
        sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::Configuration(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Encode(_)
        | sqlx::Error::TypeNotFound { .. }
        | sqlx::Error::BeginFailed
        | sqlx::Error::InvalidSavePointStatement => StoreError::Failed(cut(&error.to_string())),
        _ => StoreError::Unknown(cut(&error.to_string())),
    }
}

/// For getting a connection, and for commands that write nothing: whatever
/// happened, nothing changed.
pub(crate) fn read_error(error: sqlx::Error) -> StoreError {
    match store_error(error) {
        StoreError::Unknown(text) => StoreError::Failed(text),
        error => error,
    }
}

/// For a statement that follows one which may have been committed: the command
/// has to be repeated to get its reply.
pub(crate) fn reply_lost(error: sqlx::Error) -> StoreError {
    match store_error(error) {
        StoreError::Rejected(rejection) => StoreError::Unknown(rejection.to_string()),
        StoreError::Failed(text) | StoreError::Unknown(text) => StoreError::Unknown(text),
    }
}

fn verdict(code: &str, ends_connection: bool, text: String) -> StoreError {
    if ends_connection {
        return StoreError::Unknown(text);
    }
    match (code, code.get(..2)) {
        // Transaction resolution unknown, statement completion unknown.
        ("08007" | "40003", _) => StoreError::Unknown(text),
        // Undefined table.
        ("42P01", _) => StoreError::Failed(format!("{text}; run the migrations")),
        // Data exception, integrity constraint, program limit exceeded.
        (_, Some("22" | "23" | "54")) => StoreError::Rejected(Rejection::Data(text)),
        _ => StoreError::Failed(text),
    }
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_LEN_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(code: &str, ends_connection: bool, expected: &str) {
        let error = verdict(code, ends_connection, "text".to_owned());
        let name = match error {
            StoreError::Rejected(_) => "rejected",
            StoreError::Failed(_) => "failed",
            StoreError::Unknown(_) => "unknown",
        };
        assert_eq!(name, expected, "{code}");
    }

    #[test]
    fn data_that_does_not_fit_is_refused() {
        for code in ["22P02", "22021", "23505", "54001"] {
            check(code, false, "rejected");
        }
    }

    #[test]
    fn a_statement_that_the_server_undid_can_be_tried_again() {
        for code in [
            "40001", "40P01", "53100", "55P03", "57014", "25006", "42P01", "XX000",
        ] {
            check(code, false, "failed");
        }
    }

    #[test]
    fn the_end_of_the_connection_leaves_the_outcome_unknown() {
        check("57P01", true, "unknown");
        check("08007", false, "unknown");
        check("40003", false, "unknown");
        let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        let error = store_error(sqlx::Error::Io(reset));
        assert!(matches!(error, StoreError::Unknown(_)));
    }

    #[test]
    fn a_pool_without_connections_changed_nothing() {
        let error = store_error(sqlx::Error::PoolTimedOut);
        assert!(matches!(error, StoreError::Failed(_)));
    }

    #[test]
    fn once_something_is_committed_no_error_is_certain() {
        let error = reply_lost(sqlx::Error::PoolTimedOut);
        assert!(matches!(error, StoreError::Unknown(_)));
    }
}
