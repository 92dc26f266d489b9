//! What the audit remembers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use job_engine::history::{Lease, Snapshot};
use job_engine::lifecycle::{RunEnd, State};
use job_engine::store::Written;
use job_engine::worker::{Ended, StopReason};
use job_engine::{Command, Fence, JobId, Payload, Reply, Run, StoreError, Timestamp, WorkerId};

use super::capacity::Ahead;
use super::claims::Owed;
use super::logs::{Logged, Unsaid};
use super::obligations::Obligations;
use super::pace::Pace;
use super::repeats::Repeats;
use super::spawns::Spawning;
use crate::event::{Call, Disturbance, Event, Moment, Who};
use crate::scenario::{Fault, JobSpec, Knobs, Scenario, TYPES_MAX, job_key, type_place};

/// The memory of the audit: what it has seen of jobs and workers.
#[derive(Clone, Debug)]
pub(super) struct Books {
    pub(super) scenario: Arc<Scenario>,
    pub(super) fault_free: bool,
    pub(super) now: Moment,
    /// Since when nothing goes wrong, true time.
    pub(super) calm_since: Option<u64>,
    jobs: Vec<JobBook>,
    /// Where the job with this key is in `jobs`.
    places: Vec<usize>,
    pub(super) workers: Vec<WorkerBook>,
    /// Who claims under this id.
    pub(super) ids: BTreeMap<WorkerId, Who>,
    /// Jobs that exist.
    pub(super) known: usize,
    /// Pending jobs, by type, due time and id.
    pub(super) pending: BTreeSet<(u32, Timestamp, JobId)>,
    pub(super) running: BTreeSet<JobId>,
    /// The unique job of each type.
    pub(super) unique: BTreeMap<u32, JobId>,
    /// Until when any process may lose a lease without being at fault.
    pub(super) all_disturbed_until: u64,
    pub(super) obligations: Obligations,
    /// How many commands were carried out.
    pub(super) commands: u64,
    pub(super) spawning: Spawning,
}

/// What is remembered of a job.
#[derive(Clone, Debug)]
pub(super) struct JobBook {
    pub(super) spec: JobSpec,
    /// What the store last said of it.
    pub(super) seen: Option<Seen>,
    /// The token of the spawn that created it.
    pub(super) token: Option<i64>,
    /// The last execution state that the store took.
    pub(super) state: Option<Payload>,
    /// Its runs, by fence; the first is that of fence 1.
    pub(super) runs: Vec<RunBook>,
}

/// What can be seen of a job in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) state: State,
    pub(super) fence: Fence,
    pub(super) attempt: u32,
    pub(super) crashes: u32,
    pub(super) interruptions: u32,
    pub(super) undecodable_since: Option<Timestamp>,
    pub(super) due_at: Timestamp,
    pub(super) lease: Option<Lease>,
    pub(super) runs: usize,
    pub(super) last_end: Option<RunEnd>,
}

impl Seen {
    pub(super) fn of(job: &Snapshot) -> Self {
        let live = job.live.as_ref();
        let last = job.runs.last();
        Self {
            state: job.state(),
            fence: live.map_or_else(|| last.map_or(Fence::NONE, |run| run.fence), |l| l.fence),
            attempt: live.map_or(0, |live| live.attempt),
            crashes: live.map_or(0, |live| live.crashes),
            interruptions: live.map_or(0, |live| live.interruptions),
            undecodable_since: live.and_then(|live| live.undecodable_since),
            due_at: live.map_or(Timestamp::MIN, |live| live.due_at),
            lease: live.and_then(|live| live.lease),
            runs: job.runs.len(),
            last_end: last.map(|run| run.end),
        }
    }
}

impl Seen {
    /// Whether the lease is that of the claim by which this run began.
    pub(super) fn is_by(self, run: Run) -> bool {
        self.lease.is_some_and(|lease| lease.claim() == run.claim)
    }

