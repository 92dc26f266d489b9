//! What applications implement: initializers and runners, and what they return.

use std::error::Error;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::backend::{Backend, DefaultBackend};
use crate::{CurrentJob, Job, JobSpawner, JobType, RetrySettings};

/// Crashes in a row after which a job ends as errored, unless its initializer
/// says otherwise. All jobs that a process holds when it crashes are counted, so the
/// limit leaves room for the innocent ones. At their first attempt those can be jobs
/// that were claimed ahead and wait for a place; later only those that run.
pub const CRASHES_MAX_DEFAULT: u32 = 10;

/// For how long a job is put back whose config nobody can decode, unless its initializer
/// says otherwise: an hour.
pub const UNDECODABLE_MAX_DEFAULT: Duration = Duration::from_secs(60 * 60);

/// Describes a job type and makes a runner for each run of it.
pub trait JobInitializer<B: Backend = DefaultBackend>: Send + Sync + 'static {
    /// What a job of this type is given; stored as JSON.
    type Config: Serialize + DeserializeOwned + Send + Sync;

    /// The type. Asked once, when the initializer is registered.
    fn job_type(&self) -> JobType;

    /// What follows a failure. Asked once, when the initializer is registered. Default
    /// [`RetrySettings::default`]: 30 attempts in 18 hours.
    fn retry_on_error_settings(&self) -> RetrySettings {
        RetrySettings::default()
    }

    /// Crashes in a row after which a job of this type ends as errored: a job
    /// that kills its process must not do so for ever. `None` for no limit; 0 means the
    /// same as 1, that the first crash ends the job. Default [`CRASHES_MAX_DEFAULT`]. Asked
    /// once, when the initializer is registered.
    ///
    /// A crash is a lease that ran out, counted apart from errors. The count
    /// starts again when a run ends in any other way, apart from being put back, or had
    /// kept its lease for long: for `max_backoff` times `attempt_reset_after_backoff_multiples`.
    fn crashes_max(&self) -> Option<u32> {
        Some(CRASHES_MAX_DEFAULT)
    }

    /// A job whose config this program cannot decode is put back, for a program that can:
    /// during a deploy old and new versions share the jobs. It costs no attempt, and the
    /// wait until it is tried again grows to a minute. Once that has gone on for so long,
    /// the job ends as errored; with 0, the first time. Default
    /// [`UNDECODABLE_MAX_DEFAULT`]; make it longer than your longest deploy. Asked once, when
    /// the initializer is registered.
    ///
    /// That is so if [`JobInitializer::init`] fails and [`Job::config`] did so before. All
    /// other errors count as failures.
    fn undecodable_max(&self) -> Duration {
        UNDECODABLE_MAX_DEFAULT
    }

    /// Makes the runner of one run. The spawner is for runners that spawn
    /// further jobs of their own type.
    ///
    /// # Errors
    ///
    /// Any; it counts as a failure of the run, as does a panic, unless the config does not
    /// decode ([`JobInitializer::undecodable_max`]).
    fn init(
        &self,
        job: &Job,
        spawner: JobSpawner<Self::Config, B>,
    ) -> Result<Box<dyn JobRunner<B>>, Box<dyn Error>>;
}

/// Performs one run of a job.
#[async_trait]
pub trait JobRunner<B: Backend = DefaultBackend>: Send + Sync + 'static {
    /// Does the work. It may run more than once: after an error, after a crash,
    /// and, if its lease was lost, at the same time as elsewhere. What it does
    /// exactly once, it does in the transaction that it completes with.
    ///
    /// It is aborted by dropping its future, `shutdown_timeout` after it was asked to end.
    /// Work that it has started in `spawn_blocking` or in a task of its own goes on then,
    /// beside the next run of the job, unless it holds this one with a
    /// [`RunGuard`](crate::RunGuard).
    ///
    /// # Errors
    ///
    /// Any; the job is tried again as its type's [`RetrySettings`] say. A panic
    /// counts as an error.
    async fn run(&self, current_job: CurrentJob<B>) -> Result<JobCompletion<B>, Box<dyn Error>>;
}

/// How a run ended well.
///
/// The variants with a transaction (`...WithTx`) or operation (`...WithOp`)
/// record the end in it and commit it: the caller's writes and the end of the
/// run happen together or not at all. If the lease is lost by then, it is
/// rolled back.
///
/// A reschedule sets the attempt back to 1 and keeps the execution state. When the next run
/// is due is judged by the clock of the database, or by the artificial clock of the service.
/// Times are kept to the microsecond, in the years 1 to 9999: a wait is rounded up, a point
/// in time down, and what lies outside is moved to the nearest end.
pub enum JobCompletion<B: Backend = DefaultBackend> {
    /// The job is done.
    Complete,
    /// The job is done, together with this transaction.
    CompleteWithTx(B::Transaction),
    /// The job is done, together with this operation.
    #[cfg(feature = "es-entity")]
    CompleteWithOp(B::Operation),
    /// Run again at once.
    RescheduleNow,
    /// Run again at once, together with this transaction.
    RescheduleNowWithTx(B::Transaction),
    /// Run again at once, together with this operation.
    #[cfg(feature = "es-entity")]
    RescheduleNowWithOp(B::Operation),
    /// Run again after this time, which begins when the end of the run is recorded.
    RescheduleIn(Duration),
    /// Run again after this time, together with this transaction.
    RescheduleInWithTx(B::Transaction, Duration),
    /// Run again after this time, together with this operation.
    #[cfg(feature = "es-entity")]
    RescheduleInWithOp(B::Operation, Duration),
    /// Run again at this time; one in the past is at once.
    RescheduleAt(DateTime<Utc>),
    /// Run again at this time, together with this transaction.
    RescheduleAtWithTx(B::Transaction, DateTime<Utc>),
    /// Run again at this time, together with this operation.
    #[cfg(feature = "es-entity")]
    RescheduleAtWithOp(B::Operation, DateTime<Utc>),
}

impl<B: Backend> JobCompletion<B> {
    /// The name of the variant.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Complete => "Complete",
            Self::CompleteWithTx(_) => "CompleteWithTx",
            #[cfg(feature = "es-entity")]
            Self::CompleteWithOp(_) => "CompleteWithOp",
            Self::RescheduleNow => "RescheduleNow",
            Self::RescheduleNowWithTx(_) => "RescheduleNowWithTx",
            #[cfg(feature = "es-entity")]
            Self::RescheduleNowWithOp(_) => "RescheduleNowWithOp",
            Self::RescheduleIn(_) => "RescheduleIn",
            Self::RescheduleInWithTx(..) => "RescheduleInWithTx",
            #[cfg(feature = "es-entity")]
            Self::RescheduleInWithOp(..) => "RescheduleInWithOp",
            Self::RescheduleAt(_) => "RescheduleAt",
            Self::RescheduleAtWithTx(..) => "RescheduleAtWithTx",
            #[cfg(feature = "es-entity")]
            Self::RescheduleAtWithOp(..) => "RescheduleAtWithOp",
        }
    }
}

impl<B: Backend> std::fmt::Debug for JobCompletion<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
