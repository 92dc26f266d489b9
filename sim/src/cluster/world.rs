//! What all hosts of a cluster share, and in reality could not: the record of
//! what happens, the data of the store, and who is alive.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use job_engine::planted::{Bug, planted};
use job_engine::store::{Finish, NewJob, Written};
use job_engine::{Command, ModelStore, Reply, StoreError, Timestamp, WorkerId};
use tokio::sync::watch;

use super::faults::supports;
use crate::check::Violation;
use crate::event::{Call, Disturbance, Event, Moment, Who};
use crate::network::{Fate, Network};
use crate::observed::event_of;
use crate::recorder::{Keep, Recorder, Report};
use crate::scenario::{Fault, Knobs, START, Scenario, StoreTrouble};
use job_tokio::observer::Seen;

/// See the module. Clones share it.
#[derive(Clone)]
pub(super) struct World {
    scenario: Arc<Scenario>,
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    /// None when the simulation is over: what its end brings about is not part
    /// of it.
    recorder: Option<Recorder<'static>>,
    model: ModelStore,
    network: Network,
    /// What time it is while no host runs.
    still_us: Option<u64>,
    /// How far the clock of the store is ahead of the true time.
    store_ahead_us: i64,
    processes: BTreeMap<u32, Process>,
    ids: BTreeMap<WorkerId, Who>,
    /// Processes that died by themselves, and those that stopped.
    gone: Vec<Gone>,
    /// Calls that somebody waits for.
    open: BTreeSet<Call>,
    disturbances: Vec<Spell>,
    /// Jobs whose spawn has returned.
    spawned: BTreeSet<(u32, bool)>,
    /// How often a process of a worker came to a fault point.
    visits: BTreeMap<(u32, &'static str), u32>,
    announcements: u64,
}

struct Process {
    incarnation: u32,
    up: bool,
    knobs: Knobs,
    stop: watch::Sender<bool>,
    /// The pause after the shutdown that was asked for.
    back_us: Option<u64>,
}

#[derive(Clone, Copy)]
struct Spell {
    worker: Option<u32>,
    until_us: u64,
    by: Disturbance,
}

/// A process that is no more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gone {
    /// Of which worker.
    pub(super) worker: u32,
    /// It died; else it stopped as it was asked to.
    pub(super) died: bool,
    /// The pause before it starts again; `None` for never.
    pub(super) back_us: Option<u64>,
}

/// What a process is given when it starts.
pub(super) struct Birth {
    /// Who it is.
    pub(super) who: Who,
    /// How it is configured.
    pub(super) knobs: Knobs,
    /// Becomes true when it is to shut down.
    pub(super) stop: watch::Receiver<bool>,
}

