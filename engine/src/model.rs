//! The executable specification of every command.
//!
//! The simulator runs it, the in-memory store wraps it, and the SQL stores are
//! compared with it. It is written to be read: one function a command.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use uuid::Uuid;

use crate::history::{HistoryPage, Lease, Live, RunRecord, Snapshot};
use crate::ids::{Fence, JobId, JobType, Run};
use crate::lifecycle::RunEnd;
use crate::limits::COUNT_MAX;
use crate::payload::ErrorText;
use crate::store::{
    AfterCrash, Checkpoint, Claim, Claimed, ClaimedJob, Command, Finish, Heartbeat, History, Left,
    LeftOut, NewJob, Outcome, Reclaim, Reclaimed, Rejection, Reply, Spawned, Written,
};
use crate::time::Timestamp;

/// All jobs, in memory.
#[derive(Clone, Debug, Default)]
pub struct ModelStore {
    jobs: BTreeMap<JobId, Entry>,
    /// Pending jobs, in the order in which they are claimed.
    pending: BTreeSet<(JobType, Timestamp, JobId)>,
    running: BTreeSet<JobId>,
    unique_types: BTreeMap<JobType, JobId>,
}

/// One job as the model holds it; taken out and put back by transactions.
#[derive(Clone, Debug)]
pub struct Entry {
    pub(crate) job: Snapshot,
    pub(crate) token: i64,
}

impl ModelStore {
    /// A store without jobs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Carries out `command` at the store's time `now`, wholly or not at all.
    ///
    /// # Errors
    ///
    /// A [`Rejection`] when the command is not allowed; then nothing changed.
    pub fn apply(&mut self, now: Timestamp, command: &Command) -> Result<Reply, Rejection> {
        command.check()?;
        Ok(match command {
            Command::Spawn(jobs) => {
                Reply::Spawned(jobs.iter().map(|job| self.spawn(now, job)).collect())
            }
            Command::Claim(claim) => Reply::Claimed(self.claim(now, claim)),
            Command::Finish(finishes) => {
                Reply::Finished(finishes.iter().map(|f| self.finish(now, f)).collect())
            }
            Command::Heartbeat(heartbeat) => Reply::Heartbeat(self.heartbeat(now, heartbeat)),
            Command::Checkpoint(checkpoint) => Reply::Checkpointed(self.checkpoint(checkpoint)),
            Command::Hold(run) => Reply::Held(self.hold(*run)),
            Command::Reclaim(reclaim) => Reply::Reclaimed(self.reclaim(now, reclaim)),
            Command::Find(job) => Reply::Found(self.found(*job).map(Box::new)),
            Command::History(history) => Reply::History(self.history(*history)),
        })
    }

    /// A job with all of its history.
    pub fn find(&self, job: JobId) -> Option<&Snapshot> {
        self.jobs.get(&job).map(|entry| &entry.job)
    }

    /// All jobs, by id.
    pub fn jobs(&self) -> impl Iterator<Item = &Snapshot> {
        self.jobs.values().map(|entry| &entry.job)
    }

    /// Whether any job is claimed, and its run has not ended.
    pub fn any_is_claimed(&self) -> bool {
        !self.running.is_empty()
    }

    /// When the first job is due of those that nobody has claimed.
    pub fn first_due(&self) -> Option<Timestamp> {
        let mut first = self.pending.first();
        let mut next = None;
        while let Some((job_type, due_at, _)) = first {
            next = next.into_iter().chain([*due_at]).min();
            // The first of the next type.
            let last = (job_type.clone(), Timestamp::MAX, JobId(Uuid::max()));
            let after = (Bound::Excluded(last), Bound::Unbounded);
            first = self.pending.range(after).next();
        }
        next
    }

    /// What is stored under `job`, to be handed to [`ModelStore::restore`] when
    /// a transaction rolls back.
    pub fn save(&self, job: JobId) -> Option<Entry> {
        self.jobs.get(&job).cloned()
    }

