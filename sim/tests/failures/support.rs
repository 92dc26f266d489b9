//! A scenario in a few words.

use job_engine::planted::{self, Bug};
use job_sim::check::calm_ms;
use job_sim::check::coverage::Point;
use job_sim::level::Level;
use job_sim::scenario::{
    Direction, DueSpec, EndSpec, Fault, JobSpec, Knobs, OnStop, RetrySpec, RunSpec, Scenario,
    StoreTrouble, TypeSpec, WorkerSpec,
};
use job_sim::trace::{Fate, Kind};
use job_sim::{Keep, Report};

/// From here on nothing goes wrong any more.
const CALM_FROM_MS: u64 = 90_000;

/// A scenario that is being put together.
pub(crate) struct Sim {
    level: Level,
    scenario: Scenario,
}

/// At level 1: so many workers that start at once, two types, no jobs and no
/// faults. Messages travel for exactly one millisecond.
pub(crate) fn workers(count: u32) -> Sim {
    let retry = RetrySpec {
        attempts_max: Some(5),
        min_backoff_ms: 1_000,
        max_backoff_ms: 4_000,
        jitter_pct: 0,
        reset_after_multiples: 0,
        crashes_max: Some(3),
        undecodable_max_ms: 3_600_000,
    };
    let of_type = TypeSpec {
        retries: vec![retry],
    };
    let worker = |key| WorkerSpec {
        key,
        start_ms: u64::from(key),
        clock_ahead_ms: 0,
        clock_drift_ppm: 0,
        knobs: Knobs {
            jobs_max: 4,
            jobs_min: 3,
            lease_ms: 4_000,
            poll_ms: 5_000,
            poll_deaf_ms: 2_000,
            shutdown_timeout_ms: 1_000,
            ..Knobs::default()
        },
    };
    Sim {
        level: Level::Explorer,
        scenario: Scenario {
            seed: 1,
            horizon_ms: 0,
            calm_from_ms: CALM_FROM_MS,
            latency_us: (1_000, 1_000),
            types: vec![of_type.clone(), of_type],
            workers: (0..count).map(worker).collect(),
            jobs: Vec::new(),
            faults: Vec::new(),
            claimed_job_ms: 0,
            left_out: Vec::new(),
        },
    }
}

impl Sim {
    /// At level 2: with the driver and the service.
    pub(crate) fn with_driver(mut self) -> Self {
        self.level = Level::Paused;
        self
    }

    /// Changes what has no method of its own.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Scenario)) -> Self {
        change(&mut self.scenario);
        self
    }

    /// Changes how each worker is configured.
    pub(crate) fn knobs(mut self, change: impl Fn(&mut Knobs)) -> Self {
        let workers = self.scenario.workers.iter_mut();
        workers.for_each(|worker| change(&mut worker.knobs));
        self
    }

    /// Messages travel for so long.
    pub(crate) fn latency_ms(mut self, ms: u64) -> Self {
        self.scenario.latency_us = (ms * 1_000, ms * 1_000);
        self
    }

    /// Another job of the first type, spawned from outside.
    pub(crate) fn job(self, spawn_ms: u64, runs: &[RunSpec]) -> Self {
        self.job_of(0, spawn_ms, runs)
    }

    /// Another job of the type at this place.
    pub(crate) fn job_of(mut self, job_type: u32, spawn_ms: u64, runs: &[RunSpec]) -> Self {
        self.scenario.jobs.push(JobSpec {
            key: self.scenario.jobs.len() as u32,
            spawn_ms,
            by: None,
            parent: None,
            job_type,
            unique: false,
            due: DueSpec::Now,
            again_ms: None,
            runs: runs.to_vec(),
        });
        self
    }

    /// Something goes wrong.
    pub(crate) fn fault(mut self, fault: Fault) -> Self {
        self.scenario.faults.push(fault);
        self
    }

    fn run(&self) -> Report {
        let mut scenario = self.scenario.clone();
        scenario.horizon_ms = CALM_FROM_MS + calm_ms(&scenario);
        scenario.validate().expect("the test writes a valid one");
        self.level.run(&scenario, Keep::TRACE)
    }

    /// Simulates it, and wants that nothing is violated and that each of these
    /// situations occurs.
    #[track_caller]
    pub(crate) fn holds(&self, points: &[Point]) -> Report {
        let report = self.run();
        if let Some(violation) = &report.violation {
            panic!("{}{violation}", text_of(&report));
        }
        for point in points {
            let count = report.coverage.count(*point);
            assert!(count > 0, "{}it never came to {point}", text_of(&report));
        }
        report
    }

    /// Simulates it with a planted bug, and wants that this check finds it.
    #[track_caller]
    pub(crate) fn finds(&self, bug: Bug, check: &str) {
        let report = planted::with(bug, || self.run());
        let Some(violation) = &report.violation else {
            panic!("{}{bug} is not found", text_of(&report));
        };
        assert_eq!(violation.check, check, "{bug}: {violation}");
    }
}

