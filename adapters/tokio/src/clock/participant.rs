//! Tasks that a manual clock waits for before it goes on.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use super::artificial::ManualClock;

/// Keeps a manual clock from going on, from
/// [`ClockHandle::busy`](super::ClockHandle::busy).
#[derive(Debug)]
#[must_use = "the clock goes on as soon as the guard is dropped"]
pub struct BusyGuard {
    clock: Option<Arc<ManualClock>>,
}

impl BusyGuard {
    pub(super) fn new(clock: Option<&Arc<ManualClock>>) -> Self {
        let clock = clock.cloned();
        if let Some(clock) = &clock {
            clock.make_busy();
        }
        Self { clock }
    }
}

impl Drop for BusyGuard {
    fn drop(&mut self) {
        if let Some(clock) = &self.clock {
            clock.unbusy();
        }
    }
}

/// A future whose task a manual clock waits for, from
/// [`ClockHandle::participate`](super::ClockHandle::participate).
///
/// From being made or woken until the poll that follows has ended, it keeps
/// the clock from going on. What a poll wakes is busy before the poll ends, so
/// a chain of wake-ups has no gap. The end of the task itself is one: whoever
/// joins it should be handed a [`BusyGuard`] with the result.
#[must_use = "a future does nothing unless it is awaited"]
pub struct Participant<F> {
    future: Pin<Box<F>>,
    waker: Option<Arc<ParticipantWaker>>,
}

struct ParticipantWaker {
    clock: Arc<ManualClock>,
    /// Woken, and not polled since: counted as busy.
    woken: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl<F: Future> Participant<F> {
    pub(super) fn new(clock: Option<&Arc<ManualClock>>, future: F) -> Self {
        let waker = clock.map(|clock| {
            clock.make_busy();
            Arc::new(ParticipantWaker {
                clock: Arc::clone(clock),
                woken: AtomicBool::new(true),
                task: Mutex::new(None),
            })
        });
        Self {
            future: Box::pin(future),
            waker,
        }
    }
}

impl<F: Future> Future for Participant<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Some(waker) = self.waker.clone() else {
            return self.future.as_mut().poll(context);
        };
        {
            let mut task = waker.task.lock().unwrap_or_else(PoisonError::into_inner);
            *task = Some(context.waker().clone());
        }
        // Busy for the length of the poll: by the wake-up that led to it, or
        // else from now on.
        if !waker.woken.swap(false, Ordering::SeqCst) {
            waker.clock.make_busy();
        }
        let _polling = Polling(&waker.clock);
        let own = Waker::from(Arc::clone(&waker));
        self.future.as_mut().poll(&mut Context::from_waker(&own))
    }
}

/// Ends the busy time of a poll, also when it panics.
struct Polling<'a>(&'a ManualClock);

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        self.0.unbusy();
    }
}

impl Wake for ParticipantWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.woken.swap(true, Ordering::SeqCst) {
            self.clock.make_busy();
        }
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = &*task {
            task.wake_by_ref();
        }
    }
}

impl<F> Drop for Participant<F> {
    fn drop(&mut self) {
        if let Some(waker) = &self.waker
            // Left set, so that a later wake-up counts nothing any more.
            && waker.woken.swap(true, Ordering::SeqCst)
        {
            waker.clock.unbusy();
        }
    }
}

impl<F> std::fmt::Debug for Participant<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Participant").finish_non_exhaustive()
    }
}
