//! The store on SQLite.

mod cancelling;
mod clocks;
mod closing;
mod crashes;
mod files;
mod fixtures;
mod queries;
mod schema;
mod sharing;
mod starts;
mod suite;
mod transactions;
