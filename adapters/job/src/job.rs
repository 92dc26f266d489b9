//! A job as applications see it: what it is, where it stands, what happened.

use std::sync::OnceLock;

use chrono::{DateTime, Utc};
use job_engine::history::{HistoryPage, Live, RunRecord, Snapshot};
use job_engine::lifecycle::{RunEnd, State};
use job_engine::store::{ClaimedJob, NewJob};
use job_engine::{Fence, Payload, Timestamp};
use job_tokio::to_datetime;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize, Serializer};
use uuid::Uuid;

use crate::{JobId, JobType};

/// A snapshot of a job. Serialized, it has its config as JSON.
#[derive(Clone, Debug, Serialize)]
pub struct Job {
    /// Its identity.
    pub id: JobId,
    /// Its type.
    pub job_type: JobType,
    #[serde(serialize_with = "as_json")]
    config: Payload,
    state: JobState,
    attempt: u32,
    interruptions: u32,
    due_at: Option<DateTime<Utc>>,
    events: Vec<JobEvent>,
    #[serde(skip)]
    earlier: Option<HistoryCursor>,
    /// Set once the config did not decode.
    #[serde(skip)]
    undecodable: OnceLock<String>,
}

/// Where a job is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum JobState {
    /// Waits until it is due, and then for a worker.
    Pending,
    /// A worker runs it.
    Running,
    /// Ended well.
    Completed,
    /// Ended after its last attempt, after too many crashes, since its runner gave it up, or
    /// since nobody could decode its config for too long.
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

/// What happened to a job. The texts of errors are kept up to 16 KiB and cut at a character;
/// a NUL in them is replaced by U+FFFD.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum JobEventKind {
    /// It was created.
    Spawned,
    /// A worker claimed it to run it.
    Started {
        /// Which attempt this was.
        attempt: u32,
        /// The worker, that is one polling process: its `poller_id` in logs.
        worker: Uuid,
    },
    /// Its runner completed it.
    Completed,
    /// Its runner asked for another run.
    Rescheduled {
        /// When that was due.
        due_at: DateTime<Utc>,
    },
    /// Its runner asked for another run at the same attempt.
    Snoozed {
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
    /// Its runner failed for the last time, or for good; its lease ran out too often; or nobody
    /// could decode its config for too long.
    Errored {
        /// Which attempt failed.
        attempt: u32,
        /// Why.
        error: String,
    },
    /// Its worker shut down while its runner was at work, or is known to be gone, and it
    /// was put back. The attempt does not count.
    Aborted,
    /// Its worker put it back before its runner began. The attempt does not count.
    Released,
    /// The program of its worker could not decode its config, and put it back for one that
    /// can. The attempt does not count.
    Undecodable {
        /// What is wrong with the config.
        error: String,
        /// When it was due again.
        retry_at: DateTime<Utc>,
    },
    /// Its worker died or was cut off: the lease ran out, and the job went back
    /// to pending.
    LeaseLost {
        /// Which attempt was lost.
        attempt: u32,
    },
}

/// A part of the history of a job, from [`Jobs::history`](crate::Jobs::history).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JobHistory {
    /// What happened, the oldest first.
    pub events: Vec<JobEvent>,
    /// Where it goes on, if there is more.
    pub earlier: Option<HistoryCursor>,
}

/// A place in the history of a job. Serialized, it is a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HistoryCursor(i64);

impl HistoryCursor {
    fn from_fence(before: Fence) -> Self {
        Self(before.0)
    }

    pub(crate) fn fence(self) -> Fence {
        Fence(self.0)
    }
}

impl JobHistory {
    pub(crate) fn from_page(page: &HistoryPage) -> Self {
        Self {
            events: page.runs.iter().flat_map(of_run).collect(),
            earlier: page.earlier.map(HistoryCursor::from_fence),
        }
    }
}

