//! The service: registration, polling, shutdown.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use job_engine::Entropy;
use job_engine::worker::{TypeConfig, WorkerConfig};
use job_tokio::guarded::{GuardedSpan, guarded, traced};
use job_tokio::{ClockHandle, DriverConfig, DriverHandle};
use tokio::time::timeout;
use tracing::instrument;

use crate::backend::{AnyBackend, AnyOptions, Backend, DefaultBackend, check_pool_size};
use crate::core::Core;
use crate::error::JobError;
use crate::registry::{Registry, Runners};
use crate::signals::Signals;
use crate::start::Start;
use crate::{
    HistoryCursor, Job, JobHistory, JobId, JobInitializer, JobPollerConfig, JobSpawner,
    JobSvcConfig, JobSvcConfigBuilder,
};

/// How long the store of a worker that has ended by itself may take to let go of what it
/// holds.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

const REGISTRY_CONSUMED: &str = "Registry has been consumed by executor: register all tasks and \
                                 initializers first, then call start_poll, once";

/// The job service: registers initializers, polls for due jobs, runs them, and
/// shuts down.
///
/// Clones share one service. When the last of them is dropped, the service
/// shuts down by itself.
pub struct Jobs<B: Backend = DefaultBackend> {
    core: Arc<Core<B>>,
    registry: Arc<Mutex<Option<Registry<B>>>>,
    settings: Settings,
    entropy: Entropy,
    driver: Option<Arc<DriverHandle>>,
}

#[derive(Clone)]
struct Settings {
    poller_config: JobPollerConfig,
    poll_interval: Duration,
    poll_interval_deaf: Duration,
}

impl Jobs<AnyBackend> {
    /// Opens the database that a URL names: `postgres://user:password@host/database`,
    /// `sqlite:jobs.db`, or `memory:`, which nobody else shares. Before it is awaited, it can
    /// be configured: it is a [`JobSvcConfigBuilder`].
    ///
    /// Those who want a pool of theirs, or a service whose backend is part of its type, use
    /// [`Jobs::init`].
    ///
    /// # Errors
    ///
    /// When it is awaited: [`JobError::Config`] if the URL names no database of ours, or one
    /// that this program was built without; else as [`Jobs::init`].
    ///
    /// # Panics
    ///
    /// When it is awaited outside of a tokio runtime.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), job::JobError> {
    /// use job::{JobPollerConfig, Jobs};
    ///
    /// let jobs = Jobs::connect("memory:")
    ///     .poller_config(JobPollerConfig {
    ///         max_jobs_per_process: 10,
    ///         ..JobPollerConfig::default()
    ///     })
    ///     .await?;
    /// # drop(jobs);
    /// # Ok(())
    /// # }
    /// ```
    pub fn connect(url: impl AsRef<str>) -> JobSvcConfigBuilder<AnyBackend> {
        JobSvcConfig::with_backend(AnyOptions::of_url(url.as_ref()))
    }
}

