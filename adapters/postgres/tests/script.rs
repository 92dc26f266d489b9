//! Random commands from a seed, about few jobs, so that they meet.

use std::collections::BTreeSet;
use std::time::Duration;

use job_engine::store::{
    Checkpoint, Claim, Finish, Heartbeat, NewJob, Outcome, Quota, Reclaim, TypePolicy,
};
use job_engine::{
    ClaimId, Command, Due, ErrorText, Fence, JobId, JobType, Payload, Reply, Run, Timestamp,
};

use crate::support::{id, worker};

const TYPES: [&str; 4] = ["a", "b", "ü\"'\\", "unique"];
/// Jobs that a script is about at a time.
const WINDOW: u64 = 20;
const WORKERS: u64 = 3;
/// Enough for every duration of a script to run out now and then.
const DURATIONS: [Duration; 8] = [
    Duration::ZERO,
    Duration::from_nanos(1),
    Duration::from_micros(3),
    Duration::from_secs(1),
    Duration::from_secs(30),
    Duration::from_secs(400 * 365 * 24 * 3_600),
    Duration::from_secs(9_998 * 365 * 24 * 3_600),
    Duration::MAX,
];

/// Makes commands; learns from the replies which runs there are.
pub(crate) struct Script {
    random: u64,
    now: Timestamp,
    seq: i64,
    oldest: u64,
    runs: Vec<Run>,
    claims: Vec<Claim>,
    past: Vec<Command>,
}

