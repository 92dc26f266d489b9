//! The store under test and the model, side by side.

use std::collections::BTreeSet;
use std::time::Duration;

use job_engine::history::{HistoryPage, Live};
use job_engine::store::{
    Checkpoint, Claim, Claimed, ClaimedJob, Finish, Heartbeat, History, NewJob, Outcome, Quota,
    Reclaim, Reclaimed, Spawned, TypePolicy, Written,
};
use job_engine::{
    ClaimId, Command, Fence, JobId, JobType, ModelStore, Rejection, Reply, Run, Snapshot,
    StoreError, Timestamp, WorkerId,
};

use super::fixtures::{ALICE, LEASE, MAIL, START, json, new_job, policy, quota};
use crate::store::Store;

/// Gives every command to a store and to the model, and insists that both
/// answer the same.
///
/// The time stands still until the case moves it.
#[derive(Debug)]
pub struct Harness<S> {
    store: S,
    model: ModelStore,
    now: Timestamp,
    /// Every id that a command has named.
    ids: BTreeSet<JobId>,
    claims: i64,
}

impl<S: Store> Harness<S> {
    pub(crate) fn new(store: S) -> Self {
        Self {
            store,
            model: ModelStore::new(),
            now: START,
            ids: BTreeSet::new(),
            claims: 0,
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }

    pub(crate) fn advance(&mut self, by: Duration) {
        self.now = self.now.saturating_add(by);
    }

    pub(crate) fn set_now(&mut self, now: Timestamp) {
        self.now = now;
    }

    /// The store alone, for what the model cannot follow.
    pub(crate) fn store(&self) -> &S {
        &self.store
    }

    /// Carries out a command that must succeed.
    pub(crate) async fn run(&mut self, command: Command) -> Reply {
        let expected = self.model.apply(self.now, &command);
        let expected = expected.unwrap_or_else(|rejection| panic!("{rejection}"));
        let reply = self.store.execute(Some(self.now), &command).await;
        assert_eq!(reply.as_ref(), Ok(&expected), "the reply to {command:?}");
        self.note_ids(&command);
        expected
    }

    /// Carries out a command that must be refused, and leave all as it was.
    pub(crate) async fn refuse(&mut self, command: Command) -> Rejection {
        let rejection = self.refused(command).await;
        self.compare_jobs().await;
        rejection
    }

    /// The same for many commands, which leave all as it was together.
    pub(crate) async fn refuse_all(&mut self, commands: Vec<Command>) -> Vec<Rejection> {
        let mut rejections = Vec::with_capacity(commands.len());
        for command in commands {
            rejections.push(self.refused(command).await);
        }
        self.compare_jobs().await;
        rejections
    }

    async fn refused(&mut self, command: Command) -> Rejection {
        let expected = self.model.apply(self.now, &command);
        let rejection = expected.expect_err("a case that expects a rejection");
        let reply = self.store.execute(Some(self.now), &command).await;
        assert_eq!(reply, Err(StoreError::Rejected(rejection.clone())));
        self.note_ids(&command);
        rejection
    }

    /// The run of job `n` that has this fence; one that there never was, if none has.
    pub(crate) fn nth(&self, n: u128, fence: i64) -> Run {
        let (job, fence) = (super::fixtures::id(n), Fence(fence));
        let found = self.model.find(job);
        let current = found.and_then(|found| found.live.as_ref()?.run(job));
        let ended = found.into_iter().flat_map(|found| &found.runs);
        let mut runs = ended.map(|record| record.run(job)).chain(current);
        let claim = ClaimId {
            worker: ALICE,
            seq: 0,
        };
        let never = Run {
            fence,
            ..current.unwrap_or(Run { job, fence, claim })
        };
        runs.find(|run| run.fence == fence).unwrap_or(never)
    }

    /// Compares every job that a command has named with the model's, and its
    /// history with its state.
    pub(crate) async fn compare_jobs(&mut self) {
        for job in self.ids.clone() {
            if let Some(found) = self.find(job).await {
                assert_eq!(found.fold(), Some(found.state()), "the history of {job}");
            }
        }
    }

    fn note_ids(&mut self, command: &Command) {
        match command {
            Command::Spawn(jobs) => self.ids.extend(jobs.iter().map(|job| job.id)),
            Command::Finish(finishes) => self.ids.extend(finishes.iter().map(|f| f.run.job)),
            Command::Heartbeat(heartbeat) => {
                self.ids.extend(heartbeat.runs.iter().map(|run| run.job));
            }
            Command::Checkpoint(checkpoint) => self.ids.extend([checkpoint.run.job]),
            Command::Hold(run) => self.ids.extend([run.job]),
            Command::Claim(_) | Command::Reclaim(_) | Command::Find(_) | Command::History(_) => {}
        }
    }
}

/// The commands, in the words of the cases.
impl<S: Store> Harness<S> {
    pub(crate) async fn spawn(&mut self, jobs: Vec<NewJob>) -> Vec<Spawned> {
        match self.run(Command::Spawn(jobs)).await {
            Reply::Spawned(spawned) => spawned,
            reply => unexpected(&reply),
        }
    }

    pub(crate) async fn spawn_one(&mut self, job: NewJob) -> Spawned {
        self.spawn(vec![job]).await[0]
    }

