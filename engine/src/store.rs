//! The store port, as data: one command in, one reply out.
//!
//! Each command is one transaction, and idempotent: repeating it after a lost
//! reply changes nothing more. [`ModelStore`](crate::model::ModelStore) says
//! exactly what each of them does; a store is right when it gives the same
//! replies.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::history::{HistoryPage, Snapshot};
use crate::ids::{ClaimId, Fence, JobId, JobType, Run};
use crate::lifecycle::RunEnd;
use crate::limits::{
    BATCH_LEN_MAX, COUNT_MAX, JOB_TYPE_LEN_MAX, PAYLOAD_LEN_MAX, TRACE_LEN_MAX, TYPES_MAX,
};
use crate::payload::{ErrorText, Payload};
use crate::time::{Due, Timestamp};

/// What a store can be asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Create jobs. Each is decided for itself: one that cannot be created does
    /// not keep the others out.
    Spawn(Vec<NewJob>),
    /// Take jobs that are due.
    Claim(Claim),
    /// End runs. Each is decided for itself. No run twice.
    Finish(Vec<Finish>),
    /// Extend the leases of runs that the worker really runs.
    Heartbeat(Heartbeat),
    /// Keep the execution state of a running job.
    Checkpoint(Checkpoint),
    /// Keep others from writing what a run is until the transaction that this is part of
    /// ends. Writes nothing.
    Hold(Run),
    /// Take back jobs whose lease ran out.
    Reclaim(Reclaim),
    /// Read a job with the last of its history. Writes nothing.
    Find(JobId),
    /// Read the history of a job before this. Writes nothing.
    History(History),
}

/// Read earlier runs of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Of which job; one that does not exist has none.
    pub job: JobId,
    /// Those that ended before this one.
    pub before: Fence,
}

/// A job to create.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewJob {
    /// Its identity.
    pub id: JobId,
    /// Its type.
    pub job_type: JobType,
    /// Whether it is to be the only one of its type that is spawned so, ever.
    pub unique_type: bool,
    /// When it is to run first.
    pub due: Due,
    /// What the runner is given.
    pub config: Payload,
    /// The trace context of the spawn.
    pub trace: Option<String>,
    /// Tells a repeat of this spawn from another spawn with the same id.
    pub token: i64,
}

/// Take jobs that are due: for each type the longest due first, ties by id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Names the claim, so that it can be repeated.
    pub id: ClaimId,
    /// The reply to this very claim was lost. If it took jobs that still run,
    /// the reply is those, with their lease renewed, and nothing more is taken. What it
    /// took beyond the quotas is only named ([`Claimed::left`]).
    pub repeat: bool,
    /// The types to take, and how many of each at most. No type twice.
    pub quotas: Vec<Quota>,
    /// How long the leases last from the store's now.
    pub lease: Duration,
}

/// How many jobs of a type to take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// The type.
    pub job_type: JobType,
    /// At most so many.
    pub jobs_max: u32,
}

/// End one run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finish {
    /// Which run; if its fence is not the current one, nothing changes.
    pub run: Run,
    /// How it ended.
    pub outcome: Outcome,
}

/// How a worker says that a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The job is completed.
    Completed,
    /// The job is to run again, as attempt 1.
    Rescheduled {
        /// When.
        due: Due,
    },
    /// The job is to run again, at the same attempt.
    Snoozed {
        /// When.
        due: Due,
    },
    /// The run failed; try again.
    Retried {
        /// So long after the store's now.
        delay: Duration,
        /// As this attempt, at most [`COUNT_MAX`].
        attempt: u32,
        /// Why it failed.
        error: ErrorText,
    },
    /// The run failed and the job is over.
    Errored {
        /// Why it failed.
        error: ErrorText,
    },
    /// The worker gives the job back before its runner began, due at once, at the same
    /// attempt.
    Released,
    /// The worker gives back the job that its runner was at work on, due at once, at the
    /// same attempt.
    Interrupted,
    /// The program of the worker cannot decode the config: for others that can, at the
    /// same attempt.
    Undecodable {
        /// So long after the store's now.
        delay: Duration,
        /// What is wrong with it.
        error: ErrorText,
    },
}

