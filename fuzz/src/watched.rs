//! A worker whose every action is checked.
//!
//! It keeps books of its own, from what goes in and what comes out, and knows the
//! rules from the documentation of the engine.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::time::Duration;

use job_engine::limits::BATCH_LEN_MAX;
use job_engine::store::{ClaimedJob, Outcome, SPEC_GONE, Written};
use job_engine::worker::{
    Action, Ended, INTERRUPTIONS_WARN, Input, LaneKind, Observation, OpId, SETTLE_TIMEOUT,
    StopReason, WorkerConfig,
};
use job_engine::{Command, Entropy, JobType, Reply, Run, StoreError, Timestamp, Worker};

/// The last time that a worker goes by: what is due later is never due.
const LAST_NOW: Timestamp = Timestamp::from_micros(Timestamp::MAX.as_micros() - 1);

/// The worker, and what is known of it.
pub(crate) struct Watched {
    worker: Worker,
    /// The latest time that it was told.
    now: Timestamp,
    jobs_max: usize,
    lease: Duration,
    shutdown_timeout: Duration,
    poll_interval_max: Duration,
    types: BTreeSet<JobType>,
    /// Commands without a reply, the oldest first.
    calls: Vec<Call>,
    ops: u64,
    claim_seq: i64,
    /// Runs that ended since the last claim was sent.
    ended: usize,
    /// How many jobs it may hold beyond those that run.
    ahead_max: usize,
    /// What was claimed and is not settled.
    runs: BTreeMap<Run, Known>,
    /// Those of them whose runner is at work.
    executing: BTreeSet<Run>,
    /// What was ever started.
    started: BTreeSet<Run>,
    /// A store has said what no store says.
    misled: bool,
    draining: Option<Draining>,
    unsettled: Option<usize>,
    stopped: bool,
}

/// A command that is under way.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) op: OpId,
    pub(crate) command: Command,
    sent_at: Timestamp,
}

#[derive(Clone, Debug)]
struct Known {
    phase: Phase,
    /// When the last command was sent that is known to have renewed the lease.
    renewed_at: Timestamp,
    told_lost: bool,
    told_shutdown: bool,
    /// When the store has said that the lease is lost.
    lost_at: Option<Timestamp>,
    aborted: bool,
    ended: Option<Ended>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Claimed, and not started: it is put back.
    Unstarted,
    Executing,
    /// Its runner has ended.
    Ended,
}

#[derive(Clone, Copy)]
struct Draining {
    abort_at: Timestamp,
    until: Timestamp,
}

impl Known {
    fn claimed(sent_at: Timestamp) -> Self {
        Self {
            phase: Phase::Unstarted,
            renewed_at: sent_at,
            told_lost: false,
            told_shutdown: false,
            lost_at: None,
            aborted: false,
            ended: None,
        }
    }
}

impl Watched {
    pub(crate) fn new(now: Timestamp, config: WorkerConfig, seed: u8) -> Self {
        let types = config.types.iter().map(|t| t.job_type.clone()).collect();
        Self {
            now: now.min(LAST_NOW),
            // The ranges that the documentation of the fields gives.
            jobs_max: config.jobs_max.clamp(1, BATCH_LEN_MAX as u32) as usize,
            lease: config.lease.max(Duration::from_millis(40)),
            shutdown_timeout: config.shutdown_timeout,
            poll_interval_max: config
                .poll_interval
                .max(config.poll_interval_deaf)
                .max(Duration::from_millis(10)),
            types,
            worker: Worker::new(now, config, Entropy::from_seed([seed; 32])),
            calls: Vec::new(),
            ops: 0,
            claim_seq: 0,
            ended: 0,
            ahead_max: 0,
            runs: BTreeMap::new(),
            executing: BTreeSet::new(),
            started: BTreeSet::new(),
            misled: false,
            draining: None,
            unsettled: None,
            stopped: false,
        }
    }

    /// From here on a run may be claimed that was claimed before.
    pub(crate) fn misled(&mut self) {
        self.misled = true;
    }

    pub(crate) fn id(&self) -> job_engine::WorkerId {
        self.worker.id()
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }

    pub(crate) fn calls(&self) -> &[Call] {
        &self.calls
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_some()
    }

