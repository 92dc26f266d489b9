//! The model of the store with the mistakes that a store can make: what it is asked is
//! altered before the model carries it out, or the reply and the rows are afterwards.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::time::Duration;

use super::{Bug, Part, active};
use crate::history::{Lease, Live, Snapshot};
use crate::ids::{JobId, Run};
use crate::lifecycle::RunEnd;
use crate::limits::BATCH_LEN_MAX;
use crate::model::{self, Entry};
use crate::store::{
    Checkpoint, Claim, Command, Finish, Heartbeat, NewJob, Outcome, Reclaim, Reclaimed, Rejection,
    Reply, Spawned, Written,
};
use crate::time::Timestamp;

/// The model, with the mistake that is switched on.
#[derive(Clone, Debug, Default)]
pub struct ModelStore {
    model: model::ModelStore,
    /// The runs that the last reclaim found lapsed, and their attempts.
    lapsed: Vec<(Run, u32)>,
    /// How long the leases of the last claim were.
    lease: Duration,
}

impl Deref for ModelStore {
    type Target = model::ModelStore;

    fn deref(&self) -> &model::ModelStore {
        &self.model
    }
}

impl ModelStore {
    /// A store without jobs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Carries out `command` at the store's time `now`, wholly or not at all, and perhaps
    /// wrongly.
    ///
    /// # Errors
    ///
    /// A [`Rejection`] when the command is not allowed; then nothing changed.
    pub fn apply(&mut self, now: Timestamp, command: &Command) -> Result<Reply, Rejection> {
        let Some(bug) = active().filter(|bug| bug.part() == Part::Model) else {
            return self.model.apply(now, command);
        };
        command.check()?;
        match command {
            Command::Spawn(jobs) => {
                let spawned = jobs.iter().map(|job| self.spawn(bug, now, job));
                Ok(Reply::Spawned(spawned.collect::<Result<_, _>>()?))
            }
            Command::Claim(claim) => self.claim(bug, now, claim),
            Command::Finish(finishes) => {
                let written = finishes.iter().map(|finish| self.finish(bug, now, finish));
                Ok(Reply::Finished(written.collect::<Result<_, _>>()?))
            }
            Command::Heartbeat(heartbeat) => self.heartbeat(bug, now, heartbeat),
            Command::Checkpoint(checkpoint) => self.checkpoint(bug, now, checkpoint),
            Command::Reclaim(reclaim) => self.reclaim(bug, now, reclaim),
            Command::Hold(_) | Command::Find(_) | Command::History(_) => {
                self.model.apply(now, command)
            }
        }
    }

    /// Makes `entry` what is stored under `job`, as if nothing had happened to it since.
    pub fn restore(&mut self, job: JobId, entry: Option<Entry>) {
        self.model.restore(job, entry);
    }

    fn spawn(&mut self, bug: Bug, now: Timestamp, job: &NewJob) -> Result<Spawned, Rejection> {
        let existing = self.model.save(job.id);
        let mut freed = None;
        match bug {
            Bug::SpawnOverwrites => {
                let overwrites = |existing: &Entry| {
                    let live = existing.job.live.as_ref();
                    existing.token != job.token && live.is_some_and(|live| live.lease.is_none())
                };
                if existing.as_ref().is_some_and(overwrites) {
                    self.model.restore(job.id, None);
                }
            }
            Bug::UniqueFreedAtEnd if job.unique_type => {
                let mut others = self.model.jobs();
                let ended = others.find(|other| {
                    other.unique_type && other.job_type == job.job_type && other.live.is_none()
                });
                freed = ended.map(|other| other.id);
            }
            _ => {}
        }
        if let Some(freed) = freed {
            self.edit(freed, |ended| ended.unique_type = false);
        }
        let Reply::Spawned(spawned) = self.model.apply(now, &Command::Spawn(vec![job.clone()]))?
        else {
            unreachable!("a spawn is answered as one");
        };
        match spawned[0] {
            Spawned::Created if existing.is_some() && bug == Bug::RepeatedSpawnIsDuplicate => {
                Ok(Spawned::DuplicateId)
            }
            told => {
                if let (Some(freed), Spawned::Created) = (freed, told) {
                    self.edit(freed, |ended| ended.unique_type = true);
                    // The one that lives is the one that another finds.
                    self.edit(job.id, |_| {});
                }
                Ok(told)
            }
        }
    }

