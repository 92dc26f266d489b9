//! The worker with the mistakes that can be told from outside: what it is configured with,
//! what comes in and what goes out is altered on the way.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::{Bug, Part, active};
use crate::draw::Entropy;
use crate::ids::{JobType, Run, WorkerId};
use crate::payload::ErrorText;
use crate::retry::RetrySettings;
use crate::store::{Claimed, Command, Outcome, Quota, Reply, StoreError, Written};
use crate::time::{Due, Timestamp};
use crate::worker::{self, Action, Ended, Input, Observation, OpId, StopReason, WorkerConfig};

/// The worker, with the mistake that is switched on when it is made.
#[derive(Clone, Debug)]
pub struct Worker {
    worker: worker::Worker,
    mistaken: Option<Box<Mistaken>>,
}

/// What a mistake is made of.
#[derive(Clone, Debug)]
struct Mistaken {
    bug: Bug,
    config: WorkerConfig,
    now: Timestamp,
    /// Actions that are due before those of the worker.
    actions: VecDeque<Action>,
    /// Commands that are not answered, as the worker sent them.
    commands: BTreeMap<OpId, Command>,
    /// When each of these was sent.
    sent: BTreeMap<OpId, Timestamp>,
    /// What claims asked for first, by their number.
    quotas: BTreeMap<i64, Vec<Quota>>,
    /// Which of the runs that a heartbeat names were left out of it.
    skipped: BTreeMap<OpId, Vec<bool>>,
    runs: BTreeMap<Run, Began>,
    /// When a run ended, of those whose end is not recorded.
    ended: BTreeMap<Run, Timestamp>,
    /// Why runners were last asked to end.
    told: BTreeMap<Run, StopReason>,
    timer_fired: bool,
    reclaim_failed: bool,
    draining: bool,
    /// A shutdown waits until the claim that is under way is answered.
    shutdown_waits: bool,
}

#[derive(Clone, Debug)]
struct Began {
    job_type: JobType,
    attempt: u32,
    claim_sent_at: Timestamp,
    started_at: Timestamp,
}

impl Worker {
    /// A worker that will claim and look for lost jobs at its first
    /// [`Input::TimerFired`], which is due at once.
    pub fn new(now: Timestamp, config: WorkerConfig, entropy: Entropy) -> Self {
        let Some(bug) = active().filter(|bug| bug.part() != Part::Model) else {
            return Self {
                worker: worker::Worker::new(now, config, entropy),
                mistaken: None,
            };
        };
        let mistaken = Mistaken {
            bug,
            config: config.clone(),
            now,
            actions: VecDeque::new(),
            commands: BTreeMap::new(),
            sent: BTreeMap::new(),
            quotas: BTreeMap::new(),
            skipped: BTreeMap::new(),
            runs: BTreeMap::new(),
            ended: BTreeMap::new(),
            told: BTreeMap::new(),
            timer_fired: false,
            reclaim_failed: false,
            draining: false,
            shutdown_waits: false,
        };
        Self {
            worker: worker::Worker::new(now, configured_wrongly(bug, config), entropy),
            mistaken: Some(Box::new(mistaken)),
        }
    }

    /// The identity under which it claims.
    pub fn id(&self) -> WorkerId {
        self.worker.id()
    }

    /// When to send [`Input::TimerFired`].
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.worker.poll_timeout()
    }

    /// How often it looks for jobs, if it does nothing else.
    pub fn rests(&self) -> Option<Duration> {
        let rests = self.worker.rests()?;
        // It does not know of its mistake.
        let said = self.mistaken.as_ref();
        Some(said.map_or(rests, |said| rests.min(said.config.poll_interval)))
    }

    /// Takes in what happened at `now`, or something else.
    pub fn handle_input(&mut self, now: Timestamp, input: Input) {
        let Some(mistaken) = &mut self.mistaken else {
            return self.worker.handle_input(now, input);
        };
        mistaken.input(&mut self.worker, now, input);
    }

    /// The next thing to do, or something else, until there is none.
    pub fn poll_action(&mut self) -> Option<Action> {
        let Some(mistaken) = &mut self.mistaken else {
            return self.worker.poll_action();
        };
        mistaken.next_action(&mut self.worker)
    }
}

