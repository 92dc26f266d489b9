//! The clock of the process, for code that is handed none.

use std::sync::OnceLock;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};

use super::{ArtificialClockConfig, ClockController, ClockHandle, ClockSleep, ClockTimeout};

static GLOBAL: OnceLock<(ClockHandle, Option<ClockController>)> = OnceLock::new();

/// The global clock: real time, unless an artificial clock was installed before
/// it was first used.
#[derive(Debug)]
pub enum Clock {}

impl Clock {
    /// The global clock itself.
    pub fn handle() -> &'static ClockHandle {
        let (handle, _) = GLOBAL.get_or_init(|| (ClockHandle::realtime(), None));
        handle
    }

    /// Makes the global clock an artificial one. Installed again, it returns
    /// the controller of the first time.
    ///
    /// # Panics
    ///
    /// If the global clock was used before, as real time.
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
    pub fn sleep(duration: Duration) -> ClockSleep {
        Self::handle().sleep(duration)
    }

    /// As [`ClockHandle::timeout`].
    pub fn timeout<F: Future>(duration: Duration, future: F) -> ClockTimeout<F> {
        Self::handle().timeout(duration, future)
    }

    /// As [`ClockHandle::is_manual`].
    pub fn is_manual() -> bool {
        Self::handle().is_manual()
    }
}
