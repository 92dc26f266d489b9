//! Whether a test waits for ever.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{Either, select};
use job_tokio::ClockController;
use job_tokio::clock::{Attended, Patience};

/// Watches what a test waits for.
pub(super) struct Watch<'a> {
    limit: Duration,
    controller: &'a ClockController,
    /// Whether the clock goes on while a runner sleeps.
    moves: bool,
}

impl<'a> Watch<'a> {
    /// One of a call in which no time passes.
    pub(super) fn new(limit: Duration, controller: &'a ClockController) -> Self {
        Self {
            limit,
            controller,
            moves: false,
        }
    }

    /// One of a call that moves the clock while a runner sleeps.
    pub(super) fn moving(self) -> Self {
        Self {
            moves: true,
            ..self
        }
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

    /// Awaits the end of some work; `None` as soon as it `rests`: when it waits and,
    /// although nothing is busy, nothing comes but what the clock brings.
    pub(super) async fn end_unless<F: Future>(
        &self,
        work: &mut Attended<F>,
        rests: impl Fn(&Attended<F>) -> bool,
    ) -> Option<F::Output> {
        loop {
            let settled = pin!(self.controller.advance(Duration::ZERO));
            if let Either::Left((output, _)) = select(&mut *work, settled).await {
                return Some(output);
            }
            if rests(work) {
                return None;
            }
            // It waits for something else; after that it may rest.
            let mut is_first = true;
            let woken = poll_fn(|context| match work.poll_unpin(context) {
                Poll::Ready(output) => Poll::Ready(Some(output)),
                Poll::Pending if std::mem::take(&mut is_first) => Poll::Pending,
                Poll::Pending => Poll::Ready(None),
            });
            if let Some(output) = woken.await {
                return Some(output);
            }
        }
    }

    fn message(&self, what: &str) -> String {
        let advice = match (self.controller.next_wake(), self.moves) {
            (None, _) => {
                "It may wait for a transaction that the test holds open: one in memory keeps \
                 everybody else out"
            }
            (Some(_), false) => {
                "This call does not move the clock. If that is what it waits for, let the job \
                 run in `TestJobs::advance`, in which time passes while a runner sleeps"
            }
            (Some(_), true) => {
                "Time passes while a runner itself sleeps. If it waits for a task that does, \
                 move the clock meanwhile: `tokio::join!` the call with `advance` on a clone \
                 of `clock()`"
            }
        };
        let (limit, waiting) = (self.limit, self.controller.waiting());
        format!("{what} has not ended after {limit:?} of real time. {waiting}. {advice}")
    }
}
