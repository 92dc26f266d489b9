//! What a runner knows of the run that it performs.

use std::sync::{Arc, Mutex, PoisonError};

use job_engine::planted::{Bug, planted};
use job_engine::store::{Checkpoint, Written};
use job_engine::worker::StopReason;
use job_engine::{Command, Payload, Reply, Run, StoreError};
use job_tokio::{ClockHandle, StopSignal};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::backend::{
    AnyBackend, AnyTransaction, AtomicWrite, Backend, CallerTransaction, DefaultBackend,
};
use crate::core::Core;
use crate::error::JobError;
use crate::hold::RunGuard;
use crate::{JobId, JobType, Spawn, Task, readable};

/// How often a transaction is begun whose first statement fails.
const BEGINS_MAX: u32 = 5;

/// The run that a runner performs: its job, its attempt, its execution state.
pub struct CurrentJob<B: Backend = DefaultBackend> {
    core: Arc<Core<B>>,
    id: JobId,
    job_type: JobType,
    run: Run,
    attempt: u32,
    interruptions: u32,
    state: Option<Payload>,
    signal: StopSignal,
    /// The one that it begins first, where a test has begun it. Boxed, as it is hardly ever
    /// there.
    transaction: Mutex<Option<Box<B::Transaction>>>,
}

impl<B: Backend> CurrentJob<B> {
    pub(crate) fn new(
        core: Arc<Core<B>>,
        job: job_engine::store::ClaimedJob,
        signal: StopSignal,
        transaction: Option<Box<B::Transaction>>,
    ) -> Self {
        Self {
            core,
            id: job.run.job.into(),
            job_type: job.job_type.into(),
            run: job.run,
            attempt: job.attempt,
            interruptions: job.interruptions,
            state: job.state,
            signal,
            transaction: Mutex::new(transaction),
        }
    }

    /// The same run, for those who do not know the backend.
    pub(crate) fn into_any(self) -> CurrentJob<AnyBackend> {
        let begun = self.begun();
        CurrentJob {
            core: self.core.any(),
            id: self.id,
            job_type: self.job_type,
            run: self.run,
            attempt: self.attempt,
            interruptions: self.interruptions,
            state: self.state,
            signal: self.signal,
            transaction: Mutex::new(
                begun.map(|begun| Box::new(AnyTransaction::new_on::<B>(begun))),
            ),
        }
    }

    /// The job.
    pub fn id(&self) -> &JobId {
        &self.id
    }

    /// Its type.
    pub fn job_type(&self) -> &JobType {
        &self.job_type
    }

    /// Which attempt this is, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The pool of the service.
    pub fn pool(&self) -> &B::Pool {
        self.core.pool()
    }

    /// The clock of the service.
    pub fn clock(&self) -> &ClockHandle {
        self.core.clock()
    }

    /// Decodes the execution state that this or an earlier run kept; `None` if
    /// none did.
    ///
    /// # Errors
    ///
    /// When the stored JSON does not fit `T`.
    pub fn execution_state<T: DeserializeOwned>(&self) -> Result<Option<T>, serde_json::Error> {
        let state = self.state.as_ref();
        state
            .map(|state| serde_json::from_str(state.as_str()))
            .transpose()
    }

    /// Keeps an execution state, as JSON. It survives retries, reschedules and crashes,
    /// until the job ends.
    ///
    /// While a transaction of the run is open ([`CurrentJob::begin`]), in memory and on SQLite
    /// this waits for it, and so for itself, and fails after 90 s and 20 s. On Postgres it does
    /// so if that transaction has kept a state, or works on a snapshot (REPEATABLE READ). Keep the state in it:
    /// [`CurrentJob::update_execution_state_in_op`].
    ///
    /// # Errors
    ///
    /// [`JobError::LeaseLost`] if another worker may run the job by now;
    /// [`JobError::SerializeState`] if it has no JSON, or none that could be read again
    /// (a number in it is infinite or NaN, or it is nested more than 127 deep);
    /// [`JobError::Rejected`] if its JSON has more than 64 MiB; or an error of the store.
    pub async fn update_execution_state<T: Serialize>(
        &mut self,
        execution_state: T,
    ) -> Result<(), JobError> {
        let state = self.payload(&execution_state)?;
        let command = self.checkpoint(&state);
        let reply = self.core.execute(&command).await?;
        self.checkpointed(reply, state)
    }

