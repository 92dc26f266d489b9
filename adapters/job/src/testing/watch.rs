//! Whether a test waits for ever.

use std::pin::pin;
use std::time::Duration;

use job_tokio::ClockController;
use job_tokio::clock::Patience;

/// Watches what a test waits for.
pub(super) struct Watch<'a> {
    limit: Duration,
    controller: &'a ClockController,
}

impl<'a> Watch<'a> {
    pub(super) fn new(limit: Duration, controller: &'a ClockController) -> Self {
        Self { limit, controller }
    }

    /// Awaits something.
    ///
    /// # Panics
    ///
    /// If it does not come in time.
    pub(super) async fn await_end<T>(&self, what: &str, work: impl Future<Output = T>) -> T {
        // It is still there, with all its sleeps, when the message is made.
        let mut work = pin!(work);
        let end = Patience::new(self.limit).output_of(work.as_mut()).await;
        end.unwrap_or_else(|| panic!("{}", self.message(what)))
    }

    fn message(&self, what: &str) -> String {
        let advice = match self.controller.next_wake() {
            Some(_) => {
                "If that is what it waits for, move the clock meanwhile: `tokio::join!` the \
                 call with `advance` on a clone of `clock()`"
            }
            None => {
                "It may wait for a transaction that the test holds open: one in memory keeps \
                 everybody else out"
            }
        };
        let (limit, waiting) = (self.limit, self.controller.waiting());
        format!("{what} has not ended after {limit:?} of real time. {waiting}. {advice}")
    }
}
