//! Drives the engine of `job` on tokio, over any [`Store`].
//!
//! - [`DriverHandle`] runs a worker: the engine's state machine, pumped.
//! - [`Store`] is what a database adapter implements; [`MemoryStore`] is the
//!   one without a database.
//! - [`ClockHandle`] tells the time, real or artificial.

mod announcer;
pub mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
mod driver;
pub mod fault;
pub mod guarded;
#[cfg(test)]
mod log;
pub mod memory;
pub mod observer;
mod spawns;
pub mod store;
mod time;
pub mod turn;
mod wakes;

pub use announcer::Announcer;
pub use clock::{
    ArtificialClockConfig, ArtificialMode, Attended, BusyGuard, Clock, ClockController,
    ClockHandle, ClockId, ClockSleep, ClockTimeout, Elapsed, Participant,
};
pub use driver::{
    DriverConfig, DriverHandle, Hold, RunJob, StopSender, StopSignal, WorkerEnded, panicked,
    store_timeout,
};
pub use memory::{MemoryStore, MemoryTransaction};
pub use spawns::Spawns;
pub use store::{Store, Wake};
pub use time::{to_datetime, to_timestamp};
pub use wakes::Wakes;
