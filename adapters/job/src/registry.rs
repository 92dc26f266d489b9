//! The initializers of a service, and how they run a claimed job.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use job_engine::planted::{Bug, planted};
use job_engine::store::{ClaimedJob, Finish, Outcome, Written};
use job_engine::worker::{Ended, TypeConfig};
use job_engine::{Command, ErrorText, Reply, Run};
use job_tokio::fault::fault_point;
use job_tokio::guarded::{GuardedSpan, guarded, traced};
use job_tokio::{RunJob, StopSignal};
use tokio::time::timeout;
use tracing::{Span, field, info_span};

use crate::backend::{Backend, CallerTransaction};
use crate::completion::{End, Within};
use crate::core::Core;
use crate::error::{JobError, chain};
use crate::{
    CurrentJob, Job, JobCompletion, JobInitializer, JobRunner, JobSpawner, JobType, RetrySettings,
    trace,
};

/// How long the commit of a transaction that a run completes with may take.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);

/// The initializers, by type.
pub(crate) struct Registry<B: Backend> {
    types: BTreeMap<JobType, Registered<B>>,
}

struct Registered<B: Backend> {
    /// It is not to be replaced, nor to replace another.
    only: bool,
    retry: RetrySettings,
    crashes_max: Option<u32>,
    undecodable_max: Duration,
    init: Box<dyn InitRunner<B>>,
}

/// An initializer without the type of its config.
pub(crate) trait InitRunner<B: Backend>: Send + Sync {
    /// Errors of the user need not be Send, so they come as texts.
    fn init_runner(
        &self,
        core: &Arc<Core<B>>,
        job: &Job,
    ) -> Result<Box<dyn JobRunner<B>>, JobError>;
}

impl<B: Backend, I: JobInitializer<B>> InitRunner<B> for I {
    fn init_runner(
        &self,
        core: &Arc<Core<B>>,
        job: &Job,
    ) -> Result<Box<dyn JobRunner<B>>, JobError> {
        let spawner = JobSpawner::new(Arc::clone(core), job.job_type.clone());
        let made = catch_unwind(AssertUnwindSafe(|| self.init(job, spawner)));
        let text = match made {
            Ok(Ok(runner)) => return Ok(runner),
            Ok(Err(error)) => Ok(chain(&*error)),
            Err(panic) => Err(panic),
        };
        let job_type = job.job_type.clone();
        match (job.undecodable(), text) {
            (Some(why), text) => {
                // Whatever it is that was thrown, it is not to be thrown again by its drop.
                std::mem::forget(text);
                let source = why.to_owned().into();
                Err(JobError::UndecodableConfig { job_type, source })
            }
            (None, Ok(text)) => {
                let source = text.into();
                Err(JobError::InitializerFailed { job_type, source })
            }
            (None, Err(panic)) => resume_unwind(panic),
        }
    }
}

impl<B: Backend> Registry<B> {
    pub(crate) fn new() -> Self {
        Self {
            types: BTreeMap::new(),
        }
    }

    /// Adds an initializer and tells its type. One that had the type before is
    /// replaced, unless one of them is to be the only one.
    #[track_caller]
    pub(crate) fn add<I: JobInitializer<B>>(&mut self, initializer: I, only: bool) -> JobType {
        let job_type = initializer.job_type();
        let before = self.types.get(&job_type);
        assert!(
            before.is_none_or(|before| !only && !before.only),
            "something is registered for the job type `{job_type}` already: each task and each \
             function needs a type of its own"
        );
        let registered = Registered {
            only,
            retry: initializer.retry_on_error_settings(),
            crashes_max: initializer.crashes_max(),
            undecodable_max: initializer.undecodable_max(),
            init: Box::new(initializer),
        };
        let replaced = self.types.insert(job_type.clone(), registered);
        if replaced.is_some() {
            tracing::warn!(%job_type, "a second initializer of this type replaces the first");
        }
        job_type
    }

    /// The types as the engine wants them.
    pub(crate) fn type_configs(&self) -> Vec<TypeConfig> {
        let types = self.types.iter();
        types
            .map(|(job_type, registered)| TypeConfig {
                job_type: job_type.as_engine().clone(),
                retry: registered.retry.clone(),
                crashes_max: registered.crashes_max,
                undecodable_max: registered.undecodable_max,
            })
            .collect()
    }
}

/// Runs claimed jobs by the initializers of a registry.
pub(crate) struct Runners<B: Backend> {
    inner: Arc<Inner<B>>,
}

struct Inner<B: Backend> {
    core: Arc<Core<B>>,
    registry: Registry<B>,
}

impl<B: Backend> Runners<B> {
    pub(crate) fn new(core: Arc<Core<B>>, registry: Registry<B>) -> Self {
        Self {
            inner: Arc::new(Inner { core, registry }),
        }
    }
}

impl<B: Backend> RunJob for Runners<B> {
    fn run_job(
        &self,
        job: ClaimedJob,
        signal: StopSignal,
    ) -> impl Future<Output = Ended> + Send + use<B> {
        let inner = Arc::clone(&self.inner);
        // Made within the run, as is whatever may panic.
        async move {
            let span = GuardedSpan::new(|| inner.span(&job));
            traced(span, || inner.run(job, signal)).await
        }
    }
}

