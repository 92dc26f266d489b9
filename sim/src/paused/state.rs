//! The world that all tasks of a simulation share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use job_engine::{Fence, JobId, ModelStore, Timestamp, WorkerId};
use job_tokio::Wake;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::call::Done;
use super::wire::{Request, Wire};
use super::worker::Order;
use crate::check::Violation;
use crate::event::{Call, Event, Moment, Who};
use crate::network::Network;
use crate::recorder::{Keep, Recorder, Report};
use crate::scenario::{Fault, Knobs, START, Scenario, job_key};

/// Where so many events happen at one time, something spins.
const EVENTS_MAX: u32 = 20_000;

/// A handle to the world. Clones share it.
#[derive(Clone)]
pub(super) struct World {
    shared: Arc<Shared>,
}

struct Shared {
    scenario: Scenario,
    begin: Instant,
    /// A violation was found.
    over: Arc<Notify>,
    /// Something is to arrive sooner than what the wire waits for.
    sooner: Arc<Notify>,
    state: Mutex<State>,
}

/// What changes. It is never held across an await, and nothing that is called
/// with it held calls back.
pub(super) struct State {
    /// Set whenever the state is looked at.
    pub(super) now_us: u64,
    pub(super) model: ModelStore,
    pub(super) network: Network,
    pub(super) wire: Wire,
    /// How far the clock of the store is ahead.
    pub(super) store_ahead_us: i64,
    /// Who waits for the reply to a call.
    pub(super) waiters: BTreeMap<Call, oneshot::Sender<Done>>,
    /// The transaction that holds the row of a job, with its number.
    pub(super) locks: BTreeMap<JobId, u64>,
    /// Requests that wait for such a row.
    pub(super) blocked: Vec<Request>,
    /// The processes that are up, by the key of their worker.
    pub(super) up: BTreeMap<u32, Up>,
    pub(super) announcements: u64,
    pub(super) transactions: u64,
    calm_from_us: u64,
    crash_points: Vec<CrashPoint>,
    /// Everyone who ever was up.
    ids: BTreeMap<WorkerId, Who>,
    /// The newest run of each job that a process has started.
    fences: BTreeMap<(Who, JobId), Fence>,
    /// The time of the last event, and how many there were at that time.
    moment: (u64, u32),
    orders: BTreeMap<u32, mpsc::UnboundedSender<Order>>,
    /// `None` when the simulation is over.
    recorder: Option<Recorder<'static>>,
    over: Arc<Notify>,
}

/// A process that is up.
pub(super) struct Up {
    pub(super) incarnation: u32,
    /// How long its driver waits for a reply.
    pub(super) store_timeout_us: u64,
    /// Its calls of each kind so far.
    pub(super) ops: [u64; 4],
    /// Where announcements go, while it listens.
    pub(super) wakes: Option<mpsc::Sender<Wake>>,
}

/// A process dies when it comes to a fault point for the n-th time.
struct CrashPoint {
    worker: u32,
    point: String,
    left: u32,
    back_us: u64,
}

impl World {
    pub(super) fn new(scenario: &Scenario, keep: Keep) -> Self {
        let network = Network::new(scenario);
        let over = Arc::new(Notify::new());
        let sooner = Arc::new(Notify::new());
        let state = State {
            now_us: 0,
            model: ModelStore::new(),
            network: if keep.befell {
                network.noting()
            } else {
                network
            },
            wire: Wire::new(Arc::clone(&sooner)),
            store_ahead_us: 0,
            waiters: BTreeMap::new(),
            locks: BTreeMap::new(),
            blocked: Vec::new(),
            up: BTreeMap::new(),
            announcements: 0,
            transactions: 0,
            calm_from_us: scenario.calm_from_ms * 1_000,
            crash_points: crash_points(scenario),
            ids: BTreeMap::new(),
            fences: BTreeMap::new(),
            moment: (0, 0),
            orders: BTreeMap::new(),
            recorder: Some(Recorder::owned(scenario, keep)),
            over: Arc::clone(&over),
        };
        Self {
            shared: Arc::new(Shared {
                scenario: scenario.clone(),
                begin: Instant::now(),
                over,
                sooner,
                state: Mutex::new(state),
            }),
        }
    }

