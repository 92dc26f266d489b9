//! The backend of a simulated process.

use std::fmt;

use job::backend::NotAnOperationOf;
use job::backend::{AfterCommit, AtomicWrite, Backend, CallerTransaction, NoOperation};
use job::{ClockHandle, JobError};
use job_engine::store::Written;
use job_engine::{Command, JobType, Rejection, Reply, Run, StoreError, Timestamp};

use super::call::{Ask, Caller};
use super::port::Port;
use crate::event::Call;

/// The backend whose store is the model, at the far end of a lossy channel.
pub(super) enum Simulated {}

/// Which process it is for.
#[derive(Clone, Default)]
pub(super) struct Options {
    pub(super) port: Option<Port>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").finish_non_exhaustive()
    }
}

impl Backend for Simulated {
    type Options = Options;
    type Pool = Port;
    type Transaction = Transaction;
    type Operation = NoOperation;
    type Store = Port;

    fn check(options: &Options) -> Result<(), String> {
        options
            .port
            .as_ref()
            .map(|_| ())
            .ok_or("no port".to_owned())
    }

    async fn open(options: Options, _: &ClockHandle) -> Result<(Port, Port), JobError> {
        let port = options.port.expect("it was checked");
        Ok((port.clone(), port))
    }

    async fn close(_: &Port) {}
}

impl NotAnOperationOf<Simulated> for NoOperation {}

/// A transaction: its statements are answered at once, and take effect when it
/// is committed. The row of a run that it ends is held until it is over.
pub(super) struct Transaction {
    port: Port,
    number: u64,
    /// The run that it ends, or was to end.
    run: Option<Run>,
    finish: Option<(Call, Command)>,
    others: Vec<(Call, Command)>,
    after_commit: Vec<AfterCommit>,
}

impl Port {
    /// Begins a transaction.
    pub(super) fn begin(&self) -> Transaction {
        let mut state = self.world.state();
        state.transactions += 1;
        Transaction {
            port: self.clone(),
            number: state.transactions,
            run: None,
            finish: None,
            others: Vec::new(),
            after_commit: Vec::new(),
        }
    }
}

impl AtomicWrite<Simulated> for Transaction {
    async fn execute(
        &mut self,
        _: &Port,
        _: Option<Timestamp>,
        command: &Command,
    ) -> Result<Reply, StoreError> {
        let caller = match command {
            Command::Finish(_) | Command::Checkpoint(_) => Caller::Runner,
            Command::Spawn(_) => Caller::Spawner,
            Command::Claim(_) | Command::Heartbeat(_) | Command::Reclaim(_) | Command::Find(_) => {
                return Err(Rejection::NotInTransaction.into());
            }
        };
        if let Command::Finish(finishes) = command {
            self.run = finishes.first().map(|finish| finish.run);
        }
        let call = self.port.next_call(caller).await;
        let ask = Ask::Statement {
            transaction: self.number,
            command: command.clone(),
        };
        let reply = self.port.world.ask(call, ask).await?;
        let reply = reply.expect("a statement has a reply");
        let write = (call, command.clone());
        match &reply {
            Reply::Finished(written) if *written == [Written::Applied] => {
                self.finish = Some(write);
            }
            Reply::Finished(_) => {}
            _ => self.others.push(write),
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

impl CallerTransaction<Simulated> for Transaction {
    async fn commit(mut self) -> Result<(), StoreError> {
        let call = self.port.next_call(Caller::Runner).await;
        let others = std::mem::take(&mut self.others);
        let ask = Ask::Commit {
            transaction: self.number,
            run: self.run,
            writes: self.finish.take().into_iter().chain(others).collect(),
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

impl Drop for Transaction {
    fn drop(&mut self) {
        self.port.world.state().unlock(self.number);
    }
}
