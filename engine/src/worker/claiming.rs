//! Taking jobs, and starting them.

use std::time::Duration;

use super::io::{Action, Observation};
use super::runs::ClaimedRun;
use super::{ClaimWork, GATHER_TIME, Phase, Worker};
use crate::ids::ClaimId;
use crate::limits::BATCH_LEN_MAX;
use crate::payload::ErrorText;
use crate::planted::{Bug, planted};
use crate::store::{Claim, Claimed, Command, Left, LeftOut, Outcome, Quota, SPEC_GONE, StoreError};
use crate::time::Timestamp;

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
        if planted(Bug::MinimumIsABan) && self.has_enough() {
            return;
        }
        if self.gathers_until().is_some_and(|until| self.now < until) {
            return;
        }
        let held = if planted(Bug::CapIgnoresRunning) {
            0
        } else {
            executing + self.ready.len()
        };
        let wanted = self.held_max().saturating_sub(held);
        let mut quotas = self.demand.plan(wanted.min(self.claim_len.max() as u32));
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

    /// Whether so many jobs run, and wait for a place, that the next claim can wait.
    fn has_enough(&self) -> bool {
        self.runs.executing() >= self.config.jobs_min && !self.ready.runs_low()
    }

    /// Until when free places are gathered, if something is to be claimed for them.
    pub(super) fn gathers_until(&self) -> Option<Timestamp> {
        let gathers = self.claim.is_idle()
            && self.has_enough()
            && self.runs.executing() + self.ready.len() < self.held_max()
            && self.demand.is_any_wanted();
        let since = self.claimed_at.filter(|_| gathers)?;
        Some(since.saturating_add(GATHER_TIME))
    }

    fn send_claim(&mut self, claim: Claim) {
        self.claimed_at = Some(self.now);
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
        self.claim_len.arrived(claimed.jobs.len());
        // What is found again says nothing about what else is due: that stays wanted.
        let found_again = work.claim.repeat && !claimed.is_empty();
        if !found_again {
            self.demand.learn(self.now, &work.claim.quotas, &claimed);
        }
        let took = self.now.saturating_since(work.sent_at);
        let full = claimed.jobs.len() >= asked_for(&work.claim.quotas);
        let idle = self.runs.executing() == 0 && self.ready.len() == 0;
        self.ready.claim_took(took, self.config.lease, full && idle);
        let (brought, mut put_back) = (claimed.jobs.len(), 0);
        for left in claimed.left {
            self.leave(&work, left);
        }
        for job in claimed.jobs {
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
            let undecodable_for = job
                .undecodable_since
                .map(|since| claimed.now.saturating_since(since));
            let claimed_run = ClaimedRun {
                attempt: job.attempt,
                interruptions: job.interruptions,
                undecodable_for,
            };
            let of_type = job.job_type.clone();
            if !self
                .runs
                .insert(self.now, work.sent_at, job.run, of_type, claimed_run)
            {
                continue;
            }
            if known && planted(Bug::LateClaimOverfills) && work.claim.repeat {
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
        // One that certainly took nothing is forgotten, but a repeat that failed is still a
        // repeat.
        if let StoreError::Unknown(_) = error {
            // Once is a reply that was lost; what was asked for is found again.
            let again = std::mem::replace(&mut work.claim.repeat, true);
            if again {
                let quotas = &mut work.claim.quotas;
                self.claim_len.was_not_answered(asked_for(quotas));
                shorten(quotas, self.claim_len.max() as u32);
            }
        }
        if self.phase != Phase::Running && !work.claim.repeat {
            return;
        }
        let (lane, entropy) = (&mut self.claim, &self.entropy);
        let failure = lane.failed(self.now, work, error, Duration::MAX, entropy);
        self.observe(failure);
    }

    /// Ends the run of a job that was claimed and is not here.
    fn leave(&mut self, work: &ClaimWork, left: Left) {
        let Left { run, job_type, why } = left;
        let claimed_run = ClaimedRun::default();
        if !self
            .runs
            .insert(self.now, work.sent_at, run, job_type.clone(), claimed_run)
        {
            return;
        }
        match why {
            LeftOut::BeyondQuota => self.settle(run, Outcome::Released),
            LeftOut::SpecGone => {
                self.observe(Observation::SpecGone { run, job_type });
                let error = ErrorText::new(SPEC_GONE);
                self.settle(run, Outcome::Errored { error });
            }
        }
    }
}

fn asked_for(quotas: &[Quota]) -> usize {
    quotas.iter().map(|quota| quota.jobs_max as usize).sum()
}

/// Asks for so many jobs at most.
pub(super) fn shorten(quotas: &mut Vec<Quota>, jobs_max: u32) {
    let mut room = jobs_max;
    for quota in quotas.iter_mut() {
        quota.jobs_max = quota.jobs_max.min(room);
        room -= quota.jobs_max;
    }
    quotas.retain(|quota| quota.jobs_max > 0);
}
