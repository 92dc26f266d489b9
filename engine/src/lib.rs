//! The pure core of `job`: no async runtime, no clock, no I/O, no entropy of its
//! own. `ARCHITECTURE.md` beside this crate's sources has the map and the
//! invariants.
//!
//! - [`Worker`] decides: inputs in, actions out.
//! - [`Command`] and [`Reply`] are the store port, as data.
//! - [`ModelStore`] says what each command does.
//! - [`lifecycle::State`] is the life of one job, as a table.

pub mod draw;
pub mod gather;
pub mod history;
pub mod ids;
pub mod lifecycle;
pub mod limits;
pub mod model;
pub mod payload;
#[cfg_attr(not(feature = "planted"), doc(hidden))]
pub mod planted;
pub mod retry;
pub mod store;
pub mod time;
pub mod worker;

pub use draw::Entropy;
pub use history::Snapshot;
pub use ids::{ClaimId, Fence, JobId, JobType, Run, WorkerId};
#[cfg(not(feature = "planted"))]
pub use model::ModelStore;
pub use payload::{ErrorText, Payload};
pub use retry::RetrySettings;
pub use store::{Command, Rejection, Reply, StoreError};
pub use time::{Due, Timestamp};
#[cfg(not(feature = "planted"))]
pub use worker::Worker;

/// These, with the mistakes that can be switched on.
#[cfg(feature = "planted")]
pub use planted::{ModelStore, Worker};
