//! An application of one job type, whose runner does what the test says.

use std::collections::BTreeMap;
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use job::{
    CurrentJob, Job, JobCompletion, JobInitializer, JobPollerConfig, JobRunner, JobSpawner,
    JobType, RetrySettings,
};
use job_sim::scenario::Fault;
use job_sim::{Deployment, Scenario, Sim, Simulated};

pub(super) type Completion = Result<JobCompletion<Simulated>, Box<dyn Error>>;
type Work = dyn Fn(u32, CurrentJob<Simulated>) -> Pin<Box<dyn Future<Output = Completion> + Send>>
    + Send
    + Sync;

/// The job type of the application. The config of a job is a number.
#[derive(Clone)]
pub(super) struct Orders {
    work: Arc<Work>,
    retry: RetrySettings,
}

impl Orders {
    pub(super) fn new<F, T>(work: F) -> Self
    where
        F: Fn(u32, CurrentJob<Simulated>) -> T + Send + Sync + 'static,
        T: Future<Output = Completion> + Send + 'static,
    {
        Self {
            work: Arc::new(move |order, job| Box::pin(work(order, job))),
            retry: RetrySettings {
                n_attempts: None,
                min_backoff: Duration::from_secs(1),
                ..RetrySettings::default()
            },
        }
    }

    pub(super) fn backoff(mut self, min: Duration, max: Duration) -> Self {
        (self.retry.min_backoff, self.retry.max_backoff) = (min, max);
        self
    }

    /// Starts the workers of the simulation with it.
    pub(super) async fn start(self, sim: &Sim) -> JobSpawner<u32, Simulated> {
        sim.start(move |jobs| jobs.add_initializer(self.clone()))
            .await
    }
}

impl JobInitializer<Simulated> for Orders {
    type Config = u32;

    fn job_type(&self) -> JobType {
        JobType::new("order")
    }

    fn retry_on_error_settings(&self) -> RetrySettings {
        self.retry.clone()
    }

    fn init(
        &self,
        job: &Job,
        _: JobSpawner<u32, Simulated>,
    ) -> Result<Box<dyn JobRunner<Simulated>>, Box<dyn Error>> {
        Ok(Box::new(Ordering(job.config()?, Arc::clone(&self.work))))
    }
}

struct Ordering(u32, Arc<Work>);

#[async_trait]
impl JobRunner<Simulated> for Ordering {
    async fn run(&self, job: CurrentJob<Simulated>) -> Completion {
        (self.1)(self.0, job).await
    }
}

/// How often something happened, for each order.
#[derive(Clone, Default)]
pub(super) struct Counts(Arc<Mutex<BTreeMap<u32, u32>>>);

impl Counts {
    pub(super) fn add(&self, order: u32) {
        *self.0.lock().unwrap().entry(order).or_default() += 1;
    }

    pub(super) fn of(&self, order: u32) -> u32 {
        self.0.lock().unwrap().get(&order).copied().unwrap_or(0)
    }
}

pub(super) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// So many workers with leases of 20 s, and these faults in the first ten minutes.
pub(super) fn scenario(workers: u32, faults: Vec<Fault>) -> Scenario {
    let deployment = Deployment {
        workers,
        poller_config: Some(JobPollerConfig {
            job_lost_interval: seconds(20),
            ..JobPollerConfig::default()
        }),
        ..Deployment::default()
    };
    deployment.with_faults(1, faults)
}
