//! The store on SQLite.

mod cancelling;
mod clocks;
mod closing;
mod crashes;
mod fixtures;
mod queries;
mod schema;
mod sharing;
mod suite;
mod transactions;
