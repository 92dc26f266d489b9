//! Scenarios from seeds.

mod faults;

use super::dice::Dice;
use super::stretch::stretch;
use super::{
    DueSpec, EndSpec, Fault, JobSpec, Knobs, OnStop, RetrySpec, RunSpec, Scenario, TypeSpec,
    WorkerSpec,
};

/// What kind of scenarios a level wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// How long each is, in milliseconds.
    pub horizon_ms: u64,
    /// How long the last part is in which nothing goes wrong, in milliseconds.
    pub calm_ms: u64,
    /// How many workers there are at most; most have that many.
    pub workers_max: u32,
    /// How many jobs there are at most.
    pub jobs_max: u32,
    /// The leases to choose from, in milliseconds.
    pub leases_ms: &'static [u64],
    /// The intervals of polls to choose from, in milliseconds.
    pub polls_ms: &'static [u64],
    /// Whether the level has processes that stand still.
    pub pauses: bool,
    /// Whether the clocks of workers differ.
    pub skews: bool,
    /// Whether the level has faults of clocks of workers, and processes that lag.
    pub explores: bool,
    /// Whether some scenarios last a thousand times as long.
    pub stretches: bool,
    /// Whether the level knows replies that are long.
    pub long_replies: bool,
}

impl Profile {
    /// Ten minutes, five workers, everything that can go wrong.
    pub const EXPLORER: Self = Self {
        horizon_ms: 600_000,
        calm_ms: 150_000,
        workers_max: 5,
        jobs_max: 40,
        leases_ms: &[1_000, 2_000, 4_000, 10_000, 20_000, 30_000],
        polls_ms: &[5_000, 10_000, 10_000, 20_000],
        pauses: true,
        skews: true,
        explores: true,
        stretches: true,
        long_replies: true,
    };

    /// Ten minutes, five workers.
    pub const PAUSED: Self = Self {
        skews: false,
        explores: false,
        stretches: false,
        ..Self::EXPLORER
    };

    /// A minute and a quarter, three workers.
    pub const CLUSTER: Self = Self {
        horizon_ms: 75_000,
        calm_ms: 45_000,
        workers_max: 3,
        jobs_max: 15,
        leases_ms: &[2_000, 4_000],
        polls_ms: &[2_000, 5_000],
        pauses: false,
        skews: false,
        explores: false,
        stretches: false,
        long_replies: false,
    };

    /// Three workers, whose jobs are those of an application.
    pub(super) const APPLICATION: Self = Self {
        workers_max: 3,
        jobs_max: 0,
        skews: true,
        long_replies: false,
        ..Self::PAUSED
    };
}

/// So many jobs at one moment are a crowd.
const CROWD_JOBS_MIN: u32 = 15;
/// With more jobs than that, long runs are a backlog and nothing else.
const ENDURING_JOBS_MAX: u32 = 8;

/// The scenario of this seed.
pub fn generate(profile: Profile, seed: u64) -> Scenario {
    Generator::new(profile, seed, Vec::new()).scenario(seed)
}

pub(super) struct Generator {
    profile: Profile,
    dice: Dice,
    /// When there is something to disturb, in milliseconds.
    moments: Vec<u64>,
    /// When most jobs come at once, if they do.
    burst_ms: Option<u64>,
    /// The lease that runs outlast, if they do.
    enduring_ms: Option<u64>,
    /// Whether many short jobs come at once, and few of them have a place.
    crowd: bool,
    /// The job whose first run blocks its thread for long, if one does.
    blocking: Option<usize>,
}

impl Generator {
    pub(super) fn new(profile: Profile, seed: u64, moments: Vec<u64>) -> Self {
        Self {
            profile,
            dice: Dice::new(seed),
            moments,
            burst_ms: None,
            enduring_ms: None,
            crowd: false,
            blocking: None,
        }
    }

    /// The workers of an application, with nothing that goes wrong.
    pub(super) fn deployment(&mut self, seed: u64, workers: u32) -> Scenario {
        let knobs = self.knobs(0);
        let uniform = self.dice.pct(60).then_some(knobs);
        Scenario {
            seed,
            horizon_ms: self.profile.horizon_ms,
            calm_from_ms: self.profile.horizon_ms - self.profile.calm_ms,
            latency_us: self.latency_us(),
            types: Vec::new(),
            workers: self.workers_alike(workers, 0, uniform),
            jobs: Vec::new(),
            faults: Vec::new(),
            claimed_job_ms: 0,
            left_out: Vec::new(),
        }
    }

    /// What goes wrong with them. Nothing does in one of ten.
    pub(super) fn faults_of_application(&mut self, scenario: &Scenario) -> Vec<Fault> {
        if self.dice.pct(10) {
            return Vec::new();
        }
        self.faults(scenario)
    }

