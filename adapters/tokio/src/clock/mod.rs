//! What time it is: real, artificial, or that of tokio.

mod artificial;
mod controller;
mod global;
mod participant;
mod sleep;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use job_engine::Timestamp;
use tokio::time::Instant;

pub use controller::{ArtificialClockConfig, ArtificialMode, ClockController};
pub use global::Clock;
pub use participant::{BusyGuard, Participant};
pub use sleep::{ClockSleep, ClockTimeout, Elapsed};

use crate::time::{to_datetime, to_timestamp};
use artificial::{AutoClock, ManualClock};

/// Tells the time and sleeps. Cheap to clone; clones share one clock.
#[derive(Clone)]
pub struct ClockHandle {
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    /// The clock of the machine, and when this handle was made.
    Realtime { start_at: Timestamp, epoch: Instant },
    /// Stands still until a controller moves it.
    Manual(Arc<ManualClock>),
    /// Runs by itself, at its own speed.
    Auto(Arc<AutoClock>),
    /// Follows the time of the tokio runtime, which may be paused.
    Tokio { start_at: Timestamp, epoch: Instant },
    /// Follows a manual clock of es-entity.
    #[cfg(feature = "es-entity")]
    EsEntity(es_entity::clock::ClockHandle),
}

impl ClockHandle {
    /// The clock of the machine.
    pub fn realtime() -> Self {
        Self {
            kind: Kind::Realtime {
                start_at: to_timestamp(wall_time()),
                epoch: Instant::now(),
            },
        }
    }

    /// An artificial clock and what moves it.
    ///
    /// # Panics
    ///
    /// If the time scale of an automatic clock is not a positive, finite number.
    pub fn artificial(config: ArtificialClockConfig) -> (Self, ClockController) {
        let start_at = to_timestamp(config.start_at);
        let kind = match config.mode {
            ArtificialMode::Manual => Kind::Manual(Arc::new(ManualClock::new(start_at))),
            ArtificialMode::AutoAdvance { time_scale } => {
                Kind::Auto(Arc::new(AutoClock::new(start_at, time_scale)))
            }
        };
        let handle = Self { kind };
        (handle.clone(), ClockController::new(handle))
    }

    /// A manual clock that starts at the time of the machine.
    pub fn manual() -> (Self, ClockController) {
        Self::artificial(ArtificialClockConfig::manual())
    }

    /// A manual clock that starts at `start_at`.
    pub fn manual_at(start_at: DateTime<Utc>) -> (Self, ClockController) {
        Self::artificial(ArtificialClockConfig::manual_at(start_at))
    }

    /// A clock that shows `start_at` now and follows the time of the current
    /// tokio runtime, also when that is paused or simulated.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime, if its time is paused.
    pub fn tokio_time(start_at: DateTime<Utc>) -> Self {
        Self {
            kind: Kind::Tokio {
                start_at: to_timestamp(start_at),
                epoch: Instant::now(),
            },
        }
    }

    /// The time.
    pub fn now(&self) -> DateTime<Utc> {
        match &self.kind {
            Kind::Realtime { .. } => wall_time(),
            #[cfg(feature = "es-entity")]
            Kind::EsEntity(clock) => clock.now(),
            _ => to_datetime(self.timestamp()),
        }
    }

    /// Today's date, in UTC.
    pub fn today(&self) -> NaiveDate {
        self.now().date_naive()
    }

    /// Sleeps for `duration` of this clock's time.
    pub fn sleep(&self, duration: Duration) -> ClockSleep {
        match &self.kind {
            Kind::Realtime { .. } | Kind::Tokio { .. } => ClockSleep::tokio(duration),
            Kind::Manual(clock) => ClockSleep::manual(Arc::clone(clock), duration),
            Kind::Auto(clock) => ClockSleep::boxed(Arc::clone(clock).sleep(duration)),
            #[cfg(feature = "es-entity")]
            Kind::EsEntity(clock) => ClockSleep::boxed(clock.sleep(duration)),
        }
    }

