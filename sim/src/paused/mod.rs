//! Level 2: the real driver and the real service on one paused tokio runtime,
//! over a lossy channel to the model store.
//!
//! Nothing of the driver or the service is replaced: each process of a scenario
//! is a [`job::Jobs`] on a [`Backend`](job::Backend) of its own, whose store is
//! the far end of a channel. Time stands still while any task has something to
//! do, and jumps to the next timer when none has.

pub(crate) mod backend;
pub(crate) mod call;
pub(crate) mod observed;
mod port;
pub(crate) mod process;
mod runner;
pub(crate) mod state;
mod store;
pub(crate) mod timers;
pub(crate) mod timetable;
mod turns;
pub(crate) mod wire;
pub(crate) mod worker;

use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};

use crate::check::Violation;
use crate::panics;
use crate::recorder::{Keep, Report};
use crate::scenario::{Fault, Scenario};
use state::World;
use worker::Order;

/// Simulates a scenario to its end, or to the first violation. Faults that this
/// level does not have ([`supports`]) do not act.
///
/// # Panics
///
/// If the runtime cannot be built, or within another one.
pub fn run(scenario: &Scenario, keep: Keep) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O needs nothing that could be missing");
    runtime.block_on(simulate(scenario, keep))
}

/// Whether this level has this fault. All processes share one time, so none can lag,
/// or have its clock set.
pub fn supports(fault: &Fault) -> bool {
    match fault {
        Fault::Lag { .. } | Fault::ClockJump { .. } => false,
        Fault::Pause { .. }
        | Fault::Crash { .. }
        | Fault::CrashAt { .. }
        | Fault::Net { .. }
        | Fault::Partition { .. }
        | Fault::Message { .. }
        | Fault::Store { .. }
        | Fault::StoreRestart { .. }
        | Fault::StoreClockJump { .. }
        | Fault::Deaf { .. }
        | Fault::Announcements { .. }
        | Fault::Restart { .. } => true,
    }
}

async fn simulate(scenario: &Scenario, keep: Keep) -> Report {
    let world = World::new(scenario, keep);
    let _observed = observed::observe(&world);
    let mut tasks = JoinSet::new();
    tasks.spawn(wire::carry(world.clone()));
    let mut processes = JoinSet::new();
    let (orders, of_outside) = mpsc::unbounded_channel();
    world.state().outside_is_up(orders);
    processes.spawn(worker::outside(world.clone(), of_outside));
    worker::start_all(&world, &mut processes);
    tasks.spawn(timetable::act(world.clone()));
    let end = world.sleep_until(scenario.horizon_ms * 1_000);
    tokio::pin!(end);
    loop {
        tokio::select! {
            biased;
            () = world.over() => return world.report(),
            () = &mut end => break,
            Some(joined) = tasks.join_next() => check(&world, joined),
            Some(joined) = processes.join_next() => check(&world, joined),
        }
    }
    world.state().order_all(|| Order::End);
    while let Some(joined) = processes.join_next().await {
        check(&world, joined);
    }
    world.report()
}

pub(crate) fn check(world: &World, joined: Result<(), JoinError>) {
    if let Err(error) = joined {
        let mut state = world.state();
        let of_application = panics::last().filter(|_| state.of_application);
        let violation = of_application.map(Violation::panicked);
        state.violated(violation.unwrap_or_else(|| {
            let text = format!("a task of the simulation ended: {error}");
            Violation::new("paused.panic", text)
        }));
    }
}