    /// Whether so much time is left until it stops, whatever is unsettled.
    pub(crate) fn has_time(&self, time: Duration) -> bool {
        let now = self.now.saturating_add(time);
        self.draining.is_none_or(|draining| now < draining.until)
    }

    /// How many runs it gave up when it stopped.
    pub(crate) fn unsettled(&self) -> Option<usize> {
        self.unsettled
    }

    pub(crate) fn poll_timeout(&self) -> Option<Timestamp> {
        self.worker.poll_timeout()
    }

    /// The worker's time does not go back.
    fn pass(&mut self, now: Timestamp) {
        self.now = self.now.max(now.min(LAST_NOW));
    }

    /// The runs whose runner is at work.
    pub(crate) fn executing(&self) -> &BTreeSet<Run> {
        &self.executing
    }

    /// Whether something waits to be recorded.
    pub(crate) fn has_runs(&self) -> bool {
        !self.runs.is_empty()
    }

    pub(crate) fn is_aborted(&self, run: Run) -> bool {
        self.runs.get(&run).is_some_and(|known| known.aborted)
    }

    pub(crate) fn fire_timer(&mut self, now: Timestamp) {
        self.input(now, Input::TimerFired);
        self.check_timers();
    }

    pub(crate) fn shut_down(&mut self, now: Timestamp) {
        if self.draining.is_none() {
            self.pass(now);
            let now = self.now;
            let abort_at = now.saturating_add(self.shutdown_timeout);
            self.draining = Some(Draining {
                abort_at,
                until: abort_at.saturating_add(SETTLE_TIMEOUT),
            });
        }
        self.input(now, Input::ShutdownRequested);
    }

    /// Answers the command that was sent as `call`.
    pub(crate) fn reply(&mut self, now: Timestamp, call: &Call, result: Result<Reply, StoreError>) {
        let place = self.calls.iter().position(|known| known.op == call.op);
        let mut claimed = Vec::new();
        if let Some(place) = place {
            self.calls.remove(place);
            self.pass(now);
            claimed = self.take_in(call, &result);
        }
        let op = call.op;
        self.input(now, Input::Replied { op, result });
        if self.draining.is_some() || self.misled || self.executing.len() == self.jobs_max {
            return;
        }
        for run in claimed {
            let known = self.runs.get(&run);
            let waits = known.is_some_and(|known| {
                // Nothing is started that may be lost by now.
                let lapses_at = known.renewed_at.saturating_add(self.lease);
                known.phase == Phase::Unstarted && self.now < lapses_at
            });
            assert!(!waits, "{run} was not started, and there was room");
        }
    }

    /// What a reply means for the books, before the worker hears of it. Returns
    /// the runs that it brings.
    fn take_in(&mut self, call: &Call, result: &Result<Reply, StoreError>) -> Vec<Run> {
        let mut brings = Vec::new();
        match (&call.command, result) {
            (Command::Claim(_), Ok(Reply::Claimed(claimed))) => {
                // Four for each run that ended meanwhile, or up to sixteen if none is left,
                // two batches at most; and no less than seven eighths of what it was.
                let before = self.ahead_max - self.ahead_max.div_ceil(8);
                let each = if self.executing.is_empty() { 16 } else { 4 };
                self.ahead_max = (each * self.ended).min(2 * BATCH_LEN_MAX).max(before);
                for left in &claimed.left {
                    let known = Known::claimed(call.sent_at);
                    self.runs.entry(left.run).or_insert(known);
                }
                for job in &claimed.jobs {
                    if let Entry::Vacant(entry) = self.runs.entry(job.run) {
                        entry.insert(Known::claimed(call.sent_at));
                        brings.push(job.run);
                    }
                }
            }
            (Command::Finish(batch), Ok(Reply::Finished(written)))
                if batch.len() == written.len() =>
            {
                for finish in batch {
                    self.runs.remove(&finish.run);
                }
            }
            (Command::Heartbeat(heartbeat), Ok(Reply::Heartbeat(written)))
                if heartbeat.runs.len() == written.len() =>
            {
                for (run, written) in heartbeat.runs.iter().zip(written) {
                    let Some(known) = self.runs.get_mut(run) else {
                        continue;
                    };
                    match written {
                        Written::Applied => {
                            known.renewed_at = known.renewed_at.max(call.sent_at);
                        }
                        // What is being aborted or has ended is told by its end.
                        Written::Stale if known.phase == Phase::Executing && !known.aborted => {
                            known.lost_at = known.lost_at.or(Some(self.now));
                        }
                        Written::Stale => {}
                    }
                }
            }
            _ => {}
        }
        brings
    }

