//! Runners: what the code of an application does.

use std::time::Duration;

use job_engine::store::{Checkpoint, ClaimedJob, Finish, NewJob, Outcome, Written};
use job_engine::worker::{Ended, Input};
use job_engine::{Command, Due, ErrorText, Payload, Reply, Run, StoreError};

use super::process::Waiting;
use super::{Step, Task, World, failed};
use crate::event::{Event, Who};
use crate::scenario::{EndSpec, OnStop, Topic, job_id, job_key};

/// How long the service waits for a commit, and for each try of another call.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a process that a run takes along is away, in milliseconds.
const KILLED_MS: u64 = 1_000;
/// How long a runner takes to react to a stop, in microseconds.
const REACTION_US: (u64, u64) = (100, 50_000);
/// What a runner says that gives its job up.
const GIVEN_UP: &str = "given up, as planned";
/// How long an aborted runner takes to end, in microseconds.
const ABORT_US: u64 = 50;

impl World<'_> {
    pub(super) fn start_runner(&mut self, place: usize, job: &ClaimedJob) {
        let who = self.processes[place].who;
        self.observe(&Event::Started { who, job });
        let (run, key) = (job.run, job_key(job.run.job));
        let spec = self.scenario.job(key).map(|spec| spec.run(run.fence.0));
        let spec = spec.expect("only jobs of the scenario are spawned");
        self.processes[place].start_runner(job, spec, key);
        let steps = self.processes[place].runners[&run].first_steps(self.calm);
        for (after_us, step) in steps.collect::<Vec<_>>() {
            self.step_in(place, run, after_us, step);
        }
    }

    fn step_in(&mut self, place: usize, run: Run, after_us: u64, step: Step) {
        let process = &self.processes[place];
        let at_us = process.late(self.now_us + after_us);
        self.queue
            .push(at_us, Task::Run(place, process.who, run, step));
    }

    /// A runner is asked to stop.
    pub(super) fn stop_runner(&mut self, place: usize, run: Run) {
        let process = &mut self.processes[place];
        let Some(runner) = process.runners.get_mut(&run) else {
            return;
        };
        let early = match runner.spec.on_stop {
            OnStop::Yield => Ended::Rescheduled(Due::Now),
            OnStop::Fail => failed("asked to stop"),
            OnStop::Ignore | OnStop::Block => return,
        };
        if runner.early.is_some() {
            return;
        }
        runner.early = Some(early);
        let key = [
            u64::from(process.who.worker),
            u64::from(runner.job),
            run.fence.0.cast_unsigned(),
        ];
        let after_us = self
            .scenario
            .draws()
            .within(Topic::Reaction, key, REACTION_US);
        self.step_in(place, run, after_us, Step::Yield);
    }

    pub(super) fn abort_runner(&mut self, place: usize, run: Run) {
        let runner = self.processes[place].runners.get(&run);
        if runner.is_some_and(|runner| runner.spec.on_stop != OnStop::Block) {
            self.step_in(place, run, ABORT_US, Step::Abort);
        }
    }

    /// The faults cease: what hangs goes on.
    pub(super) fn release_hanging(&mut self) {
        for place in 0..self.processes.len() {
            let runners = self.processes[place].runners.iter();
            let hanging = runners.filter(|(_, runner)| runner.spec.end == EndSpec::Hang);
            for run in hanging.map(|(run, _)| *run).collect::<Vec<_>>() {
                self.step_in(place, run, 1_000, Step::End);
            }
        }
    }

    /// A runner does its next step.
    pub(super) fn step(&mut self, place: usize, who: Who, run: Run, step: Step) {
        let process = &mut self.processes[place];
        if !process.is(who) {
            return;
        }
        let Some(runner) = process.runners.get_mut(&run) else {
            return;
        };
        match step {
            Step::Abort => self.ended(place, run, Ended::Aborted),
            _ if runner.committing => {}
            Step::Yield => {
                if let Some(ended) = runner.early.take() {
                    self.ended(place, run, ended);
                }
            }
            Step::Checkpoint => {
                let state = Payload::from_json(format!("[{},{}]", runner.job, run.fence));
                let command = Command::Checkpoint(Checkpoint { run, state });
                let call = process.runner_call();
                let waiting = Waiting::Checkpoint(run);
                self.send(place, call, command, Vec::new(), waiting, CALL_TIMEOUT);
            }
            Step::End => {
                let end = runner.spec.end;
                self.end_as_planned(place, run, end);
            }
        }
    }

    fn end_as_planned(&mut self, place: usize, run: Run, end: EndSpec) {
        let in_ms = |ms| Due::In(Duration::from_millis(ms));
        match end {
            EndSpec::Complete | EndSpec::Hang => self.ended(place, run, Ended::Completed),
            EndSpec::Fail => self.ended(place, run, failed("as planned")),
            EndSpec::Panic => self.ended(place, run, failed("the runner panicked: as planned")),
            EndSpec::Undecodable => {
                let error = ErrorText::new("cannot decode the config");
                self.ended(place, run, Ended::Undecodable(error));
            }
            EndSpec::RescheduleMs(ms) => {
                self.ended(place, run, Ended::Rescheduled(in_ms(ms)));
            }
            EndSpec::SnoozeMs(ms) => self.ended(place, run, Ended::Snoozed(in_ms(ms))),
            EndSpec::GiveUp => {
                let error = ErrorText::new(GIVEN_UP);
                self.ended(place, run, Ended::Errored(error));
            }
            EndSpec::CompleteTx => self.commit(place, run, Outcome::Completed),
            EndSpec::SnoozeTxMs(ms) => {
                self.commit(place, run, Outcome::Snoozed { due: in_ms(ms) });
            }
            EndSpec::GiveUpTx => {
                let error = ErrorText::new(GIVEN_UP);
                self.commit(place, run, Outcome::Errored { error });
            }
            EndSpec::RescheduleTxMs(ms) => {
                self.commit(place, run, Outcome::Rescheduled { due: in_ms(ms) });
            }
            EndSpec::Kill if self.calm => self.ended(place, run, Ended::Completed),
            EndSpec::Kill => self.crash(place, Some(KILLED_MS)),
        }
    }

    /// Ends a run in a transaction of the runner, together with its effect.
    fn commit(&mut self, place: usize, run: Run, outcome: Outcome) {
        let who = self.processes[place].who;
        if self.dies_at(place, "before_commit") {
            return;
        }
        self.observe(&Event::Committing { who, run });
        let children = match outcome {
            Outcome::Completed => self.children(job_key(run.job)),
            _ => Vec::new(),
        };
        let process = &mut self.processes[place];
        if let Some(runner) = process.runners.get_mut(&run) {
            runner.committing = true;
        }
        let call = process.runner_call();
        let waiting = Waiting::Commit(run, outcome.clone());
        let command = Command::Finish(vec![Finish { run, outcome }]);
        self.send(place, call, command, children, waiting, CALL_TIMEOUT);
    }

    fn children(&self, parent: u32) -> Vec<NewJob> {
        let jobs = self.scenario.jobs.iter();
        let children = jobs.filter(|job| job.parent == Some(parent));
        children
            .map(|job| job.new_job(self.token(job.key, false)))
            .collect()
    }

    pub(super) fn commit_answered(
        &mut self,
        place: usize,
        run: Run,
        outcome: Outcome,
        result: &Result<Reply, StoreError>,
    ) {
        let ended = match result {
            Ok(Reply::Finished(written)) if written == &[Written::Applied] => {
                Ended::Settled(outcome)
            }
            Ok(_) => Ended::LeaseLost,
            // As the service does: the engine finds out whether it landed.
            Err(_) => failed("the commit may have failed"),
        };
        self.ended(place, run, ended);
    }

    pub(super) fn checkpointed(
        &mut self,
        place: usize,
        run: Run,
        result: &Result<Reply, StoreError>,
    ) {
        let written = match result {
            Ok(Reply::Checkpointed(written)) => Some(*written),
            _ => None,
        };
        let process = &self.processes[place];
        let (who, works) = (process.who, process.runners.contains_key(&run));
        if works {
            self.observe(&Event::Kept { who, run, written });
        }
    }

    /// The runner has ended.
    fn ended(&mut self, place: usize, run: Run, ended: Ended) {
        if self.processes[place].runners.remove(&run).is_none() {
            return;
        }
        let who = self.processes[place].who;
        self.observe(&Event::Ended {
            who,
            run,
            ended: &ended,
        });
        if !self.dies_at(place, "after_run") {
            self.input(place, Input::RunEnded { run, ended });
        }
    }

    /// The token of the spawn of a job.
    pub(super) fn token(&self, key: u32, again: bool) -> i64 {
        debug_assert!(
            self.scenario
                .job(key)
                .is_some_and(|job| job.id() == job_id(key))
        );
        let key = [u64::from(key), u64::from(again), 0];
        self.scenario
            .draws()
            .draw(Topic::SpawnToken, key)
            .cast_signed()
    }
}
