//! The engine alone: a worker that never runs out of jobs, whose store and runners
//! answer at once.

use std::collections::VecDeque;
use std::time::Duration;

use job_engine::store::{Claim, Claimed, ClaimedJob, Written};
use job_engine::worker::{Action, Ended, Input, TypeConfig, WorkerConfig};
use job_engine::{
    Command, Entropy, Fence, JobId, JobType, Payload, Reply, RetrySettings, Run, Timestamp, Worker,
};
use uuid::Uuid;

use crate::ours::JOB_TYPE;

/// A worker, and what comes in for it.
#[derive(Debug)]
pub struct Engine {
    worker: Worker,
    now: Timestamp,
    inputs: VecDeque<Input>,
    jobs: u128,
}

impl Engine {
    /// With the limits of a service in its default configuration.
    pub fn new() -> Self {
        let poller = job::JobPollerConfig::default();
        let config = WorkerConfig {
            types: vec![TypeConfig {
                job_type: JobType::new(JOB_TYPE),
                retry: RetrySettings::default(),
                crashes_max: Some(job::CRASHES_MAX_DEFAULT),
                undecodable_max: job::UNDECODABLE_MAX_DEFAULT,
            }],
            jobs_max: poller.max_jobs_per_process as u32,
            jobs_min: poller.min_jobs_per_process as u32,
            lease: poller.job_lost_interval,
            poll_interval: Duration::from_secs(10),
            poll_interval_deaf: Duration::from_secs(1),
            shutdown_timeout: poller.shutdown_timeout,
        };
        let now = Timestamp::EPOCH;
        Self {
            worker: Worker::new(now, config, Entropy::from_seed([1; 32])),
            now,
            inputs: [Input::Listening(true)].into(),
            jobs: 0,
        }
    }

    /// Handles so many inputs, and performs all actions that come of them.
    pub fn handle(&mut self, inputs: u64) {
        for _ in 0..inputs {
            self.now = self.now.saturating_add(Duration::from_micros(1));
            let input = self.inputs.pop_front().unwrap_or(Input::TimerFired);
            self.worker.handle_input(self.now, input);
            while let Some(action) = self.worker.poll_action() {
                self.perform(action);
            }
        }
    }

    /// How many jobs were claimed.
    pub fn jobs(&self) -> u128 {
        self.jobs
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Execute { op, command } => {
                let result = Ok(self.answer(&command));
                self.inputs.push_back(Input::Replied { op, result });
            }
            Action::Start(job) => self.inputs.push_back(Input::RunEnded {
                run: job.run,
                ended: Ended::Completed,
            }),
            // Nobody is there to be told.
            _ => {}
        }
    }

    fn answer(&mut self, command: &Command) -> Reply {
        match command {
            Command::Claim(claim) => Reply::Claimed(self.claimed(claim)),
            Command::Finish(finishes) => Reply::Finished(vec![Written::Applied; finishes.len()]),
            Command::Heartbeat(heartbeat) => {
                Reply::Heartbeat(vec![Written::Applied; heartbeat.runs.len()])
            }
            Command::Reclaim(_) => Reply::Reclaimed(Vec::new()),
            Command::Checkpoint(_) => Reply::Checkpointed(Written::Applied),
            Command::Hold(_) => Reply::Held(Written::Applied),
            Command::Spawn(_) | Command::Find(_) | Command::History(_) => {
                unreachable!("no worker sends {command:?}")
            }
        }
    }

    /// As many jobs as were asked for.
    fn claimed(&mut self, claim: &Claim) -> Claimed {
        let mut jobs = Vec::new();
        for quota in &claim.quotas {
            for _ in 0..quota.jobs_max {
                self.jobs += 1;
                jobs.push(ClaimedJob {
                    run: Run {
                        job: JobId(Uuid::from_u128(self.jobs)),
                        fence: Fence::NONE.next(),
                        claim: claim.id,
                    },
                    job_type: quota.job_type.clone(),
                    attempt: 1,
                    due_at: self.now,
                    spawned_at: self.now,
                    interruptions: 0,
                    undecodable_since: None,
                    config: Payload::from_json("{}"),
                    state: None,
                    trace: None,
                });
            }
        }
        Claimed {
            now: self.now,
            jobs,
            left: Vec::new(),
            next_due: Vec::new(),
        }
    }
}

impl Default for Engine {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_never_runs_out_of_jobs() {
        let mut engine = Engine::new();
        engine.handle(1_000);
        let before = engine.jobs();
        engine.handle(10_000);
        // Beside one input a job there are only the replies of the store.
        assert!(engine.jobs() - before > 8_000, "{}", engine.jobs());
    }
}
