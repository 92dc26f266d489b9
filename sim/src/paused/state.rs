//! The world that all tasks of a simulation share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use job::Jobs;
use job_engine::{JobId, ModelStore, Run, Timestamp, WorkerId};
use job_tokio::Wake;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::backend::Simulated;
use super::call::{Changes, Done};
use super::timers::Timers;
use super::turns::Still;
use super::wire::{Request, Wire};
use super::worker::Order;
use crate::check::Violation;
use crate::event::{Call, Disturbance, Event, Moment, Who};
use crate::network::Network;
use crate::recorder::{Keep, Recorder, Report};
use crate::scenario::{Fault, Knobs, START, Scenario, job_id, job_key};

/// Where so many events happen at one time, something spins.
const EVENTS_MAX: u32 = 20_000;

/// A simulation of an application with so many events never ends.
const EVENTS_ALL_MAX: u64 = 5_000_000;

/// A handle to the world. Clones share it.
#[derive(Clone)]
pub(crate) struct World {
    shared: Arc<Shared>,
}

struct Shared {
    scenario: Scenario,
    program: Program,
    begin: Instant,
    /// It is known what the processes of an application run.
    registered: Notify,
    /// A violation was found.
    over: Arc<Notify>,
    /// Something is to arrive sooner than what the wire waits for.
    sooner: Arc<Notify>,
    state: Mutex<State>,
}

/// What the processes run.
enum Program {
    /// What the scenario says.
    Scripted,
    /// What an application registers, once it has said so.
    OfApplication(Mutex<Option<Register>>),
}

/// Registers what a process of an application runs.
pub(crate) type Register = Arc<dyn Fn(&mut Jobs<Simulated>) + Send + Sync>;

/// What changes. It is never held across an await, and nothing that is called
/// with it held calls back.
pub(crate) struct State {
    /// Set whenever the state is looked at.
    pub(crate) now_us: u64,
    pub(crate) model: ModelStore,
    pub(crate) network: Network,
    pub(crate) wire: Wire,
    /// How far the clock of the store is ahead.
    pub(crate) store_ahead_us: i64,
    /// Who waits for the reply to a call.
    pub(crate) waiters: BTreeMap<Call, oneshot::Sender<Done>>,
    /// The transaction that holds the row of a job, with its number.
    pub(crate) locks: BTreeMap<JobId, u64>,
    /// What was committed, and is not made.
    pub(crate) committed: Vec<Changes>,
    /// What was asked to be committed, to be dropped.
    pub(crate) released: Vec<Changes>,
    /// Requests that wait for such a row.
    pub(crate) blocked: Vec<Request>,
    /// The processes that are up, by the key of their worker.
    pub(crate) up: BTreeMap<u32, Up>,
    pub(crate) announcements: u64,
    pub(crate) transactions: u64,
    /// Those of applications up to here were ended by a restart of the store.
    pub(crate) transactions_ended: u64,
    /// Whose the transactions are that hold rows.
    pub(crate) holders: BTreeMap<u64, Who>,
    /// The jobs are those of an application.
    pub(crate) of_application: bool,
    /// How much longer the reply to a claim takes for each job that it brings.
    pub(crate) claimed_job_us: u64,
    /// So many ids were made for it.
    ids_made: u32,
    /// So many inputs its test asked for.
    inputs: u32,
    calm_from_us: u64,
    crash_points: Vec<CrashPoint>,
    /// Everyone who ever was up.
    ids: BTreeMap<WorkerId, Who>,
    /// The newest run of each job that a process has started.
    runs: BTreeMap<(Who, JobId), Run>,
    /// The waits of the drivers of an application.
    pub(crate) timers: Timers,
    /// What runners are at work in processes that are up.
    pub(crate) executing: BTreeSet<(Who, Run)>,
    /// The time of the last event, and how many there were at that time.
    moment: (u64, u32),
    orders: BTreeMap<u32, mpsc::UnboundedSender<Order>>,
    /// The processes that stand still, by the key of their worker.
    pub(super) still: BTreeMap<u32, Still>,
    /// Whose task is polled, and the run that it performs.
    pub(super) at_turn: Option<(Who, Option<Run>)>,
    /// `None` when the simulation is over.
    recorder: Option<Recorder<'static>>,
    over: Arc<Notify>,
}

