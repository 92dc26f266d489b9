//! Worked examples: programs of the repository, with their tests.
//!
//! # Backoff over a weekend
//!
//! A report cannot be sent from Friday night until Monday. The test lets the days pass
//! and looks at what became of the job.
//!
#![doc = "```no_run"]
#![doc = include_str!("../../../../examples/nightly_report.rs")]
#![doc = "```"]
//!
//! # A rule of uniqueness, as a property
//!
//! An id that is made of what a job is about makes it unique. The test asks for invoices
//! in any order that `proptest` can think of.
//!
#![doc = "```no_run"]
#![doc = include_str!("../../../../examples/invoice_once.rs")]
#![doc = "```"]
//!
//! # Many workers, and what befalls them
//!
//! The guide of `job-sim` has two more: a payment that is captured once, whatever happens
//! to the processes, and simulations in CI.
