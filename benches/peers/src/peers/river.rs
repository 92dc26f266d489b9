//! `riverqueue` 0.3, on Postgres and on SQLite.
//!
//! By default, which is to say as its quick start has it, a queue of ten
//! workers that fetches at most every 100 ms: ten jobs a fetch, so a hundred a
//! second at the very best.
//!
//! At its best it fetches thousands of jobs as often as it may. On Postgres
//! everything from 1,000 to 10,000 workers, cooldowns from 1 to 10 ms and
//! pools of 20 or 40 connections drained 14 to 21 thousand jobs a second, with
//! no order that came back in a second run; 5,000 workers are also what it
//! completes in one statement. On SQLite the most workers that it allows,
//! 10,000, did 9.5 to 9.8 thousand, 5,000 7.5 to 8.2 and 2,000 5.6 to 6.9;
//! a cooldown of 10 ms instead of 1 made no difference.
//!
//! The SQLite file is in WAL mode with a busy timeout, as the crate asks for,
//! and with `synchronous=FULL`.

use super::{Config, Peer, Runs};
use crate::database::Scratch;
use anyhow::{Context, Result};
use async_trait::async_trait;
use riverqueue::migrate::{PostgresMigrator, SqliteMigrator};
use riverqueue::sqlx::postgres::{PgPool, PgPoolOptions};
use riverqueue::sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use riverqueue::{
    BoxError, Client, ClientBuilder, InsertOpts, Job, JobArgs, QueueConfig, RunHandle, WorkContext,
    WorkOutcome, Workers,
};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// How many jobs one `insert_many` takes. It writes a row a statement, so 100
/// or 10,000 are as fast within 15 %.
const BULK_CHUNK: u64 = 1_000;

/// See the module's docs.
const WORKERS: usize = 5_000;
const WORKERS_SQLITE: usize = 10_000;
const FETCH_COOLDOWN: Duration = Duration::from_millis(1);
/// How long a job whose notification fell into the cooldown waits.
const FETCH_POLL: Duration = Duration::from_millis(100);
/// So that the sixteen tasks that enqueue wait for each other no more than
/// the database makes them.
const CONNECTIONS: u32 = 20;

pub struct RiverPeer {
    client: Client,
    database: Database,
    run: Mutex<Option<RunHandle>>,
}

enum Database {
    Postgres(PgPool),
    Sqlite(SqlitePool),
}

impl RiverPeer {
    pub async fn connect(config: Config, scratch: &Scratch, runs: Arc<Runs>) -> Result<Self> {
        let options = match config {
            Config::Default => PgPoolOptions::new(),
            Config::Best => PgPoolOptions::new().max_connections(CONNECTIONS),
        };
        let pool = options.connect(scratch.url()).await.context("connect")?;
        PostgresMigrator::new(pool.clone()).migrate_up().await?;
        let client = settings(config, Client::builder(pool.clone()), WORKERS, runs)?;
        Ok(Self {
            client,
            database: Database::Postgres(pool),
            run: Mutex::default(),
        })
    }

    pub async fn connect_sqlite(config: Config, path: &Path, runs: Arc<Runs>) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(5));
        let pool = SqlitePoolOptions::new()
            .connect_with(options)
            .await
            .context("open the file")?;
        SqliteMigrator::new(pool.clone()).migrate_up().await?;
        let client = settings(config, Client::builder(pool.clone()), WORKERS_SQLITE, runs)?;
        Ok(Self {
            client,
            database: Database::Sqlite(pool),
            run: Mutex::default(),
        })
    }
}

fn settings(
    config: Config,
    builder: ClientBuilder,
    workers_best: usize,
    runs: Arc<Runs>,
) -> Result<Client> {
    let mut workers = Workers::new();
    workers.add_fn(move |_: WorkContext, _: Job<NoOp>| {
        let runs = Arc::clone(&runs);
        async move {
            runs.started();
            Ok::<_, BoxError>(WorkOutcome::Complete)
        }
    })?;
    let builder = match config {
        Config::Default => builder.queue("default", QueueConfig::new(10)),
        Config::Best => {
            let queue = QueueConfig::new(workers_best).with_fetch_poll_interval(FETCH_POLL);
            builder
                .queue("default", queue)
                .fetch_cooldown(FETCH_COOLDOWN)
        }
    };
    Ok(builder.workers(workers).build()?)
}

#[derive(Clone, Debug, Serialize, Deserialize, JobArgs)]
#[river(kind = "no_op")]
struct NoOp {
    n: u64,
}

#[async_trait]
impl Peer for RiverPeer {
    async fn enqueue(&self) -> Result<()> {
        self.client.insert(NoOp { n: 0 }).await?;
        Ok(())
    }

    async fn enqueue_all(&self, jobs: u64) -> Result<()> {
        for first in (0..jobs).step_by(BULK_CHUNK as usize) {
            let jobs =
                (first..jobs.min(first + BULK_CHUNK)).map(|n| (NoOp { n }, InsertOpts::default()));
            self.client.insert_many(jobs).await?;
        }
        Ok(())
    }

    async fn start(&self) -> Result<()> {
        *self.run.lock().await = Some(self.client.start()?);
        Ok(())
    }

    async fn recorded(&self, _enqueued: u64) -> Result<u64> {
        const COMPLETED: &str = "SELECT count(*) FROM river_job WHERE state = 'completed'";
        let completed: i64 = match &self.database {
            Database::Postgres(pool) => {
                riverqueue::sqlx::query_scalar(COMPLETED)
                    .fetch_one(pool)
                    .await
            }
            Database::Sqlite(pool) => {
                riverqueue::sqlx::query_scalar(COMPLETED)
                    .fetch_one(pool)
                    .await
            }
        }
        .context("count the completed jobs")?;
        Ok(completed as u64)
    }

    async fn stop(&self) -> Result<()> {
        if let Some(mut run) = self.run.lock().await.take() {
            run.stop_and_cancel().await?;
        }
        Ok(())
    }
}
