//! `job-sim ci`: what must pass before a change goes in.

use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use clap::Args;
use job_engine::planted::Bug;
use job_sim::check::coverage::{Coverage, Point, SEEDS_A_POINT};
use job_sim::exhaustive::Bounds;
use job_sim::explore::{Plan, Summary, hashes};
use job_sim::hash::TraceHash;
use job_sim::level::Level;
use job_sim::mutants::Effort;

use super::explore::{report, watched, write_cases};
use super::{Failed, Outcome, cores, exhaust, level, mutants, seeds};

#[derive(Debug, Args)]
pub(super) struct Ci {}

#[derive(Debug, Args)]
pub(super) struct Hashes {
    #[arg(long, value_parser = seeds)]
    seeds: Range<u64>,
    #[arg(long, value_parser = level)]
    level: Level,
}

/// The fixed seeds of each level, each simulated twice, and how many of them
/// another process simulates, too.
const SETS: [(Level, Range<u64>, u64); 3] = [
    (Level::Explorer, 0..15_000, 500),
    (Level::Paused, 0..1_000, 50),
    (Level::Cluster, 0..150, 20),
];

const SHRINK_MAX: u32 = 1_000;

impl Ci {
    pub(super) fn run(&self) -> Result<Outcome, Failed> {
        let begun = Instant::now();
        let mut good = true;
        let mut coverage = Coverage::default();
        for (level, seeds, again) in SETS {
            let plan = Plan {
                level,
                from: seeds.start,
                to: seeds.end,
                threads: cores(),
                twice: true,
                failures_max: 3,
                shrink_max: SHRINK_MAX,
            };
            let (summary, took) = watched(plan);
            report(level, &summary, took);
            write_cases(Path::new("target/sim-cases"), &summary.failures)?;
            good &= summary.failures.is_empty();
            good &= is_reached(level, &summary);
            coverage.add(&summary.coverage);
            good &= another_process_agrees(level, seeds.start..seeds.start + again)?;
        }
        for point in coverage.missed() {
            good = false;
            println!("a rare situation never occurred: {point}");
        }
        println!(
            "{} rare situations occurred",
            Point::COUNT - coverage.missed().count()
        );
        let bounds = Bounds {
            depth: 7,
            ..Bounds::default()
        };
        good &= matches!(exhaust::search(bounds), Outcome::Good);
        good &= all_bugs_are_found();
        println!("all in {:.0} s", begun.elapsed().as_secs_f64());
        Ok(if good { Outcome::Good } else { Outcome::Bad })
    }
}

impl Hashes {
    pub(super) fn run(&self) -> Result<Outcome, Failed> {
        for hash in hashes(self.level, self.seeds.clone()) {
            println!("{hash}");
        }
        Ok(Outcome::Good)
    }
}

/// Whether enough seeds go where it is rare to be: a check sees nothing of what does not
/// occur.
fn is_reached(level: Level, summary: &Summary) -> bool {
    let owned = Point::ALL
        .into_iter()
        .filter(|point| point.owner() == level);
    let rare: Vec<Point> = owned
        .filter(|point| summary.coverage.seeds(*point) * SEEDS_A_POINT < summary.seeds)
        .collect();
    for point in &rare {
        println!(
            "level {}: too rare, {} of {} seeds: {point}",
            level.number(),
            summary.coverage.seeds(*point),
            summary.seeds
        );
    }
    rare.is_empty()
}

/// Determinism across processes: addresses, environments and start-up differ.
fn another_process_agrees(level: Level, seeds: Range<u64>) -> Result<bool, Failed> {
    let program = std::env::current_exe()?;
    let output = Command::new(program)
        .arg("hashes")
        .args(["--level", &level.number().to_string()])
        .args(["--seeds", &format!("{}..{}", seeds.start, seeds.end)])
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let theirs: Vec<&str> = text.lines().collect();
    let ours: Vec<TraceHash> = hashes(level, seeds.clone()).collect();
    let mut good = output.status.success() && theirs.len() == ours.len();
    for ((seed, ours), theirs) in seeds.zip(&ours).zip(theirs) {
        if ours.to_string() != theirs {
            good = false;
            println!(
                "level {}, seed {seed}: another process disagrees",
                level.number()
            );
        }
    }
    if good {
        println!(
            "level {}: another process agrees on {} seeds",
            level.number(),
            ours.len()
        );
    }
    Ok(good)
}

fn all_bugs_are_found() -> bool {
    let effort = Effort {
        seeds_max: 1_000,
        shrink_max: 0,
    };
    let found = mutants::hunt_all(&Bug::ALL, effort, cores(), &|mutant| {
        if mutant.killed.is_none() {
            println!("the planted bug {} survived", mutant.bug);
        }
    });
    let killed = found
        .iter()
        .filter(|mutant| mutant.killed.is_some())
        .count();
    println!(
        "{killed} of {} planted bugs found within 1,000 seeds",
        found.len()
    );
    killed == found.len()
}
