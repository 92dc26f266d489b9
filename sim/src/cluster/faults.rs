//! How the faults of a scenario act on the hosts and links of a cluster.
//!
//! - A crash is polite, closing its connections, or a power loss, of which
//!   nobody hears; a draw decides.
//! - Lost messages break a link for a moment: TCP does not send them again, so
//!   the connection is dead.
//! - A partition cuts a link, in both directions or in one, or holds back what
//!   is sent.
//! - Trouble of the store and deafness act in the server.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use turmoil::Sim;

use super::server::HOST;
use super::world::World;
use super::{OUTSIDE, host_of};
use crate::event::{Disturbance, Event};
use crate::scenario::{Direction, Fault, MessageEffect, Scenario, Topic};

/// How long after a fault a client may take to connect again, apart from the
/// timeout of the call that finds out: it is silence that tells a listener, and
/// both pause between their attempts.
const RECONNECT_US: u64 = 5_000_000;
/// One lost message breaks a connection, and all calls on it: so much rarer than
/// a scenario says are they lost here.
const LOSS_DIVISOR: f64 = 10.0;
/// At most so often is a message lost.
const LOSS_MAX: f64 = 0.05;

/// Whether the fault can act at this level.
pub fn supports(fault: &Fault) -> bool {
    match fault {
        Fault::Crash { .. }
        | Fault::CrashAt { .. }
        | Fault::Net { .. }
        | Fault::Partition { .. }
        | Fault::Store { .. }
        | Fault::StoreRestart { .. }
        | Fault::StoreClockJump { .. }
        | Fault::Deaf { .. }
        | Fault::Announcements { .. }
        | Fault::Restart { .. } => true,
        // The store says so; messages themselves are segments of TCP.
        Fault::Message { effect, .. } => match effect {
            MessageEffect::Fail
            | MessageEffect::Refuse
            | MessageEffect::UnknownDone
            | MessageEffect::UnknownUndone => true,
            MessageEffect::LoseRequest
            | MessageEffect::LoseReply
            | MessageEffect::DelayRequestMs(_)
            | MessageEffect::DelayReplyMs(_)
            | MessageEffect::DuplicateMs(_) => false,
        },
        // A host cannot stand still, and its clock cannot be set.
        Fault::Pause { .. } | Fault::Lag { .. } | Fault::ClockJump { .. } => false,
    }
}

/// What happens to the cluster, by time.
pub(super) struct Faults {
    world: World,
    plan: BTreeMap<(u64, u64), Step>,
    planned: u64,
    /// Faults that act at present, by place.
    acting: BTreeSet<usize>,
    links: BTreeMap<u32, Cut>,
    calm_us: u64,
}

#[derive(Clone, Debug)]
enum Step {
    Start(u32),
    Begin(usize),
    End(usize),
    Calm,
}

/// What a link lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Nothing,
    ToStore,
    FromStore,
    Both,
    Held,
}

impl Faults {
    pub(super) fn new(world: &World, sim: &mut Sim<'static>) -> Self {
        let scenario = world.scenario();
        let mut faults = Self {
            world: world.clone(),
            plan: BTreeMap::new(),
            planned: 0,
            acting: BTreeSet::new(),
            links: BTreeMap::new(),
            calm_us: scenario.calm_from_ms * 1_000,
        };
        for worker in &scenario.workers {
            faults.plan(worker.start_ms * 1_000, Step::Start(worker.key));
            faults.links.insert(worker.key, Cut::Nothing);
        }
        let calm_us = faults.calm_us;
        for (place, fault) in scenario.faults.iter().enumerate() {
            let Some((from_ms, to_ms)) = fault.span_ms().filter(|_| supports(fault)) else {
                continue;
            };
            let (from_us, to_us) = (from_ms * 1_000, to_ms.saturating_mul(1_000));
            let known = fault
                .worker()
                .is_none_or(|key| scenario.worker(key).is_some());
            if from_us >= calm_us || !known {
                continue;
            }
            faults.plan(from_us, Step::Begin(place));
            faults.plan(to_us.min(calm_us), Step::End(place));
        }
        faults.plan(calm_us, Step::Calm);
        faults.act(sim, 0);
        faults
    }

