//! What `tests/mutants` tries each mutant with, beside the tests of its crate: a fixed set of
//! seeds. It is built with the feature `mutants` alone, since `job-sim ci` simulates these and
//! more.

use job_sim::level::Level;
use job_sim::recorder::Keep;

// One after the other: what spins at level 1 is told there, and at level 2 for ever.
#[test]
fn the_first_seeds_hold() {
    hold(Level::Explorer, 1_000);
    hold(Level::Paused, 100);
}

fn hold(level: Level, seeds: u64) {
    for seed in 0..seeds {
        let report = level.run(&level.scenario(seed), Keep::default());
        if let Some(violation) = report.violation {
            panic!("seed {seed}: {violation}");
        }
    }
}
