//! Scenarios for applications: workers and what goes wrong with them. The jobs are the
//! application's.

use std::time::Duration;

use job::JobPollerConfig;

use super::generate::Generator;
use super::{Fault, Knobs, Profile, Scenario};

/// So long things go wrong, unless the test says otherwise.
const LASTING: Duration = Duration::from_secs(600);
/// At least so long, and at most.
const LASTING_RANGE: (Duration, Duration) = (
    Duration::from_secs(60),
    Duration::from_secs(366 * 24 * 3_600),
);
/// So many leases of one job can be lost in a scenario: fewer crashes in a row than an
/// initializer allows that does not say otherwise.
const LEASES_LOST_MAX: u64 = job::CRASHES_MAX_DEFAULT as u64 - 1;
/// So long a worker is away for good, in milliseconds.
const AWAY_MS: u64 = 60_000;

/// What an application is deployed on, and for how long things go wrong there.
#[derive(Clone, Debug)]
pub struct Deployment {
    /// So many workers. Default 3; 1 to 100.
    pub workers: u32,
    /// Things go wrong for so long. Default ten minutes; a minute at least, a year at
    /// most.
    pub lasting: Duration,
    /// How all workers are configured; `None` for otherwise in each scenario, with
    /// leases that are short enough to be lost. Default `None`.
    pub poller_config: Option<JobPollerConfig>,
}

impl Default for Deployment {
    fn default() -> Self {
        Self {
            workers: 3,
            lasting: LASTING,
            poller_config: None,
        }
    }
}

impl Deployment {
    /// The scenario of a seed, in which nothing goes wrong.
    pub fn peaceful(&self, seed: u64) -> Scenario {
        let mut scenario = self.begin(&mut self.generator(seed, &[]), seed);
        scenario.calm_from_ms = 0;
        scenario
    }

    /// The scenario of a seed. `moments` are when there is something to disturb, in
    /// milliseconds; without them, anything goes wrong at any time.
    pub fn scenario(&self, seed: u64, moments: &[u64]) -> Scenario {
        let mut generator = self.generator(seed, moments);
        let mut scenario = self.begin(&mut generator, seed);
        scenario.faults = generator.faults_of_application(&scenario);
        while leases_lost(&scenario) > LEASES_LOST_MAX {
            generator.take_out_one(&mut scenario.faults);
        }
        let lease_ms = scenario.workers[0].knobs.lease_ms;
        for fault in &mut scenario.faults {
            if let Fault::Restart { back_ms, knobs, .. } = fault {
                // Somebody stays.
                back_ms.get_or_insert(AWAY_MS);
                if let Some(knobs) = knobs {
                    knobs.lease_ms = lease_ms;
                    if let Some(config) = &self.poller_config {
                        configure(knobs, config);
                    }
                }
            }
        }
        scenario
    }

    /// The scenario in which just these things go wrong, on workers that start at once and
    /// whose clocks are right. What is to begin after [`Deployment::lasting`] does not.
    ///
    /// ```
    /// use job_sim::scenario::Fault;
    /// use job_sim::{Deployment, Simulation};
    ///
    /// let crash = Fault::Crash {
    ///     worker: 0,
    ///     at_ms: 1_500,
    ///     back_ms: Some(60_000),
    /// };
    /// let scenario = Deployment::default().with_faults(7, vec![crash]);
    /// Simulation::new().scenario(scenario).run(|sim| async move {
    ///     // Start the workers, spawn what the first is at after a second and a half ...
    ///     sim.settle().await;
    /// });
    /// ```
    pub fn with_faults(&self, seed: u64, faults: Vec<Fault>) -> Scenario {
        let mut scenario = Scenario {
            calm_from_ms: self.lasting_ms(),
            faults,
            ..self.peaceful(seed)
        };
        for worker in &mut scenario.workers {
            (worker.start_ms, worker.clock_ahead_ms) = (0, 0);
        }
        scenario
    }

