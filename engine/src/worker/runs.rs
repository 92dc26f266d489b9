//! The runs that a worker has claimed and not yet settled.

use std::collections::VecDeque;
use std::collections::btree_map::{BTreeMap, Entry};
use std::time::Duration;

use crate::ids::{JobType, Run};
use crate::time::Timestamp;

/// All of them, by run: of one job there can be two, an old one that has lost
/// its lease and the current one.
#[derive(Clone, Debug, Default)]
pub(super) struct Runs {
    runs: BTreeMap<Run, RunState>,
    executing: u32,
    finishing: u32,
    /// No lease lapses and nothing is to be aborted before this. Kept, so that not
    /// every look at the timer goes through all runs.
    quiet_until: Option<Timestamp>,
}

/// What a claim says of a run, as far as its end depends on it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ClaimedRun {
    pub(super) attempt: u32,
    /// Interruptions in a row before it.
    pub(super) interruptions: u32,
    /// How long nobody has been able to decode the config, if that is so.
    pub(super) undecodable_for: Option<Duration>,
}

#[derive(Clone, Debug)]
pub(super) struct RunState {
    pub(super) job_type: JobType,
    pub(super) claimed: ClaimedRun,
    pub(super) phase: RunPhase,
    /// When its runner started, on the worker's clock; before that, when it was
    /// claimed.
    started_at: Timestamp,
    /// When the command that last renewed the lease was sent: the store renewed
    /// it no earlier.
    renewed_at: Timestamp,
    /// The runner has been told that the lease is lost, or may be.
    told_lost: bool,
    /// The store has said that the lease is lost.
    pub(super) lost: bool,
    /// When the runner is aborted if it has not ended by itself.
    abort_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunPhase {
    /// It waits for a place.
    Ready,
    /// The runner is at work.
    Executing,
    /// The runner has been aborted and has not ended yet.
    Aborting,
    /// The runner has ended; its end is not recorded yet.
    Finishing,
}

impl RunState {
    /// How long it has run at `now`.
    pub(super) fn age(&self, now: Timestamp) -> Duration {
        now.saturating_since(self.started_at)
    }
}

impl Runs {
    /// Takes in at `now` a run that began with a claim which was sent at `sent_at`, unless
    /// it is known. Returns whether it was not.
    pub(super) fn insert(
        &mut self,
        now: Timestamp,
        sent_at: Timestamp,
        run: Run,
        job_type: JobType,
        claimed: ClaimedRun,
    ) -> bool {
        let Entry::Vacant(entry) = self.runs.entry(run) else {
            return false;
        };
        entry.insert(RunState {
            job_type,
            claimed,
            phase: RunPhase::Ready,
            started_at: now,
            renewed_at: sent_at,
            told_lost: false,
            lost: false,
            abort_at: None,
        });
        true
    }

    /// Its runner starts at `now`, unless its lease may have run out. Returns whether
    /// it does.
    pub(super) fn start(&mut self, run: Run, now: Timestamp, lease: Duration) -> bool {
        let state = self.runs.get_mut(&run).expect("what is ready is known");
        let lapses_at = state.renewed_at.saturating_add(lease);
        if state.lost || now >= lapses_at {
            return false;
        }
        state.phase = RunPhase::Executing;
        state.started_at = now;
        self.executing += 1;
        self.quiet_until = earlier(self.quiet_until, lapses_at);
        true
    }

    /// Runs whose runner has not ended.
    pub(super) fn executing(&self) -> u32 {
        self.executing
    }

    /// Runs in all.
    pub(super) fn len(&self) -> usize {
        self.runs.len()
    }

    pub(super) fn get(&self, run: Run) -> Option<&RunState> {
        self.runs.get(&run)
    }

    /// Runs whose end is not recorded yet.
    pub(super) fn unrecorded(&self) -> u32 {
        self.finishing
    }

    /// The runner has ended, or never started; that has yet to be recorded.
    pub(super) fn finishing(&mut self, run: Run) {
        let state = self.runs.get_mut(&run).expect("the caller knows the run");
        let before = std::mem::replace(&mut state.phase, RunPhase::Finishing);
        self.left(before);
        self.finishing += 1;
    }

    /// The run is settled, or lost. Returns it if it was there.
    pub(super) fn remove(&mut self, run: Run) -> Option<RunState> {
        let state = self.runs.remove(&run)?;
        self.left(state.phase);
        Some(state)
    }

