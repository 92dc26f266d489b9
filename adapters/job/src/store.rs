//! What a store is asked and answers: for those who match its errors, or write a
//! [`Backend`](crate::Backend) of their own.
//!
//! It is that of the crates `job-engine` and `job-tokio`, whose documentation says the rest.

pub use job_engine::{Command, JobType, Rejection, Reply, StoreError, Timestamp};
pub use job_tokio::{MemoryStore, MemoryTransaction, Store, Wake};
