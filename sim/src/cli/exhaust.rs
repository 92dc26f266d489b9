//! `job-sim exhaust`.

use std::time::Instant;

use clap::Args;
use job_sim::exhaustive::{Bounds, Exhausted, exhaust};

use super::{Failed, Outcome};

#[derive(Debug, Args)]
pub(super) struct Exhaust {
    /// So many steps
    #[arg(long, default_value_t = 9)]
    depth: u32,
    /// So many crashes
    #[arg(long, default_value_t = 1)]
    crashes: u32,
    /// So many lost replies
    #[arg(long, default_value_t = 1)]
    losses: u32,
    /// So many timers
    #[arg(long, default_value_t = 3)]
    timers: u32,
    /// So many failing runs
    #[arg(long, default_value_t = 1)]
    failures: u32,
}

impl Exhaust {
    pub(super) fn run(&self) -> Result<Outcome, Failed> {
        Ok(search(Bounds {
            depth: self.depth,
            crashes: self.crashes,
            losses: self.losses,
            timers: self.timers,
            failures: self.failures,
        }))
    }
}

/// Searches, and says what was found.
pub(super) fn search(bounds: Bounds) -> Outcome {
    let begun = Instant::now();
    let Exhausted {
        states,
        steps,
        ended,
        cut,
        violation,
    } = exhaust(bounds);
    println!(
        "exhausted {} steps of two workers and two jobs with {} crash and {} lost reply: \
         {states} states, {steps} steps; in {ended} states all jobs have ended, {cut} are at the \
         bound; {:.1} s",
        bounds.depth,
        bounds.crashes,
        bounds.losses,
        begun.elapsed().as_secs_f64()
    );
    let Some((violation, path)) = violation else {
        return Outcome::Good;
    };
    println!("\n{violation}");
    for (place, step) in path.iter().enumerate() {
        println!("  {:2}. {step}", place + 1);
    }
    Outcome::Bad
}
