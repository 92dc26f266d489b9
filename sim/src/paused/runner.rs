//! Runners that do what the scenario says.

use std::error::Error;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use job::{
    CurrentJob, Job, JobCompletion, JobError, JobInitializer, JobRunner, JobSpawner, JobType,
    RetrySettings,
};
use job_engine::store::Written;
use job_engine::{Fence, JobId, Run};
use job_tokio::to_datetime;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::backend::{Simulated, SimulatedTransaction};
use super::state::World;
use crate::event::{Event, Who};
use crate::scenario::{
    DueSpec, EndSpec, JobSpec, OnStop, RetrySpec, RunSpec, START, Topic, job_key, job_type,
};

/// What a planned panic says.
pub(super) const PANIC: &str = "as planned";
/// What it says that gives its job up.
const GIVEN_UP: &str = "given up, as planned";
/// How long a process that a run takes along is away, in microseconds.
const KILLED_US: u64 = 1_000_000;
/// How long a runner takes to react to a stop, in microseconds.
const REACTION_US: (u64, u64) = (100, 50_000);

/// The spawners of a process, by the place of their type.
pub(super) type Spawners = Arc<OnceLock<Vec<JobSpawner<u32, Simulated>>>>;

/// A config of a version that this program does not know.
struct Unknown;

impl<'de> Deserialize<'de> for Unknown {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(D::Error::custom(PANIC))
    }
}

/// Makes the runners of one type in one process. The config of a job is its
/// key.
pub(super) struct Kind {
    pub(super) world: World,
    pub(super) who: Who,
    /// The place of the type.
    pub(super) place: u32,
    pub(super) retry: RetrySpec,
    pub(super) spawners: Spawners,
}

impl JobInitializer<Simulated> for Kind {
    type Config = u32;

    fn job_type(&self) -> JobType {
        job_type(self.place).into()
    }

    fn retry_on_error_settings(&self) -> RetrySettings {
        self.retry.settings()
    }

    fn crashes_max(&self) -> Option<u32> {
        self.retry.crashes_max
    }

    fn undecodable_max(&self) -> Duration {
        Duration::from_millis(self.retry.undecodable_max_ms)
    }

    fn init(
        &self,
        job: &Job,
        _: JobSpawner<u32, Simulated>,
    ) -> Result<Box<dyn JobRunner<Simulated>>, Box<dyn Error>> {
        let key: u32 = job.config()?;
        let id = JobId::from(job.id);
        debug_assert_eq!(key, job_key(id), "the audit has compared them");
        let run = self.world.state().run(self.who, id);
        let spec = self.world.scenario().job(key);
        let spec = spec
            .ok_or("only jobs of the scenario are spawned")?
            .run(run.fence.0);
        if spec.end == EndSpec::Undecodable {
            job.config::<Unknown>()?;
        }
        Ok(Box::new(Runner {
            world: self.world.clone(),
            who: self.who,
            run,
            spec,
            spawners: Arc::clone(&self.spawners),
        }))
    }
}

/// Performs one run.
struct Runner {
    world: World,
    who: Who,
    run: Run,
    spec: RunSpec,
    spawners: Spawners,
}

type Completion = Result<JobCompletion<Simulated>, Box<dyn Error>>;

#[async_trait]
impl JobRunner<Simulated> for Runner {
    async fn run(&self, mut current: CurrentJob<Simulated>) -> Completion {
        let begin_us = self.world.now_us();
        let checkpoint_ms = self.spec.checkpoint_ms;
        let mut stopped = false;
        if let Some(ms) = checkpoint_ms.filter(|ms| *ms < self.spec.work_ms) {
            stopped = self.work_until(&mut current, begin_us + ms * 1_000).await;
            if !stopped {
                self.keep(&mut current).await;
            }
        }
        let calm_from_us = self.world.calm_from_us();
        let end_us = match self.spec.end {
            EndSpec::Hang if begin_us < calm_from_us => calm_from_us + 1_000,
            _ => begin_us + self.spec.work_ms * 1_000,
        };
        if stopped || self.work_until(&mut current, end_us).await {
            return match self.spec.on_stop {
                OnStop::Fail => Err("asked to stop".into()),
                _ => Ok(JobCompletion::RescheduleNow),
            };
        }
        self.end(current).await
    }
}

impl Runner {
    fn key(&self) -> u32 {
        job_key(self.run.job)
    }

