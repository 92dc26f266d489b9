//! The short way to define work: a type that is its own arguments, and knows how to run.

mod context;
mod end;
mod error;
mod register;
mod runner;
mod settings;

use std::future::Future;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use context::TaskContext;
pub use error::TaskError;
pub use runner::TaskInitializer;
pub use settings::TaskSettings;

use crate::JobCompletion;
use crate::backend::AnyBackend;

/// How the run of a [`Task`] ended well: [`TaskEnd::Complete`](JobCompletion::Complete) and
/// so on.
pub type TaskEnd = JobCompletion<AnyBackend>;

/// What the run of a [`Task`] returns. `?` takes any error, and texts.
pub type TaskResult = Result<TaskEnd, TaskError>;

/// Work that can be done later: its arguments are the fields of the type, stored as JSON.
///
/// It is registered by [`Jobs::add_task`](crate::Jobs::add_task), or with state of the
/// application by [`Jobs::add_task_with`](crate::Jobs::add_task_with), where it is to run,
/// and spawned by [`Jobs::spawn`](crate::Jobs::spawn), from anywhere. It runs on every
/// backend.
///
/// It is a [`JobInitializer`](crate::JobInitializer) and a [`JobRunner`](crate::JobRunner) in
/// one; those can do the same, and both kinds may be registered side by side.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use job::{JobError, Jobs, Task, TaskContext, TaskEnd, TaskResult};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Greet {
///     name: String,
/// }
///
/// impl Task for Greet {
///     const TYPE: &'static str = "greet";
///     type State = String;
///
///     async fn run(self, cx: TaskContext<String>) -> TaskResult {
///         if self.name.is_empty() {
///             return Err("nobody to greet".into());
///         }
///         println!("{}, {}!", cx.state(), self.name);
///         Ok(TaskEnd::Complete)
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), JobError> {
/// let mut jobs = Jobs::connect("memory:").await?;
/// jobs.add_task_with::<Greet>("Hello".to_owned());
/// jobs.start_poll().await?;
/// let name = "world".to_owned();
/// jobs.spawn(Greet { name }).after(Duration::from_secs(60)).await?;
/// # Ok(())
/// # }
/// ```
///
/// State that is missing, or of another type, does not compile:
///
/// ```compile_fail,E0271
/// # use job::{JobError, Jobs, Task, TaskContext, TaskEnd, TaskResult};
/// # use serde::{Deserialize, Serialize};
/// #
/// # #[derive(Serialize, Deserialize)]
/// # struct Greet { name: String }
/// #
/// # impl Task for Greet {
/// #     const TYPE: &'static str = "greet";
/// #     type State = String;
/// #     async fn run(self, cx: TaskContext<String>) -> TaskResult { Ok(TaskEnd::Complete) }
/// # }
/// #
/// # async fn example() -> Result<(), JobError> {
/// let mut jobs = Jobs::connect("memory:").await?;
/// jobs.add_task::<Greet>();
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no task",
    note = "implement `job::Task` for it, or spawn it by `jobs.spawner(JobType::new(\"...\"))`"
)]
pub trait Task: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The name of the job type: 1 to 255 bytes, without NUL. It is stored with each job:
    /// once there are jobs, it stays. Another name is refused with
    /// [`JobError::Rejected`](crate::JobError::Rejected), by
    /// [`Jobs::start_poll`](crate::Jobs::start_poll) and by each spawn.
    const TYPE: &'static str;

    /// What of the application it needs: a client, a pool, an [`Arc`](std::sync::Arc) of
    /// all. Cloned for each run. `()` for nothing.
    type State: Clone + Send + Sync + 'static;

    /// Does the work. It may run more than once, as
    /// [`JobRunner::run`](crate::JobRunner::run) says: after an error, after a crash, and, if
    /// its lease was lost, at the same time as elsewhere. What it does exactly once, it does
    /// in the transaction that it completes with ([`TaskContext::begin_on`]).
    ///
    /// # Errors
    ///
    /// Any; the job is tried again as [`Task::settings`] say. A panic counts as an error.
    fn run(self, cx: TaskContext<Self::State>) -> impl Future<Output = TaskResult> + Send;

    /// What follows failures and crashes. Asked once, when the task is registered. Default
    /// [`TaskSettings::default`]: 30 attempts in 18 hours.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use job::{RetrySettings, TaskSettings};
    ///
    /// fn settings() -> TaskSettings {
    ///     TaskSettings::default().retry(RetrySettings {
    ///         n_attempts: Some(5),
    ///         min_backoff: Duration::from_secs(10),
    ///         ..RetrySettings::default()
    ///     })
    /// }
    /// # assert_eq!(settings().retry.n_attempts, Some(5));
    /// ```
    fn settings() -> TaskSettings {
        TaskSettings::default()
    }
}
