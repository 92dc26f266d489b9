//! The service of a test.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use job_engine::limits::BATCH_LEN_MAX;
use job_engine::store::{Checkpoint, Claim, ClaimedJob, Finish, Outcome, Quota, Reclaim};
use job_engine::worker::{TypeConfig, WorkerConfig};
use job_engine::{ClaimId, Command, Entropy, Payload, Reply, Timestamp};
use job_tokio::{ClockController, ClockHandle, StopSignal, to_datetime, to_timestamp};

use super::Seen;
use super::hand::{Books, Hand, runner_name};
use super::watch::Watch;
use crate::backend::{AtomicWrite, Backend};
use crate::error::JobError;
use crate::registry::{Runners, perform};
use crate::{
    Job, JobCompletion, JobId, JobInitializer, JobSpawner, JobSvcConfig, JobSvcConfigBuilder,
    JobType, Jobs, Memory,
};

/// When the clock of a test starts: a Monday, 2001-01-01 00:00:00 UTC.
const START: DateTime<Utc> = DateTime::from_timestamp(978_307_200, 0).expect("it is in range");

/// How long a run may take, in real time, by default. Longer than one needs that does
/// not wait for anybody, shorter than anyone watches a test hang.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a runner that is performed alone holds its job: it is never renewed.
const LEASE: Duration = Duration::from_secs(24 * 3_600);
const STORE_FAILED: &str = "the store of the test failed";

/// A service of which the jobs run when a test says so, and on a clock that it moves.
///
/// The clock stands still at 2001-01-01 00:00:00 UTC, a Monday, until
/// [`TestJobs::advance`] moves it. See [the module](super) for an example.
///
/// If the future of a call that runs jobs is dropped, the worker has died in the middle
/// of a run: its job comes back, one attempt later, once its lease has run out.
///
/// # Panics
///
/// What runs jobs panics
/// - if the store fails;
/// - if a runner, or the store, takes longer than [`TestJobs::with_patience`] says; the
///   message tells who sleeps until when on the clock;
/// - if one job has run 10,000 times: most likely it reschedules itself for ever.
pub struct TestJobs<B: Backend = Memory> {
    jobs: Jobs<B>,
    controller: ClockController,
    /// Once jobs are run, there are no more to register.
    runners: Option<Runners<B>>,
    types: Vec<TypeConfig>,
    seed: [u8; 32],
    /// So many workers have been made.
    workers: u64,
    books: Books,
    patience: Duration,
    /// That of the tables, if it was made for this.
    #[cfg(feature = "postgres")]
    pub(super) schema: Option<String>,
}

/// How a runner is performed alone; see [`TestJobs::perform_as`]. The default is the
/// first attempt, without an execution state.
#[derive(Clone, Debug)]
#[must_use]
pub struct Performance {
    attempt: u32,
    state: Option<serde_json::Value>,
}