    fn claim(&mut self, bug: Bug, now: Timestamp, claim: &Claim) -> Result<Reply, Rejection> {
        self.lease = claim.lease;
        let mut claim = claim.clone();
        let mut hidden = Vec::new();
        let mut at = now;
        match bug {
            Bug::RepeatedClaimTakesMore => claim.repeat = false,
            Bug::ClaimOverQuota => {
                let asked: u32 = claim.quotas.iter().map(|quota| quota.jobs_max).sum();
                let mut room = (BATCH_LEN_MAX as u32).saturating_sub(asked);
                for quota in &mut claim.quotas {
                    quota.jobs_max += 1.min(room);
                    room = room.saturating_sub(1);
                }
            }
            Bug::ClaimsEarly => at = now.saturating_add(Duration::from_secs(1)),
            Bug::ClaimNewestFirst => {
                for quota in &claim.quotas {
                    let mut due: Vec<_> = self.due(now, quota.job_type.as_str()).collect();
                    due.sort_unstable();
                    due.truncate(due.len().saturating_sub(quota.jobs_max as usize));
                    hidden.extend(due.into_iter().map(|(_, id)| self.take(id)));
                }
            }
            _ => {}
        }
        let mut reply = self.model.apply(at, &Command::Claim(claim))?;
        for (id, entry) in hidden {
            self.model.restore(id, entry);
        }
        let Reply::Claimed(claimed) = &mut reply else {
            unreachable!("a claim is answered as one");
        };
        claimed.now = now;
        for job in &mut claimed.jobs {
            let lease = self.lease;
            self.edit(job.run.job, |snapshot| {
                let Some(live) = &mut snapshot.live else {
                    return;
                };
                if bug == Bug::ClaimsEarly
                    && let Some(held) = &mut live.lease
                {
                    held.claimed_at = now.min(held.claimed_at);
                    held.expires_at = now.saturating_add(lease);
                }
                let last = snapshot.runs.last();
                if bug == Bug::ClaimReusesFence
                    && let Some(last) = last
                    && matches!(last.end, RunEnd::Released | RunEnd::Rescheduled)
                {
                    live.fence = last.fence;
                    job.run.fence = last.fence;
                }
            });
        }
        Ok(reply)
    }

    fn finish(&mut self, bug: Bug, now: Timestamp, finish: &Finish) -> Result<Written, Rejection> {
        let mut finish = finish.clone();
        let id = finish.run.job;
        let before = self.find(id).and_then(|job| job.live.clone());
        let current = before.as_ref().and_then(|live| live.run(id));
        let stale = current != Some(finish.run);
        match bug {
            Bug::FinishIgnoresFence => finish.run = current.unwrap_or(finish.run),
            Bug::FinishByWorkerOnly => {
                let same = |run: &Run| self.ended_by(finish.run) == Some(run.claim.worker);
                finish.run = current.filter(same).unwrap_or(finish.run);
            }
            Bug::LateFinishRefused => {
                let lease = before.as_ref().and_then(|live| live.lease);
                if !stale && lease.is_some_and(|lease| lease.expires_at <= now) {
                    return Ok(Written::Stale);
                }
            }
            Bug::RepeatedFinishIsStale if stale => return Ok(Written::Stale),
            _ => {}
        }
        match (bug, &mut finish.outcome) {
            (Bug::RetryIgnoresDelay, Outcome::Retried { delay, .. })
            | (Bug::UndecodableCountsAttempt, Outcome::Undecodable { delay, .. }) => {
                *delay = Duration::ZERO;
            }
            _ => {}
        }
        let outcome = finish.outcome.clone();
        let ended = current == Some(finish.run);
        let Reply::Finished(written) = self.model.apply(now, &Command::Finish(vec![finish]))?
        else {
            unreachable!("a finish is answered as one");
        };
        if let Some(before) = before.filter(|_| ended) {
            self.edit(id, |job| ended_wrongly(bug, job, &before, &outcome));
        }
        Ok(written[0])
    }

    /// Whose the run was, if it is over.
    fn ended_by(&self, run: Run) -> Option<crate::WorkerId> {
        let runs = &self.find(run.job)?.runs;
        let record = runs.iter().find(|record| record.fence == run.fence)?;
        Some(record.worker)
    }

