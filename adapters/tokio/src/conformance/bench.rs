//! A store and the model, side by side.

use std::time::Duration;

use job_engine::store::{
    Checkpoint, Claim, Claimed, ClaimedJob, Command, Finish, Heartbeat, NewJob, Outcome, Quota,
    Reclaim, Reclaimed, Reply, Spawned, TypePolicy, Written,
};
use job_engine::{
    ClaimId, Due, Fence, JobId, JobType, ModelStore, Payload, Run, Snapshot, StoreError, Timestamp,
    WorkerId,
};
use uuid::Uuid;

use crate::store::Store;

/// How long the leases of a bench last.
pub const LEASE: Duration = Duration::from_secs(60);

/// Sends every command to the store under test and to the model.
#[derive(Debug)]
pub struct Bench<S> {
    /// The store under test.
    pub store: S,
    /// What every command is to do.
    pub model: ModelStore,
    /// The time that both are given.
    pub now: Timestamp,
    tokens: i64,
    claims: i64,
}

/// The n-th job.
pub fn job(n: u128) -> JobId {
    JobId(Uuid::from_u128(n))
}

/// The n-th worker.
pub fn worker(n: u128) -> WorkerId {
    WorkerId(Uuid::from_u128(n << 64))
}

/// A job type.
pub fn of(name: &str) -> JobType {
    name.into()
}

/// So many seconds.
pub fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A policy without limits.
pub fn policy(job_type: &str) -> TypePolicy {
    TypePolicy {
        job_type: of(job_type),
        attempts_max: None,
        crashes_max: None,
        healthy_after: Duration::MAX,
    }
}

/// A text as an error.
pub fn error(text: &str) -> job_engine::ErrorText {
    job_engine::ErrorText::new(text)
}

impl<S: Store> Bench<S> {
    /// A bench for an empty store.
    pub fn new(store: S) -> Self {
        Self {
            store,
            model: ModelStore::new(),
            now: Timestamp::from_micros(1_700_000_000_123_456),
            tokens: 0,
            claims: 0,
        }
    }

    /// Lets time pass.
    pub fn pass(&mut self, duration: Duration) {
        self.now = self.now.saturating_add(duration);
    }

    /// Sends a command to both, and compares what comes of it.
    ///
    /// # Panics
    ///
    /// If the store does not answer as the model does.
    pub async fn execute(&mut self, command: Command) -> Result<Reply, StoreError> {
        let expected = self.model.apply(self.now, &command);
        let expected = expected.map_err(StoreError::from);
        let actual = self.store.execute(Some(self.now), &command).await;
        assert_eq!(actual, expected, "the store, the model; for {command:?}");
        actual
    }

    /// Compares every job with its history.
    ///
    /// # Panics
    ///
    /// If the store does not have what the model has.
    pub async fn agree(&mut self) {
        let ids: Vec<JobId> = self.model.jobs().map(|job| job.id).collect();
        for id in ids {
            let found = self.find(id).await.expect("the model has the job");
            assert_eq!(found.fold(), Some(found.state()), "{found:?}");
        }
    }

    /// A job to spawn, due now.
    pub fn new_job(&mut self, n: u128, job_type: &str) -> NewJob {
        self.tokens += 1;
        NewJob {
            id: job(n),
            job_type: of(job_type),
            unique_type: false,
            due: Due::Now,
            config: Payload::from_json(format!("{{\"n\": {n}}}")),
            trace: None,
            token: self.tokens,
        }
    }

    /// Spawns the n-th job, due now.
    pub async fn spawn(&mut self, n: u128, job_type: &str) -> Spawned {
        self.spawn_due(n, job_type, Due::Now).await
    }

    /// Spawns the n-th job.
    pub async fn spawn_due(&mut self, n: u128, job_type: &str, due: Due) -> Spawned {
        let new = NewJob {
            due,
            ..self.new_job(n, job_type)
        };
        self.spawn_all(vec![new]).await[0]
    }

    /// Spawns a batch.
    pub async fn spawn_all(&mut self, jobs: Vec<NewJob>) -> Vec<Spawned> {
        match self.execute(Command::Spawn(jobs)).await {
            Ok(Reply::Spawned(spawned)) => spawned,
            other => panic!("{other:?}"),
        }
    }

