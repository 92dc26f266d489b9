//! Values of the engine's types from bytes.
//!
//! Identities come from small sets, so that they meet; times and texts go to
//! their limits and beyond, as far as the types allow.

use std::time::Duration;

use job_engine::history::{Lease, Live, RunRecord, Snapshot};
use job_engine::lifecycle::RunEnd;
use job_engine::limits::ERROR_LEN_MAX;
use job_engine::store::{
    Checkpoint, Claim, ClaimedJob, Finish, Heartbeat, History, Left, LeftOut, NewJob, Outcome,
    Quota, Reclaim, TypePolicy,
};
use job_engine::{
    ClaimId, Command, Due, ErrorText, Fence, JobId, JobType, Payload, Rejection, RetrySettings,
    Run, StoreError, Timestamp, WorkerId,
};
use uuid::Uuid;

use crate::source::Source;

/// Names of job types that are allowed.
pub(crate) const TYPES: [&str; 5] = ["a", "b", "mail", "é\u{1f600}", "with space\n\"quote'"];

/// Texts that something might stumble over.
const TEXTS: [&str; 12] = [
    "",
    "null",
    "{\"a\":[1,2,{\"b\":null}]}",
    "\0",
    "a\0b",
    "\u{fffd}",
    "é\u{1f600}",
    "'; DROP TABLE jobs; --",
    "\"\\\u{1}\u{1f}\u{7f}",
    "{",
    "$1",
    " ",
];

