//! What applications implement: initializers and runners, and what they return.

use std::error::Error;
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::backend::{Backend, DefaultBackend};
use crate::{CurrentJob, Job, JobCompletion, JobSpawner, JobType, RetrySettings};

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
    /// counts as an error. If another attempt would be of no use, return
    /// [`JobCompletion::fail`] instead.
    async fn run(&self, current_job: CurrentJob<B>) -> Result<JobCompletion<B>, Box<dyn Error>>;
}
