//! What several clients asked of a store, when, and what each was told.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use job_engine::{Command, Reply, StoreError, Timestamp};

/// One command of one client.
#[derive(Clone, Debug)]
pub struct Call {
    /// Orders the calls and the returns of all clients.
    pub invoked: u64,
    /// `u64::MAX` if nobody heard of an end: the command may be carried out at
    /// any time from then on.
    pub returned: u64,
    /// The time that it was to be carried out at.
    pub now: Timestamp,
    pub command: Command,
    pub outcome: Outcome,
}

/// What a client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Replied(Reply),
    /// It failed for sure, or was refused.
    Unchanged(StoreError),
    Unknown,
}

/// Takes notes of what several clients do at once.
#[derive(Debug, Default)]
pub struct History {
    clock: AtomicU64,
    calls: Mutex<Vec<Call>>,
}

impl History {
    /// Carries out a command and notes it. `None` is an answer that nobody waits
    /// for any more.
    pub async fn record(
        &self,
        now: Timestamp,
        command: Command,
        execute: impl Future<Output = Option<Result<Reply, StoreError>>>,
    ) -> Outcome {
        let invoked = self.tick();
        let result = execute.await;
        let returned = self.tick();
        let outcome = match result {
            Some(Ok(reply)) => Outcome::Replied(reply),
            Some(Err(StoreError::Unknown(_))) | None => Outcome::Unknown,
            Some(Err(error)) => Outcome::Unchanged(error),
        };
        let returned = match outcome {
            Outcome::Unknown => u64::MAX,
            _ => returned,
        };
        let call = Call {
            invoked,
            returned,
            now,
            command,
            outcome: outcome.clone(),
        };
        self.calls.lock().unwrap().push(call);
        outcome
    }

    pub fn into_calls(self) -> Vec<Call> {
        self.calls.into_inner().unwrap()
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }
}