impl Outcome {
    /// The entry that it makes in the history.
    pub const fn end(&self) -> RunEnd {
        match self {
            Outcome::Completed => RunEnd::Completed,
            Outcome::Rescheduled { .. } => RunEnd::Rescheduled,
            Outcome::Snoozed { .. } => RunEnd::Snoozed,
            Outcome::Retried { .. } => RunEnd::Retried,
            Outcome::Errored { .. } => RunEnd::Errored,
            Outcome::Released => RunEnd::Released,
            Outcome::Interrupted => RunEnd::Interrupted,
            Outcome::Undecodable { .. } => RunEnd::Undecodable,
        }
    }

    /// What went wrong, if anything did.
    pub const fn error(&self) -> Option<&ErrorText> {
        match self {
            Outcome::Retried { error, .. }
            | Outcome::Errored { error }
            | Outcome::Undecodable { error, .. } => Some(error),
            Outcome::Completed
            | Outcome::Rescheduled { .. }
            | Outcome::Snoozed { .. }
            | Outcome::Released
            | Outcome::Interrupted => None,
        }
    }
}

/// Extend leases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Which runs. No run twice.
    pub runs: Vec<Run>,
    /// How long the leases last from the store's now.
    pub lease: Duration,
}

/// Keep the execution state of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Which run; if its fence is not the current one, nothing changes.
    pub run: Run,
    /// The state. It stays through retries and reschedules, until the job ends.
    pub state: Payload,
}

/// Take back jobs whose lease ran out. Types that are not named are left to
/// those who know them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reclaim {
    /// The types, each with what it allows. No type twice.
    pub policies: Vec<TypePolicy>,
    /// At most so many jobs at once, the smallest ids first.
    pub jobs_max: u32,
}

/// What happens to a job of a type when its lease runs out: the crash counts
/// as an attempt, and is also counted apart.
///
/// The count of crashes in a row starts again when a run ends in any other way
/// and when the lost run had kept its lease for `healthy_after` since its
/// claim; in the second case the attempts start again too, unless it was the first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypePolicy {
    /// The type.
    pub job_type: JobType,
    /// Attempts in all; `None` for no limit.
    pub attempts_max: Option<u32>,
    /// Crashes in a row after which the job ends as errored; `None` for no
    /// limit.
    pub crashes_max: Option<u32>,
    /// How long a run must have lived to count as healthy.
    pub healthy_after: Duration,
}

/// What a store answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// To [`Command::Spawn`], in its order.
    Spawned(Vec<Spawned>),
    /// To [`Command::Claim`].
    Claimed(Claimed),
    /// To [`Command::Finish`], in its order.
    Finished(Vec<Written>),
    /// To [`Command::Heartbeat`], in its order.
    Heartbeat(Vec<Written>),
    /// To [`Command::Checkpoint`].
    Checkpointed(Written),
    /// To [`Command::Hold`].
    Held(Written),
    /// To [`Command::Reclaim`].
    Reclaimed(Vec<Reclaimed>),
    /// To [`Command::Find`].
    Found(Option<Box<Snapshot>>),
    /// To [`Command::History`].
    History(HistoryPage),
}

/// What became of a job to spawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Spawned {
    /// It exists now; also when this very spawn had created it before.
    Created,
    /// Another job has the id.
    DuplicateId,
    /// This unique job of the type exists.
    DuplicateUniqueType(JobId),
}

/// What became of a write that names a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Written {
    /// It is done; also when this very write had been done before.
    Applied,
    /// The run is over, or never was: nothing changed.
    Stale,
}

/// What a claim took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claimed {
    /// The store's now.
    pub now: Timestamp,
    /// The jobs, by due time, then by id.
    pub jobs: Vec<ClaimedJob>,
    /// Jobs that the claim took as well, and whose config is not in the reply: the worker
    /// is to end these runs. In the same order.
    pub left: Vec<Left>,
    /// For each type that has pending jobs, none of them due: when the next one
    /// is. A hint for when to claim again, in the order of the quotas. Types whose
    /// quota was used up are left out, and so are all in a repeat that found its
    /// jobs.
    pub next_due: Vec<(JobType, Timestamp)>,
}

impl Claimed {
    /// Whether the claim took no job.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.left.is_empty()
    }

    /// The types of all jobs that the claim took, one for each.
    pub fn job_types(&self) -> impl Iterator<Item = &JobType> {
        let jobs = self.jobs.iter().map(|job| &job.job_type);
        jobs.chain(self.left.iter().map(|left| &left.job_type))
    }
}

