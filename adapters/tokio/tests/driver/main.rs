//! The driver over a store that misbehaves, on paused time.

mod events;

use std::collections::{BTreeSet, VecDeque};
use std::future::pending;
use std::panic::panic_any;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::DateTime;
use futures_util::FutureExt;
use job_engine::history::Snapshot;
use job_engine::lifecycle::{RunEnd, State};
use job_engine::store::{ClaimedJob, NewJob};
use job_engine::worker::{Ended, StopReason, TypeConfig, WorkerConfig};
use job_engine::{
    Command, Due, Entropy, JobId, JobType, Payload, Reply, RetrySettings, StoreError, Timestamp,
    WorkerId,
};
use job_tokio::{
    Announcer, ClockHandle, DriverConfig, DriverHandle, Hold, MemoryStore, RunJob, StopSignal,
    Store, Wake, Wakes, WorkerEnded,
};
use tokio::sync::{Notify, mpsc};
use tracing::Level;
use uuid::Uuid;

use events::{Call, Events};

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
    /// It is carried out and never answered, and whoever gives up meets a panic.
    HangThenPanic,
}

/// A store whose next claims and ends of runs go wrong.
#[derive(Debug)]
struct Faulty {
    inner: MemoryStore,
    claims: Arc<Mutex<VecDeque<Fault>>>,
    finishes: Arc<Mutex<VecDeque<Fault>>>,
    outer: Arc<Mutex<Option<mpsc::Sender<Wake>>>>,
    /// It is listened to for the n-th time. The first ends in a panic once it is deaf, the
    /// second at once.
    listens: Arc<AtomicU32>,
    deaf: Arc<Notify>,
    /// How often it has told other processes, which takes a while.
    announced: Arc<AtomicU32>,
    /// The driver, which clones it, panics.
    panics_in_driver: Arc<AtomicBool>,
}

