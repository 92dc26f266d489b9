//! Runs jobs as their scenario says, on the driver of production.

use std::future::Future;
use std::panic::resume_unwind;
use std::time::Duration;

use job_engine::planted::{Bug, planted};
use job_engine::store::{Checkpoint, ClaimedJob, Finish, Outcome, Written};
use job_engine::worker::Ended;
use job_engine::{Command, Due, ErrorText, Payload, Reply, Run, StoreError};
use job_tokio::fault::fault_point;
use job_tokio::{RunJob, StopSignal};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::process::Process;
use super::rpc::Body;
use super::spawner::child_token;
use super::world::World;
use crate::event::Event;
use crate::scenario::{EndSpec, JobSpec, OnStop, RunSpec, Topic, job_key, job_type};

/// How long the transaction that ends a run may take, as in the public crate.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a checkpoint whose outcome is unknown is made, as there.
const CALLS_MAX: u32 = 3;
/// How long a runner takes at most to react to a stop, in milliseconds.
const REACTION_MS_MAX: u64 = 30;
/// The pause before a process starts again that a runner took along.
const KILLED_BACK_MS: u64 = 1_000;

/// See the module.
pub(super) struct Runners {
    process: Process,
}

impl Runners {
    pub(super) fn new(process: Process) -> Self {
        Self { process }
    }
}

impl RunJob for Runners {
    fn run_job(
        &self,
        job: ClaimedJob,
        signal: StopSignal,
    ) -> impl Future<Output = Ended> + Send + use<> {
        let process = self.process.clone();
        async move {
            match run(&process, &job, &signal).await {
                Ok(ended) => ended,
                Err(Panic(text)) => resume_unwind(Box::new(text)),
            }
        }
    }
}

/// What a runner says that gives its job up.
const GIVEN_UP: &str = "given up, as the scenario says";

/// A runner panics.
struct Panic(&'static str);

async fn run(process: &Process, job: &ClaimedJob, signal: &StopSignal) -> Result<Ended, Panic> {
    let run = job.run;
    let scenario = process.world().scenario();
    let Some(job_spec) = scenario.job(job_key(run.job)) else {
        return Ok(failed("the scenario does not know the job"));
    };
    let spec = job_spec.run(run.fence.0);
    if spec.end == EndSpec::Undecodable {
        let error = ErrorText::new("the config cannot be decoded");
        return Ok(Ended::Undecodable(error));
    }
    let at_work = AtWork {
        process,
        run,
        spec: &spec,
        signal,
        began: Instant::now(),
    };
    if let Some(ended) = at_work.work().await {
        return Ok(ended);
    }
    conclude(&at_work, job_spec).await
}

struct AtWork<'a> {
    process: &'a Process,
    run: Run,
    spec: &'a RunSpec,
    signal: &'a StopSignal,
    began: Instant,
}

impl AtWork<'_> {
    /// Works to the end; says how it ended if it was stopped before.
    async fn work(&self) -> Option<Ended> {
        if let Some(checkpoint_ms) = self.spec.checkpoint_ms
            && checkpoint_ms <= self.spec.work_ms
        {
            let stopped = self.work_until(self.after_ms(checkpoint_ms)).await;
            if stopped.is_some() {
                return stopped;
            }
            self.checkpoint().await;
        }
        let mut until = self.after_ms(self.spec.work_ms);
        if self.spec.end == EndSpec::Hang {
            let world = self.process.world();
            let calm_us = world.scenario().calm_from_ms * 1_000;
            let left_us = calm_us.saturating_sub(world.now_us());
            until = until.max(Instant::now() + Duration::from_micros(left_us));
        }
        self.work_until(until).await
    }

    fn after_ms(&self, ms: u64) -> Instant {
        self.began + Duration::from_millis(ms)
    }

    async fn work_until(&self, until: Instant) -> Option<Ended> {
        let ended = match self.spec.on_stop {
            OnStop::Yield => Ended::Rescheduled(Due::Now),
            OnStop::Fail => failed("stopped"),
            // A thread of a host cannot be blocked: time would stand still.
            OnStop::Ignore | OnStop::Block => {
                sleep_until(until).await;
                return None;
            }
        };
        tokio::select! {
            biased;
            _ = self.signal.stopped() => {
                let key = [u64::from(job_key(self.run.job)), self.run.fence.0.cast_unsigned(), 0];
                let draws = self.process.world().scenario().draws();
                let reaction = draws.within(Topic::Reaction, key, (0, REACTION_MS_MAX));
                sleep(Duration::from_millis(reaction)).await;
                Some(ended)
            }
            () = sleep_until(until) => None,
        }
    }

    async fn checkpoint(&self) {
        let run = self.run;
        let command = Command::Checkpoint(Checkpoint {
            run,
            state: Payload::from_json(run.fence.to_string()),
        });
        let mut written = None;
        for _ in 0..CALLS_MAX {
            match self.process.client.execute_in_run(&command).await {
                Ok(Reply::Checkpointed(answer)) => written = Some(answer),
                Err(StoreError::Unknown(_)) => continue,
                Ok(_) | Err(_) => {}
            }
            break;
        }
        let who = self.process.who();
        let event = Event::Kept { who, run, written };
        self.process.world().record_by(who, &event);
    }
}

