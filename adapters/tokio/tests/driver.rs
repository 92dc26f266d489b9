//! The driver over a store that misbehaves, on paused time.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::DateTime;
use job_engine::history::Snapshot;
use job_engine::lifecycle::{RunEnd, State};
use job_engine::store::{ClaimedJob, NewJob};
use job_engine::worker::{Ended, StopReason, TypeConfig, WorkerConfig};
use job_engine::{
    Command, Due, Entropy, JobId, JobType, Payload, Reply, RetrySettings, StoreError, Timestamp,
    WorkerId,
};
use job_tokio::{
    Announcer, ClockHandle, DriverConfig, DriverHandle, MemoryStore, RunJob, StopSignal, Store,
    Wake, Wakes,
};
use tokio::sync::{Notify, mpsc};
use uuid::Uuid;

const TYPE: JobType = JobType::new("mail");
const LEASE: Duration = Duration::from_secs(300);

/// What happens to a command.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// It is carried out and never answered.
    Hang,
    /// The store panics.
    Panic,
    /// It is carried out and its reply is lost.
    LoseReply,
}

/// A store whose next claims and ends of runs go wrong.
#[derive(Clone, Debug)]
struct Faulty {
    inner: MemoryStore,
    claims: Arc<Mutex<VecDeque<Fault>>>,
    finishes: Arc<Mutex<VecDeque<Fault>>>,
    outer: Arc<Mutex<Option<mpsc::Sender<Wake>>>>,
}

impl Store for Faulty {
    async fn execute(
        &self,
        now: Option<Timestamp>,
        command: &Command,
    ) -> Result<Reply, StoreError> {
        let fault = match command {
            Command::Claim(_) => self.claims.lock().unwrap().pop_front(),
            Command::Finish(_) => self.finishes.lock().unwrap().pop_front(),
            _ => None,
        };
        assert_ne!(fault, Some(Fault::Panic), "planted");
        let reply = self.inner.execute(now, command).await;
        match fault {
            Some(Fault::Hang) => pending().await,
            Some(Fault::LoseReply) => Err(StoreError::Unknown("planted".to_owned())),
            _ => reply,
        }
    }

    async fn listen(&self, wakes: mpsc::Sender<Wake>) {
        wakes.send(Wake::Restored).await.unwrap();
        *self.outer.lock().unwrap() = Some(wakes);
        pending().await
    }
}

/// A runner that does what its job's number says.
#[derive(Debug, Default)]
struct Runners {
    started: Arc<Notify>,
    runs: Arc<AtomicU32>,
}

const COMPLETE: u128 = 1;
const PANIC: u128 = 2;
const STAY: u128 = 3;
const PANIC_WHEN_DROPPED: u128 = 4;
const WAIT_FOR_STOP: u128 = 5;

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

impl RunJob for Runners {
    fn run_job(
        &self,
        job: ClaimedJob,
        signal: StopSignal,
    ) -> impl Future<Output = Ended> + Send + 'static {
        let (started, runs) = (Arc::clone(&self.started), Arc::clone(&self.runs));
        async move {
            runs.fetch_add(1, Ordering::SeqCst);
            started.notify_one();
            match job.run.job.0.as_u128() {
                PANIC if job.attempt == 1 => panic!("not today"),
                STAY => pending().await,
                PANIC_WHEN_DROPPED if job.attempt == 1 => {
                    let _bomb = PanicsWhenDropped;
                    pending().await
                }
                WAIT_FOR_STOP => {
                    assert_eq!(signal.stopped().await, StopReason::Shutdown);
                    Ended::Completed
                }
                _ => Ended::Completed,
            }
        }
    }
}

struct Bench {
    store: Faulty,
    clock: ClockHandle,
    wakes: Wakes,
    driver: DriverHandle,
    started: Arc<Notify>,
    runs: Arc<AtomicU32>,
}

