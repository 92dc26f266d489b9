//! The real stores against the model: whatever the simulator believes of a store
//! must be true of Postgres and of SQLite.

mod commands;
mod concurrent;
mod sequences;
mod tables;
