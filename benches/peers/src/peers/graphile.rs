//! `graphile_worker` 0.14. It deletes a job that has ended, and keeps no record.
//!
//! By default it runs as many jobs at a time as there are processors, each
//! fetched and deleted by itself, and looks for more once a second if nothing
//! notifies it: what was enqueued before it started goes by the second.
//!
//! At its best it fetches 2,000 jobs into each of two local queues, runs a
//! hundred at a time and deletes what ended within 5 ms in one statement: 28
//! to 34 thousand jobs a second. 500 at a time did the same within 10 %, one
//! queue of 5,000 25 thousand and one of 20,000 22; a delay of 1 or of 20 ms
//! and a pool of 40 made no difference.

use super::{Config, Peer, Runs};
use crate::database::Scratch;
use anyhow::{Context, Result};
use async_trait::async_trait;
use graphile_worker::{
    IntoTaskHandlerResult, JobSpec, LocalQueueConfig, TaskHandler, Worker, WorkerContext,
    WorkerOptions, WorkerUtils,
};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

/// How many jobs one `add_jobs` takes; 5,000 and 20,000 are a quarter slower.
const BULK_CHUNK: u64 = 1_000;

/// See the module's docs.
const CONCURRENCY: usize = 100;
const LOCAL_QUEUES: usize = 2;
const LOCAL_QUEUE_SIZE: usize = 2_000;
const COMPLETE_DELAY: Duration = Duration::from_millis(5);
/// The interval that the crate's own benches have.
const POLL: Duration = Duration::from_millis(5);

pub struct GraphilePeer {
    worker: Arc<Worker>,
    utils: WorkerUtils,
    run: Mutex<Option<JoinHandle<Result<()>>>>,
    pool: PgPool,
}

impl GraphilePeer {
    pub async fn connect(config: Config, scratch: &Scratch, runs: Arc<Runs>) -> Result<Self> {
        let options = WorkerOptions::default()
            .database_url(scratch.url())
            .add_extension(Extension(runs))
            .define_job::<NoOp>();
        let options = match config {
            Config::Default => options,
            Config::Best => options
                .concurrency(CONCURRENCY)
                .poll_interval(POLL)
                .complete_job_batch_delay(COMPLETE_DELAY)
                .local_queue(
                    LocalQueueConfig::default()
                        .with_size(LOCAL_QUEUE_SIZE)
                        .with_queue_count(LOCAL_QUEUES),
                ),
        };
        let worker = options.init().await?;
        let utils = worker.create_utils();
        Ok(Self {
            worker: Arc::new(worker),
            utils,
            run: Mutex::default(),
            pool: scratch.pool().clone(),
        })
    }
}

#[derive(Clone, Debug)]
struct Extension(Arc<Runs>);

#[derive(Clone, Serialize, Deserialize)]
struct NoOp {
    n: u64,
}

impl TaskHandler for NoOp {
    const IDENTIFIER: &'static str = "no_op";

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        let Some(Extension(runs)) = context.get_ext::<Extension>() else {
            return Err("the extension is missing".to_owned());
        };
        runs.started();
        Ok(())
    }
}

#[async_trait]
impl Peer for GraphilePeer {
    async fn enqueue(&self) -> Result<()> {
        self.utils
            .add_job(NoOp { n: 0 }, JobSpec::default())
            .await?;
        Ok(())
    }

    async fn enqueue_all(&self, jobs: u64) -> Result<()> {
        let spec = JobSpec::default();
        for first in (0..jobs).step_by(BULK_CHUNK as usize) {
            let jobs: Vec<_> = (first..jobs.min(first + BULK_CHUNK))
                .map(|n| (NoOp { n }, &spec))
                .collect();
            self.utils.add_jobs(&jobs).await?;
        }
        Ok(())
    }

    async fn start(&self) -> Result<()> {
        let worker = Arc::clone(&self.worker);
        let run = tokio::spawn(async move { worker.run().await.context("the worker") });
        *self.run.lock().await = Some(run);
        Ok(())
    }

    async fn recorded(&self, enqueued: u64) -> Result<u64> {
        let live: i64 = sqlx::query_scalar("SELECT count(*) FROM graphile_worker._private_jobs")
            .fetch_one(&self.pool)
            .await
            .context("count the jobs that have not ended")?;
        Ok(enqueued - live as u64)
    }

    async fn stop(&self) -> Result<()> {
        self.worker.request_shutdown();
        if let Some(run) = self.run.lock().await.take() {
            run.await.context("the worker")??;
        }
        Ok(())
    }
}
