//! How an artificial clock starts and goes on.

use chrono::{DateTime, Utc};

use super::realtime::wall_time;
use crate::time::{to_datetime, to_timestamp};

/// How an artificial clock starts and goes on; for
/// [`ClockHandle::artificial`](super::ClockHandle::artificial).
#[derive(Clone, Debug, PartialEq)]
pub struct ArtificialClockConfig {
    /// What it shows first; moved into the years 1 to 9999.
    pub start_at: DateTime<Utc>,
    /// How it goes on.
    pub mode: ArtificialMode,
}

/// How an artificial clock goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ArtificialMode {
    /// Only when its controller moves it.
    Manual,
    /// By itself, and when its controller moves it.
    AutoAdvance {
        /// Seconds of artificial time for each second of real time: positive and
        /// finite.
        time_scale: f64,
    },
}

impl ArtificialClockConfig {
    /// A clock that only its controller moves. It starts at the real time, in
    /// whole microseconds: databases keep no more, so times compare equal after
    /// a round trip.
    pub fn manual() -> Self {
        Self::manual_at(start())
    }

    /// A clock that only its controller moves, and that starts at `start_at`.
    pub fn manual_at(start_at: DateTime<Utc>) -> Self {
        Self {
            start_at,
            mode: ArtificialMode::Manual,
        }
    }

    /// A clock that runs `time_scale` times as fast as real time, and starts at
    /// the real time, in whole microseconds. A scale that is not positive and finite is not
    /// refused here: [`ClockHandle::artificial`](super::ClockHandle::artificial) panics.
    pub fn auto(time_scale: f64) -> Self {
        Self::auto_at(start(), time_scale)
    }

    /// A clock that runs `time_scale` times as fast as real time, and starts at
    /// `start_at`. The scale is checked as that of [`auto`](Self::auto) is.
    pub fn auto_at(start_at: DateTime<Utc>, time_scale: f64) -> Self {
        Self {
            start_at,
            mode: ArtificialMode::AutoAdvance { time_scale },
        }
    }
}

fn start() -> DateTime<Utc> {
    to_datetime(to_timestamp(wall_time()))
}