    /// A claim by worker 1, with an id of its own.
    pub fn new_claim(&mut self, quotas: &[(&str, u32)]) -> Claim {
        self.claims += 1;
        let quota = |(job_type, jobs_max): &(&str, u32)| Quota {
            job_type: of(job_type),
            jobs_max: *jobs_max,
        };
        Claim {
            id: ClaimId {
                worker: worker(1),
                seq: self.claims,
            },
            repeat: false,
            quotas: quotas.iter().map(quota).collect(),
            lease: LEASE,
        }
    }

    /// Carries out a claim.
    pub async fn send_claim(&mut self, claim: Claim) -> Claimed {
        match self.execute(Command::Claim(claim)).await {
            Ok(Reply::Claimed(claimed)) => claimed,
            other => panic!("{other:?}"),
        }
    }

    /// Claims up to `jobs_max` jobs of a type.
    pub async fn claim(&mut self, job_type: &str, jobs_max: u32) -> Vec<ClaimedJob> {
        let claim = self.new_claim(&[(job_type, jobs_max)]);
        self.send_claim(claim).await.jobs
    }

    /// Spawns the n-th job and claims it.
    pub async fn start(&mut self, n: u128, job_type: &str) -> Run {
        assert_eq!(self.spawn(n, job_type).await, Spawned::Created);
        self.claim_one(n, job_type).await
    }

    /// Claims one job, which must be the n-th.
    pub async fn claim_one(&mut self, n: u128, job_type: &str) -> Run {
        let jobs = self.claim(job_type, 1).await;
        assert_eq!(jobs.len(), 1, "job {n} is due");
        assert_eq!(jobs[0].run.job, job(n));
        jobs[0].run
    }

    /// Ends one run.
    pub async fn finish(&mut self, run: Run, outcome: Outcome) -> Written {
        self.finish_all(vec![Finish { run, outcome }]).await[0]
    }

    /// Ends a batch of runs.
    pub async fn finish_all(&mut self, finishes: Vec<Finish>) -> Vec<Written> {
        match self.execute(Command::Finish(finishes)).await {
            Ok(Reply::Finished(written)) => written,
            other => panic!("{other:?}"),
        }
    }

    /// Renews leases.
    pub async fn heartbeat(&mut self, runs: &[Run]) -> Vec<Written> {
        let heartbeat = Heartbeat {
            runs: runs.to_vec(),
            lease: LEASE,
        };
        match self.execute(Command::Heartbeat(heartbeat)).await {
            Ok(Reply::Heartbeat(written)) => written,
            other => panic!("{other:?}"),
        }
    }

    /// Keeps an execution state.
    pub async fn checkpoint(&mut self, run: Run, json: &str) -> Written {
        let checkpoint = Checkpoint {
            run,
            state: Payload::from_json(json),
        };
        match self.execute(Command::Checkpoint(checkpoint)).await {
            Ok(Reply::Checkpointed(written)) => written,
            other => panic!("{other:?}"),
        }
    }

    /// Takes back lost jobs.
    pub async fn reclaim(&mut self, policies: Vec<TypePolicy>, jobs_max: u32) -> Vec<Reclaimed> {
        let reclaim = Reclaim { policies, jobs_max };
        match self.execute(Command::Reclaim(reclaim)).await {
            Ok(Reply::Reclaimed(reclaimed)) => reclaimed,
            other => panic!("{other:?}"),
        }
    }

    /// Reads a job.
    pub async fn find(&mut self, id: JobId) -> Option<Snapshot> {
        match self.execute(Command::Find(id)).await {
            Ok(Reply::Found(found)) => found.map(|found| *found),
            other => panic!("{other:?}"),
        }
    }

    /// Reads the n-th job, which exists.
    pub async fn read(&mut self, n: u128) -> Snapshot {
        self.find(job(n)).await.expect("the job was spawned")
    }
}

/// The run of the n-th job at a fence.
pub fn run(n: u128, fence: i64) -> Run {
    Run {
        job: job(n),
        fence: Fence(fence),
    }
}
