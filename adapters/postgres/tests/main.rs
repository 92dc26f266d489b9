//! The store on a real Postgres. Needs `DATABASE_URL`, the address of a server
//! on which databases can be created; `tests/run` starts one.

mod clocks;
mod concurrency;
mod connecting;
mod data;
mod deadlocks;
mod listening;
mod plans;
mod pools;
mod read_committed;
#[path = "../../../tests/support/role.rs"]
mod role;
mod starting;
mod suite;
mod support;
mod tables;
mod transactions;