    /// Takes any one of them out.
    pub(super) fn take_out_one(&mut self, faults: &mut Vec<Fault>) {
        let place = self.dice.within(0, faults.len() as u64 - 1);
        faults.remove(place as usize);
    }

    fn latency_us(&mut self) -> (u64, u64) {
        self.dice
            .one_of(&[(100, 1_000), (200, 5_000), (1_000, 40_000)])
    }

    fn scenario(mut self, seed: u64) -> Scenario {
        let profile = self.profile;
        let calm_from_ms = profile.horizon_ms - profile.calm_ms;
        let peaceful = self.dice.pct(10);
        self.crowd = profile.jobs_max > CROWD_JOBS_MIN && self.dice.pct(36);
        let types = self.types();
        let workers = self.workers(types.len() as u32);
        // The longer a claim takes, the more is claimed ahead.
        let latency_us = match self.crowd {
            true => self.dice.one_of(&[(1_000, 40_000), (40_000, 120_000)]),
            false => self.latency_us(),
        };
        let mut scenario = Scenario {
            seed,
            horizon_ms: profile.horizon_ms,
            calm_from_ms,
            latency_us,
            types,
            workers,
            jobs: Vec::new(),
            faults: Vec::new(),
            claimed_job_ms: 0,
            left_out: Vec::new(),
        };
        scenario.jobs = self.jobs(&scenario, peaceful);
        self.moments = scenario.jobs.iter().map(|job| job.spawn_ms).collect();
        if !peaceful {
            scenario.faults = self.faults(&scenario);
        }
        if profile.long_replies && !peaceful && self.dice.pct(6) {
            // One job always arrives in time, many never do.
            scenario.claimed_job_ms = self.dice.within(150, 600);
            // What is never given up has to start in the end.
            for retry in scenario.types.iter_mut().flat_map(|t| &mut t.retries) {
                (retry.attempts_max, retry.crashes_max) = (None, None);
            }
        }
        let needed_ms = crate::check::calm_ms(&scenario);
        let calm_ms = needed_ms.clamp(profile.calm_ms, 2 * profile.calm_ms);
        scenario.horizon_ms = calm_from_ms + calm_ms;
        if profile.stretches && self.dice.pct(3) {
            stretch(&mut scenario, self.dice.one_of(&[20, 1_000, 3_000]));
        }
        scenario
    }

    fn types(&mut self) -> Vec<TypeSpec> {
        let count = match self.crowd {
            true => self.dice.within(1, 2),
            false => self.dice.within(1, 4),
        };
        let of_type = |dice: &mut Dice| {
            let editions = dice.one_of(&[1, 1, 2]);
            let retries = (0..editions).map(|_| retry(dice)).collect();
            TypeSpec { retries }
        };
        (0..count).map(|_| of_type(&mut self.dice)).collect()
    }

    fn workers(&mut self, types: u32) -> Vec<WorkerSpec> {
        let max = self.profile.workers_max;
        let count = if self.crowd {
            self.dice.one_of(&[1, 2, 2, max.min(3), max])
        } else if self.dice.pct(60) {
            max
        } else {
            self.dice.within(1, max.into()) as u32
        };
        // Most deployments are uniform; some are not.
        let uniform = self.dice.pct(60).then(|| self.knobs(types));
        self.workers_alike(count, types, uniform)
    }

    fn workers_alike(&mut self, count: u32, types: u32, uniform: Option<Knobs>) -> Vec<WorkerSpec> {
        let together = self.dice.pct(50);
        let skewed = self.profile.skews && self.dice.pct(50);
        (0..count)
            .map(|key| {
                let skew_ms = if skewed {
                    self.dice.any_size(0, 120_000)
                } else {
                    0
                };
                let sign = self.dice.one_of(&[-1, 1]);
                WorkerSpec {
                    key,
                    start_ms: if together {
                        0
                    } else {
                        self.dice.any_size(0, 20_000)
                    },
                    clock_ahead_ms: skew_ms as i64 * sign,
                    clock_drift_ppm: if skewed && self.profile.explores {
                        self.dice.within(0, 800) as i32 - 400
                    } else {
                        0
                    },
                    knobs: uniform.clone().unwrap_or_else(|| self.knobs(types)),
                }
            })
            .collect()
    }

