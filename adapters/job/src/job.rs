//! A job as applications see it: what it is, where it stands, what happened.

use chrono::{DateTime, Utc};
use job_engine::history::{Live, RunRecord, Snapshot};
use job_engine::lifecycle::{RunEnd, State};
use job_engine::store::{ClaimedJob, NewJob};
use job_engine::{Payload, Timestamp};
use job_tokio::to_datetime;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{JobId, JobType};

/// A snapshot of a job.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its identity.
    pub id: JobId,
    /// Its type.
    pub job_type: JobType,
    config: Payload,
    state: JobState,
    attempt: u32,
    due_at: Option<DateTime<Utc>>,
    events: Vec<JobEvent>,
}

/// Where a job is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Waits until it is due, and then for a worker.
    Pending,
    /// A worker runs it.
    Running,
    /// Ended well.
    Completed,
    /// Ended after its last attempt, or after too many crashes.
    Errored,
}

/// Something that happened to a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct JobEvent {
    /// When, on the clock of the store.
    pub at: DateTime<Utc>,
    /// What.
    #[serde(flatten)]
    pub kind: JobEventKind,
}

/// What happened to a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum JobEventKind {
    /// It was created.
    Spawned,
    /// A worker claimed it and started its runner.
    Started {
        /// Which attempt this was.
        attempt: u32,
    },
    /// Its runner completed it.
    Completed,
    /// Its runner asked for another run.
    Rescheduled {
        /// When that was due.
        due_at: DateTime<Utc>,
    },
    /// Its runner failed, and another attempt followed.
    Failed {
        /// Which attempt failed.
        attempt: u32,
        /// Why.
        error: String,
        /// When the next attempt was due.
        retry_at: DateTime<Utc>,
    },
    /// Its runner failed for the last time, or its lease ran out too often.
    Errored {
        /// Which attempt failed.
        attempt: u32,
        /// Why.
        error: String,
    },
    /// Its worker shut down and put it back.
    Aborted,
    /// Its worker died or was cut off: the lease ran out, and the job went back
    /// to pending.
    LeaseLost {
        /// Which attempt was lost.
        attempt: u32,
    },
}

impl Job {
    /// Decodes the config.
    ///
    /// # Errors
    ///
    /// When the stored JSON does not fit `T`.
    pub fn config<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.config.as_str())
    }

    /// Whether the job has ended, in success or in a final error.
    pub fn completed(&self) -> bool {
        match self.state {
            JobState::Pending | JobState::Running => false,
            JobState::Completed | JobState::Errored => true,
        }
    }

    /// Where the job is in its life.
    pub fn state(&self) -> JobState {
        self.state
    }

    /// The attempt that runs, or that runs next, or that was the last. From 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// When the job is due, or was due if it runs; `None` once it has ended.
    pub fn due_at(&self) -> Option<DateTime<Utc>> {
        self.due_at
    }

    /// What went wrong last, if anything ever did.
    pub fn last_error(&self) -> Option<&str> {
        self.events
            .iter()
            .rev()
            .find_map(|event| match &event.kind {
                JobEventKind::Failed { error, .. } | JobEventKind::Errored { error, .. } => {
                    Some(error.as_str())
                }
                JobEventKind::Spawned
                | JobEventKind::Started { .. }
                | JobEventKind::Completed
                | JobEventKind::Rescheduled { .. }
                | JobEventKind::Aborted
                | JobEventKind::LeaseLost { .. } => None,
            })
    }

    /// What happened, the oldest first.
    ///
    /// The whole history if the job comes from [`Jobs::find`](crate::Jobs::find).
    /// An initializer is given a job that only tells of its spawn and its
    /// current run, so that a run costs no read of the history.
    pub fn events(&self) -> &[JobEvent] {
        &self.events
    }

    pub(crate) fn from_spawn(new: &NewJob, now: Timestamp) -> Self {
        Self {
            id: new.id.into(),
            job_type: new.job_type.clone().into(),
            config: new.config.clone(),
            state: JobState::Pending,
            attempt: 1,
            due_at: Some(to_datetime(new.due.resolve(now))),
            events: vec![event(now, JobEventKind::Spawned)],
        }
    }

    pub(crate) fn from_claim(claimed: &ClaimedJob, now: Timestamp) -> Self {
        let attempt = claimed.attempt;
        Self {
            id: claimed.run.job.into(),
            job_type: claimed.job_type.clone().into(),
            config: claimed.config.clone(),
            state: JobState::Running,
            attempt,
            due_at: Some(to_datetime(claimed.due_at)),
            events: vec![
                event(claimed.spawned_at, JobEventKind::Spawned),
                event(now, JobEventKind::Started { attempt }),
            ],
        }
    }

    pub(crate) fn from_snapshot(snapshot: &Snapshot) -> Self {
        let last_attempt = snapshot.runs.last().map_or(1, |run| run.attempt);
        let live = snapshot.live.as_ref();
        Self {
            id: snapshot.id.into(),
            job_type: snapshot.job_type.clone().into(),
            config: snapshot.config.clone(),
            state: match snapshot.state() {
                State::Pending => JobState::Pending,
                State::Running => JobState::Running,
                State::Completed => JobState::Completed,
                State::Errored => JobState::Errored,
            },
            attempt: live.map_or(last_attempt, |live| live.attempt),
            due_at: live.map(|live| to_datetime(live.due_at)),
            events: events(snapshot),
        }
    }
}

fn events(snapshot: &Snapshot) -> Vec<JobEvent> {
    let mut events = vec![event(snapshot.spawned_at, JobEventKind::Spawned)];
    for run in &snapshot.runs {
        let attempt = run.attempt;
        events.push(event(run.claimed_at, JobEventKind::Started { attempt }));
        events.push(event(run.ended_at, end(run)));
    }
    if let Some(Live {
        attempt,
        lease: Some(lease),
        ..
    }) = snapshot.live
    {
        events.push(event(lease.claimed_at, JobEventKind::Started { attempt }));
    }
    events
}

fn end(run: &RunRecord) -> JobEventKind {
    let attempt = run.attempt;
    let error = || {
        run.error
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default()
    };
    let due_at = || to_datetime(run.next_due_at.unwrap_or(run.ended_at));
    match run.end {
        RunEnd::Completed => JobEventKind::Completed,
        RunEnd::Rescheduled => JobEventKind::Rescheduled { due_at: due_at() },
        RunEnd::Retried => JobEventKind::Failed {
            attempt,
            error: error(),
            retry_at: due_at(),
        },
        RunEnd::Errored | RunEnd::Abandoned => JobEventKind::Errored {
            attempt,
            error: error(),
        },
        RunEnd::Released => JobEventKind::Aborted,
        RunEnd::Lost => JobEventKind::LeaseLost { attempt },
    }
}

fn event(at: Timestamp, kind: JobEventKind) -> JobEvent {
    JobEvent {
        at: to_datetime(at),
        kind,
    }
}