/// A process that is up.
pub(crate) struct Up {
    pub(crate) incarnation: u32,
    /// How long its driver waits for a reply.
    pub(crate) store_timeout_us: u64,
    /// Its calls of each kind so far.
    pub(crate) ops: [u64; 5],
    /// Where announcements go, while it listens.
    pub(crate) wakes: Option<mpsc::Sender<Wake>>,
}

/// A process dies when it comes to a fault point for the n-th time.
struct CrashPoint {
    worker: u32,
    point: String,
    left: u32,
    back_us: u64,
}

impl World {
    /// The world of a scenario.
    pub(crate) fn new(scenario: &Scenario, keep: Keep) -> Self {
        let recorder = Recorder::owned(scenario, keep);
        Self::of(scenario, keep, Program::Scripted, recorder)
    }

    /// The world of an application that is tested.
    pub(crate) fn of_application(scenario: &Scenario, keep: Keep) -> Self {
        let program = Program::OfApplication(Mutex::default());
        let recorder = Recorder::of_application(scenario, keep);
        Self::of(scenario, keep, program, recorder)
    }

    fn of(scenario: &Scenario, keep: Keep, program: Program, recorder: Recorder<'static>) -> Self {
        let of_application = matches!(program, Program::OfApplication(_));
        let network = Network::new(scenario);
        let network = if of_application {
            network.sparing_outside()
        } else {
            network
        };
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
            committed: Vec::new(),
            released: Vec::new(),
            blocked: Vec::new(),
            up: BTreeMap::new(),
            announcements: 0,
            transactions: 0,
            transactions_ended: 0,
            holders: BTreeMap::new(),
            of_application,
            claimed_job_us: scenario.claimed_job_ms * 1_000,
            ids_made: 0,
            inputs: 0,
            calm_from_us: scenario.calm_from_ms * 1_000,
            crash_points: crash_points(scenario),
            ids: BTreeMap::new(),
            runs: BTreeMap::new(),
            timers: Timers::default(),
            executing: BTreeSet::new(),
            moment: (0, 0),
            orders: BTreeMap::new(),
            still: BTreeMap::new(),
            at_turn: None,
            recorder: Some(recorder),
            over: Arc::clone(&over),
        };
        Self {
            shared: Arc::new(Shared {
                scenario: scenario.clone(),
                program,
                registered: Notify::new(),
                begin: Instant::now(),
                over,
                sooner,
                state: Mutex::new(state),
            }),
        }
    }

    pub(crate) fn scenario(&self) -> &Scenario {
        &self.shared.scenario
    }

    /// What registers what the processes of an application run, if that is known.
    pub(crate) fn register(&self) -> Option<Register> {
        match &self.shared.program {
            Program::Scripted => None,
            Program::OfApplication(register) => lock(register).clone(),
        }
    }

    /// Says what the processes of an application run; `None` when it is over.
    pub(crate) fn registers(&self, new: Option<Register>) {
        self.shared.registered.notify_one();
        if let Program::OfApplication(register) = &self.shared.program {
            *lock(register) = new;
        }
    }

    /// Ends when it is known what the processes of an application run.
    pub(crate) async fn is_registered(&self) {
        self.shared.registered.notified().await;
    }

    /// Lets something be seen. `of` is the process and the run that it is about.
    pub(crate) fn note(&self, of: Option<(Who, Option<Run>)>, text: impl AsRef<str>) {
        let (who, run) = (of.map(|(who, _)| who), of.and_then(|(_, run)| run));
        let text = text.as_ref();
        self.state().observe(&Event::Noted { who, run, text });
    }

    /// Microseconds since the start, true time.
    pub(crate) fn now_us(&self) -> u64 {
        self.shared.begin.elapsed().as_micros() as u64
    }

    pub(crate) fn calm_from_us(&self) -> u64 {
        self.scenario().calm_from_ms * 1_000
    }

    /// Ends at this time. Wakes come on whole milliseconds.
    pub(crate) async fn sleep_until(&self, at_us: u64) {
        sleep_until(self.shared.begin + Duration::from_micros(at_us)).await;
    }

    /// The state as it is now.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
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
    pub(crate) async fn over(&self) {
        self.shared.over.notified().await;
    }

    /// Ends when the wire has to look again.
    pub(crate) async fn sooner(&self) {
        self.shared.sooner.notified().await;
    }

    /// Lets go of what is on its way: it may hold on to this world.
    pub(crate) fn end(&self) {
        self.registers(None);
        let mut state = self.state();
        let (on_wire, blocked) = (state.wire.clear(), std::mem::take(&mut state.blocked));
        let changes = (
            std::mem::take(&mut state.committed),
            std::mem::take(&mut state.released),
        );
        drop(state);
        drop((on_wire, blocked, changes));
    }

    /// What came of it all. From here on nothing counts.
    pub(crate) fn report(&self) -> Report {
        let mut state = self.state();
        let now = state.moment();
        let Some(recorder) = state.recorder.take() else {
            return Report::default();
        };
        let mut report = recorder.finish(now, &state.model);
        report.befell = state.network.take_befell();
        report.inputs = state.inputs;
        report
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
    pub(crate) fn store_now(&self) -> Timestamp {
        let passed = self.now_us.cast_signed() + self.store_ahead_us;
        Timestamp::from_micros(START.as_micros() + passed)
    }

    pub(crate) fn is_calm(&self) -> bool {
        self.now_us >= self.calm_from_us
    }

    pub(crate) fn observe(&mut self, event: &Event<'_>) {
        let now = self.moment();
        // Whoever makes notes may make many.
        let counts = u32::from(!matches!(event, Event::Noted { .. }));
        self.moment = match self.moment {
            (at_us, count) if at_us == now.true_us => (at_us, count + counts),
            _ => (now.true_us, counts),
        };
        if self.moment.1 == EVENTS_MAX {
            let text = format!(
                "{EVENTS_MAX} events at {} us: something goes on and on while no time passes",
                now.true_us
            );
            self.violated(Violation::new("pace.spins", text));
        }
        if let Some(recorder) = &mut self.recorder {
            if self.of_application && recorder.events() == EVENTS_ALL_MAX {
                let text = format!(
                    "{EVENTS_ALL_MAX} events in one simulation: does a job reschedule itself for \
                     ever, or the test wait for something that never comes?"
                );
                recorder.violated(Violation::new("pace.endless", text));
                self.over.notify_one();
            }
            recorder.observe(now, &self.model, event);
            if recorder.is_over() {
                self.over.notify_one();
            }
        }
    }

    pub(crate) fn violated(&mut self, violation: Violation) {
        if let Some(recorder) = &mut self.recorder {
            recorder.violated(violation);
            self.over.notify_one();
        }
    }

    /// This process, or all, may lose leases now without being at fault.
    pub(crate) fn disturb(&mut self, who: Option<Who>, until_us: u64, by: Disturbance) {
        self.observe(&Event::Disturbed { who, until_us, by });
    }

    /// Whether this process is up.
    pub(crate) fn is_up(&self, who: Who) -> bool {
        let up = self.up.get(&who.worker);
        up.is_some_and(|up| up.incarnation == who.incarnation)
    }

    /// Whether any worker is up.
    pub(crate) fn any_is_up(&self) -> bool {
        self.up.keys().any(|key| *key != Who::OUTSIDE.worker)
    }

    /// Who claims under this id.
    pub(crate) fn who(&self, id: WorkerId) -> Option<Who> {
        self.ids.get(&id).copied()
    }

    /// What this process claims under, too.
    pub(crate) fn is_known_as(&mut self, who: Who, id: WorkerId) {
        self.ids.insert(id, who);
    }

    /// A process starts.
    pub(crate) fn is_starting(&mut self, who: Who, id: WorkerId, knobs: &Knobs) {
        self.is_known_as(who, id);
        let store_timeout_us = knobs.store_timeout().as_micros() as u64;
        self.up.insert(who.worker, Up::new(who, store_timeout_us));
        self.observe(&Event::Configured { who, knobs });
        self.observe(&Event::Up { who, id });
    }

    /// Whoever spawns from outside is there from the start.
    pub(crate) fn outside_is_up(&mut self, orders: mpsc::UnboundedSender<Order>) {
        let who = Who::OUTSIDE;
        self.up.insert(who.worker, Up::new(who, 0));
        self.takes_orders(who.worker, orders);
    }

    pub(crate) fn takes_orders(&mut self, worker: u32, orders: mpsc::UnboundedSender<Order>) {
        self.orders.insert(worker, orders);
    }

    pub(crate) fn order(&self, worker: u32, order: Order) {
        if let Some(orders) = self.orders.get(&worker) {
            // One whose task has ended does nothing more.
            let _ = orders.send(order);
        }
    }

    pub(crate) fn order_all(&self, order: impl Fn() -> Order) {
        for worker in self.orders.keys() {
            self.order(*worker, order());
        }
    }

    /// A process is gone: nothing that it does counts any more, and its tasks
    /// are ended as soon as the runtime gets to it.
    pub(crate) fn crash(&mut self, who: Who, back_us: Option<u64>) {
        if self.is_up(who) {
            self.up.remove(&who.worker);
            self.observe(&Event::Crashed { who });
            self.forget(who);
            self.order(who.worker, Order::Crashed { who, back_us });
        }
    }

    /// Whether the process of this worker has crashed, or stopped.
    pub(crate) fn is_gone(&self, id: WorkerId) -> bool {
        self.who(id).is_some_and(|who| !self.is_up(who))
    }

    pub(crate) fn asked_for_inputs(&mut self, count: u32) {
        self.inputs = self.inputs.max(count);
    }

    /// The next id of a job.
    pub(crate) fn make_id(&mut self) -> JobId {
        self.ids_made += 1;
        job_id(self.ids_made)
    }

    /// A process has stopped.
    pub(crate) fn has_stopped(&mut self, who: Who) {
        if self.is_up(who) {
            self.observe(&Event::Stopped { who });
            self.up.remove(&who.worker);
            self.forget(who);
        }
    }

    /// A process is gone: the store sees that its connections are, and none of its tasks
    /// goes on.
    fn forget(&mut self, who: Who) {
        let of_process = self.holders.iter().filter(|(_, holder)| **holder == who);
        let transactions: Vec<u64> = of_process.map(|(number, _)| *number).collect();
        for number in transactions {
            self.unlock(number);
        }
        self.waiters.retain(|call, _| call.who != who);
        self.executing.retain(|(of, _)| *of != who);
    }

    /// Whether the process of this worker dies at this point.
    pub(crate) fn dies_at(&mut self, id: WorkerId, point: &'static str) -> bool {
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
    pub(crate) fn has_started(&mut self, who: Who, run: Run) {
        self.runs.insert((who, run.job), run);
        self.executing.insert((who, run));
        self.timers.look();
    }

    /// The newest run of a job that this process has started.
    pub(crate) fn run(&self, who: Who, job: JobId) -> Run {
        let run = self.runs.get(&(who, job)).copied();
        run.unwrap_or_else(|| panic!("{who} makes a runner for {}, unstarted", job_key(job)))
    }
}

impl Up {
    fn new(who: Who, store_timeout_us: u64) -> Self {
        Self {
            incarnation: who.incarnation,
            store_timeout_us,
            ops: [0; 5],
            wakes: None,
        }
    }
}
