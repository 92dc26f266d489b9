//! The store of `job` on SQLite: one file, one process, no server.
//!
//! Every statement stands in a file under `queries/`, with what it is for, its
//! invariant and the index that serves it. SQLite has one writer at a time; a
//! command is one transaction that takes that place at its beginning.

mod claim;
mod clock;
mod error;
mod file;
mod find;
mod finish;
mod lease;
mod open;
mod presence;
mod reclaim;
mod row;
mod schema;
mod spawn;
mod sql;
mod store;

pub use clock::ClockError;
pub use error::advice;
pub use file::FileError;
pub use find::configs_of_type;
pub use open::OpenOptions;
pub use presence::StartError;
pub use schema::{SCHEMA_VERSION, SchemaError, migrator};
pub use sql::QUERIES;
pub use store::{SqliteStore, begin_immediate};