    /// Does what is due, between two ticks.
    pub(super) fn act(&mut self, sim: &mut Sim<'static>, now_us: u64) {
        for gone in self.world.take_gone() {
            if gone.died {
                self.crash_host(sim, gone.worker, now_us);
            }
            if let Some(back_us) = gone.back_us {
                // In the calm everything is up again.
                let at_us = (now_us + back_us).min(self.calm_us.max(now_us));
                self.plan(at_us, Step::Start(gone.worker));
            }
        }
        while let Some(((at_us, n), step)) = self.plan.pop_first() {
            if at_us > now_us {
                self.plan.insert((at_us, n), step);
                break;
            }
            match step {
                Step::Start(worker) => {
                    if !sim.is_host_running(host_of(worker)) {
                        sim.bounce(host_of(worker));
                    }
                }
                Step::Begin(place) => self.begin(sim, place, now_us),
                Step::End(place) => self.end(sim, place),
                Step::Calm => self.world.record(&Event::Calm),
            }
        }
    }

    fn plan(&mut self, at_us: u64, step: Step) {
        self.planned += 1;
        self.plan.insert((at_us, self.planned), step);
    }

    fn begin(&mut self, sim: &mut Sim<'static>, place: usize, now_us: u64) {
        let world = self.world.clone();
        let fault = &world.scenario().faults[place];
        let to_us = fault
            .span_ms()
            .map_or(now_us, |(_, to_ms)| to_ms.saturating_mul(1_000));
        let over_us = to_us.min(self.calm_us) + self.aftermath_us();
        self.acting.insert(place);
        world.record(&Event::Fault { place });
        match fault {
            Fault::Crash {
                worker, back_ms, ..
            } => {
                world.crash(*worker);
                self.crash_host(sim, *worker, now_us);
                let back_us = back_ms.map(|ms| now_us + ms * 1_000);
                let back_us = back_us.map_or(self.calm_us, |us| us.min(self.calm_us));
                self.plan(back_us, Step::Start(*worker));
            }
            Fault::Restart {
                worker,
                back_ms,
                knobs,
                ..
            } => world.ask_to_stop(*worker, *back_ms, knobs.as_ref()),
            Fault::Partition { worker, .. } => {
                world.disturb(Some(*worker), over_us, Disturbance::Partition);
                self.cut(sim, *worker);
                self.weaken(sim);
            }
            Fault::Net { worker, .. } => {
                world.disturb(*worker, over_us, Disturbance::Network);
                self.weaken(sim);
            }
            Fault::Store { .. } => world.disturb(None, over_us, Disturbance::Store),
            Fault::StoreRestart { .. } => {
                world.disturb(None, over_us, Disturbance::StoreRestart);
                if sim.is_host_running(HOST) {
                    self.crash_store(sim, place);
                }
            }
            Fault::StoreClockJump { by_ms, .. } => {
                // Leases end early; their holders learn it from a heartbeat.
                let until_us = now_us + 2 * self.longest_lease_us();
                world.disturb(None, until_us, Disturbance::StoreClock);
                world.set_store_clock(*by_ms);
            }
            // They act in the server, and cost nobody a lease.
            Fault::Deaf { .. } | Fault::Announcements { .. } => {}
            Fault::CrashAt { .. }
            | Fault::Pause { .. }
            | Fault::Lag { .. }
            | Fault::Message { .. }
            | Fault::ClockJump { .. } => {}
        }
    }

    fn end(&mut self, sim: &mut Sim<'static>, place: usize) {
        let world = self.world.clone();
        self.acting.remove(&place);
        match &world.scenario().faults[place] {
            Fault::Partition { worker, .. } => {
                self.cut(sim, *worker);
                self.weaken(sim);
            }
            Fault::Net { .. } => self.weaken(sim),
            Fault::StoreRestart { .. } => {
                let mut acting = self.acting(world.scenario());
                let away = acting.any(|fault| matches!(fault, Fault::StoreRestart { .. }));
                if !away {
                    sim.bounce(HOST);
                }
            }
            _ => {}
        }
    }

