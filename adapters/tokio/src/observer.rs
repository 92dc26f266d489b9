//! What a simulator sees of a driver.
//!
//! Without the feature `sim` nobody looks. With it, an observer of the thread
//! is told what the driver does with its runners, and what it tells operators, as
//! the driver does it. It is for runtimes of a single thread: tasks on other threads
//! do not see it.

#[cfg(feature = "sim")]
use std::cell::RefCell;
#[cfg(feature = "sim")]
use std::rc::Rc;

use job_engine::store::ClaimedJob;
use job_engine::worker::{Ended, Observation, StopReason};
use job_engine::{Run, WorkerId};

/// What a driver does.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    /// Starts a runner, with this job.
    Started(&'a ClaimedJob),
    /// Asks a runner to stop.
    Told(Run, StopReason),
    /// Aborts a runner.
    Aborted(Run),
    /// Sees that a runner has ended; the engine has not been told.
    Ended(Run, &'a Ended),
    /// Tells operators.
    Logged(&'a Observation),
}

/// Is told what the driver of this worker does.
#[cfg(feature = "sim")]
pub type Observer = Rc<dyn Fn(WorkerId, Seen<'_>)>;

#[cfg(feature = "sim")]
thread_local! {
    static OBSERVER: RefCell<Option<Observer>> = const { RefCell::new(None) };
}

/// Sets the observer of this thread, or takes it away.
#[cfg(feature = "sim")]
pub fn set_observer(observer: Option<Observer>) {
    OBSERVER.set(observer);
}

/// Tells the observer, if there is one.
#[cfg(feature = "sim")]
pub(crate) fn saw(worker: WorkerId, seen: Seen<'_>) {
    // Not borrowed during the call, so that an observer may replace itself.
    if let Some(observer) = OBSERVER.with_borrow(Option::clone) {
        observer(worker, seen);
    }
}

/// Nothing.
#[cfg(not(feature = "sim"))]
#[inline(always)]
pub(crate) fn saw(_: WorkerId, _: Seen<'_>) {}
