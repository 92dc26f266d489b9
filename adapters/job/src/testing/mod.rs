//! Tests of applications: jobs that run when a test says so, on a clock that it moves.
//!
//! [`TestJobs`] is a service without a worker. [`TestJobs::drain`] runs all jobs that
//! are due, and what they lead to, one after the other and in the test's own task, by
//! the decisions of the same engine that runs in production. [`TestJobs::advance`]
//! lets time pass, with all that becomes due meanwhile, and with the sleeps of runners.
//! What there is to assert is in [`Seen`].
//!
//! ```
//! use std::error::Error;
//! use std::time::Duration;
//!
//! use async_trait::async_trait;
//! use job::testing::TestJobs;
//! use job::{Backend, CurrentJob, Job, JobCompletion, JobId, JobInitializer, JobRunner};
//! use job::{JobSpawner, JobType};
//!
//! /// Fails at the first attempt.
//! struct Report;
//!
//! #[async_trait]
//! impl<B: Backend> JobRunner<B> for Report {
//!     async fn run(&self, job: CurrentJob<B>) -> Result<JobCompletion<B>, Box<dyn Error>> {
//!         match job.attempt() {
//!             1 => Err("the mail server is down".into()),
//!             _ => Ok(JobCompletion::Complete),
//!         }
//!     }
//! }
//!
//! impl<B: Backend> JobInitializer<B> for Report {
//!     type Config = u32;
//!     fn job_type(&self) -> JobType {
//!         JobType::new("report")
//!     }
//!     fn init(
//!         &self,
//!         _: &Job,
//!         _: JobSpawner<u32, B>,
//!     ) -> Result<Box<dyn JobRunner<B>>, Box<dyn Error>> {
//!         Ok(Box::new(Report))
//!     }
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let mut test = TestJobs::memory().await;
//! let reports = test.add_initializer(Report);
//! let id = JobId::new();
//! reports.spawn(id, 2026).await?;
//!
//! test.drain().await;
//! test.seen().await.assert_failed_with(id, "mail server");
//!
//! test.advance(Duration::from_secs(60)).await;
//! test.seen().await.assert_completed(id);
//! # Ok::<(), job::JobError>(())
//! # }).unwrap();
//! ```
//!
//! [`guide`] has whole programs with their tests.
//!
//! # Which database
//!
//! - [`TestJobs::memory`] needs none, and each test has its own.
//! - `TestJobs::postgres` takes a schema of its own in a database, so that tests may
//!   run side by side.
//! - [`TestJobs::open`] takes any configuration: that of a database which a test
//!   framework made, or a file of SQLite. No other test may use its tables meanwhile:
//!   a second clock on them is refused.
//!
//! Code that spawns in a transaction can be tested in one that is never committed:
//! [`TestJobs::seen_in`] looks at the jobs from within. They run only once it is
//! committed.
//!
//! # With a service that polls
//!
//! A test may also start a service as production does ([`Jobs::start_poll`]), on a clock
//! from [`ClockHandle::manual`]. It moves the clock by its controller, and awaits through
//! [`ClockController::wait_for`] what comes of that:
//!
//! ```
//! # use std::error::Error;
//! # use std::time::Duration;
//! #
//! # use async_trait::async_trait;
//! # use job::{Backend, ClockHandle, CurrentJob, Job, JobCompletion, JobId, JobInitializer};
//! # use job::{JobRunner, JobSpawner, JobSvcConfig, JobType, Jobs};
//! # use tokio::sync::mpsc::{self, UnboundedSender};
//! #
//! # struct Report(UnboundedSender<u32>);
//! #
//! # #[async_trait]
//! # impl<B: Backend> JobRunner<B> for Report {
//! #     async fn run(&self, job: CurrentJob<B>) -> Result<JobCompletion<B>, Box<dyn Error>> {
//! #         self.0.send(job.attempt())?;
//! #         Ok(JobCompletion::Complete)
//! #     }
//! # }
//! #
//! # impl<B: Backend> JobInitializer<B> for Report {
//! #     type Config = u32;
//! #     fn job_type(&self) -> JobType {
//! #         JobType::new("report")
//! #     }
//! #     fn init(
//! #         &self,
//! #         _: &Job,
//! #         _: JobSpawner<u32, B>,
//! #     ) -> Result<Box<dyn JobRunner<B>>, Box<dyn Error>> {
//! #         Ok(Box::new(Report(self.0.clone())))
//! #     }
//! # }
//! #
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let (clock, controller) = ClockHandle::manual();
//! let mut jobs = Jobs::init(JobSvcConfig::memory().clock(clock.clone()).build()?).await?;
//! // Its runner sends to the test at which attempt it ran.
//! let (sender, mut runs) = mpsc::unbounded_channel();
//! let reports = jobs.add_initializer(Report(sender));
//! jobs.start_poll().await?;
//!
//! let tomorrow = clock.now() + chrono::TimeDelta::days(1);
//! reports.spawn_at(JobId::new(), 2026, tomorrow).await?;
//! controller.advance(Duration::from_secs(24 * 3_600)).await;
//! assert_eq!(controller.wait_for(runs.recv()).await, Some(1));
//! # Ok::<(), Box<dyn Error>>(())
//! # }).unwrap();
//! ```
//!
//! Without `advance`, that panics after 10 s and says who sleeps until when. A test that
//! awaits otherwise would hang; so a process in which a clock is forgotten for a minute
//! ends with that message, unless [`ClockController::set_patience`] says otherwise.
//!
//! [`Jobs::start_poll`]: crate::Jobs::start_poll
//! [`ClockHandle::manual`]: crate::ClockHandle::manual
//! [`ClockController::wait_for`]: crate::ClockController::wait_for
//! [`ClockController::set_patience`]: crate::ClockController::set_patience
//!
//! # What it is not
//!
//! Jobs run one at a time, others at most while a runner sleeps on the clock, and nothing
//! fails but the runners themselves. How workers that run side by side get on with
//! crashes and lost messages is for a simulation: the crate `job-sim` runs the same
//! runners in one.

pub mod guide;
mod hand;
mod perform;
#[cfg(feature = "postgres")]
mod postgres;
mod seen;
mod service;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod spawned;
mod watch;

pub use perform::Performance;
pub use seen::Seen;
pub use service::TestJobs;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub use spawned::{SpawnedOn, spawned};