    pub(super) fn scenario(&self) -> &Scenario {
        &self.shared.scenario
    }

    /// Microseconds since the start, true time.
    pub(super) fn now_us(&self) -> u64 {
        self.shared.begin.elapsed().as_micros() as u64
    }

    pub(super) fn calm_from_us(&self) -> u64 {
        self.scenario().calm_from_ms * 1_000
    }

    /// Ends at this time. Wakes come on whole milliseconds.
    pub(super) async fn sleep_until(&self, at_us: u64) {
        sleep_until(self.shared.begin + Duration::from_micros(at_us)).await;
    }

    /// The state as it is now.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        let state = self.shared.state.lock();
        let panicked = state.is_err();
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        state.now_us = self.now_us();
        if panicked {
            // Whoever it was may have been caught by the driver.
            let text = "a task panicked while it changed the world";
            state.violated(Violation::new("paused.panic", text));
        }
        state
    }

    /// Ends when a violation was found.
    pub(super) async fn over(&self) {
        self.shared.over.notified().await;
    }

    /// Ends when the wire has to look again.
    pub(super) async fn sooner(&self) {
        self.shared.sooner.notified().await;
    }

    /// What came of it all. From here on nothing counts.
    pub(super) fn report(&self) -> Report {
        let mut state = self.state();
        let now = state.moment();
        let Some(recorder) = state.recorder.take() else {
            return Report::default();
        };
        let mut report = recorder.finish(now, &state.model);
        report.befell = state.network.take_befell();
        report
    }
}

fn crash_points(scenario: &Scenario) -> Vec<CrashPoint> {
    let faults = scenario.faults.iter();
    let points = faults.filter_map(|fault| match fault {
        Fault::CrashAt {
            worker,
            point,
            nth,
            back_ms,
        } => Some(CrashPoint {
            worker: *worker,
            point: point.clone(),
            left: (*nth).max(1),
            back_us: back_ms * 1_000,
        }),
        _ => None,
    });
    points.collect()
}

impl State {
    fn moment(&self) -> Moment {
        Moment {
            true_us: self.now_us,
            store: self.store_now(),
        }
    }

    /// What the clock of the store shows.
    pub(super) fn store_now(&self) -> Timestamp {
        let passed = self.now_us.cast_signed() + self.store_ahead_us;
        Timestamp::from_micros(START.as_micros() + passed)
    }

    pub(super) fn is_calm(&self) -> bool {
        self.now_us >= self.calm_from_us
    }

    pub(super) fn observe(&mut self, event: &Event<'_>) {
        let now = self.moment();
        self.moment = match self.moment {
            (at_us, count) if at_us == now.true_us => (at_us, count + 1),
            _ => (now.true_us, 1),
        };
        if self.moment.1 == EVENTS_MAX {
            let text = format!("{EVENTS_MAX} events at {} us", now.true_us);
            self.violated(Violation::new("pace.spins", text));
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.observe(now, &self.model, event);
            if recorder.is_over() {
                self.over.notify_one();
            }
        }
    }

    pub(super) fn violated(&mut self, violation: Violation) {
        if let Some(recorder) = &mut self.recorder {
            recorder.violated(violation);
            self.over.notify_one();
        }
    }

    /// This process, or all, may lose leases now without being at fault.
    pub(super) fn disturb(&mut self, who: Option<Who>, until_us: u64, by: &'static str) {
        self.observe(&Event::Disturbed { who, until_us, by });
    }

    /// Whether this process is up.
    pub(super) fn is_up(&self, who: Who) -> bool {
        let up = self.up.get(&who.worker);
        up.is_some_and(|up| up.incarnation == who.incarnation)
    }

