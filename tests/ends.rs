//! What a worker outlives, what it does not, and who hears of that.

use std::sync::mpsc;
use std::time::Duration;

use job::{
    ArtificialClockConfig, ClockController, ClockHandle, JobCompletion, JobError, JobId,
    JobPollerConfig, JobState, JobSvcConfig, Jobs, Memory, Postgres, RetrySettings, RunGuard,
    Sqlite, WorkerEnded,
};
use serde_json::Value;
use tokio::sync::mpsc::unbounded_channel;

use crate::support::{TestBackend, TestInitializer, ended, eventually, history};

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

#[tokio::test]
async fn a_panic_that_panics_when_it_is_dropped_is_an_error_of_its_job() {
    let mut jobs = Jobs::init(JobSvcConfig::memory().build().unwrap())
        .await
        .unwrap();
    let once = RetrySettings {
        n_attempts: Some(1),
        ..RetrySettings::default()
    };
    let bomb = TestInitializer::<Memory>::new("bomb", |_, _| async {
        std::panic::panic_any(PanicsWhenDropped)
    });
    let bomb = jobs.add_initializer(bomb.retry(once));
    let mail = jobs.add_initializer(TestInitializer::completing("mail"));
    jobs.start_poll().await.unwrap();
    let (first, second) = (JobId::new(), JobId::new());
    bomb.spawn(first, Value::Null).await.unwrap();
    assert_eq!(ended(&jobs, first).await.state(), JobState::Errored);
    mail.spawn(second, Value::Null).await.unwrap();
    assert_eq!(ended(&jobs, second).await.state(), JobState::Completed);
    jobs.shutdown().await.unwrap();
}

/// As in tests with a service in a static, of which each has its runtime.
#[test]
fn a_worker_that_went_with_its_runtime_is_heard_of_and_spawns_go_on() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).enable_all().build().unwrap()
    };
    let first = runtime();
    let (jobs, spawner) = first.block_on(async {
        let config = JobSvcConfig::memory().build().unwrap();
        let mut jobs = Jobs::init(config).await.unwrap();
        let spawner = jobs.add_initializer(TestInitializer::<Memory>::completing("mail"));
        jobs.start_poll().await.unwrap();
        let id = JobId::new();
        spawner.spawn(id, Value::Null).await.unwrap();
        ended(&jobs, id).await;
        (jobs, spawner)
    });
    drop(first);
    runtime().block_on(async {
        let id = JobId::new();
        spawner.spawn(id, Value::Null).await.unwrap();
        for _ in 0..2 {
            let error = jobs.shutdown().await.unwrap_err();
            assert!(
                matches!(error, JobError::WorkerEnded(WorkerEnded::RuntimeDropped)),
                "{error}"
            );
            assert!(error.to_string().contains("restart"), "{error}");
        }
        let error = jobs.run_until_signal().await.unwrap_err();
        assert!(matches!(error, JobError::WorkerEnded(_)), "{error}");
        assert_eq!(jobs.find(id).await.unwrap().state(), JobState::Pending);
    });
}

const LEASE: Duration = Duration::from_secs(60);

/// Two services on one place, of which the first polls, and what moves their clock.
struct Deploy<B: TestBackend> {
    old: Jobs<B>,
    new: Jobs<B>,
    time: ClockController,
    id: JobId,
    /// Says which of the services run the job, each time that one does.
    runs: tokio::sync::mpsc::UnboundedReceiver<&'static str>,
    /// Lets the blocking work of the first end.
    end_work: mpsc::Sender<()>,
    _place: B::Place,
}

