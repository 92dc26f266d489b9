//! What moves an artificial clock.

use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::auto::AutoClock;
use super::manual::ManualClock;

/// Moves an artificial clock; from
/// [`ClockHandle::artificial`](super::ClockHandle::artificial). Cheap to clone;
/// clones move the same clock.
///
/// # What a manual clock promises
///
/// It wakes its sleepers one after another in the order of their times, ties in
/// the order in which the sleeps were made, and shows each its own time. A
/// sleeper that sleeps again is woken again if the time comes. Between two
/// wake-ups, and before it returns, the clock waits until all that it woke waits
/// again or is done:
/// - for participants (see
///   [`ClockHandle::participate`](super::ClockHandle::participate)) exactly, on
///   every runtime, whatever they wake among themselves;
/// - for any other task until it has taken its wake-up and awaits the next
///   thing. For what it wakes in turn, the runtime is yielded to several times,
///   which is enough on a runtime of one thread;
/// - for as long as a guard of [`ClockHandle::busy`](super::ClockHandle::busy)
///   lives.
///
/// If that takes longer than 10 s of real time at once, it logs a warning that
/// names what is busy, and goes on without waiting until the call ends. So do
/// not hold a guard while you move the clock, and do not make a participant and
/// leave it unpolled.
///
/// Calls at the same time take turns. A call that is dropped leaves the clock at
/// the wake-up that it had reached.
///
/// A clock that runs by itself jumps at once, wakes whoever has slept enough,
/// and waits for nobody.
#[derive(Clone, Debug)]
pub struct ClockController {
    clock: Controlled,
}

#[derive(Clone, Debug)]
enum Controlled {
    Manual(Arc<ManualClock>),
    Auto(Arc<AutoClock>),
}

impl ClockController {
    pub(super) fn manual(clock: Arc<ManualClock>) -> Self {
        let clock = Controlled::Manual(clock);
        Self { clock }
    }

    pub(super) fn auto(clock: Arc<AutoClock>) -> Self {
        let clock = Controlled::Auto(clock);
        Self { clock }
    }

    /// Moves the clock forward by `duration`, at most to the end of the year
    /// 9999. Returns how many sleepers woke, each time counted; a sleep that
    /// nobody had begun to await wakes none.
    pub async fn advance(&self, duration: Duration) -> usize {
        match &self.clock {
            Controlled::Manual(clock) => clock.advance(duration).await,
            Controlled::Auto(clock) => clock.advance(duration),
        }
    }

    /// Moves the clock to its next wake-up, and wakes all that sleep until then.
    /// Returns that time; `None` if nobody sleeps.
    pub async fn advance_to_next_wake(&self) -> Option<DateTime<Utc>> {
        match &self.clock {
            Controlled::Manual(clock) => clock.advance_to_next_wake().await,
            Controlled::Auto(clock) => clock.advance_to_next_wake(),
        }
    }

    /// Moves the clock forward to `time`. Returns how many sleepers woke.
    ///
    /// Time does not go back: a `time` in the clock's past changes nothing,
    /// returns 0 and logs a warning.
    pub async fn set_time(&self, time: DateTime<Utc>) -> usize {
        let woken = match &self.clock {
            Controlled::Manual(clock) => clock.advance_to(time).await,
            Controlled::Auto(clock) => clock.advance_to(time),
        };
        woken.unwrap_or_else(|| {
            tracing::warn!(%time, now = %self.now(), "an artificial clock does not go back");
            0
        })
    }

    /// Awaits `future`: for tests that wait for what comes of a clock that moves, such as
    /// the run of a job. If nobody moves a manual clock, it never comes, and the test
    /// ends with a message that says who sleeps until when.
    ///
    /// ```
    /// # use job_tokio as job; // Its readers have the crate `job`.
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use std::time::Duration;
    ///
    /// use job::ClockHandle;
    /// use tokio::sync::oneshot;
    ///
    /// let (clock, controller) = ClockHandle::manual();
    /// let (tell, told) = oneshot::channel();
    /// // A service that polls, say, and a runner that tells the test.
    /// tokio::spawn(clock.clone().participate(async move {
    ///     clock.sleep(Duration::from_secs(60)).await;
    ///     tell.send("has run").unwrap();
    /// }));
    /// controller.advance(Duration::from_secs(60)).await; // Without this: a panic below.
    /// assert_eq!(controller.wait_for(told).await, Ok("has run"));
    /// # });
    /// ```
    ///
    /// On a clock that runs by itself it waits for as long as it takes.
    ///
    /// # Panics
    ///
    /// When for 10 s of real time a manual clock was not moved and nothing was busy: no
    /// participant was woken or is to be polled, and no guard of [`ClockHandle::busy`]
    /// is held. Guards that come and go outside of participants do not count: whoever
    /// asks again and again whether a job has ended may wait in vain, too. For what
    /// takes longer without the clock, hold a guard.
    ///
    /// [`ClockHandle::busy`]: super::ClockHandle::busy
    #[track_caller]
    pub fn wait_for<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        let (clock, made_at) = (self.clock.clone(), Location::caller());
        async move {
            match clock {
                Controlled::Manual(clock) => clock.wait_for(future, made_at).await,
                Controlled::Auto(_) => future.await,
            }
        }
    }

    /// How long a manual clock may be forgotten, in real time; `None` for ever, which is
    /// the default outside of tests. With the feature `testing` it is 60 s for clocks that
    /// are made in the thread of a test. A service that several tests share, on a clock
    /// that stands still, needs `None`.
    ///
    /// Once someone sleeps on the clock and for that long it was not moved, no sleep was
    /// begun or dropped and nothing was busy, as [`ClockController::wait_for`] has it,
    /// the process ends: with the exit code 101 and a message that says who sleeps until
    /// when. Otherwise a test that forgot to advance the clock would hang. It takes up
    /// to a quarter as long again.
    ///
    /// Does nothing on a clock that runs by itself.
    pub fn set_patience(&self, patience: Option<Duration>) {
        if let Controlled::Manual(clock) = &self.clock {
            clock.net().set_patience(clock, patience);
        }
    }

    /// How many sleeps are not over yet. Those that never end do not count.
    pub fn pending_wake_count(&self) -> usize {
        match &self.clock {
            Controlled::Manual(clock) => clock.pending_wakes(),
            Controlled::Auto(clock) => clock.pending_wakes(),
        }
    }

    /// When the next sleep is over; `None` if nobody sleeps.
    pub fn next_wake(&self) -> Option<DateTime<Utc>> {
        match &self.clock {
            Controlled::Manual(clock) => clock.next_wake(),
            Controlled::Auto(clock) => clock.next_wake(),
        }
    }

    /// What the clock shows and who sleeps until when, for the message of a test that
    /// waits in vain: most likely for this clock, which nobody moves.
    pub fn waiting(&self) -> String {
        match &self.clock {
            Controlled::Manual(clock) => clock.waiting(),
            Controlled::Auto(clock) => match clock.next_wake() {
                Some(at) => format!(
                    "The clock shows {}; the next sleep lasts until {at}",
                    clock.now()
                ),
                None => format!("The clock shows {}, and nobody sleeps on it", clock.now()),
            },
        }
    }

    /// What the clock shows.
    pub fn now(&self) -> DateTime<Utc> {
        match &self.clock {
            Controlled::Manual(clock) => clock.now(),
            Controlled::Auto(clock) => clock.now(),
        }
    }
}