impl<B: Backend> Jobs<B> {
    /// Opens the database, migrates it if the configuration says so, and checks
    /// that its tables fit this version, and that no other artificial clock is in use
    /// on them ([`JobSvcConfigBuilder::clock`](crate::JobSvcConfigBuilder::clock)).
    ///
    /// # Errors
    ///
    /// When any of that fails: [`JobError::Sqlx`], [`JobError::Config`] or
    /// [`JobError::Migration`], each of which says what to do; on SQLite also
    /// [`JobError::Store`], if what a process before ran cannot be made due again.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn init(mut config: JobSvcConfig<B>) -> Result<Self, JobError> {
        // Once more: the fields of a config can be changed after it was built.
        B::check(&config.backend).map_err(JobError::Config)?;
        let runs_max = config.poller_config.max_jobs_per_process;
        B::size_for(&mut config.backend, runs_max);
        let (pool, store) = B::open(config.backend, &config.clock).await?;
        let entropy = Entropy::from_seed(match config.seed {
            Some(seed) => seed,
            None => seed_of_the_system()?,
        });
        Ok(Self {
            core: Arc::new(Core::new(
                store,
                pool,
                config.clock,
                entropy.clone(),
                config.run_traces,
            )),
            registry: Arc::new(Mutex::new(Some(Registry::new()))),
            settings: Settings {
                poller_config: config.poller_config,
                poll_interval: config.poll_interval,
                poll_interval_deaf: config.poll_interval_deaf,
            },
            entropy,
            driver: None,
        })
    }

    /// Registers an initializer and returns a spawner for jobs of its type. A
    /// process that only spawns needs none: [`Jobs::spawn`] and [`Jobs::spawner`] take what
    /// runs elsewhere.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use job::{CurrentJob, Job, JobCompletion, JobId, JobInitializer, JobRunner, JobSpawner, JobType, Jobs};
    /// # use std::error::Error;
    /// # #[derive(serde::Serialize, serde::Deserialize)]
    /// # struct MyConfig { value: i32 }
    /// # struct MyInitializer;
    /// # impl JobInitializer for MyInitializer {
    /// #     type Config = MyConfig;
    /// #     fn job_type(&self) -> JobType { JobType::new("example") }
    /// #     fn init(&self, _: &Job, _: JobSpawner<MyConfig>) -> Result<Box<dyn JobRunner>, Box<dyn Error>> {
    /// #         Ok(Box::new(MyRunner))
    /// #     }
    /// # }
    /// # struct MyRunner;
    /// # #[async_trait::async_trait]
    /// # impl JobRunner for MyRunner {
    /// #     async fn run(&self, _: CurrentJob) -> Result<JobCompletion, Box<dyn Error>> {
    /// #         Ok(JobCompletion::Complete)
    /// #     }
    /// # }
    /// # async fn example(mut jobs: Jobs) -> Result<(), job::error::JobError> {
    /// let spawner = jobs.add_initializer(MyInitializer);
    /// spawner.spawn(JobId::new(), MyConfig { value: 42 }).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// After [`Jobs::start_poll`], with `Registry has been consumed by executor`, and what to
    /// do; and if a task or function is registered for the type. A second initializer replaces
    /// the first, with a warning in the log.
    #[track_caller]
    pub fn add_initializer<I: JobInitializer<B>>(
        &mut self,
        initializer: I,
    ) -> JobSpawner<I::Config, B> {
        self.register(initializer, false)
    }

    /// Starts to poll for due jobs of the registered types and to run them.
    ///
    /// Call it once, after every initializer is registered: it consumes the
    /// registry. Where nothing is registered, no jobs run, and a warning in the log says so.
    ///
    /// # Errors
    ///
    /// [`JobError::Rejected`] if the name of a type is not allowed, [`JobError::Config`] if
    /// the pool has room for one connection only. A database that is away is none: the
    /// worker waits for it.
    ///
    /// # Panics
    ///
    /// When it is called a second time, on this or a clone, with
    /// `Registry has been consumed by executor`.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use async_trait::async_trait;
    /// use job::error::JobError;
    /// use job::{
    ///     CurrentJob, Job, JobCompletion, JobId, JobInitializer, JobRunner, JobSpawner,
    ///     JobSvcConfig, JobType, Jobs,
    /// };
    /// use serde::{Deserialize, Serialize};
    /// use std::error::Error;
    ///
    /// #[derive(Debug, Serialize, Deserialize)]
    /// struct Greeting {
    ///     name: String,
    /// }
    ///
    /// struct Greet;
    ///
    /// impl JobInitializer for Greet {
    ///     type Config = Greeting;
    ///
    ///     fn job_type(&self) -> JobType {
    ///         JobType::new("greet")
    ///     }
    ///
    ///     fn init(
    ///         &self,
    ///         job: &Job,
    ///         _spawner: JobSpawner<Self::Config>,
    ///     ) -> Result<Box<dyn JobRunner>, Box<dyn Error>> {
    ///         Ok(Box::new(Greeter(job.config()?)))
    ///     }
    /// }
    ///
    /// struct Greeter(Greeting);
    ///
    /// #[async_trait]
    /// impl JobRunner for Greeter {
    ///     async fn run(&self, _job: CurrentJob) -> Result<JobCompletion, Box<dyn Error>> {
    ///         println!("Hello, {}", self.0.name);
    ///         Ok(JobCompletion::Complete)
    ///     }
    /// }
    ///
    /// # async fn example() -> Result<(), JobError> {
    /// let config = JobSvcConfig::builder()
    ///     .pg_con("postgres://postgres:password@localhost/postgres")
    ///     .build()
    ///     .map_err(JobError::Config)?;
    /// let mut jobs = Jobs::init(config).await?;
    /// let spawner = jobs.add_initializer(Greet);
    /// jobs.start_poll().await?;
    /// let name = "world".to_owned();
    /// spawner.spawn(JobId::new(), Greeting { name }).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn start_poll(&mut self) -> Result<(), JobError> {
        let runs_max = self.settings.poller_config.max_jobs_per_process;
        check_pool_size::<B>(self.pool(), runs_max)?;
        let registry = self.take_registry()?;
        let worker = self.worker_config(registry.type_configs());
        let start = Start::of(&self.core, &worker);
        let runners = Runners::new(Arc::clone(&self.core), registry);
        self.driver = Some(Arc::new(DriverHandle::start(DriverConfig {
            store: self.core.store().clone(),
            clock: self.core.clock().clone(),
            worker,
            entropy: self.entropy.clone(),
            runners: Arc::new(runners),
            wakes: self.core.wakes().clone(),
            announcer: self.core.announcer().clone(),
        })));
        start.tell();
        Ok(())
    }

    /// Reads a job with what happened to it: its spawn and its last 50 runs.
    /// [`Jobs::history`] reads what came between.
    ///
    /// # Errors
    ///
    /// [`JobError::NotFound`] if there is none with this id, or an error of the
    /// store.
    #[instrument(name = "job.find", skip(self))]
    pub async fn find(&self, id: JobId) -> Result<Job, JobError> {
        self.core.find(id).await
    }

    /// Reads 50 more runs of a job, those before what was read of it: by [`Jobs::find`]
    /// ([`Job::earlier`]), or by this ([`JobHistory::earlier`]). Of a job that does not exist
    /// there are none.
    ///
    /// # Errors
    ///
    /// An error of the store.
    ///
    /// # Examples
    ///
    /// ```
    /// use job::{Backend, JobError, JobEvent, JobId, Jobs};
    ///
    /// /// All that has happened to a job, the last first.
    /// async fn all<B: Backend>(jobs: &Jobs<B>, id: JobId) -> Result<Vec<JobEvent>, JobError> {
    ///     let job = jobs.find(id).await?;
    ///     let mut events: Vec<_> = job.events().iter().rev().cloned().collect();
    ///     let spawned = events.pop();
    ///     let mut earlier = job.earlier();
    ///     while let Some(before) = earlier {
    ///         let page = jobs.history(id, before).await?;
    ///         events.extend(page.events.into_iter().rev());
    ///         earlier = page.earlier;
    ///     }
    ///     events.extend(spawned);
    ///     Ok(events)
    /// }
    /// ```
    #[instrument(name = "job.history", skip(self))]
    pub async fn history(&self, id: JobId, before: HistoryCursor) -> Result<JobHistory, JobError> {
        self.core.history(id, before).await
    }

    /// The same service, for code that does not know its backend: to spawn jobs and to find
    /// them. What runs here is registered with the service itself.
    ///
    /// # Examples
    ///
    /// ```
    /// use job::{AnyBackend, JobError, JobSvcConfig, JobType, Jobs};
    ///
    /// async fn order(jobs: &Jobs<AnyBackend>) -> Result<(), JobError> {
    ///     jobs.spawner::<u32>(JobType::new("ship")).job(7).await?;
    ///     Ok(())
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), JobError> {
    /// let jobs = JobSvcConfig::memory().await?;
    /// order(&jobs.any()).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn any(&self) -> Jobs<AnyBackend> {
        Jobs {
            core: self.core.any(),
            registry: Arc::default(),
            settings: self.settings.clone(),
            entropy: self.entropy.clone(),
            driver: self.driver.clone(),
        }
    }

    /// The clock of the service.
    pub fn clock(&self) -> &ClockHandle {
        self.core.clock()
    }

    /// The pool of the service, for transactions of the application.
    pub fn pool(&self) -> &B::Pool {
        self.core.pool()
    }

    /// Shuts the worker down: claims no more, asks the running jobs to end,
    /// waits up to `shutdown_timeout` for them, then aborts them and puts their
    /// jobs back, due at once at the same attempt.
    ///
    /// May be called again, on any clone. Spawning goes on working. Dropping
    /// the last clone does the same without waiting for it.
    ///
    /// # Errors
    ///
    /// [`JobError::WorkerEnded`] if there is nothing to shut down because the worker ended
    /// by itself, most likely with its runtime; each time again. What could not be put back
    /// because the store is away is no error: it is run again when its lease has run out.
    pub async fn shutdown(&self) -> Result<(), JobError> {
        let Some(driver) = &self.driver else {
            return Ok(());
        };
        let span = GuardedSpan::new(|| tracing::info_span!("job.shutdown"));
        let shut_down = traced(span, || async {
            let ended = driver.shutdown().await;
            let close = B::close(self.core.store());
            match ended {
                Ok(()) => close.await,
                // What it waits for may have gone with the worker.
                Err(_) => drop(timeout(CLOSE_TIMEOUT, close).await),
            }
            ended
        });
        shut_down.await.map_err(JobError::WorkerEnded)
    }

    /// Waits until the process is told to end, by SIGTERM, as orchestrators send it, or by
    /// SIGINT, Ctrl-C; then shuts down as [`Jobs::shutdown`]. On systems other than Unix, by
    /// Ctrl-C. It shuts down as well when the worker ends in another way: another
    /// clone was shut down, or it ended by itself.
    ///
    /// A second signal during the shutdown ends the process at once, with the exit code
    /// that shells give to what the signal ends: 143 for SIGTERM, 130 for SIGINT.
    ///
    /// Call it after [`Jobs::start_poll`]. From the first call on, and also after it has
    /// returned or was dropped, these signals do no more by themselves: without
    /// anybody who waits for them, they are lost. Give an orchestrator a grace period of at
    /// least `shutdown_timeout` and 5 s.
    ///
    /// # Errors
    ///
    /// [`JobError::Config`] if [`Jobs::start_poll`] was not called, or signals cannot be
    /// waited for; otherwise as [`Jobs::shutdown`].
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime, and in one without I/O (`enable_all` or `enable_io`).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(mut jobs: job::Jobs) -> Result<(), job::JobError> {
    /// jobs.start_poll().await?;
    /// jobs.run_until_signal().await
    /// # }
    /// ```
    pub async fn run_until_signal(&self) -> Result<(), JobError> {
        let Some(driver) = &self.driver else {
            let text = "no worker was started to run until a signal; call start_poll first";
            return Err(JobError::Config(text.to_owned()));
        };
        let mut signals = Signals::new().map_err(|error| {
            JobError::Config(format!("the signals of the process cannot be had: {error}"))
        })?;
        tokio::select! {
            biased;
            _ = driver.ended() => {}
            signal = signals.next() => {
                guarded(|| tracing::info!(signal = signal.name(), "told to end"));
            }
        }
        tokio::select! {
            biased;
            done = self.shutdown() => done,
            signal = signals.next() => {
                guarded(|| tracing::warn!(signal = signal.name(), "told to end at once"));
                std::process::exit(signal.exit_code())
            }
        }
    }

    /// Ends the worker as a crash of the process would; for simulations.
    #[cfg(feature = "sim")]
    #[doc(hidden)]
    pub fn kill(&self) {
        if let Some(driver) = &self.driver {
            driver.kill();
        }
    }

    /// Whether the worker goes on; for simulations.
    #[cfg(feature = "sim")]
    #[doc(hidden)]
    pub fn is_polling(&self) -> bool {
        let driver = self.driver.as_ref();
        driver.is_some_and(|driver| driver.is_running())
    }

    /// Registers an initializer, which may have to be the only one of its type.
    #[track_caller]
    pub(crate) fn register<I: JobInitializer<B>>(
        &mut self,
        initializer: I,
        only: bool,
    ) -> JobSpawner<I::Config, B> {
        let mut registry = self.registry();
        let registry = registry.as_mut().expect(REGISTRY_CONSUMED);
        let job_type = registry.add(initializer, only);
        JobSpawner::new(Arc::clone(&self.core), job_type)
    }

    /// The registry, of which there is one.
    pub(crate) fn take_registry(&self) -> Result<Registry<B>, JobError> {
        let registry = self.registry().take().expect(REGISTRY_CONSUMED);
        for of_type in registry.type_configs() {
            of_type.job_type.check().map_err(JobError::Rejected)?;
        }
        Ok(registry)
    }

    /// The types that are registered, until a worker takes them.
    #[cfg(feature = "testing")]
    pub(crate) fn registered(&self) -> Vec<TypeConfig> {
        let registry = self.registry();
        registry
            .as_ref()
            .map(Registry::type_configs)
            .unwrap_or_default()
    }

    /// How a worker of these types behaves.
    pub(crate) fn worker_config(&self, types: Vec<TypeConfig>) -> WorkerConfig {
        let poller = &self.settings.poller_config;
        WorkerConfig {
            types,
            jobs_max: u32::try_from(poller.max_jobs_per_process).unwrap_or(u32::MAX),
            jobs_min: u32::try_from(poller.min_jobs_per_process).unwrap_or(u32::MAX),
            lease: poller.job_lost_interval,
            poll_interval: self.settings.poll_interval,
            poll_interval_deaf: self.settings.poll_interval_deaf,
            shutdown_timeout: poller.shutdown_timeout,
        }
    }

    pub(crate) fn core(&self) -> &Arc<Core<B>> {
        &self.core
    }

    fn registry(&self) -> MutexGuard<'_, Option<Registry<B>>> {
        // A panic of the caller's doing leaves the registry as it is.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn seed_of_the_system() -> Result<[u8; 32], JobError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|error| JobError::Config(format!("no randomness to be had: {error}")))?;
    Ok(seed)
}

impl<B: Backend> Clone for Jobs<B> {
    fn clone(&self) -> Self {
        Self {
            core: Arc::clone(&self.core),
            registry: Arc::clone(&self.registry),
            settings: self.settings.clone(),
            entropy: self.entropy.clone(),
            driver: self.driver.clone(),
        }
    }
}

impl<B: Backend> std::fmt::Debug for Jobs<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jobs")
            .field("polling", &self.driver.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Memory;

    async fn jobs(seed: Option<[u8; 32]>) -> Jobs<Memory> {
        let mut config = JobSvcConfig::memory();
        if let Some(seed) = seed {
            config = config.seed(seed);
        }
        Jobs::init(config.build().unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn a_seed_decides_who_a_worker_is_and_what_its_spawns_are_known_by() {
        let (one, same) = (jobs(Some([1; 32])).await, jobs(Some([1; 32])).await);
        assert_eq!(one.core.worker(), same.core.worker());
        assert_eq!(one.core.spawn_token(), same.core.spawn_token());
        for other in [jobs(Some([2; 32])).await, jobs(None).await] {
            assert_ne!(one.core.worker(), other.core.worker());
        }
    }
}
