//! The service of a test.

use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use job_engine::limits::BATCH_LEN_MAX;
use job_engine::store::{Claim, ClaimedJob, Quota, Reclaim};
use job_engine::worker::{TypeConfig, WorkerConfig};
use job_engine::{ClaimId, Command, Entropy, Reply, Timestamp};
use job_tokio::{ClockController, ClockHandle, to_datetime, to_timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Seen;
use super::hand::{Books, Call, Hand};
use super::watch::Watch;
use crate::backend::{AtomicWrite, Backend};
use crate::error::JobError;
use crate::registry::Runners;
use crate::{
    Job, JobId, JobInitializer, JobSpawner, JobState, JobSvcConfig, JobSvcConfigBuilder, JobType,
    Jobs, Memory, Spawn, Task, TaskContext, TaskResult, TaskSettings,
};

/// When the clock of a test starts: a Monday, 2001-01-01 00:00:00 UTC.
const START: DateTime<Utc> = DateTime::from_timestamp(978_307_200, 0).expect("it is in range");

/// How long a run may take, in real time, by default. Longer than one needs that does
/// not wait for anybody, shorter than anyone watches a test hang.
const PATIENCE: Duration = Duration::from_secs(10);
const STORE_FAILED: &str = "the store of the test failed";

/// A service of which the jobs run when a test says so, and on a clock that it moves.
///
/// The clock stands still at 2001-01-01 00:00:00 UTC, a Monday, until
/// [`TestJobs::advance`] moves it. See [the module](super) for an example.
///
/// If the future of a call that runs jobs is dropped, the workers have died, in the middle
/// of their runs: the jobs come back, one attempt later, once their leases have run out.
///
/// # Runners that sleep
///
/// A runner may sleep on the clock of the service. In [`TestJobs::advance`], time passes
/// meanwhile: other jobs run when they are due, and the lease of the run is renewed as a
/// worker of a service would renew it, so that a run may sleep for longer than its lease
/// lasts. If a runner still sleeps at the end, its run is not over, and its job is
/// running. It goes on when a later call, of whatever kind, finds that its sleep is over.
///
/// A runner sleeps if it awaits the clock, alone or beside something else, and nothing is
/// busy. One that awaits real work under a limit of the clock is not to be cut off: let it
/// hold a guard of [`ClockHandle::busy`] as long as that lasts.
///
/// # Panics
///
/// What runs jobs panics
/// - if the store fails;
/// - if a runner, or the store, takes longer than [`TestJobs::with_patience`] says; the
///   message tells who sleeps until when on the clock. In a call that does not move it,
///   that is the fate of a runner which begins to sleep;
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
    /// The workers whose runners sleep. Behind a lock, because a runner need not be `Sync`,
    /// and the service is.
    resting: Mutex<Vec<Hand<B>>>,
    patience: Duration,
    /// That of the tables, if it was made for this.
    #[cfg(feature = "postgres")]
    pub(super) schema: Option<String>,
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
            resting: Mutex::default(),
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
    #[track_caller]
    pub fn add_initializer<I: JobInitializer<B>>(
        &mut self,
        initializer: I,
    ) -> JobSpawner<I::Config, B> {
        self.jobs.add_initializer(initializer)
    }

    /// Registers a task that needs no state, as [`Jobs::add_task`] does.
    ///
    /// # Panics
    ///
    /// As [`TestJobs::add_initializer`].
    #[track_caller]
    pub fn add_task<T: Task<State = ()>>(&mut self) -> JobSpawner<T, B> {
        self.jobs.add_task::<T>()
    }

    /// Registers a task with its state, as [`Jobs::add_task_with`] does.
    ///
    /// # Panics
    ///
    /// As [`TestJobs::add_initializer`].
    #[track_caller]
    pub fn add_task_with<T: Task>(&mut self, state: T::State) -> JobSpawner<T, B> {
        self.jobs.add_task_with::<T>(state)
    }

    /// Registers a function, as [`Jobs::add_fn`] does.
    ///
    /// # Panics
    ///
    /// As [`TestJobs::add_initializer`].
    #[track_caller]
    pub fn add_fn<C, F, R>(&mut self, job_type: &'static str, run: F) -> JobSpawner<C, B>
    where
        C: Serialize + DeserializeOwned + Send + Sync + 'static,
        F: Fn(C, TaskContext) -> R + Send + Sync + 'static,
        R: Future<Output = TaskResult> + Send + 'static,
    {
        self.jobs.add_fn(job_type, run)
    }

    /// Registers a function with other settings, as [`Jobs::add_fn_with`] does.
    ///
    /// # Panics
    ///
    /// As [`TestJobs::add_initializer`].
    #[track_caller]
    pub fn add_fn_with<C, F, R>(
        &mut self,
        job_type: &'static str,
        settings: TaskSettings,
        run: F,
    ) -> JobSpawner<C, B>
    where
        C: Serialize + DeserializeOwned + Send + Sync + 'static,
        F: Fn(C, TaskContext) -> R + Send + Sync + 'static,
        R: Future<Output = TaskResult> + Send + 'static,
    {
        self.jobs.add_fn_with(job_type, settings, run)
    }

    /// Makes a job of a task, as [`Jobs::spawn`] does.
    pub fn spawn<T: Task>(&self, task: T) -> Spawn<T, B> {
        self.jobs.spawn(task)
    }

    /// How long a run, or a call of the store, may take in real time. Default 10 s. Time
    /// in which a runner sleeps and [`TestJobs::advance`] moves the clock does not count.
    ///
    /// A runner that sleeps on the clock in another call waits for somebody to move it, and
    /// a test that waits for the runner would hang.
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

    /// What moves the clock. It runs no jobs, as [`TestJobs::advance`] does, and keeps no
    /// leases: as if all workers hung meanwhile.
    pub fn clock(&self) -> &ClockController {
        &self.controller
    }

    /// Runs all jobs that are due, and those that come about, until none is due. Lost
    /// jobs whose leases have run out come back. Returns how many runs ended.
    ///
    /// One job at a time: of a type the one that is due longest, and types take turns,
    /// the first by name first. No time passes: a runner that begins to sleep is waited
    /// for in vain. Those that have slept since an earlier [`TestJobs::advance`] are not.
    pub async fn drain(&mut self) -> usize {
        self.books.runs.clear();
        let mut resting = mem::take(self.resting());
        let mut runs = self.go_on(&mut resting, false).await;
        let types = self.types();
        let mut hand = self.hand(types);
        runs += self.work(&mut hand, false).await;
        *self.resting() = resting;
        runs
    }

    /// Runs one job that is due: the one that is due longest, of types whose jobs are due
    /// since the same time the first by name. Returns whether there was one.
    ///
    /// It looks at the jobs that the spawners of the test have spawned. If none of them is
    /// due, it takes one that came about otherwise, of the first type by name.
    pub async fn run_one(&mut self) -> bool {
        self.books.runs.clear();
        let mut resting = mem::take(self.resting());
        self.go_on(&mut resting, false).await;
        let types = self.types_due_longest().await;
        let mut hand = self.hand(types).runs_max(1);
        let ran = self.work(&mut hand, false).await == 1;
        *self.resting() = resting;
        ran
    }

    /// Lets time pass, and runs each job when it is due: first what is due now, last
    /// what is due in the end. Tasks that sleep on the clock wake at their times, and
    /// what they spawn runs then. Returns how many runs ended.
    ///
    /// Jobs run one at a time, except that others run while a runner sleeps. One that
    /// still sleeps in the end goes on in a later call; its run does not count here.
    pub async fn advance(&mut self, duration: Duration) -> usize {
        self.books.runs.clear();
        let end = self.timestamp().saturating_add(duration);
        // If this call is dropped, so are they.
        let mut resting = mem::take(self.resting());
        let mut runs = self.go_on(&mut resting, true).await;
        loop {
            runs += self.work_while_others_sleep(&mut resting).await;
            let mut ended = 0;
            while ended == 0 {
                if self.timestamp() >= end {
                    *self.resting() = resting;
                    return runs;
                }
                let next = self.next_event().await.min(end);
                let timers = resting.iter().filter_map(Hand::next_timer);
                let timer = timers.min().filter(|timer| *timer < next);
                let at = to_datetime(timer.unwrap_or(next));
                self.controller.set_time(at).await;
                ended = self.go_on(&mut resting, true).await;
                runs += ended;
                if timer.is_none() {
                    break;
                }
                // A lease was renewed: nothing has become due by that.
            }
        }
    }

    /// Lets a worker take a job that is due, as [`TestJobs::run_one`] would, and die with
    /// it before it runs. The job comes back, one attempt later, once its lease has run
    /// out: [`JobPollerConfig::job_lost_interval`] from now. Returns it; `None` if none
    /// is due.
    ///
    /// [`JobPollerConfig::job_lost_interval`]: crate::JobPollerConfig::job_lost_interval
    pub async fn lose_one(&mut self) -> Option<JobId> {
        let types = self.types_due_longest().await;
        let lease = self.worker_config(Vec::new()).lease;
        let now = self.timestamp();
        for of_type in types {
            if let Some(job) = self.claim_one(of_type.job_type, lease).await {
                let lease_ends = now.saturating_add(lease);
                self.books.leased.insert(job.run, lease_ends);
                return Some(job.run.job.into());
            }
        }
        None
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
        Seen::new(jobs, self.registered())
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
        Seen::new(jobs, self.registered())
    }

    /// Lets workers work until nothing is due: one, and another whenever the runner of
    /// the one before sleeps.
    async fn work_while_others_sleep(&mut self, resting: &mut Vec<Hand<B>>) -> usize {
        let mut runs = 0;
        loop {
            let types = self.types();
            let mut hand = self.hand(types).may_rest();
            runs += self.work(&mut hand, true).await;
            if hand.has_stopped() {
                return runs;
            }
            resting.push(hand);
        }
    }

    /// Lets the workers go on that rested, in the order in which they began to.
    async fn go_on(&mut self, resting: &mut Vec<Hand<B>>, moves: bool) -> usize {
        let mut runs = 0;
        for hand in &mut *resting {
            runs += self.work(hand, moves).await;
        }
        resting.retain(|hand| !hand.has_stopped());
        runs
    }

    async fn work(&mut self, hand: &mut Hand<B>, moves: bool) -> usize {
        let runners = self.runners.as_ref();
        let watch = Watch::new(self.patience, &self.controller);
        let mut call = Call {
            runners: runners.expect("they are there with the types"),
            watch: if moves { watch.moving() } else { watch },
            books: &mut self.books,
        };
        let runs = hand.work(&mut call).await;
        runs.unwrap_or_else(|error| panic!("{STORE_FAILED}: {error}"))
    }

    fn resting(&mut self) -> &mut Vec<Hand<B>> {
        let resting = self.resting.get_mut();
        resting.unwrap_or_else(PoisonError::into_inner)
    }

    fn hand(&mut self, types: Vec<TypeConfig>) -> Hand<B> {
        let (config, entropy) = (self.worker_config(types), self.entropy());
        Hand::new(self.jobs.core(), config, entropy)
    }

    /// When something happens next that is not the business of a worker that rests.
    async fn next_event(&self) -> Timestamp {
        // Whoever is about to sleep on the clock does so.
        self.controller.advance(Duration::ZERO).await;
        let (now, books) = (self.timestamp(), &self.books);
        let leases = books.leased.values().filter(|at| **at > now);
        let due = books.next_due.values().chain(leases).copied();
        let wake = self.controller.next_wake().map(to_timestamp);
        due.chain(wake).min().unwrap_or(Timestamp::MAX)
    }

    /// The type whose job is due longest, as far as the test has spawned it; otherwise
    /// all types.
    async fn types_due_longest(&mut self) -> Vec<TypeConfig> {
        let mut types = self.types();
        let policies: Vec<_> = types.iter().map(TypeConfig::policy).collect();
        if !policies.is_empty() {
            // What was lost is due again.
            let jobs_max = BATCH_LEN_MAX as u32;
            let reclaim = Command::Reclaim(Reclaim { policies, jobs_max });
            self.execute(&reclaim).await;
        }
        let (now, seen) = (self.timestamp(), self.seen().await);
        let due = seen.jobs().iter().filter_map(|job| {
            let due_at = job.due_at().map(to_timestamp)?;
            let job_type = job.job_type.as_engine();
            let runs_here = types.iter().any(|of_type| of_type.job_type == *job_type);
            let is_due = job.state() == JobState::Pending && due_at <= now;
            (is_due && runs_here).then_some((due_at, job_type))
        });
        if let Some((_, longest)) = due.min() {
            types.retain(|of_type| of_type.job_type == *longest);
        }
        types
    }

    pub(super) async fn execute(&self, command: &Command) -> Reply {
        let reply = self.jobs.core().execute(command);
        let reply = self.watch().await_end("a call of the store", reply).await;
        reply.unwrap_or_else(|error| panic!("{STORE_FAILED}: {error}"))
    }

    pub(super) fn watch(&self) -> Watch<'_> {
        Watch::new(self.patience, &self.controller)
    }

    pub(super) async fn claim_one(
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

    /// The types whose jobs run here.
    fn registered(&self) -> Vec<JobType> {
        let types = match self.runners {
            Some(_) => self.types.clone(),
            None => self.jobs.registered(),
        };
        types.into_iter().map(|of| of.job_type.into()).collect()
    }

    /// All types. From now on, no more can be registered.
    fn types(&mut self) -> Vec<TypeConfig> {
        if self.runners.is_none() {
            let registry = self.jobs.take_registry();
            let registry = registry.unwrap_or_else(|error| panic!("{error}"));
            self.types = registry.type_configs();
            self.runners = Some(Runners::new(Arc::clone(self.jobs.core()), registry));
        }
        self.types.clone()
    }

    /// That of a worker of the service.
    fn worker_config(&self, types: Vec<TypeConfig>) -> WorkerConfig {
        self.jobs.worker_config(types)
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
