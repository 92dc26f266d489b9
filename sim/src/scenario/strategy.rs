//! Scenarios for property tests of applications.

use proptest::arbitrary::{Arbitrary, any};
use proptest::strategy::{NewTree, Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use super::{Deployment, Scenario};

/// When there may be something to disturb, in milliseconds: most tests begin at once.
const EARLY_MS: [u64; 9] = [0, 10, 20, 50, 100, 200, 500, 1_000, 5_000];

/// Any scenario for an application, on a [`Deployment`]: to be given to
/// [`Simulation::scenario`](crate::Simulation::scenario). It shrinks to fewer faults and
/// workers.
///
/// ```
/// use job_sim::{Scenario, Simulation};
/// use proptest::prelude::*;
///
/// proptest! {
///     # #![proptest_config(ProptestConfig { cases: 3, failure_persistence: None, ..<_>::default() })]
///     # /*
///     #[test]
///     # */
///     fn nothing_is_lost(scenario in any::<Scenario>(), orders in 0..10_u32) {
///         let simulation = Simulation::new().scenario(scenario);
///         let ended = simulation.check(move |sim| async move {
///             // Start the workers, spawn a job for each order ...
///             # let _ = orders;
///             sim.settle().await;
///         });
///         ended.map_err(|failure| TestCaseError::fail(failure.to_string()))?;
///     }
/// }
/// # fn main() { nothing_is_lost() }
/// ```
impl Arbitrary for Scenario {
    type Parameters = Deployment;
    type Strategy = Scenarios;

    fn arbitrary_with(deployment: Deployment) -> Scenarios {
        Scenarios { deployment }
    }
}

/// The strategy of [`Scenario`].
#[derive(Clone, Debug)]
pub struct Scenarios {
    deployment: Deployment,
}

impl Strategy for Scenarios {
    type Tree = ScenarioTree;
    type Value = Scenario;

    fn new_tree(&self, runner: &mut TestRunner) -> NewTree<Self> {
        let seed = any::<u64>().new_tree(runner)?.current();
        Ok(ScenarioTree::new(self.deployment.scenario(seed, &EARLY_MS)))
    }
}

/// A scenario and what makes it smaller.
#[derive(Clone, Debug)]
pub struct ScenarioTree {
    scenario: Scenario,
    /// What it was before the last step.
    before: Option<Scenario>,
    /// What is left to be tried, the last first.
    steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    QuickNetwork,
    RightClocks,
    /// Without the worker at this place, or the fault.
    Worker(usize),
    Fault(usize),
    NoFaults,
}

impl ScenarioTree {
    fn new(scenario: Scenario) -> Self {
        let mut steps = vec![Step::QuickNetwork, Step::RightClocks];
        // From the end, so that the places of what is left stay the same.
        steps.extend((0..scenario.workers.len()).map(Step::Worker));
        steps.extend((0..scenario.faults.len()).map(Step::Fault));
        steps.push(Step::NoFaults);
        Self {
            scenario,
            before: None,
            steps,
        }
    }
}

impl ValueTree for ScenarioTree {
    type Value = Scenario;

    fn current(&self) -> Scenario {
        self.scenario.clone()
    }

    fn simplify(&mut self) -> bool {
        while let Some(step) = self.steps.pop() {
            let mut smaller = self.scenario.clone();
            take(step, &mut smaller);
            if smaller != self.scenario {
                self.before = Some(std::mem::replace(&mut self.scenario, smaller));
                return true;
            }
        }
        false
    }

    fn complicate(&mut self) -> bool {
        match self.before.take() {
            Some(before) => {
                self.scenario = before;
                true
            }
            None => false,
        }
    }
}

fn take(step: Step, scenario: &mut Scenario) {
    match step {
        Step::NoFaults => scenario.faults.clear(),
        Step::Fault(place) if place < scenario.faults.len() => {
            scenario.faults.remove(place);
        }
        Step::Worker(place) if scenario.workers.len() > 1 => {
            let key = scenario.workers.remove(place).key;
            let other = |fault: &super::Fault| fault.worker() != Some(key);
            scenario.faults.retain(other);
        }
        Step::Fault(_) | Step::Worker(_) => {}
        Step::RightClocks => scenario
            .workers
            .iter_mut()
            .for_each(|worker| worker.clock_ahead_ms = 0),
        Step::QuickNetwork => scenario.latency_us = (100, 1_000),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::strategy::{Strategy, ValueTree};
    use proptest::test_runner::TestRunner;

    use super::*;
    use crate::scenario::Fault;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..<_>::default() })]
        #[test]
        fn any_scenario_is_valid_and_all_that_it_shrinks_to(scenario in any::<Scenario>()) {
            let mut tree = ScenarioTree::new(scenario);
            loop {
                prop_assert!(tree.current().validate().is_ok());
                if !tree.simplify() {
                    break;
                }
            }
            prop_assert_eq!(tree.current().elements(), 0);
            prop_assert_eq!(tree.current().workers.len(), 1);
        }
    }

    #[test]
    fn a_scenario_shrinks_to_the_one_fault_that_matters() {
        let mut runner = TestRunner::deterministic();
        let matters = |scenario: &Scenario| {
            let mut faults = scenario.faults.iter();
            faults.any(|fault| matches!(fault, Fault::Crash { .. }))
        };
        let strategy = any::<Scenario>().prop_filter("it has a crash", matters);
        for _ in 0..20 {
            let mut tree = strategy.new_tree(&mut runner).unwrap();
            while tree.simplify() {
                if !matters(&tree.current()) {
                    assert!(tree.complicate());
                }
            }
            let scenario = tree.current();
            assert_eq!((scenario.faults.len(), scenario.workers.len()), (1, 1));
        }
    }
}
