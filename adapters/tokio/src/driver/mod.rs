//! The driver: pumps a [`Worker`] on tokio, over any [`Store`] and clock.
//!
//! It decides nothing. It performs the actions of the engine and brings back
//! what came of them, in one loop; every task that it starts is owned by it.

mod life;
mod listener;
mod observe;
mod runs;
mod signal;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use job_engine::store::Outcome;
use job_engine::worker::{Action, Ended, Input, OpId, SETTLE_TIMEOUT, WorkerConfig};
use job_engine::{Command, Entropy, Reply, StoreError, Timestamp, Worker};
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};

pub use life::WorkerEnded;
pub use runs::panicked;
pub use signal::{Hold, StopSender, StopSignal};

use crate::announcer::Announcer;
use crate::clock::{BusyGuard, ClockHandle};
use crate::fault::fault_point;
use crate::guarded::{GuardedSpan, Panic, caught, guarded, traced};
use crate::observer::{Seen, saw};
use crate::store::{Store, Wake};
use crate::turn::{in_turn, wait};
use crate::wakes::Wakes;
use life::{Asked, Life, Stage};
use runs::RunTasks;

/// The longest that a store call may take before its outcome counts as unknown.
const STORE_TIMEOUT_MAX: Duration = Duration::from_secs(30);
/// The shortest such limit, for short leases.
const STORE_TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// Wake-ups of other processes that may wait to be taken in; more are dropped.
const WAKES_MAX: usize = 1_024;

/// How long the driver waits for the reply to a command of a worker with this
/// lease: a quarter of it, 1 s to 30 s. Then the outcome counts as unknown.
pub fn store_timeout(lease: Duration) -> Duration {
    (lease / 4).clamp(STORE_TIMEOUT_MIN, STORE_TIMEOUT_MAX)
}

/// Makes and runs the runner of a claimed job.
pub trait RunJob: Send + Sync + 'static {
    /// Runs one job to its end. A panic, here or in the future, is caught and counts as
    /// a failure. The future borrows nothing. `signal` tells when it should end early.
    fn run_job(
        &self,
        job: job_engine::store::ClaimedJob,
        signal: StopSignal,
    ) -> impl Future<Output = Ended> + Send + use<Self>;
}

/// What a driver needs.
#[derive(Debug)]
pub struct DriverConfig<S, R> {
    /// Where the jobs are.
    pub store: S,
    /// What time it is.
    pub clock: ClockHandle,
    /// How the worker behaves.
    pub worker: WorkerConfig,
    /// Where its randomness comes from.
    pub entropy: Entropy,
    /// What runs the jobs.
    pub runners: Arc<R>,
    /// Wake-ups from within this process.
    pub wakes: Wakes,
    /// How other processes are told.
    pub announcer: Announcer,
}

/// A running driver. Dropping it asks the driver to shut down; the driver then
/// ends by itself within the shutdown timeout.
#[derive(Debug)]
pub struct DriverHandle {
    asked: watch::Sender<Asked>,
    stage: watch::Receiver<Stage>,
    #[cfg(feature = "sim")]
    task: tokio::task::AbortHandle,
}

impl DriverHandle {
    /// Starts a driver on the current tokio runtime.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn start<S: Store, R: RunJob>(config: DriverConfig<S, R>) -> Self {
        let (asked_sender, asked) = watch::channel(Asked::Nothing);
        let clock = config.clock.clone();
        let driver = Driver::new(config);
        let worker = driver.worker.id();
        let (life, stage) = Life::new(worker, asked.clone());
        let lives = async move { life.end(caught(|| driver.run(asked)).await) };
        // The one task that nobody owns: it outlives a dropped handle for as
        // long as the shutdown takes.
        #[cfg_attr(
            not(feature = "sim"),
            expect(unused_variables, reason = "nobody kills it")
        )]
        let task = tokio::spawn(clock.participate(in_turn(worker, None, lives)));
        Self {
            asked: asked_sender,
            stage,
            #[cfg(feature = "sim")]
            task: task.abort_handle(),
        }
    }

    /// Asks the driver to shut down and waits until it has. May be called
    /// again, and concurrently.
    ///
    /// # Errors
    ///
    /// If the driver has not shut down, but ended by itself before; each time again.
    pub async fn shutdown(&self) -> Result<(), WorkerEnded> {
        self.ask(Asked::Shutdown);
        self.ended().await
    }

    /// Waits until the driver has ended: somebody else shuts it down, or it ends by itself.
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// If it has ended by itself.
    pub async fn ended(&self) -> Result<(), WorkerEnded> {
        let mut stage = self.stage.clone();
        // An error means that its task is gone. Before, it has told how it ended.
        let _ = stage.wait_for(|stage| *stage != Stage::Running).await;
        match &*stage.borrow() {
            Stage::EndedByItself(why) => Err(why.clone()),
            Stage::Running | Stage::Stopped => Ok(()),
        }
    }

    fn ask(&self, what: Asked) {
        self.asked.send_if_modified(|asked| {
            let first = *asked == Asked::Nothing;
            if first {
                *asked = what;
            }
            first
        });
    }

    /// Ends the driver as a crash of its process would: nothing is told, put
    /// back or waited for, and its runners and store calls are dropped where
    /// they are, when the runtime next gets to it. A [`DriverHandle::shutdown`]
    /// that waits then returns.
    #[cfg(feature = "sim")]
    pub fn kill(&self) {
        self.asked.send_replace(Asked::Death);
        self.task.abort();
    }

    /// Whether the driver goes on: it has not stopped, and nothing killed it.
    #[cfg(feature = "sim")]
    pub fn is_running(&self) -> bool {
        !self.task.is_finished()
    }
}

