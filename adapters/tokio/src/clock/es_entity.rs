//! Following a manual clock of es-entity.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use chrono::{DateTime, Utc};
use es_entity::clock::ClockHandle as EsClock;

use super::{ClockHandle, Kind};
use crate::time::{is_reached, later};

/// The real time of es-entity is ours; a manual clock of es-entity is followed:
/// its controller moves ours.
///
/// That clock counts whole milliseconds and does not wait for what it woke:
/// [`ClockHandle::busy`] and [`ClockHandle::participate`] do nothing on it.
impl From<EsClock> for ClockHandle {
    fn from(clock: EsClock) -> Self {
        if clock.is_manual() {
            let kind = Kind::EsEntity(clock);
            Self { kind }
        } else {
            Self::realtime()
        }
    }
}

/// A sleep on a manual clock of es-entity.
pub(super) struct EsEntitySleep {
    clock: EsClock,
    /// `None` if it never ends.
    wake_at: Option<DateTime<Utc>>,
    /// Keeps the first waker that it sees; so whoever polls next gets a new one.
    sleep: Option<(Pin<Box<es_entity::clock::ClockSleep>>, Waker)>,
}

impl EsEntitySleep {
    pub(super) fn new(clock: EsClock, duration: Duration) -> Self {
        let wake_at = later(clock.now(), duration);
        Self {
            clock,
            wake_at,
            sleep: None,
        }
    }

    pub(super) fn until(clock: EsClock, deadline: DateTime<Utc>) -> Self {
        Self {
            clock,
            wake_at: is_reached(deadline).then_some(deadline),
            sleep: None,
        }
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(wake_at) = self.wake_at else {
            return Poll::Pending;
        };
        loop {
            let left = (wake_at - self.clock.now())
                .to_std()
                .unwrap_or(Duration::ZERO);
            if left.is_zero() {
                self.sleep = None;
                return Poll::Ready(());
            }
            let waker = context.waker();
            let sleep = match &mut self.sleep {
                Some((sleep, seen)) if seen.will_wake(waker) => sleep,
                other => {
                    // It drops fractions of a millisecond, and would end early.
                    let left = Duration::from_millis(whole_millis(left));
                    let sleep = Box::pin(self.clock.sleep(left));
                    &mut other.insert((sleep, waker.clone())).0
                }
            };
            ready!(sleep.as_mut().poll(context));
            self.sleep = None;
        }
    }
}

fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

impl fmt::Debug for EsEntitySleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wake_at = &self.wake_at;
        f.debug_struct("EsEntitySleep")
            .field("wake_at", wake_at)
            .finish_non_exhaustive()
    }
}