    /// Keeps an execution state in a transaction of the caller: together with what else is
    /// written in it, or not at all. The guide `transactions` has an example.
    ///
    /// # Errors
    ///
    /// As [`CurrentJob::update_execution_state`]; and [`JobError::OtherBackend`] if the
    /// transaction is one of another backend than that of the service. Roll it back then.
    pub async fn update_execution_state_in_op<T: Serialize>(
        &mut self,
        op: &mut (impl AtomicWrite<B> + ?Sized),
        execution_state: &T,
    ) -> Result<(), JobError> {
        let state = self.payload(execution_state)?;
        let command = self.checkpoint(&state);
        let reply = self.core.execute_in(op, &command).await?;
        self.checkpointed(reply, state)
    }

    /// How often the job was interrupted by the end of its worker, since a run of it last
    /// ended otherwise.
    pub fn interruptions(&self) -> u32 {
        self.interruptions
    }

    /// Begins a transaction for the run to write in and to complete with
    /// ([`JobCompletion::CompleteWithTx`](crate::JobCompletion::CompleteWithTx)), and takes
    /// the run's own row in it first.
    ///
    /// That makes it safe at any isolation. Otherwise a transaction at REPEATABLE READ or
    /// SERIALIZABLE that is open for longer than a quarter of `job_lost_interval` could
    /// never complete the run: the heartbeat would have changed the row since its snapshot.
    ///
    /// While it is open nobody takes the job away, however long that is. On Postgres at READ
    /// COMMITTED the lease is renewed meanwhile. Elsewhere it is not; once the transaction has
    /// ended, the next heartbeat renews it, and if that was open for longer than
    /// `job_lost_interval` and did not end the run, another worker may be faster. In memory
    /// and on SQLite, it keeps all else from being written.
    ///
    /// In it, keep the execution state by [`CurrentJob::update_execution_state_in_op`], and
    /// spawn by [`Spawn::in_tx`]: in memory and on SQLite,
    /// [`CurrentJob::update_execution_state`] and a spawn would wait until it ends, and on
    /// Postgres the former does if the transaction has kept a state, too.
    ///
    /// What is written in it is kept only if the run completes with it, or commits it: a run
    /// that ends with plain [`JobCompletion::Complete`](crate::JobCompletion::Complete) has
    /// dropped it, and it is rolled back.
    ///
    /// # Errors
    ///
    /// [`JobError::LeaseLost`] if another worker may run the job by now; or an error of the
    /// store.
    pub async fn begin(&self) -> Result<B::Transaction, JobError> {
        if let Some(transaction) = self.begun() {
            return Ok(transaction);
        }
        let mut begins = 1;
        loop {
            let mut transaction = B::begin_transaction(self.core.pool()).await?;
            match self.hold_in_op(&mut transaction).await {
                Ok(()) => return Ok(transaction),
                // A heartbeat came between the snapshot and the row.
                Err(JobError::Store(StoreError::Failed(_))) if begins < BEGINS_MAX => {
                    transaction.rollback().await;
                    begins += 1;
                }
                Err(error) => {
                    transaction.rollback().await;
                    return Err(error);
                }
            }
        }
    }

