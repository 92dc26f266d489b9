//! The backend of a simulated process.

use std::fmt;
use std::time::Duration;

use job::backend::NotAnOperationOf;
use job::backend::{AfterCommit, AtomicWrite, Backend, CallerTransaction, NoOperation};
use job::{ClockHandle, JobError};
use job_engine::{Command, JobType, Rejection, Reply, Run, StoreError, Timestamp};

use tokio::time::timeout;

use super::call::{Ask, Caller, Changes};
use super::port::Port;
use super::store::takes_effect;
use crate::event::Call;

/// How long a commit may take.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);

/// The backend of a simulation: its store is the model, at the far end of a lossy
/// channel.
#[derive(Debug)]
pub enum Simulated {}

/// Which process it is for.
#[derive(Clone, Default)]
pub struct SimulatedOptions {
    pub(crate) port: Option<Port>,
}

impl fmt::Debug for SimulatedOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedOptions").finish_non_exhaustive()
    }
}

/// Begins transactions in a simulation.
#[derive(Clone)]
pub struct SimulatedPool {
    port: Port,
}

impl fmt::Debug for SimulatedPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedPool").finish_non_exhaustive()
    }
}

impl Backend for Simulated {
    type Options = SimulatedOptions;
    type Pool = SimulatedPool;
    type Transaction = SimulatedTransaction;
    type Operation = NoOperation;
    type Store = Port;

    fn check(options: &SimulatedOptions) -> Result<(), String> {
        options
            .port
            .as_ref()
            .map(|_| ())
            .ok_or("no port".to_owned())
    }

    async fn open(
        options: SimulatedOptions,
        _: &ClockHandle,
    ) -> Result<(SimulatedPool, Port), JobError> {
        let port = options.port.expect("it was checked");
        Ok((SimulatedPool { port: port.clone() }, port))
    }

    async fn begin_transaction(pool: &SimulatedPool) -> Result<SimulatedTransaction, StoreError> {
        Ok(pool.begin())
    }

    async fn close(_: &Port) {}
}

impl NotAnOperationOf<Simulated> for NoOperation {}

/// A transaction of a simulation. What is written in it takes effect when it is
/// committed, or not at all; what it reads of jobs may be outdated by then. Dropping it
/// rolls it back.
pub struct SimulatedTransaction {
    port: Port,
    number: u64,
    /// The run that it ends, or was to end.
    run: Option<Run>,
    /// What it writes, in the order of its statements.
    writes: Vec<(Call, Command)>,
    /// A statement failed, or has no answer: the connection is gone, or the transaction
    /// aborted.
    broken: bool,
    changes: Changes,
    after_commit: Vec<AfterCommit>,
}

impl SimulatedPool {
    /// Begins a transaction.
    pub fn begin(&self) -> SimulatedTransaction {
        let mut state = self.port.world.state();
        state.transactions += 1;
        SimulatedTransaction {
            port: self.port.clone(),
            number: state.transactions,
            run: None,
            writes: Vec::new(),
            broken: false,
            changes: Changes::default(),
            after_commit: Vec::new(),
        }
    }
}

impl SimulatedTransaction {
    /// Writes something of the application's: the change is made when the database
    /// commits the transaction, together with what else is in it, whether whoever
    /// commits it lives to hear of that or not.
    pub fn write(&mut self, change: impl FnOnce() + Send + 'static) {
        self.changes.add(change);
    }

    /// Commits it: for a transaction of the test, or of a runner that does not complete
    /// with it.
    ///
    /// # Errors
    ///
    /// When the commit failed, or may have failed; a statement that failed before is
    /// enough.
    pub async fn commit(self) -> Result<(), JobError> {
        match timeout(COMMIT_TIMEOUT, CallerTransaction::commit(self)).await {
            Ok(committed) => Ok(committed?),
            Err(_) => {
                let text = format!("no answer to the commit within {COMMIT_TIMEOUT:?}");
                Err(StoreError::Unknown(text).into())
            }
        }
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.broken {
            let text = "an earlier statement of the transaction failed";
            return Err(StoreError::Failed(text.to_owned()));
        }
        Ok(())
    }
}

impl fmt::Debug for SimulatedTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedTransaction")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl AtomicWrite<Simulated> for SimulatedTransaction {
    async fn execute(
        &mut self,
        _: &Port,
        _: Option<Timestamp>,
        command: &Command,
    ) -> Result<Reply, StoreError> {
        let caller = match command {
            Command::Finish(_) | Command::Checkpoint(_) | Command::Hold(_) => Caller::Runner,
            Command::Spawn(_) => Caller::Spawner,
            Command::Claim(_)
            | Command::Heartbeat(_)
            | Command::Reclaim(_)
            | Command::Find(_)
            | Command::History(_) => {
                return Err(Rejection::NotInTransaction.into());
            }
        };
        if let Command::Finish(finishes) = command {
            self.run = finishes.first().map(|finish| finish.run);
        }
        self.check()?;
        let call = self.port.next_call(caller).await;
        let before = self.writes.iter().map(|(_, command)| command.clone());
        let ask = Ask::Statement {
            transaction: self.number,
            before: before.collect(),
            command: command.clone(),
        };
        // Also when this is dropped before there is an answer.
        self.broken = true;
        let reply = self.port.world.ask(call, ask).await;
        self.broken = matches!(reply, Err(StoreError::Failed(_) | StoreError::Unknown(_)));
        let reply = reply?.expect("a statement has a reply");
        if takes_effect(&reply) {
            self.writes.push((call, command.clone()));
        }
        Ok(reply)
    }

    async fn after_commit(
        &mut self,
        _: &Port,
        _: &JobType,
        wake: AfterCommit,
    ) -> Result<(), StoreError> {
        self.after_commit.push(wake);
        Ok(())
    }
}

impl CallerTransaction<Simulated> for SimulatedTransaction {
    async fn commit(mut self) -> Result<(), StoreError> {
        self.check()?;
        let call = self.port.next_call(Caller::Runner).await;
        let ask = Ask::Commit {
            transaction: self.number,
            run: self.run,
            writes: std::mem::take(&mut self.writes),
            changes: std::mem::take(&mut self.changes),
        };
        self.port.world.ask(call, ask).await?;
        for wake in self.after_commit.drain(..) {
            wake();
        }
        Ok(())
    }

    async fn rollback(self) {
        // Dropping it does.
    }
}

impl Drop for SimulatedTransaction {
    fn drop(&mut self) {
        self.port.world.state().unlock(self.number);
    }
}