    fn knobs(&mut self, types: u32) -> Knobs {
        let crowd = self.crowd;
        let dice = &mut self.dice;
        let jobs_max = match crowd {
            true => dice.one_of(&[1, 2, 2, 3]),
            false => dice.any_size(1, 12) as u32,
        };
        let leases_ms = match crowd {
            // Long enough to be believed in, short enough to be found to be lost.
            true => &[1_000, 2_000, 4_000],
            false => self.profile.leases_ms,
        };
        let lease_ms = dice.one_of(leases_ms);
        // A worker that does not know all types.
        let known = if types > 1 && dice.pct(15) {
            (0..types).filter(|_| dice.pct(60)).collect()
        } else {
            Vec::new()
        };
        Knobs {
            jobs_max,
            jobs_min: dice.within(1, jobs_max.into()) as u32,
            lease_ms,
            poll_ms: dice.one_of(self.profile.polls_ms),
            poll_deaf_ms: dice.one_of(&[1_000, 2_000, 5_000]),
            shutdown_timeout_ms: dice.one_of(&[0, 100, 1_000, 5_000, 3 * lease_ms]),
            poll_only: dice.pct(10),
            edition: dice.within(0, 1) as u32,
            types: known,
        }
    }

    fn jobs(&mut self, scenario: &Scenario, peaceful: bool) -> Vec<JobSpec> {
        if self.crowd {
            return self.crowd(scenario);
        }
        let count = self.dice.any_size(1, self.profile.jobs_max.into()) as u32;
        let types = scenario.types.len() as u64;
        let until_ms = scenario.calm_from_ms + self.profile.calm_ms / 10;
        // Some load comes all at once.
        let burst_ms = self.dice.pct(20).then(|| self.dice.within(0, until_ms / 2));
        self.burst_ms = burst_ms;
        let unique = self.dice.pct(25);
        let again = self.dice.pct(25);
        let children = self.dice.pct(30);
        let mut habit = Habit {
            peaceful,
            long: self.dice.pct(30),
            enduring_ms: None,
        };
        if count <= ENDURING_JOBS_MAX && self.dice.pct(45) {
            let leases = scenario.workers.iter().map(|worker| worker.knobs.lease_ms);
            habit.enduring_ms = leases.min();
            self.enduring_ms = habit.enduring_ms;
        }
        // All the same, so that their ends come at one moment.
        let alike = burst_ms.is_some() && self.dice.pct(50);
        let mut jobs: Vec<JobSpec> = Vec::new();
        for key in 0..count {
            let dice = &mut self.dice;
            let spawn_ms = match burst_ms {
                Some(ms) => ms + dice.any_size(0, 2_000),
                None => dice.within(0, until_ms),
            };
            let parents = jobs
                .iter()
                .filter(|job| job.parent.is_none() && !job.unique);
            let parents: Vec<u32> = parents.map(|job| job.key).collect();
            let parent =
                (children && !parents.is_empty() && dice.pct(20)).then(|| dice.one_of(&parents));
            let workers = scenario.workers.len() as u64;
            let by = dice.pct(40).then(|| dice.within(0, workers - 1) as u32);
            let mut job = JobSpec {
                key,
                spawn_ms,
                by,
                parent,
                job_type: dice.within(0, types - 1) as u32,
                unique: unique && parent.is_none() && dice.pct(40),
                due: match dice.within(0, 9) {
                    0 => DueSpec::InMs(dice.any_size(0, 60_000)),
                    1 => DueSpec::AtMs(dice.within(0, until_ms)),
                    _ => DueSpec::Now,
                },
                again_ms: None,
                runs: Vec::new(),
            };
            if again && parent.is_none() && dice.pct(30) {
                job.again_ms = Some(spawn_ms + dice.any_size(0, 30_000));
            }
            let runs = dice.any_size(0, 6);
            job.runs = match jobs.first() {
                Some(first) if alike => first.runs.clone(),
                _ => (0..runs).map(|_| run(dice, habit)).collect(),
            };
            jobs.push(job);
        }
        if !peaceful && self.dice.pct(4) {
            let place = self.dice.within(0, jobs.len() as u64 - 1) as usize;
            let blocks = RunSpec {
                work_ms: self.dice.within(15_000, 60_000),
                checkpoint_ms: None,
                end: EndSpec::Complete,
                on_stop: OnStop::Block,
            };
            jobs[place].runs.insert(0, blocks);
            self.blocking = Some(place);
        }
        // A parent ends in a transaction.
        let parents: Vec<u32> = jobs.iter().filter_map(|job| job.parent).collect();
        for job in &mut jobs {
            if parents.contains(&job.key) {
                let mut last = run(&mut self.dice, Habit::default());
                last.end = EndSpec::CompleteTx;
                job.runs.push(last);
            }
        }
        jobs
    }

