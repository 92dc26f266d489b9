//! Jobs on Postgres, shared by any number of processes.

use std::fmt;
use std::time::Duration;

use job_engine::StoreError;
use job_postgres::{ClockError, ConnectConfig, PostgresStore, SchemaError, StoreOptions};
use job_tokio::ClockHandle;
use sqlx::{PgPool, Postgres, Transaction};

use super::{About, Backend, CallerTransaction};
use crate::error::JobError;

/// How long the first connection may take, and each answer at the start.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The connections of the pool that is made for a connection string, beside one for each
/// run that may hold a transaction: for spawns and for the application.
const CONNECTIONS_BESIDE_RUNS: u32 = 10;
/// The most runs of a process.
const RUNS_MAX: u32 = 1_000;

/// What to open on Postgres, as the builder gathers it.
#[derive(Clone)]
pub struct PostgresOptions {
    pub(crate) pg_con: Option<String>,
    pub(crate) max_connections: Option<u32>,
    /// At most so many runs at once, for which the pool is to have room.
    pub(crate) runs_max: u32,
    pub(crate) connect_timeout: Duration,
    pub(crate) pool: Option<PgPool>,
    pub(crate) exec_migrations: Option<bool>,
    pub(crate) store: StoreOptions,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            pg_con: None,
            max_connections: None,
            runs_max: 1,
            connect_timeout: CONNECT_TIMEOUT,
            pool: None,
            exec_migrations: None,
            store: StoreOptions::default(),
        }
    }
}

// Without the connection string: it may hold a password.
impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOptions")
            .field("pg_con", &self.pg_con.as_ref().map(|_| ".."))
            .field("max_connections", &self.max_connections)
            .field("pool", &self.pool.is_some())
            .field("exec_migrations", &self.exec_migrations)
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

impl Backend for Postgres {
    type Options = PostgresOptions;
    type Pool = PgPool;
    type Transaction = Transaction<'static, Postgres>;
    #[cfg(feature = "es-entity")]
    type Operation = es_entity::DbOp<'static>;
    #[cfg(not(feature = "es-entity"))]
    type Operation = super::NoOperation;
    type Store = PostgresStore;

    fn check(options: &Self::Options) -> Result<(), String> {
        match (&options.pg_con, &options.pool) {
            (None, None) => {
                return Err("one of pg_con and pool must be set, and neither is".to_owned());
            }
            (Some(_), Some(_)) => {
                let both = "one of pg_con and pool must be set, and both are; remove one";
                return Err(both.to_owned());
            }
            (None, Some(_)) if options.max_connections.is_some() => {
                let text =
                    "max_connections is about the pool that pg_con makes; set it on your own pool";
                return Err(text.to_owned());
            }
            (None, Some(_)) => {}
            (Some(url), None) => {
                job_postgres::check_url(url).map_err(|error| error.to_string())?;
            }
        }
        if options.max_connections == Some(0) {
            let text = "max_connections is 0, so that nothing could be done; set at least 2, or \
                        leave it out for one that fits max_jobs_per_process";
            return Err(text.to_owned());
        }
        options.store.check().map_err(|error| error.to_string())
    }

    fn size_for(options: &mut Self::Options, runs_max: usize) {
        let runs_max = u32::try_from(runs_max).unwrap_or(RUNS_MAX);
        options.runs_max = runs_max.clamp(1, RUNS_MAX);
    }

    async fn open(
        options: Self::Options,
        clock: &ClockHandle,
    ) -> Result<(Self::Pool, Self::Store), JobError> {
        let own_pool = options.pg_con.is_some();
        let pool = match (options.pool, options.pg_con) {
            (Some(pool), None) => pool,
            (None, Some(url)) => {
                let for_runs = options.runs_max + CONNECTIONS_BESIDE_RUNS;
                let config = ConnectConfig {
                    max_connections: options.max_connections.unwrap_or(for_runs),
                    timeout: options.connect_timeout,
                    poll_only: options.store.poll_only,
                };
                job_postgres::connect(&url, &config).await?
            }
            _ => return Err(JobError::Config("set one of pg_con and pool".to_owned())),
        };
        let mut store = PostgresStore::new(pool.clone(), options.store)
            .map_err(|error| JobError::Config(error.to_string()))?;
        let migrate = options.exec_migrations.unwrap_or(own_pool);
        let prepared = store.prepare(migrate, options.connect_timeout).await;
        prepared.map_err(schema_error)?;
        if let Some(clock) = clock.artificial_id() {
            store = store.with_clock(clock).await.map_err(clock_error)?;
        }
        Ok((pool, store))
    }

    async fn begin_transaction(pool: &Self::Pool) -> Result<Self::Transaction, StoreError> {
        pool.begin().await.map_err(begin_error)
    }

    fn about(store: &Self::Store) -> About {
        About {
            backend: "postgres",
            schema: store.schema().map(str::to_owned),
            listens: !store.options().poll_only,
        }
    }

    fn pool_size(pool: &Self::Pool) -> Option<u32> {
        Some(pool.options().get_max_connections())
    }

    fn transactions_take_connections(_: &Self::Pool) -> bool {
        true
    }

    async fn close(store: &Self::Store) {
        store.close().await;
    }
}

impl CallerTransaction<Postgres> for Transaction<'static, Postgres> {
    async fn commit(self) -> Result<(), StoreError> {
        Transaction::commit(self).await.map_err(commit_error)
    }

    async fn rollback(self) {
        // Its failure means that the connection is broken, and then the
        // database rolls back by itself.
        let _ = Transaction::rollback(self).await;
    }
}

#[cfg(not(feature = "es-entity"))]
impl super::NotAnOperationOf<Postgres> for super::NoOperation {}

fn schema_error(error: SchemaError) -> JobError {
    match error {
        SchemaError::Database(error) => error.into(),
        error => JobError::Migration(error.into()),
    }
}

fn clock_error(error: ClockError) -> JobError {
    match error {
        ClockError::Database(error) => error.into(),
        error => JobError::Config(error.to_string()),
    }
}

fn begin_error(error: sqlx::Error) -> StoreError {
    StoreError::Failed(format!("no transaction could be begun: {error}"))
}

pub(super) fn commit_error(error: sqlx::Error) -> StoreError {
    let advice = job_postgres::advice(&error);
    StoreError::Unknown(format!("the commit failed: {error}{advice}"))
}
