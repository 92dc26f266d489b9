//! One call of the store, from the side of the caller.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use job_engine::{Command, JobType, Reply, Run, StoreError};
use tokio::sync::oneshot;

use super::state::{State, World};
use super::wire::{Message, Request};
use crate::check::Violation;
use crate::event::{Call, Disturbance, Event, RUNNER_OPS, SERVICE_OPS, SPAWN_OPS, Who};

/// What the store is asked.
#[derive(Clone)]
pub(crate) enum Ask {
    /// To carry out a command as one transaction.
    Execute(Command),
    /// To say what a command does in a transaction, and to hold its row.
    Statement {
        transaction: u64,
        /// What it holds already.
        before: Vec<Command>,
        command: Command,
    },
    /// To commit a transaction that ends a run, with what it writes.
    Commit {
        transaction: u64,
        run: Option<Run>,
        writes: Vec<(Call, Command)>,
        changes: Changes,
    },
    /// To tell everyone that jobs of these types may be due.
    Announce(BTreeSet<JobType>),
}

/// What an application writes in a transaction. Clones are one: it is made once.
#[derive(Clone, Default)]
pub(crate) struct Changes(Arc<Mutex<Vec<Change>>>);

type Change = Box<dyn FnOnce() + Send>;

impl Changes {
    pub(crate) fn add(&self, change: impl FnOnce() + Send + 'static) {
        self.list().push(Box::new(change));
    }

    /// Makes them. Nothing of the world may be held meanwhile: they call back.
    pub(crate) fn make(self) {
        let changes = std::mem::take(&mut *self.list());
        changes.into_iter().for_each(|change| change());
    }

    fn list(&self) -> MutexGuard<'_, Vec<Change>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What came of it; there is no reply to a commit or an announcement.
pub(crate) type Done = Result<Option<Reply>, StoreError>;

/// Who makes a call; they are counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    Engine,
    Runner,
    Spawner,
    Announcer,
    /// Of another service.
    OfService,
}

/// Calls of announcers have numbers from here on.
const ANNOUNCE_OPS: u64 = 1 << 42;
/// How long the service waits for the reply to a call, in microseconds.
const CALL_TIMEOUT_US: u64 = 30_000_000;

impl Caller {
    /// Who sends a command outside of any transaction.
    pub(crate) fn of(command: &Command) -> Self {
        match command {
            Command::Claim(_)
            | Command::Finish(_)
            | Command::Heartbeat(_)
            | Command::Reclaim(_) => Self::Engine,
            Command::Checkpoint(_) | Command::Hold(_) | Command::Find(_) | Command::History(_) => {
                Self::Runner
            }
            Command::Spawn(_) => Self::Spawner,
        }
    }

    fn first_op(self) -> u64 {
        match self {
            Self::Engine => 0,
            Self::Runner => RUNNER_OPS,
            Self::Spawner => SPAWN_OPS,
            Self::Announcer => ANNOUNCE_OPS,
            Self::OfService => SERVICE_OPS,
        }
    }
}

impl World {
    /// The next call of a process; `None` if it is gone.
    pub(crate) fn next_call(&self, who: Who, caller: Caller) -> Option<Call> {
        let mut state = self.state();
        if !state.is_up(who) {
            return None;
        }
        if who == Who::OUTSIDE && caller == Caller::Engine {
            let text = "the service of the test polls; it is there to spawn and to look";
            state.violated(Violation::new("the test does no work", text));
        }
        let up = state.up.get_mut(&who.worker)?;
        let count = &mut up.ops[caller as usize];
        *count += 1;
        let op = caller.first_op() + *count;
        Some(Call { who, op })
    }

    /// Asks the store. The request goes its way even if the caller gives up.
    /// For a process that is gone, it never returns.
    pub(crate) async fn ask(&self, call: Call, ask: Ask) -> Done {
        // What is lost of it is dropped when nothing is held any more.
        let changes = match &ask {
            Ask::Commit { changes, .. } => Some(changes.clone()),
            _ => None,
        };
        let (mut waiting, receiver) = self.state().send(self, call, ask);
        drop(changes);
        let done = receiver.await;
        // The sender is dropped only with the process.
        match done.ok().and_then(|done| waiting.heard(done)) {
            Some(done) => done,
            None => std::future::pending().await,
        }
    }
}

/// The caller waits. If it is dropped instead, it has given up.
struct Waiting {
    world: World,
    call: Call,
    /// Whether it waits for the reply to a command.
    of_command: bool,
    /// When the caller gives up.
    until_us: u64,
    waits: bool,
}

impl Waiting {
    /// Takes the reply in, unless the process is gone.
    fn heard(&mut self, done: Done) -> Option<Done> {
        let call = self.call;
        self.waits = false;
        let mut state = self.world.state();
        if !state.is_up(call.who) {
            state.observe(&Event::Unheard { call });
            return None;
        }
        let result = done.transpose();
        if let Some(result) = result.as_ref().filter(|_| self.of_command) {
            state.observe(&Event::Answered { call, result });
        }
        Some(result.transpose())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.waits {
            return;
        }
        let call = self.call;
        let mut state = self.world.state();
        let waiter = state.waiters.remove(&call);
        let timed_out = state.now_us >= self.until_us;
        if self.of_command && timed_out && state.is_up(call.who) {
            let result = Err(StoreError::Unknown("no answer".to_owned()));
            state.observe(&Event::Answered {
                call,
                result: &result,
            });
        }
        drop(state);
        drop(waiter);
    }
}

impl State {
    fn send(&mut self, world: &World, call: Call, ask: Ask) -> (Waiting, oneshot::Receiver<Done>) {
        let now_us = self.now_us;
        let (sender, receiver) = oneshot::channel();
        self.waiters.insert(call, sender);
        self.timers.look();
        let command = match &ask {
            Ask::Execute(command) | Ask::Statement { command, .. } => Some(command),
            Ask::Commit { .. } | Ask::Announce(_) => None,
        };
        if let Some(command) = command {
            self.observe(&Event::Sent { call, command });
        }
        let limit_us = match self.up.get(&call.who.worker) {
            Some(up) if call.is_of_engine() => up.store_timeout_us,
            _ => CALL_TIMEOUT_US,
        };
        let waiting = Waiting {
            world: world.clone(),
            call,
            of_command: command.is_some(),
            until_us: now_us + limit_us,
            waits: true,
        };
        let plan = self.network.request(call, now_us);
        if plan.disturbed {
            self.disturb(Some(call.who), now_us, Disturbance::Network);
        }
        // Within a connection nothing arrives twice.
        let copied = matches!(ask, Ask::Execute(_));
        let request = Request { call, ask };
        if let Some(copy_us) = plan.copy_us.filter(|_| copied) {
            let copy = Message::Request(request.clone());
            self.wire.send(now_us + copy_us, copy);
        }
        if let Some(travels_us) = plan.travels_us {
            self.wire
                .send(now_us + travels_us, Message::Request(request));
        }
        (waiting, receiver)
    }
}