/// A job that was claimed, and cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// The run that a runner cannot be made for.
    pub run: Run,
    /// The type of the job.
    pub job_type: JobType,
    /// Why not.
    pub why: LeftOut,
}

/// Why a claimed job is only named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LeftOut {
    /// A repeat of the claim asked for fewer.
    BeyondQuota,
    /// What it is is not stored any more: somebody deleted it.
    SpecGone,
}

/// The error of a job whose spec was deleted while it lived.
pub const SPEC_GONE: &str = "the row of the job in job_specs is gone, which only somebody who \
    deletes rows by hand can do: nothing is left to run it with";

/// A job as its worker gets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimedJob {
    /// The run that starts with it.
    pub run: Run,
    /// Its type.
    pub job_type: JobType,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// When it was due.
    pub due_at: Timestamp,
    /// When it was spawned.
    pub spawned_at: Timestamp,
    /// How often it was interrupted since a run of it last ended otherwise.
    pub interruptions: u32,
    /// Since when no worker that took it could decode its config, if that is so.
    pub undecodable_since: Option<Timestamp>,
    /// What the runner is given.
    pub config: Payload,
    /// What an earlier run kept.
    pub state: Option<Payload>,
    /// The trace context of the spawn.
    pub trace: Option<String>,
}

/// A job that was taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reclaimed {
    /// The run that lost its lease.
    pub run: Run,
    /// The type of the job.
    pub job_type: JobType,
    /// The attempt that was lost.
    pub attempt: u32,
    /// [`RunEnd::Lost`] or [`RunEnd::Abandoned`].
    pub end: RunEnd,
}

/// Why a store did not answer.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum StoreError {
    /// The command cannot be carried out, now or later; nothing changed.
    #[error("the store refuses the command: {0}")]
    Rejected(#[from] Rejection),
    /// Nothing changed; the same command may succeed later.
    #[error("the store failed: {0}")]
    Failed(String),
    /// The command may or may not have been carried out. Repeat it.
    #[error("the store did not answer, the command may have been carried out: {0}")]
    Unknown(String),
}

/// What is wrong with a command.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Rejection {
    /// A job type is empty, too long, or holds a NUL.
    #[error(
        "the job type {job_type:?} is not allowed: it needs 1 to {JOB_TYPE_LEN_MAX} bytes and no NUL character"
    )]
    JobType {
        /// The type, cut to its first bytes.
        job_type: String,
    },
    /// A config, execution state or trace context is too long.
    #[error("the {what} of job {job} has {len} bytes, at most {len_max} are allowed")]
    TooLong {
        /// Which text.
        what: String,
        /// Of which job.
        job: JobId,
        /// Its length.
        len: usize,
        /// The longest that is allowed.
        len_max: usize,
    },
    /// A trace context holds a NUL, which not every database can keep.
    #[error("the trace context of job {job} has a NUL character")]
    Nul {
        /// Of which job.
        job: JobId,
    },
    /// A command names a run or a type twice.
    #[error("the command names {what} twice")]
    Twice {
        /// Which.
        what: String,
    },
    /// Too many entries in one command.
    #[error("the command has {len} entries, at most {len_max} are allowed; split it")]
    TooMany {
        /// How many there are.
        len: usize,
        /// How many are allowed.
        len_max: usize,
    },
    /// A command that only workers send, in a transaction of the caller.
    #[error(
        "only spawns, ends, checkpoints, holds, heartbeats and reads can be part of a transaction"
    )]
    NotInTransaction,
    /// The database refuses the data, for a reason of its own.
    #[error("the database refuses the data: {0}")]
    Data(String),
}

impl JobType {
    /// Whether the stores take this name.
    ///
    /// # Errors
    ///
    /// [`Rejection::JobType`] if it is empty, too long or has a NUL.
    pub fn check(&self) -> Result<(), Rejection> {
        let name = self.as_str();
        if name.is_empty() || name.len() > JOB_TYPE_LEN_MAX || name.contains('\0') {
            return Err(Rejection::JobType {
                job_type: name.chars().take(64).collect(),
            });
        }
        Ok(())
    }
}

