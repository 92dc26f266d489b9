//! The two artificial clocks: one that is moved by hand, one that runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use job_engine::Timestamp;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::Instant;

/// How often a step of the clock lets other tasks run that it does not know.
const YIELDS: usize = 8;
/// How long a step of the clock waits, in real time, for the tasks that it
/// knows. It only matters if one of them waits for something else than the
/// clock, which nobody provides.
const PATIENCE: Duration = Duration::from_secs(10);

/// A clock that stands still until it is advanced.
#[derive(Debug)]
pub(super) struct ManualClock {
    state: Mutex<State>,
    /// Tasks that were woken and do not wait again yet, and guards.
    busy: AtomicUsize,
    idle: Notify,
    /// Held while the clock moves.
    moving: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    now: Timestamp,
    /// Counts the sleepers, which breaks ties.
    sleepers_ever: u64,
    sleepers: BTreeMap<SleeperId, Option<Waker>>,
    /// Woken, and not polled since.
    woken: BTreeSet<SleeperId>,
}

/// Sleepers wake in this order.
pub(super) type SleeperId = (Timestamp, u64);

impl ManualClock {
    pub(super) fn new(start_at: Timestamp) -> Self {
        Self {
            state: Mutex::new(State {
                now: start_at,
                sleepers_ever: 0,
                sleepers: BTreeMap::new(),
                woken: BTreeSet::new(),
            }),
            busy: AtomicUsize::new(0),
            idle: Notify::new(),
            moving: tokio::sync::Mutex::new(()),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.state().now
    }

    /// Adds a sleeper that sleeps for `duration` from now.
    pub(super) fn add_sleeper(&self, duration: Duration) -> SleeperId {
        let mut state = self.state();
        let wake_at = state.now.saturating_add(duration);
        state.sleepers_ever += 1;
        let id = (wake_at, state.sleepers_ever);
        // A sleep of no time has nothing to wait for.
        if wake_at > state.now {
            state.sleepers.insert(id, None);
        }
        id
    }

    /// Whether the sleeper has slept enough; otherwise keeps its waker.
    pub(super) fn poll_sleeper(&self, id: SleeperId, waker: &Waker) -> bool {
        let mut state = self.state();
        if let Some(kept) = state.sleepers.get_mut(&id) {
            match kept {
                Some(kept) => kept.clone_from(waker),
                None => *kept = Some(waker.clone()),
            }
            return false;
        }
        let was_woken = state.woken.remove(&id);
        drop(state);
        if was_woken {
            self.unbusy();
        }
        true
    }

    pub(super) fn remove_sleeper(&self, id: SleeperId) {
        let mut state = self.state();
        state.sleepers.remove(&id);
        let was_woken = state.woken.remove(&id);
        drop(state);
        if was_woken {
            self.unbusy();
        }
    }

    pub(super) fn sleepers(&self) -> usize {
        self.state().sleepers.len()
    }

    pub(super) fn next_wake(&self) -> Option<Timestamp> {
        let state = self.state();
        state.sleepers.keys().next().map(|(wake_at, _)| *wake_at)
    }

    /// Moves the clock forward to `target`, waking one sleeper after another,
    /// each at its own time. Returns how many.
    pub(super) async fn advance_to(&self, target: Timestamp) -> usize {
        let _moving = self.moving.lock().await;
        let mut woken = 0;
        self.settle().await;
        while self.wake_next(target) {
            woken += 1;
            self.settle().await;
        }
        let mut state = self.state();
        state.now = state.now.max(target);
        woken
    }

    /// Wakes the next sleeper up to `target`, and shows its time.
    fn wake_next(&self, target: Timestamp) -> bool {
        let mut state = self.state();
        let Some(entry) = state.sleepers.first_entry() else {
            return false;
        };
        let id = *entry.key();
        if id.0 > target {
            return false;
        }
        let waker = entry.remove();
        state.now = state.now.max(id.0);
        state.woken.insert(id);
        // Before the lock is let go: a poll may take the wake-up at once.
        self.make_busy();
        drop(state);
        match waker {
            Some(waker) => waker.wake(),
            // It was made and never awaited: nobody is there to be woken.
            None => self.forget_woken(id),
        }
        true
    }

    fn forget_woken(&self, id: SleeperId) {
        if self.state().woken.remove(&id) {
            self.unbusy();
        }
    }

    /// Waits until all that was woken waits again or is done.
    async fn settle(&self) {
        let mut waited = Duration::ZERO;
        loop {
            for _ in 0..YIELDS {
                yield_now().await;
            }
            if self.busy.load(Ordering::SeqCst) == 0 {
                return;
            }
            if waited >= PATIENCE {
                let busy = self.busy.load(Ordering::SeqCst);
                tracing::warn!(
                    busy,
                    "the artificial clock goes on although tasks that it woke are still at work"
                );
                return;
            }
            // A short limit, so that a paused runtime does not skip ahead by
            // much if all that is busy waits for real input.
            let step = Duration::from_millis(1);
            if tokio::time::timeout(step, self.idle.notified())
                .await
                .is_err()
            {
                waited += step;
            }
        }
    }

    pub(super) fn make_busy(&self) {
        self.busy.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn unbusy(&self) {
        if self.busy.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.idle.notify_waiters();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A clock that runs by itself, `time_scale` times as fast as real time.
#[derive(Debug)]
pub(super) struct AutoClock {
    start_at: Timestamp,
    epoch: Instant,
    time_scale: f64,
    /// How far it was advanced by hand.
    offset: Mutex<Duration>,
    advanced: Notify,
}

impl AutoClock {
    pub(super) fn new(start_at: Timestamp, time_scale: f64) -> Self {
        assert!(
            time_scale.is_finite() && time_scale > 0.0,
            "the time scale must be a positive, finite number, and is {time_scale}"
        );
        Self {
            start_at,
            epoch: Instant::now(),
            time_scale,
            offset: Mutex::new(Duration::ZERO),
            advanced: Notify::new(),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        let elapsed = self.epoch.elapsed().as_secs_f64() * self.time_scale;
        let elapsed = Duration::try_from_secs_f64(elapsed).unwrap_or(Duration::MAX);
        let offset = *self.offset.lock().unwrap_or_else(PoisonError::into_inner);
        self.start_at.saturating_add(elapsed).saturating_add(offset)
    }

    pub(super) fn advance(&self, duration: Duration) {
        let mut offset = self.offset.lock().unwrap_or_else(PoisonError::into_inner);
        *offset = offset.saturating_add(duration);
        drop(offset);
        self.advanced.notify_waiters();
    }

    pub(super) async fn sleep(self: Arc<Self>, duration: Duration) {
        let wake_at = self.now().saturating_add(duration);
        loop {
            let advanced = self.advanced.notified();
            let left = wake_at.saturating_since(self.now());
            if left.is_zero() {
                return;
            }
            let left = Duration::try_from_secs_f64(left.as_secs_f64() / self.time_scale);
            tokio::select! {
                biased;
                () = advanced => {}
                () = tokio::time::sleep(left.unwrap_or(Duration::MAX)) => {}
            }
        }
    }
}
