//! What threads share a manual clock by, under the control of loom.
//!
//! The parts of tokio are the real ones, and taken to be right: each of their operations
//! is one step. What is checked is the order of these steps and of ours.

use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll};

use loom::sync::atomic::{AtomicUsize, Ordering};

pub(super) use loom::sync::{Mutex, MutexGuard};
pub(super) use loom::thread::{self, ThreadId};

macro_rules! thread_local_of_loom {
    ($(#[$attr:meta])* static $name:ident: $type:ty = const { $init:expr };) => {
        loom::thread_local! { $(#[$attr])* static $name: $type = $init; }
    };
}
pub(super) use thread_local_of_loom as thread_local;

/// There is no runtime to yield to.
pub(super) async fn yield_now() {}

/// Where loom may let another thread run, because what comes next concerns others.
#[derive(Debug)]
struct Step(AtomicUsize);

impl Step {
    fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    fn take(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[derive(Debug)]
pub(super) struct Notify {
    inner: tokio::sync::Notify,
    step: Step,
}

impl Notify {
    pub(super) fn new() -> Self {
        Self {
            inner: tokio::sync::Notify::new(),
            step: Step::new(),
        }
    }

    pub(super) fn notify_waiters(&self) {
        self.step.take();
        self.inner.notify_waiters();
    }

    pub(super) fn notified(&self) -> Notified<'_> {
        self.step.take();
        Notified {
            inner: Box::pin(self.inner.notified()),
            step: &self.step,
        }
    }
}

pub(super) struct Notified<'a> {
    inner: Pin<Box<tokio::sync::futures::Notified<'a>>>,
    step: &'a Step,
}

impl Notified<'_> {
    pub(super) fn enable(mut self: Pin<&mut Self>) -> bool {
        self.step.take();
        self.inner.as_mut().enable()
    }
}

impl Future for Notified<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.step.take();
        self.inner.as_mut().poll(context)
    }
}

#[derive(Debug)]
pub(super) struct Turns<T> {
    inner: tokio::sync::Mutex<T>,
    step: Step,
}

impl<T> Turns<T> {
    pub(super) fn new(value: T) -> Self {
        Self {
            inner: tokio::sync::Mutex::new(value),
            step: Step::new(),
        }
    }

    pub(super) async fn lock(&self) -> Turn<'_, T> {
        self.step.take();
        Turn {
            inner: Some(self.inner.lock().await),
            step: &self.step,
        }
    }
}

pub(super) struct Turn<'a, T> {
    inner: Option<tokio::sync::MutexGuard<'a, T>>,
    step: &'a Step,
}

impl<T> Deref for Turn<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.inner.as_ref().expect("it is held until the drop")
    }
}

impl<T> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        self.step.take();
        self.inner = None;
    }
}