impl Clone for Faulty {
    fn clone(&self) -> Self {
        assert!(!self.panics_in_driver.load(Ordering::SeqCst), "planted");
        Self {
            inner: self.inner.clone(),
            claims: Arc::clone(&self.claims),
            finishes: Arc::clone(&self.finishes),
            outer: Arc::clone(&self.outer),
            listens: Arc::clone(&self.listens),
            deaf: Arc::clone(&self.deaf),
            announced: Arc::clone(&self.announced),
            panics_in_driver: Arc::clone(&self.panics_in_driver),
        }
    }
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
            Some(Fault::HangThenPanic) => {
                let _bomb = PanicsWhenDropped;
                pending().await
            }
            Some(Fault::LoseReply) => Err(StoreError::Unknown("planted".to_owned())),
            _ => reply,
        }
    }

    async fn listen(&self, wakes: mpsc::Sender<Wake>) {
        let before = self.listens.fetch_add(1, Ordering::SeqCst);
        wakes.send(Wake::Restored).await.unwrap();
        *self.outer.lock().unwrap() = Some(wakes);
        match before {
            0 => {
                self.deaf.notified().await;
                panic!("planted");
            }
            1 => {}
            _ => pending().await,
        }
    }

    async fn announce(&self, _: &BTreeSet<JobType>) -> Result<(), StoreError> {
        tokio::time::sleep(Duration::from_millis(100)).await;
        self.announced.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// A runner that does what its job's number says.
#[derive(Debug, Default)]
struct Runners {
    started: Arc<Notify>,
    runs: Arc<AtomicU32>,
    held: Arc<Mutex<Option<Hold>>>,
}

const COMPLETE: u128 = 1;
const PANIC: u128 = 2;
const STAY: u128 = 3;
const PANIC_WHEN_DROPPED: u128 = 4;
const WAIT_FOR_STOP: u128 = 5;
const PANIC_WITH_A_BOMB: u128 = 6;
const HOLD: u128 = 7;

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
    ) -> impl Future<Output = Ended> + Send + use<> {
        let (started, runs) = (Arc::clone(&self.started), Arc::clone(&self.runs));
        let held = Arc::clone(&self.held);
        async move {
            runs.fetch_add(1, Ordering::SeqCst);
            started.notify_one();
            match job.run.job.0.as_u128() {
                PANIC if job.attempt == 1 => panic!("not today"),
                PANIC_WITH_A_BOMB if job.attempt == 1 => panic_any(PanicsWhenDropped),
                HOLD => {
                    *held.lock().unwrap() = Some(signal.hold());
                    pending().await
                }
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
    held: Arc<Mutex<Option<Hold>>>,
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
            listens: Arc::default(),
            deaf: Arc::default(),
            announced: Arc::default(),
            panics_in_driver: Arc::default(),
        };
        spawn(&store, job).await;
        let (runners, wakes) = (Runners::default(), Wakes::new());
        let (started, runs) = (Arc::clone(&runners.started), Arc::clone(&runners.runs));
        let held = Arc::clone(&runners.held);
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
            held,
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
    bench.driver.shutdown().await.unwrap();
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
    bench.driver.shutdown().await.unwrap();
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
    // Before it is over, others have heard of what they can run now.
    assert_eq!(bench.store.announced.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_panics_while_it_is_aborted_is_not_forgotten() {
    let bench = Bench::start(PANIC_WHEN_DROPPED, &[], &[]).await;
    bench.started.notified().await;
    bench.driver.shutdown().await.unwrap();
    let job = bench.read(PANIC_WHEN_DROPPED).await;
    assert_eq!(job.runs[0].end, RunEnd::Retried);
    assert_eq!(job.state(), State::Pending);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_even_if_the_store_never_answers_again() {
    let bench = Bench::start(COMPLETE, &[], &[Fault::Hang; 9]).await;
    bench.started.notified().await;
    let asked = bench.clock.timestamp();
    bench.driver.shutdown().await.unwrap();
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

#[tokio::test(start_paused = true)]
async fn a_panic_that_panics_when_it_is_dropped_fails_its_run_and_no_other() {
    let bench = Bench::start(PANIC_WITH_A_BOMB, &[], &[]).await;
    spawn(&bench.store, COMPLETE).await;
    let job = bench.ended(PANIC_WITH_A_BOMB).await;
    assert_eq!(job.runs[0].end, RunEnd::Retried);
    let error = job.runs[0].error.as_ref().unwrap();
    assert_eq!(error.as_str(), "the runner panicked: no message");
    assert_eq!(bench.ended(COMPLETE).await.state(), State::Completed);
    bench.driver.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_store_call_that_panics_when_it_is_given_up_is_made_again() {
    let faults = [Fault::HangThenPanic];
    let bench = Bench::start(COMPLETE, &faults, &faults).await;
    assert_eq!(bench.ended(COMPLETE).await.runs.len(), 1);
    bench.driver.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_held_is_not_put_back_until_it_is_let_go() {
    let bench = Bench::start(HOLD, &[], &[]).await;
    bench.started.notified().await;
    let shutdown = bench.driver.shutdown();
    let let_go = async {
        // The runner was aborted after 5 s.
        bench.clock.sleep(Duration::from_secs(8)).await;
        assert_eq!(bench.read(HOLD).await.state(), State::Running);
        drop(bench.held.lock().unwrap().take());
        bench.clock.timestamp()
    };
    let (ended, let_go) = tokio::join!(shutdown, let_go);
    ended.unwrap();
    let waited = bench.clock.timestamp().saturating_since(let_go);
    assert!(waited < Duration::from_secs(1), "{waited:?}");
    let job = bench.read(HOLD).await;
    assert_eq!(
        (job.state(), job.runs[0].end),
        (State::Pending, RunEnd::Interrupted)
    );
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_wait_for_ever_for_a_run_that_is_held() {
    let bench = Bench::start(HOLD, &[], &[]).await;
    bench.started.notified().await;
    let asked = bench.clock.timestamp();
    bench.driver.shutdown().await.unwrap();
    let waited = bench.clock.timestamp().saturating_since(asked);
    assert!(waited < Duration::from_secs(11), "{waited:?}");
    assert_eq!(bench.read(HOLD).await.state(), State::Running);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_stops_to_listen_is_known_to_and_listens_again() {
    let bench = Bench::start(COMPLETE, &[], &[]).await;
    bench.ended(COMPLETE).await;
    // Its announcement is lost with the listener, so whoever notices looks for it.
    spawn(&bench.store, 10).await;
    let start = bench.clock.timestamp();
    bench.store.deaf.notify_one();
    bench.ended(10).await;
    while bench.store.listens.load(Ordering::SeqCst) < 3 {
        bench.clock.sleep(Duration::from_millis(100)).await;
    }
    bench.clock.sleep(Duration::from_millis(100)).await;
    spawn(&bench.store, 11).await;
    let outer = bench.store.outer.lock().unwrap().clone().unwrap();
    outer.send(Wake::JobType(TYPE)).await.unwrap();
    bench.ended(11).await;
    let waited = bench.clock.timestamp().saturating_since(start);
    assert!(waited < Duration::from_secs(5), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_panics_is_heard_of_each_time_that_somebody_asks() {
    let events = Events::default();
    let _guard = tracing::subscriber::set_default(events.clone());
    let bench = Bench::start(STAY, &[], &[]).await;
    bench.started.notified().await;
    bench.store.panics_in_driver.store(true, Ordering::SeqCst);
    bench.wakes.add(&TYPE);
    let panicked = Err(WorkerEnded::Panicked("planted".to_owned()));
    assert_eq!(bench.driver.ended().await, panicked);
    for _ in 0..2 {
        assert_eq!(bench.driver.shutdown().await, panicked);
    }
    assert_eq!(events.count(Level::ERROR), 1);
}

fn paused_runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().start_paused(true).build().unwrap()
}

#[test]
fn a_driver_whose_runtime_is_dropped_is_heard_of() {
    for asked in [false, true] {
        let events = Events::default();
        let _guard = tracing::subscriber::set_default(events.clone());
        let first = paused_runtime();
        let bench = first.block_on(async {
            let bench = Bench::start(STAY, &[], &[]).await;
            bench.started.notified().await;
            bench
        });
        if asked {
            assert_eq!(bench.driver.shutdown().now_or_never(), None);
        }
        drop(first);
        let told = (events.count(Level::WARN), events.count(Level::ERROR));
        assert_eq!(told, if asked { (1, 0) } else { (0, 1) });
        let second = paused_runtime();
        for _ in 0..2 {
            let shut_down = second.block_on(bench.driver.shutdown());
            assert_eq!(shut_down, Err(WorkerEnded::RuntimeDropped));
        }
    }
}

#[test]
fn a_driver_whose_handle_is_dropped_before_its_runtime_was_shutting_down() {
    let events = Events::default();
    let _guard = tracing::subscriber::set_default(events.clone());
    let runtime = paused_runtime();
    drop(runtime.block_on(Bench::start(STAY, &[], &[])));
    drop(runtime);
    assert_eq!(
        (events.count(Level::WARN), events.count(Level::ERROR)),
        (1, 0)
    );
}

#[test]
fn a_reply_is_waited_for_during_a_quarter_of_the_lease_within_limits() {
    for (lease, limit) in [(0, 1), (4, 1), (60, 15), (120, 30), (3_600, 30)] {
        let limit_of = job_tokio::store_timeout(Duration::from_secs(lease));
        assert_eq!(limit_of, Duration::from_secs(limit), "{lease} s");
    }
}

#[tokio::test(start_paused = true)]
async fn an_announcer_goes_on_in_another_runtime() {
    #[derive(Clone)]
    struct Announced(MemoryStore, mpsc::UnboundedSender<BTreeSet<JobType>>);
    impl Store for Announced {
        async fn execute(
            &self,
            now: Option<Timestamp>,
            command: &Command,
        ) -> Result<Reply, StoreError> {
            self.0.execute(now, command).await
        }

        async fn announce(&self, types: &BTreeSet<JobType>) -> Result<(), StoreError> {
            self.1.send(types.clone()).unwrap();
            assert!(!types.contains(&JobType::new("panic")), "planted");
            Ok(())
        }
    }
    let (sender, mut announced) = mpsc::unbounded_channel();
    let store = Announced(MemoryStore::new(|| Timestamp::EPOCH), sender);
    let worker = WorkerId(Uuid::from_u128(1));
    let announcer = std::thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        runtime.block_on(async { Announcer::start(worker, store) })
    });
    let announcer = announcer.join().unwrap();
    for name in ["panic", "mail"] {
        let job_type = JobType::new(name);
        announcer.announce(&job_type);
        assert_eq!(announced.recv().await, Some([job_type].into()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_layer_that_panics_costs_neither_a_reply_nor_the_end_of_a_run() {
    for fails in [
        Call::NewSpan,
        Call::Enter,
        Call::Exit,
        Call::Event,
        Call::Close,
    ] {
        let events = Events {
            fails: Some(fails),
            ..Events::default()
        };
        let _guard = tracing::subscriber::set_default(events.clone());
        let bench = Bench::start(COMPLETE, &[], &[Fault::LoseReply]).await;
        spawn(&bench.store, PANIC).await;
        bench.wakes.add(&TYPE);
        let (job, failed) = (bench.ended(COMPLETE).await, bench.ended(PANIC).await);
        assert_eq!(job.runs.len(), 1, "{fails:?}");
        let error = failed.runs[0].error.as_ref().unwrap();
        assert_eq!(
            error.as_str(),
            "the runner panicked: not today",
            "{fails:?}"
        );
        assert_eq!(bench.runs.load(Ordering::SeqCst), 3, "{fails:?}");
        bench.driver.shutdown().await.unwrap();
        assert!(events.panics.load(Ordering::SeqCst) > 0, "{fails:?}");
    }
}

#[cfg(feature = "sim")]
#[tokio::test(start_paused = true)]
async fn a_driver_that_is_killed_leaves_its_run_and_runs_no_longer() {
    let bench = Bench::start(STAY, &[], &[]).await;
    bench.started.notified().await;
    assert!(bench.driver.is_running());
    bench.driver.kill();
    bench.driver.shutdown().await.unwrap();
    assert!(!bench.driver.is_running());
    assert_eq!(bench.read(STAY).await.state(), State::Running);
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
                bench.driver.shutdown().await.unwrap();
            }
        };
        tokio::join!(kill, shutdown);
        bench.driver.shutdown().await.unwrap();
        set_hook(None);
        let seen = (
            bench.read(job).await.state(),
            bench.runs.load(Ordering::SeqCst),
        );
        assert_eq!(seen, (state, runs), "{point}");
    }
}
