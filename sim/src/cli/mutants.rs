//! `job-sim mutants`.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clap::Args;
use job_engine::planted::Bug;
use job_sim::case::Case;
use job_sim::mutants::{Effort, Mutant, hunt};

use super::{Failed, Outcome, cores};

#[derive(Debug, Args)]
pub(super) struct Mutants {
    /// So many seeds at each level
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// Only these
    #[arg(long)]
    bug: Vec<Bug>,
    /// Do not shrink what is found
    #[arg(long)]
    no_shrink: bool,
    /// On so many threads; one for each core if it is not given
    #[arg(long)]
    jobs: Option<usize>,
    /// Write the smallest case of each here
    #[arg(long)]
    cases: Option<PathBuf>,
}

/// So many simulations to shrink one.
const SHRINK_MAX: u32 = 600;

impl Mutants {
    pub(super) fn run(&self) -> Result<Outcome, Failed> {
        let effort = Effort {
            seeds_max: self.seeds,
            shrink_max: if self.no_shrink { 0 } else { SHRINK_MAX },
        };
        let bugs = if self.bug.is_empty() {
            Bug::ALL.to_vec()
        } else {
            self.bug.clone()
        };
        let mutants = hunt_all(&bugs, effort, self.jobs.unwrap_or_else(cores), &|mutant| {
            print(mutant);
        });
        summary(&mutants);
        if let Some(folder) = &self.cases {
            for mutant in &mutants {
                let killed = mutant.killed.as_ref();
                let shrunk =
                    killed.and_then(|killed| Some((killed.level, killed.shrunk.as_ref()?)));
                let case = shrunk.and_then(|(level, shrunk)| {
                    Case::new(level, Some(mutant.bug), &shrunk.scenario, &shrunk.report)
                });
                if let Some(case) = case {
                    let path = folder.join(format!("{}.json", mutant.bug));
                    case.write(&path)
                        .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
                }
            }
        }
        let survived = mutants.iter().any(|mutant| mutant.killed.is_none());
        Ok(if survived {
            Outcome::Bad
        } else {
            Outcome::Good
        })
    }
}

/// Hunts for all of them, and tells of each when it is known.
pub(super) fn hunt_all(
    bugs: &[Bug],
    effort: Effort,
    threads: usize,
    tell: &(dyn Fn(&Mutant) + Sync),
) -> Vec<Mutant> {
    let next = AtomicUsize::new(0);
    let mutants = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while let Some(bug) = bugs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let mutant = hunt(*bug, effort);
                    let mut mutants = mutants.lock().expect("no thread panics with it");
                    tell(&mutant);
                    mutants.push(mutant);
                }
            });
        }
    });
    let mut mutants = mutants.into_inner().expect("no thread panics with it");
    mutants.sort_by_key(|mutant| mutant.bug);
    mutants
}

fn print(mutant: &Mutant) {
    let name = mutant.bug.name();
    let failure = mutant
        .bug
        .failure()
        .map_or(String::new(), |n| format!("F{n}"));
    let Some(killed) = &mutant.killed else {
        println!("{name:32} {failure:4} SURVIVED: {}", mutant.bug.what());
        return;
    };
    let shrunk = killed.shrunk.as_ref().map_or(String::new(), |shrunk| {
        let took = Duration::from_millis(killed.shrink_ms);
        format!("{:2} elements in {took:?}", shrunk.scenario.elements())
    });
    println!(
        "{name:32} {failure:4} level {} after {:4} seeds  {:22} {shrunk}",
        killed.level.number(),
        killed.seeds,
        killed.check
    );
}

fn summary(mutants: &[Mutant]) {
    let killed: Vec<_> = mutants
        .iter()
        .filter_map(|mutant| mutant.killed.as_ref())
        .collect();
    println!("{} of {} planted bugs found", killed.len(), mutants.len());
    let shrunk = killed.iter().filter_map(|killed| {
        let elements = killed.shrunk.as_ref()?.scenario.elements();
        Some((elements as u64, killed.shrink_ms, killed.level.number()))
    });
    let shrunk: Vec<_> = shrunk.collect();
    if shrunk.is_empty() {
        return;
    }
    let elements = shrunk.iter().map(|(elements, ..)| *elements).collect();
    let times = shrunk
        .iter()
        .filter(|(.., level)| *level == 1)
        .map(|(_, ms, _)| *ms)
        .collect();
    let ((median, high), (_, longest)) = (percentiles(elements), percentiles(times));
    println!(
        "shrunk to {median} elements in the median, {high} at the 95th percentile; \
         at level 1 within {longest} ms at the 95th percentile"
    );
}

/// The median, and the 95th percentile.
fn percentiles(mut numbers: Vec<u64>) -> (u64, u64) {
    numbers.sort_unstable();
    let at = |pct: usize| numbers.get(numbers.len() * pct / 100).copied().unwrap_or(0);
    (at(50), at(95))
}
