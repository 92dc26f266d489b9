//! `job` 0.19.2, the published crate.
//!
//! By default a job is a row, a task and a transaction of its own, fifty at a
//! time on a pool of ten connections.
//!
//! At its best it is a batched job type, whose claims and completions take a
//! transaction a batch. Batches of 2,000, two at a time (the number that it
//! has by default), drained 13.9 to 19.6 thousand jobs a second; 500 by four
//! or 1,000 by three did 13.3 to 14.7, four of 5,000 13.6, and one of 20,000
//! 11.1.

use super::{Config, Peer, Runs};
use crate::database::Scratch;
use anyhow::{Context, Result};
use async_trait::async_trait;
use job::{
    BatchedJobInitializer, BatchedJobRunner, CurrentBatchedJob, CurrentJob, Job,
    JobBatchCompletion, JobCompletion, JobId, JobInitializer, JobPollerConfig, JobRunner,
    JobSpawner, JobSpec, JobSvcConfig, JobType, Jobs,
};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use std::error::Error;
use std::sync::Arc;
use tokio::sync::Mutex;

/// How many jobs one `spawn_all` takes.
const BULK_CHUNK: u64 = 1_000;

/// See the module's docs.
const BATCH: usize = 2_000;
const BATCHES: usize = 2;
/// A claim is cut to what is free of this, and counts rows, not batches.
const JOBS_PER_PROCESS: usize = 20_000;
/// So that the sixteen tasks that enqueue wait for each other no more than
/// the database makes them.
const CONNECTIONS: u32 = 20;

pub struct JobPeer {
    jobs: Mutex<Jobs>,
    spawner: JobSpawner<NoOp>,
    pool: PgPool,
}

impl JobPeer {
    pub async fn connect(config: Config, scratch: &Scratch, runs: Arc<Runs>) -> Result<Self> {
        let (jobs, spawner) = match config {
            Config::Default => {
                let service = JobSvcConfig::builder().pg_con(scratch.url()).build()?;
                let mut jobs = Jobs::init(service).await?;
                let spawner = jobs.add_initializer(Plain { runs });
                (jobs, spawner)
            }
            Config::Best => {
                let poller = JobPollerConfig {
                    max_jobs_per_process: JOBS_PER_PROCESS,
                    ..Default::default()
                };
                let service = JobSvcConfig::builder()
                    .pg_con(scratch.url())
                    .max_connections(CONNECTIONS)
                    .poller_config(poller)
                    .build()?;
                let mut jobs = Jobs::init(service).await?;
                let spawner = jobs.add_batched_initializer(Batched { runs });
                (jobs, spawner)
            }
        };
        Ok(Self {
            jobs: Mutex::new(jobs),
            spawner,
            pool: scratch.pool().clone(),
        })
    }
}

#[async_trait]
impl Peer for JobPeer {
    async fn enqueue(&self) -> Result<()> {
        self.spawner.spawn(JobId::new(), NoOp { n: 0 }).await?;
        Ok(())
    }

    async fn enqueue_all(&self, jobs: u64) -> Result<()> {
        for first in (0..jobs).step_by(BULK_CHUNK as usize) {
            let specs = (first..jobs.min(first + BULK_CHUNK))
                .map(|n| JobSpec::new(JobId::new(), NoOp { n }))
                .collect();
            self.spawner.spawn_all(specs).await?;
        }
        Ok(())
    }

    async fn start(&self) -> Result<()> {
        self.jobs.lock().await.start_poll().await?;
        Ok(())
    }

    async fn recorded(&self, enqueued: u64) -> Result<u64> {
        let live: i64 = sqlx::query_scalar("SELECT count(*) FROM job_executions")
            .fetch_one(&self.pool)
            .await
            .context("count the jobs that have not ended")?;
        Ok(enqueued - live as u64)
    }

    async fn stop(&self) -> Result<()> {
        self.jobs.lock().await.shutdown().await?;
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
struct NoOp {
    n: u64,
}

struct Plain {
    runs: Arc<Runs>,
}

impl JobInitializer for Plain {
    type Config = NoOp;

    fn job_type(&self) -> JobType {
        JobType::new("no-op")
    }

    fn init(
        &self,
        _job: &Job,
        _spawner: JobSpawner<NoOp>,
    ) -> Result<Box<dyn JobRunner>, Box<dyn Error + Send + Sync>> {
        Ok(Box::new(PlainRunner {
            runs: Arc::clone(&self.runs),
        }))
    }
}

struct PlainRunner {
    runs: Arc<Runs>,
}

#[async_trait]
impl JobRunner for PlainRunner {
    async fn run(
        &self,
        _current_job: CurrentJob,
    ) -> Result<JobCompletion, Box<dyn Error + Send + Sync>> {
        self.runs.started();
        Ok(JobCompletion::Complete)
    }
}

struct Batched {
    runs: Arc<Runs>,
}

impl BatchedJobInitializer for Batched {
    type Config = NoOp;

    fn job_type(&self) -> JobType {
        JobType::new("no-op")
    }

    fn max_batch_size(&self) -> usize {
        BATCH
    }

    fn max_concurrent_per_process(&self) -> usize {
        BATCHES
    }

    fn init(
        &self,
        _spawner: JobSpawner<NoOp>,
    ) -> Result<Box<dyn BatchedJobRunner<Config = NoOp>>, Box<dyn Error + Send + Sync>> {
        Ok(Box::new(BatchedRunner {
            runs: Arc::clone(&self.runs),
        }))
    }
}

struct BatchedRunner {
    runs: Arc<Runs>,
}

#[async_trait]
impl BatchedJobRunner for BatchedRunner {
    type Config = NoOp;

    async fn run_batch(
        &self,
        current_batch: CurrentBatchedJob<NoOp>,
    ) -> Result<JobBatchCompletion, Box<dyn Error + Send + Sync>> {
        for _ in current_batch.items() {
            self.runs.started();
        }
        Ok(JobBatchCompletion::CompleteAll)
    }
}
