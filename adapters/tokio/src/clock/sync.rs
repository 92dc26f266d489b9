//! What threads share a manual clock by.
//!
//! The models of `tests/loom` build the files that use this with a `sync` of their own,
//! in which loom decides who runs when.

pub(super) use std::sync::{Mutex, MutexGuard};
pub(super) use std::thread::{self, ThreadId};
pub(super) use std::thread_local;

pub(super) use tokio::sync::{Mutex as Turns, Notify};
pub(super) use tokio::task::yield_now;