    /// Whether any worker is up.
    pub(super) fn any_is_up(&self) -> bool {
        self.up.keys().any(|key| *key != Who::OUTSIDE.worker)
    }

    /// Who claims under this id.
    pub(super) fn who(&self, id: WorkerId) -> Option<Who> {
        self.ids.get(&id).copied()
    }

    /// What this process claims under, too.
    pub(super) fn is_known_as(&mut self, who: Who, id: WorkerId) {
        self.ids.insert(id, who);
    }

    /// A process starts.
    pub(super) fn is_starting(&mut self, who: Who, id: WorkerId, knobs: &Knobs) {
        self.is_known_as(who, id);
        let store_timeout_us = knobs.store_timeout().as_micros() as u64;
        self.up.insert(who.worker, Up::new(who, store_timeout_us));
        self.observe(&Event::Configured { who, knobs });
        self.observe(&Event::Up { who, id });
    }

    /// Whoever spawns from outside is there from the start.
    pub(super) fn outside_is_up(&mut self, orders: mpsc::UnboundedSender<Order>) {
        let who = Who::OUTSIDE;
        self.up.insert(who.worker, Up::new(who, 0));
        self.takes_orders(who.worker, orders);
    }

    pub(super) fn takes_orders(&mut self, worker: u32, orders: mpsc::UnboundedSender<Order>) {
        self.orders.insert(worker, orders);
    }

    pub(super) fn order(&self, worker: u32, order: Order) {
        if let Some(orders) = self.orders.get(&worker) {
            // One whose task has ended does nothing more.
            let _ = orders.send(order);
        }
    }

    pub(super) fn order_all(&self, order: impl Fn() -> Order) {
        for worker in self.orders.keys() {
            self.order(*worker, order());
        }
    }

    /// A process is gone: nothing that it does counts any more, and its tasks
    /// are ended as soon as the runtime gets to it.
    pub(super) fn crash(&mut self, who: Who, back_us: Option<u64>) {
        if self.is_up(who) {
            self.up.remove(&who.worker);
            self.observe(&Event::Crashed { who });
            self.order(who.worker, Order::Crashed { who, back_us });
        }
    }

    /// A process has stopped.
    pub(super) fn has_stopped(&mut self, who: Who) {
        if self.is_up(who) {
            self.observe(&Event::Stopped { who });
            self.up.remove(&who.worker);
        }
    }

    /// Whether the process of this worker dies at this point.
    pub(super) fn dies_at(&mut self, id: WorkerId, point: &'static str) -> bool {
        let Some(who) = self.who(id) else {
            return false;
        };
        if !self.is_up(who) {
            return true;
        }
        if self.is_calm() {
            return false;
        }
        let mut points = self.crash_points.iter_mut();
        let hit = points
            .find(|crash| crash.left > 0 && crash.worker == who.worker && crash.point == point);
        let Some(crash) = hit else { return false };
        crash.left -= 1;
        if crash.left > 0 {
            return false;
        }
        let back_us = crash.back_us;
        self.observe(&Event::Point { who, point });
        self.crash(who, Some(back_us));
        true
    }

    /// A process has started the runner of this run.
    pub(super) fn has_started(&mut self, who: Who, job: JobId, fence: Fence) {
        self.fences.insert((who, job), fence);
    }

    /// The newest run of a job that this process has started.
    pub(super) fn fence(&self, who: Who, job: JobId) -> Fence {
        let fence = self.fences.get(&(who, job)).copied();
        fence.unwrap_or_else(|| panic!("{who} makes a runner for {}, unstarted", job_key(job)))
    }
}

impl Up {
    fn new(who: Who, store_timeout_us: u64) -> Self {
        Self {
            incarnation: who.incarnation,
            store_timeout_us,
            ops: [0; 4],
            wakes: None,
        }
    }
}
