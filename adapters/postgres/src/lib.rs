//! The store of `job` on Postgres, 13 or later.
//!
//! Every statement stands in a file under `queries/`, with what it is for, its
//! invariant and the index that serves it.

mod claim;
mod connect;
mod convert;
mod error;
mod find;
mod finish;
mod lease;
mod listen;
mod reclaim;
mod schema;
mod session;
mod spawn;
mod sql;
mod store;

pub use connect::connect;
pub use error::store_error;
pub use schema::{SCHEMA_VERSION, SchemaError, migrator};
pub use sql::{QUERIES, SchemaNameError};
pub use store::{PostgresStore, StoreOptions};
