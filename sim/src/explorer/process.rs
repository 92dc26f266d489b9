//! The process of a worker: its engine, its runners, its calls of the store.

use std::collections::BTreeMap;

use job_engine::store::{ClaimedJob, NewJob, Outcome};
use job_engine::worker::Ended;
use job_engine::{Entropy, Run, Worker};

use super::clock::Clock;
use super::{Step, Task};
use crate::event::{Call, RUNNER_OPS, SPAWN_OPS, Who};
use crate::scenario::{Fault, Knobs, RunSpec, Scenario, Topic, WorkerSpec};

/// See the module.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) who: Who,
    pub(super) alive: bool,
    /// `None` while there is no process, and for whoever spawns from outside.
    pub(super) engine: Option<Worker>,
    pub(super) clock: Clock,
    pub(super) knobs: Knobs,
    /// Tasks that came while the process stood still.
    pub(super) deferred: Option<Vec<Task>>,
    /// Its tasks are late: by how much, until when.
    pub(super) lag: Option<(u64, u64)>,
    /// Until when its clock, which was set back, shows nothing new.
    pub(super) still_until_us: u64,
    /// When the timer is set to go off.
    pub(super) timer_at: Option<u64>,
    /// Since when it has gone off without effect, and how often.
    pub(super) idle_timers: (u64, u32),
    pub(super) runners: BTreeMap<Run, Runner>,
    pub(super) calls: Vec<(u64, Waiting)>,
    pub(super) connected: bool,
    /// When it comes back after it has stopped.
    pub(super) back: Back,
    crash_points: Vec<CrashPoint>,
    runner_ops: u64,
    spawn_ops: u64,
}

/// What becomes of a process after it has stopped.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Back {
    /// It comes back after so many milliseconds, perhaps otherwise configured.
    After(u64, Option<Knobs>),
    /// It comes back when the calm begins.
    WithCalm,
    Never,
}

#[derive(Clone, Debug)]
struct CrashPoint {
    point: String,
    left: u32,
    back_ms: u64,
}

/// A runner at work.
#[derive(Clone, Debug)]
pub(super) struct Runner {
    pub(super) spec: RunSpec,
    pub(super) job: u32,
    pub(super) committing: bool,
    /// How it is about to end, if not as its spec says.
    pub(super) early: Option<Ended>,
}

/// Who waits for the reply to a call.
#[derive(Clone, Debug)]
pub(super) enum Waiting {
    Engine,
    Checkpoint(Run),
    Commit(Run, Outcome),
    /// The place of the job, whether it is the second spawn, and how often it
    /// was sent.
    Spawn(usize, bool, u32),
}

/// A request on its way to the store.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) process: usize,
    pub(super) call: Call,
    pub(super) command: job_engine::Command,
    /// What a transaction spawns beside ending its run.
    pub(super) children: Vec<NewJob>,
    /// When the caller gives up.
    pub(super) until_us: u64,
}

impl Process {
    pub(super) fn new(scenario: &Scenario, spec: &WorkerSpec) -> Self {
        let crash_points = scenario.faults.iter().filter_map(|fault| match fault {
            Fault::CrashAt {
                worker,
                point,
                nth,
                back_ms,
            } if *worker == spec.key => Some(CrashPoint {
                point: point.clone(),
                left: (*nth).max(1),
                back_ms: *back_ms,
            }),
            _ => None,
        });
        Self {
            who: Who {
                worker: spec.key,
                incarnation: 0,
            },
            alive: false,
            engine: None,
            clock: Clock::new(spec),
            knobs: spec.knobs.clone(),
            deferred: None,
            lag: None,
            still_until_us: 0,
            timer_at: None,
            idle_timers: (0, 0),
            runners: BTreeMap::new(),
            calls: Vec::new(),
            connected: false,
            back: Back::Never,
            crash_points: crash_points.collect(),
            runner_ops: 0,
            spawn_ops: 0,
        }
    }

