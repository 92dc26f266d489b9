//! What a scenario must be to be simulated: it may come from a file.

use std::collections::BTreeSet;
use std::str::FromStr;

use job_tokio::fault::POINTS;
use serde_json::Value;
use thiserror::Error;

use super::{Fault, Knobs, Scenario, TYPES_MAX};

/// The longest simulation: ten years.
pub const HORIZON_MS_MAX: u64 = 10 * 366 * 24 * 60 * 60 * 1_000;
/// The greatest drift of a clock, in parts per million.
const DRIFT_PPM_MAX: u32 = 10_000;
/// The most jobs, workers and faults, each.
pub const ELEMENTS_MAX: usize = 100_000;

/// What is wrong with a scenario.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the scenario cannot be simulated: {0}")]
pub struct InvalidScenario(String);

/// From JSON, as a failure prints it.
impl FromStr for Scenario {
    type Err = InvalidScenario;

    fn from_str(json: &str) -> Result<Self, InvalidScenario> {
        let scenario: Self =
            serde_json::from_str(json).map_err(|error| InvalidScenario(error.to_string()))?;
        scenario.validate()?;
        Ok(scenario)
    }
}

impl Scenario {
    /// Checks that it can be simulated.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, in words.
    pub fn validate(&self) -> Result<(), InvalidScenario> {
        check(
            self.horizon_ms <= HORIZON_MS_MAX,
            format!(
                "it lasts {} ms, at most ten years are allowed",
                self.horizon_ms
            ),
        )?;
        check(
            self.calm_from_ms <= HORIZON_MS_MAX,
            format!(
                "its calm begins at {} ms, after ten years",
                self.calm_from_ms
            ),
        )?;
        let (from, to) = self.latency_us;
        check(
            from <= to && to <= 60_000_000,
            format!("messages travel {from} to {to} us, at most a minute is allowed"),
        )?;
        check(
            self.is_of_application() || (1..=TYPES_MAX).contains(&self.types.len()),
            format!(
                "it has {} job types, 1 to {TYPES_MAX} are allowed",
                self.types.len()
            ),
        )?;
        check(
            self.types.iter().all(|of_type| !of_type.retries.is_empty()),
            "a job type has no retries".to_owned(),
        )?;
        let json =
            serde_json::to_value(self).map_err(|error| InvalidScenario(error.to_string()))?;
        times_are_bounded(&json)?;
        let lens = [self.workers.len(), self.jobs.len(), self.faults.len()];
        check(
            lens.into_iter().all(|len| len <= ELEMENTS_MAX),
            format!("it has {lens:?} workers, jobs and faults, {ELEMENTS_MAX} of each are allowed"),
        )?;
        check(!self.workers.is_empty(), "it has no worker".to_owned())?;
        self.validate_workers()?;
        self.validate_jobs()?;
        self.faults
            .iter()
            .try_for_each(|fault| self.validate_fault(fault))
    }

    fn validate_workers(&self) -> Result<(), InvalidScenario> {
        let mut keys = BTreeSet::new();
        for worker in &self.workers {
            let key = worker.key;
            check(keys.insert(key), format!("there are two workers {key}"))?;
            check(
                key != u32::MAX,
                format!("the key {key} is that of the outside"),
            )?;
            check(
                worker.clock_drift_ppm.unsigned_abs() <= DRIFT_PPM_MAX,
                format!("the clock of worker {key} drifts by over {DRIFT_PPM_MAX} ppm"),
            )?;
            self.validate_knobs(&worker.knobs)?;
        }
        Ok(())
    }

    fn validate_knobs(&self, knobs: &Knobs) -> Result<(), InvalidScenario> {
        check(
            knobs.lease_ms >= 40 && knobs.poll_ms >= 10 && knobs.poll_deaf_ms >= 10,
            "a worker needs a lease of 40 ms and polls of 10 ms at least".to_owned(),
        )?;
        let known = knobs
            .types
            .iter()
            .find(|place| self.types.get(**place as usize).is_none());
        check(
            known.is_none(),
            format!("a worker knows the type {known:?}, which there is not"),
        )
    }

    fn validate_jobs(&self) -> Result<(), InvalidScenario> {
        let mut keys = BTreeSet::new();
        for job in &self.jobs {
            let key = job.key;
            check(keys.insert(key), format!("there are two jobs {key}"))?;
            check(
                (key as usize) < 10 * ELEMENTS_MAX,
                format!("the key {key} of a job is too great"),
            )?;
            check(
                (job.job_type as usize) < self.types.len(),
                format!(
                    "job {key} has the type {}, which there is not",
                    job.job_type
                ),
            )?;
            check(
                !(job.unique && job.parent.is_some()),
                format!("job {key} is unique, and spawned by another, which is not possible"),
            )?;
            let by = job.by.filter(|by| self.worker(*by).is_none());
            check(
                by.is_none(),
                format!("job {key} is spawned by worker {by:?}, which there is not"),
            )?;
            let parent = job.parent.filter(|parent| !keys.contains(parent));
            check(
                parent.is_none(),
                format!("job {key} has the parent {parent:?}, which does not come before it"),
            )?;
        }
        Ok(())
    }

