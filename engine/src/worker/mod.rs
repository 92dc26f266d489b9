//! The decisions of one polling process: a state machine without I/O.

mod batch;
mod claiming;
mod config;
mod demand;
mod finishing;
mod io;
mod lane;
mod leasing;
mod ready;
mod runs;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

pub use config::{TypeConfig, WorkerConfig};
pub use finishing::{INTERRUPTIONS_WARN, undecodable_wait};
pub use io::{Action, Ended, Input, Observation, OpId, StopReason};
pub use lane::LaneKind;

use crate::draw::{Entropy, Purpose};
use crate::ids::{JobType, Run, WorkerId};
use crate::planted::{Bug, planted};
use crate::retry::jitter;
use crate::store::{Claim, Command, Finish, Reply, StoreError};
use crate::time::Timestamp;
use batch::BatchLen;
use demand::Demand;
use lane::Lane;
use ready::Ready;
use runs::Runs;

/// What comes after the shutdown timeout: so long for the aborted runners to
/// end and for their jobs to be put back.
pub const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);

/// While at least [`WorkerConfig::jobs_min`] jobs run, claims are so far apart: a place
/// that becomes free waits no longer than this for others to be filled with it.
pub const GATHER_TIME: Duration = Duration::from_millis(50);

/// The worker's own clock stops here, so that a timer which is set for the last
/// time that there is never becomes due. It would find itself due again at once,
/// and so on for ever.
const LAST_NOW: Timestamp = Timestamp::from_micros(Timestamp::MAX.as_micros() - 1);

/// A period ends up to this share of it early, at random, so that workers that
/// were started together do not poll together. Never late: a lost job is found
/// within one and a half times its lease.
const PERIOD_JITTER: u32 = 10;

/// The state machine of one worker.
///
/// Feed it with [`Worker::handle_input`], once or more often, then drain
/// [`Worker::poll_action`] and perform each action in turn, then wait until
/// [`Worker::poll_timeout`] or the next input. `now` is the worker's own monotonic
/// time; one that goes backwards counts as standing still. Every [`Action::Execute`] must be
/// answered by one [`Input::Replied`], every [`Action::Start`] by one
/// [`Input::RunEnded`]. After [`Action::Stopped`] it does nothing more.
///
/// A clone is a worker in the same state: with the same inputs it does the same.
#[derive(Clone, Debug)]
pub struct Worker {
    id: WorkerId,
    config: WorkerConfig,
    entropy: Entropy,
    now: Timestamp,
    phase: Phase,
    listening: bool,
    demand: Demand,
    runs: Runs,
    /// Those of `runs` that wait for a place.
    ready: Ready,
    /// Ends of runs that no command carries yet, the oldest first.
    finishes: VecDeque<Finish>,
    /// So many of the next ends are sent one by one: their batch was refused,
    /// and one of them must not keep the others from being recorded.
    finishes_alone: usize,
    /// Of ends.
    finish_len: BatchLen,
    claim: Lane<ClaimWork>,
    finish: Lane<Vec<Finish>>,
    heartbeat: Lane<HeartbeatWork>,
    reclaim: Lane<()>,
    claim_seq: i64,
    /// Of jobs that a claim asks for.
    claim_len: BatchLen,
    /// When the last claim was sent.
    claimed_at: Option<Timestamp>,
    ops: u64,
    periods: u64,
    poll_at: Timestamp,
    reclaim_at: Timestamp,
    /// `None` while there is nothing to keep alive.
    heartbeat_at: Option<Timestamp>,
    /// What the heartbeats under way have still to renew.
    heartbeat_rest: VecDeque<Run>,
    actions: VecDeque<Action>,
    /// Nothing has come in since the last look at what can be sent.
    pumped: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// Claims nothing; ends when all is settled, or at `until`.
    Draining {
        until: Timestamp,
    },
    Stopped,
}

#[derive(Clone, Debug)]
struct ClaimWork {
    claim: Claim,
    sent_at: Timestamp,
    /// The worker may hold so many jobs, running or ready, once it is answered.
    held_max: u32,
}

#[derive(Clone, Debug)]
struct HeartbeatWork {
    runs: Vec<Run>,
    sent_at: Timestamp,
}

#[derive(Clone, Copy)]
enum Period {
    Poll = 1,
    Reclaim = 2,
    Heartbeat = 3,
}

