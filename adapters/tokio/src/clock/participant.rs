//! Tasks that a manual clock waits for before it goes on.

use std::fmt;
use std::panic::Location;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use super::activity::{Activity, AfterPoll, BusyGuard, Cause, CauseKind};
use super::sync::{Mutex, MutexGuard};

/// A future whose task a manual clock waits for; from
/// [`ClockHandle::participate`](super::ClockHandle::participate).
///
/// It is busy from being made, or woken, until the poll that follows has ended
/// and everything that this poll woke is busy itself. So a chain of wake-ups
/// from participant to participant has no gap: neither channels, nor
/// `yield_now`, nor joining a task opens one.
///
/// Wrap the whole future of a task, and let it be polled: while a participant
/// that was woken is not polled, the clock waits. What the clock cannot see is a
/// task that awaits something other than the clock and other participants, such
/// as a socket, and a task that is being aborted: hold a [`BusyGuard`] for
/// these.
#[must_use = "a future does nothing unless it is awaited"]
pub struct Participant<F> {
    /// `None` once it has ended.
    future: Option<Pin<Box<F>>>,
    /// `None` on clocks that do not wait.
    wakeups: Option<Arc<Wakeups>>,
}

/// The waker that the future sees: it makes the participant busy, then wakes
/// its task.
struct Wakeups {
    activity: Arc<Activity>,
    cause: Cause,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    /// Wakes the task that polled last.
    task: Option<Waker>,
}

enum Phase {
    /// Polled, and not woken since.
    Waiting,
    /// Made or woken, and not polled since.
    Woken(BusyGuard),
    /// No poll will come any more.
    Ended,
}

impl<F: Future> Participant<F> {
    pub(super) fn new(
        activity: Option<&Arc<Activity>>,
        made_at: &'static Location<'static>,
        future: F,
    ) -> Self {
        let kind = CauseKind::Participant;
        let cause = Cause { kind, made_at };
        let wakeups = activity.map(|activity| {
            Arc::new(Wakeups {
                activity: Arc::clone(activity),
                cause,
                state: Mutex::new(State {
                    phase: Phase::Woken(activity.begin(cause)),
                    task: None,
                }),
            })
        });
        Self {
            future: Some(Box::pin(future)),
            wakeups,
        }
    }
}

impl<F: Future> Future for Participant<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let future = this.future.as_mut();
        let future = future.expect("a participant is not polled after its end");
        let Some(wakeups) = &this.wakeups else {
            return future.as_mut().poll(context);
        };
        let after_poll = AfterPoll::new(wakeups.begin_poll(context.waker()));
        after_poll.defer();
        let own_waker = Waker::from(Arc::clone(wakeups));
        let polled = {
            let _polling = wakeups.activity.enter();
            future.as_mut().poll(&mut Context::from_waker(&own_waker))
        };
        if polled.is_ready() {
            wakeups.end();
            this.future = None;
        }
        after_poll.defer();
        polled
    }
}

impl Wakeups {
    /// The guard of the wake-up that led to this poll; a new one if something
    /// else did.
    fn begin_poll(&self, task: &Waker) -> BusyGuard {
        let task = task.clone();
        let mut state = self.state();
        let phase = std::mem::replace(&mut state.phase, Phase::Waiting);
        let task_before = state.task.replace(task);
        drop(state);
        drop(task_before);
        match phase {
            Phase::Woken(busy) => busy,
            Phase::Waiting | Phase::Ended => self.activity.begin(self.cause),
        }
    }

    fn end(&self) {
        let mut state = self.state();
        let phase = std::mem::replace(&mut state.phase, Phase::Ended);
        let task = state.task.take();
        drop(state);
        drop((phase, task));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Wakeups {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut state = self.state();
        match state.phase {
            // Its task was woken already, or is about to be polled first.
            Phase::Woken(_) | Phase::Ended => return,
            Phase::Waiting => {}
        }
        state.phase = Phase::Woken(self.activity.begin(self.cause));
        let task = state.task.clone();
        drop(state);
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl<F> Drop for Participant<F> {
    fn drop(&mut self) {
        if let Some(wakeups) = &self.wakeups {
            // The destructors may wake others: busy until those are.
            let _busy = wakeups.activity.begin(wakeups.cause);
            self.future = None;
            wakeups.end();
        }
    }
}

impl<F> fmt::Debug for Participant<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Participant").finish_non_exhaustive()
    }
}