impl Drop for DriverHandle {
    fn drop(&mut self) {
        self.ask(Asked::Shutdown);
    }
}

struct Driver<S, R> {
    store: S,
    clock: ClockHandle,
    worker: Worker,
    runners: Arc<R>,
    wakes: Wakes,
    announcer: Announcer,
    store_timeout: Duration,
    calls: JoinSet<(OpId, Result<Reply, StoreError>, BusyGuard)>,
    /// The tasks of the calls that are under way.
    called: BTreeMap<OpId, Id>,
    runs: RunTasks,
    stopped: bool,
    /// When it has to have stopped, once it was asked to.
    stops_by: Option<Timestamp>,
    shutdown_timeout: Duration,
}

impl<S: Store, R: RunJob> Driver<S, R> {
    fn new(config: DriverConfig<S, R>) -> Self {
        let lease = config.worker.lease;
        let shutdown_timeout = config.worker.shutdown_timeout;
        let store_timeout = store_timeout(lease);
        let now = config.clock.timestamp();
        let worker = Worker::new(now, config.worker, config.entropy);
        Self {
            store: config.store,
            runners: config.runners,
            wakes: config.wakes,
            announcer: config.announcer,
            store_timeout,
            calls: JoinSet::new(),
            called: BTreeMap::new(),
            runs: RunTasks::new(worker.id(), config.clock.clone()),
            worker,
            clock: config.clock,
            stopped: false,
            stops_by: None,
            shutdown_timeout,
        }
    }

    async fn run(mut self, mut asked: watch::Receiver<Asked>) {
        let worker = self.worker.id();
        let (wakes, mut outer_wakes) = mpsc::channel(WAKES_MAX);
        let mut listener = JoinSet::new();
        let listens = listener::listen(worker, self.store.clone(), self.clock.clone(), wakes);
        listener.spawn(in_turn(worker, None, listens));
        let mut shutting_down = false;
        loop {
            self.perform_actions().await;
            if self.stopped {
                self.announcer.sent(self.time_left()).await;
                return;
            }
            let input = tokio::select! {
                biased;
                () = wait_until(&self.worker, &self.clock) => {
                    Input::TimerFired
                }
                _ = asked.wait_for(|asked| *asked == Asked::Shutdown), if !shutting_down => {
                    shutting_down = true;
                    let limit = self.shutdown_timeout.saturating_add(SETTLE_TIMEOUT);
                    self.stops_by = Some(self.clock.timestamp().saturating_add(limit));
                    Input::ShutdownRequested
                }
                Some((run, ended)) = self.runs.next() => Input::RunEnded { run, ended },
                Some(joined) = self.calls.join_next() => {
                    let Some((op, result)) = self.replied(joined) else {
                        continue;
                    };
                    Input::Replied { op, result }
                }
                types = self.wakes.take() => {
                    let now = self.clock.timestamp();
                    for job_type in types {
                        self.worker.handle_input(now, Input::Woken(job_type));
                    }
                    continue;
                }
                Some(wake) = outer_wakes.recv() => match wake {
                    Wake::JobType(job_type) => Input::Woken(job_type),
                    Wake::Lost => Input::Listening(false),
                    Wake::Restored => Input::Listening(true),
                },
            };
            self.handle_input(input).await;
            // Those that ended together are recorded together.
            while let Some((run, ended)) = self.runs.next_now() {
                self.handle_input(Input::RunEnded { run, ended }).await;
            }
        }
    }

    /// Until a shutdown has to have ended.
    fn time_left(&self) -> Duration {
        let stops_by = self.stops_by.unwrap_or(Timestamp::MIN);
        stops_by.saturating_since(self.clock.timestamp())
    }

