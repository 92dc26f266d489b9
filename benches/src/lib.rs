//! Measures `job` as a whole, beside what hand-written SQL reaches on the same
//! server in the same round.
//!
//! A *measure* is one question, such as how fast a backlog is drained. Its
//! *subjects* answer it in turn: `job` in its default configuration, and *floors*,
//! which are the least SQL that does the same work. All of that is a *round*. A
//! machine drifts, by a factor of two within an hour, so what counts is the ratio of
//! two subjects within a round; tables show the median of these.
//!
//! Each [`Reading`] is a line of JSON in a file, and tables are made of such a file:
//! what measures other programs adds its own lines.

pub mod aims;
pub mod charts;
pub mod child;
pub mod database;
pub mod engine;
pub mod floor;
pub mod latency;
pub mod measures;
pub mod meter;
pub mod ours;
pub mod plot;
pub mod process;
pub mod reading;
pub mod report;
pub mod round;
pub mod table;

pub use reading::Reading;
pub use round::Round;

/// What went wrong, for a person to read: nothing here can go on after an error.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// A result whose error is for a person to read, if no other is named.
pub type Result<T, E = Error> = std::result::Result<T, E>;
