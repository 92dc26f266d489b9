//! A whole service in memory, with whatever configuration, on a clock that only
//! the input moves.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use job::{
    ArtificialClockConfig, ClockController, ClockHandle, CurrentJob, Job, JobCompletion, JobError,
    JobId, JobInitializer, JobPollerConfig, JobRunner, JobSpawner, JobState, JobSvcConfig, JobType,
    Jobs, Memory, RetrySettings,
};
use job_tokio::to_datetime;
use uuid::Uuid;

use crate::source::Source;

/// Jobs that one input spawns.
const JOBS_MAX: usize = 6;
/// Wake-ups that one input waits for.
const WAKES_MAX: usize = 24;
/// Runs after which every run completes its job: one that is due again at once
/// would keep the clock from standing still.
const RUNS_MAX: usize = 100;

/// Starts a service, gives it some jobs, lets time pass, shuts it down.
pub(super) fn run(source: &mut Source<'_>, poller: JobPollerConfig) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime needs nothing");
    runtime.block_on(serve(source, poller));
}

async fn serve(source: &mut Source<'_>, poller: JobPollerConfig) {
    let start = match source.byte() {
        255 => source.timestamp(),
        _ => job_engine::Timestamp::EPOCH,
    };
    let start = ArtificialClockConfig::manual_at(to_datetime(start));
    let (clock, controller) = ClockHandle::artificial(start);
    // The range that the documentation of the field gives.
    let jobs_max = poller.max_jobs_per_process.clamp(1, 1_000);
    let mut builder = JobSvcConfig::memory()
        .poller_config(poller)
        .clock(clock)
        .seed([source.byte(); 32]);
    if source.flag() {
        builder = builder.poll_interval(source.duration());
    }
    let config = builder.build().expect("in memory nothing can be missing");
    let jobs = Jobs::init(config).await.expect("nothing has to be opened");
    Service {
        controller,
        jobs,
        load: Arc::new(Load {
            runs: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            jobs_max,
        }),
        spawned: Vec::new(),
    }
    .serve(source)
    .await;
}

struct Service {
    controller: ClockController,
    jobs: Jobs<Memory>,
    load: Arc<Load>,
    spawned: Vec<JobId>,
}

impl Service {
    async fn serve(mut self, source: &mut Source<'_>) {
        let job_type: JobType = source.job_type().into();
        let allowed = job_engine::JobType::from(job_type.as_str()).check().is_ok();
        let spawner = self.jobs.add_initializer(Initializer {
            job_type: job_type.clone(),
            retry: source.retry(),
            crashes_max: source.maybe(Source::u32),
            load: Arc::clone(&self.load),
        });
        match self.jobs.start_poll().await {
            Ok(()) => assert!(allowed, "polls for {job_type:?}"),
            Err(JobError::Rejected(rejection)) => {
                assert!(!allowed, "{rejection}");
                assert!(rejection.to_string().contains("job type"), "{rejection}");
                return;
            }
            Err(error) => panic!("{error}"),
        }
        for _ in 0..WAKES_MAX {
            if source.is_empty() {
                break;
            }
            self.step(source, &spawner).await;
            assert!(self.jobs.is_polling(), "the driver has died");
        }
        // What is due at once has had its turn when the clock stands still again.
        self.controller.advance(Duration::ZERO).await;
        self.controller.advance_to_next_wake().await;
        let ran = self.jobs.shutdown().await;
        assert!(ran.is_ok(), "{ran:?}");
        assert_eq!(self.load.running.load(Ordering::SeqCst), 0, "runs after it");
        for id in self.spawned {
            let job = self.jobs.find(id).await.expect("the job was spawned");
            assert_ne!(job.state(), JobState::Running, "{job:?} after the shutdown");
        }
    }

