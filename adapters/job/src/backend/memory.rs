//! Jobs in memory: for tests, and for work that may die with the process.

use job_engine::{Command, Reply, StoreError, Timestamp};
use job_tokio::{ClockHandle, MemoryStore};

use super::{About, AfterCommit, AtomicWrite, Backend, CallerTransaction, NoOperation};
use crate::error::JobError;

/// The backend that keeps jobs in memory, in one process.
#[derive(Debug)]
pub enum Memory {}

/// A transaction in memory. It holds the whole store until it ends, as a
/// writing transaction of SQLite does; do not await anything that needs the
/// store meanwhile. Dropping it rolls it back.
pub type MemoryTransaction = job_tokio::MemoryTransaction;

/// Nothing to choose.
#[derive(Clone, Debug, Default)]
pub struct MemoryOptions {}

/// Begins transactions in memory.
#[derive(Clone, Debug)]
pub struct MemoryPool {
    store: MemoryStore,
}

impl MemoryPool {
    /// Begins a transaction, as soon as no other is open.
    pub async fn begin(&self) -> MemoryTransaction {
        self.store.begin().await
    }
}

impl Backend for Memory {
    type Options = MemoryOptions;
    type Pool = MemoryPool;
    type Transaction = MemoryTransaction;
    type Operation = NoOperation;
    type Store = MemoryStore;

    fn check(_: &Self::Options) -> Result<(), String> {
        Ok(())
    }

    async fn open(
        _: Self::Options,
        clock: &ClockHandle,
    ) -> Result<(Self::Pool, Self::Store), JobError> {
        let clock = clock.clone();
        let store = MemoryStore::new(move || clock.timestamp());
        let pool = MemoryPool {
            store: store.clone(),
        };
        Ok((pool, store))
    }

    async fn begin_transaction(pool: &Self::Pool) -> Result<Self::Transaction, StoreError> {
        Ok(pool.begin().await)
    }

    fn about(_: &Self::Store) -> About {
        About {
            backend: "memory",
            ..About::default()
        }
    }

    async fn close(_: &Self::Store) {}
}

impl AtomicWrite<Memory> for MemoryTransaction {
    async fn execute(
        &mut self,
        _: &MemoryStore,
        now: Option<Timestamp>,
        command: &Command,
    ) -> Result<Reply, StoreError> {
        MemoryTransaction::execute(self, now, command)
    }

    async fn after_commit(
        &mut self,
        _: &MemoryStore,
        _: &job_engine::JobType,
        wake: AfterCommit,
    ) -> Result<(), StoreError> {
        // The claim that this leads to waits for the store, and so for the
        // commit.
        wake();
        Ok(())
    }
}

impl CallerTransaction<Memory> for MemoryTransaction {
    async fn commit(self) -> Result<(), StoreError> {
        MemoryTransaction::commit(self);
        Ok(())
    }

    async fn rollback(self) {
        MemoryTransaction::rollback(self);
    }
}