    /// Whoever spawns jobs from outside.
    pub(super) fn outside(scenario: &Scenario) -> Self {
        let spec = WorkerSpec {
            key: Who::OUTSIDE.worker,
            start_ms: 0,
            clock_ahead_ms: 0,
            clock_drift_ppm: 0,
            knobs: Knobs::default(),
        };
        Self {
            who: Who::OUTSIDE,
            alive: true,
            ..Self::new(scenario, &spec)
        }
    }

    pub(super) fn start(&mut self, scenario: &Scenario, now_us: u64) -> job_engine::WorkerId {
        self.who.incarnation += 1;
        let key = [self.who.worker.into(), self.who.incarnation.into()];
        let entropy = Entropy::from_seed(scenario.draws().seed_bytes(Topic::WorkerSeed, key));
        let config = scenario.worker_config(&self.knobs);
        let engine = Worker::new(self.clock.read(now_us), config, entropy);
        let id = engine.id();
        self.engine = Some(engine);
        self.alive = true;
        self.back = Back::WithCalm;
        id
    }

    /// The process is gone, with all that was in it.
    pub(super) fn end(&mut self) {
        self.alive = false;
        self.engine = None;
        self.deferred = None;
        self.timer_at = None;
        self.runners.clear();
        self.calls.clear();
        self.connected = false;
        (self.runner_ops, self.spawn_ops) = (0, 0);
    }

    /// Whether `who` is this process as it is now.
    pub(super) fn is(&self, who: Who) -> bool {
        self.alive && self.who == who
    }

    pub(super) fn start_runner(&mut self, job: &ClaimedJob, spec: RunSpec, key: u32) {
        let runner = Runner {
            spec,
            job: key,
            committing: false,
            early: None,
        };
        self.runners.insert(job.run, runner);
    }

    pub(super) fn runner_call(&mut self) -> Call {
        self.runner_ops += 1;
        Call {
            who: self.who,
            op: RUNNER_OPS + self.runner_ops,
        }
    }

    pub(super) fn spawn_call(&mut self) -> Call {
        self.spawn_ops += 1;
        Call {
            who: self.who,
            op: SPAWN_OPS + self.spawn_ops,
        }
    }

    /// Who waits for this call, if anyone still does; not any more then.
    pub(super) fn take_call(&mut self, op: u64) -> Option<Waiting> {
        let place = self.calls.iter().position(|(waiting, _)| *waiting == op)?;
        Some(self.calls.swap_remove(place).1)
    }

    /// How long the process is away if it dies at this point.
    pub(super) fn dies_at(&mut self, point: &str) -> Option<u64> {
        let mut points = self.crash_points.iter_mut();
        let hit = points.find(|crash| crash.left > 0 && crash.point == point)?;
        hit.left -= 1;
        (hit.left == 0).then_some(hit.back_ms)
    }

    /// When something that is to happen in it at `at_us` happens.
    pub(super) fn late(&self, at_us: u64) -> u64 {
        match self.lag {
            Some((lag_us, until_us)) if at_us < until_us => at_us + lag_us,
            _ => at_us,
        }
    }
}

/// What a runner does next.
impl Runner {
    pub(super) fn first_steps(&self, calm: bool) -> impl Iterator<Item = (u64, Step)> {
        use crate::scenario::EndSpec;
        let spec = &self.spec;
        let work_us = match spec.end {
            EndSpec::Undecodable => Some(0),
            EndSpec::Hang if !calm => None,
            _ => Some(spec.work_ms * 1_000),
        };
        let checkpoint = spec.checkpoint_ms.filter(|ms| *ms < spec.work_ms);
        let checkpoint = checkpoint.map(|ms| (ms * 1_000, Step::Checkpoint));
        let end = work_us.map(|us| (us, Step::End));
        checkpoint.into_iter().chain(end)
    }
}
