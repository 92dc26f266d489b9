//! The store on Postgres. Run by `tests/run`, which brings up a server.

mod database;
mod suite;