impl Worker {
    /// A worker that will claim and look for lost jobs at its first
    /// [`Input::TimerFired`], which is due at once.
    pub fn new(now: Timestamp, config: WorkerConfig, entropy: Entropy) -> Self {
        let config = config.clamped();
        let mut demand = Demand::new(config.types.iter().map(|t| t.job_type.clone()));
        demand.want_all();
        Self {
            id: entropy.worker_id(),
            config,
            entropy,
            now: now.min(LAST_NOW),
            phase: Phase::Running,
            listening: false,
            demand,
            runs: Runs::default(),
            ready: Ready::default(),
            finishes: VecDeque::new(),
            finishes_alone: 0,
            finish_len: BatchLen::new(),
            claim: Lane::new(LaneKind::Claim),
            finish: Lane::new(LaneKind::Finish),
            heartbeat: Lane::new(LaneKind::Heartbeat),
            reclaim: Lane::new(LaneKind::Reclaim),
            claim_seq: 0,
            claim_len: BatchLen::new(),
            claimed_at: None,
            ops: 0,
            periods: 0,
            poll_at: now,
            reclaim_at: now,
            heartbeat_at: None,
            heartbeat_rest: VecDeque::new(),
            actions: VecDeque::new(),
            pumped: true,
        }
    }

    /// The identity under which it claims.
    pub fn id(&self) -> WorkerId {
        self.id
    }

    /// Takes in what happened at `now`.
    pub fn handle_input(&mut self, now: Timestamp, input: Input) {
        self.now = self.now.max(now.min(LAST_NOW));
        if self.phase == Phase::Stopped {
            return;
        }
        match input {
            Input::TimerFired => self.timer_fired(),
            Input::Woken(job_type) => self.demand.want(&job_type),
            Input::Listening(listening) => self.listening_changed(listening),
            Input::Replied { op, result } => self.replied(op, result),
            Input::RunEnded { run, ended } => self.run_ended(run, ended),
            Input::ShutdownRequested => self.shutdown_requested(),
        }
        self.pumped = false;
    }

    /// The next thing to do, until there is none.
    pub fn poll_action(&mut self) -> Option<Action> {
        if !std::mem::replace(&mut self.pumped, true) {
            self.pump();
        }
        self.actions.pop_front()
    }

