//! A worker that works by hand: only while a test awaits it, one job at a time, and in
//! the task of the test.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use job_engine::store::ClaimedJob;
use job_engine::worker::{Action, Ended, Input, OpId, StopReason, WorkerConfig};
use job_engine::{Command, Entropy, JobId, JobType, Reply, Run, StoreError, Timestamp, Worker};
use job_tokio::clock::Attended;
use job_tokio::guarded::caught;
use job_tokio::{RunJob, StopSender, StopSignal, panicked};

use super::watch::Watch;
use crate::backend::Backend;
use crate::core::Core;
use crate::registry::Runners;

/// So often a job may run while a test awaits one call. One that reschedules itself at
/// once would go on for ever.
const RUNS_OF_JOB_MAX: u32 = 10_000;

/// A worker: the engine, with one place.
pub(super) struct Hand<B: Backend> {
    core: Arc<Core<B>>,
    worker: Worker,
    types: Vec<JobType>,
    /// It stops after so many runs.
    runs_max: usize,
    /// Whether it rests while its runner sleeps. Otherwise that is waited for.
    may_rest: bool,
    commands: VecDeque<(OpId, Command)>,
    claimed: VecDeque<ClaimedJob>,
    running: Option<Running>,
    stopped: bool,
    runs: usize,
    runs_seen: usize,
}

/// A runner at work.
struct Running {
    run: Run,
    name: String,
    stop: StopSender,
    work: Attended<BoxFuture<'static, Ended>>,
}

/// What a worker needs of the call for which it works.
pub(super) struct Call<'a, B: Backend> {
    pub(super) runners: &'a Runners<B>,
    pub(super) watch: Watch<'a>,
    pub(super) books: &'a mut Books,
}

/// What a test knows of its jobs.
#[derive(Debug, Default)]
pub(super) struct Books {
    /// When the next job of each type is due, for types of which none was due at the
    /// last look.
    pub(super) next_due: BTreeMap<JobType, Timestamp>,
    /// When the leases end of what was claimed and has not ended: of runs whose workers
    /// rest, and of those whose worker died. It lost them on purpose, or the call was
    /// given up on.
    pub(super) leased: BTreeMap<Run, Timestamp>,
    /// How often each job has run since the test made its call.
    pub(super) runs: BTreeMap<JobId, u32>,
}

impl<B: Backend> Hand<B> {
    pub(super) fn new(core: &Arc<Core<B>>, config: WorkerConfig, entropy: Entropy) -> Self {
        let types = config.types.iter().map(|of_type| of_type.job_type.clone());
        let types = types.collect();
        let config = WorkerConfig {
            jobs_max: 1,
            jobs_min: 1,
            // It looks when there may be something, and no timer is to move the clock for
            // nothing.
            poll_interval: Duration::MAX,
            poll_interval_deaf: Duration::MAX,
            ..config
        };
        Self {
            worker: Worker::new(core.clock().timestamp(), config, entropy),
            core: Arc::clone(core),
            types,
            runs_max: usize::MAX,
            may_rest: false,
            commands: VecDeque::new(),
            claimed: VecDeque::new(),
            running: None,
            stopped: false,
            runs: 0,
            runs_seen: 0,
        }
    }

    /// One that stops after so many runs.
    pub(super) fn runs_max(self, runs_max: usize) -> Self {
        Self { runs_max, ..self }
    }

    /// One that may rest while its runner sleeps.
    pub(super) fn may_rest(self) -> Self {
        Self {
            may_rest: true,
            ..self
        }
    }

    /// Claims, runs and records until nothing is due, or so many runs have ended as
    /// there may be: then it has stopped. Or until its runner sleeps, if it may rest; it
    /// claims nothing more then, but keeps its lease when it works again. Returns how
    /// many runs have ended meanwhile.
    pub(super) async fn work(&mut self, call: &mut Call<'_, B>) -> Result<usize, StoreError> {
        let runs_before = self.runs;
        self.input(Input::TimerFired);
        while !self.stopped {
            self.take_actions();
            if let Some((op, command)) = self.commands.pop_front() {
                self.execute(call, op, command).await?;
            } else if let Some(running) = &mut self.running {
                match running.go_on(&call.watch, self.may_rest).await {
                    Some(ended) => self.run_ended(call.books, ended),
                    None => {
                        self.runs_max = 1;
                        break;
                    }
                }
            } else if let Some(job) = self.claimed.pop_front() {
                self.start(call, job);
            } else if self.runs > self.runs_seen {
                // They may have led to others.
                self.runs_seen = self.runs;
                for job_type in self.types.clone() {
                    self.input(Input::Woken(job_type));
                }
            } else {
                self.input(Input::ShutdownRequested);
            }
        }
        Ok(self.runs - runs_before)
    }

