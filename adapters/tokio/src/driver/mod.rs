//! The driver: pumps a [`Worker`] on tokio, over any [`Store`] and clock.
//!
//! It decides nothing. It performs the actions of the engine and brings back
//! what came of them, in one loop; every task that it starts is owned by it.

mod observe;
mod runs;
mod signal;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use job_engine::planted::{Bug, planted};
use job_engine::store::Outcome;
use job_engine::worker::{Action, Ended, Input, OpId, WorkerConfig};
use job_engine::{Command, Entropy, Reply, StoreError, Worker};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::Instrument;

pub use runs::panic_text;
pub use signal::{StopSender, StopSignal};

use crate::announcer::Announcer;
use crate::clock::{BusyGuard, ClockHandle};
use crate::fault::fault_point;
use crate::store::{Store, Wake};
use crate::turn::{in_turn, wait};
use crate::wakes::Wakes;
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
    /// Runs one job to its end. A panic in the future is caught and counts as a
    /// failure. `signal` tells when it should end early.
    fn run_job(
        &self,
        job: job_engine::store::ClaimedJob,
        signal: StopSignal,
    ) -> impl Future<Output = Ended> + Send + 'static;
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
    shutdown: watch::Sender<bool>,
    stopped: watch::Receiver<bool>,
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
        let (shutdown, shutdown_asked) = watch::channel(false);
        let (stopped_sender, stopped) = watch::channel(false);
        let clock = config.clock.clone();
        let driver = Driver::new(config);
        // The one task that nobody owns: it outlives a dropped handle for as
        // long as the shutdown takes.
        #[cfg_attr(
            not(feature = "sim"),
            expect(unused_variables, reason = "nobody kills it")
        )]
        let task = tokio::spawn(
            clock.participate(in_turn(driver.worker.id(), None, async move {
                driver.run(shutdown_asked).await;
                stopped_sender.send_replace(true);
            })),
        );
        Self {
            shutdown,
            stopped,
            #[cfg(feature = "sim")]
            task: task.abort_handle(),
        }
    }

    /// Asks the driver to shut down and waits until it has. May be called
    /// again, and concurrently.
    pub async fn shutdown(&self) {
        self.shutdown.send_replace(true);
        let mut stopped = self.stopped.clone();
        // An error means that the runtime has dropped the driver: stopped, too.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    }

    /// Ends the driver as a crash of its process would: nothing is told, put
    /// back or waited for, and its runners and store calls are dropped where
    /// they are, when the runtime next gets to it. A [`DriverHandle::shutdown`]
    /// that waits then returns.
    #[cfg(feature = "sim")]
    pub fn kill(&self) {
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
        self.shutdown.send_replace(true);
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
    runs: RunTasks,
    stopped: bool,
}

impl<S: Store, R: RunJob> Driver<S, R> {
    fn new(config: DriverConfig<S, R>) -> Self {
        let lease = config.worker.lease;
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
            runs: RunTasks::new(worker.id(), config.clock.clone()),
            worker,
            clock: config.clock,
            stopped: false,
        }
    }

    async fn run(mut self, mut shutdown_asked: watch::Receiver<bool>) {
        let worker = self.worker.id();
        let (wakes, mut outer_wakes) = mpsc::channel(WAKES_MAX);
        let mut listener = JoinSet::new();
        let store = self.store.clone();
        let listens = async move { store.listen(wakes).await };
        listener.spawn(in_turn(worker, None, listens));
        let mut shutting_down = false;
        loop {
            self.perform_actions().await;
            if self.stopped {
                return;
            }
            let input = tokio::select! {
                biased;
                () = wait_until(&self.worker, &self.clock) => {
                    Input::TimerFired
                }
                _ = shutdown_asked.wait_for(|asked| *asked), if !shutting_down => {
                    shutting_down = true;
                    if planted(Bug::CompleterDiesWithCaller) {
                        self.calls = JoinSet::new();
                    }
                    Input::ShutdownRequested
                }
                Some((run, ended)) = self.runs.next() => Input::RunEnded { run, ended },
                Some(joined) = self.calls.join_next() => {
                    let joined = joined.expect("store calls catch panics, nobody aborts them");
                    let (op, result, _busy) = joined;
                    Input::Replied { op, result }
                }
                types = self.wakes.take() => {
                    let now = self.clock.timestamp();
                    if planted(Bug::WakesLostWhileBusy) && !self.calls.is_empty() {
                        continue;
                    }
                    for job_type in types {
                        self.worker.handle_input(now, Input::Woken(job_type));
                    }
                    continue;
                }
                Some(wake) = outer_wakes.recv() => match wake {
                    Wake::JobType(job_type) => Input::Woken(job_type),
                    Wake::Lost if planted(Bug::DeafListener) => continue,
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
                    self.runs.start(&*self.runners, job);
                }
                Action::Stop { run, reason } => self.runs.stop(run, reason),
                Action::Abort(run) => self.runs.abort(run),
                Action::Announce(types) => {
                    types.iter().for_each(|t| self.announcer.announce(t));
                }
                Action::Observe(observation) => observe::observe(self.worker.id(), &observation),
                Action::Stopped => self.stopped = true,
            }
        }
    }

    fn execute(&mut self, op: OpId, command: Command) {
        let store = self.store.clone();
        let now = self.clock.store_time();
        let limit = if planted(Bug::StoreCallsNeverTimeOut) {
            Duration::MAX
        } else {
            self.store_timeout
        };
        let busy = self.clock.busy();
        let span = observe::command_span(self.worker.id(), &command);
        let call = async move {
            let call = AssertUnwindSafe(store.execute(now, &command)).catch_unwind();
            let result = match tokio::time::timeout(limit, call).await {
                Ok(Ok(result)) => result,
                Ok(Err(_panic)) => Err(StoreError::Unknown("the store panicked".to_owned())),
                Err(_) if planted(Bug::TimeoutIsFailure) => {
                    Err(StoreError::Failed(format!("no answer within {limit:?}")))
                }
                Err(_) => Err(StoreError::Unknown(format!("no answer within {limit:?}"))),
            };
            (op, result, busy)
        };
        let call = in_turn(self.worker.id(), None, call.instrument(span));
        self.calls.spawn(call);
    }
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
            Reply::Spawned(_) | Reply::Checkpointed(_) | Reply::Held(_) | Reply::Found(_) => None,
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
