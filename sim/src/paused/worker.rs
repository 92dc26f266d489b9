//! The life of a worker: its process starts, ends in one way or another, and
//! starts again.

use std::future::Future;
use std::pin::Pin;

use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::JoinSet;

use super::process::Process;
use super::state::World;
use crate::check::Violation;
use crate::event::{Event, Who};
use crate::scenario::Knobs;

/// What the process of a worker is told from outside.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    /// It is gone, and comes back after so long, or with the calm.
    Crashed { who: Who, back_us: Option<u64> },
    /// It is to shut down, and comes back after so long, if at all.
    Restart {
        back_us: Option<u64>,
        knobs: Option<Knobs>,
    },
    /// It is to spawn the job at this place.
    Spawn { place: usize, again: bool },
    /// The simulation is over.
    End,
}

/// How a process ended.
enum Gone {
    Crashed(Option<u64>),
    Stopped(Option<u64>, Option<Knobs>),
    /// With the simulation.
    End,
}

type Orders = UnboundedReceiver<Order>;

/// Whoever spawns from outside of all workers.
pub(crate) async fn outside(world: World, mut orders: Orders) {
    let process = Process::outside(&world).await;
    live(&world, Who::OUTSIDE, process, &mut orders).await;
}

/// Begins the lives of all workers.
pub(crate) fn start_all(world: &World, processes: &mut JoinSet<()>) {
    for (place, worker) in world.scenario().workers.iter().enumerate() {
        let (orders, of_worker) = mpsc::unbounded_channel();
        world.state().takes_orders(worker.key, orders);
        processes.spawn(work(world.clone(), place, of_worker));
    }
}

/// The life of the worker at this place.
async fn work(world: World, place: usize, mut orders: Orders) {
    let spec = world.scenario().workers[place].clone();
    let mut knobs = spec.knobs.clone();
    let mut start_us = spec.start_ms * 1_000;
    for incarnation in 1.. {
        if !sleeps_until(&world, start_us, &mut orders).await {
            return;
        }
        let who = Who {
            worker: spec.key,
            incarnation,
        };
        let process = Process::start(&world, who, spec.clock_ahead_ms, &knobs).await;
        let (now_us, calm_us) = match live(&world, who, process, &mut orders).await {
            Gone::End => return,
            Gone::Crashed(back_us) => {
                let calm_us = world.calm_from_us();
                let back_us = back_us.map(|us| world.now_us() + us);
                start_us = match back_us {
                    Some(back_us) if world.now_us() >= calm_us => back_us,
                    Some(back_us) => back_us.min(calm_us),
                    None => calm_us,
                };
                continue;
            }
            Gone::Stopped(Some(back_us), changed) => {
                start_us = world.now_us() + back_us;
                knobs = changed.unwrap_or(knobs);
                continue;
            }
            Gone::Stopped(None, _) => (world.now_us(), world.calm_from_us()),
        };
        // It stays away, unless nobody at all is there in the calm.
        if !sleeps_until(&world, now_us.max(calm_us + 1_000), &mut orders).await {
            return;
        }
        if place > 0 || world.state().any_is_up() {
            while !matches!(orders.recv().await, Some(Order::End) | None) {}
            return;
        }
        start_us = world.now_us();
    }
}

/// Sleeps while there is no process to take orders. Returns false if the
/// simulation ends meanwhile.
async fn sleeps_until(world: &World, at_us: u64, orders: &mut Orders) -> bool {
    let wakes = world.sleep_until(at_us);
    tokio::pin!(wakes);
    loop {
        tokio::select! {
            biased;
            order = orders.recv() => {
                if matches!(order, Some(Order::End) | None) {
                    return false;
                }
            }
            () = &mut wakes => return true,
        }
    }
}

async fn live(world: &World, who: Who, mut process: Process, orders: &mut Orders) -> Gone {
    let mut stop: Option<Pin<Box<dyn Future<Output = ()> + Send>>> = None;
    let mut then = (None, None);
    loop {
        tokio::select! {
            biased;
            order = orders.recv() => match order {
                Some(Order::Crashed { who: gone, back_us }) => {
                    if gone == who {
                        process.jobs.kill();
                        return Gone::Crashed(back_us);
                    }
                }
                Some(Order::Restart { back_us, knobs }) => {
                    if stop.is_none() {
                        then = (back_us, knobs);
                        world.state().observe(&Event::ShutdownAsked { who });
                        let (jobs, world) = (process.jobs.clone(), world.clone());
                        stop = Some(Box::pin(async move {
                            if let Err(error) = jobs.shutdown().await {
                                let violation = Violation::new("paused.panic", error.to_string());
                                world.state().violated(violation.of(who));
                            }
                        }));
                    }
                }
                Some(Order::Spawn { place, again }) => process.spawn(place, again),
                Some(Order::End) | None => {
                    if who != Who::OUTSIDE && stop.is_none() && !process.jobs.is_polling() {
                        let text = format!("the driver of {who} has ended by itself");
                        let violation = Violation::new("paused.panic", text);
                        world.state().violated(violation.of(who));
                    }
                    // Nothing has gone wrong for so long that all are told by now.
                    while let Some(joined) = process.spawns.try_join_next() {
                        super::check(world, joined);
                    }
                    if !process.spawns.is_empty() {
                        let text = format!("{} callers in {who} wait still", process.spawns.len());
                        let violation = Violation::new("spawns.unanswered", text);
                        world.state().violated(violation.of(who));
                    }
                    return Gone::End;
                }
            },
            () = stopped(&mut stop) => {
                world.state().has_stopped(who);
                return Gone::Stopped(then.0, then.1);
            }
            Some(joined) = process.spawns.join_next() => super::check(world, joined),
        }
    }
}

async fn stopped(stop: &mut Option<Pin<Box<dyn Future<Output = ()> + Send>>>) {
    match stop {
        Some(stop) => stop.await,
        None => std::future::pending().await,
    }
}
