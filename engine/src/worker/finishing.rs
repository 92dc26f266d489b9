//! Ends of runs: what they mean, and getting them recorded.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Worker;
use super::io::{Ended, Observation};
use super::runs::{RunPhase, RunState};
use crate::draw::Purpose;
use crate::ids::{JobType, Run};
use crate::limits::BATCH_LEN_MAX;
use crate::payload::ErrorText;
use crate::planted::{Bug, planted};
use crate::retry::Verdict;
use crate::store::{Command, Finish, Outcome, StoreError, Written};
use crate::time::Due;

impl Worker {
    pub(super) fn start_finish(&mut self) {
        let len_max = if self.finishes_alone > 0 {
            self.finishes_alone -= 1;
            1
        } else {
            BATCH_LEN_MAX
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
                (Written::Applied, Outcome::Released) => {
                    self.demand.want(&job_type);
                    announce.insert(job_type);
                }
                (Written::Applied, Outcome::Rescheduled { .. } | Outcome::Retried { .. }) => {
                    // When it is due is the store's business: the claim that
                    // follows brings it along.
                    self.demand.want(&job_type);
                }
                (Written::Applied, Outcome::Completed | Outcome::Errored { .. }) => {}
            }
        }
        self.announce(announce);
    }

    pub(super) fn finish_failed(&mut self, batch: Vec<Finish>, error: StoreError) {
        match error {
            StoreError::Unknown(_) if planted(Bug::UnknownFinishDropped) => {
                for Finish { run, .. } in batch {
                    self.runs.remove(run);
                }
            }
            StoreError::Rejected(_) if batch.len() > 1 && !planted(Bug::RefusedBatchDropped) => {
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
        let of = (state.job_type.clone(), state.attempt);
        // A heartbeat that crossed the caller's commit found the run over, too.
        if state.lost && !matches!(ended, Ended::Settled(_)) {
            let (job_type, _) = of;
            self.runs.remove(run);
            self.observe(Observation::RunLost { run, job_type });
            return;
        }
        let ran = state.age(self.now);
        let ended = match ended {
            Ended::Aborted if planted(Bug::AbortCountsAsFailure) => {
                Ended::Failed(ErrorText::new("the runner was aborted"))
            }
            Ended::Rescheduled(Due::In(delay)) if planted(Bug::DelayByWorkerClock) => {
                Ended::Rescheduled(Due::At(self.now.saturating_add(delay)))
            }
            ended => ended,
        };
        match ended {
            Ended::Completed => self.conclude(run, of, Outcome::Completed, false),
            Ended::Rescheduled(due) => {
                self.conclude(run, of, Outcome::Rescheduled { due }, false);
            }
            Ended::Aborted => self.conclude(run, of, Outcome::Released, false),
            Ended::Failed(error) => {
                let draw = self.entropy.draw(Purpose::Backoff(run));
                let (job_type, attempt) = of.clone();
                let settings = self.config.types.iter().find(|t| t.job_type == job_type);
                let retry = &settings.expect("only known types are claimed").retry;
                let warning = retry.is_warning(attempt);
                match retry.after_failure(attempt, ran, draw) {
                    Verdict::Retry {
                        delay,
                        attempt: next,
                    } => {
                        let attempt = if planted(Bug::RetryKeepsAttempt) {
                            attempt
                        } else {
                            next
                        };
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
            Ended::Settled(end) => {
                let (job_type, attempt) = of;
                self.runs.remove(run);
                if !end.is_final() {
                    self.demand.want(&job_type);
                }
                self.observe(Observation::RunEnded {
                    run,
                    job_type,
                    attempt,
                    end,
                    error: None,
                    retry_in: None,
                    warning: false,
                });
            }
            Ended::LeaseLost => {
                let (job_type, _) = of;
                self.runs.remove(run);
                self.observe(Observation::RunLost { run, job_type });
            }
        }
    }

    fn conclude(
        &mut self,
        run: Run,
        (job_type, attempt): (JobType, u32),
        outcome: Outcome,
        warning: bool,
    ) {
        let observation = Observation::RunEnded {
            run,
            job_type,
            attempt,
            end: outcome.end(),
            error: outcome.error().cloned(),
            retry_in: match outcome {
                Outcome::Retried { delay, .. } => Some(delay),
                _ => None,
            },
            warning,
        };
        self.observe(observation);
        self.settle(run, outcome);
    }

    pub(super) fn settle(&mut self, run: Run, outcome: Outcome) {
        self.runs.finishing(run);
        self.finishes.push_back(Finish { run, outcome });
    }
}