    /// Makes `entry` what is stored under `job`, as if nothing had happened to
    /// it since [`ModelStore::save`].
    pub fn restore(&mut self, job: JobId, entry: Option<Entry>) {
        if let Some(current) = self.jobs.remove(&job) {
            self.unindex(&current.job);
            if current.job.unique_type {
                self.unique_types.remove(&current.job.job_type);
            }
        }
        if let Some(entry) = entry {
            if entry.job.unique_type {
                self.unique_types.insert(entry.job.job_type.clone(), job);
            }
            self.index(&entry.job);
            self.jobs.insert(job, entry);
        }
    }

    fn spawn(&mut self, now: Timestamp, new: &NewJob) -> Spawned {
        if let Some(existing) = self.jobs.get(&new.id) {
            return match existing.token == new.token {
                true => Spawned::Created,
                false => Spawned::DuplicateId,
            };
        }
        if new.unique_type
            && let Some(existing) = self.unique_types.get(&new.job_type)
        {
            return Spawned::DuplicateUniqueType(*existing);
        }
        let job = Snapshot {
            id: new.id,
            job_type: new.job_type.clone(),
            unique_type: new.unique_type,
            config: new.config.clone(),
            spawned_at: now,
            trace: new.trace.clone(),
            live: Some(Live {
                attempt: 1,
                crashes: 0,
                interruptions: 0,
                undecodable_since: None,
                due_at: new.due.resolve(now),
                fence: Fence::NONE,
                state: None,
                lease: None,
            }),
            runs: Vec::new(),
            earlier: None,
        };
        let token = new.token;
        self.restore(new.id, Some(Entry { job, token }));
        Spawned::Created
    }

    fn claim(&mut self, now: Timestamp, claim: &Claim) -> Claimed {
        let mut claimed = Claimed {
            now,
            jobs: Vec::new(),
            left: Vec::new(),
            next_due: Vec::new(),
        };
        if claim.repeat {
            (claimed.jobs, claimed.left) = self.renew_claim(now, claim);
        }
        if claimed.is_empty() {
            for quota in &claim.quotas {
                let due = self.due(now, &quota.job_type, quota.jobs_max as usize);
                if due.len() < quota.jobs_max as usize {
                    let next = self.next_due(now, &quota.job_type);
                    claimed
                        .next_due
                        .extend(next.map(|at| (quota.job_type.clone(), at)));
                }
                let jobs = due.into_iter();
                claimed
                    .jobs
                    .extend(jobs.map(|job| self.grant(now, job, claim)));
            }
        }
        claimed.jobs.sort_by_key(|job| (job.due_at, job.run.job));
        claimed
    }