    /// Many jobs at one moment, most of them so short that a worker claims more of them than
    /// it has places.
    fn crowd(&mut self, scenario: &Scenario) -> Vec<JobSpec> {
        let until_ms = scenario.calm_from_ms / 2;
        let burst_ms = self.dice.within(0, until_ms);
        self.burst_ms = Some(burst_ms);
        let types = scenario.types.len() as u64;
        let most = u64::from(self.profile.jobs_max);
        let count = self.dice.within(most / 2, most * 3 / 2) as u32;
        let dice = &mut self.dice;
        let spread_ms = dice.one_of(&[0, 0, 300]);
        // Some of them take all places, one after the other, while those behind them wait.
        let first_long = dice.within(most / 8, most / 4) as u32;
        let long = first_long..first_long + dice.within(4, 12) as u32;
        let jobs = (0..count).map(|key| {
            let work_ms = match long.contains(&key) {
                true => dice.within(1_000, 6_000),
                false => dice.within(1, 40),
            };
            JobSpec {
                key,
                spawn_ms: burst_ms + dice.within(0, spread_ms),
                by: None,
                parent: None,
                job_type: dice.within(0, types - 1) as u32,
                unique: false,
                due: DueSpec::Now,
                again_ms: None,
                runs: vec![RunSpec {
                    work_ms,
                    checkpoint_ms: None,
                    end: match dice.pct(15) {
                        true => EndSpec::Fail,
                        false => EndSpec::Complete,
                    },
                    on_stop: OnStop::Yield,
                }],
            }
        });
        jobs.collect()
    }
}

fn retry(dice: &mut Dice) -> RetrySpec {
    let min_backoff_ms = dice.one_of(&[10, 100, 1_000, 2_000]);
    RetrySpec {
        attempts_max: dice.one_of(&[Some(1), Some(3), Some(5), Some(30), None]),
        min_backoff_ms,
        max_backoff_ms: min_backoff_ms * dice.one_of(&[1, 4, 30]),
        jitter_pct: dice.one_of(&[0, 20, 20, 50, 100]),
        reset_after_multiples: dice.one_of(&[0, 3, 3, 3]),
        crashes_max: dice.one_of(&[Some(2), Some(3), Some(10), None]),
        undecodable_max_ms: dice.one_of(&[1_000, 5_000, 3_600_000]),
    }
}

/// What the runs of a scenario are like.
#[derive(Clone, Copy, Debug)]
struct Habit {
    /// Nothing goes wrong.
    peaceful: bool,
    /// Some take long.
    long: bool,
    /// Some take longer than a lease of so long, and do not let themselves be
    /// stopped.
    enduring_ms: Option<u64>,
}

impl Default for Habit {
    fn default() -> Self {
        Self {
            peaceful: true,
            long: false,
            enduring_ms: None,
        }
    }
}

fn run(dice: &mut Dice, habit: Habit) -> RunSpec {
    if let Some(lease_ms) = habit.enduring_ms
        && dice.pct(60)
    {
        let work_ms = dice.within(lease_ms, lease_ms * 4);
        return RunSpec {
            work_ms,
            checkpoint_ms: dice.pct(60).then(|| dice.within(work_ms / 2, work_ms)),
            end: dice.one_of(&[
                EndSpec::CompleteTx,
                EndSpec::RescheduleTxMs(100),
                EndSpec::SnoozeTxMs(100),
                EndSpec::Fail,
            ]),
            on_stop: OnStop::Ignore,
        };
    }
    let work_ms = if habit.long && dice.pct(30) {
        dice.any_size(1_000, 60_000)
    } else {
        dice.any_size(0, 3_000)
    };
    let end = match dice.within(0, 19) {
        0..=4 => EndSpec::Fail,
        5..=6 => EndSpec::Panic,
        7 => EndSpec::Undecodable,
        8 => EndSpec::RescheduleMs(dice.any_size(0, 20_000)),
        9 => EndSpec::SnoozeMs(dice.any_size(0, 20_000)),
        10 => match dice.within(0, 3) {
            0..=1 => EndSpec::RescheduleTxMs(dice.any_size(0, 20_000)),
            2 => EndSpec::SnoozeTxMs(dice.any_size(0, 20_000)),
            _ if dice.pct(50) => EndSpec::GiveUpTx,
            _ => EndSpec::GiveUp,
        },
        11 if !habit.peaceful => EndSpec::Kill,
        12 if !habit.peaceful => EndSpec::Hang,
        13..=14 => EndSpec::Complete,
        _ => EndSpec::CompleteTx,
    };
    RunSpec {
        work_ms,
        checkpoint_ms: dice.pct(30).then(|| dice.within(0, work_ms)),
        end,
        on_stop: match dice.within(0, 9) {
            0..=3 => OnStop::Yield,
            4..=5 => OnStop::Fail,
            6..=8 => OnStop::Ignore,
            _ if habit.peaceful => OnStop::Yield,
            _ => OnStop::Block,
        },
    }
}

#[cfg(test)]
mod tests;