    fn heartbeat(
        &mut self,
        bug: Bug,
        now: Timestamp,
        heartbeat: &Heartbeat,
    ) -> Result<Reply, Rejection> {
        if bug == Bug::HeartbeatRenewsAllOwned {
            let runs = heartbeat.runs.iter();
            let workers: BTreeSet<_> = runs.map(|run| run.claim.worker).collect();
            self.edit_leases(|lease| {
                if workers.contains(&lease.worker) {
                    lease.expires_at = now.saturating_add(heartbeat.lease);
                }
            });
        }
        let reply = self
            .model
            .apply(now, &Command::Heartbeat(heartbeat.clone()))?;
        match reply {
            Reply::Heartbeat(written) if bug == Bug::StaleHeartbeatApplied => Ok(Reply::Heartbeat(
                written.iter().map(|_| Written::Applied).collect(),
            )),
            reply => Ok(reply),
        }
    }

    fn checkpoint(
        &mut self,
        bug: Bug,
        now: Timestamp,
        checkpoint: &Checkpoint,
    ) -> Result<Reply, Rejection> {
        let reply = self
            .model
            .apply(now, &Command::Checkpoint(checkpoint.clone()))?;
        if reply == Reply::Checkpointed(Written::Applied) {
            return Ok(reply);
        }
        let mut written = Written::Stale;
        if bug == Bug::CheckpointIgnoresFence {
            self.edit(checkpoint.run.job, |job| {
                if let Some(live) = &mut job.live {
                    live.state = Some(checkpoint.state.clone());
                    written = Written::Applied;
                }
            });
        }
        Ok(Reply::Checkpointed(written))
    }

    fn reclaim(&mut self, bug: Bug, now: Timestamp, reclaim: &Reclaim) -> Result<Reply, Rejection> {
        let length = self.lease;
        let leases = self.leases();
        match bug {
            Bug::ReclaimUnguarded => {
                for (run, attempt) in std::mem::take(&mut self.lapsed) {
                    self.revive(now, run, attempt);
                }
                let lapsed = leases.iter().filter(|(_, lease)| lease.expires_at <= now);
                let lapsed = lapsed.filter_map(|(id, _)| {
                    let live = self.find(*id)?.live.as_ref()?;
                    Some((live.run(*id)?, live.attempt))
                });
                self.lapsed = lapsed.collect();
            }
            Bug::ReclaimPageHidesOthers => {
                let mut first = true;
                self.edit_leases(|lease| {
                    if lease.expires_at <= now && !std::mem::take(&mut first) {
                        lease.expires_at = Timestamp::MAX;
                    }
                });
            }
            Bug::ReclaimByClaimTime => self.edit_leases(|lease| {
                lease.expires_at = lease.claimed_at.saturating_add(length * 2);
            }),
            Bug::ReclaimsEarly => self.edit_leases(|lease| {
                if lease.expires_at <= now.saturating_add(length / 4) {
                    lease.expires_at = lease.expires_at.min(now);
                }
            }),
            _ => {}
        }
        let before: Vec<_> = leases.iter().map(|(id, _)| self.model.save(*id)).collect();
        let reply = self.model.apply(now, &Command::Reclaim(reclaim.clone()))?;
        for (id, lease) in &leases {
            self.edit(*id, |job| {
                let held = job.live.as_mut().and_then(|live| live.lease.as_mut());
                if let Some(held) = held {
                    *held = *lease;
                }
            });
        }
        let Reply::Reclaimed(reclaimed) = &reply else {
            unreachable!("a reclaim is answered as one");
        };
        for reclaimed in reclaimed {
            let before = before.iter().flatten();
            let mut before = before.map(|entry| &entry.job);
            let before = before.find(|job| job.id == reclaimed.run.job);
            self.reclaimed_wrongly(bug, now, reclaimed, before);
        }
        Ok(reply)
    }

