//! How many planted bugs the simulator finds.

use std::time::Instant;

use job_engine::planted::{self, Bug, Part};

use crate::level::Level;
use crate::recorder::Keep;
use crate::scenario::Scenario;
use crate::shrink::{Shrunk, shrink};

/// What became of one planted bug.
#[derive(Clone, Debug)]
pub struct Mutant {
    /// The bug.
    pub bug: Bug,
    /// Where it was found; `None` if it survived.
    pub killed: Option<Killed>,
}

/// How a planted bug was found.
#[derive(Clone, Debug)]
pub struct Killed {
    /// At which level.
    pub level: Level,
    /// After how many seeds.
    pub seeds: u64,
    /// The seed that found it.
    pub seed: u64,
    /// The check that failed.
    pub check: String,
    /// Its smallest scenario, if it was asked for.
    pub shrunk: Option<Shrunk>,
    /// How long shrinking took, in milliseconds.
    pub shrink_ms: u64,
}

/// How hard to look.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// So many seeds at each level.
    pub seeds_max: u64,
    /// So many simulations for shrinking; 0 for no shrinking.
    pub shrink_max: u32,
}

/// Plants a bug and looks for it, at one level after the other.
pub fn hunt(bug: Bug, effort: Effort) -> Mutant {
    planted::with(bug, || {
        let levels = Level::ALL.into_iter();
        // Level 1 has neither a driver nor a service.
        let mut levels =
            levels.filter(|level| bug.part() != Part::Driver || *level > Level::Explorer);
        let killed = levels.find_map(|level| hunt_at(level, effort));
        Mutant { bug, killed }
    })
}

fn hunt_at(level: Level, effort: Effort) -> Option<Killed> {
    let run = |scenario: &Scenario, keep: Keep| level.run(scenario, keep);
    (0..effort.seeds_max).find_map(|seed| {
        let scenario = level.scenario(seed);
        let violation = run(&scenario, Keep::default()).violation?;
        // It is the bug that was found, and not something else.
        let planted = planted::set(None);
        let sound = run(&scenario, Keep::default()).violation.is_none();
        planted::set(planted);
        if !sound {
            return None;
        }
        let begun = Instant::now();
        let shrunk = (effort.shrink_max > 0)
            .then(|| shrink(&scenario, effort.shrink_max, &run))
            .flatten();
        Some(Killed {
            level,
            seeds: seed + 1,
            seed,
            check: violation.check,
            shrunk,
            shrink_ms: begun.elapsed().as_millis() as u64,
        })
    })
}
