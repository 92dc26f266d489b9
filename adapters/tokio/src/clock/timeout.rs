//! Time limits.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use thiserror::Error;

use super::ClockSleep;

/// The time limit of a [`ClockTimeout`] was reached first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the time limit was reached")]
pub struct Elapsed;

/// A future with a time limit; from
/// [`ClockHandle::timeout`](super::ClockHandle::timeout).
///
/// The future is asked first: if it is done when the limit is reached, its
/// output counts. Whichever comes first, both are dropped then.
///
/// # Panics
///
/// When it is polled after its end, and where [`ClockSleep`] does.
#[must_use = "a timeout does nothing unless it is awaited"]
pub struct ClockTimeout<F> {
    waiting: Option<(Pin<Box<F>>, ClockSleep)>,
}

impl<F: Future> ClockTimeout<F> {
    pub(super) fn new(future: F, sleep: ClockSleep) -> Self {
        Self {
            waiting: Some((Box::pin(future), sleep)),
        }
    }
}

impl<F: Future> Future for ClockTimeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let waiting = self.waiting.as_mut();
        let (future, sleep) = waiting.expect("a timeout is not polled after its end");
        let polled = match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => Pin::new(sleep).poll(context).map(|()| Err(Elapsed)),
        };
        if polled.is_ready() {
            self.waiting = None;
        }
        polled
    }
}

impl<F> fmt::Debug for ClockTimeout<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClockTimeout").finish_non_exhaustive()
    }
}
