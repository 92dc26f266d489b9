//! The jobs, names and times that the cases use.

use std::time::Duration;

use job_engine::store::{NewJob, Quota, TypePolicy};
use job_engine::{Due, ErrorText, JobId, JobType, Payload, Timestamp, WorkerId};
use uuid::Uuid;

/// When each case begins.
pub(crate) const START: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

/// The type of a job unless the case says otherwise.
pub(crate) const MAIL: JobType = JobType::new("mail");
/// Another type.
pub(crate) const PRINT: JobType = JobType::new("print");

/// How long a lease lasts unless the case says otherwise.
pub(crate) const LEASE: Duration = Duration::from_secs(60);
/// Longer than any run of a case lives, unless the case is about that.
pub(crate) const HEALTHY_AFTER: Duration = Duration::from_secs(3_600);

pub(crate) const MICROSECOND: Duration = Duration::from_micros(1);
pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// The worker of a case unless it says otherwise.
pub(crate) const ALICE: WorkerId = WorkerId(Uuid::from_u128(0xa11ce));
/// Another worker.
pub(crate) const BOB: WorkerId = WorkerId(Uuid::from_u128(0xb0b));

pub(crate) fn id(n: u128) -> JobId {
    JobId(Uuid::from_u128(n))
}

/// A job of type [`MAIL`] that is due now.
pub(crate) fn new_job(n: u128) -> NewJob {
    NewJob {
        id: id(n),
        job_type: MAIL,
        unique_type: false,
        due: Due::Now,
        config: json(&format!("{{\"n\":{n}}}")),
        trace: None,
        token: 7,
    }
}

/// Jobs `1..=last` of type [`MAIL`] that are due now.
pub(crate) fn new_jobs(last: u128) -> Vec<NewJob> {
    (1..=last).map(new_job).collect()
}

pub(crate) fn json(text: &str) -> Payload {
    Payload::from_json(text)
}

pub(crate) fn error(text: &str) -> ErrorText {
    ErrorText::new(text)
}

pub(crate) fn quota(job_type: JobType, jobs_max: u32) -> Quota {
    Quota { job_type, jobs_max }
}

/// Without limits.
pub(crate) fn policy(job_type: JobType) -> TypePolicy {
    TypePolicy {
        job_type,
        attempts_max: None,
        crashes_max: None,
        healthy_after: HEALTHY_AFTER,
    }
}
