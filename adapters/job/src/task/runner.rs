//! Tasks and functions as initializers and runners.

use std::error::Error;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{TaskContext, TaskResult, TaskSettings};
use crate::backend::Backend;
use crate::{
    CurrentJob, Job, JobCompletion, JobInitializer, JobRunner, JobSpawner, JobType, RetrySettings,
};

/// A function as an initializer: it runs the jobs of a type.
pub(super) struct Function<C, S, F> {
    job_type: JobType,
    settings: TaskSettings,
    state: S,
    run: Arc<F>,
    config: PhantomData<fn(C)>,
}

impl<C, S, F> Function<C, S, F> {
    pub(super) fn new(job_type: JobType, settings: TaskSettings, state: S, run: F) -> Self {
        Self {
            job_type,
            settings,
            state,
            run: Arc::new(run),
            config: PhantomData,
        }
    }
}

impl<C, S, F, R, B> JobInitializer<B> for Function<C, S, F>
where
    C: Serialize + DeserializeOwned + Send + Sync + 'static,
    S: Clone + Send + Sync + 'static,
    F: Fn(C, TaskContext<S>) -> R + Send + Sync + 'static,
    R: Future<Output = TaskResult> + Send,
    B: Backend,
{
    type Config = C;

    fn job_type(&self) -> JobType {
        self.job_type.clone()
    }

    fn retry_on_error_settings(&self) -> RetrySettings {
        self.settings.retry.clone()
    }

    fn crashes_max(&self) -> Option<u32> {
        self.settings.crashes_max
    }

    fn undecodable_max(&self) -> Duration {
        self.settings.undecodable_max
    }

    fn init(
        &self,
        job: &Job,
        _: JobSpawner<C, B>,
    ) -> Result<Box<dyn JobRunner<B>>, Box<dyn Error>> {
        Ok(Box::new(Call {
            config: Mutex::new(Some(job.config()?)),
            state: self.state.clone(),
            run: Arc::clone(&self.run),
        }))
    }
}

/// One call of the function.
struct Call<C, S, F> {
    /// Until it is called.
    config: Mutex<Option<C>>,
    state: S,
    run: Arc<F>,
}

#[async_trait]
impl<C, S, F, R, B> JobRunner<B> for Call<C, S, F>
where
    C: Send + Sync + 'static,
    S: Clone + Send + Sync + 'static,
    F: Fn(C, TaskContext<S>) -> R + Send + Sync + 'static,
    R: Future<Output = TaskResult> + Send,
    B: Backend,
{
    async fn run(&self, current_job: CurrentJob<B>) -> Result<JobCompletion<B>, Box<dyn Error>> {
        let config = self
            .config
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let config = config.expect("a runner is made for each run");
        let cx = TaskContext::new(current_job.into_any(), self.state.clone());
        match (self.run)(config, cx).await {
            Ok(end) => Ok(end.on::<B>()?),
            Err(error) => Err(error.into_inner()),
        }
    }
}
