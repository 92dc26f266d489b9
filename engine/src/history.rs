//! What a store knows of one job, and the history that explains it.

use serde::{Deserialize, Serialize};

use crate::ids::{ClaimId, Fence, JobId, JobType, Run, WorkerId};
use crate::lifecycle::{Event, RunEnd, State};
use crate::limits::HISTORY_LEN_MAX;
use crate::payload::{ErrorText, Payload};
use crate::time::Timestamp;

/// One job with its history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its identity.
    pub id: JobId,
    /// Its type.
    pub job_type: JobType,
    /// Whether it is the unique one of its type.
    pub unique_type: bool,
    /// What the runner is given.
    pub config: Payload,
    /// When it was spawned.
    pub spawned_at: Timestamp,
    /// The trace context of the spawn.
    pub trace: Option<String>,
    /// What it is about to do or does; `None` once it is over.
    pub live: Option<Live>,
    /// Its ended runs, the oldest first. Only ever appended to. As it is read from a store,
    /// at most the last [`HISTORY_LEN_MAX`].
    pub runs: Vec<RunRecord>,
    /// Before which fence earlier runs ended, if there may be any.
    #[serde(default)]
    pub earlier: Option<Fence>,
}

/// Ended runs of a job, one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryPage {
    /// The runs, the oldest first.
    pub runs: Vec<RunRecord>,
    /// Before which fence earlier runs ended, if there may be any.
    pub earlier: Option<Fence>,
}

/// The part of a job that changes, until it ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    /// The attempt that runs, or that runs next. From 1.
    pub attempt: u32,
    /// Crashes in a row.
    pub crashes: u32,
    /// How often it was interrupted since a run of it last ended otherwise.
    #[serde(default)]
    pub interruptions: u32,
    /// Since when no worker that took it could decode its config, if that is so.
    #[serde(default)]
    pub undecodable_since: Option<Timestamp>,
    /// When it is or was due.
    pub due_at: Timestamp,
    /// The last claim.
    pub fence: Fence,
    /// What its runner kept.
    pub state: Option<Payload>,
    /// Who runs it; `None` while it is pending.
    pub lease: Option<Lease>,
}

/// The right of a worker to run a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Who holds it.
    pub worker: WorkerId,
    /// Which claim of that worker granted it.
    pub claim_seq: i64,
    /// Since when.
    pub claimed_at: Timestamp,
    /// When it runs out unless a heartbeat renews it.
    pub expires_at: Timestamp,
}

/// A run that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Its claim.
    pub fence: Fence,
    /// Its attempt.
    pub attempt: u32,
    /// Who ran it.
    pub worker: WorkerId,
    /// By which of his claims.
    #[serde(default)]
    pub claim_seq: i64,
    /// When it was claimed.
    pub claimed_at: Timestamp,
    /// When its end was recorded.
    pub ended_at: Timestamp,
    /// How it ended.
    pub end: RunEnd,
    /// What went wrong, if anything did.
    pub error: Option<ErrorText>,
    /// When the next run was due; `None` if the job was over.
    pub next_due_at: Option<Timestamp>,
}

impl Live {
    /// The run that goes on, of the job with this id.
    pub fn run(&self, job: JobId) -> Option<Run> {
        Some(Run {
            job,
            fence: self.fence,
            claim: self.lease?.claim(),
        })
    }
}

impl Lease {
    /// The claim that granted it.
    pub fn claim(self) -> ClaimId {
        ClaimId {
            worker: self.worker,
            seq: self.claim_seq,
        }
    }
}

impl RunRecord {
    /// Which run it was, of the job with this id.
    pub fn run(&self, job: JobId) -> Run {
        Run {
            job,
            fence: self.fence,
            claim: ClaimId {
                worker: self.worker,
                seq: self.claim_seq,
            },
        }
    }
}

