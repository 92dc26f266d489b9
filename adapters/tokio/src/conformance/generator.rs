//! Makes sequences of commands from a seed.
//!
//! Few jobs, types and workers, so that they meet often; old runs, old claims
//! and old spawns come again and again, as after lost replies.

use std::collections::BTreeSet;
use std::time::Duration;

use job_engine::store::{
    Checkpoint, Claim, Finish, Heartbeat, History, NewJob, Outcome, Quota, Reclaim, TypePolicy,
};
use job_engine::{ClaimId, Command, Due, Fence, JobId, JobType, Reply, Run, Timestamp, WorkerId};
use uuid::Uuid;

use super::fixtures::{error, json};

const TYPES: [JobType; 4] = [
    JobType::new("a"),
    JobType::new("b"),
    JobType::new("c"),
    JobType::new("d"),
];
const JOBS: u64 = 24;
const WORKERS: u64 = 3;

#[derive(Debug)]
pub(crate) struct Generator {
    random: u64,
    spawns: Vec<NewJob>,
    claims: Vec<Claim>,
    runs: Vec<Run>,
}

impl Generator {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: seed,
            spawns: Vec::new(),
            claims: Vec::new(),
            runs: Vec::new(),
        }
    }

    /// How much time passes before the next command: often none at all.
    pub(crate) fn pause(&mut self) -> Duration {
        match self.below(4) {
            0 | 1 => Duration::ZERO,
            2 => Duration::from_micros(self.below(1_000)),
            _ => Duration::from_secs(self.below(12)),
        }
    }

    pub(crate) fn command(&mut self, now: Timestamp) -> Command {
        match self.below(21) {
            0..=4 => self.spawn(now),
            5..=9 => self.claim(),
            10..=13 => self.finish(now),
            14 | 15 => self.heartbeat(),
            16 => self.checkpoint(),
            17 => Command::Hold(self.run()),
            18 => self.reclaim(),
            19 => Command::History(History {
                job: self.job(),
                before: Fence(self.below(4) as i64),
            }),
            _ => Command::Find(self.job()),
        }
    }

    /// Takes note of the runs that a claim has started.
    pub(crate) fn learn(&mut self, reply: &Reply) {
        if let Reply::Claimed(claimed) = reply {
            self.runs.extend(claimed.jobs.iter().map(|job| job.run));
        }
    }

    fn spawn(&mut self, now: Timestamp) -> Command {
        let len = self.below(6);
        Command::Spawn((0..len).map(|_| self.new_job(now)).collect())
    }

    fn new_job(&mut self, now: Timestamp) -> NewJob {
        if !self.spawns.is_empty() && self.one_in(6) {
            let n = self.below(self.spawns.len() as u64);
            return self.spawns[n as usize].clone();
        }
        let job = NewJob {
            id: self.job(),
            job_type: self.job_type(),
            unique_type: self.one_in(5),
            due: self.due(now),
            config: json(&self.below(100).to_string()),
            trace: self.one_in(3).then(|| self.below(9).to_string()),
            token: self.next() as i64,
        };
        self.spawns.push(job.clone());
        job
    }

    fn claim(&mut self) -> Command {
        if !self.claims.is_empty() && self.one_in(4) {
            // Mostly the last one: that is what a worker repeats.
            let back = if self.one_in(4) { self.below(5) } else { 0 };
            let last = self.claims.len() - 1;
            let mut claim = self.claims[last.saturating_sub(back as usize)].clone();
            claim.repeat = true;
            if self.one_in(3) {
                let fewer = self.below(3) as u32;
                let quotas = claim.quotas.iter_mut();
                quotas.for_each(|quota| quota.jobs_max = quota.jobs_max.min(fewer));
            }
            return Command::Claim(claim);
        }
        let quotas = self.types().into_iter().map(|job_type| Quota {
            job_type,
            jobs_max: self.below(4) as u32,
        });
        let claim = Claim {
            quotas: quotas.collect(),
            id: ClaimId {
                worker: self.worker(),
                seq: self.claims.len() as i64,
            },
            repeat: false,
            lease: Duration::from_secs(self.below(20)),
        };
        self.claims.push(claim.clone());
        Command::Claim(claim)
    }

    fn finish(&mut self, now: Timestamp) -> Command {
        let finishes = self.some_runs().into_iter().map(|run| {
            let outcome = self.outcome(now);
            Finish { run, outcome }
        });
        Command::Finish(finishes.collect())
    }

    fn outcome(&mut self, now: Timestamp) -> Outcome {
        match self.below(9) {
            0 => Outcome::Completed,
            1 => Outcome::Errored {
                error: error("gave up"),
            },
            2 => Outcome::Rescheduled { due: self.due(now) },
            3 => Outcome::Snoozed { due: self.due(now) },
            4 => Outcome::Released,
            5 => Outcome::Interrupted,
            6 => Outcome::Undecodable {
                delay: Duration::from_millis(self.below(5_000)),
                error: error("unknown variant"),
            },
            _ => Outcome::Retried {
                delay: Duration::from_millis(self.below(5_000)),
                attempt: 1 + self.below(9) as u32,
                error: error("no route"),
            },
        }
    }

    fn heartbeat(&mut self) -> Command {
        Command::Heartbeat(Heartbeat {
            runs: self.some_runs().into_iter().collect(),
            lease: Duration::from_secs(self.below(20)),
        })
    }

    fn checkpoint(&mut self) -> Command {
        Command::Checkpoint(Checkpoint {
            run: self.run(),
            state: json(&self.below(100).to_string()),
        })
    }

    fn reclaim(&mut self) -> Command {
        let policies = self.types().into_iter().map(|job_type| TypePolicy {
            job_type,
            attempts_max: self.one_in(2).then(|| self.below(6) as u32),
            crashes_max: self.one_in(2).then(|| self.below(4) as u32),
            healthy_after: Duration::from_secs(self.below(25)),
        });
        Command::Reclaim(Reclaim {
            policies: policies.collect(),
            jobs_max: self.below(6) as u32,
        })
    }

    fn due(&mut self, now: Timestamp) -> Due {
        let seconds = Duration::from_secs(self.below(20));
        match self.below(4) {
            0 => Due::In(seconds),
            1 => Due::At(now.saturating_add(seconds)),
            2 => Due::At(Timestamp::from_micros(now.as_micros() - 7_000_000)),
            _ => Due::Now,
        }
    }

    /// Ids whose order is that of all their bytes.
    fn job(&mut self) -> JobId {
        let n = 1 + u128::from(self.below(JOBS));
        JobId(Uuid::from_u128(
            n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834),
        ))
    }

    /// Each type at most once, in any order.
    fn types(&mut self) -> Vec<JobType> {
        let mut types = TYPES.to_vec();
        for n in (1..types.len()).rev() {
            types.swap(n, self.below(n as u64 + 1) as usize);
        }
        types.truncate(self.below(5) as usize);
        types
    }

    fn job_type(&mut self) -> JobType {
        TYPES[self.below(TYPES.len() as u64) as usize].clone()
    }

    fn worker(&mut self) -> WorkerId {
        WorkerId(Uuid::from_u128(self.below(WORKERS).into()))
    }

    /// No run twice.
    fn some_runs(&mut self) -> BTreeSet<Run> {
        (0..self.below(5)).map(|_| self.run()).collect()
    }

    /// Mostly one that runs or has just ended.
    fn run(&mut self) -> Run {
        if self.runs.is_empty() || self.one_in(10) {
            return Run {
                job: self.job(),
                fence: Fence(self.below(4) as i64),
                claim: ClaimId {
                    worker: self.worker(),
                    seq: self.below(4) as i64,
                },
            };
        }
        let recent = if self.one_in(5) { 100 } else { 8 };
        let back = 1 + self.below(recent.min(self.runs.len() as u64));
        let mut run = self.runs[self.runs.len() - back as usize];
        if self.one_in(20) {
            run.claim.worker = self.worker();
        }
        run
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// `SplitMix64`, by Sebastiano Vigna.
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