    fn reclaimed_wrongly(
        &mut self,
        bug: Bug,
        now: Timestamp,
        reclaimed: &Reclaimed,
        before: Option<&Snapshot>,
    ) {
        let id = reclaimed.run.job;
        let lost = reclaimed.end == RunEnd::Lost;
        let waits = before.and_then(|job| job.live.clone()).map(|live| Live {
            lease: None,
            ..live
        });
        match bug {
            Bug::LostRunLosesState if lost => self.edit(id, |job| {
                if let Some(live) = &mut job.live {
                    live.state = None;
                }
            }),
            Bug::LostRunNotRecorded if lost => self.edit(id, |job| {
                job.runs.pop();
            }),
            Bug::CrashesNeverCounted => self.edit(id, |job| {
                job.live = waits.map(|live| Live {
                    due_at: now,
                    ..live
                });
                if let Some(run) = job.runs.last_mut() {
                    (run.end, run.error, run.next_due_at) = (RunEnd::Lost, None, Some(now));
                }
            }),
            Bug::AbandonedJobVanishes if !lost => self.model.restore(id, None),
            Bug::AbandonedJobGoesBack if !lost => self.edit(id, |job| job.live = waits),
            _ => {}
        }
    }

    /// Makes a job look as if this run of it, or the one that followed, had just lapsed.
    fn revive(&mut self, now: Timestamp, run: Run, attempt: u32) {
        self.edit(run.job, |job| {
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
            let last = job.runs.last().map(|last| Lease {
                worker: last.worker,
                claim_seq: last.claim_seq,
                claimed_at: last.claimed_at,
                expires_at: now,
            });
            live.lease = live.lease.or(last);
            if let Some(lease) = &mut live.lease {
                lease.expires_at = now;
            }
        });
    }

    fn due(&self, now: Timestamp, job_type: &str) -> impl Iterator<Item = (Timestamp, JobId)> {
        self.model.jobs().filter_map(move |job| {
            let live = job.live.as_ref()?;
            let due = live.lease.is_none() && live.due_at <= now;
            (due && job.job_type.as_str() == job_type).then_some((live.due_at, job.id))
        })
    }

    /// Takes a row out, to be put back.
    fn take(&mut self, id: JobId) -> (JobId, Option<Entry>) {
        let entry = self.model.save(id);
        self.model.restore(id, None);
        (id, entry)
    }

    fn leases(&self) -> Vec<(JobId, Lease)> {
        let jobs = self.model.jobs();
        let held = jobs.filter_map(|job| Some((job.id, job.live.as_ref()?.lease?)));
        held.collect()
    }

    fn edit_leases(&mut self, mut change: impl FnMut(&mut Lease)) {
        for (id, _) in self.leases() {
            self.edit(id, |job| {
                let live = job.live.as_mut();
                if let Some(lease) = live.and_then(|live| live.lease.as_mut()) {
                    change(lease);
                }
            });
        }
    }

    fn edit(&mut self, id: JobId, change: impl FnOnce(&mut Snapshot)) {
        if let Some(mut entry) = self.model.save(id) {
            change(&mut entry.job);
            self.model.restore(id, Some(entry));
        }
    }
}

/// What a mistake makes of a job whose run has just ended.
fn ended_wrongly(bug: Bug, job: &mut Snapshot, before: &Live, outcome: &Outcome) {
    let record = job.runs.last_mut().expect("a run has just ended");
    if bug == Bug::HistoryWrongEnd && record.end == RunEnd::Retried {
        record.end = RunEnd::Rescheduled;
    }
    let Some(live) = &mut job.live else {
        return;
    };
    match (bug, outcome) {
        (Bug::RescheduleKeepsAttempt, Outcome::Rescheduled { .. }) => {
            live.attempt = before.attempt;
        }
        (Bug::SnoozeCountsAttempt, Outcome::Snoozed { .. }) => live.attempt += 1,
        (Bug::SnoozeForgetsState, Outcome::Snoozed { .. }) => live.state = None,
        (Bug::ReleaseCountsAttempt, Outcome::Released | Outcome::Interrupted)
        | (Bug::UndecodableCountsAttempt, Outcome::Undecodable { .. }) => live.attempt += 1,
        (Bug::DelayFromDueTime, outcome) => {
            let due_at = match outcome {
                Outcome::Rescheduled { due } | Outcome::Snoozed { due } => {
                    due.resolve(before.due_at)
                }
                Outcome::Retried { delay, .. } | Outcome::Undecodable { delay, .. } => {
                    before.due_at.saturating_add(*delay)
                }
                _ => before.due_at,
            };
            live.due_at = due_at;
            record.next_due_at = Some(due_at);
        }
        _ => {}
    }
}
