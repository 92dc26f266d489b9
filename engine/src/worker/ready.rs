//! Jobs that are claimed ahead of their places, so that runners which end soon do
//! not wait for the store.
//!
//! How many depends on how fast the runners are. A claim that takes as long as ten
//! runs finds forty jobs more than there are places; where no run ends meanwhile,
//! nothing is claimed ahead, and a job is left for a worker that has a place. A worker
//! that runs out of jobs before the claim brings more cannot know how fast its runners
//! are. It goes up faster, as far as all would find a place in time.
//!
//! A process that dies costs all jobs that it holds an attempt, and counts as a crash
//! of theirs. For what waits that is unjust, so it happens to a job once at most: only
//! jobs at their first attempt wait, and none of a type for which one crash or one
//! attempt is the last.

use std::collections::VecDeque;
use std::time::Duration;

use super::Worker;
use super::io::Action;
use crate::ids::JobType;
use crate::limits::BATCH_LEN_MAX;
use crate::planted::{Bug, planted};
use crate::store::{ClaimedJob, Outcome};
use crate::time::Timestamp;

/// So many jobs are claimed ahead for each run that ended during the last claim:
/// twice what ends during the next one, with claims sent at half.
const AHEAD_FACTOR: u32 = 4;
/// So many if the worker had run out of jobs by the end of that claim, although it
/// brought all that was asked for.
const AHEAD_FACTOR_DRY: u32 = 16;
/// At most so many: one batch is worked off while the next is claimed.
pub(super) const AHEAD_MAX: u32 = 2 * BATCH_LEN_MAX as u32;
/// With each claim during which fewer runs ended, it is less by this share: one claim in
/// many takes long, and is not to find the worker without jobs.
const AHEAD_DECAY: u32 = 8;
/// A job that found no place for so long goes back, to be run elsewhere; or for so
/// many times what the last claim took, if that is longer.
const KEPT_MIN: Duration = Duration::from_secs(1);
const KEPT_CLAIMS: u32 = 8;
const KEPT_MAX: Duration = Duration::from_secs(5);

/// Jobs that wait for a place, the first to start first.
#[derive(Clone, Debug, Default)]
pub(super) struct Ready {
    jobs: VecDeque<(Timestamp, ClaimedJob)>,
    /// How many jobs may be held beyond those that may run.
    ahead: u32,
    /// Runs that ended since the last claim was sent.
    ended: u32,
    /// How long the longest of them lasted.
    longest: Duration,
    /// How long a job may wait.
    kept_max: Duration,
}

impl Ready {
    pub(super) fn len(&self) -> u32 {
        self.jobs.len() as u32
    }

    pub(super) fn ahead(&self) -> u32 {
        self.ahead
    }

    /// Whether so few wait that a claim should be on its way.
    pub(super) fn runs_low(&self) -> bool {
        self.len() < self.ahead / 2
    }

    pub(super) fn push(&mut self, now: Timestamp, job: ClaimedJob) {
        self.jobs.push_back((now, job));
    }

    pub(super) fn run_ended(&mut self, lasted: Duration) {
        self.ended = self.ended.saturating_add(1);
        self.longest = self.longest.max(lasted);
    }

    pub(super) fn claim_sent(&mut self) {
        (self.ended, self.longest) = (0, Duration::ZERO);
    }

    /// A claim was answered, after so long. `dry`: it brought all that it asked for, and
    /// the worker had nothing left to run.
    pub(super) fn claim_took(&mut self, took: Duration, lease: Duration, dry: bool) {
        let dry = dry || planted(Bug::AlwaysDry);
        let in_time = self.longest.saturating_mul(AHEAD_FACTOR_DRY) <= KEPT_MIN;
        let factor = match dry && in_time {
            true => AHEAD_FACTOR_DRY,
            false => AHEAD_FACTOR,
        };
        let needed = self.ended.saturating_mul(factor).min(AHEAD_MAX);
        self.ahead = needed.max(self.ahead - self.ahead.div_ceil(AHEAD_DECAY));
        if planted(Bug::AheadWithoutNeed) {
            self.ahead = AHEAD_FACTOR;
        }
        self.kept_max = took
            .saturating_mul(KEPT_CLAIMS)
            .clamp(KEPT_MIN, KEPT_MAX)
            .min(lease / 2);
    }

    /// When the job that has waited longest has waited too long.
    pub(super) fn overdue_at(&self) -> Option<Timestamp> {
        if planted(Bug::ReadyKept) {
            return None;
        }
        let (since, _) = self.jobs.front()?;
        Some(since.saturating_add(self.kept_max))
    }
}

impl Worker {
    /// Whether a job may wait for a place.
    pub(super) fn may_wait(&self, job: &ClaimedJob) -> bool {
        job.attempt <= 1 && !self.is_fragile(&job.job_type)
    }

    /// Whether one crash ends the jobs of this type.
    pub(super) fn is_fragile(&self, job_type: &JobType) -> bool {
        let of_type = self.config.types.iter().find(|t| t.job_type == *job_type);
        of_type.is_none_or(|of| {
            of.retry.n_attempts.is_some_and(|max| max <= 1)
                || of.crashes_max.is_some_and(|max| max <= 1)
        })
    }

    /// The runners may not be what they were, or their jobs not: claim for places only.
    pub(super) fn claim_for_places(&mut self) {
        self.ready.ahead = 0;
    }

    /// Starts what is ready, while there are places.
    pub(super) fn start_ready(&mut self) {
        while self.runs.executing() < self.config.jobs_max
            && let Some((_, job)) = self.ready.jobs.pop_front()
        {
            if self.runs.start(job.run, self.now, self.config.lease) {
                self.actions.push_back(Action::Start(job));
            } else {
                // Its lease may have run out.
                self.settle(job.run, Outcome::Released);
            }
        }
    }

    /// Puts back what has waited too long.
    pub(super) fn release_overdue(&mut self) {
        while self.ready.overdue_at().is_some_and(|at| at <= self.now)
            && let Some((_, job)) = self.ready.jobs.pop_front()
        {
            self.claim_for_places();
            self.settle(job.run, Outcome::Released);
        }
    }

    /// Puts back all that waits.
    pub(super) fn release_ready(&mut self) {
        for (_, job) in std::mem::take(&mut self.ready.jobs) {
            self.settle(job.run, Outcome::Released);
        }
    }
}
