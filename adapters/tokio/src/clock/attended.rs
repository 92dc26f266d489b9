//! Futures of which somebody wants to know whether they sleep.

use std::cell::RefCell;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use chrono::{DateTime, Utc};

use super::manual::ManualClock;
use super::sync::thread_local;

thread_local! {
    /// What is attended and is being polled on this thread: the address of its clock and
    /// its number, the innermost last.
    static POLLING: RefCell<Vec<(usize, u64)>> = const { RefCell::new(Vec::new()) };
}

/// A future of which it is known whether it sleeps on a manual clock; from
/// [`ClockHandle::attend`](super::ClockHandle::attend).
///
/// It sleeps if it has begun to await a sleep of the clock that is not over, alone or
/// among other things: as the limit of something else, too. What a task sleeps that it
/// has spawned does not count.
#[must_use = "a future does nothing unless it is awaited"]
pub struct Attended<F> {
    future: Pin<Box<F>>,
    /// `None` on clocks that do not stand still.
    clock: Option<(Arc<ManualClock>, u64)>,
}

impl<F: Future> Attended<F> {
    pub(super) fn new(clock: Option<&Arc<ManualClock>>, future: F) -> Self {
        Self {
            future: Box::pin(future),
            clock: clock.map(|clock| (Arc::clone(clock), clock.number())),
        }
    }
}

impl<F> Attended<F> {
    /// When the first of its sleeps is over; `None` if it does not sleep.
    pub fn next_wake(&self) -> Option<DateTime<Utc>> {
        let (clock, number) = self.clock.as_ref()?;
        clock.next_wake_of(*number)
    }
}

impl<F: Future> Future for Attended<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let _polling = self.clock.as_ref().map(|(clock, number)| {
            POLLING.with(|polling| polling.borrow_mut().push((address(clock), *number)));
            Polling(())
        });
        self.future.as_mut().poll(context)
    }
}

/// The innermost future that attends to this clock and is being polled on this thread.
pub(super) fn polled_on(clock: &Arc<ManualClock>) -> Option<u64> {
    let own = address(clock);
    POLLING.with(|polling| {
        let polling = polling.borrow();
        let innermost = polling.iter().rfind(|(clock, _)| *clock == own);
        innermost.map(|(_, number)| *number)
    })
}

fn address(clock: &Arc<ManualClock>) -> usize {
    Arc::as_ptr(clock).addr()
}

/// Marks that one is being polled here, until dropped.
struct Polling(());

impl Drop for Polling {
    fn drop(&mut self) {
        POLLING.with(|polling| polling.borrow_mut().pop());
    }
}

impl<F> fmt::Debug for Attended<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attended").finish_non_exhaustive()
    }
}
