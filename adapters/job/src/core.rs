//! What the service, its spawners and its runners share.

use std::any::Any;
use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use job_engine::draw::Purpose;
use job_engine::gather::Told;
use job_engine::planted::{Bug, planted};
use job_engine::store::{History, NewJob, Spawned};
use job_engine::{Command, Entropy, JobType, Reply, StoreError, WorkerId};
use job_tokio::{Announcer, ClockHandle, Spawns, Store, Wakes};
use tokio::time::timeout;

use crate::backend::{AnyBackend, AnyStore, AtomicWrite, Backend};
use crate::error::JobError;
use crate::record::Record;
use crate::trace::RunTraces;
use crate::{HistoryCursor, Job, JobHistory, JobId};

/// How long one call of the store may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a call whose outcome is unknown is made. It is keyed, so the
/// second one finds out what became of the first.
const CALLS_MAX: u32 = 3;

const WAITS_TO_SPAWN: &str = "; does it wait for a transaction that is open in this process? \
                              Spawn in that (`.in_tx(&mut tx)`, `spawn_all_in_op`), or end it \
                              first";

/// The store of a service with all that a call of it needs.
pub(crate) struct Core<B: Backend> {
    store: B::Store,
    pool: B::Pool,
    clock: ClockHandle,
    wakes: Wakes,
    announcer: Announcer,
    gathered: Spawns<B::Store>,
    worker: WorkerId,
    entropy: Entropy,
    spawns: Arc<AtomicU64>,
    record: Arc<Record>,
    run_traces: RunTraces,
    /// The same for those who do not know the backend, once somebody wants it.
    any: OnceLock<Arc<Core<AnyBackend>>>,
}

impl<B: Backend> Core<B> {
    /// Starts the announcer on the current tokio runtime.
    pub(crate) fn new(
        store: B::Store,
        pool: B::Pool,
        clock: ClockHandle,
        entropy: Entropy,
        run_traces: RunTraces,
    ) -> Self {
        let worker = entropy.worker_id();
        Self {
            announcer: Announcer::start(worker, store.clone()),
            gathered: Spawns::new(worker, store.clone(), clock.clone()),
            store,
            pool,
            clock,
            wakes: Wakes::new(),
            worker,
            entropy,
            spawns: Arc::default(),
            record: Arc::default(),
            run_traces,
            any: OnceLock::new(),
        }
    }

    /// The same service, for those who do not know its backend.
    pub(crate) fn any(self: &Arc<Self>) -> Arc<Core<AnyBackend>> {
        // Looked up for each run of a task, so what is there is found first.
        if let Some(any) = self.any.get() {
            return Arc::clone(any);
        }
        let this: Arc<dyn Any + Send + Sync> = Arc::<Self>::clone(self);
        if let Ok(this) = this.downcast() {
            return this;
        }
        let any = self.any.get_or_init(|| {
            let store = AnyStore::new::<B>(self.store.clone(), self.pool.clone());
            Arc::new(Core {
                pool: store.pool(),
                gathered: Spawns::new(self.worker, store.clone(), self.clock.clone()),
                store,
                clock: self.clock.clone(),
                wakes: self.wakes.clone(),
                announcer: self.announcer.clone(),
                worker: self.worker,
                entropy: self.entropy.clone(),
                spawns: Arc::clone(&self.spawns),
                record: Arc::clone(&self.record),
                run_traces: self.run_traces,
                any: OnceLock::new(),
            })
        });
        Arc::clone(any)
    }

    pub(crate) fn store(&self) -> &B::Store {
        &self.store
    }

    pub(crate) fn pool(&self) -> &B::Pool {
        &self.pool
    }

    pub(crate) fn clock(&self) -> &ClockHandle {
        &self.clock
    }

    pub(crate) fn wakes(&self) -> &Wakes {
        &self.wakes
    }

    pub(crate) fn announcer(&self) -> &Announcer {
        &self.announcer
    }

    /// The identity of this process, under which it claims once it polls.
    pub(crate) fn worker(&self) -> WorkerId {
        self.worker
    }

    /// How the traces of runs hang together with those of their spawns.
    pub(crate) fn run_traces(&self) -> RunTraces {
        self.run_traces
    }

    /// What was asked for.
    #[cfg(feature = "testing")]
    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// Tells a spawn from all others.
    pub(crate) fn spawn_token(&self) -> i64 {
        let n = self.spawns.fetch_add(1, Ordering::Relaxed);
        self.entropy.draw(Purpose::SpawnToken(n)).cast_signed()
    }

    /// Jobs of this type may be due: here, and in other processes.
    pub(crate) fn wake(&self, job_type: &JobType) {
        self.wakes.add(job_type);
        self.announcer.announce(job_type);
    }

    /// Carries out a command, and again while its outcome is unknown.
    pub(crate) async fn execute(&self, command: &Command) -> Result<Reply, StoreError> {
        let _busy = self.clock.busy();
        self.record.add(command);
        let mut calls = 0;
        repeated(CALL_TIMEOUT, waits_for(command), || {
            calls += 1;
            let mut command = Cow::Borrowed(command);
            // What it took is to be found again, not taken beside it.
            if calls > 1
                && let Command::Claim(claim) = command.to_mut()
            {
                claim.repeat = true;
            }
            if planted(Bug::SpawnRetriesUnderNewToken)
                && let Command::Spawn(jobs) = command.to_mut()
            {
                jobs.iter_mut()
                    .for_each(|job| job.token = self.spawn_token());
            }
            let now = self.clock.store_time();
            async move { self.store.execute(now, &command).await }
        })
        .await
    }

