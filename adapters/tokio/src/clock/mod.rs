//! What time it is: real, artificial, or that of tokio.

mod activity;
mod attended;
mod auto;
mod config;
mod controller;
#[cfg(feature = "es-entity")]
mod es_entity;
mod global;
mod id;
#[cfg(test)]
mod impatience;
mod manual;
mod net;
mod participant;
mod patience;
mod realtime;
mod sleep;
mod sleepers;
mod sync;
mod timeout;

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use job_engine::Timestamp;
use tokio::time::Instant;

pub use activity::BusyGuard;
pub use attended::Attended;
pub use config::{ArtificialClockConfig, ArtificialMode};
pub use controller::ClockController;
pub use global::Clock;
pub use id::ClockId;
pub use participant::Participant;
pub use patience::Patience;
pub use sleep::ClockSleep;
pub use timeout::{ClockTimeout, Elapsed};

use crate::time::{to_datetime, to_timestamp};
use activity::{Activity, Cause, CauseKind};
use auto::{AutoClock, AutoSleep};
use manual::{ManualClock, ManualSleep};
use realtime::TokioSleep;
use sleep::SleepKind;

/// Tells the time and sleeps. Cheap to clone; clones share one clock.
///
/// Artificial clocks show the years 1 to 9999 and stop at the end. A sleep
/// beyond it, such as one of [`Duration::MAX`], never ends, on any clock.
#[derive(Clone)]
pub struct ClockHandle {
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    /// The clock of the machine.
    Realtime,
    /// Stands still until a controller moves it.
    Manual(Arc<ManualClock>),
    /// Runs by itself, at its own speed.
    Auto(Arc<AutoClock>),
    /// Follows the time of the tokio runtime, which may be paused.
    Tokio { start_at: Timestamp, epoch: Instant },
    /// Follows a manual clock of es-entity.
    #[cfg(feature = "es-entity")]
    EsEntity(::es_entity::clock::ClockHandle),
}

impl ClockHandle {
    /// The clock of the machine. Sleeps are those of tokio.
    pub fn realtime() -> Self {
        let kind = Kind::Realtime;
        Self { kind }
    }

    /// An artificial clock, and what moves it.
    ///
    /// # Panics
    ///
    /// If the time scale of a clock that runs by itself is not a positive,
    /// finite number.
    pub fn artificial(config: ArtificialClockConfig) -> (Self, ClockController) {
        let start_at = config.start_at;
        let (kind, controller) = match config.mode {
            ArtificialMode::Manual => {
                let clock = Arc::new(ManualClock::new(start_at));
                (
                    Kind::Manual(Arc::clone(&clock)),
                    ClockController::manual(clock),
                )
            }
            ArtificialMode::AutoAdvance { time_scale } => {
                let clock = Arc::new(AutoClock::new(start_at, time_scale));
                (Kind::Auto(Arc::clone(&clock)), ClockController::auto(clock))
            }
        };
        (Self { kind }, controller)
    }

    /// As [`ArtificialClockConfig::manual`]: stands still at the real time until
    /// its controller moves it.
    pub fn manual() -> (Self, ClockController) {
        Self::artificial(ArtificialClockConfig::manual())
    }

    /// As [`ArtificialClockConfig::manual_at`]: stands still at `start_at` until
    /// its controller moves it.
    pub fn manual_at(start_at: DateTime<Utc>) -> (Self, ClockController) {
        Self::artificial(ArtificialClockConfig::manual_at(start_at))
    }

    /// A clock that shows `start_at` now, in whole microseconds, and follows the
    /// time of tokio, also where that is paused or simulated. Sleeps are those
    /// of tokio, which wake on whole milliseconds.
    ///
    /// Make it inside of the runtime whose time it is to follow, and one for
    /// each: the times of two paused runtimes have nothing to do with each other.
    pub fn tokio_time(start_at: DateTime<Utc>) -> Self {
        let kind = Kind::Tokio {
            start_at: to_timestamp(start_at),
            epoch: Instant::now(),
        };
        Self { kind }
    }

    /// What the clock shows.
    pub fn now(&self) -> DateTime<Utc> {
        match &self.kind {
            Kind::Realtime => realtime::wall_time(),
            Kind::Manual(clock) => clock.now(),
            Kind::Auto(clock) => clock.now(),
            Kind::Tokio { .. } => to_datetime(self.timestamp()),
            #[cfg(feature = "es-entity")]
            Kind::EsEntity(clock) => clock.now(),
        }
    }

    /// The date that the clock shows, in UTC.
    pub fn today(&self) -> NaiveDate {
        self.now().date_naive()
    }

    /// The time for whoever measures how much of it passes: it never goes back,
    /// and stays on course when someone sets the clock of the machine.
    ///
    /// In real time it is what the clock of the machine showed when this process
    /// asked first, and what passed since. All handles of a process agree.
    pub fn timestamp(&self) -> Timestamp {
        match &self.kind {
            Kind::Realtime => realtime::timestamp(),
            Kind::Tokio { start_at, epoch } => start_at.saturating_add(epoch.elapsed()),
            Kind::Manual(_) | Kind::Auto(_) => to_timestamp(self.now()),
            #[cfg(feature = "es-entity")]
            Kind::EsEntity(_) => to_timestamp(self.now()),
        }
    }

    /// The time that a store is to use: `None` in real time, where the store's
    /// own clock rules, else [`ClockHandle::timestamp`].
    pub fn store_time(&self) -> Option<Timestamp> {
        self.is_artificial().then(|| self.timestamp())
    }