fn text_of(report: &Report) -> String {
    let loud = report.trace.entries.iter().filter(|entry| !entry.quiet);
    let lines = loud.take(400).map(|entry| {
        let who = entry.who.map(|who| who.to_string()).unwrap_or_default();
        format!("{:>9} ms {who:6} {}\n", entry.at_us / 1_000, entry.text)
    });
    lines.collect()
}

/// When the runs of a job started, in milliseconds.
pub(crate) fn starts_ms(report: &Report, job: u32) -> Vec<u64> {
    let entries = report.trace.entries.iter();
    let started = entries.filter(|entry| {
        entry.kind == Kind::Started && entry.run.is_some_and(|(key, _)| key == job)
    });
    started.map(|entry| entry.at_us / 1_000).collect()
}

/// How the runners of a job ended, in the order of their ends.
pub(crate) fn fates(report: &Report, job: u32) -> Vec<Fate> {
    let entries = report.trace.entries.iter();
    let own = entries.filter(|entry| entry.run.is_some_and(|(key, _)| key == job));
    own.filter_map(|entry| entry.fate).collect()
}

/// A run that works for so long and ends so. It yields when it is asked to stop.
pub(crate) fn run(work_ms: u64, end: EndSpec) -> RunSpec {
    RunSpec {
        work_ms,
        checkpoint_ms: None,
        end,
        on_stop: OnStop::Yield,
    }
}

/// One that completes its job and does not listen to anybody.
pub(crate) fn stubborn(work_ms: u64) -> RunSpec {
    RunSpec {
        on_stop: OnStop::Ignore,
        ..run(work_ms, EndSpec::Complete)
    }
}

/// Messages of a worker are lost.
pub(crate) fn cut(worker: u32, at_ms: u64, for_ms: u64, direction: Direction) -> Fault {
    Fault::Partition {
        worker,
        at_ms,
        for_ms,
        direction,
        hold: false,
    }
}

/// Requests of a worker arrive only when this is over.
pub(crate) fn hold_back(worker: u32, at_ms: u64, for_ms: u64) -> Fault {
    Fault::Partition {
        worker,
        at_ms,
        for_ms,
        direction: Direction::ToStore,
        hold: true,
    }
}

/// The store suffers.
pub(crate) fn store(at_ms: u64, for_ms: u64, trouble: StoreTrouble) -> Fault {
    Fault::Store {
        at_ms,
        for_ms,
        trouble,
    }
}

/// A process is gone; it comes back if at all after `back_ms`.
pub(crate) fn crash(worker: u32, at_ms: u64, back_ms: Option<u64>) -> Fault {
    Fault::Crash {
        worker,
        at_ms,
        back_ms,
    }
}

/// A worker is asked to shut down, and comes back a second after it stopped.
pub(crate) fn deploy(worker: u32, at_ms: u64) -> Fault {
    Fault::Restart {
        worker,
        at_ms,
        back_ms: Some(1_000),
        knobs: None,
    }
}