impl Default for Performance {
    fn default() -> Self {
        Self {
            attempt: 1,
            state: None,
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
}

impl TestJobs<Memory> {
    /// A service in memory, which needs no database and shares nothing.
    pub async fn memory() -> Self {
        // For the same ids, the same jitter.
        let config = JobSvcConfig::memory().seed([0; 32]);
        Self::open(config).await.expect("memory is always there")
    }
}

impl<B: Backend> TestJobs<B> {
    /// A service with any configuration, on a clock of its own: the clock of the
    /// configuration is replaced. So two of them need two databases, schemas or files.
    ///
    /// # Errors
    ///
    /// [`JobError::Config`] if the configuration contradicts itself, or another
    /// artificial clock is in use on the same tables
    /// ([`JobSvcConfigBuilder::clock`]); else as [`Jobs::init`].
    pub async fn open(config: JobSvcConfigBuilder<B>) -> Result<Self, JobError> {
        let (clock, controller) = ClockHandle::manual_at(START);
        // What waits here has a patience of its own.
        controller.set_patience(None);
        let config = config.clock(clock).build().map_err(JobError::Config)?;
        let seed = config.seed;
        let jobs = Jobs::init(config).await?;
        jobs.core().record().begin();
        Ok(Self {
            controller,
            runners: None,
            types: Vec::new(),
            seed: match seed {
                Some(seed) => seed,
                None => crate::service::seed_of_the_system()?,
            },
            workers: 0,
            books: Books::default(),
            patience: PATIENCE,
            #[cfg(feature = "postgres")]
            schema: None,
            jobs,
        })
    }

    /// Registers an initializer and returns a spawner for jobs of its type.
    ///
    /// # Panics
    ///
    /// After jobs were run or lost: register all before.
    pub fn add_initializer<I: JobInitializer<B>>(
        &mut self,
        initializer: I,
    ) -> JobSpawner<I::Config, B> {
        self.jobs.add_initializer(initializer)
    }

    /// How long a run, or a call of the store, may take in real time. Default 10 s.
    ///
    /// A runner that sleeps on the clock waits for somebody to move it, and a test that
    /// waits for the runner would hang.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The service itself: its pool, its clock, any of its jobs. Do not let it poll.
    pub fn jobs(&self) -> &Jobs<B> {
        &self.jobs
    }

    /// What the clock shows.
    pub fn now(&self) -> DateTime<Utc> {
        self.controller.now()
    }

    /// What moves the clock. It runs no jobs, as [`TestJobs::advance`] does.
    pub fn clock(&self) -> &ClockController {
        &self.controller
    }

    /// Runs all jobs that are due, and those that come about, until none is due. Lost
    /// jobs whose leases have run out come back. Returns how many runs ended.
    ///
    /// One job at a time: of a type the one that is due longest, and types take turns,
    /// the first by name first.
    pub async fn drain(&mut self) -> usize {
        self.books.runs.clear();
        self.work(usize::MAX).await
    }

    /// Runs one job that is due: of the first type by name that has one, the one that is
    /// due longest. Returns whether there was one.
    pub async fn run_one(&mut self) -> bool {
        self.books.runs.clear();
        self.work(1).await == 1
    }

    /// Lets time pass, and runs each job when it is due: first what is due now, last
    /// what is due in the end. Tasks that sleep on the clock wake at their times, and
    /// what they spawn runs then. Returns how many runs ended.
    pub async fn advance(&mut self, duration: Duration) -> usize {
        self.books.runs.clear();
        let end = self.timestamp().saturating_add(duration);
        let mut runs = 0;
        loop {
            runs += self.work(usize::MAX).await;
            let now = self.timestamp();
            if now >= end {
                return runs;
            }
            // Whoever is about to sleep on the clock does so.
            self.controller.advance(Duration::ZERO).await;
            let books = &self.books;
            let leases = books.leased.values().filter(|at| **at > now);
            let due = books.next_due.values().chain(leases).copied();
            let wake = self.controller.next_wake().map(to_timestamp);
            let next = due.chain(wake).min().unwrap_or(end);
            self.controller.set_time(to_datetime(next.min(end))).await;
        }
    }

    /// Lets a worker take a job that is due, as [`TestJobs::run_one`] would, and die with
    /// it before it runs. The job comes back, one attempt later, once its lease has run
    /// out: [`JobPollerConfig::job_lost_interval`] from now. Returns it; `None` if none
    /// is due.
    ///
    /// [`JobPollerConfig::job_lost_interval`]: crate::JobPollerConfig::job_lost_interval
    pub async fn lose_one(&mut self) -> Option<JobId> {
        let config = self.worker_config();
        let policies: Vec<_> = config.types.iter().map(TypeConfig::policy).collect();
        if !policies.is_empty() {
            // What was lost before may be lost again.
            let jobs_max = BATCH_LEN_MAX as u32;
            let reclaim = Command::Reclaim(Reclaim { policies, jobs_max });
            self.execute(&reclaim).await;
        }
        let now = self.timestamp();
        for of_type in config.types {
            if let Some(job) = self.claim_one(of_type.job_type, config.lease).await {
                let lease_ends = now.saturating_add(config.lease);
                self.books.leased.insert(job.run, lease_ends);
                return Some(job.run.job.into());
            }
        }
        None
    }

    /// Runs a runner alone: one that this initializer makes for a job with this config.
    /// What it completes with is not carried out, but returned. End a transaction among
    /// it before anything else: one in memory keeps everybody else out.
    ///
    /// # Errors
    ///
    /// [`JobError::InitializerFailed`] and [`JobError::RunnerFailed`] with what went
    /// wrong.
    pub async fn perform<I: JobInitializer<B>>(
        &mut self,
        initializer: &I,
        config: I::Config,
    ) -> Result<JobCompletion<B>, JobError> {
        self.perform_as(Performance::default(), initializer, config)
            .await
    }

    /// As [`TestJobs::perform`], at a later attempt or with an execution state.
    ///
    /// # Errors
    ///
    /// As [`TestJobs::perform`].
    pub async fn perform_as<I: JobInitializer<B>>(
        &mut self,
        performance: Performance,
        initializer: &I,
        config: I::Config,
    ) -> Result<JobCompletion<B>, JobError> {
        let core = Arc::clone(self.jobs.core());
        let job_type = initializer.job_type();
        let id = JobId::new();
        // No initializer has this type, so nobody else ever runs the job.
        let alone = JobType::from(format!("performed alone {id}"));
        let spawner = JobSpawner::new(Arc::clone(&core), alone);
        spawner.spawn(id, config).await?;
        core.record().forget(id.into());
        let claimed = self
            .claim_one(spawner.job_type().as_engine().clone(), LEASE)
            .await;
        let mut claimed = claimed.expect("it is due");
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
        let performed = perform(initializer, &core, claimed, StopSignal::never());
        let performed = self.watch().await_end(&name, performed).await;
        use JobCompletion as C;
        if matches!(
            performed,
            Err(_) | Ok(C::Complete | C::RescheduleNow | C::RescheduleIn(_) | C::RescheduleAt(_))
        ) {
            // Nothing is to be left of it but its history.
            let outcome = Outcome::Completed;
            self.execute(&Command::Finish(vec![Finish { run, outcome }]))
                .await;
        }
        performed
    }

    /// The jobs as they are now, one after the other.
    pub async fn seen(&self) -> Seen {
        let mut jobs = Vec::new();
        for id in self.jobs.core().record().ids() {
            match self.execute(&Command::Find(id)).await {
                Reply::Found(found) => jobs.extend(found.as_deref().map(Job::from_snapshot)),
                other => panic!("{STORE_FAILED}: {other:?}"),
            }
        }
        Seen::new(jobs)
    }

    /// The jobs as a transaction sees them that is still open.
    pub async fn seen_in(&self, op: &mut (impl AtomicWrite<B> + ?Sized)) -> Seen {
        let core = self.jobs.core();
        let mut jobs = Vec::new();
        for id in core.record().ids() {
            match core.execute_in(op, &Command::Find(id)).await {
                Ok(Reply::Found(found)) => {
                    jobs.extend(found.as_deref().map(Job::from_snapshot));
                }
                other => panic!("{STORE_FAILED}: {other:?}"),
            }
        }
        Seen::new(jobs)
    }

    /// Lets a worker work of which nothing is left afterwards.
    async fn work(&mut self, runs_max: usize) -> usize {
        let (config, entropy) = (self.worker_config(), self.entropy());
        let runners = self.runners.as_ref();
        let runners = runners.expect("they are there with the config");
        let watch = Watch::new(self.patience, &self.controller);
        let core = self.jobs.core();
        let hand = Hand::new(core, runners, watch, &mut self.books, config, entropy);
        let runs = hand.work(runs_max).await;
        runs.unwrap_or_else(|error| panic!("{STORE_FAILED}: {error}"))
    }

    async fn execute(&self, command: &Command) -> Reply {
        let reply = self.jobs.core().execute(command);
        let reply = self.watch().await_end("a call of the store", reply).await;
        reply.unwrap_or_else(|error| panic!("{STORE_FAILED}: {error}"))
    }

    fn watch(&self) -> Watch<'_> {
        Watch::new(self.patience, &self.controller)
    }

    async fn claim_one(
        &mut self,
        job_type: job_engine::JobType,
        lease: Duration,
    ) -> Option<ClaimedJob> {
        let worker = self.entropy().worker_id();
        let quotas = vec![Quota {
            job_type,
            jobs_max: 1,
        }];
        let claim = Command::Claim(Claim {
            id: ClaimId { worker, seq: 1 },
            repeat: false,
            quotas,
            lease,
        });
        match self.execute(&claim).await {
            Reply::Claimed(mut claimed) => claimed.jobs.pop(),
            other => panic!("{STORE_FAILED}: {other:?}"),
        }
    }

    /// That of a worker of the service. From now on, nothing more can be registered.
    fn worker_config(&mut self) -> WorkerConfig {
        if self.runners.is_none() {
            let registry = self.jobs.take_registry();
            let registry = registry.unwrap_or_else(|error| panic!("{error}"));
            self.types = registry.type_configs();
            self.runners = Some(Runners::new(Arc::clone(self.jobs.core()), registry));
        }
        self.jobs.worker_config(self.types.clone())
    }

    /// That of one more worker.
    fn entropy(&mut self) -> Entropy {
        self.workers += 1;
        let mut seed = self.seed;
        for (byte, of_number) in seed.iter_mut().zip(self.workers.to_le_bytes()) {
            *byte ^= of_number;
        }
        Entropy::from_seed(seed)
    }

    fn timestamp(&self) -> Timestamp {
        self.jobs.clock().timestamp()
    }
}

impl<B: Backend> fmt::Debug for TestJobs<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestJobs")
            .field("now", &self.now())
            .finish_non_exhaustive()
    }
}
