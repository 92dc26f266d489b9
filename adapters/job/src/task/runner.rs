//! Tasks and functions as initializers and runners.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Task, TaskContext, TaskResult, TaskSettings};
use crate::backend::Backend;
use crate::{
    CurrentJob, Job, JobCompletion, JobInitializer, JobRunner, JobSpawner, JobType, RetrySettings,
};

/// A [`Task`] as an initializer, for what takes one; [`Jobs::add_task`] is the short way.
///
/// [`Jobs::add_task`]: crate::Jobs::add_task
pub struct TaskInitializer<T: Task> {
    settings: TaskSettings,
    state: T::State,
}

impl<T: Task> TaskInitializer<T> {
    /// One whose tasks have this state.
    pub fn new(state: T::State) -> Self {
        Self {
            settings: T::settings(),
            state,
        }
    }
}

impl<T: Task> fmt::Debug for TaskInitializer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TaskInitializer").field(&T::TYPE).finish()
    }
}

/// A function as an initializer: it runs the jobs of a type.
pub(super) struct Function<C, F> {
    job_type: JobType,
    settings: TaskSettings,
    run: Arc<F>,
    config: PhantomData<fn(C)>,
}

impl<C, F> Function<C, F> {
    pub(super) fn new(job_type: JobType, settings: TaskSettings, run: F) -> Self {
        Self {
            job_type,
            settings,
            run: Arc::new(run),
            config: PhantomData,
        }
    }
}

/// What both say of their type.
macro_rules! of_settings {
    () => {
        fn retry_on_error_settings(&self) -> RetrySettings {
            self.settings.retry.clone()
        }

        fn crashes_max(&self) -> Option<u32> {
            self.settings.crashes_max
        }

        fn undecodable_max(&self) -> Duration {
            self.settings.undecodable_max
        }
    };
}

impl<T: Task, B: Backend> JobInitializer<B> for TaskInitializer<T> {
    type Config = T;

    fn job_type(&self) -> JobType {
        JobType::new(T::TYPE)
    }

    of_settings!();

    fn init(
        &self,
        job: &Job,
        _: JobSpawner<T, B>,
    ) -> Result<Box<dyn JobRunner<B>>, Box<dyn Error>> {
        Ok(Box::new(Call::new(
            job.config()?,
            self.state.clone(),
            T::run,
        )))
    }
}

impl<C, F, R, B> JobInitializer<B> for Function<C, F>
where
    C: Serialize + DeserializeOwned + Send + Sync + 'static,
    F: Fn(C, TaskContext) -> R + Send + Sync + 'static,
    R: Future<Output = TaskResult> + Send + 'static,
    B: Backend,
{
    type Config = C;

    fn job_type(&self) -> JobType {
        self.job_type.clone()
    }

    of_settings!();

    fn init(
        &self,
        job: &Job,
        _: JobSpawner<C, B>,
    ) -> Result<Box<dyn JobRunner<B>>, Box<dyn Error>> {
        let run = Arc::clone(&self.run);
        let run = move |config, cx| run(config, cx);
        Ok(Box::new(Call::new(job.config()?, (), run)))
    }
}

/// How a runner ends.
type Ended<B> = Result<JobCompletion<B>, Box<dyn Error>>;

/// One call of a function.
struct Call<C, S, F> {
    /// Until it is called.
    with: Mutex<Option<(C, S)>>,
    run: F,
}

impl<C, S, F> Call<C, S, F> {
    fn new(config: C, state: S, run: F) -> Self {
        Self {
            with: Mutex::new(Some((config, state))),
            run,
        }
    }
}

impl<C, S, F, R, B> JobRunner<B> for Call<C, S, F>
where
    C: Send + Sync + 'static,
    S: Send + Sync + 'static,
    F: Fn(C, TaskContext<S>) -> R + Send + Sync + 'static,
    R: Future<Output = TaskResult> + Send + 'static,
    B: Backend,
{
    // As `async_trait` has it, but for what it would keep in the future beside that of the
    // function: the run before and after its type was forgotten.
    fn run<'a, 'async_trait>(
        &'a self,
        current_job: CurrentJob<B>,
    ) -> Pin<Box<dyn Future<Output = Ended<B>> + Send + 'async_trait>>
    where
        'a: 'async_trait,
    {
        let with = self
            .with
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let (config, state) = with.expect("a runner is made for each run");
        let cx = TaskContext::new(current_job.into_any(), state);
        let ends = (self.run)(config, cx);
        Box::pin(async move {
            match ends.await {
                Ok(end) => Ok(end.on::<B>()?),
                Err(error) => Err(error.into_inner() as Box<dyn Error>),
            }
        })
    }
}
