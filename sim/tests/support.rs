//! What scenarios that are written by hand have in common.

use job_sim::scenario::{DueSpec, JobSpec, RunSpec};

/// A job of one of two types that somebody outside spawns, due at once.
pub(crate) fn job(key: u32, spawn_ms: u64, runs: Vec<RunSpec>) -> JobSpec {
    JobSpec {
        key,
        spawn_ms,
        by: None,
        parent: None,
        job_type: key % 2,
        unique: false,
        due: DueSpec::Now,
        again_ms: None,
        runs,
    }
}
