//! What the tests share.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use job_tokio::{ClockController, ClockHandle};
use tokio::runtime::{Builder, Runtime};

pub(crate) fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// The time at which manual clocks start here.
pub(crate) fn start() -> DateTime<Utc> {
    DateTime::from_timestamp(1_000_000, 0).unwrap()
}

pub(crate) fn after(secs: i64) -> DateTime<Utc> {
    start() + TimeDelta::seconds(secs)
}

pub(crate) fn manual() -> (ClockHandle, ClockController) {
    ClockHandle::manual_at(start())
}

pub(crate) fn one_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

pub(crate) fn two_threads() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// Runs a test on a runtime of one thread and on one of two.
pub(crate) fn on_each_runtime<F: Future<Output = ()>>(test: impl Fn() -> F) {
    one_thread().block_on(test());
    two_threads().block_on(test());
}

/// Polls a future once, in the task that asks.
pub(crate) async fn poll<F: Future + Unpin>(mut future: F) -> Poll<F::Output> {
    poll_fn(|context| Poll::Ready(Pin::new(&mut future).poll(context))).await
}

/// What happened, in order.
#[derive(Clone, Default)]
pub(crate) struct Log<T>(Arc<Mutex<Vec<T>>>);

impl<T> Log<T> {
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }

    pub(crate) fn push(&self, entry: T) {
        self.0.lock().unwrap().push(entry);
    }

    pub(crate) fn take(&self) -> Vec<T> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}
