//! Whether a runner waits for ever.

use std::pin::pin;
use std::time::Duration;

use job_tokio::ClockController;
use job_tokio::clock::Patience;

/// Watches runners, one after the other.
pub(super) struct Watch<'a> {
    limit: Duration,
    patience: Patience,
    controller: &'a ClockController,
}

impl<'a> Watch<'a> {
    pub(super) fn new(limit: Duration, controller: &'a ClockController) -> Self {
        Self {
            limit,
            patience: Patience::new(limit),
            controller,
        }
    }

    /// Awaits the end of a runner.
    ///
    /// # Panics
    ///
    /// If it does not come in time.
    pub(super) async fn await_end<T>(&mut self, name: &str, run: impl Future<Output = T>) -> T {
        // It is still there, with all its sleeps, when the message is made.
        let mut run = pin!(run);
        let mut end = None;
        let watched = self
            .patience
            .wait_for(async { end = Some(run.as_mut().await) });
        watched.await;
        end.unwrap_or_else(|| {
            panic!(
                "{name} has not ended after {:?} of real time. {}. If that is what it waits \
                 for, move the clock meanwhile: `tokio::join!` the call that runs it with \
                 `advance` on a clone of `clock()`",
                self.limit,
                self.controller.waiting()
            )
        })
    }
}