impl Source<'_> {
    pub(crate) fn duration(&mut self) -> Duration {
        let small = |source: &mut Self| u64::from(source.byte());
        match self.byte() % 10 {
            0 => Duration::ZERO,
            1 => Duration::from_millis(small(self)),
            2 => Duration::from_millis(small(self) * 250),
            3 => Duration::from_secs(small(self)),
            4 => Duration::from_secs(small(self) * 3_600),
            5 => Duration::from_nanos(small(self)),
            6 => Duration::from_micros(self.u64()),
            7 => Duration::new(self.u64(), self.u32() % 1_000_000_000),
            8 => Duration::MAX,
            _ => Duration::from_secs(1),
        }
    }

    pub(crate) fn timestamp(&mut self) -> Timestamp {
        match self.byte() % 6 {
            0 => Timestamp::EPOCH,
            1 => Timestamp::MIN,
            2 => Timestamp::MAX,
            3 => Timestamp::from_micros(self.u64().cast_signed()),
            4 => Timestamp::from_micros(Timestamp::MAX.as_micros() - i64::from(self.u32())),
            _ => Timestamp::EPOCH.saturating_add(self.duration()),
        }
    }

    pub(crate) fn due(&mut self) -> Due {
        match self.byte() % 4 {
            0 | 1 => Due::Now,
            2 => Due::In(self.duration()),
            _ => Due::At(self.timestamp()),
        }
    }

    pub(crate) fn text(&mut self) -> String {
        match self.byte() {
            kind @ 0..=199 => TEXTS[usize::from(kind) % TEXTS.len()].to_owned(),
            200..=219 => {
                // Beyond what the history keeps of an error.
                let len = self.u32() as usize % (ERROR_LEN_MAX + 2_000);
                let text = TEXTS[self.below(TEXTS.len())];
                text.repeat(len.div_ceil(text.len().max(1)))
            }
            _ => {
                let bytes = self.several(32, Self::byte);
                String::from_utf8_lossy(&bytes).into_owned()
            }
        }
    }

    pub(crate) fn payload(&mut self) -> Payload {
        Payload::from_json(self.text())
    }

    pub(crate) fn error_text(&mut self) -> ErrorText {
        ErrorText::new(&self.text())
    }

    /// The name of a type, mostly one that is allowed.
    pub(crate) fn job_type(&mut self) -> JobType {
        match self.byte() {
            255 => self.text().into(),
            other => JobType::new(TYPES[usize::from(other) % TYPES.len()]),
        }
    }

    pub(crate) fn job_id(&mut self) -> JobId {
        JobId(match self.byte() {
            255 => Uuid::from_bytes(self.bytes()),
            other => Uuid::from_u128(u128::from(other % 8)),
        })
    }

    pub(crate) fn worker_id(&mut self) -> WorkerId {
        WorkerId(Uuid::from_u128(self.below(3) as u128))
    }

    pub(crate) fn fence(&mut self) -> Fence {
        Fence(match self.byte() {
            255 => self.u64().cast_signed(),
            other => i64::from(other % 6),
        })
    }

    pub(crate) fn run(&mut self) -> Run {
        Run {
            job: self.job_id(),
            fence: self.fence(),
            claim: ClaimId {
                worker: self.worker_id(),
                seq: i64::from(self.byte() % 4),
            },
        }
    }

    pub(crate) fn left(&mut self) -> Left {
        Left {
            run: self.run(),
            job_type: self.job_type(),
            why: *self.pick(&[LeftOut::BeyondQuota, LeftOut::SpecGone]),
        }
    }

    pub(crate) fn run_end(&mut self) -> RunEnd {
        *self.pick(&RunEnd::ALL)
    }

    pub(crate) fn new_job(&mut self) -> NewJob {
        NewJob {
            id: self.job_id(),
            job_type: self.job_type(),
            unique_type: self.flag(),
            due: self.due(),
            config: self.payload(),
            trace: self.maybe(Self::text),
            token: i64::from(self.byte() % 3),
        }
    }

    pub(crate) fn claimed_job(&mut self) -> ClaimedJob {
        ClaimedJob {
            run: self.run(),
            job_type: self.job_type(),
            attempt: self.u32(),
            due_at: self.timestamp(),
            spawned_at: self.timestamp(),
            interruptions: self.u32(),
            undecodable_since: self.maybe(Self::timestamp),
            config: self.payload(),
            state: self.maybe(Self::payload),
            trace: self.maybe(Self::text),
        }
    }

    pub(crate) fn outcome(&mut self) -> Outcome {
        match self.byte() % 8 {
            0 => Outcome::Completed,
            1 => Outcome::Rescheduled { due: self.due() },
            2 => Outcome::Retried {
                delay: self.duration(),
                attempt: self.u32(),
                error: self.error_text(),
            },
            3 => Outcome::Errored {
                error: self.error_text(),
            },
            4 => Outcome::Interrupted,
            5 => Outcome::Undecodable {
                delay: self.duration(),
                error: self.error_text(),
            },
            6 => Outcome::Released,
            _ => Outcome::Snoozed { due: self.due() },
        }
    }

    pub(crate) fn finish(&mut self) -> Finish {
        Finish {
            run: self.run(),
            outcome: self.outcome(),
        }
    }

    pub(crate) fn policy(&mut self) -> TypePolicy {
        TypePolicy {
            job_type: self.job_type(),
            attempts_max: self.maybe(Self::u32),
            crashes_max: self.maybe(Self::u32),
            healthy_after: self.duration(),
        }
    }

    pub(crate) fn retry(&mut self) -> RetrySettings {
        RetrySettings {
            n_attempts: self.maybe(Self::u32),
            n_warn_attempts: self.maybe(Self::u32),
            min_backoff: self.duration(),
            max_backoff: self.duration(),
            backoff_jitter_pct: self.byte(),
            attempt_reset_after_backoff_multiples: self.u32(),
        }
    }

    pub(crate) fn command(&mut self) -> Command {
        match self.byte() % 9 {
            0 | 1 => Command::Spawn(self.several(4, Self::new_job)),
            2 => Command::Claim(Claim {
                id: ClaimId {
                    worker: self.worker_id(),
                    seq: i64::from(self.byte() % 4),
                },
                repeat: self.flag(),
                quotas: self.several(4, |source| Quota {
                    job_type: source.job_type(),
                    jobs_max: source.u32(),
                }),
                lease: self.duration(),
            }),
            3 => Command::Finish(self.several(4, Self::finish)),
            4 => Command::Heartbeat(Heartbeat {
                runs: self.several(4, Self::run),
                lease: self.duration(),
            }),
            5 => Command::Checkpoint(Checkpoint {
                run: self.run(),
                state: self.payload(),
            }),
            6 => Command::Reclaim(Reclaim {
                policies: self.several(4, Self::policy),
                jobs_max: self.u32(),
            }),
            7 => Command::Find(self.job_id()),
            _ => Command::History(History {
                job: self.job_id(),
                before: self.fence(),
            }),
        }
    }

    pub(crate) fn rejection(&mut self) -> Rejection {
        match self.byte() % 7 {
            0 => Rejection::JobType {
                job_type: self.text(),
            },
            1 => Rejection::TooLong {
                what: self.text(),
                job: self.job_id(),
                len: self.u32() as usize,
                len_max: self.u32() as usize,
            },
            2 => Rejection::Nul { job: self.job_id() },
            3 => Rejection::Twice { what: self.text() },
            4 => Rejection::TooMany {
                len: self.u32() as usize,
                len_max: self.u32() as usize,
            },
            5 => Rejection::NotInTransaction,
            _ => Rejection::Data(self.text()),
        }
    }

    pub(crate) fn store_error(&mut self) -> StoreError {
        match self.byte() % 3 {
            0 => StoreError::Rejected(self.rejection()),
            1 => StoreError::Failed(self.text()),
            _ => StoreError::Unknown(self.text()),
        }
    }

    /// A job with a history, most often one that no store would keep.
    pub(crate) fn snapshot(&mut self) -> Snapshot {
        Snapshot {
            id: self.job_id(),
            job_type: self.job_type(),
            unique_type: self.flag(),
            config: self.payload(),
            spawned_at: self.timestamp(),
            trace: self.maybe(Self::text),
            live: self.maybe(|source| Live {
                attempt: source.u32(),
                crashes: source.u32(),
                interruptions: source.u32(),
                undecodable_since: source.maybe(Self::timestamp),
                due_at: source.timestamp(),
                fence: source.fence(),
                state: source.maybe(Self::payload),
                lease: source.maybe(|source| Lease {
                    worker: source.worker_id(),
                    claim_seq: source.u64().cast_signed(),
                    claimed_at: source.timestamp(),
                    expires_at: source.timestamp(),
                }),
            }),
            runs: self.several(6, |source| RunRecord {
                fence: source.fence(),
                attempt: source.u32(),
                worker: source.worker_id(),
                claim_seq: source.u64().cast_signed(),
                claimed_at: source.timestamp(),
                ended_at: source.timestamp(),
                end: source.run_end(),
                error: source.maybe(Self::error_text),
                next_due_at: source.maybe(Self::timestamp),
            }),
            earlier: self.maybe(Self::fence),
        }
    }
}