    /// Sleeps for `duration` of this clock's time, from now on.
    #[track_caller]
    pub fn sleep(&self, duration: Duration) -> ClockSleep {
        let made_at = Location::caller();
        ClockSleep::new(match &self.kind {
            Kind::Realtime | Kind::Tokio { .. } => SleepKind::Tokio(TokioSleep::new(duration)),
            Kind::Manual(clock) => {
                SleepKind::Manual(ManualSleep::new(Arc::clone(clock), duration, made_at))
            }
            Kind::Auto(clock) => SleepKind::Auto(AutoSleep::new(Arc::clone(clock), duration)),
            #[cfg(feature = "es-entity")]
            Kind::EsEntity(clock) => {
                SleepKind::EsEntity(es_entity::EsEntitySleep::new(clock.clone(), duration))
            }
        })
    }

    /// Sleeps until this clock shows `deadline`; not at all if it does already.
    ///
    /// In real time, how long that takes is judged now: it does not follow when
    /// someone sets the clock of the machine.
    #[track_caller]
    pub fn sleep_until(&self, deadline: DateTime<Utc>) -> ClockSleep {
        let made_at = Location::caller();
        ClockSleep::new(match &self.kind {
            Kind::Realtime | Kind::Tokio { .. } => {
                let wait = (deadline - self.now()).to_std().unwrap_or(Duration::ZERO);
                SleepKind::Tokio(TokioSleep::new(wait))
            }
            Kind::Manual(clock) => {
                SleepKind::Manual(ManualSleep::until(Arc::clone(clock), deadline, made_at))
            }
            Kind::Auto(clock) => SleepKind::Auto(AutoSleep::until(Arc::clone(clock), deadline)),
            #[cfg(feature = "es-entity")]
            Kind::EsEntity(clock) => {
                SleepKind::EsEntity(es_entity::EsEntitySleep::until(clock.clone(), deadline))
            }
        })
    }

    /// Awaits `future` for at most `duration` of this clock's time, from now on.
    ///
    /// # Errors
    ///
    /// It resolves to [`Elapsed`] when the time limit is reached first.
    #[track_caller]
    pub fn timeout<F: Future>(&self, duration: Duration, future: F) -> ClockTimeout<F> {
        ClockTimeout::new(future, self.sleep(duration))
    }

    /// Whether this is any clock but that of the machine.
    pub fn is_artificial(&self) -> bool {
        !matches!(self.kind, Kind::Realtime)
    }

    /// Which artificial clock this is: one of [`ClockHandle::artificial`] and its kin.
    /// Clones are the same clock; no two others are, whatever they show.
    ///
    /// `None` for all others: real time, and clocks that follow tokio's time or a clock
    /// of es-entity, of which we do not know whether two are the same.
    pub fn artificial_id(&self) -> Option<ClockId> {
        match &self.kind {
            Kind::Manual(clock) => Some(clock.id()),
            Kind::Auto(clock) => Some(clock.id()),
            Kind::Realtime | Kind::Tokio { .. } => None,
            #[cfg(feature = "es-entity")]
            Kind::EsEntity(_) => None,
        }
    }

    /// Whether this clock stands still until a controller moves it.
    pub fn is_manual(&self) -> bool {
        match self.kind {
            Kind::Manual(_) => true,
            #[cfg(feature = "es-entity")]
            Kind::EsEntity(_) => true,
            Kind::Realtime | Kind::Auto(_) | Kind::Tokio { .. } => false,
        }
    }

    /// What a manual clock shows; `None` for all others.
    pub fn manual_now(&self) -> Option<DateTime<Utc>> {
        self.is_manual().then(|| self.now())
    }

    /// Keeps a manual clock from going on while the guard lives: for work that
    /// waits for something other than the clock. Does nothing on other clocks.
    #[track_caller]
    pub fn busy(&self) -> BusyGuard {
        let (kind, made_at) = (CauseKind::Guard, Location::caller());
        match self.activity() {
            Some(activity) => activity.begin(Cause { kind, made_at }),
            None => BusyGuard::idle(),
        }
    }

    /// Makes the task of `future` one that a manual clock waits for: from being
    /// made or woken until it waits again, the clock does not go on. Does nothing
    /// on other clocks.
    #[track_caller]
    pub fn participate<F: Future>(&self, future: F) -> Participant<F> {
        Participant::new(self.activity(), Location::caller(), future)
    }

    /// Tells of a future whether it sleeps on a manual clock: for whoever polls it and
    /// moves the clock. So the clock does not wait for it to take its wake-ups. On other
    /// clocks, it is never known to sleep.
    pub fn attend<F: Future>(&self, future: F) -> Attended<F> {
        let clock = match &self.kind {
            Kind::Manual(clock) => Some(clock),
            _ => None,
        };
        Attended::new(clock, future)
    }

    fn activity(&self) -> Option<&Arc<Activity>> {
        match &self.kind {
            Kind::Manual(clock) => Some(clock.activity()),
            _ => None,
        }
    }
}

impl fmt::Debug for ClockHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Realtime => "realtime",
            Kind::Manual(_) => "manual",
            Kind::Auto(_) => "auto",
            Kind::Tokio { .. } => "tokio",
            #[cfg(feature = "es-entity")]
            Kind::EsEntity(_) => "es-entity",
        };
        write!(f, "ClockHandle({kind}, {})", self.now())
    }
}
