//! Many seeds, on several threads.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::case::Case;
use crate::check::Violation;
use crate::check::coverage::Coverage;
use crate::hash::TraceHash;
use crate::level::Level;
use crate::recorder::{Keep, Report};
use crate::scenario::Scenario;
use crate::shrink::shrink;
use crate::trace::Entry;

/// What to simulate.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// At which level.
    pub level: Level,
    /// The first seed.
    pub from: u64,
    /// The seed after the last.
    pub to: u64,
    /// On so many threads.
    pub threads: usize,
    /// Simulate every seed a second time, and compare.
    pub twice: bool,
    /// Stop after so many failures.
    pub failures_max: usize,
    /// So many simulations to shrink each failure.
    pub shrink_max: u32,
}

/// What came of many seeds.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// So many seeds.
    pub seeds: u64,
    /// So many events, without those of second simulations.
    pub events: u64,
    /// So much simulated time, in microseconds, likewise.
    pub simulated_us: u64,
    /// Which rare situations occurred.
    pub coverage: Coverage,
    /// What failed, by seed.
    pub failures: Vec<Failure>,
}

/// A seed that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which.
    pub seed: u64,
    /// Its smallest case.
    pub case: Case,
}

/// What is known while it goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// So many seeds are done.
    pub seeds: u64,
    /// So many events.
    pub events: u64,
    /// So much simulated time, in microseconds.
    pub simulated_us: u64,
    /// So many failures.
    pub failures: usize,
    /// So many of the rare situations occurred.
    pub covered: usize,
}

/// Simulates the seeds of a plan, and tells `progress` after each.
pub fn explore(plan: Plan, progress: &(dyn Fn(Progress) + Sync)) -> Summary {
    let next = AtomicU64::new(plan.from);
    let enough = AtomicBool::new(false);
    let summary = Mutex::new(Summary::default());
    let work = || {
        while !enough.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= plan.to {
                break;
            }
            let (report, failure) = simulate(plan, seed);
            let mut summary = summary.lock().expect("no thread panics with it");
            summary.add(&report);
            summary.failures.extend(failure);
            if summary.failures.len() >= plan.failures_max {
                enough.store(true, Ordering::Relaxed);
            }
            progress(summary.progress());
        }
    };
    thread::scope(|scope| {
        for _ in 0..plan.threads.max(1) {
            scope.spawn(work);
        }
    });
    let mut summary = summary.into_inner().expect("no thread panics with it");
    summary.failures.sort_by_key(|failure| failure.seed);
    summary
}

impl Summary {
    fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.events += report.events;
        self.simulated_us += report.simulated_us;
        self.coverage.add(&report.coverage);
    }

    fn progress(&self) -> Progress {
        Progress {
            seeds: self.seeds,
            events: self.events,
            simulated_us: self.simulated_us,
            failures: self.failures.len(),
            covered: self.coverage.reached(),
        }
    }
}

fn simulate(plan: Plan, seed: u64) -> (Report, Option<Failure>) {
    let level = plan.level;
    let scenario = level.scenario(seed);
    let report = level.run(&scenario, Keep::default());
    let failed = |scenario: &Scenario, report: &Report| {
        let case = Case::new(level, None, scenario, report)?;
        Some(Failure { seed, case })
    };
    if report.violation.is_some() {
        let run = |scenario: &Scenario, keep: Keep| level.run(scenario, keep);
        let shrunk = shrink(&scenario, plan.shrink_max, &run);
        let failure = match &shrunk {
            Some(shrunk) => failed(&shrunk.scenario, &shrunk.report),
            None => failed(&scenario, &report),
        };
        return (report, failure);
    }
    if plan.twice {
        let again = level.run(&scenario, Keep::default());
        if again.hash != report.hash {
            let mut differs = report.clone();
            let run = |scenario: &Scenario, keep| level.run(scenario, keep);
            differs.violation = Some(difference(&scenario, &run));
            let failure = failed(&scenario, &differs);
            return (report, failure);
        }
    }
    (report, None)
}

/// The first event in which two simulations of one scenario differ.
pub fn difference(scenario: &Scenario, run: &dyn Fn(&Scenario, Keep) -> Report) -> Violation {
    let Some((one, other, place)) = differing(scenario, run) else {
        let text = "two simulations had different hashes, and then no more";
        return Violation::new(DETERMINISM, text);
    };
    let text = |report: &Report| match report.trace.entries.get(place) {
        Some(Entry {
            at_us, who, text, ..
        }) => {
            let who = who.map_or("the store".to_owned(), |who| who.to_string());
            format!("at {at_us} us {who} {text}")
        }
        None => "it is over".to_owned(),
    };
    let text = format!(
        "two simulations differ first in event {place}: {}, or {}",
        text(&one),
        text(&other)
    );
    Violation::new(DETERMINISM, text)
}

/// Two simulations of one scenario that differ, and the place of the first event in which
/// they do.
pub(crate) fn differing(
    scenario: &Scenario,
    run: &dyn Fn(&Scenario, Keep) -> Report,
) -> Option<(Report, Report, usize)> {
    let keep = Keep {
        hashes: true,
        ..Keep::TRACE
    };
    (0..DIFFERENCE_TRIES).find_map(|_| {
        let (one, other) = (run(scenario, keep), run(scenario, keep));
        let mut places = 0..one.hashes.len().max(other.hashes.len());
        let place = places.find(|place| one.hashes.get(*place) != other.hashes.get(*place))?;
        Some((one, other, place))
    })
}

/// The check that two simulations of one scenario are the same.
pub const DETERMINISM: &str = "determinism";

/// How often two simulations that differed are simulated again to see where.
const DIFFERENCE_TRIES: u32 = 10;

/// The hash of each seed, in order.
pub fn hashes(level: Level, seeds: std::ops::Range<u64>) -> impl Iterator<Item = TraceHash> {
    seeds.map(move |seed| level.run(&level.scenario(seed), Keep::default()).hash)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn the_first_difference_of_two_simulations_is_named() {
        let scenario = Level::Explorer.scenario(5);
        let count = Cell::new(0);
        // Every second one has another network from its first message on.
        let run = |scenario: &Scenario, keep: Keep| {
            count.set(count.get() + 1);
            let mut scenario = scenario.clone();
            scenario.seed += count.get() % 2;
            Level::Explorer.run(&scenario, keep)
        };
        let violation = difference(&scenario, &run);
        assert_eq!(violation.check, DETERMINISM);
        assert!(
            violation.text.contains("differ first in event "),
            "{violation}"
        );
    }

    #[test]
    fn every_seed_of_a_plan_is_simulated_once_on_any_number_of_threads() {
        let plan = Plan {
            level: Level::Explorer,
            from: 3,
            to: 20,
            threads: 3,
            twice: true,
            failures_max: 1,
            shrink_max: 1,
        };
        let summary = explore(plan, &|_| {});
        assert_eq!((summary.seeds, summary.failures.len()), (17, 0));
        let one = explore(Plan { threads: 1, ..plan }, &|_| {});
        assert_eq!(
            (one.events, one.coverage),
            (summary.events, summary.coverage)
        );
    }
}
