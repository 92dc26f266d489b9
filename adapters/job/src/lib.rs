//! `job` is an async job scheduler and runner that Rust applications embed.
//!
//! Jobs are durable rows in Postgres, or in a SQLite file without any server.
//! Any number of processes share the work, retries back off predictably, and
//! the history is kept. Every decision is made by a state machine without I/O
//! that takes time and randomness as arguments, so that the code which runs in
//! production is the code that a seed can replay.
//!
//! # The short way in
//!
#![doc = "```no_run"]
#![doc = include_str!("../../../examples/hello.rs")]
#![doc = "```"]
//!
//! - A [`Task`] is work that can be done later; its fields are what a job is given.
//! - [`Jobs`] is the service: [`Jobs::connect`] opens it, [`Jobs::add_task`] says what this
//!   process runs, [`Jobs::start_poll`] begins to, [`Jobs::spawn`] makes jobs, in a transaction
//!   of yours if you want, and [`Jobs::run_until_signal`] waits until the process is told to
//!   end and lets the running jobs end.
//! - [`TaskContext`] is what a run knows: the state that the task was registered with, its
//!   attempt, its execution state, its clock, whether it should stop.
//! - [`TaskEnd`] says how a run ended well.
//!
//! The module `guide` of this documentation has a guide for each road; it is there with the
//! features `postgres`, `sqlite` and `testing`.
//!
//! # The traits beneath
//!
//! A task is an initializer and a runner in one, which can be written by themselves: a
//! [`JobInitializer`] describes a job type and makes a [`JobRunner`] for each run; what
//! [`Jobs::add_initializer`] returns, a [`JobSpawner`], creates jobs of the type; a runner is
//! given a [`CurrentJob`] and returns a [`JobCompletion`]. [`Jobs::init`] opens a service whose
//! backend is part of its type:
//!
#![doc = "```no_run"]
#![doc = include_str!("../../../examples/quickstart.rs")]
#![doc = "```"]
//!
//! # Scheduling
//!
//! A job runs once it is due and a worker has room: at once, or at the time
//! given to [`Spawn::at`] or [`JobSpawner::spawn_at`]. A run that ends with one of the
//! `Reschedule` variants of [`JobCompletion`] books the next one.
//!
//! # Retries
//!
//! A runner that returns an error or panics is tried again as the
//! [`RetrySettings`] of its type say, and the job ends as errored after the last
//! attempt:
//!
//! ```
//! use std::time::Duration;
//!
//! use job::RetrySettings;
//!
//! let settings = RetrySettings {
//!     n_attempts: Some(5),
//!     min_backoff: Duration::from_secs(10),
//!     max_backoff: Duration::from_secs(300),
//!     ..Default::default()
//! };
//! assert_eq!(settings.backoff(3), Duration::from_secs(40));
//! ```
//!
//! A run whose process dies, hangs or is cut off loses its lease after
//! [`JobPollerConfig::job_lost_interval`] and is run again elsewhere, one
//! attempt later. Such crashes are counted apart, too: see
//! [`JobInitializer::crashes_max`].
//!
//! # Exactly once
//!
//! A run may happen more than once; there is no way around that for effects
//! outside of the database. Effects in the database happen exactly once if they
//! are written in the transaction that the run completes with
//! ([`JobCompletion::CompleteWithTx`]): it commits only if the lease is still
//! held.
//!
//! # Uniqueness
//!
//! [`JobSpawner::spawn_unique`] makes at most one job of a type, ever, however
//! many processes call it.
//!
//! # Time in tests
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use std::time::Duration;
//!
//! use job::{ArtificialClockConfig, ClockHandle, JobSvcConfig, Jobs};
//!
//! let (clock, controller) = ClockHandle::artificial(ArtificialClockConfig::manual());
//! let config = JobSvcConfig::memory().clock(clock.clone()).build()?;
//! let jobs = Jobs::init(config).await?;
//! let start = jobs.clock().now();
//! controller.advance(Duration::from_secs(60)).await;
//! assert_eq!(jobs.clock().now() - start, chrono::TimeDelta::seconds(60));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! A test that polls ([`Jobs::start_poll`]) on such a clock and awaits what only its
//! time brings, such as a message of a runner, is to await it through
//! [`ClockController::wait_for`]: where somebody forgot to advance the clock, it panics
//! and says who sleeps until when.
//!
//! With the feature `testing`, the module `testing` runs jobs by hand on such a clock, and
//! a process in which one is forgotten all the same ends with that message, after a
//! minute: see [`ClockController::set_patience`].
//!
//! # Features
//!
//! - `postgres` (default): the Postgres backend, on sqlx 0.8.
//! - `sqlite`: the SQLite backend, on sqlx 0.8.
//! - `es-entity-operations` (default): jobs can be spawned in any operation of es-entity 0.20.
//! - `es-entity`: runners can complete with an `es_entity::DbOp`, too.
//! - `tls` (default): connections to Postgres can be encrypted, by rustls with the roots of
//!   Mozilla. The guide `poolers` says how to choose another library, or other roots.
//! - `opentelemetry` (default): the trace context of a spawn becomes the parent
//!   of its first run, and each later one links to it ([`RunTraces`]); for opentelemetry
//!   0.33 and tracing-opentelemetry 0.34, and without effect beside other versions.
//! - `json-schema`: JSON schemas of the event types.
//! - `testing`: the module `testing`, for tests of applications.
//! - `tokio-task-names`: names the task of each run after its job; needs
//!   `--cfg tokio_unstable`.
//! - `sim`: lets a simulator kill a worker, and choose where it dies.
//! - `planted`: mistakes that can be switched on, to measure what a simulator
//!   finds. For no other use.
//! - `fail-on-warnings`: for building this crate with warnings as errors.