    /// The run that holds the lease.
    pub(super) fn run(self, job: JobId) -> Option<Run> {
        Some(Run {
            job,
            fence: self.fence,
            claim: self.lease?.claim(),
        })
    }
}

/// What is remembered of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct RunBook {
    /// Whose it is.
    pub(super) who: Who,
    /// When its claim was carried out, true time.
    pub(super) claimed_us: u64,
    /// How far the clock of the store was ahead when it last renewed the lease, in
    /// microseconds.
    pub(super) renewed_ahead_us: i64,
    /// Until when its worker may believe in its lease, as far as that was ever renewed,
    /// true time.
    pub(super) believed_until_us: u64,
    /// Whether its worker was told of it by the answer to a claim.
    pub(super) heard: bool,
    pub(super) started_us: Option<u64>,
    /// Whether its worker has sent how it ended, or that it never started.
    pub(super) concluded: bool,
    pub(super) told: Option<StopReason>,
    /// The store said that the lease is lost.
    pub(super) stale: bool,
    pub(super) aborted: bool,
    /// The store refused to record its end, alone.
    pub(super) refused: bool,
    /// The store has taken a state of it, or refused one.
    pub(super) kept: [bool; 2],
    /// A transaction of its runner may be committed at any moment.
    pub(super) committing: bool,
    pub(super) commits: u32,
    /// How its runner said that it ended.
    pub(super) ended: Option<EndedAs>,
    /// When that was, true time.
    pub(super) ended_us: u64,
    /// How the store recorded its end.
    pub(super) recorded: Option<RunEnd>,
    /// A transaction of its runner recorded it.
    pub(super) settled: bool,
    /// What operators were told of its end.
    pub(super) logged: Option<Logged>,
    /// They were told that its job is interrupted again and again.
    pub(super) logged_often: bool,
}

/// [`Ended`] without its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndedAs {
    Completed,
    Rescheduled,
    Snoozed,
    Failed,
    Errored,
    Settled,
    LeaseLost,
    Aborted,
    Undecodable,
}

impl EndedAs {
    fn of(ended: &Ended) -> Self {
        match ended {
            Ended::Completed => Self::Completed,
            Ended::Rescheduled(_) => Self::Rescheduled,
            Ended::Snoozed(_) => Self::Snoozed,
            Ended::Failed(_) => Self::Failed,
            Ended::Errored(_) => Self::Errored,
            Ended::Settled(_) => Self::Settled,
            Ended::LeaseLost => Self::LeaseLost,
            Ended::Aborted => Self::Aborted,
            Ended::Undecodable(_) => Self::Undecodable,
        }
    }

    /// Whether its worker may have this end recorded of it.
    pub(super) fn is(self, end: RunEnd) -> bool {
        match self {
            Self::Completed => end == RunEnd::Completed,
            Self::Rescheduled => end == RunEnd::Rescheduled,
            Self::Snoozed => end == RunEnd::Snoozed,
            Self::Failed => matches!(end, RunEnd::Retried | RunEnd::Errored),
            Self::Errored => end == RunEnd::Errored,
            Self::Aborted => end == RunEnd::Interrupted,
            Self::Undecodable => matches!(end, RunEnd::Undecodable | RunEnd::Errored),
            Self::Settled | Self::LeaseLost => false,
        }
    }
}

impl RunBook {
    /// Its runner is at work, as far as is known.
    pub(super) fn is_executing(&self) -> bool {
        self.started_us.is_some() && self.ended.is_none()
    }
}

