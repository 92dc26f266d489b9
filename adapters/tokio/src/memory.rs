//! The store in memory: the model, shared by the tasks of one process.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use job_engine::model::Entry;
use job_engine::{Command, JobId, ModelStore, Rejection, Reply, Snapshot, StoreError, Timestamp};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::store::{Store, all_created};

/// Keeps jobs in memory: the model itself, as a store. Clones share it. What is
/// in it is gone with the last clone.
///
/// One command or transaction has it at a time, and the others wait their turn.
///
/// ```
/// use job_engine::{Command, JobId, Reply, Timestamp};
/// use job_tokio::{MemoryStore, Store};
/// # use job_engine::StoreError;
///
/// # async fn example(job: JobId) -> Result<(), StoreError> {
/// let store = MemoryStore::new(|| Timestamp::EPOCH);
/// let reply = store.execute(None, &Command::Find(job)).await?;
/// assert_eq!(reply, Reply::Found(None));
/// # Ok(())
/// # }
/// ```
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
    ///
    /// It keeps everything else out until it ends, so a task that has one open
    /// waits for ever when it calls the store itself.
    pub async fn begin(&self) -> MemoryTransaction {
        MemoryTransaction {
            model: Arc::clone(&self.model).lock_owned().await,
            now: Arc::clone(&self.now),
            before: BTreeMap::new(),
        }
    }

    /// All jobs with their histories, by id. For tests.
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

    async fn spawn_all(
        &self,
        now: Option<Timestamp>,
        spawns: &[Command],
    ) -> Result<Vec<Reply>, StoreError> {
        let mut transaction = self.begin().await;
        let mut replies = Vec::with_capacity(spawns.len());
        for spawn in spawns {
            let reply = transaction.execute(now, spawn)?;
            let created = all_created(&reply);
            replies.push(reply);
            if !created {
                transaction.rollback();
                return Ok(replies);
            }
        }
        transaction.commit();
        Ok(replies)
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

/// A transaction on a [`MemoryStore`]. It holds the whole store until it ends,
/// so every other call of the store waits. Dropping it rolls it back.
///
/// It undoes what it did job by job, so its cost depends on the jobs that it
/// touched and not on those that there are.
#[must_use = "a transaction that is dropped is rolled back"]
pub struct MemoryTransaction {
    model: OwnedMutexGuard<ModelStore>,
    now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// What each job was before the transaction first touched it.
    before: BTreeMap<JobId, Option<Entry>>,
}

impl MemoryTransaction {
    /// Carries out a command in the transaction, at `now`, or at the time of the
    /// store's own clock.
    ///
    /// # Errors
    ///
    /// [`StoreError::Rejected`] for a command that is not allowed, and for those
    /// that do not name their jobs, which only workers send; the transaction can
    /// go on.
    pub fn execute(
        &mut self,
        now: Option<Timestamp>,
        command: &Command,
    ) -> Result<Reply, StoreError> {
        command.check()?;
        for job in named_jobs(command)? {
            let model = &self.model;
            self.before.entry(job).or_insert_with(|| model.save(job));
        }
        let now = now.unwrap_or_else(|| (self.now)());
        Ok(self.model.apply(now, command)?)
    }

    /// Keeps what was done.
    pub fn commit(mut self) {
        // Nothing is left to undo.
        self.before.clear();
    }

    /// Undoes what was done, as dropping it does.
    pub fn rollback(self) {}
}

/// The jobs that a command can change.
fn named_jobs(command: &Command) -> Result<Vec<JobId>, Rejection> {
    match command {
        Command::Spawn(jobs) => Ok(jobs.iter().map(|job| job.id).collect()),
        Command::Finish(finishes) => Ok(finishes.iter().map(|f| f.run.job).collect()),
        Command::Heartbeat(heartbeat) => Ok(heartbeat.runs.iter().map(|run| run.job).collect()),
        Command::Checkpoint(checkpoint) => Ok(vec![checkpoint.run.job]),
        Command::Hold(run) => Ok(vec![run.job]),
        Command::Find(_) | Command::History(_) => Ok(Vec::new()),
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;
    use job_engine::lifecycle::State;
    use job_engine::store::{Checkpoint, Claim, Finish, NewJob, Outcome, Quota, Spawned, Written};
    use job_engine::{ClaimId, Due, Fence, JobType, Payload, Run, WorkerId};
    use uuid::Uuid;

    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_000_000);

    fn store() -> MemoryStore {
        MemoryStore::new(|| NOW)
    }

    fn id(n: u128) -> JobId {
        JobId(Uuid::from_u128(n))
    }

    fn new_job(n: u128) -> NewJob {
        NewJob {
            id: id(n),
            job_type: JobType::new("mail"),
            unique_type: false,
            due: Due::Now,
            config: Payload::from_json("null"),
            trace: None,
            token: 1,
        }
    }

    fn spawn(n: u128) -> Command {
        Command::Spawn(vec![new_job(n)])
    }

    fn spawn_unique(n: u128) -> Command {
        Command::Spawn(vec![NewJob {
            unique_type: true,
            ..new_job(n)
        }])
    }

    fn claim() -> Command {
        Command::Claim(Claim {
            id: ClaimId {
                worker: WorkerId(Uuid::from_u128(1)),
                seq: 1,
            },
            repeat: false,
            quotas: vec![Quota {
                job_type: JobType::new("mail"),
                jobs_max: 10,
            }],
            lease: Duration::from_secs(60),
        })
    }

    fn first_run(n: u128) -> Run {
        Run {
            job: id(n),
            fence: Fence(1),
            claim: ClaimId {
                worker: WorkerId(Uuid::from_u128(1)),
                seq: 1,
            },
        }
    }

    fn checkpoint(run: Run, state: &str) -> Command {
        Command::Checkpoint(Checkpoint {
            run,
            state: Payload::from_json(state),
        })
    }

    fn complete(run: Run) -> Command {
        Command::Finish(vec![Finish {
            run,
            outcome: Outcome::Completed,
        }])
    }

    /// A store in which job 1 runs.
    async fn store_with_a_run() -> MemoryStore {
        let store = store();
        store.execute(None, &spawn(1)).await.unwrap();
        store.execute(None, &claim()).await.unwrap();
        store
    }

    #[tokio::test]
    async fn a_command_without_a_time_is_carried_out_at_the_stores_own() {
        let store = store();
        store.execute(None, &spawn(1)).await.unwrap();
        let given = Some(Timestamp::EPOCH);
        store.execute(given, &spawn(2)).await.unwrap();
        let mut transaction = store.begin().await;
        transaction.execute(None, &spawn(3)).unwrap();
        transaction.commit();
        let jobs = store.jobs().await;
        let spawned_at: Vec<_> = jobs.iter().map(|job| job.spawned_at).collect();
        assert_eq!(spawned_at, [NOW, Timestamp::EPOCH, NOW]);
    }

    #[tokio::test]
    async fn a_refused_command_changes_nothing() {
        let store = store();
        let refused = Command::Spawn(vec![NewJob {
            job_type: JobType::new(""),
            ..new_job(1)
        }]);
        let error = store.execute(None, &refused).await.unwrap_err();
        assert!(matches!(error, StoreError::Rejected(_)), "{error:?}");
        assert_eq!(store.jobs().await, []);
    }

    #[tokio::test]
    async fn a_committed_transaction_is_kept() {
        let store = store_with_a_run().await;
        let mut transaction = store.begin().await;
        let spawned = transaction.execute(None, &spawn(2)).unwrap();
        assert_eq!(spawned, Reply::Spawned(vec![Spawned::Created]));
        let finished = transaction.execute(None, &complete(first_run(1))).unwrap();
        assert_eq!(finished, Reply::Finished(vec![Written::Applied]));
        transaction.commit();
        let states: Vec<_> = store.jobs().await.iter().map(Snapshot::state).collect();
        assert_eq!(states, [State::Completed, State::Pending]);
    }

    #[tokio::test]
    async fn a_transaction_that_is_rolled_back_or_dropped_leaves_nothing() {
        let store = store_with_a_run().await;
        let before = store.jobs().await;
        let run = first_run(1);
        for dropped in [true, false] {
            let mut transaction = store.begin().await;
            // Each job more than once: what it was before the first change is
            // what comes back.
            let commands = [
                checkpoint(run, "1"),
                spawn(2),
                checkpoint(run, "2"),
                spawn(2),
                complete(run),
                complete(run),
            ];
            for command in commands {
                transaction.execute(None, &command).unwrap();
            }
            if dropped {
                drop(transaction);
            } else {
                transaction.rollback();
            }
            assert_eq!(store.jobs().await, before);
        }
        // The job is not only seen to run: it can still be written and ended.
        let written = store.execute(None, &complete(run)).await.unwrap();
        assert_eq!(written, Reply::Finished(vec![Written::Applied]));
    }

    #[tokio::test]
    async fn a_rolled_back_spawn_frees_its_id_and_its_unique_type() {
        let store = store();
        let mut transaction = store.begin().await;
        transaction.execute(None, &spawn_unique(1)).unwrap();
        let refused = transaction.execute(None, &spawn_unique(2)).unwrap();
        assert_eq!(
            refused,
            Reply::Spawned(vec![Spawned::DuplicateUniqueType(id(1))])
        );
        transaction.rollback();
        let created = Reply::Spawned(vec![Spawned::Created]);
        assert_eq!(
            store.execute(None, &spawn_unique(2)).await.unwrap(),
            created
        );
        assert_eq!(store.execute(None, &spawn(1)).await.unwrap(), created);
        let Reply::Claimed(claimed) = store.execute(None, &claim()).await.unwrap() else {
            panic!("a claim is answered as such");
        };
        assert_eq!(claimed.jobs.len(), 2);
    }

    #[tokio::test]
    async fn a_rollback_of_a_spawn_that_was_refused_keeps_the_job_that_was_there() {
        let store = store();
        store.execute(None, &spawn_unique(1)).await.unwrap();
        let before = store.jobs().await;
        let mut transaction = store.begin().await;
        transaction.execute(None, &spawn_unique(1)).unwrap();
        transaction.execute(None, &spawn_unique(2)).unwrap();
        transaction.rollback();
        assert_eq!(store.jobs().await, before);
        let refused = store.execute(None, &spawn_unique(2)).await.unwrap();
        assert_eq!(
            refused,
            Reply::Spawned(vec![Spawned::DuplicateUniqueType(id(1))])
        );
    }

    #[tokio::test]
    async fn commands_that_do_not_name_their_jobs_are_refused_in_a_transaction() {
        let store = store();
        let mut transaction = store.begin().await;
        let refused = transaction.execute(None, &claim());
        let expected = StoreError::Rejected(Rejection::NotInTransaction);
        assert_eq!(refused, Err(expected));
        // It can go on.
        transaction.execute(None, &spawn(1)).unwrap();
        let found = transaction.execute(None, &Command::Find(id(1))).unwrap();
        assert!(matches!(found, Reply::Found(Some(_))));
        transaction.commit();
        assert_eq!(store.jobs().await.len(), 1);
    }

    #[tokio::test]
    async fn everything_else_waits_for_an_open_transaction() {
        let store = store();
        let mut transaction = store.begin().await;
        transaction.execute(None, &spawn(1)).unwrap();
        assert!(store.execute(None, &spawn(2)).now_or_never().is_none());
        assert!(store.begin().now_or_never().is_none());
        assert!(store.jobs().now_or_never().is_none());
        transaction.commit();
        store.execute(None, &spawn(2)).await.unwrap();
        assert_eq!(store.jobs().await.len(), 2);
    }

    #[tokio::test]
    async fn clones_share_their_jobs() {
        let store = store();
        store.clone().execute(None, &spawn(1)).await.unwrap();
        assert_eq!(store.jobs().await.len(), 1);
    }
}