    /// Sleeps until this clock shows `deadline`; not at all if it does already.
    pub fn sleep_until(&self, deadline: DateTime<Utc>) -> ClockSleep {
        let wait = (deadline - self.now()).to_std();
        self.sleep(wait.unwrap_or(Duration::ZERO))
    }

    /// Awaits `future` for at most `duration` of this clock's time.
    ///
    /// # Errors
    ///
    /// The future resolves to [`Elapsed`] when the time is over first.
    pub fn timeout<F: Future>(&self, duration: Duration, future: F) -> ClockTimeout<F> {
        ClockTimeout::new(future, self.sleep(duration))
    }

    /// Whether this is an artificial clock.
    pub fn is_artificial(&self) -> bool {
        self.store_time().is_some()
    }

    /// Whether this clock stands still until a controller moves it.
    pub fn is_manual(&self) -> bool {
        match self.kind {
            Kind::Manual(_) => true,
            #[cfg(feature = "es-entity")]
            Kind::EsEntity(_) => true,
            Kind::Realtime { .. } | Kind::Auto(_) | Kind::Tokio { .. } => false,
        }
    }

    /// The time of a manual clock; `None` for others.
    pub fn manual_now(&self) -> Option<DateTime<Utc>> {
        self.is_manual().then(|| self.now())
    }

    /// The time for whoever measures how much of it passes: it never goes back,
    /// not even when the clock of the machine is set.
    pub fn timestamp(&self) -> Timestamp {
        match &self.kind {
            Kind::Manual(clock) => clock.now(),
            Kind::Auto(clock) => clock.now(),
            Kind::Realtime { start_at, epoch } | Kind::Tokio { start_at, epoch } => {
                start_at.saturating_add(epoch.elapsed())
            }
            #[cfg(feature = "es-entity")]
            Kind::EsEntity(clock) => to_timestamp(clock.now()),
        }
    }

    /// The time that a store is to use; `None` in real time, when it has a clock
    /// of its own that all workers share.
    pub fn store_time(&self) -> Option<Timestamp> {
        match self.kind {
            Kind::Realtime { .. } => None,
            _ => Some(self.timestamp()),
        }
    }

    /// Keeps a manual clock from going on while the guard lives: for work that
    /// waits for something other than the clock. Nothing on other clocks.
    pub fn busy(&self) -> BusyGuard {
        BusyGuard::new(self.manual_clock())
    }

    /// Makes the task of `future` one that a manual clock waits for: from being
    /// woken until it waits again, the clock does not go on. Nothing on other
    /// clocks.
    pub fn participate<F: Future>(&self, future: F) -> Participant<F> {
        Participant::new(self.manual_clock(), future)
    }

    fn manual_clock(&self) -> Option<&Arc<ManualClock>> {
        match &self.kind {
            Kind::Manual(clock) => Some(clock),
            _ => None,
        }
    }
}

impl fmt::Debug for ClockHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Realtime { .. } => "realtime",
            Kind::Manual(_) => "manual",
            Kind::Auto(_) => "auto",
            Kind::Tokio { .. } => "tokio",
            #[cfg(feature = "es-entity")]
            Kind::EsEntity(_) => "es-entity",
        };
        write!(f, "ClockHandle({kind}, {})", self.now())
    }
}

/// A manual clock of es-entity is followed; its real time is ours.
#[cfg(feature = "es-entity")]
impl From<es_entity::clock::ClockHandle> for ClockHandle {
    fn from(clock: es_entity::clock::ClockHandle) -> Self {
        if clock.is_manual() {
            let kind = Kind::EsEntity(clock);
            Self { kind }
        } else {
            Self::realtime()
        }
    }
}

/// The one place that asks the machine for the time of day.
#[expect(clippy::disallowed_methods, reason = "the source of real time")]
fn wall_time() -> DateTime<Utc> {
    Utc::now()
}