/// What is remembered of a worker.
#[derive(Clone, Debug)]
pub(super) struct WorkerBook {
    pub(super) key: u32,
    pub(super) incarnation: u32,
    pub(super) life: Life,
    pub(super) up_us: u64,
    pub(super) paused: bool,
    pub(super) listening: bool,
    /// Since when it does, or does not, true time.
    pub(super) listening_us: u64,
    /// When it last heard of jobs of each type, true time.
    pub(super) heard_us: [u64; TYPES_MAX],
    /// When its process last ended, true time.
    pub(super) ended_us: u64,
    pub(super) shutdown_us: Option<u64>,
    /// When a command of it was last answered, or a runner of it ended, true time.
    pub(super) settled_us: u64,
    pub(super) knobs: Knobs,
    /// Until when it may lose leases without being at fault, true time.
    pub(super) disturbed_until: u64,
    /// Until when the process itself may act late, true time.
    pub(super) held_up_until: u64,
    /// What its runners are at, by run.
    pub(super) executing: BTreeSet<Run>,
    pub(super) ahead: Ahead,
    pub(super) owed: Owed,
    pub(super) pace: Pace,
    pub(super) repeats: Repeats,
    pub(super) unsaid: Unsaid,
    /// Since when it has runners at work, true time.
    pub(super) busy_since: u64,
}

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    NotYet,
    Up,
    Crashed,
    Stopped,
}

impl WorkerBook {
    pub(super) fn who(&self) -> Who {
        Who {
            worker: self.key,
            incarnation: self.incarnation,
        }
    }

    /// How often it is to look for jobs now, in milliseconds.
    pub(super) fn poll_ms(&self) -> u64 {
        let poll_ms = match self.listening {
            true => self.knobs.poll_ms,
            false => self.knobs.poll_deaf_ms,
        };
        poll_ms.max(10)
    }

    pub(super) fn is_up(&self, who: Who) -> bool {
        self.life == Life::Up && self.incarnation == who.incarnation
    }
}

