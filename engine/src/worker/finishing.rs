//! Ends of runs: what they mean, and getting them recorded.

use std::collections::BTreeSet;
use std::time::Duration;

use super::io::{Ended, Observation};
use super::runs::{RunPhase, RunState};
use super::{TypeConfig, Worker};
use crate::draw::Purpose;
use crate::ids::{JobType, Run};
use crate::retry::Verdict;
use crate::store::{Command, Finish, Outcome, StoreError, Written};

/// From so many interruptions in a row on, somebody is told.
pub const INTERRUPTIONS_WARN: u32 = 5;

/// The wait before another program may try to decode a config: half of the time for which
/// none could. The longest is short enough for a deploy.
const UNDECODABLE_WAIT_MIN: Duration = Duration::from_secs(1);
const UNDECODABLE_WAIT_MAX: Duration = Duration::from_secs(60);

/// The wait after nobody could decode a config for so long.
pub fn undecodable_wait(since: Duration) -> Duration {
    (since / 2).clamp(UNDECODABLE_WAIT_MIN, UNDECODABLE_WAIT_MAX)
}

impl Worker {
    pub(super) fn start_finish(&mut self) {
        let len_max = if self.finishes_alone > 0 {
            self.finishes_alone -= 1;
            1
        } else {
            self.finish_len.max()
        };
        let len = self.finishes.len().min(len_max);
        if len > 0 {
            let batch = self.finishes.drain(..len).collect();
            self.send_finishes(batch);
        }
    }

    pub(super) fn send_finishes(&mut self, finishes: Vec<Finish>) {
        let op = self.execute(Command::Finish(finishes.clone()));
        self.finish.start(op, finishes);
    }

    pub(super) fn finished(&mut self, batch: Vec<Finish>, written: &[Written]) {
        self.finish.succeeded();
        self.finish_len.arrived(batch.len());
        let mut announce = BTreeSet::new();
        for (finish, written) in batch.into_iter().zip(written) {
            let Some(RunState { job_type, .. }) = self.runs.remove(finish.run) else {
                continue;
            };
            match (written, finish.outcome) {
                (Written::Stale, _) => {
                    let run = finish.run;
                    self.observe(Observation::RunLost { run, job_type });
                }
                (Written::Applied, Outcome::Released | Outcome::Interrupted) => {
                    self.demand.want(&job_type);
                    announce.insert(job_type);
                }
                (Written::Applied, Outcome::Undecodable { .. }) => {
                    // Others have to know when it is due, or this worker takes it again.
                    self.demand.want(&job_type);
                    announce.insert(job_type);
                }
                (
                    Written::Applied,
                    Outcome::Rescheduled { .. } | Outcome::Snoozed { .. } | Outcome::Retried { .. },
                ) => {
                    // When it is due is the store's business: the claim that
                    // follows brings it along.
                    self.demand.want(&job_type);
                }
                (Written::Applied, Outcome::Completed | Outcome::Errored { .. }) => {}
            }
        }
        self.announce(announce);
    }

    pub(super) fn finish_failed(&mut self, mut batch: Vec<Finish>, error: StoreError) {
        match error {
            StoreError::Rejected(_) if batch.len() > 1 => {
                self.finishes_alone = batch.len();
                for finish in batch.into_iter().rev() {
                    self.finishes.push_front(finish);
                }
            }
            StoreError::Rejected(_) => {
                for Finish { run, .. } in batch {
                    self.runs.remove(run);
                    let error = error.clone();
                    self.observe(Observation::FinishRefused { run, error });
                }
            }
            StoreError::Failed(_) | StoreError::Unknown(_) => {
                if matches!(error, StoreError::Unknown(_)) {
                    // The texts of the errors may be more than arrives in time.
                    self.finish_len.was_not_answered(batch.len());
                    for finish in batch.drain(self.finish_len.max()..).rev() {
                        self.finishes.push_front(finish);
                    }
                }
                let (lane, entropy) = (&mut self.finish, &self.entropy);
                let failure = lane.failed(self.now, batch, error, Duration::MAX, entropy);
                self.observe(failure);
            }
        }
    }