    /// A claim that has not been sent yet.
    pub(crate) fn new_claim(&mut self, quotas: Vec<Quota>) -> Claim {
        self.claims += 1;
        Claim {
            id: ClaimId {
                worker: ALICE,
                seq: self.claims,
            },
            repeat: false,
            quotas,
            lease: LEASE,
        }
    }

    pub(crate) async fn claim(&mut self, claim: &Claim) -> Claimed {
        match self.run(Command::Claim(claim.clone())).await {
            Reply::Claimed(claimed) => claimed,
            reply => unexpected(&reply),
        }
    }

    /// The same claim again, as after a lost reply.
    pub(crate) async fn repeat_claim(&mut self, claim: &Claim) -> Claimed {
        self.claim(&Claim {
            repeat: true,
            ..claim.clone()
        })
        .await
    }

    /// Claims up to `jobs_max` jobs of a type.
    pub(crate) async fn claim_type(&mut self, job_type: JobType, jobs_max: u32) -> Claimed {
        let claim = self.new_claim(vec![quota(job_type, jobs_max)]);
        self.claim(&claim).await
    }

    /// Claims one job of type mail, which must be due.
    pub(crate) async fn claim_one(&mut self) -> ClaimedJob {
        self.claim_one_as(ALICE).await
    }

    pub(crate) async fn claim_one_as(&mut self, worker: WorkerId) -> ClaimedJob {
        let mut claim = self.new_claim(vec![quota(MAIL, 1)]);
        claim.id.worker = worker;
        let mut jobs = self.claim(&claim).await.jobs;
        assert_eq!(jobs.len(), 1, "a job is due");
        jobs.remove(0)
    }

    /// Spawns job `n` and claims it.
    pub(crate) async fn start(&mut self, n: u128) -> Run {
        self.spawn_one(new_job(n)).await;
        let run = self.claim_one().await.run;
        assert_eq!((run.job, run.fence), (super::fixtures::id(n), Fence(1)));
        run
    }

    /// Spawns jobs `1..=last` and claims them.
    pub(crate) async fn start_all(&mut self, last: u128) -> Vec<Run> {
        self.spawn(super::fixtures::new_jobs(last)).await;
        let claimed = self.claim_type(MAIL, 1_000).await;
        claimed.jobs.iter().map(|job| job.run).collect()
    }

    pub(crate) async fn finish_all(&mut self, finishes: Vec<Finish>) -> Vec<Written> {
        match self.run(Command::Finish(finishes)).await {
            Reply::Finished(written) => written,
            reply => unexpected(&reply),
        }
    }

    pub(crate) async fn finish(&mut self, run: Run, outcome: Outcome) -> Written {
        self.finish_all(vec![Finish { run, outcome }]).await[0]
    }

    pub(crate) async fn heartbeat_for(&mut self, runs: Vec<Run>, lease: Duration) -> Vec<Written> {
        match self
            .run(Command::Heartbeat(Heartbeat { runs, lease }))
            .await
        {
            Reply::Heartbeat(written) => written,
            reply => unexpected(&reply),
        }
    }

    pub(crate) async fn heartbeat(&mut self, run: Run) -> Written {
        self.heartbeat_for(vec![run], LEASE).await[0]
    }

    pub(crate) async fn checkpoint(&mut self, run: Run, state: &str) -> Written {
        let state = json(state);
        match self
            .run(Command::Checkpoint(Checkpoint { run, state }))
            .await
        {
            Reply::Checkpointed(written) => written,
            reply => unexpected(&reply),
        }
    }

    pub(crate) async fn hold(&mut self, run: Run) -> Written {
        match self.run(Command::Hold(run)).await {
            Reply::Held(written) => written,
            reply => unexpected(&reply),
        }
    }

    pub(crate) async fn reclaim_with(
        &mut self,
        policies: Vec<TypePolicy>,
        jobs_max: u32,
    ) -> Vec<Reclaimed> {
        match self
            .run(Command::Reclaim(Reclaim { policies, jobs_max }))
            .await
        {
            Reply::Reclaimed(reclaimed) => reclaimed,
            reply => unexpected(&reply),
        }
    }

    /// Takes back the jobs of type mail, without limits.
    pub(crate) async fn reclaim(&mut self) -> Vec<Reclaimed> {
        self.reclaim_with(vec![policy(MAIL)], 1_000).await
    }

    pub(crate) async fn find(&mut self, job: JobId) -> Option<Snapshot> {
        match self.run(Command::Find(job)).await {
            Reply::Found(found) => found.map(|found| *found),
            reply => unexpected(&reply),
        }
    }

    pub(crate) async fn history(&mut self, n: u128, before: i64) -> HistoryPage {
        let history = History {
            job: super::fixtures::id(n),
            before: Fence(before),
        };
        match self.run(Command::History(history)).await {
            Reply::History(page) => page,
            reply => unexpected(&reply),
        }
    }

    /// A job that exists.
    pub(crate) async fn job(&mut self, n: u128) -> Snapshot {
        let found = self.find(super::fixtures::id(n)).await;
        found.expect("the job exists")
    }

    /// The live part of a job that is not over.
    pub(crate) async fn live(&mut self, n: u128) -> Live {
        self.job(n).await.live.expect("the job is not over")
    }
}

fn unexpected(reply: &Reply) -> ! {
    panic!("a reply to another command: {reply:?}")
}