impl<B: Backend> Inner<B> {
    fn span(&self, job: &ClaimedJob) -> Span {
        let span = info_span!(
            parent: None,
            "job.execute_job",
            job_id = %job.run.job,
            job_type = %job.job_type,
            attempt = job.attempt,
            poller_id = %self.core.worker(),
            conclusion = field::Empty,
            error = field::Empty,
            error.message = field::Empty,
            error.level = field::Empty,
        );
        if !span.is_disabled() {
            let now = self.core.clock().timestamp();
            let age = now.saturating_since(job.spawned_at);
            let relation = self.core.run_traces().of_run(job.run.fence, age);
            // By itself, so that the span is not lost with it.
            guarded(|| trace::relate(&span, job.trace.as_deref(), relation));
        }
        span
    }

    async fn run(&self, job: ClaimedJob, signal: StopSignal) -> Ended {
        let (run, attempt) = (job.run, job.attempt);
        let job_type = JobType::from(job.job_type.clone());
        let (retry, result) = match self.registry.types.get(&job_type) {
            Some(registered) => {
                let result = perform(&*registered.init, &self.core, job, signal, None).await;
                (registered.retry.clone(), result)
            }
            None => {
                let error = JobError::NoInitializer(job_type);
                (RetrySettings::default(), Err(error))
            }
        };
        match result {
            Ok(completion) => conclude(&self.core, run, completion).await,
            Err(error @ JobError::UndecodableConfig { .. }) => {
                let message = error.to_string();
                Span::current()
                    .record("conclusion", "Undecodable")
                    .record("error", true)
                    .record("error.message", &message)
                    .record("error.level", "WARN");
                Ended::Undecodable(ErrorText::new(&message))
            }
            Err(error) => {
                let message = match error {
                    // The history is that of the job: it says the rest.
                    JobError::RunnerFailed { source, .. } => source.to_string(),
                    error => error.to_string(),
                };
                record_failure("Error", level(&retry, attempt), &message);
                failed(&message)
            }
        }
    }
}

/// What becomes of a run that has come to this end: what it completes with in a
/// transaction is recorded and committed with it.
pub(crate) async fn conclude<B: Backend>(
    core: &Core<B>,
    run: Run,
    completion: JobCompletion<B>,
) -> Ended {
    let name = completion.name();
    let (end, within) = completion.apart();
    if let End::Fail(reason) = &end {
        record_failure(name, "ERROR", reason);
    } else {
        guarded(|| {
            Span::current().record("conclusion", name);
        });
    }
    // Boxed, so that runs which end without a transaction need no room for one.
    match within {
        None => end.ended(),
        Some(Within::Tx(tx)) => Box::pin(settle(core, run, end.outcome(), tx)).await,
        #[cfg(feature = "es-entity")]
        Some(Within::Op(op)) => Box::pin(settle(core, run, end.outcome(), op)).await,
    }
}

/// Records the end of the run in the caller's transaction and commits it,
/// unless the lease is lost: then what the caller wrote must not stand.
async fn settle<B: Backend>(
    core: &Core<B>,
    run: Run,
    outcome: Outcome,
    mut transaction: impl CallerTransaction<B>,
) -> Ended {
    let settled = Ended::Settled(outcome.clone());
    let command = Command::Finish(vec![Finish { run, outcome }]);
    match core.execute_in(&mut transaction, &command).await {
        Ok(Reply::Finished(written))
            if written == [Written::Applied] || planted(Bug::CommitWithStaleLease) =>
        {
            // If the commit may have landed all the same, the engine finds
            // out: it records a failure of this very run, which the store
            // refuses if the run is over.
            fault_point(core.worker(), "before_commit").await;
            match timeout(COMMIT_TIMEOUT, transaction.commit()).await {
                Ok(Ok(())) => {
                    fault_point(core.worker(), "after_commit").await;
                    settled
                }
                Ok(Err(_)) | Err(_) if planted(Bug::UnknownCommitIsSettled) => settled,
                Ok(Err(error)) => failed(&chain(&error)),
                Err(_) => failed("the commit of the runner's transaction took too long"),
            }
        }
        Ok(_) => {
            transaction.rollback().await;
            Ended::LeaseLost
        }
        Err(error) => {
            transaction.rollback().await;
            failed(&format!(
                "the end of the run could not be recorded in the runner's transaction: {error}"
            ))
        }
    }
}

/// Makes the runner of a claimed job, and lets it run. The transaction is the one that it
/// gets when it first begins one, if it is not to be a new one.
pub(crate) async fn perform<B: Backend>(
    init: &(impl InitRunner<B> + ?Sized),
    core: &Arc<Core<B>>,
    job: ClaimedJob,
    signal: StopSignal,
    transaction: Option<Box<B::Transaction>>,
) -> Result<JobCompletion<B>, JobError> {
    let job_type = JobType::from(job.job_type.clone());
    let seen = Job::from_claim(&job, core.clock().timestamp());
    let runner = init.init_runner(core, &seen)?;
    let current = CurrentJob::new(Arc::clone(core), job, signal.clone(), transaction);
    let result = runner.run(current).await;
    let result = result.map_err(|error| JobError::RunnerFailed {
        job_type,
        source: chain(&*error).into(),
    });
    // Before its end is recorded, in a transaction of the runner's in particular.
    signal.let_go().await;
    result
}

fn level(retry: &RetrySettings, attempt: u32) -> &'static str {
    let last = retry.n_attempts.is_some_and(|cap| attempt >= cap);
    if retry.is_warning(attempt) && !last {
        "WARN"
    } else {
        "ERROR"
    }
}

fn record_failure(conclusion: &str, level: &str, message: &str) {
    guarded(|| {
        Span::current()
            .record("conclusion", conclusion)
            .record("error", true)
            .record("error.message", message)
            .record("error.level", level);
    });
}

fn failed(message: &str) -> Ended {
    Ended::Failed(ErrorText::new(message))
}