impl World {
    pub(super) fn new(scenario: &Scenario, keep: Keep) -> Self {
        let workers = scenario.workers.iter().map(|worker| {
            let process = Process {
                incarnation: 0,
                up: false,
                knobs: worker.knobs.clone(),
                stop: watch::Sender::new(false),
                back_us: None,
            };
            (worker.key, process)
        });
        let mut known = scenario.clone();
        known.faults.retain(supports);
        let inner = Inner {
            recorder: Some(Recorder::owned(scenario, keep)),
            model: ModelStore::new(),
            network: Network::new(&known),
            still_us: Some(0),
            store_ahead_us: 0,
            processes: workers.collect(),
            ids: BTreeMap::new(),
            gone: Vec::new(),
            open: BTreeSet::new(),
            disturbances: Vec::new(),
            spawned: BTreeSet::new(),
            visits: BTreeMap::new(),
            announcements: 0,
        };
        Self {
            scenario: Arc::new(scenario.clone()),
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    pub(super) fn scenario(&self) -> &Scenario {
        &self.scenario
    }

    /// Microseconds since the start of the simulation.
    pub(super) fn now_us(&self) -> u64 {
        self.inner().now_us()
    }

    /// From here on hosts run, or none does and it is so late.
    pub(super) fn set_still(&self, still_us: Option<u64>) {
        self.inner().still_us = still_us;
    }

    /// Waits until so long after the start of the simulation.
    pub(super) async fn sleep_until_ms(&self, at_ms: u64) {
        let wait_us = (at_ms * 1_000).saturating_sub(self.now_us());
        tokio::time::sleep(std::time::Duration::from_micros(wait_us)).await;
    }

    /// Whether nothing goes wrong any more.
    pub(super) fn is_calm(&self) -> bool {
        self.now_us() >= self.scenario.calm_from_ms * 1_000
    }

    /// Takes in what happened to the store or the world.
    pub(super) fn record(&self, event: &Event<'_>) {
        self.inner().observe(event);
    }

    /// Takes in what a process did, unless that is dead: it does nothing then.
    pub(super) fn record_by(&self, who: Who, event: &Event<'_>) {
        let mut inner = self.inner();
        if inner.is_alive(who) {
            inner.observe(event);
        }
    }

    pub(super) fn is_alive(&self, who: Who) -> bool {
        self.inner().is_alive(who)
    }

    pub(super) fn is_over(&self) -> bool {
        self.inner().recorder.as_ref().is_none_or(Recorder::is_over)
    }

    /// Ends the simulation.
    pub(super) fn violated(&self, check: &str, text: String) {
        if let Some(recorder) = &mut self.inner().recorder {
            recorder.violated(Violation::new(check, text));
        }
    }

    /// What came of it all; nothing is recorded after it.
    pub(super) fn report(&self) -> Report {
        let mut inner = self.inner();
        let now = inner.moment();
        let recorder = inner.recorder.take();
        recorder.map_or_else(Report::default, |r| r.finish(now, &inner.model))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A check that panicked is reported as what it is.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The life of processes.
impl World {
    /// A new process of this worker begins.
    pub(super) fn birth(&self, worker: u32) -> Birth {
        let mut inner = self.inner();
        let process = inner.process(worker);
        process.incarnation += 1;
        process.back_us = None;
        process.stop = watch::Sender::new(false);
        Birth {
            who: Who {
                worker,
                incarnation: process.incarnation,
            },
            knobs: process.knobs.clone(),
            stop: process.stop.subscribe(),
        }
    }

    /// Its engine has this id.
    pub(super) fn up(&self, who: Who, id: WorkerId) {
        let mut inner = self.inner();
        let process = inner.process(who.worker);
        process.up = true;
        let knobs = process.knobs.clone();
        inner.ids.insert(id, who);
        inner.observe(&Event::Configured { who, knobs: &knobs });
        inner.observe(&Event::Up { who, id });
        let now_us = inner.now_us();
        let lasting = inner.disturbances.clone().into_iter().filter(|one| {
            one.until_us > now_us && one.worker.is_none_or(|worker| worker == who.worker)
        });
        for one in lasting {
            inner.disturb(one);
        }
    }

    /// The process of this worker is gone, without a word.
    pub(super) fn crash(&self, worker: u32) {
        self.inner().crash(worker);
    }

    /// A process takes itself away, and is started again after a pause.
    pub(super) fn die(&self, who: Who, back_ms: u64) {
        let mut inner = self.inner();
        if inner.is_alive(who) {
            inner.die(who.worker, back_ms);
        }
    }

    /// A worker is to shut down, and to be started again after a pause.
    pub(super) fn ask_to_stop(&self, worker: u32, back_ms: Option<u64>, knobs: Option<&Knobs>) {
        let mut inner = self.inner();
        let process = inner.process(worker);
        if !process.up || *process.stop.borrow() {
            return;
        }
        process.back_us = back_ms.map(|ms| ms * 1_000);
        process.stop.send_replace(true);
        if let Some(knobs) = knobs {
            process.knobs = knobs.clone();
        }
    }

    /// A worker has shut down.
    pub(super) fn stopped(&self, who: Who) {
        let mut inner = self.inner();
        if !inner.is_alive(who) {
            return;
        }
        inner.observe(&Event::Stopped { who });
        let process = inner.process(who.worker);
        process.up = false;
        let back_us = process.back_us;
        inner.gone.push(Gone {
            worker: who.worker,
            died: false,
            back_us,
        });
    }

    /// Who died or stopped since this was asked last.
    pub(super) fn take_gone(&self) -> Vec<Gone> {
        std::mem::take(&mut self.inner().gone)
    }

    /// Something goes wrong until then that is not the fault of this worker, or
    /// of any.
    pub(super) fn disturb(&self, worker: Option<u32>, until_us: u64, by: Disturbance) {
        let mut inner = self.inner();
        let one = Spell {
            worker,
            until_us,
            by,
        };
        inner.disturbances.push(one);
        inner.disturb(one);
    }

    /// Takes in what the driver with this engine did with a runner.
    pub(super) fn saw(&self, id: WorkerId, seen: Seen<'_>) {
        let who = self.inner().ids.get(&id).copied();
        if let Some(who) = who {
            self.record_by(who, &event_of(who, seen));
        }
    }

    /// Whether the process with this engine dies at this fault point.
    pub(super) fn dies_at(&self, id: WorkerId, point: &'static str) -> bool {
        let mut inner = self.inner();
        let who = inner.ids.get(&id).copied();
        let Some(who) = who.filter(|who| inner.is_alive(*who)) else {
            return false;
        };
        let visits = inner.visits.entry((who.worker, point)).or_default();
        *visits += 1;
        let visits = *visits;
        if inner.now_us() >= self.scenario.calm_from_ms * 1_000 {
            return false;
        }
        let mut faults = self.scenario.faults.iter().enumerate();
        let planned = faults.find_map(|(place, fault)| match fault {
            Fault::CrashAt {
                worker,
                point: of,
                nth,
                back_ms,
            } if *worker == who.worker && of == point && *nth == visits => Some((place, *back_ms)),
            _ => None,
        });
        let Some((place, back_ms)) = planned else {
            return false;
        };
        inner.observe(&Event::Fault { place });
        inner.observe(&Event::Point { who, point });
        inner.die(who.worker, back_ms);
        true
    }
}

/// The store.
impl World {
    /// Carries out a command.
    pub(super) fn apply(&self, call: Call, command: &Command) -> Result<Reply, StoreError> {
        self.inner().apply(call, command)
    }

    /// Carries out the transaction that ends a run: all of it, or nothing.
    pub(super) fn commit(
        &self,
        call: Call,
        finish: Finish,
        children: Vec<NewJob>,
    ) -> Result<Reply, StoreError> {
        let mut inner = self.inner();
        let run = finish.run;
        let reply = inner.apply(call, &Command::Finish(vec![finish]))?;
        let recorded = reply == Reply::Finished(vec![Written::Applied]);
        if !recorded && !planted(Bug::CommitWithStaleLease) {
            return Ok(reply);
        }
        if !children.is_empty() {
            inner.apply(call, &Command::Spawn(children))?;
        }
        let who = call.who;
        inner.observe(&Event::Committed { who, run });
        Ok(reply)
    }

    /// What the store does with a call that has arrived.
    pub(super) fn fate(&self, call: Call) -> Fate {
        let mut inner = self.inner();
        let now_us = inner.now_us();
        inner.network.fate(call, now_us)
    }

    /// How much longer than usual the store takes at present, in milliseconds.
    pub(super) fn slow_ms(&self) -> u64 {
        let now_us = self.now_us();
        let slow = self.scenario.faults.iter().filter_map(|fault| match fault {
            Fault::Store {
                trouble: StoreTrouble::SlowMs(ms),
                ..
            } if self.acts(fault, now_us) => Some(*ms),
            _ => None,
        });
        slow.max().unwrap_or(0)
    }

    /// Whether the store refuses to send announcements to this worker.
    pub(super) fn is_deaf(&self, worker: u32) -> bool {
        let now_us = self.now_us();
        self.scenario.faults.iter().any(|fault| match fault {
            Fault::Deaf {
                worker: deaf,
                silent: false,
                ..
            } => *deaf == worker && self.acts(fault, now_us),
            _ => false,
        })
    }

    /// How often an announcement is sent to a worker that listens: never, once
    /// or twice.
    pub(super) fn copies(&self, to: Who, job_type: u32) -> usize {
        let mut inner = self.inner();
        inner.announcements += 1;
        let (n, now_us) = (inner.announcements, inner.now_us());
        let copies = inner.network.announcement(to, job_type, n, now_us);
        copies.into_iter().flatten().count()
    }

    /// Sets the clock of the store.
    pub(super) fn set_store_clock(&self, by_ms: i64) {
        self.inner().store_ahead_us += by_ms * 1_000;
    }

    fn acts(&self, fault: &Fault, now_us: u64) -> bool {
        let calm_from_ms = self.scenario.calm_from_ms;
        fault.span_ms().is_some_and(|(from_ms, to_ms)| {
            let to_ms = to_ms.min(calm_from_ms);
            (from_ms * 1_000..to_ms * 1_000).contains(&now_us)
        })
    }
}

/// Calls.
impl World {
    /// Somebody waits for the answer to this call.
    pub(super) fn open_call(&self, call: Call, command: &Command) {
        let mut inner = self.inner();
        if inner.is_alive(call.who) {
            inner.open.insert(call);
            inner.observe(&Event::Sent { call, command });
        }
    }

    /// It is answered, or nobody waits any longer.
    pub(super) fn close_call(&self, call: Call, result: &Result<Reply, StoreError>) {
        let mut inner = self.inner();
        if inner.open.remove(&call) && inner.is_alive(call.who) {
            inner.observe(&Event::Answered { call, result });
        }
    }

    /// The answer to this call is about to be sent.
    pub(super) fn answers(&self, call: Call) {
        let mut inner = self.inner();
        if !inner.is_alive(call.who) {
            inner.open.remove(&call);
            inner.observe(&Event::Unheard { call });
        }
    }

    /// Whether a spawn has returned.
    pub(super) fn is_spawned(&self, job: u32, again: bool) -> bool {
        self.inner().spawned.contains(&(job, again))
    }

    /// A spawn has returned.
    pub(super) fn set_spawned(&self, job: u32, again: bool) {
        self.inner().spawned.insert((job, again));
    }
}

impl Inner {
    fn now_us(&self) -> u64 {
        self.still_us.unwrap_or_else(|| {
            let elapsed = turmoil::sim_elapsed().expect("a host runs");
            elapsed.as_micros() as u64
        })
    }

    /// The clocks of hosts agree to within a tick: hosts run one after the
    /// other. Nothing arrives in the tick in which it was sent.
    fn moment(&self) -> Moment {
        let true_us = self.now_us();
        let since_start = true_us.cast_signed() + self.store_ahead_us;
        Moment {
            true_us,
            store: Timestamp::from_micros(START.as_micros() + since_start),
        }
    }

    fn observe(&mut self, event: &Event<'_>) {
        let now = self.moment();
        if let Some(recorder) = &mut self.recorder {
            recorder.observe(now, &self.model, event);
        }
    }

    fn apply(&mut self, call: Call, command: &Command) -> Result<Reply, StoreError> {
        let now = self.moment();
        let reply = self.model.apply(now.store, command)?;
        self.observe(&Event::Applied {
            call,
            command,
            reply: &reply,
        });
        Ok(reply)
    }

    fn process(&mut self, worker: u32) -> &mut Process {
        let process = self.processes.get_mut(&worker);
        process.expect("only workers of the scenario have processes")
    }

    fn is_alive(&self, who: Who) -> bool {
        who == Who::OUTSIDE
            || self
                .processes
                .get(&who.worker)
                .is_some_and(|process| process.up && process.incarnation == who.incarnation)
    }

    fn crash(&mut self, worker: u32) {
        let process = self.process(worker);
        let incarnation = process.incarnation;
        if std::mem::replace(&mut process.up, false) {
            let who = Who {
                worker,
                incarnation,
            };
            self.observe(&Event::Crashed { who });
        }
    }

    fn die(&mut self, worker: u32, back_ms: u64) {
        self.crash(worker);
        self.gone.push(Gone {
            worker,
            died: true,
            back_us: Some(back_ms * 1_000),
        });
    }

    fn disturb(&mut self, one: Spell) {
        let who = one.worker.map(|worker| Who {
            worker,
            incarnation: self.process(worker).incarnation,
        });
        self.observe(&Event::Disturbed {
            who,
            until_us: one.until_us,
            by: one.by,
        });
    }
}