impl Job {
    /// Decodes the config.
    ///
    /// # Errors
    ///
    /// When the stored JSON does not fit `T`. An initializer that fails because of that is
    /// not one that fails: see
    /// [`undecodable_max`](crate::JobInitializer::undecodable_max).
    pub fn config<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        let decoded = serde_json::from_str(self.config.as_str());
        if decoded.is_err() {
            self.undecodable.get_or_init(|| self.why_undecodable::<T>());
        }
        decoded
    }

    /// What was wrong with the config when it was last to be decoded, if anything was.
    pub(crate) fn undecodable(&self) -> Option<&str> {
        self.undecodable.get().map(String::as_str)
    }

    /// Why the config is no `T`, and where.
    fn why_undecodable<T: DeserializeOwned>(&self) -> String {
        let mut json = serde_json::Deserializer::from_str(self.config.as_str());
        let decoded: Result<T, _> = serde_path_to_error::deserialize(&mut json);
        match decoded {
            Ok(_) => "it is not all of it".to_owned(),
            Err(error) => format!("{} (at {})", error.inner(), error.path()),
        }
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

    /// How often it was interrupted by the end of its worker, since a run of it last
    /// ended otherwise. A job that takes longer than there is between two deploys is
    /// interrupted at each; from the fifth time on, that is logged as a warning.
    pub fn interruptions(&self) -> u32 {
        self.interruptions
    }

    /// When the job is due, or was due if it runs; `None` once it has ended.
    pub fn due_at(&self) -> Option<DateTime<Utc>> {
        self.due_at
    }

    /// What went wrong last, if anything did in its [`Job::events`]. At most 16 KiB of it are
    /// kept.
    pub fn last_error(&self) -> Option<&str> {
        self.events
            .iter()
            .rev()
            .find_map(|event| match &event.kind {
                JobEventKind::Failed { error, .. }
                | JobEventKind::Errored { error, .. }
                | JobEventKind::Undecodable { error, .. } => Some(error.as_str()),
                JobEventKind::Spawned
                | JobEventKind::Started { .. }
                | JobEventKind::Completed
                | JobEventKind::Rescheduled { .. }
                | JobEventKind::Snoozed { .. }
                | JobEventKind::Aborted
                | JobEventKind::Released
                | JobEventKind::LeaseLost { .. } => None,
            })
    }

    /// What happened, the oldest first: the spawn, and the last 50 runs if the job comes from
    /// [`Jobs::find`](crate::Jobs::find).
    /// An initializer is given a job that only tells of its spawn and its
    /// current run, so that a run costs no read of the history.
    pub fn events(&self) -> &[JobEvent] {
        &self.events
    }

    /// Where [`Jobs::history`](crate::Jobs::history) goes on, if there is more between the
    /// spawn and the other [`Job::events`]. `None` for a job that an initializer is given.
    pub fn earlier(&self) -> Option<HistoryCursor> {
        self.earlier
    }

    pub(crate) fn from_spawn(new: &NewJob, now: Timestamp) -> Self {
        Self {
            id: new.id.into(),
            job_type: new.job_type.clone().into(),
            config: new.config.clone(),
            state: JobState::Pending,
            attempt: 1,
            interruptions: 0,
            due_at: Some(to_datetime(new.due.resolve(now))),
            events: vec![event(now, JobEventKind::Spawned)],
            earlier: None,
            undecodable: OnceLock::new(),
        }
    }

    pub(crate) fn from_claim(claimed: &ClaimedJob, now: Timestamp) -> Self {
        let attempt = claimed.attempt;
        let worker = claimed.run.claim.worker.0;
        Self {
            id: claimed.run.job.into(),
            job_type: claimed.job_type.clone().into(),
            config: claimed.config.clone(),
            state: JobState::Running,
            attempt,
            interruptions: claimed.interruptions,
            due_at: Some(to_datetime(claimed.due_at)),
            events: vec![
                event(claimed.spawned_at, JobEventKind::Spawned),
                event(now, JobEventKind::Started { attempt, worker }),
            ],
            earlier: None,
            undecodable: OnceLock::new(),
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
            interruptions: live.map_or(0, |live| live.interruptions),
            due_at: live.map(|live| to_datetime(live.due_at)),
            events: events(snapshot),
            earlier: snapshot.earlier.map(HistoryCursor::from_fence),
            undecodable: OnceLock::new(),
        }
    }
}

/// The config as what it is; one that is not JSON as a text.
fn as_json<S: Serializer>(config: &Payload, serializer: S) -> Result<S::Ok, S::Error> {
    match serde_json::from_str::<serde_json::Value>(config.as_str()) {
        Ok(value) => value.serialize(serializer),
        Err(_) => config.as_str().serialize(serializer),
    }
}

fn events(snapshot: &Snapshot) -> Vec<JobEvent> {
    let mut events = vec![event(snapshot.spawned_at, JobEventKind::Spawned)];
    events.extend(snapshot.runs.iter().flat_map(of_run));
    if let Some(Live {
        attempt,
        lease: Some(lease),
        ..
    }) = snapshot.live
    {
        let worker = lease.worker.0;
        let started = JobEventKind::Started { attempt, worker };
        events.push(event(lease.claimed_at, started));
    }
    events
}

fn of_run(run: &RunRecord) -> [JobEvent; 2] {
    let (attempt, worker) = (run.attempt, run.worker.0);
    let started = JobEventKind::Started { attempt, worker };
    [
        event(run.claimed_at, started),
        event(run.ended_at, end(run)),
    ]
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
        RunEnd::Snoozed => JobEventKind::Snoozed { due_at: due_at() },
        RunEnd::Retried => JobEventKind::Failed {
            attempt,
            error: error(),
            retry_at: due_at(),
        },
        RunEnd::Errored | RunEnd::Abandoned => JobEventKind::Errored {
            attempt,
            error: error(),
        },
        RunEnd::Interrupted => JobEventKind::Aborted,
        RunEnd::Released => JobEventKind::Released,
        RunEnd::Undecodable => JobEventKind::Undecodable {
            error: error(),
            retry_at: due_at(),
        },
        RunEnd::Lost => JobEventKind::LeaseLost { attempt },
    }
}

fn event(at: Timestamp, kind: JobEventKind) -> JobEvent {
    JobEvent {
        at: to_datetime(at),
        kind,
    }
}
