//! What happens when, by the plan of the scenario: faults of processes and
//! clocks, spawns, the calm. What befalls messages is decided by the
//! [`Network`](crate::network::Network).

use super::state::{State, World};
use super::supports;
use super::worker::Order;
use crate::event::{Disturbance, Event, Who};
use crate::scenario::{Fault, Scenario};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Entry {
    /// A pause is over: that of the fault at this place.
    GoesOn(usize),
    /// The fault at this place begins.
    Fault(usize),
    /// The job at this place is spawned, perhaps for the second time.
    Spawn(usize, bool),
    Calm,
}

/// Does all of it, then waits for ever.
pub(crate) async fn act(world: World) {
    for (at_ms, entry) in timetable(world.scenario()) {
        world.sleep_until(at_ms * 1_000).await;
        let mut state = world.state();
        match entry {
            Entry::GoesOn(place) => state.goes_on(place),
            Entry::Fault(place) => state.fault(world.scenario(), place),
            Entry::Spawn(place, again) => state.spawn(world.scenario(), place, again),
            Entry::Calm => state.observe(&Event::Calm),
        }
    }
    std::future::pending().await
}

fn timetable(scenario: &Scenario) -> Vec<(u64, Entry)> {
    let mut table = vec![(scenario.calm_from_ms, Entry::Calm)];
    for (place, fault) in scenario.faults.iter().enumerate() {
        let begins_ms = fault.span_ms().map(|(at_ms, _)| at_ms);
        let acts = begins_ms.filter(|at_ms| *at_ms < scenario.calm_from_ms && supports(fault));
        table.extend(acts.map(|at_ms| (at_ms, Entry::Fault(place))));
        if let (Fault::Pause { .. }, Some(_), Some((_, to_ms))) = (fault, acts, fault.span_ms()) {
            table.push((to_ms.min(scenario.calm_from_ms), Entry::GoesOn(place)));
        }
    }
    for (place, job) in scenario.jobs.iter().enumerate() {
        if job.parent.is_none() {
            table.push((job.spawn_ms, Entry::Spawn(place, false)));
        }
        table.extend(job.again_ms.map(|at_ms| (at_ms, Entry::Spawn(place, true))));
    }
    table.sort();
    table
}

impl State {
    fn fault(&mut self, scenario: &Scenario, place: usize) {
        self.observe(&Event::Fault { place });
        let now_us = self.now_us;
        let fault = &scenario.faults[place];
        let who = fault.worker().and_then(|worker| self.incarnation(worker));
        match fault {
            Fault::Crash { back_ms, .. } => {
                if let Some(who) = who {
                    self.crash(who, back_ms.map(|ms| ms * 1_000));
                }
            }
            Fault::Restart {
                worker,
                back_ms,
                knobs,
                ..
            } => {
                if who.is_some_and(|who| !self.stands_still(who)) {
                    let order = Order::Restart {
                        back_us: back_ms.map(|ms| ms * 1_000),
                        knobs: knobs.clone(),
                    };
                    self.order(*worker, order);
                }
            }
            Fault::StoreClockJump { by_ms, .. } => {
                self.store_ahead_us += by_ms * 1_000;
                self.timers.look();
                // A lease that ran out is noticed at the next heartbeat.
                let lease_ms = scenario
                    .workers
                    .iter()
                    .map(|worker| worker.knobs.lease_ms)
                    .max();
                let until_us = now_us + lease_ms.unwrap_or(0) * 1_000;
                self.disturb(None, until_us, Disturbance::StoreClock);
            }
            Fault::Pause { for_ms, .. } => {
                let until_us = (now_us + for_ms * 1_000).min(scenario.calm_from_ms * 1_000);
                if let Some(who) = who {
                    self.stand_still(who, place, until_us);
                }
            }
            Fault::StoreRestart { .. } if self.of_application => {
                self.transactions_ended = self.transactions;
                let of_workers = self.holders.iter();
                let of_workers = of_workers.filter(|(_, holder)| **holder != Who::OUTSIDE);
                let ended: Vec<u64> = of_workers.map(|(number, _)| *number).collect();
                for transaction in ended {
                    self.unlock(transaction);
                }
            }
            Fault::CrashAt { .. }
            | Fault::Lag { .. }
            | Fault::Net { .. }
            | Fault::Partition { .. }
            | Fault::Message { .. }
            | Fault::Store { .. }
            | Fault::StoreRestart { .. }
            | Fault::ClockJump { .. }
            | Fault::Deaf { .. }
            | Fault::Announcements { .. } => {}
        }
    }

    fn incarnation(&self, worker: u32) -> Option<Who> {
        let up = self.up.get(&worker)?;
        Some(Who {
            worker,
            incarnation: up.incarnation,
        })
    }

    /// Has a job spawned by the process that is to do it, or from outside if
    /// that is not there.
    fn spawn(&mut self, scenario: &Scenario, place: usize, again: bool) {
        let by = scenario.jobs[place]
            .by
            .filter(|by| !again && self.up.contains_key(by));
        let by = by.unwrap_or(Who::OUTSIDE.worker);
        self.order(by, Order::Spawn { place, again });
    }
}
