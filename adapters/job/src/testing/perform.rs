//! Runners that are performed alone.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use job_engine::store::{Checkpoint, Finish, Outcome, Reclaim, TypePolicy};
use job_engine::worker::{Ended, StopReason};
use job_engine::{Command, Payload, Run};
use job_tokio::clock::Attended;
use job_tokio::{StopSender, StopSignal, to_datetime, to_timestamp};

use serde::Serialize;

use super::TestJobs;
use super::hand::runner_name;
#[cfg(feature = "postgres")]
use crate::Postgres;
use crate::backend::Backend;
use crate::error::JobError;
use crate::registry::{conclude, perform};
use crate::{JobCompletion, JobId, JobInitializer, JobSpawner, JobType};

/// How long a runner that is performed alone holds its job: it is never renewed.
const LEASE: Duration = Duration::from_secs(24 * 3_600);
const IS_DUE: &str = "nobody else takes jobs of this type";

/// How a runner is performed alone; see [`TestJobs::perform_as`]. The default is the
/// first attempt, without an execution state, and the runner may take its time.
#[derive(Clone, Debug)]
#[must_use]
pub struct Performance {
    attempt: u32,
    state: Option<serde_json::Value>,
    /// Why the runner is told to end, and after how long.
    stop: Option<(StopReason, Duration)>,
}

impl Default for Performance {
    fn default() -> Self {
        Self {
            attempt: 1,
            state: None,
            stop: None,
        }
    }
}

impl Performance {
    /// At this attempt, from 1.
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }

    /// With an execution state that an earlier run kept.
    pub fn state(mut self, state: serde_json::Value) -> Self {
        self.state = Some(state);
        self
    }

    /// The service shuts down, and has begun to before the runner starts:
    /// [`CurrentJob::is_shutdown_requested`] from the start.
    ///
    /// [`CurrentJob::is_shutdown_requested`]: crate::CurrentJob::is_shutdown_requested
    pub fn shutdown(self) -> Self {
        self.shutdown_after(Duration::ZERO)
    }

    /// The service begins to shut down after so long, by the clock. So much time passes
    /// while the runner sleeps on the clock or awaits [`CurrentJob::shutdown_requested`];
    /// from then on, another `shutdown_timeout` while it sleeps. It replaces any other end.
    /// Runners that sleep since an earlier [`TestJobs::advance`] do not keep their leases
    /// meanwhile.
    ///
    /// [`CurrentJob::shutdown_requested`]: crate::CurrentJob::shutdown_requested
    pub fn shutdown_after(mut self, duration: Duration) -> Self {
        self.stop = Some((StopReason::Shutdown, duration));
        self
    }

    /// The lease of the run is lost before the runner starts, and it is told so:
    /// [`CurrentJob::is_lease_lost`]. In the store another worker has the job, so that
    /// the run can write nothing.
    ///
    /// [`CurrentJob::is_lease_lost`]: crate::CurrentJob::is_lease_lost
    pub fn lease_lost(self) -> Self {
        self.lease_lost_after(Duration::ZERO)
    }

    /// The lease of the run is lost after so long, by the clock. Time passes as with
    /// [`Performance::shutdown_after`], which this replaces.
    pub fn lease_lost_after(mut self, duration: Duration) -> Self {
        self.stop = Some((StopReason::LeaseLost, duration));
        self
    }
}

impl<B: Backend> TestJobs<B> {
    /// Runs a runner alone: one that this initializer makes for a job with this config.
    /// What it completes with is not carried out, but returned. End a transaction among
    /// it before anything else: one in memory keeps everybody else out.
    ///
    /// The job is no part of what is [seen](TestJobs::seen) and never runs again; jobs that
    /// the runner spawns are like any others. In the store it stays under a type of its
    /// own, completed. If the runner completes
    /// with a transaction, it stays running instead, whatever becomes of the transaction.
    ///
    /// No time passes, unless a [`Performance`] says so.
    ///
    /// # Errors
    ///
    /// [`JobError::InitializerFailed`] and [`JobError::RunnerFailed`] with what went
    /// wrong. [`JobError::SerializeConfig`] if the config has no JSON, or none that could be
    /// read again; [`JobError::UndecodableConfig`] if the initializer cannot decode it. Else
    /// an error of the store.
    pub async fn perform<I: JobInitializer<B>>(
        &mut self,
        initializer: &I,
        config: I::Config,
    ) -> Result<JobCompletion<B>, JobError> {
        self.perform_as(Performance::default(), initializer, config)
            .await
    }

