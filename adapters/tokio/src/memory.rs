//! The store in memory: the model, shared by the tasks of one process.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use job_engine::model::Entry;
use job_engine::{Command, JobId, ModelStore, Rejection, Reply, Snapshot, StoreError, Timestamp};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::store::Store;

/// Keeps jobs in memory. Clones share them. What is in it is gone with the
/// process.
#[derive(Clone)]
pub struct MemoryStore {
    model: Arc<Mutex<ModelStore>>,
    now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

impl MemoryStore {
    /// An empty store. `now` is its own clock, for commands that bring no time
    /// along.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self {
            model: Arc::default(),
            now: Arc::new(now),
        }
    }

    /// Begins a transaction, as soon as no other is open.
    pub async fn begin(&self) -> MemoryTransaction {
        MemoryTransaction {
            model: Arc::clone(&self.model).lock_owned().await,
            now: Arc::clone(&self.now),
            before: BTreeMap::new(),
        }
    }

    /// All jobs, by id.
    pub async fn jobs(&self) -> Vec<Snapshot> {
        self.model.lock().await.jobs().cloned().collect()
    }
}

impl Store for MemoryStore {
    async fn execute(
        &self,
        now: Option<Timestamp>,
        command: &Command,
    ) -> Result<Reply, StoreError> {
        let mut model = self.model.lock().await;
        let now = now.unwrap_or_else(|| (self.now)());
        Ok(model.apply(now, command)?)
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

/// A transaction on a [`MemoryStore`]. It holds the whole store until it ends,
/// so every other call of the store waits. Dropping it rolls it back.
#[must_use = "a transaction that is dropped is rolled back"]
pub struct MemoryTransaction {
    model: OwnedMutexGuard<ModelStore>,
    now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// What each job was before the transaction first touched it.
    before: BTreeMap<JobId, Option<Entry>>,
}

impl MemoryTransaction {
    /// Carries out a command in the transaction.
    ///
    /// # Errors
    ///
    /// [`StoreError::Rejected`] for a command that is not allowed, and for those
    /// that only workers send, which do not name their jobs.
    pub fn execute(
        &mut self,
        now: Option<Timestamp>,
        command: &Command,
    ) -> Result<Reply, StoreError> {
        for job in written_jobs(command)? {
            let model = &self.model;
            self.before.entry(job).or_insert_with(|| model.save(job));
        }
        let now = now.unwrap_or_else(|| (self.now)());
        Ok(self.model.apply(now, command)?)
    }

    /// Keeps what was done.
    pub fn commit(mut self) {
        self.before.clear();
    }

    /// Undoes what was done.
    pub fn rollback(self) {}
}

fn written_jobs(command: &Command) -> Result<Vec<JobId>, Rejection> {
    match command {
        Command::Spawn(jobs) => Ok(jobs.iter().map(|job| job.id).collect()),
        Command::Finish(finishes) => Ok(finishes.iter().map(|f| f.run.job).collect()),
        Command::Heartbeat(heartbeat) => Ok(heartbeat.runs.iter().map(|run| run.job).collect()),
        Command::Checkpoint(checkpoint) => Ok(vec![checkpoint.run.job]),
        Command::Find(_) => Ok(Vec::new()),
        Command::Claim(_) | Command::Reclaim(_) => Err(Rejection::NotInTransaction),
    }
}

impl Drop for MemoryTransaction {
    fn drop(&mut self) {
        for (job, entry) in std::mem::take(&mut self.before) {
            self.model.restore(job, entry);
        }
    }
}

impl fmt::Debug for MemoryTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryTransaction").finish_non_exhaustive()
    }
}