    async fn step(&mut self, source: &mut Source<'_>, spawner: &JobSpawner<Work, Memory>) {
        match source.byte() % 4 {
            0 => {
                // Without sleepers there is no wake-up to go to.
                self.controller.advance_to_next_wake().await;
            }
            1 => {
                // Never beyond the next wake-up: there may be any number of them.
                // Whoever will sleep is to sleep before it is looked for.
                self.controller.advance(Duration::ZERO).await;
                let until = self.controller.next_wake();
                let now = self.controller.now();
                let wait = until.and_then(|at| (at - now).to_std().ok());
                let time = source.duration().min(wait.unwrap_or_default());
                self.controller.advance(time).await;
            }
            _ if self.spawned.len() < JOBS_MAX => self.spawn(source, spawner).await,
            _ => {}
        }
    }

    async fn spawn(&mut self, source: &mut Source<'_>, spawner: &JobSpawner<Work, Memory>) {
        let id = JobId::from(Uuid::from_u128(self.spawned.len() as u128));
        let work = match source.byte() % 5 {
            0 => Work::Complete,
            1 => Work::Fail(source.text()),
            2 => Work::Again(source.duration()),
            3 => Work::UntilStopped,
            _ => Work::KeepState(source.text()),
        };
        let spawned = match source.flag() {
            true => spawner.spawn(id, work).await,
            false => {
                spawner
                    .spawn_at(id, work, to_datetime(source.timestamp()))
                    .await
            }
        };
        spawned.expect("nothing is wrong with the job");
        self.spawned.push(id);
    }
}

/// How many runs there are.
struct Load {
    /// In all.
    runs: AtomicUsize,
    /// At this moment.
    running: AtomicUsize,
    jobs_max: usize,
}

/// What a job does.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
enum Work {
    Complete,
    Fail(String),
    Again(Duration),
    UntilStopped,
    KeepState(String),
}

struct Initializer {
    job_type: JobType,
    retry: RetrySettings,
    crashes_max: Option<u32>,
    load: Arc<Load>,
}

impl JobInitializer<Memory> for Initializer {
    type Config = Work;

    fn job_type(&self) -> JobType {
        self.job_type.clone()
    }

    fn retry_on_error_settings(&self) -> RetrySettings {
        self.retry.clone()
    }

    fn crashes_max(&self) -> Option<u32> {
        self.crashes_max
    }

    fn init(
        &self,
        job: &Job,
        _: JobSpawner<Work, Memory>,
    ) -> Result<Box<dyn JobRunner<Memory>>, Box<dyn Error>> {
        let (work, load) = (job.config()?, Arc::clone(&self.load));
        Ok(Box::new(Runner { work, load }))
    }
}

struct Runner {
    work: Work,
    load: Arc<Load>,
}

#[async_trait]
impl JobRunner<Memory> for Runner {
    async fn run(
        &self,
        mut job: CurrentJob<Memory>,
    ) -> Result<JobCompletion<Memory>, Box<dyn Error>> {
        let _running = self.load.enter();
        let runs = self.load.runs.fetch_add(1, Ordering::SeqCst);
        match &self.work {
            _ if runs >= RUNS_MAX => {}
            Work::Complete => {}
            Work::Fail(text) => return Err(text.clone().into()),
            Work::Again(delay) => return Ok(JobCompletion::RescheduleIn(*delay)),
            Work::UntilStopped => {
                job.shutdown_requested().await;
            }
            Work::KeepState(text) => {
                job.update_execution_state(text).await?;
                let kept = job.execution_state::<String>()?;
                assert_eq!(kept.as_ref(), Some(text), "the state that was kept");
            }
        }
        Ok(JobCompletion::Complete)
    }
}

impl Load {
    fn enter(self: &Arc<Self>) -> Running {
        let others = self.running.fetch_add(1, Ordering::SeqCst);
        assert!(
            others < self.jobs_max,
            "{others} run, and {} may",
            self.jobs_max
        );
        Running(Arc::clone(self))
    }
}

/// Counts one less when it is dropped.
struct Running(Arc<Load>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}