    fn acting<'a>(&self, scenario: &'a Scenario) -> impl Iterator<Item = &'a Fault> {
        self.acting.iter().map(|place| &scenario.faults[*place])
    }

    fn longest_lease_us(&self) -> u64 {
        let workers = self.world.scenario().workers.iter();
        let leases = workers.map(|worker| worker.knobs.lease_ms * 1_000);
        leases.max().unwrap_or(0)
    }

    /// How long the consequences of a fault for connections last.
    fn aftermath_us(&self) -> u64 {
        let workers = &self.world.scenario().workers;
        let timeouts = workers.iter().map(|worker| worker.knobs.store_timeout());
        timeouts.max().unwrap_or_default().as_micros() as u64 + RECONNECT_US
    }

    /// Takes the host of a worker away.
    fn crash_host(&mut self, sim: &mut Sim<'static>, worker: u32, now_us: u64) {
        let draws = self.world.scenario().draws();
        let key = [1, u64::from(worker), now_us];
        let (host, polite) = (host_of(worker), draws.happens(Topic::Cluster, key, 50));
        if polite {
            sim.crash(&*host);
            return;
        }
        sim.partition(&*host, HOST);
        sim.crash(&*host);
        sim.repair(&*host, HOST);
        self.links.insert(worker, Cut::Nothing);
        self.cut(sim, worker);
    }

    fn crash_store(&mut self, sim: &mut Sim<'static>, place: usize) {
        let scenario = self.world.scenario();
        let workers = scenario.workers.iter().map(|worker| worker.key);
        let workers: Vec<u32> = workers.collect();
        let key = [2, place as u64, 0];
        let polite = scenario.draws().happens(Topic::Cluster, key, 50);
        if polite {
            sim.crash(HOST);
            return;
        }
        for worker in &workers {
            sim.partition(host_of(*worker), HOST);
        }
        sim.partition(OUTSIDE, HOST);
        sim.crash(HOST);
        sim.repair(OUTSIDE, HOST);
        for worker in workers {
            sim.repair(host_of(worker), HOST);
            self.links.insert(worker, Cut::Nothing);
            self.cut(sim, worker);
        }
    }

    /// Cuts the link of a worker as the partitions that act say.
    fn cut(&mut self, sim: &mut Sim<'static>, worker: u32) {
        let (mut to_store, mut from_store, mut held) = (false, false, false);
        let world = self.world.clone();
        for fault in self.acting(world.scenario()) {
            if let Fault::Partition {
                worker: of,
                direction,
                hold,
                ..
            } = fault
                && *of == worker
            {
                // Both directions are held, or none.
                held |= hold;
                to_store |= !hold && *direction != Direction::FromStore;
                from_store |= !hold && *direction != Direction::ToStore;
            }
        }
        let cut = match (to_store, from_store) {
            (true, true) => Cut::Both,
            (true, false) => Cut::ToStore,
            (false, true) => Cut::FromStore,
            (false, false) if held => Cut::Held,
            (false, false) => Cut::Nothing,
        };
        let before = self.links.insert(worker, cut);
        if before == Some(cut) {
            return;
        }
        let host = host_of(worker);
        let host = &*host;
        match before {
            Some(Cut::Held) => sim.release(host, HOST),
            // The network may have broken by itself.
            _ => sim.repair(host, HOST),
        }
        match cut {
            Cut::Nothing => {}
            Cut::ToStore => sim.partition_oneway(host, HOST),
            Cut::FromStore => sim.partition_oneway(HOST, host),
            Cut::Both => sim.partition(host, HOST),
            Cut::Held => sim.hold(host, HOST),
        }
    }

    /// Makes every link as bad as the faults that act say.
    fn weaken(&self, sim: &mut Sim<'static>) {
        let scenario = self.world.scenario();
        let workers = scenario.workers.iter().map(|worker| Some(worker.key));
        for worker in workers.chain([None]) {
            let host = worker.map_or_else(|| OUTSIDE.to_owned(), host_of);
            let (mut loss, mut delay_ms) = (0, 0);
            for fault in self.acting(scenario) {
                if let Fault::Net {
                    worker: of,
                    lose_request_pct,
                    lose_reply_pct,
                    delay_pct,
                    delay_ms: up_to_ms,
                    ..
                } = fault
                    && (of.is_none() || *of == worker)
                {
                    loss = loss.max(*lose_request_pct).max(*lose_reply_pct);
                    // Here it is all messages that are delayed, by less.
                    delay_ms = delay_ms.max(up_to_ms * u64::from(*delay_pct) / 100);
                }
            }
            // A link that breaks by itself also heals by itself, a partition
            // included.
            let whole = worker.is_none_or(|worker| self.links[&worker] == Cut::Nothing);
            let rate = f64::from(loss) / 100.0 / LOSS_DIVISOR;
            let rate = if whole { rate.min(LOSS_MAX) } else { 0.0 };
            sim.set_link_fail_rate(&*host, HOST, rate);
            let (latency_min, latency_max) = scenario.latency_us;
            let latency = Duration::from_micros(latency_max.max(latency_min).max(1));
            let latency = latency + Duration::from_millis(delay_ms);
            sim.set_link_max_message_latency(&*host, HOST, latency);
        }
    }
}
