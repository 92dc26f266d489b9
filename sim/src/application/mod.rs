//! Simulations of applications: their own runners, on workers to which everything
//! happens that can.

mod failure;
mod sim;
mod simulate;
mod suspect;
mod table;

use std::ops::Range;
use std::time::Duration;

use job::JobPollerConfig;

use crate::check::Violation;
use crate::explore::DETERMINISM;
use crate::recorder::{Keep, Report};
use crate::scenario::{Deployment, Scenario};
use crate::shrink::{Shrunk, shrink};
pub use failure::Failure;
pub use sim::{Sim, Unanswered};
use simulate::simulate;
pub use table::SimulatedTable;

/// The check that the assertions of the test hold.
const ASSERTION: &str = "an assertion";
/// The check that all jobs end.
const UNSETTLED: &str = "all jobs end";
/// The check that the test ends.
const ENDLESS: &str = "the test ends";

/// The seeds of a simulation that names none.
const SEEDS: Range<u64> = 0..100;
/// Which seeds to simulate, if the test does not say: `17`, or `0..1000`.
const SEEDS_VARIABLE: &str = "JOB_SIM_SEEDS";
/// Every so manieth seed is simulated twice, and compared.
const TWICE_EVERY: u64 = 10;
/// So many simulations to make a failure smaller.
const SHRINK_MAX: u32 = 500;

/// Simulates an application, for many seeds: its own runners, on workers that crash,
/// stand still, are cut off, have wrong clocks, and lose replies.
///
/// The engine, the driver and the service are those that run in production; the database
/// is a model of it. Time is simulated, so weeks pass in milliseconds. The same seed
/// gives the same simulation, event by event.
///
/// The test is what is simulated with each seed. It starts the workers, spawns jobs,
/// lets time pass and asserts what must hold, in any order. When an assertion does not
/// hold, or a runner panics, what went wrong is made smaller: faults, inputs and workers
/// are taken out for as long as the same assertion fails. What is left is printed as a
/// timeline.
///
/// What the runners must be for that, and how they reach other services, is told in the
/// [guide](crate::guide).
///
/// ```
/// use std::error::Error;
/// use std::sync::{Arc, Mutex};
///
/// use async_trait::async_trait;
/// use job::{Backend, CurrentJob, Job, JobCompletion, JobId, JobInitializer, JobRunner};
/// use job::{JobSpawner, JobType};
/// use job_sim::Simulation;
///
/// /// Sends greetings; `sent` is what has been sent.
/// struct Greet {
///     sent: Arc<Mutex<Vec<u32>>>,
/// }
///
/// struct Greeting(u32, Arc<Mutex<Vec<u32>>>);
///
/// #[async_trait]
/// impl<B: Backend> JobRunner<B> for Greeting {
///     async fn run(&self, _: CurrentJob<B>) -> Result<JobCompletion<B>, Box<dyn Error>> {
///         self.1.lock().unwrap().push(self.0);
///         Ok(JobCompletion::Complete)
///     }
/// }
///
/// impl<B: Backend> JobInitializer<B> for Greet {
///     type Config = u32;
///     fn job_type(&self) -> JobType {
///         JobType::new("greet")
///     }
///     fn init(
///         &self,
///         job: &Job,
///         _: JobSpawner<u32, B>,
///     ) -> Result<Box<dyn JobRunner<B>>, Box<dyn Error>> {
///         Ok(Box::new(Greeting(job.config()?, Arc::clone(&self.sent))))
///     }
/// }
///
/// Simulation::new().seeds(0..10).run(|sim| async move {
///     let sent = Arc::<Mutex<Vec<u32>>>::default();
///     let greet = { let sent = sent.clone(); move || Greet { sent: sent.clone() } };
///     let greetings = sim.start(move |jobs| jobs.add_initializer(greet())).await;
///     for number in sim.inputs(5) {
///         greetings.spawn(JobId::new(), number).await.unwrap();
///     }
///     sim.settle().await;
///     for number in sim.inputs(5) {
///         // At least once: a crash may come after it was sent.
///         assert!(sent.lock().unwrap().contains(&number), "{number} was not sent");
///     }
/// });
/// ```
#[derive(Clone, Debug)]
#[must_use = "it does nothing until it is run"]
pub struct Simulation {
    deployment: Deployment,
    seeds: Option<Range<u64>>,
    scenario: Option<Scenario>,
}

impl Default for Simulation {
    fn default() -> Self {
        Self::new()
    }
}

impl Simulation {
    /// Three workers, to which things happen for ten minutes, each differently
    /// configured; a hundred seeds.
    pub fn new() -> Self {
        Self {
            deployment: Deployment::default(),
            seeds: None,
            scenario: None,
        }
    }

    /// How many workers there are. Default 3.
    ///
    /// # Panics
    ///
    /// If there is none, or there are more than 100.
    pub fn workers(mut self, workers: u32) -> Self {
        assert!(
            (1..=100).contains(&workers),
            "1 to 100 workers can be simulated, not {workers}"
        );
        self.deployment.workers = workers;
        self
    }

    /// For how long things go wrong, from the start. Default ten minutes, a minute at
    /// least, a year at most. The test may go on for longer, in peace.
    pub fn lasting(mut self, lasting: Duration) -> Self {
        self.deployment.lasting = lasting;
        self
    }

