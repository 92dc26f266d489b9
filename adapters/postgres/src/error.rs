//! What an error of the database means for a command.

use std::io;

use job_engine::{Command, Rejection, StoreError};
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
            let text = text + advice_on(&code);
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

/// What to do about an error of the database, beside what it says itself: "; " and a
/// sentence, or nothing.
pub fn advice(error: &sqlx::Error) -> &'static str {
    if let sqlx::Error::Io(error) = error
        && error.kind() == io::ErrorKind::ConnectionRefused
    {
        return "; check that the server runs, and host and port in the URL";
    }
    let code = error.as_database_error().and_then(|error| error.code());
    code.map_or("", |code| advice_on(&code))
}

/// By SQLSTATE.
fn advice_on(code: &str) -> &'static str {
    match code {
        // Protocol violation, of which parameters that a pooler does not know are one.
        "08P01" => {
            "; behind a pooler such as PgBouncer in transaction mode? use poll_only(true), and, \
             on a pool of your own, PgConnectOptions::extra_float_digits(None)"
        }
        // Duplicate prepared statement, unknown prepared statement.
        "42P05" | "26000" => {
            "; behind a pooler such as PgBouncer in transaction mode? use poll_only(true)"
        }
        // Invalid authorization, invalid password.
        "28000" | "28P01" => {
            "; check user and password in the URL; if they have changed since the start, give \
             the new ones to the pool with set_connect_options: connections of the service \
             follow it"
        }
        "42501" => {
            "; a service needs: GRANT USAGE ON the schema; GRANT SELECT, INSERT, UPDATE, DELETE \
             ON job_live, job_checkpoints; GRANT SELECT, INSERT ON job_specs, job_runs; GRANT \
             SELECT ON job_schema"
        }
        // Undefined table.
        "42P01" => {
            "; run the migrations, or, if they were run, have this connection see the tables: \
             its role and search_path matter"
        }
        "25006" => {
            "; the database is read-only: a standby (connect to the primary), or \
             default_transaction_read_only is on"
        }
        _ => "",
    }
}

/// Says what to do where a run writes in a transaction of the caller that works on a
/// snapshot from before the run's row changed.
pub(crate) fn explain_conflict(error: StoreError, command: &Command) -> StoreError {
    match error {
        StoreError::Failed(text)
            if text.ends_with("(40001)")
                && matches!(command, Command::Finish(_) | Command::Checkpoint(_)) =>
        {
            StoreError::Failed(format!(
                "{text}; the lease was renewed after the transaction took its snapshot: begin \
                 it with current_job.begin(), which takes the run's row first"
            ))
        }
        error => error,
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
    fn errors_that_have_a_usual_cause_say_what_to_do() {
        for (code, part) in [
            ("08P01", "poll_only(true)"),
            ("42P05", "poll_only(true)"),
            ("26000", "poll_only(true)"),
            ("28000", "; check user and password in the URL"),
            ("28P01", "; check user and password in the URL"),
            ("28P01", "set_connect_options"),
            ("42501", "GRANT"),
            ("42P01", "run the migrations"),
            ("25006", "read-only"),
        ] {
            assert!(advice_on(code).contains(part), "{code}");
        }
        assert_eq!(advice_on("22P02"), "");
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert!(advice(&refused.into()).contains("check that the server runs"));
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        assert_eq!(advice(&reset.into()), "");
    }

    #[test]
    fn a_conflict_of_a_run_s_own_writes_names_what_begins_safely() {
        let error = || StoreError::Failed("could not serialize (40001)".to_owned());
        let told = |command| explain_conflict(error(), &command).to_string();
        assert!(told(Command::Finish(Vec::new())).contains("current_job.begin()"));
        assert!(!told(Command::Spawn(Vec::new())).contains("current_job.begin()"));
    }

    #[test]
    fn the_end_of_the_connection_leaves_the_outcome_unknown() {
        check("57P01", true, "unknown");
        check("08007", false, "unknown");
        check("40003", false, "unknown");
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
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
