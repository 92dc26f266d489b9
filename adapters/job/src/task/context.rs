//! What a task knows of its run.

use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::CurrentJob;
use crate::backend::{AnyBackend, Backend};
use crate::error::JobError;

/// The run that a [`Task`](crate::Task) performs, and the state that it was registered
/// with. It is a [`CurrentJob`] besides: attempt, execution state, clock, whether it should
/// stop.
pub struct TaskContext<S = ()> {
    current: CurrentJob<AnyBackend>,
    state: S,
}

impl<S> TaskContext<S> {
    pub(super) fn new(current: CurrentJob<AnyBackend>, state: S) -> Self {
        Self { current, state }
    }

    /// The run itself, for functions that take a [`CurrentJob`].
    pub fn into_current(self) -> CurrentJob<AnyBackend> {
        self.current
    }

    /// The state of the application that the task was registered with.
    pub fn state(&self) -> &S {
        &self.state
    }

    /// Begins a transaction of this backend, as [`CurrentJob::begin`] does: what is written
    /// in it happens together with the end of the run, or not at all.
    ///
    /// # Errors
    ///
    /// [`JobError::OtherBackend`] where the jobs are kept elsewhere; else as
    /// [`CurrentJob::begin`].
    ///
    /// # Examples
    ///
    /// ```
    /// use job::{Postgres, Task, TaskContext, TaskEnd, TaskResult};
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Serialize, Deserialize)]
    /// struct Ship {
    ///     order: i64,
    /// }
    ///
    /// impl Task for Ship {
    ///     const TYPE: &'static str = "ship";
    ///     type State = ();
    ///
    ///     async fn run(self, cx: TaskContext) -> TaskResult {
    ///         let mut tx = cx.begin_on::<Postgres>().await?;
    ///         sqlx::query("UPDATE orders SET shipped = TRUE WHERE id = $1")
    ///             .bind(self.order)
    ///             .execute(&mut *tx)
    ///             .await?;
    ///         Ok(TaskEnd::CompleteWithTx(tx.into()))
    ///     }
    /// }
    /// ```
    pub async fn begin_on<B: Backend>(&self) -> Result<B::Transaction, JobError> {
        self.current.begin().await?.into_on::<B>()
    }
}

impl<S> Deref for TaskContext<S> {
    type Target = CurrentJob<AnyBackend>;

    fn deref(&self) -> &Self::Target {
        &self.current
    }
}

impl<S> DerefMut for TaskContext<S> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.current
    }
}

impl<S> fmt::Debug for TaskContext<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TaskContext").field(&self.current).finish()
    }
}
