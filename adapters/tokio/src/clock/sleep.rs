//! Sleeping on a clock.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use thiserror::Error;

use super::artificial::{ManualClock, SleeperId};

/// A sleep on a clock, from [`ClockHandle::sleep`](super::ClockHandle::sleep).
/// It may move between tasks; dropping it costs next to nothing.
#[must_use = "a sleep does nothing unless it is awaited"]
pub struct ClockSleep {
    kind: Kind,
}

enum Kind {
    Manual {
        clock: Arc<ManualClock>,
        id: SleeperId,
    },
    Boxed(BoxFuture<'static, ()>),
}

impl ClockSleep {
    pub(super) fn manual(clock: Arc<ManualClock>, duration: Duration) -> Self {
        let id = clock.add_sleeper(duration);
        Self {
            kind: Kind::Manual { clock, id },
        }
    }

    pub(super) fn tokio(duration: Duration) -> Self {
        Self::boxed(tokio::time::sleep(duration))
    }

    pub(super) fn boxed(sleep: impl Future<Output = ()> + Send + 'static) -> Self {
        Self {
            kind: Kind::Boxed(Box::pin(sleep)),
        }
    }
}

impl Future for ClockSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.kind {
            Kind::Manual { clock, id } if clock.poll_sleeper(*id, context.waker()) => {
                Poll::Ready(())
            }
            Kind::Manual { .. } => Poll::Pending,
            Kind::Boxed(sleep) => sleep.as_mut().poll(context),
        }
    }
}

impl Drop for ClockSleep {
    fn drop(&mut self) {
        if let Kind::Manual { clock, id } = &self.kind {
            clock.remove_sleeper(*id);
        }
    }
}

impl std::fmt::Debug for ClockSleep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClockSleep").finish_non_exhaustive()
    }
}

/// The time of a [`ClockTimeout`] was over first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the time is over")]
pub struct Elapsed;

/// A future with a time limit, from
/// [`ClockHandle::timeout`](super::ClockHandle::timeout).
#[must_use = "a timeout does nothing unless it is awaited"]
pub struct ClockTimeout<F> {
    future: Pin<Box<F>>,
    sleep: ClockSleep,
}

impl<F: Future> ClockTimeout<F> {
    pub(super) fn new(future: F, sleep: ClockSleep) -> Self {
        Self {
            future: Box::pin(future),
            sleep,
        }
    }
}

impl<F: Future> Future for ClockTimeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(output) = self.future.as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        let sleep = Pin::new(&mut self.sleep);
        sleep.poll(context).map(|()| Err(Elapsed))
    }
}

impl<F> std::fmt::Debug for ClockTimeout<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClockTimeout").finish_non_exhaustive()
    }
}
