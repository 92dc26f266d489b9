//! Guides: how to do what most applications need.
//!
//! | | |
//! |---|---|
//! | [`start`] | the first job, and what happens to it |
//! | [`transactions`] | jobs that come and go with what you write |
//! | [`repeatable`] | runs that can happen twice without harm |
//! | [`retries`] | errors, crashes, and how long it goes on |
//! | [`uniqueness`] | one job, and not two |
//! | [`deploys`] | stopping, starting, old and new versions side by side |
//! | [`testing`](mod@testing) | tests of tasks, and of what spawns them |
//! | [`time`] | tests in which weeks pass |
//! | [`simulation`] | what many workers, crashes and partitions do to your jobs |
//! | [`operating`] | connections, logs, growth, numbers to know |
//! | [`poolers`] | roles, pools, PgBouncer, migrations of yours |
//! | [`troubleshooting`] | symptom, cause, what to do |
//! | [`coming_from`] | Sidekiq, Oban, River, apalis, graphile, the `job` crate |
//! | [`guarantees`] | what holds, and why |

#[doc = include_str!("start.md")]
pub mod start {}

#[doc = include_str!("transactions.md")]
pub mod transactions {}

#[doc = include_str!("repeatable.md")]
pub mod repeatable {}

#[doc = include_str!("retries.md")]
pub mod retries {}

#[doc = include_str!("uniqueness.md")]
pub mod uniqueness {}

#[doc = include_str!("deploys.md")]
pub mod deploys {}

#[doc = include_str!("testing.md")]
pub mod testing {}

#[doc = include_str!("time.md")]
pub mod time {}

#[doc = include_str!("simulation.md")]
///
/// ```rs
#[doc = include_str!("../../../../examples/simulation.rs")]
/// ```
pub mod simulation {}

#[doc = include_str!("operating.md")]
pub mod operating {}

#[doc = include_str!("poolers.md")]
pub mod poolers {}

#[doc = include_str!("troubleshooting.md")]
pub mod troubleshooting {}

#[doc = include_str!("coming_from.md")]
pub mod coming_from {}

#[doc = include_str!("guarantees.md")]
pub mod guarantees {}