impl Bench {
    /// A driver with one job, whose store has these faults.
    async fn start(job: u128, claims: &[Fault], finishes: &[Fault]) -> Self {
        let clock = ClockHandle::tokio_time(DateTime::UNIX_EPOCH);
        let own = clock.clone();
        let store = Faulty {
            inner: MemoryStore::new(move || own.timestamp()),
            claims: Arc::new(Mutex::new(claims.iter().copied().collect())),
            finishes: Arc::new(Mutex::new(finishes.iter().copied().collect())),
            outer: Arc::default(),
        };
        spawn(&store, job).await;
        let (runners, wakes) = (Runners::default(), Wakes::new());
        let (started, runs) = (Arc::clone(&runners.started), Arc::clone(&runners.runs));
        let driver = DriverHandle::start(DriverConfig {
            store: store.clone(),
            clock: clock.clone(),
            worker: WorkerConfig {
                types: vec![TypeConfig {
                    job_type: TYPE,
                    retry: RetrySettings::default(),
                    crashes_max: None,
                    undecodable_max: Duration::from_secs(3600),
                }],
                jobs_max: 10,
                jobs_min: 10,
                lease: LEASE,
                poll_interval: Duration::from_secs(3_600),
                poll_interval_deaf: Duration::from_secs(3_600),
                shutdown_timeout: Duration::from_secs(5),
            },
            entropy: Entropy::from_seed([1; 32]),
            runners: Arc::new(runners),
            wakes: wakes.clone(),
            announcer: Announcer::start(WorkerId(Uuid::from_u128(1)), store.clone()),
        });
        Self {
            store,
            clock,
            wakes,
            driver,
            started,
            runs,
        }
    }

    async fn read(&self, job: u128) -> Snapshot {
        let jobs = self.store.inner.jobs().await;
        let id = JobId(Uuid::from_u128(job));
        jobs.into_iter()
            .find(|job| job.id == id)
            .expect("the job was spawned")
    }

    /// Waits until the job has ended, however long that takes on paused time.
    async fn ended(&self, job: u128) -> Snapshot {
        for _ in 0..100_000 {
            let read = self.read(job).await;
            if read.state().is_final() {
                return read;
            }
            self.clock.sleep(Duration::from_millis(50)).await;
        }
        panic!("job {job} did not end: {:?}", self.read(job).await);
    }
}