    /// Works until then, or until it is asked to stop and does: then it returns
    /// true.
    async fn work_until(&self, current: &mut CurrentJob<Simulated>, at_us: u64) -> bool {
        if matches!(self.spec.on_stop, OnStop::Ignore | OnStop::Block) {
            self.world.sleep_until(at_us).await;
            return false;
        }
        tokio::select! {
            biased;
            _ = current.shutdown_requested() => {}
            () = self.world.sleep_until(at_us) => return false,
        }
        let key = [
            u64::from(self.who.worker),
            u64::from(self.key()),
            self.run.fence.0.cast_unsigned(),
        ];
        let draws = self.world.scenario().draws();
        let reacts_us = draws.within(Topic::Reaction, key, REACTION_US);
        tokio::time::sleep(Duration::from_micros(reacts_us)).await;
        true
    }

    async fn keep(&self, current: &mut CurrentJob<Simulated>) {
        let Fence(fence) = self.run.fence;
        let kept = current.update_execution_state((self.key(), fence)).await;
        let written = match kept {
            Ok(()) => Some(Written::Applied),
            Err(JobError::LeaseLost(_)) => Some(Written::Stale),
            Err(_) => None,
        };
        let (who, run) = (self.who, self.run);
        let mut state = self.world.state();
        if state.is_up(who) {
            state.observe(&Event::Kept { who, run, written });
        }
    }

    async fn end(&self, current: CurrentJob<Simulated>) -> Completion {
        let end = match self.spec.end {
            EndSpec::Kill if self.world.state().is_calm() => EndSpec::Complete,
            end => end,
        };
        let after = Duration::from_millis;
        match end {
            EndSpec::Complete | EndSpec::Hang => Ok(JobCompletion::Complete),
            EndSpec::Fail => Err(PANIC.into()),
            EndSpec::Panic => std::panic::resume_unwind(Box::new(PANIC)),
            EndSpec::Undecodable => Err("it could be made".into()),
            EndSpec::RescheduleMs(ms) => Ok(JobCompletion::RescheduleIn(after(ms))),
            EndSpec::RescheduleTxMs(ms) => {
                let transaction = current.pool().begin();
                Ok(JobCompletion::RescheduleInWithTx(transaction, after(ms)))
            }
            EndSpec::SnoozeMs(ms) => Ok(JobCompletion::snooze_in(after(ms))),
            EndSpec::SnoozeTxMs(ms) => {
                let transaction = current.pool().begin();
                Ok(JobCompletion::snooze_in(after(ms)).in_tx(transaction))
            }
            EndSpec::GiveUp => Ok(JobCompletion::fail(GIVEN_UP)),
            EndSpec::GiveUpTx => {
                let transaction = current.pool().begin();
                Ok(JobCompletion::fail(GIVEN_UP).in_tx(transaction))
            }
            EndSpec::CompleteTx => {
                // One of two takes the row of its run first.
                let mut transaction = match self.key() % 2 {
                    0 => current.begin().await?,
                    _ => current.pool().begin(),
                };
                self.spawn_children(&mut transaction).await?;
                Ok(JobCompletion::CompleteWithTx(transaction))
            }
            EndSpec::Kill => {
                self.world.state().crash(self.who, Some(KILLED_US));
                std::future::pending().await
            }
        }
    }

    async fn spawn_children(&self, transaction: &mut SimulatedTransaction) -> Result<(), JobError> {
        let jobs = self.world.scenario().jobs.iter();
        for child in jobs.filter(|job| job.parent == Some(self.key())) {
            let spawners = self.spawners.get().expect("they are made before polling");
            let spawner = &spawners[child.job_type as usize];
            let id = job::JobId::from(child.id());
            match due_at(&self.world, child) {
                None => spawner.spawn_in_op(transaction, id, child.key).await?,
                Some(at) => {
                    spawner
                        .spawn_at_in_op(transaction, id, child.key, at)
                        .await?
                }
            };
        }
        Ok(())
    }
}

/// When a job that is spawned now is due; `None` for at once.
pub(super) fn due_at(world: &World, job: &JobSpec) -> Option<DateTime<Utc>> {
    let at = match job.due {
        DueSpec::Now => return None,
        DueSpec::InMs(ms) => {
            let store_now = world.state().store_now();
            store_now.saturating_add(Duration::from_millis(ms))
        }
        DueSpec::AtMs(ms) => START.saturating_add(Duration::from_millis(ms)),
    };
    Some(to_datetime(at))
}