#![cfg_attr(feature = "fail-on-warnings", deny(warnings))]
#![cfg_attr(feature = "fail-on-warnings", deny(clippy::all))]

pub mod backend;
mod completion;
mod config;
mod core;
mod current;
pub mod error;
#[cfg(all(
    any(doc, doctest),
    feature = "postgres",
    feature = "sqlite",
    feature = "testing"
))]
pub mod guide;
mod hold;
mod id;
mod job;
mod job_type;
#[cfg(feature = "postgres")]
mod migrate;
mod readable;
mod record;
mod registry;
mod runner;
mod service;
mod signals;
mod spawn;
mod spawner;
mod spec;
mod start;
pub mod store;
mod task;
#[cfg(feature = "testing")]
pub mod testing;
mod trace;

#[cfg(feature = "sqlite")]
pub use backend::Sqlite;
pub use backend::{AnyBackend, Backend, Memory, Postgres};
pub use completion::{Ending, JobCompletion};
pub use config::{JobPollerConfig, JobSvcConfig, JobSvcConfigBuilder};
pub use current::CurrentJob;
pub use error::JobError;
pub use hold::RunGuard;
pub use id::JobId;
#[cfg(feature = "sim")]
#[doc(hidden)]
pub use id::simulated::set_ids;
pub use job::{HistoryCursor, Job, JobEvent, JobEventKind, JobHistory, JobState};
pub use job_engine::RetrySettings;
pub use job_tokio::{
    ArtificialClockConfig, ArtificialMode, Attended, BusyGuard, Clock, ClockController,
    ClockHandle, ClockId, ClockSleep, ClockTimeout, Elapsed, Participant, WorkerEnded,
};
pub use job_type::JobType;
#[cfg(feature = "postgres")]
pub use migrate::{IncludeMigrations, MIGRATOR};
pub use runner::{CRASHES_MAX_DEFAULT, JobInitializer, JobRunner, UNDECODABLE_MAX_DEFAULT};
pub use service::Jobs;
pub use spawn::{OrFind, Spawn, SpawnIn, Spawned};
pub use spawner::JobSpawner;
pub use spec::JobSpec;
/// Of the version whose pools and transactions this crate takes.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub use sqlx;
pub use task::{Task, TaskContext, TaskEnd, TaskError, TaskInitializer, TaskResult, TaskSettings};
pub use trace::RunTraces;

/// The programs of the README, compiled.
#[cfg(all(doctest, feature = "postgres", feature = "testing"))]
#[doc = include_str!("../../../README.md")]
struct Readme;