impl HistoryPage {
    /// The runs of `job` that ended before `before`, of so many fences.
    pub fn of(job: &Snapshot, before: Fence) -> Self {
        let last = match &job.live {
            Some(live) => live.fence.0 - i64::from(live.lease.is_some()),
            None => job.runs.last().map_or(0, |run| run.fence.0),
        };
        let before = before.0.min(last + 1).max(1);
        let first = (before - HISTORY_LEN_MAX as i64).max(1);
        let [start, end] = [first, before].map(|at| job.runs.partition_point(|r| r.fence.0 < at));
        Self {
            runs: job.runs[start..end].to_vec(),
            earlier: Self::earlier_than(Some(Fence(first))),
        }
    }

    /// Before which fence earlier runs ended than those of a page that begins with this.
    pub fn earlier_than(first: Option<Fence>) -> Option<Fence> {
        first.filter(|first| first.0 > 1)
    }
}

impl Snapshot {
    /// The state that the live part and the last run say.
    pub fn state(&self) -> State {
        match (&self.live, self.runs.last()) {
            (Some(live), _) if live.lease.is_some() => State::Running,
            (Some(_), _) => State::Pending,
            (None, Some(run)) if run.end == RunEnd::Completed => State::Completed,
            // A job without a live part has ended, and its history says how.
            (None, _) => State::Errored,
        }
    }

    /// Folds the history through the lifecycle. It must give
    /// [`Snapshot::state`]; `None` if it has an impossible step. Whatever was before a run,
    /// it began with a job that was pending, so the last runs of a history will do.
    pub fn fold(&self) -> Option<State> {
        let mut state = State::Pending;
        for run in &self.runs {
            state = state.next(Event::Claimed).ok()?;
            state = state.next(Event::Ended(run.end)).ok()?;
        }
        let running = self.live.as_ref().is_some_and(|live| live.lease.is_some());
        if running {
            state = state.next(Event::Claimed).ok()?;
        }
        Some(state)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{Due, Timestamp};

    fn snapshot(live: Option<Option<Lease>>, ends: &[RunEnd]) -> Snapshot {
        let (worker, at) = (WorkerId(Uuid::nil()), Timestamp::EPOCH);
        let runs = ends.iter().zip(1..).map(|(end, number)| RunRecord {
            fence: Fence(number),
            attempt: 1,
            worker,
            claim_seq: number,
            claimed_at: at,
            ended_at: at,
            end: *end,
            error: None,
            next_due_at: None,
        });
        Snapshot {
            id: JobId(Uuid::nil()),
            job_type: "mail".into(),
            unique_type: false,
            config: Payload::from_json("null"),
            spawned_at: at,
            trace: None,
            live: live.map(|lease| Live {
                attempt: 1,
                crashes: 0,
                interruptions: 0,
                undecodable_since: None,
                due_at: Due::Now.resolve(at),
                fence: Fence(ends.len() as i64),
                state: None,
                lease,
            }),
            runs: runs.collect(),
            earlier: None,
        }
    }

    #[test]
    fn the_history_folds_to_the_state() {
        let lease = Lease {
            worker: WorkerId(Uuid::nil()),
            claim_seq: 1,
            claimed_at: Timestamp::EPOCH,
            expires_at: Timestamp::EPOCH,
        };
        let (waits, runs) = (Some(None), Some(Some(lease)));
        for (live, ends, state) in [
            (waits, &[][..], State::Pending),
            (runs, &[], State::Running),
            (waits, &[RunEnd::Retried, RunEnd::Lost], State::Pending),
            (runs, &[RunEnd::Released], State::Running),
            (
                None,
                &[RunEnd::Retried, RunEnd::Completed],
                State::Completed,
            ),
            (None, &[RunEnd::Errored], State::Errored),
            (None, &[RunEnd::Lost, RunEnd::Abandoned], State::Errored),
        ] {
            let job = snapshot(live, ends);
            assert_eq!(job.state(), state, "{ends:?}");
            assert_eq!(job.fold(), Some(state), "{ends:?}");
        }
        let impossible = snapshot(None, &[RunEnd::Completed, RunEnd::Completed]);
        assert_eq!(impossible.fold(), None);
        let runs_on = snapshot(runs, &[RunEnd::Errored]);
        assert_eq!(runs_on.fold(), None);
    }
}
