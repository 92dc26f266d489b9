//! The store of `job` on Postgres, 14 or later.
//!
//! ```no_run
//! use job_postgres::{ConnectConfig, PostgresStore, StoreOptions, connect};
//!
//! # async fn start() -> Result<(), Box<dyn std::error::Error>> {
//! let url = "postgres://user:password@localhost/jobs";
//! let pool = connect(url, &ConnectConfig::default()).await?;
//! let store = PostgresStore::new(pool, StoreOptions::default())?;
//! store.migrate().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Every statement stands in a file under `queries/`, with what it is for, its
//! invariant and the index that serves it. They all rely on READ COMMITTED:
//! - A statement that waited for a row sees its newest version, and checks its
//!   conditions on it again.
//! - What a statement waited for may be younger than its snapshot, so what
//!   explains a conflict is read by a statement of its own.
//! - Where several rows are locked, they are locked in the order of their ids,
//!   or those that are locked already are passed over.

mod claim;
mod clock;
mod connect;
mod convert;
mod error;
mod find;
mod finish;
mod lease;
mod listen;
mod look;
mod migrate;
mod pools;
mod reclaim;
mod schema;
mod session;
mod spawn;
mod sql;
mod store;

pub use clock::ClockError;
pub use connect::{ConnectConfig, UrlError, check_url, connect};
pub use error::{advice, store_error};
pub use find::configs_of_type;
pub use migrate::migrator;
pub use schema::{SCHEMA_VERSION, SchemaError};
pub use session::is_in_transaction;
pub use sql::{QUERIES, SchemaNameError};
pub use store::{PostgresStore, StoreOptions};
