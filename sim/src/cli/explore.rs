//! `job-sim explore`.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use job_sim::check::coverage::Point;
use job_sim::explore::{Failure, Plan, Progress, Summary, explore};
use job_sim::level::Level;

use super::{Failed, Outcome, cores, level, seeds};

#[derive(Debug, Args)]
pub(super) struct Explore {
    /// The seeds, as 0..1000
    #[arg(long, default_value = "0..1000", value_parser = seeds)]
    seeds: Range<u64>,
    /// The level: 1 is the engine, 2 the driver and the service, 3 a cluster
    #[arg(long, default_value = "1", value_parser = level)]
    level: Level,
    /// On so many threads; one for each core if it is not given
    #[arg(long)]
    jobs: Option<usize>,
    /// Simulate each seed once; otherwise twice, and the two must agree
    #[arg(long)]
    once: bool,
    /// Stop after so many failures
    #[arg(long, default_value_t = 5)]
    failures: usize,
    /// Where to write the cases of failures
    #[arg(long, default_value = "target/sim-cases")]
    cases: PathBuf,
    /// Fail when a rare situation never occurred
    #[arg(long)]
    cover: bool,
    /// Say how many of the seeds reach each rare situation
    #[arg(long)]
    reach: bool,
}

/// So many simulations to shrink one failure.
const SHRINK_MAX: u32 = 1_500;

impl Explore {
    pub(super) fn run(&self) -> Result<Outcome, Failed> {
        let plan = Plan {
            level: self.level,
            from: self.seeds.start,
            to: self.seeds.end,
            threads: self.jobs.unwrap_or_else(cores),
            twice: !self.once,
            failures_max: self.failures.max(1),
            shrink_max: SHRINK_MAX,
        };
        let (summary, took) = watched(plan);
        report(plan.level, &summary, took);
        let missed: Vec<Point> = summary.coverage.missed().collect();
        println!(
            "{} of {} rare situations occurred",
            Point::COUNT - missed.len(),
            Point::COUNT
        );
        for point in &missed {
            println!("  never: {point}");
        }
        if self.reach {
            reach(&summary);
        }
        write_cases(&self.cases, &summary.failures)?;
        let covered = missed.is_empty() || !self.cover;
        Ok(if summary.failures.is_empty() && covered {
            Outcome::Good
        } else {
            Outcome::Bad
        })
    }
}

/// How many of the seeds reach each rare situation, the rarest first.
fn reach(summary: &Summary) {
    let mut points = Point::ALL;
    points.sort_by_key(|point| summary.coverage.seeds(*point));
    for point in points {
        let seeds = summary.coverage.seeds(point);
        let one_of = match seeds {
            0 => "never".to_owned(),
            seeds => format!("1 of {:.1}", summary.seeds as f64 / seeds as f64),
        };
        println!("  {one_of:>12} seeds: {point}");
    }
}

/// Explores with a progress bar.
pub(super) fn watched(plan: Plan) -> (Summary, Duration) {
    let bar = ProgressBar::with_draw_target(
        Some(plan.to - plan.from),
        ProgressDrawTarget::stderr_with_hz(5),
    );
    let style = "{bar:30} {pos}/{len} seeds, {per_sec}, {msg}, {eta} left";
    bar.set_style(ProgressStyle::with_template(style).expect("the template is right"));
    let begun = Instant::now();
    let summary = explore(plan, &|progress: Progress| {
        bar.set_position(progress.seeds);
        if progress.seeds.is_multiple_of(16) {
            bar.set_message(format!(
                "{} simulated, {} rare situations, {} failures",
                simulated(progress.simulated_us),
                progress.covered,
                progress.failures
            ));
        }
    });
    bar.finish_and_clear();
    (summary, begun.elapsed())
}

/// Says what came of it, in a few lines.
pub(super) fn report(level: Level, summary: &Summary, took: Duration) {
    let secs = took.as_secs_f64().max(1e-9);
    println!(
        "level {}: {} seeds, {} failures, {} simulated, {} events in {secs:.1} s: \
         {:.0} seeds/s, {:.2} million events/s",
        level.number(),
        summary.seeds,
        summary.failures.len(),
        simulated(summary.simulated_us),
        summary.events,
        summary.seeds as f64 / secs,
        summary.events as f64 / secs / 1e6,
    );
}

/// Writes the cases of failures, and says how to replay them.
pub(super) fn write_cases(folder: &Path, failures: &[Failure]) -> Result<(), Failed> {
    for failure in failures {
        let case = &failure.case;
        let name = format!(
            "level{}-seed{}-{}.json",
            case.level.number(),
            failure.seed,
            case.violation.check
        );
        let path = folder.join(name);
        case.write(&path)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        println!("\nseed {}: {}", failure.seed, case.violation);
        println!(
            "  {} workers, {} jobs, {} faults; replay it with\n  \
             cargo job-sim replay {}",
            case.scenario.workers.len(),
            case.scenario.jobs.len(),
            case.scenario.faults.len(),
            path.display()
        );
    }
    Ok(())
}

fn simulated(us: u64) -> String {
    format!("{} h", us / 3_600_000_000)
}