fn configured_wrongly(bug: Bug, mut config: WorkerConfig) -> WorkerConfig {
    match bug {
        // Commands carry the true one.
        Bug::HeartbeatTooLate => config.lease *= 5,
        Bug::ListeningStopsPolling => config.poll_interval = Duration::MAX,
        _ => {}
    }
    for of_type in &mut config.types {
        let retry = &mut of_type.retry;
        match bug {
            Bug::UndecodableForEver => of_type.undecodable_max = Duration::MAX,
            Bug::AttemptCapOffByOne => {
                retry.n_attempts = retry.n_attempts.map(|max| max.max(1).saturating_add(1));
            }
            Bug::BackoffIgnoresMax => retry.max_backoff = Duration::MAX,
            Bug::BackoffOffByOne => retry.min_backoff = retry.min_backoff.saturating_mul(2),
            _ => {}
        }
    }
    config
}

impl Mistaken {
    fn input(&mut self, worker: &mut worker::Worker, now: Timestamp, input: Input) {
        self.now = self.now.max(now);
        self.timer_fired = matches!(input, Input::TimerFired);
        match input {
            Input::Replied { op, result } => {
                let command = self.commands.remove(&op);
                let claimed = command.as_ref().is_some_and(is_claim);
                if let Some(result) = command.and_then(|c| self.reply(op, c, result)) {
                    worker.handle_input(now, Input::Replied { op, result });
                }
                if claimed && std::mem::take(&mut self.shutdown_waits) {
                    while let Some(action) = worker.poll_action() {
                        if let Some(action) = self.action(worker, action) {
                            self.actions.push_back(action);
                        }
                    }
                    worker.handle_input(now, Input::ShutdownRequested);
                }
            }
            Input::RunEnded { run, ended } => {
                self.ended.insert(run, self.now);
                if let Some(ended) = self.run_ended(ended) {
                    worker.handle_input(now, Input::RunEnded { run, ended });
                }
            }
            Input::ShutdownRequested => {
                self.draining = true;
                if self.bug == Bug::DrainStillStarts && self.commands.values().any(is_claim) {
                    self.shutdown_waits = true;
                    return;
                }
                worker.handle_input(now, Input::ShutdownRequested);
                if self.bug == Bug::StopForgetsClaim {
                    self.forget_claim(worker);
                }
            }
            Input::Woken(job_type) => {
                let mut commands = self.commands.values();
                let forgotten = match self.bug {
                    Bug::WakeDuringClaimLost => commands.any(is_claim),
                    Bug::WakesLostWhileBusy => commands.next().is_some(),
                    _ => false,
                };
                if !forgotten {
                    worker.handle_input(now, Input::Woken(job_type));
                }
            }
            Input::Listening(false) if self.bug == Bug::DeafListener => {}
            input => worker.handle_input(now, input),
        }
    }

    /// What the worker is told of its command; `None` for nothing.
    fn reply(
        &mut self,
        op: OpId,
        command: Command,
        result: Result<Reply, StoreError>,
    ) -> Option<Result<Reply, StoreError>> {
        let skipped = self.skipped.remove(&op);
        if self.draining && self.bug == Bug::CompleterDiesWithCaller {
            return None;
        }
        if matches!(command, Command::Reclaim(_)) {
            self.reclaim_failed |= result.is_err();
        }
        if let (Command::Claim(_), Ok(Reply::Claimed(claimed))) = (&command, &result) {
            let claim_sent_at = self.sent.remove(&op).unwrap_or(self.now);
            for job in &claimed.jobs {
                let began = Began {
                    job_type: job.job_type.clone(),
                    attempt: job.attempt,
                    claim_sent_at,
                    started_at: self.now,
                };
                self.runs.insert(job.run, began);
            }
        }
        Some(match (self.bug, command, result) {
            (Bug::StoreCallsNeverTimeOut, _, Err(StoreError::Unknown(text)))
                if text.starts_with(NO_ANSWER) =>
            {
                return None;
            }
            (Bug::TimeoutIsFailure, _, Err(StoreError::Unknown(text)))
                if text.starts_with(NO_ANSWER) =>
            {
                Err(StoreError::Failed(text))
            }
            (Bug::UnknownClaimForgotten, Command::Claim(_), Err(StoreError::Unknown(text))) => {
                Err(StoreError::Failed(text))
            }
            (Bug::UnknownFinishDropped, Command::Finish(ends), Err(StoreError::Unknown(_))) => {
                Ok(Reply::Finished(vec![Written::Applied; ends.len()]))
            }
            (Bug::RefusedBatchDropped, Command::Finish(ends), Err(StoreError::Rejected(_)))
                if ends.len() > 1 =>
            {
                Ok(Reply::Finished(vec![Written::Applied; ends.len()]))
            }
            (Bug::LateClaimNotReleased, _, Ok(Reply::Claimed(mut claimed))) if self.draining => {
                claimed.jobs.clear();
                claimed.left.clear();
                Ok(Reply::Claimed(claimed))
            }
            (Bug::NextDueByWorkerClock, _, Ok(Reply::Claimed(mut claimed))) => {
                for (_, due_at) in &mut claimed.next_due {
                    let wait = due_at.saturating_since(self.now);
                    *due_at = claimed.now.saturating_add(wait);
                }
                Ok(Reply::Claimed(claimed))
            }
            (Bug::HeartbeatsSkipEnded, _, Ok(Reply::Heartbeat(written))) => {
                let mut written = written.into_iter();
                let skipped = skipped.unwrap_or_default().into_iter();
                let all = skipped.map(|skipped| match skipped {
                    true => Written::Applied,
                    false => written.next().unwrap_or(Written::Applied),
                });
                Ok(Reply::Heartbeat(all.collect()))
            }
            (_, _, result) => result,
        })
    }