    pub(super) fn run_ended(&mut self, run: Run, ended: Ended) {
        let Some(state) = self.runs.get(run) else {
            return;
        };
        if matches!(state.phase, RunPhase::Ready | RunPhase::Finishing) {
            return;
        }
        self.ready.run_ended(state.age(self.now));
        let claimed = state.claimed;
        let of = (state.job_type.clone(), claimed.attempt);
        // A heartbeat that crossed the caller's commit found the run over, too.
        if state.lost && !matches!(ended, Ended::Settled(_)) {
            let (job_type, _) = of;
            self.runs.remove(run);
            self.observe(Observation::RunLost { run, job_type });
            return;
        }
        let ran = state.age(self.now);
        match ended {
            Ended::Completed => self.conclude(run, of, Outcome::Completed, false),
            Ended::Rescheduled(due) => {
                self.conclude(run, of, Outcome::Rescheduled { due }, false);
            }
            Ended::Snoozed(due) => self.conclude(run, of, Outcome::Snoozed { due }, false),
            Ended::Errored(error) => self.conclude(run, of, Outcome::Errored { error }, false),
            Ended::Aborted => {
                self.warn_of_interruptions(run, &of.0, claimed.interruptions);
                self.conclude(run, of, Outcome::Interrupted, false);
            }
            Ended::Undecodable(error) => {
                // The time that its run took is that of the look at its config.
                let since = claimed.undecodable_for.unwrap_or_default();
                let outcome = match self.type_config(&of.0).undecodable_max {
                    max if since >= max => Outcome::Errored { error },
                    _ => Outcome::Undecodable {
                        delay: undecodable_wait(since),
                        error,
                    },
                };
                self.conclude(run, of, outcome, true);
            }
            Ended::Failed(error) => {
                let draw = self.entropy.draw(Purpose::Backoff(run));
                let attempt = of.1;
                let retry = &self.type_config(&of.0).retry;
                let warning = retry.is_warning(attempt);
                match retry.after_failure(attempt, ran, draw) {
                    Verdict::Retry { delay, attempt } => {
                        let outcome = Outcome::Retried {
                            delay,
                            attempt,
                            error,
                        };
                        self.conclude(run, of, outcome, warning);
                    }
                    Verdict::GiveUp => self.conclude(run, of, Outcome::Errored { error }, false),
                }
            }
            Ended::Settled(outcome) => {
                self.runs.remove(run);
                if !outcome.end().is_final() {
                    self.demand.want(&of.0);
                }
                self.observe_end(run, of, &outcome, false);
            }
            Ended::LeaseLost => {
                let (job_type, _) = of;
                self.runs.remove(run);
                self.observe(Observation::RunLost { run, job_type });
            }
        }
    }

    fn conclude(&mut self, run: Run, of: (JobType, u32), outcome: Outcome, warning: bool) {
        self.observe_end(run, of, &outcome, warning);
        self.settle(run, outcome);
    }

    fn observe_end(
        &mut self,
        run: Run,
        (job_type, attempt): (JobType, u32),
        outcome: &Outcome,
        warning: bool,
    ) {
        let observation = Observation::RunEnded {
            run,
            job_type,
            attempt,
            end: outcome.end(),
            error: outcome.error().cloned(),
            retry_in: match outcome {
                Outcome::Retried { delay, .. } | Outcome::Undecodable { delay, .. } => Some(*delay),
                Outcome::Completed
                | Outcome::Rescheduled { .. }
                | Outcome::Snoozed { .. }
                | Outcome::Errored { .. }
                | Outcome::Released
                | Outcome::Interrupted => None,
            },
            warning,
        };
        self.observe(observation);
    }

    fn type_config(&self, job_type: &JobType) -> &TypeConfig {
        let mut types = self.config.types.iter();
        types
            .find(|of_type| of_type.job_type == *job_type)
            .expect("only known types are started")
    }

    /// A job that is longer than the time between two deploys never ends, and nothing of it
    /// fails.
    fn warn_of_interruptions(&mut self, run: Run, job_type: &JobType, before: u32) {
        let interruptions = before.saturating_add(1);
        if interruptions >= INTERRUPTIONS_WARN {
            self.observe(Observation::OftenInterrupted {
                run,
                job_type: job_type.clone(),
                interruptions,
            });
        }
    }

    pub(super) fn settle(&mut self, run: Run, outcome: Outcome) {
        self.runs.finishing(run);
        self.finishes.push_back(Finish { run, outcome });
    }
}
