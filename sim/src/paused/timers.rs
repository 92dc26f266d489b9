//! The waits of the drivers of an application.
//!
//! They hold time up only while there is something to do. While nothing is due, nobody is
//! at work and nothing is on its way, the drivers that rest would look for jobs again and
//! again and find none: then they are left alone until something happens, and time jumps
//! there. So a week in which nothing happens costs nothing.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use job_tokio::turn::Wait;
use tokio::sync::Notify;

use super::state::{State, World};
use crate::scenario::START;

/// The waits of all drivers that rest, by when they end and in the order in which they
/// began.
#[derive(Default)]
pub(crate) struct Timers {
    waits: BTreeMap<Key, Waiter>,
    /// When each of them ends.
    ends_us: BTreeMap<u64, u64>,
    count: u64,
    changed: Arc<Notify>,
}

/// A wait that ends later than that was passed over, in microseconds.
const LATE_US: u64 = 1_000;

/// When it ends, in microseconds, and which it is.
type Key = (u64, u64);

struct Waiter {
    task: Waker,
    /// How often its driver looks, in microseconds.
    period_us: u64,
}

impl Timers {
    /// Something happened: perhaps there is something to do now.
    pub(crate) fn look(&self) {
        self.changed.notify_one();
    }

    fn wake_due(&mut self, now_us: u64) {
        while let Some(first) = self.waits.first_entry()
            && first.key().0 <= now_us
        {
            let ((at_us, number), waiter) = first.remove_entry();
            let late_us = now_us - at_us;
            if late_us <= LATE_US {
                self.ends_us.remove(&number);
                waiter.task.wake();
                continue;
            }
            // It was passed over, and would have looked in between: the next time is when
            // it would have come to it.
            let periods = late_us.div_ceil(waiter.period_us);
            let next_us = at_us + periods * waiter.period_us;
            self.ends_us.insert(number, next_us);
            self.waits.insert((next_us, number), waiter);
        }
    }
}

impl World {
    /// A wait of a driver, from now on, that looks for jobs once in each period.
    pub(crate) fn wait(&self, duration: Duration, period: Duration) -> Wait {
        // Timers of tokio end on whole milliseconds; so do these.
        let us = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let at_us = self.now_us().saturating_add(us(duration));
        let at_us = at_us.div_ceil(1_000).saturating_mul(1_000);
        let period_us = us(period).div_ceil(1_000).saturating_mul(1_000).max(1_000);
        let number = {
            let mut state = self.state();
            state.timers.count += 1;
            state.timers.count
        };
        let world = self.clone();
        Box::pin(async move {
            let mut waiting = Waiting {
                world,
                number,
                begins_with: Some((at_us, period_us)),
            };
            poll_fn(|cx| waiting.poll(cx.waker())).await;
        })
    }

    /// Wakes the drivers when it is time, for ever.
    pub(crate) async fn wake_drivers(&self) {
        let changed = Arc::clone(&self.state().timers.changed);
        loop {
            let next_us = {
                let mut state = self.state();
                let now_us = state.now_us;
                state.timers.wake_due(now_us);
                state.next_wake_us()
            };
            match next_us {
                Some(at_us) => tokio::select! {
                    biased;
                    () = self.sleep_until(at_us) => {}
                    () = changed.notified() => {}
                },
                None => changed.notified().await,
            }
        }
    }
}

struct Waiting {
    world: World,
    number: u64,
    /// When it ends, and its period, before it is first polled.
    begins_with: Option<(u64, u64)>,
}

impl Waiting {
    fn poll(&mut self, task: &Waker) -> Poll<()> {
        let mut state = self.world.state();
        let now_us = state.now_us;
        let timers = &mut state.timers;
        let task = task.clone();
        if let Some((at_us, period_us)) = self.begins_with.take() {
            if at_us <= now_us {
                return Poll::Ready(());
            }
            timers.ends_us.insert(self.number, at_us);
            timers
                .waits
                .insert((at_us, self.number), Waiter { task, period_us });
            timers.look();
            return Poll::Pending;
        }
        let Some(at_us) = timers.ends_us.get(&self.number) else {
            return Poll::Ready(());
        };
        if let Some(waiter) = timers.waits.get_mut(&(*at_us, self.number)) {
            waiter.task = task;
        }
        Poll::Pending
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let timers = &mut self.world.state().timers;
        if let Some(at_us) = timers.ends_us.remove(&self.number) {
            timers.waits.remove(&(at_us, self.number));
        }
    }
}

impl State {
    /// When the drivers have to be looked at again.
    fn next_wake_us(&self) -> Option<u64> {
        let first_us = self.timers.waits.keys().next().map(|(at_us, _)| *at_us);
        if !self.is_quiet() {
            return first_us;
        }
        let due_at = self.model.first_due()?;
        let due_us = due_at.as_micros() - START.as_micros() - self.store_ahead_us;
        let due_us = u64::try_from(due_us).unwrap_or(0);
        // The last look before it tells a driver when that is; what is due already is not
        // found before a driver looks.
        let periods = self.timers.waits.values().map(|waiter| waiter.period_us);
        let looks_us = due_us.saturating_sub(periods.max().unwrap_or(0));
        if looks_us <= self.now_us {
            first_us
        } else {
            Some(looks_us)
        }
    }

    /// Whether nobody is at work, and nothing is on its way.
    pub(crate) fn is_quiet(&self) -> bool {
        self.executing.is_empty()
            && self.waiters.is_empty()
            && self.blocked.is_empty()
            && self.wire.is_empty()
            && !self.model.any_is_claimed()
    }
}