    /// As [`TestJobs::perform`], at a later attempt, with an execution state, or with an
    /// early end: a shutdown, or a lost lease.
    ///
    /// # Errors
    ///
    /// As [`TestJobs::perform`]. [`JobError::LeaseLost`] if the runner completes with a
    /// transaction after its lease was lost: it is rolled back, as it would be by a
    /// service.
    ///
    /// # Panics
    ///
    /// As all that runs jobs, and if the runner sleeps for longer than `shutdown_timeout`
    /// after it was told to end. A service would have aborted it.
    pub async fn perform_as<I: JobInitializer<B>>(
        &mut self,
        performance: Performance,
        initializer: &I,
        config: I::Config,
    ) -> Result<JobCompletion<B>, JobError> {
        let core = Arc::clone(self.jobs().core());
        let (job_type, id) = (initializer.job_type(), JobId::new());
        let alone = self.spawn_alone(id, config).await?;
        let lease = match performance.stop {
            Some((StopReason::LeaseLost, after)) => after,
            Some((StopReason::Shutdown, _)) | None => LEASE,
        };
        let mut claimed = self.claim_one(alone.clone(), lease).await.expect(IS_DUE);
        let run = claimed.run;
        claimed.job_type = job_type.as_engine().clone();
        claimed.attempt = performance.attempt;
        if let Some(state) = performance.state {
            let state = Payload::from_json(state.to_string());
            claimed.state = Some(state.clone());
            let checkpoint = Command::Checkpoint(Checkpoint { run, state });
            self.execute(&checkpoint).await;
        }
        let name = runner_name(&claimed);
        let (stop, signal) = StopSignal::new();
        let work = perform(initializer, &core, claimed, signal, None);
        let mut work = core.clock().attend(work);
        let mut current = run;
        let performed = match performance.stop {
            None => self.watch().await_end(&name, work).await,
            Some((reason, after)) => match self.end_within(after, &name, &mut work, &stop).await {
                Some(performed) => performed,
                None => {
                    if reason == StopReason::LeaseLost {
                        current = self.give_to_another_worker(&alone).await;
                    }
                    stop.stop(reason);
                    self.end_after_stop(&name, &mut work, &stop).await
                }
            },
        };
        let performed = match performed {
            Ok(completion) if completion.is_in_transaction() => {
                if current == run {
                    return Ok(completion);
                }
                let ended = conclude(&core, run, completion);
                let ended = self.watch().await_end("a rollback", ended).await;
                assert_eq!(ended, Ended::LeaseLost, "another worker has the job");
                Err(JobError::LeaseLost(id))
            }
            performed => performed,
        };
        self.end_alone(current).await;
        performed
    }

    /// Nothing is to be left of it but its history.
    async fn end_alone(&self, run: Run) {
        let outcome = Outcome::Completed;
        let finish = Command::Finish(vec![Finish { run, outcome }]);
        self.execute(&finish).await;
    }

    /// Spawns a job of a type for which there is no initializer, so that nobody else ever runs
    /// it. Returns the type.
    async fn spawn_alone<C: Serialize + Send + Sync>(
        &self,
        id: JobId,
        config: C,
    ) -> Result<job_engine::JobType, JobError> {
        let core = self.jobs().core();
        let alone = JobType::from(format!("performed alone {id}"));
        let spawner = JobSpawner::new(Arc::clone(core), alone);
        spawner.spawn(id, config).await?;
        core.record().forget(id.into());
        Ok(spawner.job_type().as_engine().clone())
    }

    /// What a runner comes to before so much time has passed, while it sleeps or awaits
    /// its end; `None` if that is not enough. No time is not enough to begin.
    async fn end_within<F: Future>(
        &self,
        duration: Duration,
        name: &str,
        work: &mut Attended<F>,
        stop: &StopSender,
    ) -> Option<F::Output> {
        if duration.is_zero() {
            return None;
        }
        let waits = |work: &Attended<F>| work.next_wake().is_some() || stop.is_awaited();
        let end = later(self.now(), duration);
        loop {
            let watch = self.watch().moving();
            let ended = watch.end_unless(work, waits);
            if let Some(output) = watch.await_end(name, ended).await {
                return Some(output);
            }
            if self.now() >= end {
                return None;
            }
            let next_wake = self.clock().next_wake();
            let next = next_wake.map_or(end, |at| at.min(end));
            self.clock().set_time(next).await;
        }
    }