impl Command {
    /// Checks what needs no store to be checked. Every store calls it first.
    ///
    /// # Errors
    ///
    /// The first [`Rejection`] that applies.
    pub fn check(&self) -> Result<(), Rejection> {
        match self {
            Command::Spawn(jobs) => {
                check_count(jobs.len(), BATCH_LEN_MAX)?;
                jobs.iter().try_for_each(NewJob::check)
            }
            Command::Claim(claim) => {
                check_count(claim.quotas.len(), TYPES_MAX)?;
                check_distinct(claim.quotas.iter().map(|quota| &quota.job_type))?;
                let jobs = claim.quotas.iter().map(|quota| quota.jobs_max as usize);
                check_count(jobs.fold(0, usize::saturating_add), BATCH_LEN_MAX)?;
                claim.quotas.iter().try_for_each(|q| q.job_type.check())
            }
            Command::Finish(finishes) => {
                check_count(finishes.len(), BATCH_LEN_MAX)?;
                check_distinct(finishes.iter().map(|finish| &finish.run))
            }
            Command::Heartbeat(heartbeat) => {
                check_count(heartbeat.runs.len(), BATCH_LEN_MAX)?;
                check_distinct(&heartbeat.runs)
            }
            Command::Checkpoint(Checkpoint { run, state }) => {
                check_len("execution state", run.job, state.as_str(), PAYLOAD_LEN_MAX)
            }
            Command::Reclaim(reclaim) => {
                check_count(reclaim.policies.len(), TYPES_MAX)?;
                check_distinct(reclaim.policies.iter().map(|policy| &policy.job_type))?;
                check_count(reclaim.jobs_max as usize, BATCH_LEN_MAX)?;
                reclaim.policies.iter().try_for_each(|p| p.job_type.check())
            }
            Command::Find(_) | Command::History(_) | Command::Hold(_) => Ok(()),
        }
    }
}

impl NewJob {
    fn check(&self) -> Result<(), Rejection> {
        self.job_type.check()?;
        check_len("config", self.id, self.config.as_str(), PAYLOAD_LEN_MAX)?;
        let trace = self.trace.as_deref().unwrap_or_default();
        if trace.contains('\0') {
            return Err(Rejection::Nul { job: self.id });
        }
        check_len("trace context", self.id, trace, TRACE_LEN_MAX)
    }
}

impl TypePolicy {
    /// What follows when a run at `attempt`, after `crashes` crashes in a row,
    /// loses its lease, which it had kept for `alive` since its claim.
    pub fn after_crash(&self, attempt: u32, crashes: u32, alive: Duration) -> AfterCrash {
        let next = |count: u32| count.saturating_add(1).min(COUNT_MAX);
        let healthy = alive >= self.healthy_after;
        // The first attempt has nothing to start again.
        let attempt = if healthy && attempt > 1 {
            1
        } else {
            next(attempt)
        };
        let crashes = if healthy { 1 } else { next(crashes) };
        if self.crashes_max.is_some_and(|max| crashes >= max.max(1)) {
            return AfterCrash::Abandon(CRASHED_TOO_OFTEN);
        }
        if self.attempts_max.is_some_and(|max| attempt > max.max(1)) {
            return AfterCrash::Abandon(LOST_AT_LAST_ATTEMPT);
        }
        AfterCrash::Retry { attempt, crashes }
    }
}

/// The error of a job that was abandoned for its crashes.
pub const CRASHED_TOO_OFTEN: &str =
    "the lease ran out too many times in a row: the job seems to crash or block its worker";

/// The error of a job that was abandoned because it had no attempt left.
pub const LOST_AT_LAST_ATTEMPT: &str = "the lease ran out during the last attempt";

/// What [`TypePolicy::after_crash`] decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AfterCrash {
    /// Pending again, due at once.
    Retry {
        /// The next attempt.
        attempt: u32,
        /// Crashes in a row so far.
        crashes: u32,
    },
    /// Errored, for this reason.
    Abandon(&'static str),
}

fn check_distinct<'a, T: Ord + fmt::Display + 'a>(
    items: impl IntoIterator<Item = &'a T>,
) -> Result<(), Rejection> {
    let mut seen = BTreeSet::new();
    for item in items {
        if !seen.insert(item) {
            let what = item.to_string();
            return Err(Rejection::Twice { what });
        }
    }
    Ok(())
}

fn check_count(len: usize, len_max: usize) -> Result<(), Rejection> {
    if len > len_max {
        return Err(Rejection::TooMany { len, len_max });
    }
    Ok(())
}

fn check_len(what: &str, job: JobId, text: &str, len_max: usize) -> Result<(), Rejection> {
    if text.len() > len_max {
        return Err(Rejection::TooLong {
            what: what.to_owned(),
            job,
            len: text.len(),
            len_max,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
