//! Real time, and the timers of tokio.

use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use chrono::{DateTime, Utc};
use job_engine::Timestamp;
use tokio::time::{Instant, Sleep};

use crate::time::to_timestamp;

/// Timers of tokio end after some two years at the latest; longer sleeps take
/// several.
const TIMER_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

static EPOCH: OnceLock<Epoch> = OnceLock::new();

/// One moment in the life of this process.
struct Epoch {
    wall: Timestamp,
    monotonic: std::time::Instant,
}

/// The time of day.
#[expect(clippy::disallowed_methods, reason = "the one source of real time")]
pub(super) fn wall_time() -> DateTime<Utc> {
    Utc::now()
}

/// The time of day as it was when the process asked first, and what passed
/// since: whoever sets the clock of the machine does not move it.
///
/// The instant of now is asked from tokio, which agrees with its timers also
/// where a test paused them; there it may lie before that of the epoch.
pub(super) fn timestamp() -> Timestamp {
    let epoch = EPOCH.get_or_init(Epoch::now);
    let now = Instant::now().into_std();
    match now.checked_duration_since(epoch.monotonic) {
        Some(after) => epoch.wall.saturating_add(after),
        None => {
            let before = epoch.monotonic.duration_since(now).as_micros();
            let before = i64::try_from(before).unwrap_or(i64::MAX);
            Timestamp::from_micros(epoch.wall.as_micros().saturating_sub(before))
        }
    }
}

impl Epoch {
    #[expect(
        clippy::disallowed_methods,
        reason = "the epoch outlives every runtime, and the time of a paused one"
    )]
    fn now() -> Self {
        Self {
            wall: to_timestamp(wall_time()),
            monotonic: std::time::Instant::now(),
        }
    }
}

/// A sleep in the time of tokio.
#[derive(Debug)]
pub(super) struct TokioSleep {
    /// `None` if it never ends.
    deadline: Option<Instant>,
    timer: Timer,
}

impl TokioSleep {
    pub(super) fn new(duration: Duration) -> Self {
        Self {
            deadline: Instant::now().checked_add(duration),
            timer: Timer::default(),
        }
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self.deadline {
            Some(deadline) => self.timer.poll_until(deadline, context),
            None => Poll::Pending,
        }
    }
}

/// A timer of tokio that is made when it is polled first: before that, no
/// runtime is needed.
#[derive(Debug, Default)]
pub(super) struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Ends at `deadline`, which may differ from call to call.
    pub(super) fn poll_until(&mut self, deadline: Instant, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let until = deadline.min(Instant::now() + TIMER_MAX);
            let timer = self
                .0
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
            if timer.deadline() != until {
                timer.as_mut().reset(until);
            }
            ready!(timer.as_mut().poll(context));
            if until == deadline {
                return Poll::Ready(());
            }
        }
    }
}
