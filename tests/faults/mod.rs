//! A real Postgres goes wrong in every way that we know of while jobs run.
//! Afterwards nothing is lost, nothing that is to happen once happened twice, and
//! the history says what happened.
//!
//! `JOB_SOAK_SECONDS` says how long connections are cut at random (default 8), and
//! `JOB_SOAK_SEED` how (default 0).

mod connections;
mod database;
mod ledger;
mod network;
pub mod proxy;
mod server;
