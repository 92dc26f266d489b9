//! The store on SQLite.

mod file;
mod memory;
mod queries;
mod schema;