    /// How all workers are configured. Default: in each simulation otherwise, with leases
    /// that are short enough to be lost.
    pub fn poller_config(mut self, config: JobPollerConfig) -> Self {
        self.deployment.poller_config = Some(config);
        self
    }

    /// Which seeds to simulate, unless the environment variable `JOB_SIM_SEEDS` names
    /// others, such as `17` or `0..10000`. Default 0 to 99.
    pub fn seeds(mut self, seeds: Range<u64>) -> Self {
        self.seeds = Some(seeds);
        self
    }

    /// Simulates this scenario as it is, instead of those of the seeds: one that failed
    /// once, and was printed then; one that a property test has made; or one of
    /// [`Deployment::with_faults`], in which just that goes wrong which the test is about.
    pub fn scenario(mut self, scenario: Scenario) -> Self {
        self.scenario = Some(scenario);
        self
    }

    /// Simulates the test with each seed.
    ///
    /// # Panics
    ///
    /// With a [`Failure`], when something does not hold; within a tokio runtime.
    #[track_caller]
    pub fn run<F, T>(&self, test: F)
    where
        F: Fn(Sim) -> T,
        T: Future<Output = ()>,
    {
        if let Err(failure) = self.check(test) {
            panic!("{failure}");
        }
    }

    /// Simulates the test with each seed, up to the first that fails.
    ///
    /// # Errors
    ///
    /// What did not hold.
    ///
    /// # Panics
    ///
    /// Within a tokio runtime, if there is no seed, or if the scenario makes no sense.
    pub fn check<F, T>(&self, test: F) -> Result<(), Box<Failure>>
    where
        F: Fn(Sim) -> T,
        T: Future<Output = ()>,
    {
        let run = |scenario: &Scenario, keep: Keep| simulate(scenario, keep, &test);
        if let Some(scenario) = &self.scenario {
            scenario
                .validate()
                .unwrap_or_else(|error| panic!("{error}"));
            assert!(
                scenario.is_of_application(),
                "a scenario with jobs or types of its own is not one for an application"
            );
            let report = run(scenario, Keep::NOTHING);
            return match report.violation {
                None => Ok(()),
                Some(violation) => Err(Box::new(Failure::of_scenario(scenario, violation, &run))),
            };
        }
        let seeds = seeds_of_environment().or_else(|| self.seeds.clone());
        let seeds = seeds.unwrap_or(SEEDS);
        assert!(!seeds.is_empty(), "there is no seed in {seeds:?}");
        for seed in seeds.clone() {
            let twice = seed == seeds.start || seed % TWICE_EVERY == 0;
            self.simulate_seed(seed, twice, &run)?;
        }
        Ok(())
    }

    /// First nothing goes wrong: so it is known when there is something to disturb.
    fn simulate_seed(
        &self,
        seed: u64,
        twice: bool,
        run: &dyn Fn(&Scenario, Keep) -> Report,
    ) -> Result<(), Box<Failure>> {
        let peaceful = self.deployment.peaceful(seed);
        let report = run(&peaceful, Keep::MOMENTS);
        if report.violation.is_some() {
            return Err(Box::new(smaller(&peaceful, run)));
        }
        let moments: Vec<u64> = report.moments.iter().copied().collect();
        let scenario = self.deployment.scenario(seed, &moments);
        let report = run(&scenario, Keep::NOTHING);
        if report.violation.is_some() {
            return Err(Box::new(smaller(&scenario, run)));
        }
        let again = twice.then(|| run(&scenario, Keep::NOTHING));
        if again.is_some_and(|again| again.hash != report.hash || again.violation.is_some()) {
            let differs = Violation::new(DETERMINISM, "");
            return Err(Box::new(Failure::new(&scenario, differs, None, run)));
        }
        Ok(())
    }
}

fn smaller(scenario: &Scenario, run: &dyn Fn(&Scenario, Keep) -> Report) -> Failure {
    match shrink(scenario, SHRINK_MAX, run) {
        Some(Shrunk {
            scenario: smallest,
            report,
            runs,
        }) => {
            let violation = report.violation.expect("it fails");
            let from = Some((scenario, runs));
            Failure::new(&smallest, violation, from, run)
        }
        // It failed before.
        None => Failure::new(scenario, Violation::new(DETERMINISM, ""), None, run),
    }
}

fn seeds_of_environment() -> Option<Range<u64>> {
    let text = std::env::var(SEEDS_VARIABLE).ok()?;
    let seeds = parse_seeds(&text);
    Some(seeds.unwrap_or_else(|| {
        panic!("{SEEDS_VARIABLE} is a seed, or a range such as 0..1000, not {text:?}")
    }))
}

fn parse_seeds(text: &str) -> Option<Range<u64>> {
    let seed = |text: &str| text.trim().parse::<u64>().ok();
    match text.split_once("..") {
        Some((from, to)) => Some(seed(from)?..seed(to)?),
        None => seed(text).map(|seed| seed..seed.saturating_add(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_one_or_a_range() {
        assert_eq!(parse_seeds("17"), Some(17..18));
        assert_eq!(parse_seeds("0..1000"), Some(0..1000));
        for nonsense in ["", "a", "3..", "..3", "-1", "1..=3"] {
            assert_eq!(parse_seeds(nonsense), None, "{nonsense:?}");
        }
    }
}