    fn validate_fault(&self, fault: &Fault) -> Result<(), InvalidScenario> {
        let absent = fault.worker().filter(|key| self.worker(*key).is_none());
        // Messages of whoever is outside are lost, too.
        let absent = absent.filter(|key| *key != u32::MAX);
        check(
            absent.is_none(),
            format!("a fault is about worker {absent:?}, which there is not"),
        )?;
        if let Some((_, to_ms)) = fault.span_ms() {
            check(
                to_ms <= 2 * HORIZON_MS_MAX,
                format!("a fault lasts until {to_ms} ms"),
            )?;
        }
        match fault {
            Fault::CrashAt { point, .. } => check(
                POINTS.contains(&point.as_str()),
                format!(
                    "there is no fault point {point:?}; there are {}",
                    POINTS.join(", ")
                ),
            ),
            Fault::ClockJump { by_ms, .. } | Fault::StoreClockJump { by_ms, .. } => check(
                by_ms.unsigned_abs() <= HORIZON_MS_MAX,
                format!("a clock jumps by {by_ms} ms, at most ten years are allowed"),
            ),
            Fault::Restart {
                knobs: Some(knobs), ..
            } => self.validate_knobs(knobs),
            _ => Ok(()),
        }
    }
}

/// No time in it, whatever it is for, is longer than the longest simulation.
fn times_are_bounded(json: &Value) -> Result<(), InvalidScenario> {
    match json {
        Value::Array(items) => items.iter().try_for_each(times_are_bounded),
        Value::Object(fields) => fields.iter().try_for_each(|(name, value)| {
            let is_time = name.ends_with("_ms");
            let ms = value.as_i64().map(i64::unsigned_abs).or(value.as_u64());
            check(
                !is_time || ms.is_none_or(|ms| ms <= HORIZON_MS_MAX),
                format!("{name} is {value}, at most ten years of milliseconds are allowed"),
            )?;
            times_are_bounded(value)
        }),
        _ => Ok(()),
    }
}

fn check(holds: bool, text: String) -> Result<(), InvalidScenario> {
    if holds {
        Ok(())
    } else {
        Err(InvalidScenario(text))
    }
}

#[cfg(test)]
mod tests {
    use crate::scenario::{Fault, Profile, Scenario, generate};

    fn refused(change: impl FnOnce(&mut Scenario)) -> String {
        let mut scenario = generate(Profile::EXPLORER, 3);
        change(&mut scenario);
        scenario.validate().unwrap_err().to_string()
    }

    #[test]
    fn what_is_generated_is_valid() {
        for seed in 0..500 {
            for profile in [Profile::EXPLORER, Profile::PAUSED, Profile::CLUSTER] {
                generate(profile, seed).validate().unwrap();
            }
        }
    }

    #[test]
    fn what_cannot_be_simulated_is_refused_in_words() {
        for (text, expected) in [
            (refused(|s| s.workers.clear()), "no worker"),
            (
                refused(|s| s.horizon_ms = u64::MAX),
                "at most ten years are allowed",
            ),
            (refused(|s| s.calm_from_ms = u64::MAX), "after ten years"),
            (
                refused(|s| s.workers[0].knobs.types = vec![99]),
                "knows the type",
            ),
            (refused(|s| s.jobs[0].job_type = 8), "which there is not"),
            (
                refused(|s| (s.jobs[0].unique, s.jobs[0].parent) = (false, Some(77))),
                "does not come before it",
            ),
            (refused(|s| s.latency_us = (2, 1)), "messages travel"),
            (refused(|s| s.types.clear()), "0 job types"),
            (
                refused(|s| {
                    s.faults = vec![Fault::CrashAt {
                        worker: 0,
                        point: "nowhere".to_owned(),
                        nth: 1,
                        back_ms: 1,
                    }];
                }),
                "no fault point \"nowhere\"; there are after_claim",
            ),
            (
                refused(|s| {
                    s.faults = vec![Fault::Crash {
                        worker: 4_000,
                        at_ms: 0,
                        back_ms: None,
                    }];
                }),
                "worker Some(4000)",
            ),
        ] {
            assert!(
                text.contains(expected),
                "{text:?} does not say {expected:?}"
            );
        }
    }
}
