//! The near end of the channel: what a process takes for its store.

use std::collections::BTreeSet;
use std::future::pending;

use job_engine::{Command, JobType, Reply, StoreError, Timestamp};
use job_tokio::{Store, Wake};
use tokio::sync::mpsc;

use super::call::{Ask, Caller};
use super::state::World;
use crate::event::{Call, Event, Who};
use crate::scenario::{Fault, Scenario};

/// The store of one process.
#[derive(Clone)]
pub struct Port {
    pub(crate) world: World,
    pub(crate) who: Who,
    /// Announcements never arrive here.
    pub(crate) deaf: bool,
}

impl Port {
    /// The number of the next call; never comes if the process is gone.
    pub(crate) async fn next_call(&self, caller: Caller) -> Call {
        match self.world.next_call(self.who, caller) {
            Some(call) => call,
            None => pending().await,
        }
    }

    fn listening(&self, wakes: Option<mpsc::Sender<Wake>>) -> bool {
        let (who, listening) = (self.who, wakes.is_some());
        let mut state = self.world.state();
        if !state.is_up(who) {
            return false;
        }
        if let Some(up) = state.up.get_mut(&who.worker) {
            up.wakes = wakes;
        }
        state.observe(&Event::Listening { who, listening });
        true
    }
}

impl Store for Port {
    async fn execute(&self, _: Option<Timestamp>, command: &Command) -> Result<Reply, StoreError> {
        let call = self.next_call(Caller::of(command)).await;
        let ask = Ask::Execute(command.clone());
        Ok(self
            .world
            .ask(call, ask)
            .await?
            .expect("a command has a reply"))
    }

    async fn announce(&self, types: &BTreeSet<JobType>) -> Result<(), StoreError> {
        let call = self.next_call(Caller::Announcer).await;
        self.world.ask(call, Ask::Announce(types.clone())).await?;
        Ok(())
    }

    async fn listen(&self, wakes: mpsc::Sender<Wake>) {
        if self.deaf {
            pending::<()>().await;
        }
        let world = &self.world;
        // It takes a while to connect.
        world
            .sleep_until(world.now_us() + world.scenario().latency_us.1)
            .await;
        let mut connected = false;
        loop {
            let (cut, changes_us) = cut_off(world.scenario(), self.who.worker, world.now_us());
            if connected == cut {
                connected = !cut;
                let (sender, wake) = if connected {
                    (Some(wakes.clone()), Wake::Restored)
                } else {
                    (None, Wake::Lost)
                };
                if !self.listening(sender) || wakes.send(wake).await.is_err() {
                    return;
                }
            }
            match changes_us {
                Some(at_us) => world.sleep_until(at_us).await,
                None => pending().await,
            }
        }
    }
}

/// Whether the listener of a worker knows that it is cut off, and when that may
/// change.
fn cut_off(scenario: &Scenario, worker: u32, now_us: u64) -> (bool, Option<u64>) {
    let (mut cut, mut changes_us) = (false, None::<u64>);
    for fault in &scenario.faults {
        let concerns = match fault {
            Fault::Deaf {
                worker: deaf,
                silent,
                ..
            } => *deaf == worker && !*silent,
            Fault::Partition { worker: cut, .. } => *cut == worker,
            Fault::StoreRestart { .. } => true,
            _ => false,
        };
        let Some((from_ms, to_ms)) = fault.span_ms().filter(|_| concerns) else {
            continue;
        };
        let edges_us = [from_ms, to_ms].map(|ms| ms.min(scenario.calm_from_ms) * 1_000);
        cut |= edges_us[0] <= now_us && now_us < edges_us[1];
        let next_us = edges_us.into_iter().filter(|at_us| *at_us > now_us).min();
        changes_us = changes_us.into_iter().chain(next_us).min();
    }
    (cut, changes_us)
}