async fn conclude(at_work: &AtWork<'_>, job: &JobSpec) -> Result<Ended, Panic> {
    let process = at_work.process;
    let world = process.world();
    Ok(match at_work.spec.end {
        EndSpec::Complete | EndSpec::Hang => Ended::Completed,
        EndSpec::Fail | EndSpec::Undecodable => failed("as the scenario says"),
        EndSpec::Panic => return Err(Panic("as the scenario says")),
        EndSpec::RescheduleMs(ms) => Ended::Rescheduled(Due::In(Duration::from_millis(ms))),
        EndSpec::SnoozeMs(ms) => Ended::Snoozed(Due::In(Duration::from_millis(ms))),
        EndSpec::SnoozeTxMs(ms) => {
            let due = Due::In(Duration::from_millis(ms));
            settle(process, at_work.run, Outcome::Snoozed { due }, job).await
        }
        EndSpec::GiveUp => Ended::Errored(ErrorText::new(GIVEN_UP)),
        EndSpec::GiveUpTx => {
            let error = ErrorText::new(GIVEN_UP);
            settle(process, at_work.run, Outcome::Errored { error }, job).await
        }
        EndSpec::CompleteTx => settle(process, at_work.run, Outcome::Completed, job).await,
        EndSpec::RescheduleTxMs(ms) => {
            let due = Due::In(Duration::from_millis(ms));
            settle(process, at_work.run, Outcome::Rescheduled { due }, job).await
        }
        EndSpec::Kill if world.is_calm() => Ended::Completed,
        EndSpec::Kill => {
            world.die(process.who(), KILLED_BACK_MS);
            std::future::pending().await
        }
    })
}

/// Ends the run in a transaction, as the public crate does.
async fn settle(process: &Process, run: Run, outcome: Outcome, job: &JobSpec) -> Ended {
    let (world, who) = (process.world(), process.who());
    let children = match outcome {
        Outcome::Completed => children_of(world, job),
        _ => Vec::new(),
    };
    let jobs = children.iter();
    let new_jobs = jobs.map(|child| child.new_job(child_token(world, child)));
    let settled = Ended::Settled(outcome.clone());
    let finish = Finish { run, outcome };
    let command = Command::Finish(vec![finish.clone()]);
    let body = Body::Commit {
        finish,
        children: new_jobs.collect(),
    };
    world.record_by(who, &Event::Committing { who, run });
    at_fault_point(process, "before_commit").await;
    let commit = timeout(COMMIT_TIMEOUT, process.client.commit(&command, body));
    let result = commit
        .await
        .unwrap_or_else(|_| Err(StoreError::Unknown("no answer".to_owned())));
    match result {
        Ok(Reply::Finished(written))
            if written == [Written::Applied] || planted(Bug::CommitWithStaleLease) =>
        {
            at_fault_point(process, "after_commit").await;
            for child in &children {
                process.wake(&job_type(child.job_type));
            }
            settled
        }
        Ok(_) => Ended::LeaseLost,
        Err(StoreError::Unknown(_)) if planted(Bug::UnknownCommitIsSettled) => settled,
        Err(StoreError::Unknown(error)) => failed(&format!(
            "the commit of the transaction is unknown: {error}"
        )),
        Err(error) => failed(&format!("the transaction was rolled back: {error}")),
    }
}

fn children_of(world: &World, parent: &JobSpec) -> Vec<JobSpec> {
    let jobs = world.scenario().jobs.iter();
    let children = jobs.filter(|job| job.parent == Some(parent.key));
    children.cloned().collect()
}

async fn at_fault_point(process: &Process, point: &'static str) {
    if let Some(id) = process.id {
        fault_point(id, point).await;
    }
}

fn failed(text: &str) -> Ended {
    Ended::Failed(ErrorText::new(text))
}