    /// Whether there is nothing left for it to do.
    pub(super) fn has_stopped(&self) -> bool {
        self.stopped
    }

    /// When it has to work again, at the latest: to keep its lease, say.
    pub(super) fn next_timer(&self) -> Option<Timestamp> {
        self.worker.poll_timeout()
    }

    fn input(&mut self, input: Input) {
        self.worker
            .handle_input(self.core.clock().timestamp(), input);
    }

    fn take_actions(&mut self) {
        while let Some(action) = self.worker.poll_action() {
            match action {
                Action::Execute { op, command } => self.commands.push_back((op, command)),
                Action::Start(job) => self.claimed.push_back(job),
                Action::Stop { run, reason } => self.stop(run, reason),
                Action::Abort(run) => self.abort(run),
                Action::Stopped => self.stopped = true,
                // Nobody listens.
                Action::Announce(_) | Action::Observe(_) => {}
            }
        }
    }

    fn stop(&self, run: Run, reason: StopReason) {
        let running = self.running.as_ref();
        if let Some(running) = running.filter(|running| running.run == run) {
            running.stop.stop(reason);
        }
    }

    fn abort(&mut self, run: Run) {
        if let Some(running) = self.running.take_if(|running| running.run == run) {
            drop(running);
            let ended = Ended::Aborted;
            self.input(Input::RunEnded { run, ended });
        }
    }

    async fn execute(
        &mut self,
        call: &mut Call<'_, B>,
        op: OpId,
        command: Command,
    ) -> Result<(), StoreError> {
        let sent_at = self.core.clock().timestamp();
        let reply = self.core.execute(&command);
        let reply = call.watch.await_end("a call of the store", reply).await?;
        let books = &mut *call.books;
        match (&command, &reply) {
            (Command::Claim(claim), Reply::Claimed(claimed)) => {
                for quota in &claim.quotas {
                    books.next_due.remove(&quota.job_type);
                }
                books.next_due.extend(claimed.next_due.iter().cloned());
                let lease_ends = sent_at.saturating_add(claim.lease);
                let leased = claimed.jobs.iter().map(|job| (job.run, lease_ends));
                books.leased.extend(leased);
            }
            (Command::Heartbeat(heartbeat), _) => {
                let lease_ends = sent_at.saturating_add(heartbeat.lease);
                for run in &heartbeat.runs {
                    if let Some(ends) = books.leased.get_mut(run) {
                        *ends = lease_ends;
                    }
                }
            }
            (Command::Finish(finishes), _) => {
                for finish in finishes {
                    books.leased.remove(&finish.run);
                }
            }
            _ => {}
        }
        let result = Ok(reply);
        self.input(Input::Replied { op, result });
        Ok(())
    }

    fn start(&mut self, call: &mut Call<'_, B>, job: ClaimedJob) {
        let (run, name) = (job.run, runner_name(&job));
        let runs = call.books.runs.entry(run.job).or_default();
        *runs += 1;
        assert!(
            *runs <= RUNS_OF_JOB_MAX,
            "{name} has run {RUNS_OF_JOB_MAX} times, and is due again: does it reschedule \
             itself for ever?"
        );
        let (stop, signal) = StopSignal::new();
        let work = call.runners.run_job(job, signal);
        let work = caught(|| work);
        let work = work.map(|ended| ended.unwrap_or_else(|panic| panicked(panic.message())));
        self.running = Some(Running {
            run,
            name,
            stop,
            work: self.core.clock().attend(work.boxed()),
        });
    }

    fn run_ended(&mut self, books: &mut Books, ended: Ended) {
        let running = self.running.take().expect("it has just ended");
        let run = running.run;
        if matches!(ended, Ended::Settled(_) | Ended::LeaseLost) {
            // That was recorded, or will be by somebody else.
            books.leased.remove(&run);
        }
        self.runs += 1;
        self.input(Input::RunEnded { run, ended });
        if self.runs >= self.runs_max {
            self.input(Input::ShutdownRequested);
        }
    }
}

impl Running {
    /// How the runner ended; `None` if it sleeps and its worker may rest.
    async fn go_on(&mut self, watch: &Watch<'_>, may_rest: bool) -> Option<Ended> {
        match may_rest {
            true => {
                let sleeps = |work: &Attended<_>| work.next_wake().is_some();
                let end = watch.end_unless(&mut self.work, sleeps);
                watch.await_end(&self.name, end).await
            }
            false => Some(watch.await_end(&self.name, &mut self.work).await),
        }
    }
}

/// What the runner of a job is called in a message.
pub(super) fn runner_name(job: &ClaimedJob) -> String {
    format!("the runner of job {}, type {}", job.run.job, job.job_type)
}