    fn left(&mut self, phase: RunPhase) {
        match phase {
            RunPhase::Ready => {}
            RunPhase::Executing | RunPhase::Aborting => self.executing -= 1,
            RunPhase::Finishing => self.finishing -= 1,
        }
    }

    /// The runs whose leases this worker has to keep, the longest not renewed
    /// first.
    pub(super) fn leased(&self) -> VecDeque<Run> {
        let leased = self.runs.iter().filter(|(_, state)| !state.lost);
        let mut leased: Vec<_> = leased
            .map(|(run, state)| (state.renewed_at, *run))
            .collect();
        leased.sort_unstable();
        leased.into_iter().map(|(_, run)| run).collect()
    }

    /// The store renewed the lease by a command that was sent at `sent_at`.
    pub(super) fn renewed(&mut self, run: Run, sent_at: Timestamp) {
        if let Some(state) = self.runs.get_mut(&run) {
            state.renewed_at = state.renewed_at.max(sent_at);
        }
    }

    /// The store says that the run is not current: the runner is aborted at
    /// `abort_at`. Returns whether it has still to be told.
    pub(super) fn lost(&mut self, run: Run, abort_at: Timestamp) -> bool {
        match self.runs.get_mut(&run) {
            Some(state) if state.phase == RunPhase::Executing && !state.lost => {
                state.lost = true;
                state.abort_by(abort_at);
                self.quiet_until = earlier(self.quiet_until, abort_at);
                !std::mem::replace(&mut state.told_lost, true)
            }
            Some(state) => {
                state.lost = true;
                false
            }
            None => false,
        }
    }

    /// Every runner is aborted at `abort_at`, unless earlier. Returns those that
    /// are at work.
    pub(super) fn abort_all_at(&mut self, abort_at: Timestamp) -> Vec<Run> {
        self.quiet_until = earlier(self.quiet_until, abort_at);
        let executing = self
            .runs
            .iter_mut()
            .filter(|(_, state)| state.is_executing());
        executing
            .map(|(run, state)| {
                state.abort_by(abort_at);
                *run
            })
            .collect()
    }

    /// The runners to tell that their lease may have run out at `now`, since it
    /// could not be renewed for `lease`.
    pub(super) fn lapsed(&mut self, now: Timestamp, lease: Duration) -> Vec<Run> {
        if self.is_quiet(now) {
            return Vec::new();
        }
        let lapsed = self
            .runs
            .iter_mut()
            .filter(|(_, state)| state.lapses_at(lease).is_some_and(|at| at <= now));
        let lapsed = lapsed
            .map(|(run, state)| {
                state.told_lost = true;
                *run
            })
            .collect();
        self.look_ahead(lease);
        lapsed
    }

    /// The runners to abort at `now`.
    pub(super) fn abort_due(&mut self, now: Timestamp, lease: Duration) -> Vec<Run> {
        if self.is_quiet(now) {
            return Vec::new();
        }
        let due = self
            .runs
            .iter_mut()
            .filter(|(_, state)| state.aborts_at().is_some_and(|at| at <= now));
        let due = due
            .map(|(run, state)| {
                state.phase = RunPhase::Aborting;
                *run
            })
            .collect();
        self.look_ahead(lease);
        due
    }

    fn look_ahead(&mut self, lease: Duration) {
        let states = self.runs.values();
        let times = states.flat_map(|state| [state.lapses_at(lease), state.aborts_at()]);
        self.quiet_until = times.flatten().min();
    }

    /// When [`Runs::lapsed`] or [`Runs::abort_due`] may next have something to say;
    /// leases that were renewed since can make it too early.
    pub(super) fn next_timer(&self) -> Option<Timestamp> {
        self.quiet_until
    }

    fn is_quiet(&self, now: Timestamp) -> bool {
        self.quiet_until.is_none_or(|until| now < until)
    }
}

fn earlier(first: Option<Timestamp>, second: Timestamp) -> Option<Timestamp> {
    Some(first.map_or(second, |first| first.min(second)))
}

impl RunState {
    fn is_executing(&self) -> bool {
        self.phase == RunPhase::Executing
    }

    fn abort_by(&mut self, at: Timestamp) {
        self.abort_at = Some(self.abort_at.map_or(at, |earlier| earlier.min(at)));
    }

    fn lapses_at(&self, lease: Duration) -> Option<Timestamp> {
        (self.is_executing() && !self.told_lost).then(|| self.renewed_at.saturating_add(lease))
    }

    fn aborts_at(&self) -> Option<Timestamp> {
        self.abort_at.filter(|_| self.is_executing())
    }
}