    /// When to send [`Input::TimerFired`]; `None` when only an input can change
    /// anything; [`Timestamp::MAX`] never comes.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        // Asked after each input, so without a list of what is compared.
        let mut first = Timestamp::MAX;
        let mut or_at = |at: Option<Timestamp>| first = first.min(at.unwrap_or(Timestamp::MAX));
        match self.phase {
            Phase::Stopped => return None,
            Phase::Draining { until } => or_at(Some(until)),
            Phase::Running => {
                or_at(Some(self.poll_at));
                or_at(self.gathers_until().filter(|until| *until > self.now));
                or_at(self.ready.overdue_at());
                or_at(self.demand.next_due());
                or_at(self.reclaim.waits_until());
                or_at(Some(self.reclaim_at).filter(|_| self.reclaim.is_idle()));
            }
        }
        or_at(self.claim.waits_until());
        or_at(self.finish.waits_until());
        or_at(self.heartbeat.waits_until());
        or_at(self.heartbeat_at.filter(|_| self.heartbeat.is_idle()));
        or_at(self.runs.next_timer());
        (first < Timestamp::MAX).then_some(first)
    }

    /// How often it looks for jobs, if it does nothing else: no command is under way or
    /// to be sent again, and it holds no job. Then it would miss nothing that it knows of
    /// if its timer fired late.
    pub fn rests(&self) -> Option<Duration> {
        // What is to be recorded is of a run that it holds.
        let lanes = self.claim.is_idle() && self.heartbeat.is_idle() && self.reclaim.is_idle();
        let rests = self.phase == Phase::Running && lanes && self.runs.len() == 0;
        rests.then(|| self.poll_interval())
    }

    fn timer_fired(&mut self) {
        let now = self.now;
        if let Some(work) = self.claim.take_due(now) {
            self.claim_again(work);
        }
        if let Some(finishes) = self.finish.take_due(now) {
            self.send_finishes(finishes);
        }
        if self.heartbeat.take_due(now).is_some() {
            self.heartbeat_at = Some(now);
        }
        if self.reclaim.take_due(now).is_some() {
            self.reclaim_at = now;
        }
        for run in self.runs.lapsed(now, self.config.lease) {
            self.stop_run(run, StopReason::LeaseLost);
        }
        self.abort_due();
        self.release_overdue();
        self.demand.want_due(now);
        if self.poll_at <= now {
            self.demand.want_all();
            self.schedule_poll();
        }
    }

    fn listening_changed(&mut self, listening: bool) {
        self.listening = listening;
        // What was announced meanwhile is lost, and the poll interval changes.
        self.demand.want_all();
        self.schedule_poll();
    }

    /// Sends whatever can be sent now.
    fn pump(&mut self) {
        if self.phase == Phase::Running {
            self.start_ready();
        }
        if self.finish.is_idle() {
            self.start_finish();
        }
        if self.heartbeat.is_idle() {
            self.start_heartbeat();
        }
        match self.phase {
            Phase::Running => {
                if self.claim.is_idle() {
                    self.start_claim();
                }
                if self.reclaim.is_idle() && self.reclaim_at <= self.now {
                    self.start_reclaim();
                }
            }
            Phase::Draining { until } => {
                let settled = self.runs.len() == 0 && self.claim.is_idle();
                if settled || until <= self.now {
                    self.stop();
                }
            }
            Phase::Stopped => {}
        }
    }

    fn execute(&mut self, command: Command) -> OpId {
        self.ops += 1;
        let op = OpId(self.ops);
        self.actions.push_back(Action::Execute { op, command });
        op
    }

    fn replied(&mut self, op: OpId, result: Result<Reply, StoreError>) {
        if self.claim.awaits(op) {
            let work = self.claim.take().expect("a claim is under way");
            match result {
                Ok(Reply::Claimed(claimed)) => self.claimed(work, claimed),
                other => self.claim_failed(work, unexpected(other)),
            }
        } else if self.finish.awaits(op) {
            let work = self.finish.take().expect("a finish is under way");
            match result {
                Ok(Reply::Finished(written)) if written.len() == work.len() => {
                    self.finished(work, &written);
                }
                other => self.finish_failed(work, unexpected(other)),
            }
        } else if self.heartbeat.awaits(op) {
            let work = self.heartbeat.take().expect("a heartbeat is under way");
            match result {
                Ok(Reply::Heartbeat(written)) if written.len() == work.runs.len() => {
                    self.heartbeat_done(work, &written);
                }
                other => {
                    if planted(Bug::HeartbeatFailureFreesPlaces) {
                        for run in &work.runs {
                            self.runs.remove(*run);
                        }
                    }
                    // A lease must not run out in a wait.
                    let wait_max = self.config.lease / 8;
                    let (now, error) = (self.now, unexpected(other));
                    let lane = &mut self.heartbeat;
                    let failure = lane.failed(now, work, error, wait_max, &self.entropy);
                    self.observe(failure);
                }
            }
        } else if self.reclaim.awaits(op) {
            self.reclaim.take();
            match result {
                Ok(Reply::Reclaimed(reclaimed)) => self.reclaimed(reclaimed),
                other => {
                    let (now, error) = (self.now, unexpected(other));
                    let lane = &mut self.reclaim;
                    let failure = lane.failed(now, (), error, Duration::MAX, &self.entropy);
                    self.observe(failure);
                }
            }
        }
    }

    fn shutdown_requested(&mut self) {
        if self.phase != Phase::Running {
            return;
        }
        let executing = self.runs.executing();
        self.observe(Observation::Draining { executing });
        let abort_at = self.now.saturating_add(self.config.shutdown_timeout);
        let until = abort_at.saturating_add(SETTLE_TIMEOUT);
        self.phase = Phase::Draining { until };
        self.release_ready();
        for run in self.runs.abort_all_at(abort_at) {
            self.stop_run(run, StopReason::Shutdown);
        }
        if self.claim.waits_until().is_some()
            && let Some(work) = self.claim.take()
        {
            self.claim_again(work);
        }
        // With a timeout of zero that is now.
        self.abort_due();
    }

    fn abort_due(&mut self) {
        for run in self.runs.abort_due(self.now, self.config.lease) {
            self.actions.push_back(Action::Abort(run));
        }
    }

    fn stop(&mut self) {
        self.phase = Phase::Stopped;
        let unsettled = self.runs.len();
        self.observe(Observation::Drained { unsettled });
        self.actions.push_back(Action::Stopped);
    }

    fn stop_run(&mut self, run: Run, reason: StopReason) {
        self.actions.push_back(Action::Stop { run, reason });
    }

    fn observe(&mut self, observation: Observation) {
        self.actions.push_back(Action::Observe(observation));
    }

    /// Tells other workers that jobs of these types became due, if there are any.
    fn announce(&mut self, types: BTreeSet<JobType>) {
        if !types.is_empty() {
            self.actions.push_back(Action::Announce(types));
        }
    }

    fn poll_interval(&self) -> Duration {
        match self.listening {
            true => self.config.poll_interval,
            false => self.config.poll_interval_deaf,
        }
    }

    fn schedule_poll(&mut self) {
        self.poll_at = self.after(Period::Poll, self.poll_interval());
    }

    /// The end of a period that starts now, perhaps a little early.
    fn after(&mut self, timer: Period, period: Duration) -> Timestamp {
        self.periods += 1;
        let draw = self.entropy.draw(Purpose::Interval {
            timer: timer as u8,
            n: self.periods,
        });
        let early_max = period / PERIOD_JITTER;
        let mut early = jitter(early_max / 2, 100, draw);
        if planted(Bug::NoJitter) {
            early = Duration::ZERO;
        }
        self.now.saturating_add(period.saturating_sub(early))
    }
}

/// An error, or a reply that does not fit its command, which is a bug of the
/// store and handled like an error: another kind of reply, or one that leaves
/// out some of what was asked.
fn unexpected(result: Result<Reply, StoreError>) -> StoreError {
    match result {
        Err(error) => error,
        Ok(_) => StoreError::Failed("the store sent a reply that does not fit".to_owned()),
    }
}