impl Script {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: seed,
            now: Timestamp::from_micros(1_700_000_000_000_001),
            seq: 0,
            oldest: 0,
            runs: Vec::new(),
            claims: Vec::new(),
            past: Vec::new(),
        }
    }

    /// All jobs that a script can have created.
    pub(crate) fn ids(&self) -> impl Iterator<Item = JobId> {
        (0..self.oldest + WINDOW).map(|n| id(n.into()))
    }

    pub(crate) fn next(&mut self) -> (Timestamp, Command) {
        self.pass_time();
        self.oldest += u64::from(self.below(4) == 0);
        let command = match self.below(20) {
            0..4 => self.spawn(),
            4..9 => self.claim(),
            9..13 => Command::Finish(
                self.some_runs()
                    .into_iter()
                    .map(|r| self.finish(r))
                    .collect(),
            ),
            13..15 => Command::Heartbeat(Heartbeat {
                runs: self.some_runs(),
                lease: self.duration(),
            }),
            15 => Command::Checkpoint(Checkpoint {
                run: self.run(),
                state: self.payload(),
            }),
            16..18 => self.reclaim(),
            18 => Command::Find(self.job()),
            _ => self.again(),
        };
        self.past.push(command.clone());
        (self.now, command)
    }

    pub(crate) fn learn(&mut self, reply: &Reply) {
        if let Reply::Claimed(claimed) = reply {
            self.runs.extend(claimed.jobs.iter().map(|job| job.run));
        }
    }

    /// Forward as a rule, at times back, at times to an end of the calendar.
    fn pass_time(&mut self) {
        let micros = match self.below(40) {
            0 => -i64::from(self.below(5_000_000) as u32),
            1 => 3_600_000_000,
            2..5 => 0,
            _ => self.below(2_000_000) as i64,
        };
        let usual = Timestamp::from_micros(self.now.as_micros().saturating_add(micros));
        self.now = match self.below(400) {
            0 => Timestamp::MAX,
            1 => Timestamp::MIN,
            2..20 if usual.as_micros().unsigned_abs() > 10_u64.pow(16) => {
                Timestamp::from_micros(1_700_000_000_000_001)
            }
            _ => usual,
        };
    }

    fn spawn(&mut self) -> Command {
        let count = self.below(6);
        Command::Spawn((0..count).map(|_| self.new_job()).collect())
    }

    fn new_job(&mut self) -> NewJob {
        let job_type = self.job_type();
        NewJob {
            id: self.job(),
            unique_type: job_type.as_str() == "unique" || self.below(8) == 0,
            job_type,
            due: self.due(),
            config: self.payload(),
            trace: (self.below(2) == 0).then(|| "00-1-2-01".to_owned()),
            token: self.below(3) as i64 - 1,
        }
    }

    fn claim(&mut self) -> Command {
        let old = self.below(self.claims.len() as u64 + 1) as usize;
        if self.below(4) == 0
            && let Some(old) = self.claims.get(old)
        {
            let mut claim = old.clone();
            claim.repeat = true;
            claim.lease = self.duration();
            return Command::Claim(claim);
        }
        self.seq += 1;
        let quotas = self.some_types().into_iter().map(|job_type| Quota {
            job_type,
            jobs_max: self.below(5) as u32,
        });
        let quotas = quotas.collect();
        let claim = Claim {
            id: ClaimId {
                worker: worker(self.below(WORKERS).into()),
                seq: self.seq,
            },
            repeat: self.below(10) == 0,
            quotas,
            lease: self.duration(),
        };
        self.claims.push(claim.clone());
        Command::Claim(claim)
    }

    fn finish(&mut self, run: Run) -> Finish {
        let outcome = match self.below(6) {
            0 => Outcome::Completed,
            1 => Outcome::Errored {
                error: self.error(),
            },
            2 => Outcome::Rescheduled { due: self.due() },
            3 | 4 => Outcome::Retried {
                delay: self.duration(),
                attempt: 1 + self.below(5) as u32,
                error: self.error(),
            },
            _ => Outcome::Released,
        };
        Finish { run, outcome }
    }

    fn reclaim(&mut self) -> Command {
        let policies = self.some_types().into_iter().map(|job_type| TypePolicy {
            job_type,
            attempts_max: self.limit(),
            crashes_max: self.limit(),
            healthy_after: self.duration(),
        });
        Command::Reclaim(Reclaim {
            policies: policies.collect(),
            jobs_max: self.below(6) as u32,
        })
    }

    /// As if the reply had been lost, at once or long ago.
    fn again(&mut self) -> Command {
        let recent = self.past.len().saturating_sub(6) as u64;
        let from = if self.below(2) == 0 { recent } else { 0 };
        let at = from + self.below(self.past.len() as u64 - from + 1);
        match self.past.get(at as usize) {
            Some(command) => command.clone(),
            None => Command::Find(self.job()),
        }
    }

    fn some_runs(&mut self) -> Vec<Run> {
        let count = self.below(5);
        let runs: BTreeSet<Run> = (0..count).map(|_| self.run()).collect();
        let mut runs: Vec<Run> = runs.into_iter().collect();
        if self.below(2) == 0 {
            runs.reverse();
        }
        runs
    }

    /// One of the last runs, an old one, or one that never was.
    fn run(&mut self) -> Run {
        let len = self.runs.len() as u64;
        let from_end = if self.below(4) == 0 { len } else { len.min(8) };
        let at = len - from_end + self.below(from_end.max(1));
        let known = self.runs.get(at as usize).copied();
        match known {
            Some(run) if self.below(12) != 0 => run,
            _ => Run {
                job: self.job(),
                fence: Fence(self.below(4) as i64),
            },
        }
    }

    fn some_types(&mut self) -> Vec<JobType> {
        let first = self.below(4) as usize;
        let count = self.below(5) as usize;
        let types = (0..count).map(|n| JobType::new(TYPES[(first + n) % TYPES.len()]));
        types.collect()
    }

    fn job_type(&mut self) -> JobType {
        JobType::new(TYPES[self.below(4) as usize])
    }

    fn job(&mut self) -> JobId {
        id((self.oldest + self.below(WINDOW)).into())
    }

    fn due(&mut self) -> Due {
        match self.below(6) {
            0 => Due::In(self.duration()),
            1 => Due::At(Timestamp::MIN),
            2 => Due::At(Timestamp::MAX),
            3 => Due::At(Timestamp::from_micros(
                self.now
                    .as_micros()
                    .saturating_add(self.below(4_000_000) as i64 - 2_000_000),
            )),
            _ => Due::Now,
        }
    }

    fn duration(&mut self) -> Duration {
        match self.below(3) {
            0 => DURATIONS[self.below(8) as usize],
            _ => Duration::from_nanos(self.below(5_000_000_000)),
        }
    }

    fn limit(&mut self) -> Option<u32> {
        match self.below(6) {
            0 => None,
            1 => Some(u32::MAX),
            n => Some(n as u32 - 2),
        }
    }

    fn payload(&mut self) -> Payload {
        let n = self.below(100);
        Payload::from_json(match self.below(4) {
            0 => "null".to_owned(),
            1 => format!(" {{\"b\": {n},\t\"a\": 1.50, \"a\": \"\\u0000\"}} "),
            2 => format!("\"'\\\\ü\u{1f980}{n}\""),
            _ => format!("[{n}]"),
        })
    }

    fn error(&mut self) -> ErrorText {
        ErrorText::new(match self.below(3) {
            0 => "",
            1 => "it broke\nin two: \0 'quoted' \\x00",
            _ => "ü\u{1f980}",
        })
    }

    fn below(&mut self, end: u64) -> u64 {
        self.draw() % end
    }

    /// Steele, Lea and Flood: SplitMix64.
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