    fn run_ended(&self, ended: Ended) -> Option<Ended> {
        let panicked = |text: &ErrorText| text.as_str().contains("panicked");
        Some(match (self.bug, ended) {
            (Bug::PanicKillsReport, Ended::Failed(text)) if panicked(&text) => return None,
            (Bug::PanicEndsDriver, Ended::Failed(text)) if panicked(&text) => {
                std::panic::resume_unwind(Box::new("planted"))
            }
            (Bug::AbortCountsAsFailure, Ended::Aborted) => {
                Ended::Failed(ErrorText::new("the runner was aborted"))
            }
            (Bug::DelayByWorkerClock, Ended::Rescheduled(Due::In(delay))) => {
                Ended::Rescheduled(Due::At(self.now.saturating_add(delay)))
            }
            (Bug::FailureForGoodIsRetried, Ended::Errored(text)) => Ended::Failed(text),
            (Bug::UndecodableLoops, Ended::Undecodable(_)) => {
                Ended::Rescheduled(Due::In(Duration::from_secs(1)))
            }
            (_, ended) => ended,
        })
    }

    /// A claim that is under way is taken for one that took nothing.
    fn forget_claim(&mut self, worker: &mut worker::Worker) {
        let mut commands = self.commands.iter();
        let under_way = commands.find(|(_, command)| is_claim(command));
        if let Some(op) = under_way.map(|(op, _)| *op) {
            self.commands.remove(&op);
            let nothing = Claimed {
                now: self.now,
                jobs: Vec::new(),
                left: Vec::new(),
                next_due: Vec::new(),
            };
            self.answer(worker, op, Reply::Claimed(nothing));
        }
    }

    fn next_action(&mut self, worker: &mut worker::Worker) -> Option<Action> {
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        loop {
            let action = worker.poll_action()?;
            if let Some(action) = self.action(worker, action) {
                return Some(action);
            }
        }
    }

    /// What is done instead of this; `None` for nothing.
    fn action(&mut self, worker: &mut worker::Worker, action: Action) -> Option<Action> {
        match action {
            Action::Execute { op, command } => self.execute(worker, op, command),
            Action::Start(job) => {
                if let Some(began) = self.runs.get_mut(&job.run) {
                    began.started_at = self.now;
                }
                Some(Action::Start(job))
            }
            Action::Stop { run, reason } => {
                self.told.insert(run, reason);
                let lapsed = reason == StopReason::LeaseLost && self.timer_fired;
                match self.bug {
                    Bug::StopNotDelivered => None,
                    Bug::LapseNotTold if lapsed => None,
                    _ => Some(Action::Stop { run, reason }),
                }
            }
            Action::Abort(run) => {
                let lost = self.told.get(&run) == Some(&StopReason::LeaseLost);
                match self.bug {
                    Bug::AbortNotDone => None,
                    Bug::LostNotAborted if lost => None,
                    Bug::ShutdownNeverAborts if self.draining => None,
                    _ => Some(Action::Abort(run)),
                }
            }
            Action::Observe(observation) => match (self.bug, &observation) {
                (Bug::EndNotLogged, Observation::RunEnded { .. })
                | (Bug::StoreErrorNotLogged, Observation::StoreFailed { .. }) => None,
                _ => Some(Action::Observe(observation)),
            },
            Action::Announce(_) | Action::Stopped => Some(action),
        }
    }

