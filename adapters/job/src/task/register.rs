//! Registers tasks, and spawns them.

use std::future::Future;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::runner::Function;
use super::{Task, TaskContext, TaskInitializer, TaskResult, TaskSettings};
use crate::backend::Backend;
use crate::{JobSpawner, JobType, Jobs, Spawn};

impl<B: Backend> Jobs<B> {
    /// Registers a [`Task`] that needs no state: this process runs its jobs, once
    /// [`Jobs::start_poll`] was called. A process that only spawns them registers nothing.
    ///
    /// # Panics
    ///
    /// If something is registered for the same [`Task::TYPE`] already; after
    /// [`Jobs::start_poll`], as [`Jobs::add_initializer`].
    #[track_caller]
    pub fn add_task<T: Task<State = ()>>(&mut self) -> JobSpawner<T, B> {
        self.add_task_with::<T>(())
    }

    /// Registers a [`Task`] with what it needs of the application.
    ///
    /// # Panics
    ///
    /// As [`Jobs::add_task`].
    #[track_caller]
    pub fn add_task_with<T: Task>(&mut self, state: T::State) -> JobSpawner<T, B> {
        self.register(TaskInitializer::<T>::new(state), true)
    }

    /// Registers a function, or a closure, that runs the jobs of a type. What it takes is
    /// stored as JSON. Failures are tried again as [`TaskSettings::default`] says.
    ///
    /// # Panics
    ///
    /// As [`Jobs::add_task`].
    ///
    /// # Examples
    ///
    /// ```
    /// use job::{Jobs, JobError, TaskContext, TaskEnd};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), JobError> {
    /// let mut jobs = Jobs::connect("memory:").await?;
    /// let greetings = jobs.add_fn("greet", |name: String, _: TaskContext| async move {
    ///     println!("Hello, {name}!");
    ///     Ok(TaskEnd::Complete)
    /// });
    /// jobs.start_poll().await?;
    /// greetings.job("world".to_owned()).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn add_fn<C, F, R>(&mut self, job_type: &'static str, run: F) -> JobSpawner<C, B>
    where
        C: Serialize + DeserializeOwned + Send + Sync + 'static,
        F: Fn(C, TaskContext) -> R + Send + Sync + 'static,
        R: Future<Output = TaskResult> + Send + 'static,
    {
        self.add_fn_with(job_type, TaskSettings::default(), run)
    }

    /// As [`Jobs::add_fn`], with other settings.
    ///
    /// # Panics
    ///
    /// As [`Jobs::add_task`].
    #[track_caller]
    pub fn add_fn_with<C, F, R>(
        &mut self,
        job_type: &'static str,
        settings: TaskSettings,
        run: F,
    ) -> JobSpawner<C, B>
    where
        C: Serialize + DeserializeOwned + Send + Sync + 'static,
        F: Fn(C, TaskContext) -> R + Send + Sync + 'static,
        R: Future<Output = TaskResult> + Send + 'static,
    {
        let function = Function::new(JobType::new(job_type), settings, run);
        self.register(function, true)
    }

    /// Makes a job of a task. Nothing happens until it is awaited; until then it can be told
    /// when it is due, by which id it is known, and in which transaction it comes about.
    ///
    /// # Errors
    ///
    /// When it is awaited, as [`Spawn`] says.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use job::{JobError, Jobs, Task, TaskContext, TaskEnd, TaskResult};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Serialize, Deserialize)]
    /// # struct Greet { name: String }
    /// # impl Task for Greet {
    /// #     const TYPE: &'static str = "greet";
    /// #     type State = ();
    /// #     async fn run(self, _: TaskContext) -> TaskResult { Ok(TaskEnd::Complete) }
    /// # }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), JobError> {
    /// # let jobs = Jobs::connect("memory:").await?;
    /// let name = "world".to_owned();
    /// let job = jobs.spawn(Greet { name }).after(Duration::from_secs(300)).await?;
    /// println!("it is known as {}", job.id);
    /// # Ok(())
    /// # }
    /// ```
    pub fn spawn<T: Task>(&self, task: T) -> Spawn<T, B> {
        Spawn::of_task(self.core(), task)
    }

    /// Spawns tasks that are registered elsewhere, many at once if need be
    /// ([`JobSpawner::spawn_all`]).
    pub fn spawner_of<T: Task>(&self) -> JobSpawner<T, B> {
        self.spawner(JobType::new(T::TYPE))
    }

    /// Spawns jobs of a type whose runner lives elsewhere, in another program. The name of a
    /// type has 1 to 255 bytes; a spawn of another is refused with
    /// [`JobError::Rejected`](crate::JobError::Rejected).
    ///
    /// # Examples
    ///
    /// ```
    /// use job::{JobError, JobType, Jobs};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), JobError> {
    /// # let jobs = Jobs::connect("memory:").await?;
    /// let thumbnails = jobs.spawner::<u64>(JobType::new("thumbnail"));
    /// thumbnails.job(7).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn spawner<C: Serialize + Send + Sync>(&self, job_type: JobType) -> JobSpawner<C, B> {
        JobSpawner::new(self.core().clone(), job_type)
    }
}
