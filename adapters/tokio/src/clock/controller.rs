//! What moves an artificial clock.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{ClockHandle, Kind};
use crate::time::{to_datetime, to_timestamp};

/// How an artificial clock starts and runs.
#[derive(Clone, Debug)]
pub struct ArtificialClockConfig {
    /// What it shows first.
    pub start_at: DateTime<Utc>,
    /// How it goes on.
    pub mode: ArtificialMode,
}

/// How an artificial clock goes on.
#[derive(Clone, Debug, PartialEq)]
pub enum ArtificialMode {
    /// Only by its controller.
    Manual,
    /// By itself.
    AutoAdvance {
        /// Seconds of artificial time for each second of real time; positive
        /// and finite.
        time_scale: f64,
    },
}

impl ArtificialClockConfig {
    /// A clock that is moved by hand and starts at the time of the machine.
    pub fn manual() -> Self {
        Self::manual_at(ClockHandle::realtime().now())
    }

    /// A clock that is moved by hand and starts at `start_at`.
    pub fn manual_at(start_at: DateTime<Utc>) -> Self {
        Self {
            start_at,
            mode: ArtificialMode::Manual,
        }
    }

    /// A clock that runs `time_scale` times as fast as real time and starts at
    /// the time of the machine.
    pub fn auto(time_scale: f64) -> Self {
        Self::auto_at(ClockHandle::realtime().now(), time_scale)
    }

    /// A clock that runs `time_scale` times as fast as real time and starts at
    /// `start_at`.
    pub fn auto_at(start_at: DateTime<Utc>, time_scale: f64) -> Self {
        Self {
            start_at,
            mode: ArtificialMode::AutoAdvance { time_scale },
        }
    }
}

/// Moves an artificial clock. Cheap to clone; clones move the same clock.
#[derive(Clone, Debug)]
pub struct ClockController {
    handle: ClockHandle,
}

impl ClockController {
    pub(super) fn new(handle: ClockHandle) -> Self {
        Self { handle }
    }

    /// Moves the clock forward by `duration`. Returns how many sleepers woke.
    ///
    /// A manual clock wakes its sleepers one after another in the order of their
    /// times, ties in the order in which they went to sleep, and each sees its
    /// own time. Between two of them, and before it returns, it waits until all
    /// that it woke waits again or is done.
    ///
    /// An automatic clock jumps, wakes whoever has slept enough, and returns 0.
    pub async fn advance(&self, duration: Duration) -> usize {
        match &self.handle.kind {
            Kind::Manual(clock) => {
                let target = clock.now().saturating_add(duration);
                clock.advance_to(target).await
            }
            Kind::Auto(clock) => {
                clock.advance(duration);
                0
            }
            _ => 0,
        }
    }

    /// Moves a manual clock to the time of its next sleeper. Returns that time;
    /// `None` if nobody sleeps, and for an automatic clock.
    pub async fn advance_to_next_wake(&self) -> Option<DateTime<Utc>> {
        let Kind::Manual(clock) = &self.handle.kind else {
            return None;
        };
        let wake_at = clock.next_wake()?;
        clock.advance_to(wake_at).await;
        Some(to_datetime(wake_at))
    }

    /// Moves a manual clock forward to `time`, waking whoever sleeps until
    /// then. A time in its past does nothing.
    pub async fn set_time(&self, time: DateTime<Utc>) -> usize {
        match &self.handle.kind {
            Kind::Manual(clock) => clock.advance_to(to_timestamp(time)).await,
            _ => {
                let ahead = (time - self.now()).to_std();
                self.advance(ahead.unwrap_or(Duration::ZERO)).await
            }
        }
    }

    /// How many sleepers a manual clock has.
    pub fn pending_wake_count(&self) -> usize {
        match &self.handle.kind {
            Kind::Manual(clock) => clock.sleepers(),
            _ => 0,
        }
    }

    /// When the next sleeper of a manual clock wakes.
    pub fn next_wake(&self) -> Option<DateTime<Utc>> {
        match &self.handle.kind {
            Kind::Manual(clock) => clock.next_wake().map(to_datetime),
            _ => None,
        }
    }

    /// The time that the clock shows.
    pub fn now(&self) -> DateTime<Utc> {
        self.handle.now()
    }
}
