//! What is said when a simulation fails.

use std::error::Error;
use std::fmt;
use std::thread;

use super::SEEDS_VARIABLE;
use super::suspect::suspect;
use crate::check::Violation;
use crate::explore::DETERMINISM;
use crate::recorder::{Keep, Report};
use crate::scenario::Scenario;
use crate::timeline::{TerminalOptions, terminal};

/// A simulation that failed, as small as it could be made.
///
/// Printed, it says what did not hold, what went wrong before, and how to see it again.
#[derive(Clone, Debug)]
pub struct Failure {
    scenario: Scenario,
    violation: Violation,
    timeline: String,
    /// How many faults there were before it was made smaller, and how many simulations
    /// that took.
    made_smaller: Option<(usize, u32)>,
    /// Whether its seed leads to it.
    of_seed: bool,
    /// The name of the test, if it has one.
    test: Option<String>,
}

impl Failure {
    /// `from` is the scenario that was made smaller, and in how many simulations.
    pub(super) fn new(
        scenario: &Scenario,
        violation: Violation,
        from: Option<(&Scenario, u32)>,
        run: &dyn Fn(&Scenario, Keep) -> Report,
    ) -> Self {
        let report = run(scenario, Keep::TRACE);
        let again = report.violation.as_ref();
        let same = again.is_some_and(|again| again.check == violation.check);
        let (violation, timeline) = if same {
            let options = TerminalOptions::default();
            (violation, terminal(scenario, &report, options))
        } else {
            (suspect(scenario, run), String::new())
        };
        Self {
            scenario: scenario.clone(),
            violation,
            timeline,
            made_smaller: from.map(|(from, runs)| (from.faults.len(), runs)),
            of_seed: true,
            test: thread::current().name().map(str::to_owned),
        }
    }

    /// Of a scenario that was not made from its seed.
    pub(super) fn of_scenario(
        scenario: &Scenario,
        violation: Violation,
        run: &dyn Fn(&Scenario, Keep) -> Report,
    ) -> Self {
        Self {
            of_seed: false,
            ..Self::new(scenario, violation, None, run)
        }
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.scenario.seed
    }

    /// What was simulated.
    pub fn scenario(&self) -> &Scenario {
        &self.scenario
    }

    /// What did not hold.
    pub fn violation(&self) -> &Violation {
        &self.violation
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            scenario,
            violation,
            timeline,
            made_smaller,
            of_seed,
            test,
        } = self;
        match of_seed {
            true => writeln!(f, "the simulation with seed {} fails.\n", scenario.seed)?,
            false => writeln!(f, "the simulation of the scenario fails.\n")?,
        }
        write!(f, "{timeline}")?;
        if timeline.is_empty() {
            writeln!(f, "{}: {}", violation.check, violation.text)?;
        }
        let faults = match scenario.faults.len() {
            0 => "Nothing went wrong with any worker".to_owned(),
            1 => "One thing went wrong with the workers".to_owned(),
            count => format!("{count} things went wrong with the workers"),
        };
        write!(f, "\n{faults}")?;
        if let Some((from, runs)) = made_smaller {
            write!(f, " (of {from}: {runs} simulations made it smaller)")?;
        }
        writeln!(f, ".")?;
        let test = test.as_deref().filter(|name| *name != "main");
        if *of_seed {
            let seed = scenario.seed;
            let test = test.map_or(String::new(), |name| format!(" {name}"));
            writeln!(
                f,
                "\nTo see it again: {SEEDS_VARIABLE}={seed} cargo test{test}"
            )?;
        }
        if violation.check == DETERMINISM {
            return Ok(());
        }
        let json = serde_json::to_string(scenario).map_err(|_| fmt::Error)?;
        writeln!(f, "\nTo keep it as a test of its own:\n")?;
        writeln!(f, "    let scenario = r#\"{json}\"#;")?;
        writeln!(f, "    job_sim::Simulation::new()")?;
        writeln!(f, "        .scenario(scenario.parse().unwrap())")?;
        let of_test = test.map_or(String::new(), |name| format!(" in {name}"));
        // Its name is not known here.
        let function = "the function or closure that this simulation runs";
        writeln!(f, "        .run(/* {function}{of_test} */);")
    }
}

impl Error for Failure {}
