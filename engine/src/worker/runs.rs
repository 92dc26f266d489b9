//! The runs that a worker has claimed and not yet settled.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ids::{JobType, Run};
use crate::planted::{Bug, planted};
use crate::store::ClaimedJob;
use crate::time::Timestamp;

/// All of them, by run: of one job there can be two, an old one that has lost
/// its lease and the current one.
#[derive(Clone, Debug, Default)]
pub(super) struct Runs {
    runs: BTreeMap<Run, RunState>,
    executing: u32,
}

#[derive(Clone, Debug)]
pub(super) struct RunState {
    pub(super) job_type: JobType,
    pub(super) attempt: u32,
    pub(super) phase: RunPhase,
    /// When its runner started, on the worker's clock.
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
    /// Takes in at `now` a job that a claim took which was sent at `sent_at`.
    pub(super) fn insert(&mut self, now: Timestamp, sent_at: Timestamp, job: &ClaimedJob) {
        let state = RunState {
            job_type: job.job_type.clone(),
            attempt: job.attempt,
            phase: RunPhase::Executing,
            started_at: now,
            renewed_at: sent_at,
            told_lost: false,
            lost: false,
            abort_at: None,
        };
        if self.runs.insert(job.run, state).is_none() {
            self.executing += 1;
        }
    }

    /// Runs whose runner has not ended.
    pub(super) fn executing(&self) -> u32 {
        self.executing
    }

    /// Runs in all.
    pub(super) fn len(&self) -> usize {
        self.runs.len()
    }

    pub(super) fn contains(&self, run: Run) -> bool {
        self.runs.contains_key(&run)
    }

    pub(super) fn get(&self, run: Run) -> Option<&RunState> {
        self.runs.get(&run)
    }

    /// The runner has ended, its end has yet to be recorded.
    pub(super) fn finishing(&mut self, run: Run) {
        let state = self.runs.get_mut(&run).expect("the caller knows the run");
        if state.phase != RunPhase::Finishing {
            self.executing -= 1;
            state.phase = RunPhase::Finishing;
        }
    }

    /// The run is settled, or lost. Returns it if it was there.
    pub(super) fn remove(&mut self, run: Run) -> Option<RunState> {
        let state = self.runs.remove(&run)?;
        if state.phase != RunPhase::Finishing {
            self.executing -= 1;
        }
        Some(state)
    }

    /// The runs whose leases this worker has to keep, the longest not renewed
    /// first, at most `len_max` of them.
    pub(super) fn leased(&self, len_max: usize) -> Vec<Run> {
        let leased = self.runs.iter().filter(|(_, state)| {
            let skipped = planted(Bug::HeartbeatsSkipEnded) && state.phase == RunPhase::Finishing;
            !state.lost && !skipped
        });
        let mut leased: Vec<_> = leased
            .map(|(run, state)| (state.renewed_at, *run))
            .collect();
        if leased.len() > len_max {
            leased.sort();
            leased.truncate(len_max);
        }
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
                !std::mem::replace(&mut state.told_lost, true)
            }
            _ => false,
        }
    }

    /// Every runner is aborted at `abort_at`, unless earlier. Returns those that
    /// are at work.
    pub(super) fn abort_all_at(&mut self, abort_at: Timestamp) -> Vec<Run> {
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
        let lapsed = self
            .runs
            .iter_mut()
            .filter(|(_, state)| state.lapses_at(lease).is_some_and(|at| at <= now));
        lapsed
            .map(|(run, state)| {
                state.told_lost = true;
                *run
            })
            .collect()
    }

    /// The runners to abort at `now`.
    pub(super) fn abort_due(&mut self, now: Timestamp) -> Vec<Run> {
        let due = self
            .runs
            .iter_mut()
            .filter(|(_, state)| state.aborts_at().is_some_and(|at| at <= now));
        due.map(|(run, state)| {
            state.phase = RunPhase::Aborting;
            *run
        })
        .collect()
    }

    /// When [`Runs::lapsed`] or [`Runs::abort_due`] next has something to say.
    pub(super) fn next_timer(&self, lease: Duration) -> Option<Timestamp> {
        let states = self.runs.values();
        let times = states.flat_map(|state| [state.lapses_at(lease), state.aborts_at()]);
        times.flatten().min()
    }
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
