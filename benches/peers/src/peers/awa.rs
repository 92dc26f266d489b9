//! `awa` 0.6.
//!
//! By default a queue runs fifty jobs at a time, claims up to 512 at once, and
//! one task records what ended: 2.2 to 2.4 thousand jobs a second.
//!
//! At its best it runs 1,024 at a time and eight tasks record what ended: 5.3
//! to 8.4 thousand on a busy machine, 13.2 at a quiet time. In the busy runs
//! 4,096 workers did 6.2 to 7.9 and two claimers 4.3 to 7.5; sixteen tasks that
//! record 2.6 to 3.2, and four, which is what it takes by itself for so many
//! workers, 2.1 to 4.2. No deadline for a job, for which it has a shorter path,
//! did 4.5 to 6.2, and more than halves the log that a job writes.
//!
//! An enqueue holds the row of its lane until it is committed, so sixteen tasks
//! enqueue no more than one does, 260 to 280 jobs a second, until the queue has
//! several lanes (`enqueue_shards`): four gave 700 to 730, sixteen 970, both
//! without a loss for the drain. They go through the store then, as the plain
//! inserts that are the first in their lanes may fail, with a unique conflict.
//!
//! Jobs are enqueued when a worker has run once: before that, 0.6 writes them
//! to the tables that 0.5 had.

use super::{Config, Peer, Runs};
use crate::database::Scratch;
use anyhow::{Context, Result};
use async_trait::async_trait;
use awa::{
    Client, InsertOpts, InsertParams, JobArgs, JobResult, QueueConfig, QueueStorage,
    QueueStorageConfig,
};
use serde::{Deserialize, Serialize};
use sqlx::postgres::{PgPool, PgPoolOptions};
use std::sync::Arc;
use std::time::Duration;

/// What the settings at their best have in the environment: the crate has no
/// call for it.
pub const BEST_ENVIRONMENT: &[(&str, &str)] = &[("AWA_COMPLETION_SHARDS", "8")];

/// How many jobs one bulk call takes; 5,000 are a tenth slower.
const BULK_CHUNK: u64 = 1_000;

/// See the module's docs.
const WORKERS: u32 = 1_024;
/// Each task that enqueues then has a lane to itself; see the module's docs.
const ENQUEUE_SHARDS: i16 = 16;
/// A quarter of the default, for what no notification comes for.
const POLL: Duration = Duration::from_millis(50);
/// For the eight tasks that record, the claims, and the sixteen that enqueue.
const CONNECTIONS: u32 = 20;

/// Where a job goes that names no queue.
const QUEUE: &str = "default";

pub struct AwaPeer {
    client: Client,
    config: Config,
    store: QueueStorage,
    pool: PgPool,
}

impl AwaPeer {
    pub async fn connect(config: Config, scratch: &Scratch, runs: Arc<Runs>) -> Result<Self> {
        let options = match config {
            Config::Default => PgPoolOptions::new(),
            Config::Best => PgPoolOptions::new().max_connections(CONNECTIONS),
        };
        let pool = options.connect(scratch.url()).await.context("connect")?;
        awa::migrations::run(&pool).await?;
        // The first start in a database in which no job has been is what makes
        // it one of the present storage; jobs enqueued before it would be in
        // the tables of the former, which a worker only drains.
        let first = client(config, &pool, Arc::clone(&runs))?;
        first.start().await?;
        first.shutdown(Duration::from_secs(5)).await;
        if config == Config::Best {
            sqlx::query(
                "INSERT INTO awa.queue_meta (queue, enqueue_shards) VALUES ($1, $2)
                 ON CONFLICT (queue) DO UPDATE SET enqueue_shards = excluded.enqueue_shards",
            )
            .bind(QUEUE)
            .bind(ENQUEUE_SHARDS)
            .execute(&pool)
            .await
            .context("set the shards of the queue")?;
        }
        Ok(Self {
            client: client(config, &pool, runs)?,
            config,
            store: QueueStorage::new(QueueStorageConfig::default())?,
            pool,
        })
    }
}

fn client(config: Config, pool: &PgPool, runs: Arc<Runs>) -> Result<Client> {
    let queue = match config {
        Config::Default => QueueConfig::default(),
        Config::Best => QueueConfig {
            max_workers: WORKERS,
            poll_interval: POLL,
            ..QueueConfig::default()
        },
    };
    Ok(Client::builder(pool.clone())
        .queue(QUEUE, queue)
        .register::<NoOp, _, _>(move |_, _| {
            runs.started();
            std::future::ready(Ok(JobResult::Completed))
        })
        .build()?)
}

#[derive(Serialize, Deserialize, JobArgs)]
struct NoOp {
    n: u64,
}

fn params(n: u64) -> Result<InsertParams> {
    Ok(InsertParams {
        kind: NoOp::kind().to_string(),
        args: serde_json::to_value(NoOp { n })?,
        opts: InsertOpts::default(),
    })
}

#[async_trait]
impl Peer for AwaPeer {
    async fn enqueue(&self) -> Result<()> {
        match self.config {
            Config::Default => {
                awa::insert(&self.pool, &NoOp { n: 0 }).await?;
            }
            Config::Best => {
                let params = [params(0)?];
                self.store.enqueue_params_batch(&self.pool, &params).await?;
            }
        }
        Ok(())
    }

    async fn enqueue_all(&self, jobs: u64) -> Result<()> {
        for first in (0..jobs).step_by(BULK_CHUNK as usize) {
            let params = (first..jobs.min(first + BULK_CHUNK))
                .map(params)
                .collect::<Result<Vec<_>>>()?;
            match self.config {
                Config::Default => {
                    awa::insert_many(&self.pool, &params).await?;
                }
                Config::Best => {
                    self.store.enqueue_params_copy(&self.pool, &params).await?;
                }
            }
        }
        Ok(())
    }

    async fn start(&self) -> Result<()> {
        self.client.start().await?;
        Ok(())
    }

    async fn recorded(&self, _enqueued: u64) -> Result<u64> {
        Ok(self.store.queue_counts(&self.pool, QUEUE).await?.terminal as u64)
    }

    async fn stop(&self) -> Result<()> {
        self.client.shutdown(Duration::from_secs(5)).await;
        Ok(())
    }
}
