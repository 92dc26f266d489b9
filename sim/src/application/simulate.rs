//! One simulation of an application.

use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::rc::Rc;

use futures_util::FutureExt;
use job_engine::JobId;
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::sim::Sim;
use super::{ASSERTION, ENDLESS};
use crate::check::Violation;
use crate::panics::{self, Watch};
use crate::paused::state::World;
use crate::paused::worker::{Order, start_all};
use crate::paused::{check, observed, timetable, wire};
use crate::recorder::{Keep, Report};
use crate::scenario::Scenario;

/// A test that still waits so long after the calm began will wait for ever.
const TEST_MAX_US: u64 = 400 * 24 * 3_600 * 1_000_000;

/// Simulates a scenario with what the test starts, to the end of the test, or to the
/// first thing that must not be.
///
/// # Panics
///
/// If the runtime cannot be built, or within another one.
pub(super) fn simulate<F, T>(scenario: &Scenario, keep: Keep, test: &F) -> Report
where
    F: Fn(Sim) -> T,
    T: Future<Output = ()>,
{
    // Panics are kept, wherever they are; tasks that nobody awaits would hide them.
    let _watch = Watch::new();
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O needs nothing that could be missing");
    runtime.block_on(async {
        let world = World::of_application(scenario, keep);
        let sim = Sim::new(world.clone());
        let report = run(&world, || test(sim.clone())).await;
        sim.end();
        report
    })
}

async fn run<T: Future<Output = ()>>(world: &World, test: impl FnOnce() -> T) -> Report {
    let _observed = observed::observe(world);
    let _ids = Ids::from(world.clone());
    let mut tasks = JoinSet::new();
    tasks.spawn(wire::carry(world.clone()));
    tasks.spawn(timetable::act(world.clone()));
    let drivers = world.clone();
    tasks.spawn(async move { drivers.wake_drivers().await });
    let mut processes = JoinSet::new();
    let (orders, _nobody_takes_them) = mpsc::unbounded_channel();
    world.state().outside_is_up(orders);
    // What comes before its first await is part of it.
    let test = AssertUnwindSafe(async { test().await }).catch_unwind();
    let mut test = pin!(in_turn_of_test(world, test));
    let too_long = world.sleep_until(world.calm_from_us() + TEST_MAX_US);
    tokio::pin!(too_long);
    loop {
        tokio::select! {
            biased;
            () = world.over() => break,
            ended = &mut test => {
                if ended.is_err() {
                    let (place, text) = panics::last().unwrap_or_default();
                    let check = format!("{ASSERTION} at {place}");
                    world.state().violated(Violation::new(&check, text));
                } else if let Some(panic) = panics::last() {
                    // In a task that nobody has awaited.
                    world.state().violated(Violation::panicked(panic));
                }
                break;
            }
            () = world.is_registered(), if processes.is_empty() => start_all(world, &mut processes),
            () = &mut too_long => {
                let text = "the test still waits, a year after things ceased to go wrong";
                world.state().violated(Violation::new(ENDLESS, text));
            }
            Some(joined) = tasks.join_next() => check(world, joined),
            Some(joined) = processes.join_next() => check(world, joined),
        }
    }
    let report = world.report();
    // What it started ends before its world does.
    world.state().order_all(|| Order::End);
    while processes.join_next().await.is_some() {}
    report
}

/// What the test does is told from what is done in tasks that someone has started.
async fn in_turn_of_test<T: Future>(world: &World, test: T) -> T::Output {
    let mut test = pin!(test);
    poll_fn(|cx| {
        world.state().begin_turn_of_test();
        let polled = test.as_mut().poll(cx);
        world.state().end_turn();
        polled
    })
    .await
}

/// While it lives, the ids of new jobs are those of its world.
struct Ids;

impl From<World> for Ids {
    fn from(world: World) -> Self {
        let next = move || {
            let JobId(id) = world.state().make_id();
            id
        };
        job::set_ids(Some(Rc::new(next)));
        Self
    }
}

impl Drop for Ids {
    fn drop(&mut self) {
        job::set_ids(None);
    }
}
