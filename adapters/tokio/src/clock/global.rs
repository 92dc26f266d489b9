//! The clock of the process, for code that is handed none.

use std::sync::OnceLock;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};

use super::{ArtificialClockConfig, ClockController, ClockHandle, ClockSleep, ClockTimeout};

static GLOBAL: OnceLock<(ClockHandle, Option<ClockController>)> = OnceLock::new();

/// The clock of the process: real time, unless an artificial clock was installed
/// before it was first used.
#[derive(Debug)]
pub enum Clock {}

impl Clock {
    /// The clock itself.
    pub fn handle() -> &'static ClockHandle {
        let (handle, _) = GLOBAL.get_or_init(|| (ClockHandle::realtime(), None));
        handle
    }

    /// Makes it an artificial clock. Installed again, it stays the one that it
    /// is, and its controller is returned.
    ///
    /// # Panics
    ///
    /// If it was used before as real time, and where
    /// [`ClockHandle::artificial`] does.
    pub fn install_artificial(config: ArtificialClockConfig) -> ClockController {
        let (_, controller) = GLOBAL.get_or_init(|| {
            let (handle, controller) = ClockHandle::artificial(config);
            (handle, Some(controller))
        });
        let controller = controller.as_ref();
        let in_use = "the global clock is in use as real time; install before its first use";
        controller.expect(in_use).clone()
    }

    /// As [`ClockHandle::now`].
    pub fn now() -> DateTime<Utc> {
        Self::handle().now()
    }

    /// As [`ClockHandle::today`].
    pub fn today() -> NaiveDate {
        Self::handle().today()
    }

    /// As [`ClockHandle::sleep`].
    #[track_caller]
    pub fn sleep(duration: Duration) -> ClockSleep {
        Self::handle().sleep(duration)
    }

    /// As [`ClockHandle::sleep_until`].
    #[track_caller]
    pub fn sleep_until(deadline: DateTime<Utc>) -> ClockSleep {
        Self::handle().sleep_until(deadline)
    }

    /// As [`ClockHandle::timeout`].
    #[track_caller]
    pub fn timeout<F: Future>(duration: Duration, future: F) -> ClockTimeout<F> {
        Self::handle().timeout(duration, future)
    }

    /// As [`ClockHandle::is_artificial`].
    pub fn is_artificial() -> bool {
        Self::handle().is_artificial()
    }

    /// As [`ClockHandle::is_manual`].
    pub fn is_manual() -> bool {
        Self::handle().is_manual()
    }

    /// As [`ClockHandle::manual_now`].
    pub fn manual_now() -> Option<DateTime<Utc>> {
        Self::handle().manual_now()
    }
}
