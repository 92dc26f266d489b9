//! The levels of the simulation, by number.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::{Deserialize, Serialize};

use crate::check::Violation;
use crate::recorder::{Keep, Report};
use crate::scenario::{Profile, Scenario, generate};
use crate::{cluster, explorer, paused};

/// How much of what runs in production is simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum Level {
    /// 1: the engine, in an event loop.
    Explorer,
    /// 2: engine, driver and service, on a paused runtime.
    Paused,
    /// 3: engine and driver, in hosts of a simulated network.
    Cluster,
}

impl Level {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Explorer, Self::Paused, Self::Cluster];

    /// Its number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Explorer => 1,
            Self::Paused => 2,
            Self::Cluster => 3,
        }
    }

    /// The kind of scenarios that it is for.
    pub const fn profile(self) -> Profile {
        match self {
            Self::Explorer => Profile::EXPLORER,
            Self::Paused => Profile::PAUSED,
            Self::Cluster => Profile::CLUSTER,
        }
    }

    /// The scenario of a seed.
    pub fn scenario(self, seed: u64) -> Scenario {
        generate(self.profile(), seed)
    }

    /// Simulates a scenario. A panic of the engine, or of anything around it, is a
    /// violation like any other.
    pub fn run(self, scenario: &Scenario, keep: Keep) -> Report {
        let run = || match self {
            Self::Explorer => explorer::run(scenario, keep),
            Self::Paused => paused::run(scenario, keep),
            Self::Cluster => cluster::run(scenario, keep),
        };
        catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| Report {
            violation: Some(Violation::new("panic", text_of(&*panic))),
            ..Report::default()
        })
    }
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "something panicked without a word".to_owned())
}

impl From<Level> for u8 {
    fn from(level: Level) -> Self {
        level.number()
    }
}

impl TryFrom<u8> for Level {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, String> {
        let mut levels = Self::ALL.into_iter();
        levels
            .find(|level| level.number() == number)
            .ok_or_else(|| format!("there is no level {number}; there are 1, 2 and 3"))
    }
}