    /// A runner ended, or is said to have.
    pub(crate) fn end(&mut self, now: Timestamp, run: Run, ended: Ended) {
        if let Some(known) = self.runs.get_mut(&run)
            && known.phase == Phase::Executing
        {
            known.phase = Phase::Ended;
            self.executing.remove(&run);
            self.ended += 1;
            known.ended = Some(ended.clone());
            // Its end is recorded, or can never be.
            if matches!(ended, Ended::Settled(_) | Ended::LeaseLost) {
                self.runs.remove(&run);
            }
        }
        self.input(now, Input::RunEnded { run, ended });
    }

    /// Feeds the worker, and checks what it does.
    pub(crate) fn input(&mut self, now: Timestamp, input: Input) {
        let was_stopped = self.stopped;
        let batch = match &input {
            Input::Replied {
                result: Ok(Reply::Claimed(claimed)),
                ..
            } => claimed.jobs.len() + claimed.left.len(),
            Input::Replied {
                result: Ok(Reply::Reclaimed(reclaimed)),
                ..
            } => reclaimed.len(),
            Input::Replied {
                result: Ok(Reply::Finished(written)),
                ..
            } => written.len(),
            _ => 0,
        };
        // For each run to be told, aborted and its end to be observed.
        let actions_max = 16 + batch + 3 * self.runs.len();
        self.pass(now);
        self.worker.handle_input(now, input);
        let mut actions = 0;
        while let Some(action) = self.worker.poll_action() {
            assert!(!was_stopped && !self.stopped, "{action:?} after Stopped");
            actions += 1;
            assert!(actions <= actions_max, "more than {actions_max} actions");
            self.check(action);
        }
        self.check_wait();
    }

    /// When the worker wants to be woken.
    fn check_wait(&self) {
        let wait = self.worker.poll_timeout();
        match (self.stopped, self.draining) {
            (true, _) => assert_eq!(wait, None, "a timer after Stopped"),
            (false, Some(Draining { until, .. })) => assert!(
                wait.unwrap_or(Timestamp::MAX) <= until,
                "waits until {wait:?}, and must stop by {until}"
            ),
            (false, None) => assert!(
                wait.unwrap_or(Timestamp::MAX) <= self.now.saturating_add(self.poll_interval_max),
                "waits until {wait:?}, and polls later than it may"
            ),
        }
    }

    /// What must have happened by the time at which a timer fired.
    fn check_timers(&self) {
        if self.stopped {
            return;
        }
        let wait = self.worker.poll_timeout();
        assert!(
            wait.is_none_or(|at| at > self.now),
            "the timer of {wait:?} fired at {}, and would fire again at once",
            self.now
        );
        if let Some(draining) = self.draining {
            assert!(self.now < draining.until, "it should have stopped");
        }
        for run in &self.executing {
            let known = &self.runs[run];
            let lapses_at = known.renewed_at.saturating_add(self.lease);
            assert!(
                known.told_lost || known.aborted || self.now < lapses_at,
                "{run} was not told that its lease could not be renewed: {known:?}"
            );
            let of_shutdown = self.draining.map(|draining| draining.abort_at);
            let of_loss = known
                .lost_at
                .map(|at| at.saturating_add(self.shutdown_timeout));
            for abort_at in [of_shutdown, of_loss].into_iter().flatten() {
                assert!(
                    known.aborted || self.now < abort_at,
                    "{run} was to be aborted at {abort_at}: {known:?}"
                );
            }
        }
    }