    async fn handle_input(&mut self, input: Input) {
        if let Some(point) = point_before(&input) {
            fault_point(self.worker.id(), point).await;
        }
        self.worker.handle_input(self.clock.timestamp(), input);
    }

    async fn perform_actions(&mut self) {
        while let Some(action) = self.worker.poll_action() {
            match action {
                Action::Execute { op, command } => {
                    if gives_back(&command) {
                        fault_point(self.worker.id(), "before_release").await;
                    }
                    self.execute(op, command);
                }
                Action::Start(job) => {
                    fault_point(self.worker.id(), "before_start").await;
                    self.runs.start(&self.runners, job);
                }
                Action::Stop { run, reason } => self.runs.stop(run, reason),
                Action::Abort(run) => self.runs.abort(run),
                Action::Announce(types) => {
                    types.iter().for_each(|t| self.announcer.announce(t));
                }
                Action::Observe(observation) => {
                    saw(self.worker.id(), Seen::Logged(&observation));
                    guarded(|| observe::observe(self.worker.id(), &observation));
                }
                Action::Stopped => self.stopped = true,
            }
        }
    }

    fn execute(&mut self, op: OpId, command: Command) {
        let store = self.store.clone();
        let now = self.clock.store_time();
        let limit = self.store_timeout;
        let busy = self.clock.busy();
        let worker = self.worker.id();
        let call = async move {
            let span = GuardedSpan::new(|| observe::command_span(worker, &command));
            // All of the store's is dropped within what catches its panics.
            let call = || async {
                let call = traced(span, || store.execute(now, &command));
                tokio::time::timeout(limit, call).await
            };
            let result = match caught(call).await {
                Ok(Ok(result)) => result,
                Err(panic) => Err(store_panicked(&panic)),
                Ok(Err(_)) => Err(StoreError::Unknown(format!("no answer within {limit:?}"))),
            };
            (op, result, busy)
        };
        let call = self.calls.spawn(in_turn(worker, None, call));
        self.called.insert(op, call.id());
    }

    /// What came of a call. `None` if that is known already.
    fn replied(
        &mut self,
        joined: Result<(OpId, Result<Reply, StoreError>, BusyGuard), JoinError>,
    ) -> Option<(OpId, Result<Reply, StoreError>)> {
        let (op, result) = match joined {
            Ok((op, result, _busy)) => (op, result),
            // All that is not ours is caught within the task, so this is not expected.
            // The command must be answered all the same.
            Err(error) => {
                let task = error.id();
                let (op, _) = self.called.iter().find(|(_, id)| **id == task)?;
                let error = match Panic::of_task(error) {
                    Some(panic) => store_panicked(&panic),
                    None => StoreError::Unknown("its runtime is gone".to_owned()),
                };
                (*op, Err(error))
            }
        };
        self.called.remove(&op);
        Some((op, result))
    }
}

fn store_panicked(panic: &Panic) -> StoreError {
    StoreError::Unknown(format!("the store panicked: {}", panic.message()))
}

/// The fault point that lies between an input and its being handled.
fn point_before(input: &Input) -> Option<&'static str> {
    match input {
        Input::RunEnded { .. } => Some("after_run"),
        Input::Replied {
            result: Ok(reply), ..
        } => match reply {
            Reply::Claimed(_) => Some("after_claim"),
            Reply::Finished(_) => Some("after_finish"),
            Reply::Heartbeat(_) => Some("after_heartbeat"),
            Reply::Reclaimed(_) => Some("after_reclaim"),
            Reply::Spawned(_)
            | Reply::Checkpointed(_)
            | Reply::Held(_)
            | Reply::Found(_)
            | Reply::History(_) => None,
        },
        Input::TimerFired
        | Input::Woken(_)
        | Input::Listening(_)
        | Input::Replied { result: Err(_), .. }
        | Input::ShutdownRequested => None,
    }
}

/// Whether a command gives a job back that its worker cannot finish.
fn gives_back(command: &Command) -> bool {
    let Command::Finish(finishes) = command else {
        return false;
    };
    let mut outcomes = finishes.iter().map(|finish| &finish.outcome);
    outcomes.any(|outcome| matches!(outcome, Outcome::Released | Outcome::Interrupted))
}

/// Ends when the timer of a worker is due.
async fn wait_until(worker: &Worker, clock: &ClockHandle) {
    match worker.poll_timeout() {
        Some(at) => {
            let left = at.saturating_since(clock.timestamp());
            if !left.is_zero() {
                wait(worker, clock, left).await;
            }
        }
        None => std::future::pending().await,
    }
}
