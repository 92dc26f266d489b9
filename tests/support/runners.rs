//! A runner made of a closure.

use std::error::Error;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use job::{
    AnyBackend, Backend, CurrentJob, Job, JobCompletion, JobInitializer, JobRunner, JobSpawner,
    JobType, Jobs, RetrySettings, TaskSettings,
};
use serde_json::Value;

/// How a closure ends. A text is an error.
pub type Outcome<B> = Result<JobCompletion<B>, String>;

type Work<B> = dyn Fn(CurrentJob<B>, Value) -> BoxFuture<'static, Outcome<B>> + Send + Sync;

/// An initializer whose runners call a closure with the current job and its
/// config.
pub struct TestInitializer<B: Backend> {
    job_type: &'static str,
    retry: RetrySettings,
    crashes_max: Option<u32>,
    work: Arc<Work<B>>,
}

impl<B: Backend> TestInitializer<B> {
    pub fn new<F, Fut>(job_type: &'static str, work: F) -> Self
    where
        F: Fn(CurrentJob<B>, Value) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Outcome<B>> + Send + 'static,
    {
        Self {
            job_type,
            retry: RetrySettings::default(),
            crashes_max: None,
            work: Arc::new(move |job, config| Box::pin(work(job, config))),
        }
    }

    /// One whose runs complete at once.
    pub fn completing(job_type: &'static str) -> Self {
        Self::new(job_type, |_, _| async { Ok(JobCompletion::Complete) })
    }

    pub fn retry(mut self, retry: RetrySettings) -> Self {
        self.retry = retry;
        self
    }

    pub fn crashes_max(mut self, crashes_max: u32) -> Self {
        self.crashes_max = Some(crashes_max);
        self
    }
}

impl TestInitializer<AnyBackend> {
    /// Registers the closure as it is.
    pub fn add_as_function(self, jobs: &mut Jobs<AnyBackend>) -> JobSpawner<Value, AnyBackend> {
        let settings = TaskSettings::default()
            .retry(self.retry)
            .crashes_max(self.crashes_max);
        let work = self.work;
        jobs.add_fn_with(self.job_type, settings, move |config, cx| {
            let run = work(cx.into_current(), config);
            async move { Ok(run.await?) }
        })
    }
}

impl<B: Backend> JobInitializer<B> for TestInitializer<B> {
    type Config = Value;

    fn job_type(&self) -> JobType {
        JobType::new(self.job_type)
    }

    fn retry_on_error_settings(&self) -> RetrySettings {
        self.retry.clone()
    }

    fn crashes_max(&self) -> Option<u32> {
        self.crashes_max
    }

    fn init(
        &self,
        job: &Job,
        _spawner: JobSpawner<Value, B>,
    ) -> Result<Box<dyn JobRunner<B>>, Box<dyn Error>> {
        Ok(Box::new(TestRunner {
            config: job.config()?,
            work: Arc::clone(&self.work),
        }))
    }
}

struct TestRunner<B: Backend> {
    config: Value,
    work: Arc<Work<B>>,
}

#[async_trait]
impl<B: Backend> JobRunner<B> for TestRunner<B> {
    async fn run(&self, job: CurrentJob<B>) -> Result<JobCompletion<B>, Box<dyn Error>> {
        Ok((self.work)(job, self.config.clone()).await?)
    }
}