    fn execute(
        &mut self,
        worker: &mut worker::Worker,
        op: OpId,
        mut command: Command,
    ) -> Option<Action> {
        let sent = command.clone();
        match &mut command {
            Command::Claim(claim) => {
                self.sent.insert(op, self.now);
                claim.lease = self.config_lease(claim.lease);
                let first = self.quotas.entry(claim.id.seq);
                let first = first.or_insert_with(|| claim.quotas.clone());
                if self.bug == Bug::ClaimNeverShrinks && !self.draining {
                    claim.quotas.clone_from(first);
                }
            }
            Command::Heartbeat(heartbeat) => {
                heartbeat.lease = self.config_lease(heartbeat.lease);
                if self.draining && self.bug == Bug::HeartbeatsStopAtDrain {
                    return None;
                }
                if self.bug == Bug::HeartbeatsSkipEnded {
                    let skipped = heartbeat.runs.iter();
                    let skipped = skipped.map(|run| self.ended.contains_key(run)).collect();
                    self.skipped.insert(op, skipped);
                    heartbeat.runs.retain(|run| !self.ended.contains_key(run));
                }
            }
            Command::Reclaim(_) if self.reclaim_failed && self.bug == Bug::ReclaimDiesOnError => {
                self.answer(worker, op, Reply::Reclaimed(Vec::new()));
                return None;
            }
            Command::Finish(finishes) => {
                for finish in finishes {
                    self.conclude(finish.run, &mut finish.outcome);
                }
            }
            _ => {}
        }
        self.commands.insert(op, sent);
        Some(Action::Execute { op, command })
    }

    /// The lease that commands carry, whatever the worker takes it for.
    fn config_lease(&self, lease: Duration) -> Duration {
        match self.bug {
            Bug::HeartbeatTooLate => self.config.lease,
            _ => lease,
        }
    }

    fn conclude(&self, run: Run, outcome: &mut Outcome) {
        if let (Bug::RetryKeepsAttempt, Outcome::Retried { attempt, .. }) =
            (self.bug, &mut *outcome)
        {
            *attempt = attempt.saturating_sub(1).max(1);
        }
        let (Outcome::Retried { error, .. } | Outcome::Errored { error }) = outcome else {
            return;
        };
        if let Some(retry) = self.taken_for_healthy(run) {
            *outcome = Outcome::Retried {
                delay: retry.backoff(1),
                attempt: 1,
                error: error.clone(),
            };
        }
    }

    /// How a run is retried that starts the attempts again by mistake.
    fn taken_for_healthy(&self, run: Run) -> Option<&RetrySettings> {
        let (began, ended) = (self.runs.get(&run)?, self.ended.get(&run)?);
        let mut types = self.config.types.iter();
        let retry = &types.find(|of| of.job_type == began.job_type)?.retry;
        let (since, healthy_after) = match self.bug {
            Bug::HealthySoon => {
                let last = retry.backoff(began.attempt.saturating_sub(1));
                let multiples = retry.attempt_reset_after_backoff_multiples;
                (began.started_at, last.saturating_mul(multiples))
            }
            Bug::RunCountsFromClaim => (began.claim_sent_at, retry.healthy_after()),
            _ => return None,
        };
        let healthy = began.attempt > 1 && ended.saturating_since(since) > healthy_after;
        healthy.then_some(retry)
    }

    fn answer(&mut self, worker: &mut worker::Worker, op: OpId, reply: Reply) {
        let result = Ok(reply);
        worker.handle_input(self.now, Input::Replied { op, result });
    }
}

/// What the driver says of a call that took too long.
const NO_ANSWER: &str = "no answer within";

fn is_claim(command: &Command) -> bool {
    matches!(command, Command::Claim(_))
}
