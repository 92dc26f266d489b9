//! A worker that works by hand: only while a test awaits it, one job at a time, and in
//! the task of the test.

use std::collections::{BTreeMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use job_engine::store::ClaimedJob;
use job_engine::worker::{Action, Ended, Input, OpId, WorkerConfig};
use job_engine::{Command, Entropy, JobId, JobType, Reply, Run, StoreError, Timestamp, Worker};
use job_tokio::{RunJob, StopSignal, panic_text};

use super::watch::Watch;
use crate::backend::Backend;
use crate::core::Core;
use crate::registry::Runners;

/// So often a job may run while a test awaits one call. One that reschedules itself at
/// once would go on for ever.
const RUNS_OF_JOB_MAX: u32 = 10_000;

/// The worker of one call: the engine, with one place.
pub(super) struct Hand<'a, B: Backend> {
    core: &'a Arc<Core<B>>,
    runners: &'a Runners<B>,
    watch: Watch<'a>,
    books: &'a mut Books,
    worker: Worker,
    config: WorkerConfig,
    commands: VecDeque<(OpId, Command)>,
    claimed: VecDeque<ClaimedJob>,
    stopped: bool,
    runs: usize,
}

/// What a test knows of its jobs.
#[derive(Debug, Default)]
pub(super) struct Books {
    /// When the next job of each type is due, for types of which none was due at the
    /// last look.
    pub(super) next_due: BTreeMap<JobType, Timestamp>,
    /// When the leases end of what was claimed and has not ended. Only jobs whose worker
    /// died stay there: it lost them on purpose, or the call was given up on.
    pub(super) leased: BTreeMap<Run, Timestamp>,
    /// How often each job has run since the test made its call.
    pub(super) runs: BTreeMap<JobId, u32>,
}

impl<'a, B: Backend> Hand<'a, B> {
    pub(super) fn new(
        core: &'a Arc<Core<B>>,
        runners: &'a Runners<B>,
        watch: Watch<'a>,
        books: &'a mut Books,
        config: WorkerConfig,
        entropy: Entropy,
    ) -> Self {
        let config = WorkerConfig {
            jobs_max: 1,
            jobs_min: 1,
            ..config
        };
        Self {
            worker: Worker::new(core.clock().timestamp(), config.clone(), entropy),
            core,
            runners,
            watch,
            books,
            config,
            commands: VecDeque::new(),
            claimed: VecDeque::new(),
            stopped: false,
            runs: 0,
        }
    }

    /// Claims, runs and records until nothing is due, or so many runs have ended.
    /// Returns how many have.
    pub(super) async fn work(mut self, runs_max: usize) -> Result<usize, StoreError> {
        let mut runs_seen = 0;
        self.input(Input::TimerFired);
        while !self.stopped {
            self.take_actions();
            if let Some((op, command)) = self.commands.pop_front() {
                self.execute(op, command).await?;
            } else if let Some(job) = self.claimed.pop_front() {
                let run = job.run;
                let ended = self.run(job).await;
                self.runs += 1;
                self.input(Input::RunEnded { run, ended });
                if self.runs == runs_max {
                    self.input(Input::ShutdownRequested);
                }
            } else if self.runs > runs_seen {
                // They may have led to others.
                runs_seen = self.runs;
                for of_type in self.config.types.clone() {
                    self.input(Input::Woken(of_type.job_type));
                }
            } else {
                self.input(Input::ShutdownRequested);
            }
        }
        Ok(self.runs)
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
                Action::Stopped => self.stopped = true,
                // Nothing runs that could be told, and nobody else listens.
                Action::Stop { .. }
                | Action::Abort(_)
                | Action::Announce(_)
                | Action::Observe(_) => {}
            }
        }
    }

    async fn execute(&mut self, op: OpId, command: Command) -> Result<(), StoreError> {
        let claimed_at = self.core.clock().timestamp();
        let reply = self.core.execute(&command);
        let reply = self.watch.await_end("a call of the store", reply).await?;
        match (&command, &reply) {
            (Command::Claim(claim), Reply::Claimed(claimed)) => {
                for quota in &claim.quotas {
                    self.books.next_due.remove(&quota.job_type);
                }
                let next_due = claimed.next_due.iter().cloned();
                self.books.next_due.extend(next_due);
                let lease_ends = claimed_at.saturating_add(claim.lease);
                let leased = claimed.jobs.iter().map(|job| (job.run, lease_ends));
                self.books.leased.extend(leased);
            }
            (Command::Finish(finishes), _) => {
                for finish in finishes {
                    self.books.leased.remove(&finish.run);
                }
            }
            _ => {}
        }
        let result = Ok(reply);
        self.input(Input::Replied { op, result });
        Ok(())
    }

    async fn run(&mut self, job: ClaimedJob) -> Ended {
        let (run, name) = (job.run, runner_name(&job));
        let runs = self.books.runs.entry(run.job).or_default();
        *runs += 1;
        assert!(
            *runs <= RUNS_OF_JOB_MAX,
            "{name} has run {RUNS_OF_JOB_MAX} times, and is due again: does it reschedule \
             itself for ever?"
        );
        let work = AssertUnwindSafe(self.runners.run_job(job, StopSignal::never()));
        match self.watch.await_end(&name, work.catch_unwind()).await {
            Ok(ended) => {
                if matches!(ended, Ended::Settled(_) | Ended::LeaseLost) {
                    // That was recorded, or will be by somebody else.
                    self.books.leased.remove(&run);
                }
                ended
            }
            Err(panic) => Ended::Failed(panic_text(&*panic)),
        }
    }
}

/// What the runner of a job is called in a message.
pub(super) fn runner_name(job: &ClaimedJob) -> String {
    format!("the runner of job {}, type {}", job.run.job, job.job_type)
}
