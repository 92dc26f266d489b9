//! What the store is asked to do.
//!
//! What a command needs is prepared before its clock starts, and what it leaves is
//! removed after that has stopped: so each iteration finds the same.

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use job_engine::store::{Checkpoint, Claim, Finish, Heartbeat, NewJob, Outcome, Quota, Reclaim};
use job_engine::store::{Claimed, TypePolicy};
use job_engine::{ClaimId, Command, Due, JobId, JobType, Payload, Reply, Run, WorkerId};
use job_tokio::Store;
use tokio::runtime::Runtime;
use uuid::Uuid;

const JOB_TYPE: JobType = JobType::new("bench");
const LEASE: Duration = Duration::from_secs(300);
/// A few, and as many as a worker runs at once by default.
const BATCHES: [usize; 2] = [1, 50];

/// Benchmarks all commands.
pub fn bench(criterion: &mut Criterion, runtime: &Runtime, name: &str, store: &impl Store) {
    let mut bench = Bench {
        store,
        runtime,
        worker: WorkerId(Uuid::now_v7()),
        claims: 0,
    };
    let mut group = criterion.benchmark_group(name);
    // A commit on a disk takes its time; the default is a hundred samples of it.
    group.sample_size(20);
    for batch in BATCHES {
        group.throughput(Throughput::Elements(batch as u64));
        let mut function = |name: &str, once: &mut dyn FnMut() -> Duration| {
            group.bench_function(format!("{name} {batch}"), |bencher| {
                bencher.iter_custom(|iterations| (0..iterations).map(|_| once()).sum());
            });
        };
        function("spawn", &mut || bench.spawn(batch));
        function("claim", &mut || bench.claim(batch));
        function("finish", &mut || bench.finish(batch));
        function("heartbeat", &mut || bench.heartbeat(batch));
    }
    group.throughput(Throughput::Elements(1));
    let mut function = |name: &str, once: &mut dyn FnMut() -> Duration| {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| (0..iterations).map(|_| once()).sum());
        });
    };
    function("checkpoint", &mut || bench.checkpoint());
    function("find", &mut || bench.find());
    function("claim of nothing", &mut || bench.claim_of_nothing());
    function("reclaim of nothing", &mut || bench.reclaim_of_nothing());
    group.finish();
}

struct Bench<'a, S> {
    store: &'a S,
    runtime: &'a Runtime,
    worker: WorkerId,
    claims: i64,
}

impl<S: Store> Bench<'_, S> {
    fn spawn(&mut self, batch: usize) -> Duration {
        let (took, _) = self.timed(&spawn(batch));
        self.finish_all(batch);
        took
    }

    fn claim(&mut self, batch: usize) -> Duration {
        self.execute(&spawn(batch));
        let claim = self.next_claim(batch);
        let (took, reply) = self.timed(&claim);
        self.execute(&finish(&runs(&reply, batch)));
        took
    }

    fn finish(&mut self, batch: usize) -> Duration {
        let runs = self.started(batch);
        self.timed(&finish(&runs)).0
    }

    fn heartbeat(&mut self, batch: usize) -> Duration {
        let runs = self.started(batch);
        let heartbeat = Heartbeat {
            runs: runs.clone(),
            lease: LEASE,
        };
        let (took, _) = self.timed(&Command::Heartbeat(heartbeat));
        self.execute(&finish(&runs));
        took
    }

    fn checkpoint(&mut self) -> Duration {
        let runs = self.started(1);
        let checkpoint = Checkpoint {
            run: runs[0],
            state: Payload::from_json(r#"{"done":17}"#),
        };
        let (took, _) = self.timed(&Command::Checkpoint(checkpoint));
        self.execute(&finish(&runs));
        took
    }

    fn find(&mut self) -> Duration {
        let runs = self.started(1);
        self.execute(&finish(&runs));
        self.timed(&Command::Find(runs[0].job)).0
    }

    fn claim_of_nothing(&mut self) -> Duration {
        let claim = self.next_claim(BATCHES[1]);
        self.timed(&claim).0
    }

    fn reclaim_of_nothing(&mut self) -> Duration {
        let reclaim = Reclaim {
            policies: vec![TypePolicy {
                job_type: JOB_TYPE,
                attempts_max: None,
                crashes_max: None,
                healthy_after: LEASE,
            }],
            jobs_max: 100,
        };
        self.timed(&Command::Reclaim(reclaim)).0
    }

    /// Runs that go on.
    fn started(&mut self, batch: usize) -> Vec<Run> {
        self.execute(&spawn(batch));
        self.claimed(batch)
    }

    fn finish_all(&mut self, batch: usize) {
        let runs = self.claimed(batch);
        self.execute(&finish(&runs));
    }

    fn claimed(&mut self, batch: usize) -> Vec<Run> {
        let claim = self.next_claim(batch);
        runs(&self.execute(&claim), batch)
    }

    fn next_claim(&mut self, batch: usize) -> Command {
        self.claims += 1;
        Command::Claim(Claim {
            id: ClaimId {
                worker: self.worker,
                seq: self.claims,
            },
            repeat: false,
            quotas: vec![Quota {
                job_type: JOB_TYPE,
                jobs_max: batch as u32,
            }],
            lease: LEASE,
        })
    }

    fn execute(&self, command: &Command) -> Reply {
        let reply = self.runtime.block_on(self.store.execute(None, command));
        reply.unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    fn timed(&self, command: &Command) -> (Duration, Reply) {
        let start = Instant::now();
        let reply = self.execute(command);
        (start.elapsed(), reply)
    }
}

fn spawn(batch: usize) -> Command {
    let jobs = (0..batch).map(|_| NewJob {
        id: JobId(Uuid::now_v7()),
        job_type: JOB_TYPE,
        unique_type: false,
        due: Due::Now,
        config: Payload::from_json(r#"{"n":1}"#),
        trace: None,
        token: 0,
    });
    Command::Spawn(jobs.collect())
}

fn finish(runs: &[Run]) -> Command {
    let finishes = runs.iter().map(|run| Finish {
        run: *run,
        outcome: Outcome::Completed,
    });
    Command::Finish(finishes.collect())
}

fn runs(reply: &Reply, batch: usize) -> Vec<Run> {
    let Reply::Claimed(Claimed { jobs, .. }) = reply else {
        panic!("a claim was answered by {reply:?}");
    };
    assert_eq!(jobs.len(), batch, "all jobs that were spawned are due");
    jobs.iter().map(|job| job.run).collect()
}
