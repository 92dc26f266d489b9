//! The waits of the drivers of an application.
//!
//! They hold time up only while there is something to do. While nothing is due, nobody is
//! at work and nothing is on its way, the drivers would look for jobs again and again and
//! find none: then they are woken when something happens, and time jumps there. So a week
//! in which nothing happens costs nothing.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use job_tokio::turn::Wait;
use tokio::sync::Notify;

use super::state::{State, World};
use crate::scenario::START;

/// The waits of all drivers, by when they end and in the order in which they began.
#[derive(Default)]
pub(crate) struct Timers {
    waits: BTreeMap<Key, Waker>,
    count: u64,
    changed: Arc<Notify>,
}

/// When it ends, in microseconds, and which it is.
type Key = (u64, u64);

impl Timers {
    /// Something happened: perhaps there is something to do now.
    pub(crate) fn look(&self) {
        self.changed.notify_one();
    }

    fn wake_due(&mut self, now_us: u64) {
        while let Some(first) = self.waits.first_entry()
            && first.key().0 <= now_us
        {
            first.remove().wake();
        }
    }
}

impl World {
    /// A wait of a driver, from now on.
    pub(crate) fn wait(&self, duration: Duration) -> Wait {
        // Timers of tokio end on whole milliseconds; so do these.
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let at_us = self.now_us().saturating_add(us);
        let at_us = at_us.div_ceil(1_000).saturating_mul(1_000);
        let (world, key) = {
            let mut state = self.state();
            state.timers.count += 1;
            (self.clone(), (at_us, state.timers.count))
        };
        Box::pin(async move {
            let mut waiting = Waiting { world, key };
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
    key: Key,
}

impl Waiting {
    fn poll(&mut self, task: &Waker) -> Poll<()> {
        let mut state = self.world.state();
        if state.now_us >= self.key.0 {
            return Poll::Ready(());
        }
        let new = state.timers.waits.insert(self.key, task.clone()).is_none();
        if new {
            state.timers.look();
        }
        Poll::Pending
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.world.state().timers.waits.remove(&self.key);
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
        // What is due already is not found before a driver looks.
        if due_us <= self.now_us {
            first_us
        } else {
            Some(due_us)
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