    /// The jobs that run by this very claim, their lease renewed: those that the quotas
    /// have room for, the longest due first, and the others.
    fn renew_claim(&mut self, now: Timestamp, claim: &Claim) -> (Vec<ClaimedJob>, Vec<Left>) {
        let mut jobs = Vec::new();
        for id in &self.running {
            let entry = self.jobs.get_mut(id).expect("a running job exists");
            let live = entry.job.live.as_mut().expect("a running job is live");
            let run = live.run(*id).expect("a running job has a run");
            if run.claim == claim.id {
                let lease = live.lease.as_mut().expect("a running job has a lease");
                lease.expires_at = now.saturating_add(claim.lease);
                jobs.push(claimed_job(&entry.job));
            }
        }
        jobs.sort_by_key(|job| (job.due_at, job.run.job));
        let quotas = claim.quotas.iter();
        let mut room: BTreeMap<&JobType, u32> = quotas
            .map(|quota| (&quota.job_type, quota.jobs_max))
            .collect();
        let (kept, left): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|job| {
            let room = room.get_mut(&job.job_type);
            room.is_some_and(|room| {
                let fits = *room > 0;
                *room -= u32::from(fits);
                fits
            })
        });
        let left = left.into_iter().map(|job| Left {
            run: job.run,
            job_type: job.job_type,
            why: LeftOut::BeyondQuota,
        });
        (kept, left.collect())
    }

    /// Up to `jobs_max` jobs of a type that are due, the longest due first.
    fn due(&self, now: Timestamp, job_type: &JobType, jobs_max: usize) -> Vec<JobId> {
        let due = self
            .pending_of(job_type, Timestamp::MIN)
            .take_while(|(_, due_at, _)| *due_at <= now)
            .map(|(_, _, id)| *id);
        due.take(jobs_max).collect()
    }

    fn next_due(&self, now: Timestamp, job_type: &JobType) -> Option<Timestamp> {
        self.pending_of(job_type, now)
            .map(|(_, due_at, _)| *due_at)
            .find(|due_at| *due_at > now)
    }

    fn pending_of<'a>(
        &'a self,
        job_type: &'a JobType,
        from: Timestamp,
    ) -> impl Iterator<Item = &'a (JobType, Timestamp, JobId)> {
        let start = (job_type.clone(), from, JobId(uuid::Uuid::nil()));
        self.pending
            .range(start..)
            .take_while(move |(of, _, _)| of == job_type)
    }

    fn grant(&mut self, now: Timestamp, job: JobId, claim: &Claim) -> ClaimedJob {
        self.update(job, |job| {
            let live = job.live.as_mut().expect("a pending job is live");
            live.fence = live.fence.next();
            live.lease = Some(Lease {
                worker: claim.id.worker,
                claim_seq: claim.id.seq,
                claimed_at: now,
                expires_at: now.saturating_add(claim.lease),
            });
            claimed_job(job)
        })
    }

    fn finish(&mut self, now: Timestamp, finish: &Finish) -> Written {
        let Finish { run, outcome } = finish;
        if !self.is_running(*run) {
            return self.was_finished(*run, outcome.end());
        }
        self.end_run(
            now,
            run.job,
            outcome.end(),
            outcome.error().cloned(),
            |live| {
                let (due_at, attempt) = match outcome {
                    Outcome::Completed | Outcome::Errored { .. } => return None,
                    Outcome::Rescheduled { due } => (due.resolve(now), 1),
                    Outcome::Snoozed { due } => (due.resolve(now), live.attempt),
                    Outcome::Retried { delay, attempt, .. } => {
                        (now.saturating_add(*delay), (*attempt).min(COUNT_MAX))
                    }
                    Outcome::Released | Outcome::Interrupted => (now, live.attempt),
                    Outcome::Undecodable { delay, .. } => {
                        (now.saturating_add(*delay), live.attempt)
                    }
                };
                let live = Live {
                    due_at,
                    attempt,
                    ..live
                };
                // What is put back says nothing about the job.
                Some(match outcome {
                    Outcome::Released => live,
                    Outcome::Interrupted => Live {
                        interruptions: live.interruptions.saturating_add(1).min(COUNT_MAX),
                        undecodable_since: None,
                        ..live
                    },
                    Outcome::Undecodable { .. } => Live {
                        undecodable_since: live.undecodable_since.or(Some(now)),
                        ..live
                    },
                    Outcome::Completed
                    | Outcome::Rescheduled { .. }
                    | Outcome::Snoozed { .. }
                    | Outcome::Retried { .. }
                    | Outcome::Errored { .. } => Live {
                        crashes: 0,
                        interruptions: 0,
                        undecodable_since: None,
                        ..live
                    },
                })
            },
        );
        Written::Applied
    }

    /// A repeat of the write that ended the run is no news; any other is stale.
    fn was_finished(&self, run: Run, end: RunEnd) -> Written {
        let runs = self.jobs.get(&run.job).map_or(&[][..], |e| &e.job.runs);
        let known = runs.iter().any(|r| r.run(run.job) == run && r.end == end);
        match known {
            true => Written::Applied,
            false => Written::Stale,
        }
    }

    fn heartbeat(&mut self, now: Timestamp, heartbeat: &Heartbeat) -> Vec<Written> {
        let expires_at = now.saturating_add(heartbeat.lease);
        let runs = heartbeat.runs.iter();
        runs.map(|run| {
            self.write(*run, |live| {
                let lease = live.lease.as_mut().expect("a running job has a lease");
                lease.expires_at = expires_at;
            })
        })
        .collect()
    }

    fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Written {
        self.write(checkpoint.run, |live| {
            live.state = Some(checkpoint.state.clone());
        })
    }

    fn hold(&self, run: Run) -> Written {
        match self.is_running(run) {
            true => Written::Applied,
            false => Written::Stale,
        }
    }

    fn reclaim(&mut self, now: Timestamp, reclaim: &Reclaim) -> Vec<Reclaimed> {
        let lapsed: Vec<_> = self
            .running
            .iter()
            .filter(|id| self.has_lapsed(now, **id))
            .filter_map(|id| {
                let job = &self.jobs[id].job;
                let policy = reclaim
                    .policies
                    .iter()
                    .find(|policy| policy.job_type == job.job_type)?;
                let live = job.live.as_ref()?;
                let lease = live.lease?;
                let alive = lease.expires_at.saturating_since(lease.claimed_at);
                Some((
                    live.run(*id)?,
                    live.attempt,
                    policy.after_crash(live.attempt, live.crashes, alive),
                ))
            })
            .take(reclaim.jobs_max as usize)
            .collect();
        let lapsed = lapsed.into_iter();
        lapsed
            .map(|(run, attempt, after)| {
                let (end, error) = match after {
                    AfterCrash::Retry { .. } => (RunEnd::Lost, None),
                    AfterCrash::Abandon(reason) => {
                        (RunEnd::Abandoned, Some(ErrorText::new(reason)))
                    }
                };
                self.end_run(now, run.job, end, error, |live| match after {
                    AfterCrash::Retry { attempt, crashes } => Some(Live {
                        due_at: now,
                        attempt,
                        crashes,
                        ..live
                    }),
                    AfterCrash::Abandon(_) => None,
                });
                Reclaimed {
                    run,
                    job_type: self.jobs[&run.job].job.job_type.clone(),
                    attempt,
                    end,
                }
            })
            .collect()
    }

    /// A job with the last of its history.
    fn found(&self, job: JobId) -> Option<Snapshot> {
        let job = self.find(job)?;
        let HistoryPage { runs, earlier } = HistoryPage::of(job, Fence(i64::MAX));
        Some(Snapshot {
            id: job.id,
            job_type: job.job_type.clone(),
            unique_type: job.unique_type,
            config: job.config.clone(),
            spawned_at: job.spawned_at,
            trace: job.trace.clone(),
            live: job.live.clone(),
            runs,
            earlier,
        })
    }

    fn history(&self, history: History) -> HistoryPage {
        let job = self.find(history.job);
        job.map_or_else(HistoryPage::default, |job| {
            HistoryPage::of(job, history.before)
        })
    }

    fn has_lapsed(&self, now: Timestamp, running: JobId) -> bool {
        let live = self.jobs[&running].job.live.as_ref();
        let lease = live.and_then(|live| live.lease);
        lease.is_some_and(|lease| lease.expires_at <= now)
    }

    /// Ends the current run of a job; `next` makes the live part that follows.
    fn end_run(
        &mut self,
        now: Timestamp,
        job: JobId,
        end: RunEnd,
        error: Option<ErrorText>,
        next: impl FnOnce(Live) -> Option<Live>,
    ) {
        self.update(job, |job| {
            let mut live = job.live.take().expect("a running job is live");
            let lease = live.lease.take().expect("a running job has a lease");
            let (fence, attempt) = (live.fence, live.attempt);
            job.live = next(live);
            job.runs.push(RunRecord {
                fence,
                attempt,
                worker: lease.worker,
                claim_seq: lease.claim_seq,
                claimed_at: lease.claimed_at,
                ended_at: now,
                end,
                error,
                next_due_at: job.live.as_ref().map(|live| live.due_at),
            });
        });
    }

    /// Changes the live part of a job if `run` is what runs.
    fn write(&mut self, run: Run, change: impl FnOnce(&mut Live)) -> Written {
        if !self.is_running(run) {
            return Written::Stale;
        }
        let entry = self.jobs.get_mut(&run.job).expect("a running job exists");
        change(entry.job.live.as_mut().expect("a running job is live"));
        Written::Applied
    }

    fn is_running(&self, run: Run) -> bool {
        let live = self.find(run.job).and_then(|job| job.live.as_ref());
        live.and_then(|live| live.run(run.job)) == Some(run)
    }

    /// Changes a job and keeps the indexes right.
    fn update<T>(&mut self, id: JobId, change: impl FnOnce(&mut Snapshot) -> T) -> T {
        let mut entry = self.jobs.remove(&id).expect("the caller found the job");
        self.unindex(&entry.job);
        let result = change(&mut entry.job);
        self.index(&entry.job);
        self.jobs.insert(id, entry);
        result
    }

    fn index(&mut self, job: &Snapshot) {
        match &job.live {
            Some(live) if live.lease.is_some() => {
                self.running.insert(job.id);
            }
            Some(live) => {
                self.pending
                    .insert((job.job_type.clone(), live.due_at, job.id));
            }
            None => {}
        }
    }

    fn unindex(&mut self, job: &Snapshot) {
        if let Some(live) = &job.live {
            self.running.remove(&job.id);
            self.pending
                .remove(&(job.job_type.clone(), live.due_at, job.id));
        }
    }
}

