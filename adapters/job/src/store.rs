//! What a store is asked and answers: for those who match its errors, or write a
//! [`Backend`](crate::Backend) of their own.
//!
//! It is that of the crates `job-engine` and `job-tokio`, whose documentation says the rest.

pub use job_engine::history::{Lease, Live, RunRecord};
pub use job_engine::lifecycle::RunEnd;
pub use job_engine::store::*;
pub use job_engine::{
    ClaimId, Due, ErrorText, Fence, JobId, JobType, Payload, Run, Snapshot, Timestamp, WorkerId,
};
pub use job_tokio::{MemoryStore, MemoryTransaction, Store, Wake};
