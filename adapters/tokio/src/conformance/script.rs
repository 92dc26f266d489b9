//! Long sequences of random commands, the same for every store.

use std::time::Duration;

use job_engine::draw::Purpose;
use job_engine::store::{Claim, Command, Finish, Heartbeat, NewJob, Outcome, Reclaim, TypePolicy};
use job_engine::{ClaimId, Due, Entropy, Payload, Run};

use super::bench::{Bench, error, policy, run, worker};
use crate::store::Store;

const STEPS: usize = 250;
const JOBS: u64 = 12;
const TYPES: [&str; 3] = ["mail", "sms", "fax"];

/// With seed 1.
pub async fn a_long_random_script_has_the_same_replies_as_the_model<S: Store>(
    bench: &mut Bench<S>,
) {
    play(bench, 1).await;
}

/// With seed 2.
pub async fn a_second_random_script_has_the_same_replies_as_the_model<S: Store>(
    bench: &mut Bench<S>,
) {
    play(bench, 2).await;
}

/// With seed 3.
pub async fn a_third_random_script_has_the_same_replies_as_the_model<S: Store>(
    bench: &mut Bench<S>,
) {
    play(bench, 3).await;
}

async fn play<S: Store>(bench: &mut Bench<S>, seed: u8) {
    let mut dice = Dice {
        entropy: Entropy::from_seed([seed; 32]),
        throws: 0,
    };
    for _ in 0..STEPS {
        let command = dice.command(bench);
        // The bench compares the replies.
        let _ = bench.execute(command).await;
        bench.agree().await;
        let step = [0, 0, 1_000, 5_000_000, 30_000_000][dice.throw(5) as usize];
        bench.pass(Duration::from_micros(step));
    }
}

struct Dice {
    entropy: Entropy,
    throws: u64,
}

impl Dice {
    /// A number below `sides`.
    fn throw(&mut self, sides: u64) -> u64 {
        self.throws += 1;
        self.entropy.draw(Purpose::SpawnToken(self.throws)) % sides
    }

    fn job_type(&mut self) -> &'static str {
        TYPES[self.throw(3) as usize]
    }

    fn due<S: Store>(&mut self, bench: &Bench<S>) -> Due {
        let wait = Duration::from_secs(self.throw(40));
        match self.throw(3) {
            0 => Due::Now,
            1 => Due::In(wait),
            _ => Due::At(bench.now.saturating_add(wait)),
        }
    }

    /// Often the current run of a job, sometimes an old one or none at all.
    fn run<S: Store>(&mut self, bench: &Bench<S>) -> Run {
        let n = u128::from(self.throw(JOBS + 1));
        let live = bench
            .model
            .find(super::bench::job(n))
            .and_then(|job| job.live.as_ref());
        let fence = live.map_or(1, |live| live.fence.0);
        run(n, fence - i64::from(self.throw(4) == 0))
    }

    /// Different runs.
    fn runs<S: Store>(&mut self, bench: &Bench<S>) -> Vec<Run> {
        let len = self.throw(5);
        let mut runs: Vec<Run> = (0..len).map(|_| self.run(bench)).collect();
        runs.sort_by_key(|run| (run.job, run.fence));
        runs.dedup_by_key(|run| run.job);
        runs
    }

    fn outcome<S: Store>(&mut self, bench: &Bench<S>) -> Outcome {
        match self.throw(6) {
            0 => Outcome::Completed,
            1 => Outcome::Errored {
                error: error("given up"),
            },
            2 => Outcome::Released,
            3 => Outcome::Rescheduled {
                due: self.due(bench),
            },
            _ => Outcome::Retried {
                delay: Duration::from_secs(self.throw(60)),
                attempt: 1 + self.throw(5) as u32,
                error: error("no route"),
            },
        }
    }

    fn command<S: Store>(&mut self, bench: &mut Bench<S>) -> Command {
        match self.throw(16) {
            0..3 => {
                let len = self.throw(4);
                let jobs = (0..len).map(|_| self.new_job(bench));
                Command::Spawn(jobs.collect())
            }
            3..8 => Command::Claim(self.claim(bench)),
            8..11 => {
                let runs = self.runs(bench).into_iter();
                let finishes = runs.map(|run| Finish {
                    run,
                    outcome: self.outcome(bench),
                });
                Command::Finish(finishes.collect())
            }
            11..13 => Command::Heartbeat(Heartbeat {
                runs: self.runs(bench),
                lease: Duration::from_secs(10 + self.throw(50)),
            }),
            13 => Command::Checkpoint(job_engine::store::Checkpoint {
                run: self.run(bench),
                state: Payload::from_json(self.throw(1_000).to_string()),
            }),
            _ => {
                let policies = TYPES.iter().map(|name| TypePolicy {
                    attempts_max: Some(1 + self.throw(6) as u32),
                    crashes_max: Some(1 + self.throw(4) as u32),
                    healthy_after: Duration::from_secs(self.throw(100)),
                    ..policy(name)
                });
                let policies: Vec<_> = policies.collect();
                let keep = self.throw(4) as usize;
                Command::Reclaim(Reclaim {
                    policies: policies.into_iter().take(keep).collect(),
                    jobs_max: self.throw(4) as u32,
                })
            }
        }
    }

    /// Ids and tokens come again, so that there are duplicates and repeats.
    fn new_job<S: Store>(&mut self, bench: &mut Bench<S>) -> NewJob {
        let n = u128::from(self.throw(JOBS));
        let job_type = self.job_type();
        NewJob {
            unique_type: self.throw(6) == 0,
            due: self.due(bench),
            token: self.throw(2).cast_signed(),
            ..bench.new_job(n, job_type)
        }
    }

    fn claim<S: Store>(&mut self, bench: &mut Bench<S>) -> Claim {
        let first = self.throw(3) as usize;
        let names = TYPES
            .iter()
            .cycle()
            .skip(first)
            .take(self.throw(4) as usize);
        let quotas: Vec<(&str, u32)> = names.map(|name| (*name, self.throw(3) as u32)).collect();
        let claim = bench.new_claim(&quotas);
        Claim {
            // A number that was used before, sometimes.
            id: ClaimId {
                worker: worker(u128::from(self.throw(2))),
                seq: claim.id.seq - self.throw(3).cast_signed(),
            },
            repeat: self.throw(4) == 0,
            lease: Duration::from_secs(5 + self.throw(40)),
            ..claim
        }
    }
}
