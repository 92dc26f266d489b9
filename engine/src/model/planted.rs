//! What the bugs of the model need beyond a branch.

use std::collections::BTreeSet;
use std::time::Duration;

use super::ModelStore;
use crate::history::{Lease, Live};
use crate::ids::{JobId, Run};
use crate::planted::{Bug, planted};
use crate::store::{AfterCrash, Heartbeat};
use crate::time::Timestamp;

/// What the bugs remember from one command to a later one.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    /// How long the leases of the last claim were.
    pub(super) lease: Duration,
    lapsed: Vec<Lapsed>,
}

type Lapsed = (Run, u32, AfterCrash);

impl ModelStore {
    /// [`Bug::ReclaimUnguarded`]: acts on what the reclaim before has read.
    /// Whatever became of these jobs, they are made to look as they did.
    pub(super) fn read_before(&mut self, now: Timestamp, lapsed: Vec<Lapsed>) -> Vec<Lapsed> {
        if !planted(Bug::ReclaimUnguarded) {
            return lapsed;
        }
        let mut before = std::mem::replace(&mut self.memory.lapsed, lapsed);
        before.retain(|(run, ..)| self.jobs.contains_key(&run.job));
        for (run, attempt, _) in &before {
            self.revive(now, *run, *attempt);
        }
        before
    }

    fn revive(&mut self, now: Timestamp, run: Run, attempt: u32) {
        self.update(run.job, |job| {
            let live = job.live.get_or_insert(Live {
                attempt,
                crashes: 0,
                interruptions: 0,
                undecodable_since: None,
                due_at: now,
                fence: run.fence,
                state: None,
                lease: None,
            });
            if let (None, Some(last)) = (live.lease, job.runs.last()) {
                live.lease = Some(Lease {
                    worker: last.worker,
                    claim_seq: last.claim_seq,
                    claimed_at: last.claimed_at,
                    expires_at: now,
                });
            }
        });
    }

    /// Whether a bug takes the lease for run out, or for good; `None` if none
    /// is concerned.
    pub(super) fn lapses_by_mistake(&self, now: Timestamp, lease: &Lease) -> Option<bool> {
        let length = self.memory.lease;
        if planted(Bug::ReclaimByClaimTime) {
            return Some(lease.claimed_at.saturating_add(length * 2) <= now);
        }
        if planted(Bug::ReclaimsEarly) {
            return Some(lease.expires_at <= now.saturating_add(length / 4));
        }
        None
    }

    /// Whether a bug takes the end of `run` for that of the current run of its
    /// job, or not; `None` if none is concerned.
    pub(super) fn finishes_by_mistake(&self, now: Timestamp, run: Run) -> Option<bool> {
        let job = self.find(run.job)?;
        let lease = job.live.as_ref()?.lease?;
        if planted(Bug::FinishIgnoresFence) {
            return Some(true);
        }
        if planted(Bug::FinishByWorkerOnly) {
            let ended = job.runs.iter().find(|record| record.fence == run.fence);
            return ended.map(|record| record.worker == lease.worker);
        }
        if planted(Bug::LateFinishRefused) && lease.expires_at <= now {
            return Some(false);
        }
        None
    }

    /// [`Bug::HeartbeatRenewsAllOwned`].
    pub(super) fn renew_all_owned(&mut self, now: Timestamp, heartbeat: &Heartbeat) {
        if !planted(Bug::HeartbeatRenewsAllOwned) {
            return;
        }
        let runs = heartbeat.runs.iter();
        let workers: BTreeSet<_> = runs.map(|run| run.claim.worker).collect();
        let running: Vec<JobId> = self.running.iter().copied().collect();
        for id in running {
            let live = self.jobs.get_mut(&id).and_then(|e| e.job.live.as_mut());
            let lease = live.and_then(|live| live.lease.as_mut());
            if let Some(lease) = lease.filter(|lease| workers.contains(&lease.worker)) {
                lease.expires_at = now.saturating_add(heartbeat.lease);
            }
        }
    }
}
