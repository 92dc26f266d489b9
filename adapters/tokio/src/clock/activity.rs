//! Who keeps a manual clock from going on.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::Location;
use std::pin::pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Wake, Waker};

use super::sync::{Mutex, MutexGuard, Notify, thread_local, yield_now};

thread_local! {
    /// The clocks whose participants are being polled on this thread, by
    /// address, the innermost last.
    static POLLING: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// Counts what is busy, and where in the code it comes from.
#[derive(Debug)]
pub(super) struct Activity {
    busy: Mutex<Busy>,
    idle: Notify,
}

#[derive(Debug)]
struct Busy {
    count: usize,
    /// So many of those have begun that are a sign of life.
    begun: u64,
    causes: BTreeMap<Cause, usize>,
}

/// Why a clock waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cause {
    pub(super) kind: CauseKind,
    pub(super) made_at: &'static Location<'static>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum CauseKind {
    /// A guard of the public API lives.
    Guard,
    /// A participant was woken, and its poll has not ended.
    Participant,
    /// The sleep of another task is over, and was not polled since.
    Sleep,
}

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            busy: Mutex::new(Busy {
                count: 0,
                begun: 0,
                causes: BTreeMap::new(),
            }),
            idle: Notify::new(),
        })
    }

    /// Busy until the guard is dropped. Drop it where no lock is held: the last
    /// one wakes whoever waits for the clock.
    pub(super) fn begin(self: &Arc<Self>, cause: Cause) -> BusyGuard {
        // A test that asks again and again for what never comes is busy each time. It
        // is no participant: nothing comes of that.
        let is_life = cause.kind == CauseKind::Participant || self.is_polling();
        let mut busy = self.busy();
        busy.count += 1;
        busy.begun += u64::from(is_life);
        *busy.causes.entry(cause).or_default() += 1;
        drop(busy);
        BusyGuard {
            held: Some((Arc::clone(self), cause)),
        }
    }

    fn end(&self, cause: Cause) {
        let mut busy = self.busy();
        busy.count -= 1;
        if let Some(count) = busy.causes.get_mut(&cause) {
            *count -= 1;
            if *count == 0 {
                busy.causes.remove(&cause);
            }
        }
        let is_idle = busy.count == 0;
        drop(busy);
        if is_idle {
            self.idle.notify_waiters();
        }
    }

    /// Whether nothing is busy, except for the participants in whose polls this
    /// is called: whoever waits for the clock does not wait for itself.
    pub(super) fn is_idle(&self) -> bool {
        self.busy().count <= self.polls_on_this_thread()
    }

    /// Rises whenever a participant is woken, or has work done elsewhere.
    pub(super) fn begun(&self) -> u64 {
        self.busy().begun
    }

    /// Tells when the count reaches zero.
    pub(super) fn idle(&self) -> &Notify {
        &self.idle
    }

    /// Whether a participant of this clock is being polled here.
    pub(super) fn is_polling(&self) -> bool {
        self.polls_on_this_thread() > 0
    }

    /// Marks that a participant is being polled here, until dropped.
    pub(super) fn enter(&self) -> Polling {
        POLLING.with(|polling| polling.borrow_mut().push(self.address()));
        Polling(())
    }

    fn polls_on_this_thread(&self) -> usize {
        let own = self.address();
        POLLING.with(|polling| {
            let polling = polling.borrow();
            polling.iter().filter(|clock| **clock == own).count()
        })
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    fn busy(&self) -> MutexGuard<'_, Busy> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says what is busy, for people.
impl fmt::Display for Activity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let causes = self.busy().causes.clone();
        for (place, (cause, count)) in causes.iter().enumerate() {
            let separator = if place == 0 { "" } else { ", " };
            let what = match cause.kind {
                CauseKind::Guard => "busy guard",
                CauseKind::Participant => "participant",
                CauseKind::Sleep => "sleep",
            };
            write!(f, "{separator}{count} x {what} made at {}", cause.made_at)?;
        }
        Ok(())
    }
}

/// See [`Activity::enter`].
pub(super) struct Polling(());

impl Drop for Polling {
    fn drop(&mut self) {
        POLLING.with(|polling| polling.borrow_mut().pop());
    }
}

/// Keeps a manual clock from going on for as long as it lives; from
/// [`ClockHandle::busy`](super::ClockHandle::busy).
#[must_use = "the clock goes on as soon as the guard is dropped"]
pub struct BusyGuard {
    held: Option<(Arc<Activity>, Cause)>,
}

impl BusyGuard {
    /// The guard of a clock that never waits.
    pub(super) fn idle() -> Self {
        Self { held: None }
    }
}

impl Drop for BusyGuard {
    fn drop(&mut self) {
        if let Some((activity, cause)) = self.held.take() {
            activity.end(cause);
        }
    }
}

impl fmt::Debug for BusyGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let made_at = self.held.as_ref().map(|(_, cause)| cause.made_at);
        f.debug_struct("BusyGuard")
            .field("made_at", &made_at)
            .finish()
    }
}

/// A guard that is dropped once the task that is being polled on this thread
/// has been polled and the runtime has woken what that poll put off.
///
/// A task that calls `yield_now` is not woken at once: the runtime keeps its
/// waker in a list and wakes it after the poll. The same is true of a task that
/// used up its budget, and of the end of a task, which wakes whoever joins it.
/// In between, nothing shows that there is more to do. So the guard goes into
/// the same list, as a waker that owns it. Put there before and after what it
/// guards, it outlasts that, whether the runtime wakes first in or last in
/// first. Outside of a runtime nothing is put off, and the guard is dropped with
/// this.
///
/// Pinned by `participants_that_yield_between_their_sleeps_see_exact_times`.
pub(super) struct AfterPoll(Waker);

impl AfterPoll {
    pub(super) fn new(guard: BusyGuard) -> Self {
        Self(Waker::from(Arc::new(Deferred(guard))))
    }

    /// Puts it into the list of the runtime.
    pub(super) fn defer(&self) {
        let mut context = Context::from_waker(&self.0);
        // Pending, always; what counts is that it takes the waker.
        let _ = pin!(yield_now()).poll(&mut context);
    }
}

/// A waker that wakes nobody, and owns a guard.
struct Deferred(#[expect(dead_code, reason = "it is dropped")] BusyGuard);

impl Wake for Deferred {
    fn wake(self: Arc<Self>) {}
}
