//! Taking jobs, and starting them.

use std::time::Duration;

use super::io::Action;
use super::{ClaimWork, Phase, Worker};
use crate::ids::ClaimId;
use crate::limits::BATCH_LEN_MAX;
use crate::planted::{Bug, planted};
use crate::store::{Claim, Claimed, Command, Outcome, Quota, StoreError};

/// No job is claimed while so many ends wait to be recorded.
const UNRECORDED_MAX: u32 = 2 * BATCH_LEN_MAX as u32;

impl Worker {
    pub(super) fn start_claim(&mut self) {
        let executing = self.runs.executing();
        // Jobs whose end cannot be recorded hold no place, but there is a limit to
        // how many of them may gather while the store is away.
        if self.runs.unrecorded() >= UNRECORDED_MAX {
            return;
        }
        if executing >= self.config.jobs_min && !self.ready.runs_low() {
            return;
        }
        let held = if planted(Bug::CapIgnoresRunning) {
            0
        } else {
            executing + self.ready.len()
        };
        let wanted = self.held_max().saturating_sub(held);
        let mut quotas = self.demand.plan(wanted.min(BATCH_LEN_MAX as u32));
        let places = self.config.jobs_max.saturating_sub(held);
        for quota in &mut quotas {
            if self.is_fragile(&quota.job_type) {
                quota.jobs_max = quota.jobs_max.min(places);
            }
        }
        quotas.retain(|quota| quota.jobs_max > 0);
        if quotas.is_empty() {
            return;
        }
        self.claim_seq += 1;
        let id = ClaimId {
            worker: self.id,
            seq: self.claim_seq,
        };
        self.send_claim(Claim {
            id,
            repeat: false,
            quotas,
            lease: self.config.lease,
        });
    }

    /// The wait after a failed claim is over.
    pub(super) fn claim_again(&mut self, ClaimWork { mut claim, .. }: ClaimWork) {
        if !claim.repeat {
            // It certainly took nothing: a fresh one knows more.
            return;
        }
        if self.phase != Phase::Running {
            // Only to find out what it took, and put that back.
            claim.quotas.clear();
        }
        self.send_claim(claim);
    }

    fn send_claim(&mut self, claim: Claim) {
        let op = self.execute(Command::Claim(claim.clone()));
        let work = ClaimWork {
            claim,
            sent_at: self.now,
            held_max: self.held_max(),
        };
        self.claim.start(op, work);
        self.ready.claim_sent();
    }

    /// So many jobs may be held, running or ready.
    fn held_max(&self) -> u32 {
        self.config.jobs_max + self.ready.ahead()
    }

    pub(super) fn claimed(&mut self, work: ClaimWork, claimed: Claimed) {
        self.claim.succeeded();
        let found_again = work.claim.repeat && !claimed.jobs.is_empty();
        if found_again {
            // It says nothing about what else is due.
            self.want_again(&work.claim.quotas);
        } else {
            self.demand.learn(self.now, &work.claim.quotas, &claimed);
        }
        let took = self.now.saturating_since(work.sent_at);
        let asked_for: u32 = work.claim.quotas.iter().map(|quota| quota.jobs_max).sum();
        let full = claimed.jobs.len() >= asked_for as usize;
        let idle = self.runs.executing() == 0 && self.ready.len() == 0;
        self.ready.claim_took(took, self.config.lease, full && idle);
        let (brought, mut put_back) = (claimed.jobs.len(), 0);
        for job in claimed.jobs {
            if planted(Bug::LateClaimNotReleased) && self.phase != Phase::Running {
                continue;
            }
            // More than was asked for arrives when a claim that was believed lost
            // was carried out after its repeat, and the repeat is repeated.
            let held = self.runs.executing() + self.ready.len();
            // A job that was not asked for at all is a mistake of the store.
            let known = self.demand.knows(&job.job_type);
            let held_max = if self.may_wait(&job) {
                work.held_max
            } else {
                self.config.jobs_max
            };
            let kept = known && self.phase == Phase::Running && held < held_max;
            let claimed_at = if planted(Bug::RunCountsFromClaim) {
                work.sent_at
            } else {
                self.now
            };
            if !self.runs.insert(claimed_at, work.sent_at, &job) {
                continue;
            }
            let overfills = planted(Bug::LateClaimOverfills)
                && self.phase == Phase::Running
                && work.claim.repeat;
            if known && (planted(Bug::DrainStillStarts) || overfills) {
                self.runs.start(job.run, self.now, self.config.lease);
                self.actions.push_back(Action::Start(job));
            } else if kept {
                self.ready.push(self.now, job);
            } else {
                put_back += 1;
                self.settle(job.run, Outcome::Released);
            }
        }
        if put_back > brought / 2 {
            self.claim_for_places();
        }
    }

    pub(super) fn claim_failed(&mut self, mut work: ClaimWork, error: StoreError) {
        match error {
            StoreError::Unknown(_) if !planted(Bug::UnknownClaimForgotten) => {
                work.claim.repeat = true;
            }
            StoreError::Unknown(_) | StoreError::Failed(_) | StoreError::Rejected(_) => {
                // A repeat that failed is still a repeat.
                self.want_again(&work.claim.quotas);
            }
        }
        if self.phase != Phase::Running && !work.claim.repeat {
            return;
        }
        let (lane, entropy) = (&mut self.claim, &self.entropy);
        let failure = lane.failed(self.now, work, error, Duration::MAX, entropy);
        self.observe(failure);
    }

    fn want_again(&mut self, quotas: &[Quota]) {
        for quota in quotas {
            self.demand.want(&quota.job_type);
        }
    }
}