impl Books {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let keys = scenario.jobs.iter().map(|job| job.key as usize + 1);
        let mut places = vec![usize::MAX; keys.max().unwrap_or(0)];
        for (place, job) in scenario.jobs.iter().enumerate() {
            places[job.key as usize] = place;
        }
        Self {
            fault_free: scenario.is_fault_free(),
            now: Moment {
                true_us: 0,
                store: crate::scenario::START,
            },
            calm_since: None,
            jobs: scenario.jobs.iter().map(JobBook::new).collect(),
            places,
            workers: scenario
                .workers
                .iter()
                .map(|worker| WorkerBook {
                    key: worker.key,
                    incarnation: 0,
                    life: Life::NotYet,
                    up_us: 0,
                    paused: false,
                    listening: false,
                    listening_us: 0,
                    heard_us: [0; TYPES_MAX],
                    ended_us: 0,
                    shutdown_us: None,
                    settled_us: 0,
                    knobs: clamped(&worker.knobs),
                    disturbed_until: 0,
                    held_up_until: 0,
                    executing: BTreeSet::new(),
                    ahead: Ahead::default(),
                    owed: Owed::default(),
                    pace: Pace::default(),
                    repeats: Repeats::default(),
                    unsaid: Unsaid::default(),
                    busy_since: 0,
                })
                .collect(),
            ids: BTreeMap::new(),
            known: 0,
            pending: BTreeSet::new(),
            running: BTreeSet::new(),
            unique: BTreeMap::new(),
            all_disturbed_until: 0,
            obligations: Obligations::default(),
            commands: 0,
            spawning: Spawning::default(),
            scenario: Arc::new(scenario.clone()),
        }
    }

    /// How far the clock of the store is ahead, in microseconds.
    pub(super) fn store_ahead_us(&self) -> i64 {
        let shown = self.now.store.as_micros() - crate::scenario::START.as_micros();
        shown - self.now.true_us.cast_signed()
    }

    pub(super) fn job(&self, id: JobId) -> Option<&JobBook> {
        let place = *self.places.get(job_key(id) as usize)?;
        self.jobs.get(place)
    }

    pub(super) fn job_mut(&mut self, id: JobId) -> Option<&mut JobBook> {
        let place = *self.places.get(job_key(id) as usize)?;
        self.jobs.get_mut(place)
    }

    pub(super) fn run(&self, run: Run) -> Option<&RunBook> {
        self.job(run.job)?.run(run.fence)
    }

    pub(super) fn run_mut(&mut self, run: Run) -> Option<&mut RunBook> {
        let place = usize::try_from(run.fence.0 - 1).ok()?;
        self.job_mut(run.job)?.runs.get_mut(place)
    }

    /// What the store says of the job of a run, while that holds its lease.
    pub(super) fn holder(&self, run: Run) -> Option<Seen> {
        let seen = self.job(run.job)?.seen?;
        (seen.run(run.job) == Some(run)).then_some(seen)
    }

    pub(super) fn worker(&self, who: Who) -> Option<&WorkerBook> {
        self.workers.iter().find(|worker| worker.key == who.worker)
    }

    pub(super) fn worker_mut(&mut self, who: Who) -> Option<&mut WorkerBook> {
        let workers = &mut self.workers;
        workers.iter_mut().find(|worker| worker.key == who.worker)
    }

    /// Whether `who` is up, and has been left in peace for `quiet_us`.
    pub(super) fn is_undisturbed(&self, who: Who, quiet_us: u64) -> bool {
        self.worker(who).is_some_and(|worker| {
            let until = worker.disturbed_until.max(self.all_disturbed_until);
            let since = until.max(worker.up_us);
            let quiet = until == 0 || self.now.true_us > since.saturating_add(quiet_us);
            worker.is_up(who) && !worker.paused && quiet
        })
    }

    /// Takes in what the store now says of a job.
    pub(super) fn see(&mut self, id: JobId, seen: Option<Seen>) {
        let Some(job) = self.job_mut(id) else { return };
        let job_type = job.spec.job_type;
        let before = std::mem::replace(&mut job.seen, seen);
        if before == seen {
            return;
        }
        if let Some(before) = before {
            match before.state {
                State::Pending => {
                    self.pending.remove(&(job_type, before.due_at, id));
                }
                State::Running => {
                    self.running.remove(&id);
                }
                State::Completed | State::Errored => {}
            }
        } else {
            self.known += 1;
        }
        match seen.map(|seen| (seen.state, seen.due_at)) {
            Some((State::Pending, due_at)) => {
                self.pending.insert((job_type, due_at, id));
            }
            Some((State::Running, _)) => {
                self.running.insert(id);
            }
            Some((State::Completed | State::Errored, _)) | None => {}
        }
    }

    /// Takes in an event that passed the checks.
    pub(super) fn take_in(&mut self, event: &Event<'_>) {
        let now_us = self.now.true_us;
        match *event {
            Event::Up { who, id } => {
                self.ids.insert(id, who);
                if let Some(worker) = self.worker_mut(who) {
                    worker.incarnation = who.incarnation;
                    worker.life = Life::Up;
                    worker.up_us = now_us;
                    worker.paused = false;
                    worker.listening = false;
                    worker.shutdown_us = None;
                    worker.executing.clear();
                    worker.ahead = Ahead::default();
                    worker.owed = Owed::default();
                    worker.pace = Pace::default();
                    worker.repeats = Repeats::default();
                    worker.unsaid = Unsaid::default();
                }
            }
            Event::Configured { who, knobs } => {
                if let Some(worker) = self.worker_mut(who) {
                    worker.knobs = clamped(knobs);
                }
            }
            Event::Crashed { who } => self.process_ended(who, Life::Crashed),
            Event::Stopped { who } => self.process_ended(who, Life::Stopped),
            Event::ShutdownAsked { who } => {
                if let Some(worker) = self.worker_mut(who) {
                    worker.shutdown_us.get_or_insert(now_us);
                }
            }
            Event::Paused { who } => {
                if let Some(worker) = self.worker_mut(who) {
                    worker.paused = true;
                }
            }
            Event::Resumed { who } => {
                if let Some(worker) = self.worker_mut(who) {
                    worker.paused = false;
                    worker.disturbed_until = worker.disturbed_until.max(now_us);
                    worker.held_up_until = worker.held_up_until.max(now_us);
                }
            }
            Event::Disturbed { who, until_us, by } => {
                self.disturbed(who, until_us, by);
            }
            Event::Answered { call, result } => self.take_in_answer(call, result),
            Event::Started { who, job } => {
                if let Some(run) = self.run_mut(job.run) {
                    run.started_us = Some(now_us);
                }
                let holds = |run: &Run| self.run(*run).is_some_and(|run| !run.stale);
                let worker = self.worker(who);
                let busy = worker.is_some_and(|worker| worker.executing.iter().any(holds));
                if let Some(worker) = self.worker_mut(who) {
                    if !busy {
                        worker.busy_since = now_us;
                    }
                    worker.executing.insert(job.run);
                }
            }
            Event::Told { run, reason, .. } => {
                if let Some(run) = self.run_mut(run) {
                    run.told = Some(match run.told {
                        Some(StopReason::LeaseLost) => StopReason::LeaseLost,
                        _ => reason,
                    });
                }
            }
            Event::Aborted { run, .. } => {
                if let Some(run) = self.run_mut(run) {
                    run.aborted = true;
                }
            }
            Event::Committing { run, .. } => {
                if let Some(run) = self.run_mut(run) {
                    run.committing = true;
                }
            }
            Event::Committed { run, .. } => {
                if let Some(run) = self.run_mut(run) {
                    run.commits += 1;
                }
            }
            Event::Ended { who, run, ended } => {
                if let Some(run) = self.run_mut(run) {
                    run.ended = Some(EndedAs::of(ended));
                    run.ended_us = now_us;
                }
                if let Some(worker) = self.worker_mut(who) {
                    worker.executing.remove(&run);
                }
            }
            Event::Woken { who, job_type } => {
                let place = type_place(job_type) as usize;
                if let Some(worker) = self.worker_mut(who)
                    && let Some(heard_us) = worker.heard_us.get_mut(place)
                {
                    *heard_us = now_us;
                }
            }
            Event::Listening { who, listening } => {
                if let Some(worker) = self.worker_mut(who) {
                    worker.listening = listening;
                    worker.listening_us = now_us;
                }
            }
            Event::Calm => self.calm_since = Some(now_us),
            Event::Sent { call, command } => {
                if let (true, Command::Finish(finishes)) = (call.is_of_engine(), command) {
                    for finish in finishes {
                        if let Some(run) = self.run_mut(finish.run) {
                            run.concluded = true;
                        }
                    }
                }
            }
            Event::Applied { .. }
            | Event::Unheard { .. }
            | Event::Point { .. }
            | Event::Kept { .. }
            | Event::Noted { .. }
            | Event::Logged { .. }
            | Event::Spawning { .. }
            | Event::Spawned { .. }
            | Event::Fault { .. } => {}
        }
    }

    fn disturbed(&mut self, who: Option<Who>, until_us: u64, by: Disturbance) {
        let now_us = self.now.true_us;
        let for_us = until_us.saturating_sub(now_us);
        // Zero is never.
        let until_us = until_us.max(1);
        if for_us > 0 {
            self.obligations.delay(who, for_us, by);
        }
        if who.is_none() {
            self.all_disturbed_until = self.all_disturbed_until.max(until_us);
        }
        let concerned = self.workers.iter_mut();
        for worker in concerned.filter(|worker| who.is_none_or(|who| who.worker == worker.key)) {
            worker.owed.delay(for_us);
            worker.disturbed_until = worker.disturbed_until.max(until_us);
            if by.holds_up() {
                worker.held_up_until = worker.held_up_until.max(until_us);
            }
            if by == Disturbance::OwnClock {
                worker.ahead.clock_was_set(now_us);
            }
        }
    }

    fn take_in_answer(&mut self, call: Call, result: &Result<Reply, StoreError>) {
        if !call.is_of_engine() {
            return;
        }
        if let Err(StoreError::Rejected(_)) = result {
            let refused = self
                .worker(call.who)
                .map(|worker| worker.repeats.given_up(call.op));
            for run in refused.unwrap_or_default() {
                if let Some(run) = self.run_mut(run) {
                    run.refused = true;
                }
            }
        }
        if let Ok(Reply::Claimed(claimed)) = result {
            let left = claimed.left.iter().map(|left| left.run);
            for run in claimed.jobs.iter().map(|job| job.run).chain(left) {
                if let Some(run) = self.run_mut(run) {
                    run.heard = true;
                }
            }
        }
        if let Ok(Reply::Heartbeat(written)) = result {
            let worker = self.worker(call.who);
            let runs = worker.map_or(Vec::new(), |worker| worker.pace.heartbeat().to_vec());
            for (run, written) in runs.into_iter().zip(written) {
                if *written == Written::Stale
                    && let Some(run) = self.run_mut(run)
                {
                    run.stale = true;
                }
            }
        }
    }

    fn process_ended(&mut self, who: Who, life: Life) {
        let now_us = self.now.true_us;
        let Some(worker) = self.worker_mut(who) else {
            return;
        };
        if worker.incarnation != who.incarnation {
            return;
        }
        worker.life = life;
        worker.ended_us = now_us;
        let gone = std::mem::take(&mut worker.executing);
        for run in gone {
            if let Some(run) = self.run_mut(run) {
                run.ended = Some(EndedAs::Aborted);
                run.ended_us = now_us;
            }
        }
    }

    /// The runs that a worker knows of, and has neither started nor put back.
    pub(super) fn unstarted(&self, who: Who) -> Vec<Run> {
        let runs = self.running.iter().filter_map(|job| {
            let run = self.job(*job)?.seen?.run(*job)?;
            let book = self.run(run)?;
            let begun = book.started_us.is_some() || book.ended.is_some() || book.concluded;
            (book.who == who && book.heard && !begun).then_some(run)
        });
        runs.collect()
    }

    /// How far the clock of a worker was set back since then, in microseconds.
    pub(super) fn set_back_us(&self, who: Who, since_us: u64) -> u64 {
        let jumps = self.scenario.faults.iter().map(|fault| match fault {
            Fault::ClockJump {
                worker,
                at_ms,
                by_ms,
            } if *worker == who.worker => {
                // It stands still for as long as it was set back.
                let back_us = u64::try_from(-by_ms).unwrap_or(0) * 1_000;
                if at_ms * 1_000 + back_us >= since_us {
                    back_us
                } else {
                    0
                }
            }
            _ => 0,
        });
        jumps.sum()
    }

    /// The number of whoever claims under this id.
    pub(super) fn who(&self, id: WorkerId) -> Option<Who> {
        self.ids.get(&id).copied()
    }

    /// The types that a command names, by place.
    pub(super) fn quotas(command: &Command) -> impl Iterator<Item = (u32, u32)> {
        let quotas = match command {
            Command::Claim(claim) => &claim.quotas[..],
            _ => &[],
        };
        quotas.iter().map(|q| (type_place(&q.job_type), q.jobs_max))
    }
}

/// As the engine takes them.
fn clamped(knobs: &Knobs) -> Knobs {
    let jobs_max = knobs.jobs_max.max(1);
    Knobs {
        jobs_max,
        jobs_min: knobs.jobs_min.clamp(1, jobs_max),
        ..knobs.clone()
    }
}

impl JobBook {
    fn new(spec: &JobSpec) -> Self {
        Self {
            spec: spec.clone(),
            seen: None,
            token: None,
            state: None,
            runs: Vec::new(),
        }
    }

    pub(super) fn run(&self, fence: Fence) -> Option<&RunBook> {
        self.runs.get(usize::try_from(fence.0 - 1).ok()?)
    }
}
