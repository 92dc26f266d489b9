//! Jobs in a SQLite file, in one process, without a server.

use std::path::PathBuf;

use job_engine::{Command, Reply, StoreError, Timestamp};
use job_sqlite::{ClockError, FileError, SqliteStore, StartError};
use job_tokio::ClockHandle;
use sqlx::{Sqlite, SqlitePool, Transaction};

use super::{About, AfterCommit, AtomicWrite, Backend, CallerTransaction, NoOperation};
use crate::error::JobError;

/// What to open on SQLite, as the builder gathers it.
#[derive(Clone, Debug, Default)]
pub struct SqliteOptions {
    pub(crate) path: Option<PathBuf>,
    pub(crate) pool: Option<SqlitePool>,
    pub(crate) exec_migrations: Option<bool>,
}

impl Backend for Sqlite {
    type Options = SqliteOptions;
    type Pool = SqlitePool;
    type Transaction = Transaction<'static, Sqlite>;
    type Operation = NoOperation;
    type Store = SqliteStore;

    fn check(options: &Self::Options) -> Result<(), String> {
        match (&options.path, &options.pool) {
            (None, None) => Err("one of path and pool must be set, and neither is".to_owned()),
            (Some(_), Some(_)) => {
                Err("one of path and pool must be set, and both are; remove one".to_owned())
            }
            _ => Ok(()),
        }
    }

    async fn open(
        options: Self::Options,
        clock: &ClockHandle,
    ) -> Result<(Self::Pool, Self::Store), JobError> {
        let own_pool = options.path.is_some();
        let mut store = match (options.pool, options.path) {
            (Some(pool), None) => SqliteStore::on_pool(pool).await.map_err(file_error)?,
            (None, Some(path)) => SqliteStore::open(path).await.map_err(file_error)?,
            _ => return Err(JobError::Config("set one of path and pool".to_owned())),
        };
        if options.exec_migrations.unwrap_or(own_pool) {
            let migrated = store.migrate().await;
            migrated.map_err(|error| JobError::Migration(error.into()))?;
        }
        let checked = store.check_schema().await;
        checked.map_err(|error| JobError::Migration(error.into()))?;
        store.check_writable().await.map_err(file_error)?;
        if let Some(id) = clock.artificial_id() {
            store = store.with_clock(id).await.map_err(clock_error)?;
        }
        let started = store.start(clock.store_time()).await;
        let store = started.map_err(start_error)?;
        Ok((store.pool().clone(), store))
    }

    async fn begin_transaction(pool: &Self::Pool) -> Result<Self::Transaction, StoreError> {
        let begun = job_sqlite::begin_immediate(pool).await;
        begun.map_err(|error| StoreError::Failed(format!("no transaction could be begun: {error}")))
    }

    fn about(_: &Self::Store) -> About {
        About {
            backend: "sqlite",
            ..About::default()
        }
    }

    fn pool_size(pool: &Self::Pool) -> Option<u32> {
        Some(pool.options().get_max_connections())
    }

    async fn close(store: &Self::Store) {
        store.close().await;
    }
}

impl AtomicWrite<Sqlite> for Transaction<'_, Sqlite> {
    async fn execute(
        &mut self,
        store: &SqliteStore,
        now: Option<Timestamp>,
        command: &Command,
    ) -> Result<Reply, StoreError> {
        store.execute_on(self, now, command).await
    }

    async fn after_commit(
        &mut self,
        _: &SqliteStore,
        _: &job_engine::JobType,
        wake: AfterCommit,
    ) -> Result<(), StoreError> {
        // The transaction holds the write lock by now, so the claim that this
        // leads to waits for the commit.
        wake();
        Ok(())
    }
}

impl CallerTransaction<Sqlite> for Transaction<'static, Sqlite> {
    async fn commit(self) -> Result<(), StoreError> {
        let committed = Transaction::commit(self).await;
        committed.map_err(|error| StoreError::Unknown(format!("the commit failed: {error}")))
    }

    async fn rollback(self) {
        // Its failure means that the connection is broken, and SQLite rolls
        // back by itself.
        let _ = Transaction::rollback(self).await;
    }
}

fn file_error(error: FileError) -> JobError {
    match error {
        FileError::Database(error) => error.into(),
        error => JobError::Config(error.to_string()),
    }
}

fn start_error(error: StartError) -> JobError {
    match error {
        StartError::Database(error) => error.into(),
        StartError::TakeBack(error) => error.into(),
        error => JobError::Config(error.to_string()),
    }
}

fn clock_error(error: ClockError) -> JobError {
    match error {
        ClockError::Database(error) => error.into(),
        error => JobError::Config(error.to_string()),
    }
}