    /// Takes the row of the run in a transaction or operation of the caller, as
    /// [`CurrentJob::begin`] does: before anything else is read or written in it.
    ///
    /// # Errors
    ///
    /// As [`CurrentJob::begin`]; and [`JobError::OtherBackend`] if the transaction is one of
    /// another backend than that of the service. Roll it back then.
    pub async fn hold_in_op(
        &self,
        op: &mut (impl AtomicWrite<B> + ?Sized),
    ) -> Result<(), JobError> {
        match self.core.execute_in(op, &Command::Hold(self.run)).await? {
            Reply::Held(Written::Applied) => Ok(()),
            Reply::Held(Written::Stale) => Err(JobError::LeaseLost(self.id)),
            other => Err(crate::core::wrong_reply(&other)),
        }
    }

    /// Makes a job of another task, or the next of this one, as
    /// [`Jobs::spawn`](crate::Jobs::spawn) does.
    pub fn spawn<T: Task>(&self, task: T) -> Spawn<T, B> {
        Spawn::of_task(&self.core, task)
    }

    /// Waits until the run should end early: the service shuts down, or the
    /// lease of the run is lost ([`CurrentJob::is_lease_lost`]). Always `true`.
    /// After a shutdown there is `shutdown_timeout` left before the run is
    /// aborted. Cancel safe.
    pub async fn shutdown_requested(&mut self) -> bool {
        self.signal.stopped().await;
        true
    }

    /// Whether the run should end early.
    pub fn is_shutdown_requested(&mut self) -> bool {
        self.signal.reason().is_some()
    }

    /// Whether the lease of the run is lost, or could not be renewed in time:
    /// another worker may run the job now.
    pub fn is_lease_lost(&self) -> bool {
        self.signal.reason() == Some(StopReason::LeaseLost)
    }

    /// Says that the run has not ended while the guard lives, whatever becomes of the
    /// future of its runner: for work that goes on in [`tokio::task::spawn_blocking`] or
    /// in a task of its own. [`RunGuard`] has an example.
    pub fn hold(&self) -> RunGuard {
        RunGuard::new(&self.signal)
    }

    fn begun(&self) -> Option<B::Transaction> {
        let begun = self.transaction.lock();
        let mut begun = begun.unwrap_or_else(PoisonError::into_inner);
        begun.take().map(|begun| *begun)
    }

    fn payload<T: Serialize>(&self, state: &T) -> Result<Payload, JobError> {
        let json = readable::to_json(state).map_err(|source| JobError::SerializeState {
            job: self.id,
            source,
        })?;
        Ok(Payload::from_json(json))
    }

    fn checkpoint(&self, state: &Payload) -> Command {
        Command::Checkpoint(Checkpoint {
            run: self.run,
            state: state.clone(),
        })
    }

    fn checkpointed(&mut self, reply: Reply, state: Payload) -> Result<(), JobError> {
        match reply {
            Reply::Checkpointed(Written::Applied) => {
                self.state = Some(state);
                Ok(())
            }
            Reply::Checkpointed(Written::Stale) if planted(Bug::StaleCheckpointHidden) => Ok(()),
            Reply::Checkpointed(Written::Stale) => Err(JobError::LeaseLost(self.id)),
            other => Err(crate::core::wrong_reply(&other)),
        }
    }
}

#[cfg(feature = "es-entity")]
impl CurrentJob<crate::Postgres> {
    /// Begins an operation of es-entity at the time of the service's clock. It does not take
    /// the run's own row first, as [`CurrentJob::begin`] does:
    /// [`CurrentJob::hold_in_op`] does that.
    ///
    /// # Errors
    ///
    /// [`JobError::Sqlx`] if no transaction can be begun.
    pub async fn begin_op(&self) -> Result<es_entity::DbOp<'static>, JobError> {
        use es_entity::clock::ClockHandle;

        let clock = match self.clock().store_time() {
            None => ClockHandle::realtime(),
            Some(now) => ClockHandle::manual_at(job_tokio::to_datetime(now)).0,
        };
        Ok(es_entity::DbOp::init_with_clock(self.pool(), &clock).await?)
    }
}

impl<B: Backend> std::fmt::Debug for CurrentJob<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CurrentJob")
            .field("id", &self.id)
            .field("job_type", &self.job_type)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}
