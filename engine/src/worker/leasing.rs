//! Keeping the leases of what runs, and taking back what others lost.

use std::collections::BTreeSet;

use super::io::{Observation, StopReason};
use super::{HeartbeatWork, Period, Worker};
use crate::lifecycle::RunEnd;
use crate::limits::BATCH_LEN_MAX;
use crate::store::{Command, Heartbeat, Reclaim, Reclaimed, Written};
use crate::worker::TypeConfig;

impl Worker {
    pub(super) fn start_heartbeat(&mut self) {
        let quarter = self.config.lease / 4;
        match self.heartbeat_at {
            None if self.runs.len() > 0 => {
                self.heartbeat_at = Some(self.after(Period::Heartbeat, quarter));
            }
            Some(at) if at <= self.now => {
                self.heartbeat_rest = self.runs.leased();
                if self.heartbeat_rest.is_empty() {
                    self.heartbeat_at = None;
                    return;
                }
                self.heartbeat_at = Some(self.after(Period::Heartbeat, quarter));
                self.send_heartbeat();
            }
            _ => self.send_heartbeat(),
        }
    }

    /// One batch after the other, until all that had a lease when the first was sent
    /// are renewed.
    fn send_heartbeat(&mut self) {
        let mut runs = Vec::new();
        while runs.len() < BATCH_LEN_MAX
            && let Some(run) = self.heartbeat_rest.pop_front()
        {
            if self.runs.get(run).is_some_and(|state| !state.lost) {
                runs.push(run);
            }
        }
        if runs.is_empty() {
            return;
        }
        let op = self.execute(Command::Heartbeat(Heartbeat {
            runs: runs.clone(),
            lease: self.config.lease,
        }));
        let sent_at = self.now;
        self.heartbeat.start(op, HeartbeatWork { runs, sent_at });
    }

    pub(super) fn heartbeat_done(&mut self, work: HeartbeatWork, written: &[Written]) {
        self.heartbeat.succeeded();
        for (run, written) in work.runs.into_iter().zip(written) {
            match written {
                Written::Applied => self.runs.renewed(run, work.sent_at),
                Written::Stale => {
                    let abort_at = self.now.saturating_add(self.config.shutdown_timeout);
                    if self.runs.lost(run, abort_at) {
                        self.stop_run(run, StopReason::LeaseLost);
                    }
                }
            }
        }
    }

    pub(super) fn start_reclaim(&mut self) {
        self.reclaim_at = self.after(Period::Reclaim, self.config.lease / 2);
        let policies: Vec<_> = self.config.types.iter().map(TypeConfig::policy).collect();
        if policies.is_empty() {
            return;
        }
        let op = self.execute(Command::Reclaim(Reclaim {
            policies,
            jobs_max: BATCH_LEN_MAX as u32,
        }));
        self.reclaim.start(op, ());
    }

    pub(super) fn reclaimed(&mut self, reclaimed: Vec<Reclaimed>) {
        self.reclaim.succeeded();
        if reclaimed.len() >= BATCH_LEN_MAX {
            self.reclaim_at = self.now;
        }
        let mut announce = BTreeSet::new();
        for reclaimed in reclaimed {
            if reclaimed.end == RunEnd::Lost {
                self.demand.want(&reclaimed.job_type);
                announce.insert(reclaimed.job_type.clone());
            }
            self.observe(Observation::Reclaimed(reclaimed));
        }
        self.announce(announce);
    }
}