    fn check(&mut self, action: Action) {
        match action {
            Action::Execute { op, command } => self.check_command(op, command),
            Action::Start(job) => self.check_start(&job),
            Action::Stop { run, reason } => {
                let draining = self.draining.is_some();
                let lease = self.lease;
                let now = self.now;
                let known = self.at_work(run);
                match reason {
                    StopReason::Shutdown => {
                        assert!(draining, "{run} is asked to end, and nobody shuts down");
                        assert!(!known.told_shutdown, "{run} is asked to end twice");
                        known.told_shutdown = true;
                    }
                    StopReason::LeaseLost => {
                        assert!(!known.told_lost, "{run} is told of its lease twice");
                        known.told_lost = true;
                        let lapsed = known.renewed_at.saturating_add(lease) <= now;
                        let lost = known.lost_at.is_some();
                        assert!(lapsed || lost, "{run} has its lease: {known:?}");
                    }
                }
            }
            Action::Abort(run) => {
                let abort_at = self.draining.map(|draining| draining.abort_at);
                let timeout = self.shutdown_timeout;
                let now = self.now;
                let known = self.at_work(run);
                let for_loss = known.lost_at.map(|at| at.saturating_add(timeout));
                let due = [abort_at, for_loss].into_iter().flatten().min();
                assert!(!known.aborted, "{run} is aborted twice");
                assert!(due.is_some_and(|at| at <= now), "{run} is aborted early");
                known.aborted = true;
            }
            Action::Announce(types) => assert!(!types.is_empty(), "announces nothing"),
            Action::Observe(observation) => self.check_observation(observation),
            Action::Stopped => {
                assert!(self.draining.is_some(), "stopped, and nobody had asked");
                assert_eq!(self.unsettled, Some(self.runs.len()), "{:?}", self.runs);
                self.stopped = true;
            }
        }
    }

    /// The run, whose runner must be at work.
    fn at_work(&mut self, run: Run) -> &mut Known {
        let known = self.runs.get_mut(&run);
        let known = known.filter(|known| known.phase == Phase::Executing);
        known.unwrap_or_else(|| panic!("{run} has no runner"))
    }

    fn check_start(&mut self, job: &ClaimedJob) {
        let run = job.run;
        assert!(self.draining.is_none(), "{run} starts during a shutdown");
        let executing = self.executing.len();
        assert!(
            executing < self.jobs_max,
            "{run} starts while {executing} run, and {} may",
            self.jobs_max
        );
        assert!(
            self.types.contains(&job.job_type),
            "{run} of the type {} starts, which nobody here can run",
            job.job_type
        );
        let first = self.started.insert(run);
        assert!(first || self.misled, "{run} starts twice");
        let known = self.runs.get_mut(&run);
        let known = known.unwrap_or_else(|| panic!("{run} starts, which was not claimed"));
        assert_eq!(known.phase, Phase::Unstarted, "{run} starts twice");
        known.phase = Phase::Executing;
        self.executing.insert(run);
    }

    fn check_command(&mut self, op: OpId, command: Command) {
        self.ops += 1;
        assert_eq!(op, OpId(self.ops), "the names of commands rise by one");
        let lane = lane(&command);
        let busy = self
            .calls
            .iter()
            .find(|call| self::lane(&call.command) == lane);
        assert!(busy.is_none(), "{command:?} while {busy:?} is under way");
        if let Err(rejection) = command.check() {
            panic!("a worker sends what every store refuses: {rejection}");
        }
        match &command {
            Command::Claim(claim) => {
                self.ended = 0;
                assert_eq!(claim.id.worker, self.worker.id());
                assert_eq!(claim.lease, self.lease);
                if claim.repeat {
                    assert_eq!(claim.id.seq, self.claim_seq, "repeats another claim");
                } else {
                    self.claim_seq += 1;
                    assert_eq!(claim.id.seq, self.claim_seq, "claims are counted");
                    assert!(self.draining.is_none(), "claims during a shutdown");
                    let wanted: u32 = claim.quotas.iter().map(|quota| quota.jobs_max).sum();
                    let room = self.jobs_max + self.ahead_max - self.executing.len();
                    assert!(
                        (1..=room).contains(&(wanted as usize)),
                        "asks for {wanted} jobs with room for {room}"
                    );
                }
                let wants = !claim.quotas.is_empty();
                assert!(
                    self.draining.is_none() || !wants,
                    "claims during a shutdown"
                );
                for quota in &claim.quotas {
                    assert!(quota.jobs_max > 0, "{quota:?} asks for nothing");
                    assert!(self.types.contains(&quota.job_type), "{quota:?} is unknown");
                }
            }
            Command::Finish(batch) => {
                assert!(!batch.is_empty(), "ends nothing");
                for finish in batch {
                    let known = self.runs.get(&finish.run);
                    let known = known.unwrap_or_else(|| panic!("ends {finish:?}, not claimed"));
                    check_outcome(known, &finish.outcome);
                }
            }
            Command::Heartbeat(heartbeat) => {
                assert!(!heartbeat.runs.is_empty(), "renews nothing");
                assert_eq!(heartbeat.lease, self.lease);
                for run in &heartbeat.runs {
                    let known = self.runs.get(run);
                    let known = known.unwrap_or_else(|| panic!("renews {run}, not claimed"));
                    assert!(known.lost_at.is_none(), "renews {run}, which is lost");
                }
            }
            Command::Reclaim(reclaim) => {
                assert!(self.draining.is_none(), "reclaims during a shutdown");
                let named = reclaim.policies.iter().map(|policy| &policy.job_type);
                assert!(named.eq(&self.types), "reclaims other types than its own");
            }
            Command::Spawn(_)
            | Command::Checkpoint(_)
            | Command::Hold(_)
            | Command::Find(_)
            | Command::History(_) => {
                panic!("a worker does not send {command:?}");
            }
        }
        let sent_at = self.now;
        self.calls.push(Call {
            op,
            command,
            sent_at,
        });
    }