    /// What a runner comes to that was told to end.
    async fn end_after_stop<F: Future>(
        &self,
        name: &str,
        work: &mut Attended<F>,
        stop: &StopSender,
    ) -> F::Output {
        let timeout = self.jobs().worker_config(Vec::new()).shutdown_timeout;
        // Without any time it may still end at once.
        let duration = timeout.max(Duration::from_micros(1));
        let ended = self.end_within(duration, name, work, stop).await;
        ended.unwrap_or_else(|| {
            panic!(
                "{name} still sleeps {timeout:?} after it was told to end, of the time of the \
                 clock: a service aborts it then"
            )
        })
    }

    /// Another worker takes the job, whose lease has run out. Returns its run.
    async fn give_to_another_worker(&mut self, job_type: &job_engine::JobType) -> Run {
        let policy = TypePolicy {
            job_type: job_type.clone(),
            attempts_max: None,
            crashes_max: None,
            healthy_after: Duration::MAX,
        };
        let (policies, jobs_max) = (vec![policy], 1);
        let reclaim = Command::Reclaim(Reclaim { policies, jobs_max });
        self.execute(&reclaim).await;
        let claimed = self.claim_one(job_type.clone(), LEASE).await;
        claimed.expect(IS_DUE).run
    }
}

#[cfg(feature = "postgres")]
impl TestJobs<Postgres> {
    /// As [`TestJobs::perform`], in a transaction of the test, which the runner gets when it
    /// first [begins](crate::CurrentJob::begin) one: it sees what the test has written there,
    /// and what it writes comes back with what it completes with, to be looked at and rolled
    /// back.
    ///
    /// If the runner does not complete with it, it is rolled back when this returns: after an
    /// error, and after an end without a transaction. Only a runner that commits it by
    /// itself keeps what it has written, which it should not do: in production that can happen
    /// twice.
    ///
    /// Only on Postgres: on SQLite and in memory an open transaction keeps everybody else from
    /// writing, a service included.
    ///
    /// # Errors
    ///
    /// As [`TestJobs::perform`].
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use job::testing::TestJobs;
    /// # use job::{JobCompletion, JobError, Postgres, Task, TaskContext, TaskInitializer, TaskEnd, TaskResult};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Serialize, Deserialize)]
    /// # struct Ship { order: i64 }
    /// # impl Task for Ship {
    /// #     const TYPE: &'static str = "ship";
    /// #     type State = ();
    /// #     async fn run(self, _: TaskContext) -> TaskResult { Ok(TaskEnd::Complete) }
    /// # }
    /// # async fn example(mut test: TestJobs<Postgres>, pool: sqlx::PgPool) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut tx = pool.begin().await?;
    /// sqlx::query("INSERT INTO orders (id) VALUES (7)").execute(&mut *tx).await?;
    /// let ship = TaskInitializer::<Ship>::new(());
    /// let end = test.perform_in(tx, &ship, Ship { order: 7 }).await?;
    /// let JobCompletion::CompleteWithTx(mut tx) = end else { panic!("{end:?}") };
    /// let shipped: bool = sqlx::query_scalar("SELECT shipped FROM orders WHERE id = 7")
    ///     .fetch_one(&mut *tx)
    ///     .await?;
    /// assert!(shipped);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn perform_in<I: JobInitializer<Postgres>>(
        &mut self,
        tx: sqlx::PgTransaction<'static>,
        initializer: &I,
        config: I::Config,
    ) -> Result<JobCompletion<Postgres>, JobError> {
        let alone = self.spawn_alone(JobId::new(), config).await?;
        let mut claimed = self.claim_one(alone, LEASE).await.expect(IS_DUE);
        let run = claimed.run;
        claimed.job_type = initializer.job_type().as_engine().clone();
        let name = runner_name(&claimed);
        let core = Arc::clone(self.jobs().core());
        let (_stop, signal) = StopSignal::new();
        let work = perform(initializer, &core, claimed, signal, Some(Box::new(tx)));
        let work = core.clock().attend(work);
        let performed = self.watch().await_end(&name, work).await;
        if !performed
            .as_ref()
            .is_ok_and(JobCompletion::is_in_transaction)
        {
            self.end_alone(run).await;
        }
        performed
    }
}

fn later(now: DateTime<Utc>, duration: Duration) -> DateTime<Utc> {
    to_datetime(to_timestamp(now).saturating_add(duration))
}
