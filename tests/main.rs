//! The service as applications see it, on every backend.
//!
//! Run by `tests/run`, which brings up a Postgres server.

mod bad_input;
mod clocks;
mod deploys;
mod ends;
mod engine_purity;
mod examples;
mod faults;
mod json_schema;
mod outage;
mod poolers;
mod postgres;
mod processes;
mod properties;
mod scenarios;
mod seed_api;
mod stores;
mod support;
mod testing;
mod tracing;
mod trials;
mod unreadable;
mod ways_in;
