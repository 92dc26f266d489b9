//! Taking jobs, and starting them.

use std::time::Duration;

use super::io::Action;
use super::{ClaimWork, Phase, Worker};
use crate::ids::ClaimId;
use crate::limits::BATCH_LEN_MAX;
use crate::planted::{Bug, planted};
use crate::store::{Claim, Claimed, Command, Outcome, Quota, StoreError};

impl Worker {
    pub(super) fn start_claim(&mut self) {
        let executing = self.runs.executing();
        // Runs whose end cannot be recorded hold no place, but there is a limit
        // to how many of them may gather while the store is away.
        let unsettled_max = self.config.jobs_max as usize + BATCH_LEN_MAX;
        if executing >= self.config.jobs_min || self.runs.len() >= unsettled_max {
            return;
        }
        let taken = if planted(Bug::CapIgnoresRunning) {
            0
        } else {
            executing
        };
        let quotas = self.demand.plan(self.config.jobs_max - taken);
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
        let sent_at = self.now;
        self.claim.start(op, ClaimWork { claim, sent_at });
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
        for job in claimed.jobs {
            if self.runs.contains(job.run) {
                continue;
            }
            if planted(Bug::LateClaimNotReleased) && self.phase != Phase::Running {
                continue;
            }
            // More than was asked for arrives when a claim that was believed lost
            // was carried out after its repeat, and the repeat is repeated.
            let room =
                self.runs.executing() < self.config.jobs_max || planted(Bug::LateClaimOverfills);
            let started_at = if planted(Bug::RunCountsFromClaim) {
                work.sent_at
            } else {
                self.now
            };
            // A job that was not asked for at all is a mistake of the store.
            let known = self.demand.knows(&job.job_type);
            self.runs.insert(started_at, work.sent_at, &job);
            if known && ((self.phase == Phase::Running && room) || planted(Bug::DrainStillStarts)) {
                self.actions.push_back(Action::Start(job));
            } else {
                self.settle(job.run, Outcome::Released);
            }
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