impl<B: TestBackend> Deploy<B> {
    /// The job runs in the old service: in a thread, and holds its run if it is to.
    async fn start(holds: bool) -> Self {
        let place = B::place().await;
        let (clock, time) = ClockHandle::artificial(ArtificialClockConfig::manual());
        let service = |clock: &ClockHandle| {
            let poller = JobPollerConfig {
                shutdown_timeout: Duration::from_secs(1),
                job_lost_interval: LEASE,
                ..JobPollerConfig::default()
            };
            let config = B::on(&place).poller_config(poller).clock(clock.clone());
            Jobs::init(
                config
                    .poll_interval(Duration::from_millis(500))
                    .build()
                    .unwrap(),
            )
        };
        let (mut old, mut new) = (
            service(&clock).await.unwrap(),
            service(&clock).await.unwrap(),
        );
        let (sender, mut runs) = unbounded_channel();
        let (end_work, work) = mpsc::channel::<()>();
        let work = std::sync::Arc::new(std::sync::Mutex::new(work));
        let told = sender.clone();
        let spawner = old.add_initializer(TestInitializer::new("compress", move |job, _| {
            let guard: Option<RunGuard> = holds.then(|| job.hold());
            let (told, work) = (told.clone(), work.clone());
            async move {
                let works = tokio::task::spawn_blocking(move || {
                    let _guard = guard;
                    told.send("old").unwrap();
                    // An error means that the test is over.
                    let _ = work.lock().unwrap().recv();
                });
                works.await.map_err(|error| error.to_string())?;
                Ok(JobCompletion::Complete)
            }
        }));
        new.add_initializer(TestInitializer::new("compress", move |_, _| {
            sender.send("new").unwrap();
            async { Ok(JobCompletion::Complete) }
        }));
        old.start_poll().await.unwrap();
        let id = JobId::new();
        spawner.spawn(id, Value::Null).await.unwrap();
        assert_eq!(time.wait_for(runs.recv()).await, Some("old"));
        new.start_poll().await.unwrap();
        Self {
            old,
            new,
            time,
            id,
            runs,
            end_work,
            _place: place,
        }
    }

    async fn advance(&self, seconds: u64) {
        for _ in 0..seconds * 2 {
            self.time.advance(Duration::from_millis(500)).await;
        }
    }
}

async fn work_that_is_held_runs_nowhere_else<B: TestBackend>() {
    let mut deploy = Deploy::<B>::start(true).await;
    let old = deploy.old.clone();
    let shutdown = tokio::spawn(async move { old.shutdown().await });
    // The runner is aborted after a second, and the work goes on.
    deploy.advance(4).await;
    assert!(!shutdown.is_finished());
    let job = deploy.new.find(deploy.id).await.unwrap();
    assert_eq!(history(&job), ["spawned", "started"]);
    deploy.end_work.send(()).unwrap();
    shutdown.await.unwrap().unwrap();
    deploy.advance(1).await;
    assert_eq!(deploy.runs.recv().await, Some("new"));
    let job = eventually("the job ends", async || {
        deploy.advance(1).await;
        let job = deploy.new.find(deploy.id).await.unwrap();
        job.completed().then_some(job)
    })
    .await;
    let told = ["spawned", "started", "aborted", "started", "completed"];
    assert_eq!(history(&job), told);
    deploy.new.shutdown().await.unwrap();
}

async fn work_that_is_not_held_may_run_elsewhere<B: TestBackend>() {
    let mut deploy = Deploy::<B>::start(false).await;
    let old = deploy.old.clone();
    let shutdown = tokio::spawn(async move { old.shutdown().await });
    let elsewhere = eventually("the job runs elsewhere", async || {
        deploy.advance(1).await;
        deploy.runs.try_recv().ok()
    })
    .await;
    assert_eq!(elsewhere, "new");
    shutdown.await.unwrap().unwrap();
    deploy.end_work.send(()).unwrap();
    deploy.new.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_outlives_its_run_runs_nowhere_else_while_it_is_held() {
    work_that_is_held_runs_nowhere_else::<Postgres>().await;
    work_that_is_held_runs_nowhere_else::<Sqlite>().await;
}

/// What the guard is for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_outlives_its_run_runs_elsewhere_unless_it_is_held() {
    work_that_is_not_held_may_run_elsewhere::<Sqlite>().await;
}
