//! What can go wrong, one variant for each thing that a caller can act on.

use std::error::Error as _;
use std::fmt;

use job_engine::{Rejection, StoreError};
use job_tokio::WorkerEnded;
use thiserror::Error;

use crate::{JobId, JobType};

/// An error of user code: of an initializer or a runner.
type UserError = Box<dyn std::error::Error + Send + Sync>;

/// What went wrong in the service, a spawner, or a current job.
///
/// Its `Debug` is its text, too, with what caused it: that is what a `main` prints which
/// returns it, and what `unwrap` does.
#[derive(Error)]
#[non_exhaustive]
pub enum JobError {
    /// The database could not be reached, or failed.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    #[error("the database failed: {0}{advice}", advice = advice(.0))]
    Sqlx(#[from] sqlx::Error),
    /// A command of the job store failed. With [`StoreError::Unknown`] it may
    /// have been carried out all the same. ([`store`](crate::store) has the type.)
    #[error("the job store failed: {0}")]
    Store(#[source] StoreError),
    /// The store refuses what it was given, for instance a config of more than
    /// 64 MiB. Nothing was stored.
    #[error("refused: {0}")]
    Rejected(#[source] Rejection),
    /// The configuration does not make sense; the text says what to change.
    #[error("the configuration is wrong: {0}")]
    Config(String),
    /// The migrations could not be run, or the tables do not fit this version;
    /// the text says what to do.
    #[error("the tables of the job store are not ready: {0}")]
    Migration(#[source] UserError),
    /// Another job has this id.
    #[error("a job with the id {0} exists already")]
    DuplicateId(JobId),
    /// A unique job of this type exists.
    #[error("a unique job of the type `{0}` exists already")]
    DuplicateUniqueType(JobType),
    /// No initializer was registered for the type.
    #[error("no initializer is registered for the job type `{0}`")]
    NoInitializer(JobType),
    /// The initializer of the type failed.
    #[error("the initializer of the job type `{job_type}` failed: {source}")]
    InitializerFailed {
        /// The type.
        job_type: JobType,
        /// What the initializer returned.
        source: UserError,
    },
    /// This program cannot decode the config of a job: perhaps another version of it can.
    #[error("the config of a job of type `{job_type}` does not decode: {source}")]
    UndecodableConfig {
        /// The type.
        job_type: JobType,
        /// What serde says, and where in the config.
        source: UserError,
    },
    /// A runner failed.
    #[error("the runner of the job type `{job_type}` failed: {source}")]
    RunnerFailed {
        /// The type.
        job_type: JobType,
        /// What the runner returned.
        source: UserError,
    },
    /// A config has no JSON, or none that could be read again.
    #[error("the config of a job of type `{job_type}` cannot be serialized: {source}")]
    SerializeConfig {
        /// The type.
        job_type: JobType,
        /// Why.
        source: serde_json::Error,
    },
    /// An execution state has no JSON, or none that could be read again.
    #[error("the execution state of the job {job} cannot be serialized: {source}")]
    SerializeState {
        /// The job.
        job: JobId,
        /// Why.
        source: serde_json::Error,
    },
    /// The lease of the run is lost: another worker may run the job by now.
    /// Nothing was written. End the run, and roll back any transaction.
    #[error("the lease of this run of the job {0} is lost; end the run and roll back")]
    LeaseLost(JobId),
    /// There is no job with this id.
    #[error("there is no job with the id {0}")]
    NotFound(JobId),
    /// What is of one database was asked for, or used, where the jobs are in another.
    #[error("wrong backend: {asked} was asked for, and it is {used}")]
    OtherBackend {
        /// The backend that was asked for, or that a transaction is of.
        asked: &'static str,
        /// The one that is used.
        used: &'static str,
    },
    /// The worker has ended though nobody asked it to: it runs no jobs any more, while
    /// spawns go on. What it ran is run again when the leases run out.
    #[error(
        "the worker of this service ended by itself: {0}; its jobs run again elsewhere when \
         their leases run out; to run jobs here, restart the process, or open another service \
         on a runtime that lives as long as the service"
    )]
    WorkerEnded(#[source] WorkerEnded),
}

impl fmt::Debug for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let message = error.to_string();
            // Most say in their own text what caused them, and some add what to do.
            if !text.contains(&message) {
                text = format!("{text}: {message}");
            }
            cause = error.source();
        }
        f.write_str(&text)
    }
}

/// What to do about an error of the database, if that is known. Each database has codes of
/// its own.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
fn advice(error: &sqlx::Error) -> String {
    [
        #[cfg(feature = "postgres")]
        job_postgres::advice(error),
        #[cfg(feature = "sqlite")]
        job_sqlite::advice(error),
    ]
    .concat()
}

impl From<StoreError> for JobError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Rejected(rejection) => JobError::Rejected(rejection),
            error => JobError::Store(error),
        }
    }
}

/// The text of an error and of all that caused it, for the history.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        // Many errors repeat their cause in their own text.
        if !text.ends_with(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Error)]
    #[error("{text}")]
    struct Caused {
        text: &'static str,
        source: std::io::Error,
    }

    fn caused(text: &'static str) -> JobError {
        let source = std::io::Error::other("disk full");
        JobError::Migration(Caused { text, source }.into())
    }

    #[test]
    fn its_debug_is_what_it_says() {
        let id = JobId::new();
        for error in [
            JobError::Config("set one of path and pool".to_owned()),
            JobError::NotFound(id),
            JobError::Store(StoreError::Failed("it broke".to_owned())),
            caused("no room: disk full"),
        ] {
            assert_eq!(format!("{error:?}"), error.to_string());
            assert_eq!(format!("{error:#?}"), error.to_string());
        }
    }

    #[test]
    fn its_debug_adds_the_causes_that_it_leaves_out() {
        let said = "the tables of the job store are not ready: no room";
        let error = caused("no room");
        assert_eq!(error.to_string(), said);
        assert_eq!(format!("{error:?}"), format!("{said}: disk full"));
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn its_debug_repeats_no_cause_before_an_advice() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let error = JobError::Sqlx(sqlx::Error::Io(refused));
        assert!(error.to_string().contains("check that the server runs"));
        assert_eq!(format!("{error:?}"), error.to_string());
    }
}