    fn check_observation(&mut self, observation: Observation) {
        match observation {
            Observation::RunLost { run, .. } | Observation::FinishRefused { run, .. } => {
                self.runs.remove(&run);
            }
            Observation::Draining { executing } => {
                assert!(self.draining.is_some(), "drains, and nobody had asked");
                assert_eq!(executing as usize, self.executing.len());
            }
            Observation::Drained { unsettled } => {
                assert_eq!(self.unsettled, None, "drained twice");
                self.unsettled = Some(unsettled);
            }
            Observation::StoreFailed { lane, retry_in, .. } => {
                // 15 s, and a quarter of it for the jitter.
                assert!(retry_in <= Duration::from_secs(15) * 5 / 4);
                let least = match lane {
                    LaneKind::Heartbeat => Duration::from_millis(75).min(self.lease / 8),
                    LaneKind::Claim | LaneKind::Finish | LaneKind::Reclaim => {
                        Duration::from_millis(75)
                    }
                };
                assert!(retry_in >= least, "{lane:?} is tried again in {retry_in:?}");
            }
            Observation::OftenInterrupted { interruptions, .. } => {
                assert!(interruptions >= INTERRUPTIONS_WARN);
            }
            Observation::RunEnded { .. }
            | Observation::SpecGone { .. }
            | Observation::Reclaimed(_) => {}
        }
    }
}

/// What is recorded is what happened.
fn check_outcome(known: &Known, outcome: &Outcome) {
    let fits = match (known.phase, &known.ended, outcome) {
        (Phase::Executing, ..) => false,
        (Phase::Unstarted, _, Outcome::Errored { error }) => error.as_str() == SPEC_GONE,
        (Phase::Unstarted, _, outcome) => *outcome == Outcome::Released,
        (Phase::Ended, Some(Ended::Completed), outcome) => *outcome == Outcome::Completed,
        (Phase::Ended, Some(Ended::Rescheduled(asked)), Outcome::Rescheduled { due }) => {
            asked == due
        }
        (Phase::Ended, Some(Ended::Snoozed(asked)), Outcome::Snoozed { due }) => asked == due,
        (Phase::Ended, Some(Ended::Errored(why)), Outcome::Errored { error }) => why == error,
        (Phase::Ended, Some(Ended::Failed(why)), Outcome::Retried { error, .. })
        | (Phase::Ended, Some(Ended::Failed(why)), Outcome::Errored { error }) => why == error,
        (Phase::Ended, Some(Ended::Undecodable(why)), Outcome::Undecodable { error, .. })
        | (Phase::Ended, Some(Ended::Undecodable(why)), Outcome::Errored { error }) => why == error,
        (Phase::Ended, Some(Ended::Aborted), outcome) => *outcome == Outcome::Interrupted,
        (Phase::Ended, ..) => false,
    };
    assert!(fits, "{outcome:?} is recorded of {known:?}");
}

fn lane(command: &Command) -> Option<u8> {
    match command {
        Command::Claim(_) => Some(1),
        Command::Finish(_) => Some(2),
        Command::Heartbeat(_) => Some(3),
        Command::Reclaim(_) => Some(4),
        Command::Spawn(_)
        | Command::Checkpoint(_)
        | Command::Hold(_)
        | Command::Find(_)
        | Command::History(_) => None,
    }
}