    fn generator(&self, seed: u64, moments: &[u64]) -> Generator {
        let lasting_ms = self.lasting_ms();
        let profile = Profile {
            horizon_ms: lasting_ms,
            calm_ms: 0,
            workers_max: self.workers,
            ..Profile::APPLICATION
        };
        let before_calm = moments.iter().filter(|ms| **ms < lasting_ms);
        Generator::new(profile, seed, before_calm.copied().collect())
    }

    fn begin(&self, generator: &mut Generator, seed: u64) -> Scenario {
        let mut scenario = generator.deployment(seed, self.workers.clamp(1, 100));
        // All processes on one database are to have the same.
        let lease_ms = scenario.workers[0].knobs.lease_ms;
        for worker in &mut scenario.workers {
            let knobs = &mut worker.knobs;
            knobs.lease_ms = lease_ms;
            if let Some(config) = &self.poller_config {
                configure(knobs, config);
            }
        }
        scenario
    }

    fn lasting_ms(&self) -> u64 {
        let (shortest, longest) = LASTING_RANGE;
        self.lasting.clamp(shortest, longest).as_millis() as u64
    }
}

/// How many leases of one job can be lost at most.
fn leases_lost(scenario: &Scenario) -> u64 {
    let lease_ms = scenario.workers[0].knobs.lease_ms;
    let by_fault = |fault: &Fault| match fault {
        Fault::Deaf { .. } | Fault::Announcements { .. } => 0,
        fault => {
            let (from_ms, to_ms) = fault.span_ms().unwrap_or_default();
            1 + (to_ms - from_ms) / lease_ms
        }
    };
    scenario.faults.iter().map(by_fault).sum()
}

fn configure(knobs: &mut Knobs, config: &JobPollerConfig) {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let longest_ms = ms(LASTING_RANGE.1);
    knobs.jobs_max = count(config.max_jobs_per_process);
    knobs.jobs_min = count(config.min_jobs_per_process);
    knobs.lease_ms = ms(config.job_lost_interval).clamp(40, longest_ms);
    knobs.shutdown_timeout_ms = ms(config.shutdown_timeout).min(longest_ms);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scenarios_of_applications_are_valid_and_have_faults() {
        let deployments = [600, 7 * 24 * 3_600].map(|seconds| Deployment {
            lasting: Duration::from_secs(seconds),
            ..Deployment::default()
        });
        for deployment in deployments {
            let mut with_faults = 0;
            for seed in 0..200 {
                let scenario = deployment.scenario(seed, &[0, 17, 300_000]);
                scenario.validate().unwrap();
                assert!(leases_lost(&scenario) <= LEASES_LOST_MAX);
                let leases = scenario.workers.iter().map(|worker| worker.knobs.lease_ms);
                assert_eq!(leases.clone().min(), leases.max());
                with_faults += usize::from(!scenario.faults.is_empty());
                deployment.peaceful(seed).validate().unwrap();
            }
            assert!(with_faults > 150, "{with_faults} of 200");
        }
    }

    #[test]
    fn a_configuration_holds_for_all_workers_also_after_a_restart() {
        let config = JobPollerConfig {
            job_lost_interval: Duration::from_secs(7),
            max_jobs_per_process: 3,
            ..JobPollerConfig::default()
        };
        let deployment = Deployment {
            poller_config: Some(config),
            ..Deployment::default()
        };
        for seed in 0..200 {
            let scenario = deployment.scenario(seed, &[]);
            let restarted = scenario.faults.iter().filter_map(|fault| match fault {
                Fault::Restart { knobs, .. } => knobs.as_ref(),
                _ => None,
            });
            let knobs = scenario.workers.iter().map(|worker| &worker.knobs);
            for knobs in knobs.chain(restarted) {
                assert_eq!((knobs.lease_ms, knobs.jobs_max), (7_000, 3));
            }
        }
    }
}