fn claimed_job(job: &Snapshot) -> ClaimedJob {
    let live = job.live.as_ref().expect("a claimed job is live");
    ClaimedJob {
        run: live.run(job.id).expect("a claimed job has a lease"),
        job_type: job.job_type.clone(),
        attempt: live.attempt,
        due_at: live.due_at,
        spawned_at: job.spawned_at,
        interruptions: live.interruptions,
        undecodable_since: live.undecodable_since,
        config: job.config.clone(),
        state: live.state.clone(),
        trace: job.trace.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::payload::Payload;
    use crate::store::Quota;
    use crate::time::Due;
    use crate::{ClaimId, WorkerId, store};

    #[test]
    fn the_first_job_is_found_among_those_of_all_types_that_nobody_has_claimed() {
        let mut model = ModelStore::new();
        assert_eq!((model.first_due(), model.any_is_claimed()), (None, false));
        for (number, job_type, ms) in [(1, "b", 30), (2, "a", 20), (3, "a", 50), (4, "c", 10)] {
            let spawn = Command::Spawn(vec![NewJob {
                id: JobId(Uuid::from_u128(number)),
                job_type: JobType::new(job_type),
                unique_type: false,
                due: Due::In(Duration::from_millis(ms)),
                config: Payload::from_json("null"),
                trace: None,
                token: 1,
            }]);
            model.apply(Timestamp::EPOCH, &spawn).unwrap();
        }
        let due = |ms| Some(Timestamp::EPOCH.saturating_add(Duration::from_millis(ms)));
        assert_eq!(model.first_due(), due(10));
        let worker = WorkerId(Uuid::from_u128(1));
        let claim = Command::Claim(store::Claim {
            id: ClaimId { worker, seq: 1 },
            repeat: false,
            quotas: ["a", "c"].map(JobType::new).map(one).into(),
            lease: Duration::from_secs(1),
        });
        model.apply(due(40).unwrap(), &claim).unwrap();
        assert_eq!((model.first_due(), model.any_is_claimed()), (due(30), true));
    }

    fn one(job_type: JobType) -> Quota {
        Quota {
            job_type,
            jobs_max: 1,
        }
    }
}
