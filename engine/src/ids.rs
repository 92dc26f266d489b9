//! Identities: of a job, its type, one run of it, and the worker that runs it.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Identifies a job, chosen by whoever spawns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub Uuid);

/// As a number: the order of the bytes, without a call for each comparison in a map.
impl Ord for JobId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.as_u128().cmp(&other.0.as_u128())
    }
}

impl PartialOrd for JobId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Identifies one worker, that is one polling process. A restart is another
/// worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkerId(pub Uuid);

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names the kind of work that a job is; it selects the runner.
///
/// 1 to [`JOB_TYPE_LEN_MAX`](crate::limits::JOB_TYPE_LEN_MAX) bytes without NUL;
/// [`JobType::check`] tells, and every store refuses what it does not allow.
#[derive(Clone)]
pub struct JobType(Name);

#[derive(Clone)]
enum Name {
    Static(&'static str),
    Shared(Arc<str>),
}

impl JobType {
    /// A type whose name is known at compile time.
    pub const fn new(name: &'static str) -> Self {
        Self(Name::Static(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Name::Static(name) => name,
            Name::Shared(name) => name,
        }
    }
}

impl From<String> for JobType {
    fn from(name: String) -> Self {
        Self(Name::Shared(name.into()))
    }
}

impl From<&str> for JobType {
    fn from(name: &str) -> Self {
        Self(Name::Shared(name.into()))
    }
}

// The name alone counts, not how it is held.
impl PartialEq for JobType {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for JobType {}

impl PartialOrd for JobType {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for JobType {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl std::hash::Hash for JobType {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Debug for JobType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl fmt::Display for JobType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl Serialize for JobType {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for JobType {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

/// Counts the claims of one job. Every claim gets the next number and none is
/// used twice, so a write that names an old one can be told from the current.
/// A job that was never claimed is at [`Fence::NONE`].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Fence(pub i64);

impl Fence {
    /// Before the first claim.
    pub const NONE: Self = Self(0);

    /// The fence of the next claim.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One run of a job: what a claim granted. Every write of the runner or its
/// worker names it.
///
/// Job and fence tell it from all other runs of the job, unless the database has
/// forgotten a commit, as one that fails over to a replica may: then it gives the fence
/// a second time. Hence the claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Run {
    /// The job.
    pub job: JobId,
    /// Which claim of the job started the run.
    pub fence: Fence,
    /// Whose claim that was, and which of his.
    pub claim: ClaimId,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.job, self.fence)
    }
}

/// Identifies one claim command, so that it can be repeated when its reply is
/// lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClaimId {
    /// Who claims.
    pub worker: WorkerId,
    /// Counts the claims of that worker.
    pub seq: i64,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    #[test]
    fn ids_are_ordered_by_their_bytes() {
        let ids = [id(1), id(2 << 64), id(2 << 120)];
        let ordered = ids.map(JobId);
        assert!(ordered.is_sorted());
        for (one, job) in ids.iter().zip(ordered) {
            for (other, other_job) in ids.iter().zip(ordered) {
                assert_eq!(one.cmp(other), job.cmp(&other_job));
                assert_eq!(Some(job.cmp(&other_job)), job.partial_cmp(&other_job));
            }
        }
    }

    #[test]
    fn the_name_of_a_type_counts_and_not_how_it_is_held() {
        let (one, same) = (JobType::new("mail"), JobType::from("mail"));
        let other = JobType::from("post".to_owned());
        assert_eq!(one, same);
        assert_ne!(one, other);
        assert_eq!(one.partial_cmp(&same), Some(Ordering::Equal));
        assert!(one < other);
        let types: BTreeSet<_> = [one, same, other].into();
        assert_eq!(types.len(), 2);
    }

    #[test]
    fn ids_are_shown_as_operators_look_for_them() {
        let (job, worker) = (JobId(id(7)), WorkerId(id(9)));
        assert_eq!(job.to_string(), id(7).to_string());
        assert_eq!(worker.to_string(), id(9).to_string());
        let run = Run {
            job,
            fence: Fence(3),
            claim: ClaimId { worker, seq: 1 },
        };
        assert_eq!(run.to_string(), format!("{}#3", id(7)));
        let job_type = JobType::new("mail");
        assert_eq!(job_type.to_string(), "mail");
        assert_eq!(format!("{job_type:?}"), "\"mail\"");
    }
}