async fn spawn(store: &Faulty, job: u128) {
    let command = Command::Spawn(vec![NewJob {
        id: JobId(Uuid::from_u128(job)),
        job_type: TYPE,
        unique_type: false,
        due: Due::Now,
        config: Payload::from_json("null"),
        trace: None,
        token: 1,
    }]);
    store.inner.execute(None, &command).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_is_never_answered_is_given_up_and_repeated() {
    let bench = Bench::start(COMPLETE, &[Fault::Hang], &[]).await;
    let job = bench.ended(COMPLETE).await;
    assert_eq!(job.runs.len(), 1);
    // Long before its lease would have run out.
    let waited = bench.clock.timestamp().saturating_since(job.spawned_at);
    assert!(waited < Duration::from_secs(40), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn an_end_whose_reply_is_lost_is_recorded_once() {
    let faults = [Fault::LoseReply, Fault::Hang, Fault::LoseReply];
    let bench = Bench::start(COMPLETE, &[], &faults).await;
    let job = bench.ended(COMPLETE).await;
    bench.driver.shutdown().await;
    assert_eq!(bench.read(COMPLETE).await, job);
    assert_eq!((job.runs.len(), bench.runs.load(Ordering::SeqCst)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_panics_does_not_take_the_driver_along() {
    let bench = Bench::start(COMPLETE, &[Fault::Panic], &[Fault::Panic]).await;
    assert_eq!(bench.ended(COMPLETE).await.state(), State::Completed);
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_panics_has_failed() {
    let bench = Bench::start(PANIC, &[], &[]).await;
    let job = bench.ended(PANIC).await;
    assert_eq!(job.runs[0].end, RunEnd::Retried);
    let error = job.runs[0].error.as_ref().unwrap();
    assert_eq!(error.as_str(), "the runner panicked: not today");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_aborts_what_stays_and_puts_it_back() {
    let bench = Bench::start(STAY, &[], &[]).await;
    bench.started.notified().await;
    let asked = bench.clock.timestamp();
    bench.driver.shutdown().await;
    let waited = bench.clock.timestamp().saturating_since(asked);
    assert!(
        waited >= Duration::from_secs(5) && waited < Duration::from_secs(6),
        "{waited:?}"
    );
    let job = bench.read(STAY).await;
    assert_eq!(
        (job.state(), job.runs[0].end),
        (State::Pending, RunEnd::Interrupted)
    );
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_panics_while_it_is_aborted_is_not_forgotten() {
    let bench = Bench::start(PANIC_WHEN_DROPPED, &[], &[]).await;
    bench.started.notified().await;
    bench.driver.shutdown().await;
    let job = bench.read(PANIC_WHEN_DROPPED).await;
    assert_eq!(job.runs[0].end, RunEnd::Retried);
    assert_eq!(job.state(), State::Pending);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_even_if_the_store_never_answers_again() {
    let bench = Bench::start(COMPLETE, &[], &[Fault::Hang; 9]).await;
    bench.started.notified().await;
    let asked = bench.clock.timestamp();
    bench.driver.shutdown().await;
    let waited = bench.clock.timestamp().saturating_since(asked);
    assert!(waited <= Duration::from_secs(11), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_handle_that_is_dropped_shuts_the_driver_down() {
    let bench = Bench::start(WAIT_FOR_STOP, &[], &[]).await;
    bench.started.notified().await;
    let (store, clock) = (bench.store.clone(), bench.clock.clone());
    drop(bench);
    for _ in 0..100 {
        if store.inner.jobs().await[0].state() == State::Completed {
            return;
        }
        clock.sleep(Duration::from_millis(50)).await;
    }
    panic!("the runner was not told");
}

#[tokio::test(start_paused = true)]
async fn wake_ups_from_within_and_without_find_new_jobs_at_once() {
    let bench = Bench::start(COMPLETE, &[], &[]).await;
    bench.ended(COMPLETE).await;
    let start = bench.clock.timestamp();
    spawn(&bench.store, 10).await;
    bench.wakes.add(&TYPE);
    bench.ended(10).await;
    spawn(&bench.store, 11).await;
    let outer = bench.store.outer.lock().unwrap().clone().unwrap();
    outer.send(Wake::JobType(TYPE)).await.unwrap();
    bench.ended(11).await;
    let waited = bench.clock.timestamp().saturating_since(start);
    assert!(waited < Duration::from_secs(1), "{waited:?}");
}

#[cfg(feature = "sim")]
#[tokio::test(start_paused = true)]
async fn a_process_dies_where_the_hook_says_and_goes_no_further() {
    use std::rc::Rc;

    use job_tokio::fault::set_hook;

    for (point, job, state, runs) in [
        ("after_reclaim", STAY, State::Running, 1),
        ("after_claim", STAY, State::Running, 0),
        ("before_start", STAY, State::Running, 0),
        ("after_heartbeat", STAY, State::Running, 1),
        ("before_release", STAY, State::Running, 1),
        ("after_run", COMPLETE, State::Running, 1),
        ("after_finish", COMPLETE, State::Completed, 1),
    ] {
        let dead = Rc::new(Notify::new());
        let dies = Rc::clone(&dead);
        set_hook(Some(Rc::new(move |_, at| {
            if at == point {
                dies.notify_one();
            }
            at == point
        })));
        let bench = Bench::start(job, &[], &[]).await;
        if point == "before_release" {
            bench.started.notified().await;
        }
        let kill = async {
            dead.notified().await;
            bench.clock.sleep(LEASE).await;
            bench.driver.kill();
        };
        let shutdown = async {
            if point == "before_release" {
                bench.driver.shutdown().await;
            }
        };
        tokio::join!(kill, shutdown);
        bench.driver.shutdown().await;
        set_hook(None);
        let seen = (
            bench.read(job).await.state(),
            bench.runs.load(Ordering::SeqCst),
        );
        assert_eq!(seen, (state, runs), "{point}");
    }
}
