//! A worker that works by hand: only while a test awaits it, one job at a time, and in
//! the task of the test.

use std::collections::{BTreeMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use job_engine::store::ClaimedJob;
use job_engine::worker::{Action, Ended, Input, OpId, WorkerConfig};
use job_engine::{Command, Entropy, JobType, Reply, StoreError, Timestamp, Worker};
use job_tokio::{RunJob, StopSignal, panic_text};

use super::watch::Watch;
use crate::backend::Backend;
use crate::core::Core;
use crate::registry::Runners;

/// The worker of one call: the engine, with one place.
pub(super) struct Hand<'a, B: Backend> {
    core: &'a Arc<Core<B>>,
    runners: &'a Runners<B>,
    watch: Watch<'a>,
    worker: Worker,
    types: Vec<JobType>,
    commands: VecDeque<(OpId, Command)>,
    claimed: VecDeque<ClaimedJob>,
    stopped: bool,
    done: Done,
}

/// What a hand has done.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// How many runs have ended.
    pub(super) runs: usize,
    /// When the next job of each type is due, for types of which none is due now.
    pub(super) next_due: BTreeMap<JobType, Timestamp>,
}

impl<'a, B: Backend> Hand<'a, B> {
    pub(super) fn new(
        core: &'a Arc<Core<B>>,
        runners: &'a Runners<B>,
        watch: Watch<'a>,
        config: WorkerConfig,
        entropy: Entropy,
    ) -> Self {
        let types = config.types.iter().map(|t| t.job_type.clone()).collect();
        let config = WorkerConfig {
            jobs_max: 1,
            jobs_min: 1,
            ..config
        };
        Self {
            worker: Worker::new(core.clock().timestamp(), config, entropy),
            core,
            runners,
            watch,
            types,
            commands: VecDeque::new(),
            claimed: VecDeque::new(),
            stopped: false,
            done: Done::default(),
        }
    }

    /// Claims, runs and records until nothing is due, or so many runs have ended.
    pub(super) async fn work(mut self, runs_max: usize) -> Result<Done, StoreError> {
        let mut runs_seen = 0;
        self.input(Input::TimerFired);
        while !self.stopped {
            self.take_actions();
            if let Some((op, command)) = self.commands.pop_front() {
                let reply = self.core.execute(&command).await?;
                self.learn(&command, &reply);
                let result = Ok(reply);
                self.input(Input::Replied { op, result });
            } else if let Some(job) = self.claimed.pop_front() {
                let run = job.run;
                let ended = self.run(job).await;
                self.done.runs += 1;
                self.input(Input::RunEnded { run, ended });
                if self.done.runs == runs_max {
                    self.input(Input::ShutdownRequested);
                }
            } else if self.done.runs > runs_seen {
                // They may have led to others.
                runs_seen = self.done.runs;
                for job_type in self.types.clone() {
                    self.input(Input::Woken(job_type));
                }
            } else {
                self.input(Input::ShutdownRequested);
            }
        }
        Ok(self.done)
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
                // Nothing runs while others are told, and the history says the rest.
                Action::Stop { .. }
                | Action::Abort(_)
                | Action::Announce(_)
                | Action::Observe(_) => {}
            }
        }
    }

    fn learn(&mut self, command: &Command, reply: &Reply) {
        let (Command::Claim(claim), Reply::Claimed(claimed)) = (command, reply) else {
            return;
        };
        for quota in &claim.quotas {
            self.done.next_due.remove(&quota.job_type);
        }
        self.done.next_due.extend(claimed.next_due.iter().cloned());
    }

    async fn run(&mut self, job: ClaimedJob) -> Ended {
        let name = runner_name(&job);
        let run = AssertUnwindSafe(self.runners.run_job(job, StopSignal::never()));
        match self.watch.await_end(&name, run.catch_unwind()).await {
            Ok(ended) => ended,
            Err(panic) => Ended::Failed(panic_text(&*panic)),
        }
    }
}

/// What the runner of a job is called in a message.
pub(super) fn runner_name(job: &ClaimedJob) -> String {
    format!("the runner of job {}, type {}", job.run.job, job.job_type)
}
