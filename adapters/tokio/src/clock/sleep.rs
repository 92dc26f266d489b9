//! Sleeping on a clock.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::auto::AutoSleep;
use super::manual::ManualSleep;
use super::realtime::TokioSleep;

/// A sleep on a clock; from [`ClockHandle::sleep`](super::ClockHandle::sleep).
///
/// Its time runs from when it was made, not from when it is first polled. It may
/// move between tasks: the one that polled last is woken. Dropping it cancels
/// it, which on an artificial clock takes O(log n) of the sleepers.
///
/// # Panics
///
/// When it is polled outside of a tokio runtime with timers, on a clock that
/// follows real time or that of tokio, or that runs by itself. A manual clock
/// needs no runtime.
#[derive(Debug)]
#[must_use = "a sleep does nothing unless it is awaited"]
pub struct ClockSleep {
    kind: SleepKind,
}

#[derive(Debug)]
pub(super) enum SleepKind {
    Tokio(TokioSleep),
    Manual(ManualSleep),
    Auto(AutoSleep),
    #[cfg(feature = "es-entity")]
    EsEntity(super::es_entity::EsEntitySleep),
    /// Polled to its end.
    Over,
}

impl ClockSleep {
    pub(super) fn new(kind: SleepKind) -> Self {
        Self { kind }
    }
}

impl Future for ClockSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        ready!(match &mut self.kind {
            SleepKind::Tokio(sleep) => sleep.poll(context),
            SleepKind::Manual(sleep) => sleep.poll(context),
            SleepKind::Auto(sleep) => sleep.poll(context),
            #[cfg(feature = "es-entity")]
            SleepKind::EsEntity(sleep) => sleep.poll(context),
            SleepKind::Over => Poll::Ready(()),
        });
        self.kind = SleepKind::Over;
        Poll::Ready(())
    }
}
