//! Level 3: the driver of production in hosts of a simulated network, over the
//! model store behind TCP.
//!
//! It finds what needs real connections: half-open ones, partitions in one
//! direction, hosts that vanish. `faults.rs` says how each fault of a scenario
//! acts here.
//!
//! One worker is one host; the store is one, and so is whoever spawns jobs from
//! outside. Hosts run one after the other for a tick of 10 ms each, so the times
//! of events of different hosts are in order only to within a tick, while what
//! one host does, and what follows from it elsewhere, is in order always.

mod client;
mod faults;
mod listener;
mod process;
// For the fuzz target that feeds it.
#[doc(hidden)]
pub mod rpc;
mod runner;
mod server;
mod spawner;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, UNIX_EPOCH};

use turmoil::Sim;

use crate::observed::Observed;
use crate::panics::Watch;
use crate::recorder::{Keep, Report};
use crate::scenario::{START, Scenario, Topic};
use faults::Faults;
use world::World;

pub use faults::supports;

/// How long each host runs before the next one does. Idle ticks are what a
/// simulation costs.
const TICK: Duration = Duration::from_millis(10);
/// The host of whoever spawns jobs from outside.
const OUTSIDE: &str = "outside";

/// Runs a scenario to its end, or to the first violation.
///
/// Faults that [`supports`] says no to are left out.
pub fn run(scenario: &Scenario, keep: Keep) -> Report {
    let watch = Watch::new();
    let world = World::new(scenario, keep);
    let (of_hook, of_observer) = (world.clone(), world.clone());
    let _observed = Observed::new(
        move |id, point| of_hook.dies_at(id, point),
        move |id, seen| of_observer.saw(id, seen),
    );
    let mut sim = build(&world);
    let mut faults = Faults::new(&world, &mut sim);
    while !world.is_over() {
        let now_us = sim.elapsed().as_micros() as u64;
        world.set_still(Some(now_us));
        if now_us >= scenario.horizon_ms * 1_000 {
            break;
        }
        faults.act(&mut sim, now_us);
        world.set_still(None);
        let step = catch_unwind(AssertUnwindSafe(|| sim.step()));
        world.set_still(Some(sim.elapsed().as_micros() as u64));
        let failed = match step {
            Ok(Ok(_)) => watch.first(),
            Ok(Err(error)) => Some(watch.first().unwrap_or_else(|| error.to_string())),
            Err(_) => watch.first().or_else(|| Some("no message".to_owned())),
        };
        if let Some(text) = failed {
            world.violated("cluster.panic", text);
        }
    }
    world.report()
}

/// The hosts, of which those of the workers do not run yet.
fn build(world: &World) -> Sim<'static> {
    let scenario = world.scenario();
    let (latency_min, latency_max) = scenario.latency_us;
    // What takes no time at all would arrive in the tick in which it was sent,
    // and before it.
    let latency_min = Duration::from_micros(latency_min.max(1));
    let latency_max = Duration::from_micros(latency_max).max(latency_min);
    let start = Duration::from_micros(START.as_micros().cast_unsigned());
    let mut sim = turmoil::Builder::new()
        .rng_seed(scenario.draws().draw(Topic::Cluster, [0; 3]))
        .epoch(UNIX_EPOCH + start)
        .tick_duration(TICK)
        .simulation_duration(Duration::from_millis(scenario.horizon_ms) + TICK)
        .min_message_latency(latency_min)
        .max_message_latency(latency_max)
        .build();
    let store = world.clone();
    sim.host(server::HOST, move || server::serve(store.clone()));
    let outside = world.clone();
    sim.host(OUTSIDE, move || spawner::run_outside(outside.clone()));
    for worker in &scenario.workers {
        let (world, key) = (world.clone(), worker.key);
        sim.host(host_of(key), move || process::run(world.clone(), key));
        sim.crash(host_of(key));
    }
    sim
}

/// The name of the host of a worker.
fn host_of(worker: u32) -> String {
    format!("worker-{worker}")
}