    /// Reads a job with the last of its history.
    pub(crate) async fn find(&self, id: JobId) -> Result<Job, JobError> {
        found(id, self.execute(&Command::Find(id.into())).await?)
    }

    /// Reads the history of a job before this.
    pub(crate) async fn history(
        &self,
        id: JobId,
        before: HistoryCursor,
    ) -> Result<JobHistory, JobError> {
        let history = Command::History(History {
            job: id.into(),
            before: before.fence(),
        });
        match self.execute(&history).await? {
            Reply::History(page) => Ok(JobHistory::from_page(&page)),
            other => Err(wrong_reply(&other)),
        }
    }

    /// The same as [`Core::find`], as a transaction of the caller sees it.
    pub(crate) async fn find_in(
        &self,
        op: &mut (impl AtomicWrite<B> + ?Sized),
        id: JobId,
    ) -> Result<Job, JobError> {
        let find = Command::Find(id.into());
        found(id, self.execute_in(op, &find).await?)
    }

    /// Spawns a job, together with those that other tasks spawn at the same time.
    pub(crate) async fn spawn(&self, job: &NewJob) -> Result<Spawned, StoreError> {
        let command = Command::Spawn(vec![job.clone()]);
        // One that is refused is not to take others along.
        command.check()?;
        if !job.unique_type {
            self.record.add(&command);
            let _busy = self.clock.busy();
            match self.gathered.spawn(job.clone()).await {
                Told::Spawned(spawned) => return Ok(spawned),
                Told::Alone => {}
            }
        }
        let reply = self.execute(&command).await?;
        match &reply {
            Reply::Spawned(spawned) if spawned.len() == 1 => Ok(spawned[0]),
            _ => Err(unfitting(&reply)),
        }
    }

    /// Carries out spawns in one transaction, and again while its outcome is unknown.
    pub(crate) async fn spawn_all(&self, spawns: &[Command]) -> Result<Vec<Reply>, StoreError> {
        let _busy = self.clock.busy();
        let batches = u32::try_from(spawns.len()).unwrap_or(u32::MAX);
        let limit = CALL_TIMEOUT.saturating_mul(batches.max(1));
        spawns.iter().for_each(|spawn| self.record.add(spawn));
        repeated(limit, WAITS_TO_SPAWN, || {
            self.store.spawn_all(self.clock.store_time(), spawns)
        })
        .await
    }

    /// Carries out a command in a transaction of the caller, once.
    pub(crate) async fn execute_in(
        &self,
        op: &mut (impl AtomicWrite<B> + ?Sized),
        command: &Command,
    ) -> Result<Reply, JobError> {
        op.fits(&self.store)?;
        let _busy = self.clock.busy();
        self.record.add(command);
        let call = op.execute(&self.store, self.clock.store_time(), command);
        Ok(within(CALL_TIMEOUT, "", call).await?)
    }
}

/// What a call that gets no answer may wait for: most likely the caller itself, who has a
/// transaction open. "; " and a sentence, or nothing.
fn waits_for(command: &Command) -> &'static str {
    match command {
        Command::Spawn(_) => WAITS_TO_SPAWN,
        Command::Checkpoint(_) => {
            "; does it wait for a transaction that the run has open? Keep the state in that \
             (`update_execution_state_in_op`), or end it first"
        }
        Command::Claim(_)
        | Command::Finish(_)
        | Command::Heartbeat(_)
        | Command::Hold(_)
        | Command::Reclaim(_)
        | Command::Find(_)
        | Command::History(_) => "",
    }
}

/// Makes a call of the store, and again while its outcome is unknown.
async fn repeated<T, F>(
    limit: Duration,
    waits_for: &str,
    mut call: impl FnMut() -> F,
) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut calls = 0;
    loop {
        calls += 1;
        match within(limit, waits_for, call()).await {
            Err(StoreError::Unknown(_)) if calls < CALLS_MAX => {}
            result => return result,
        }
    }
}

async fn within<T>(
    limit: Duration,
    waits_for: &str,
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    timeout(limit, call).await.unwrap_or_else(|_| {
        let text = format!("no answer within {limit:?}{waits_for}");
        Err(StoreError::Unknown(text))
    })
}

fn found(id: JobId, reply: Reply) -> Result<Job, JobError> {
    match reply {
        Reply::Found(Some(snapshot)) => Ok(Job::from_snapshot(&snapshot)),
        Reply::Found(None) => Err(JobError::NotFound(id)),
        other => Err(wrong_reply(&other)),
    }
}

/// A store that answers another command than it was asked has a bug.
pub(crate) fn wrong_reply(reply: &Reply) -> JobError {
    JobError::Store(unfitting(reply))
}

fn unfitting(reply: &Reply) -> StoreError {
    debug_assert!(
        false,
        "the store sent the reply of another command: {reply:?}"
    );
    StoreError::Failed("the store sent the reply of another command".to_owned())
}

#[cfg(test)]
mod tests {
    use crate::{JobSvcConfig, JobType};

    /// In memory a transaction keeps all others out, as on SQLite.
    #[tokio::test(start_paused = true)]
    async fn a_spawn_beside_an_open_transaction_is_told_to_join_it() {
        let jobs = JobSvcConfig::memory().await.unwrap();
        let reports = jobs.spawner::<u32>(JobType::new("report"));
        let open = jobs.pool().begin().await;
        let error = reports.job(1).await.unwrap_err();
        assert!(error.to_string().contains(".in_tx(&mut tx)"), "{error}");
        open.rollback();
        reports.job(1).await.unwrap();
    }
}
