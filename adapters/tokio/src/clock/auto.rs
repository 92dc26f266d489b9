//! The artificial clock that runs by itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::id::ClockId;
use super::realtime::Timer;
use super::sleepers::{Sleeper, SleeperId, Sleepers};
use crate::time::{clamp, is_reached, later};

/// A timer for less would be over at once, and nothing would have passed.
const TIMER_MIN: Duration = Duration::from_micros(1);

/// A clock that runs `time_scale` times as fast as real time, and can be moved
/// forward in addition.
#[derive(Debug)]
pub(super) struct AutoClock {
    id: ClockId,
    start_at: DateTime<Utc>,
    epoch: Instant,
    time_scale: f64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// How far it was moved.
    moved: Duration,
    sleepers: Sleepers<()>,
}

impl AutoClock {
    /// # Panics
    ///
    /// If `time_scale` is not a positive, finite number.
    pub(super) fn new(start_at: DateTime<Utc>, time_scale: f64) -> Self {
        assert!(
            time_scale.is_finite() && time_scale > 0.0,
            "the time scale of a clock must be a positive, finite number, and is {time_scale}"
        );
        Self {
            id: ClockId::draw(),
            start_at: clamp(start_at),
            epoch: Instant::now(),
            time_scale,
            state: Mutex::new(State {
                moved: Duration::ZERO,
                sleepers: Sleepers::new(),
            }),
        }
    }

    pub(super) fn id(&self) -> ClockId {
        self.id
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        self.now_in(&self.state())
    }

    fn now_in(&self, state: &State) -> DateTime<Utc> {
        let real = self.epoch.elapsed().as_secs_f64();
        let passed = Duration::try_from_secs_f64(real * self.time_scale);
        let passed = passed.unwrap_or(Duration::MAX).saturating_add(state.moved);
        later(self.start_at, passed).unwrap_or(clamp(DateTime::<Utc>::MAX_UTC))
    }

    pub(super) fn pending_wakes(&self) -> usize {
        self.state().sleepers.count()
    }

    pub(super) fn next_wake(&self) -> Option<DateTime<Utc>> {
        self.state().sleepers.next_wake()
    }

    /// Moves the clock forward by `duration`. Returns how many it woke.
    pub(super) fn advance(&self, duration: Duration) -> usize {
        self.advance_in(self.state(), duration)
    }

    /// Moves the clock forward to `target`. Returns how many it woke; `None` if
    /// `target` is in the past.
    pub(super) fn advance_to(&self, target: DateTime<Utc>) -> Option<usize> {
        let state = self.state();
        let ahead = (target - self.now_in(&state)).to_std().ok()?;
        Some(self.advance_in(state, ahead))
    }

    /// Moves the clock to the next wake-up, and wakes all that sleep until then.
    pub(super) fn advance_to_next_wake(&self) -> Option<DateTime<Utc>> {
        let state = self.state();
        let target = state.sleepers.next_wake()?;
        let ahead = (target - self.now_in(&state)).to_std();
        self.advance_in(state, ahead.unwrap_or(Duration::ZERO));
        Some(target)
    }

    fn advance_in(&self, mut state: MutexGuard<'_, State>, duration: Duration) -> usize {
        state.moved = state.moved.saturating_add(duration);
        let now = self.now_in(&state);
        let mut woken = Vec::new();
        while let Some((_, sleeper)) = state.sleepers.pop_due(now) {
            woken.extend(sleeper);
        }
        drop(state);
        let count = woken.len();
        woken.into_iter().for_each(|sleeper| sleeper.waker.wake());
        count
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A sleep on a clock that runs by itself.
#[derive(Debug)]
pub(super) struct AutoSleep {
    clock: Arc<AutoClock>,
    /// `None` if it never ends.
    id: Option<SleeperId>,
    timer: Timer,
}

impl AutoSleep {
    pub(super) fn new(clock: Arc<AutoClock>, duration: Duration) -> Self {
        let mut state = clock.state();
        let now = clock.now_in(&state);
        let id = later(now, duration).map(|wake_at| state.sleepers.add(now, wake_at));
        drop(state);
        let timer = Timer::default();
        Self { clock, id, timer }
    }

    pub(super) fn until(clock: Arc<AutoClock>, deadline: DateTime<Utc>) -> Self {
        let mut state = clock.state();
        let now = clock.now_in(&state);
        let id = is_reached(deadline).then(|| state.sleepers.add(now, deadline));
        drop(state);
        let timer = Timer::default();
        Self { clock, id, timer }
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(id) = self.id else {
            return Poll::Pending;
        };
        while let Some(left) = self.park(id, context) {
            // Out of reach in real time; then only the controller ends it.
            let Some(deadline) = Instant::now().checked_add(left) else {
                return Poll::Pending;
            };
            ready!(self.timer.poll_until(deadline, context));
        }
        Poll::Ready(())
    }

    /// Waits among the sleepers; returns how much real time is left, `None` if
    /// the sleep is over.
    fn park(&self, id: SleeperId, context: &Context<'_>) -> Option<Duration> {
        let waker = context.waker().clone();
        let mut state = self.clock.state();
        let now = self.clock.now_in(&state);
        if now >= id.0 {
            let awaiter = state.sleepers.remove(id);
            drop(state);
            drop(awaiter);
            return None;
        }
        let before = state.sleepers.park(id, Sleeper { waker, note: () });
        drop(state);
        drop(before);
        let left = (id.0 - now).to_std().unwrap_or(Duration::ZERO);
        let real = Duration::try_from_secs_f64(left.as_secs_f64() / self.clock.time_scale);
        Some(real.unwrap_or(Duration::MAX).max(TIMER_MIN))
    }
}

impl Drop for AutoSleep {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let awaiter = self.clock.state().sleepers.remove(id);
            drop(awaiter);
        }
    }
}
