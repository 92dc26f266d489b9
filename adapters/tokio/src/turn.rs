//! When the tasks of a process are polled.
//!
//! Without the feature `sim` they always are. With it, a simulator is asked before
//! each poll, through a hook of its thread: so a process can stand still as a whole,
//! and one that is gone does nothing more. It is for runtimes of a single thread:
//! tasks on other threads do not see the hook.

#[cfg(feature = "sim")]
pub use simulated::{Turns, Wait, set_turns};

use std::time::Duration;

use job_engine::{Run, Worker, WorkerId};

use crate::clock::ClockHandle;
#[cfg(not(feature = "sim"))]
use crate::clock::ClockSleep;

/// A task of the process of `worker`, the one that performs `run` if it does.
#[cfg(feature = "sim")]
pub fn in_turn<F: Future + 'static>(
    worker: WorkerId,
    run: Option<Run>,
    future: F,
) -> impl Future<Output = F::Output> {
    simulated::Turn::new(worker, run, future)
}

/// How the driver of `worker` waits until it has to look again.
#[cfg(feature = "sim")]
pub(crate) async fn wait(worker: &Worker, clock: &ClockHandle, duration: Duration) {
    let rests = worker.rests();
    match rests.and_then(|period| simulated::wait(worker.id(), duration, period)) {
        Some(wait) => wait.await,
        None => clock.sleep(duration).await,
    }
}

/// A sleep.
#[cfg(not(feature = "sim"))]
#[inline(always)]
#[track_caller]
pub(crate) fn wait(_: &Worker, clock: &ClockHandle, duration: Duration) -> ClockSleep {
    clock.sleep(duration)
}

/// The future itself.
#[cfg(not(feature = "sim"))]
#[inline(always)]
pub(crate) fn in_turn<F: Future>(_: WorkerId, _: Option<Run>, future: F) -> F {
    future
}

#[cfg(feature = "sim")]
mod simulated {
    use std::any::Any;
    use std::cell::RefCell;
    use std::pin::Pin;
    use std::rc::Rc;
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use job_engine::{Run, WorkerId};

    /// Decides which processes stand still.
    pub trait Turns {
        /// Whether a task of this worker's process may be polled now; `run` is what
        /// it performs, if it is that of a runner. If so, [`Turns::end`] follows at
        /// once after the poll. If not, whoever decides so wakes the task when it may
        /// again.
        fn begin(&self, worker: WorkerId, run: Option<Run>, task: &Waker) -> bool;

        /// The poll is over.
        fn end(&self);

        /// How the driver of this worker waits for so long, if not by its clock. It has
        /// nothing else to do than to look for jobs once in each period, so it may be
        /// woken late where it would find none.
        fn wait(&self, worker: WorkerId, duration: Duration, period: Duration) -> Option<Wait>;

        /// A task of this worker's process is dropped: ended, aborted, or never polled
        /// again. A process that is gone drops nothing itself, so whoever lets it crash
        /// keeps `remains` until nothing depends on when it is dropped.
        fn bury(&self, worker: WorkerId, remains: Box<dyn Any>);
    }

    /// A wait of a driver.
    pub type Wait = Pin<Box<dyn Future<Output = ()> + Send>>;

    thread_local! {
        static TURNS: RefCell<Option<Rc<dyn Turns>>> = const { RefCell::new(None) };
    }

    /// Sets the hook of this thread, or takes it away.
    pub fn set_turns(turns: Option<Rc<dyn Turns>>) {
        TURNS.set(turns);
    }

    pub(super) fn wait(worker: WorkerId, duration: Duration, period: Duration) -> Option<Wait> {
        let turns = TURNS.with_borrow(Option::clone)?;
        turns.wait(worker, duration, period)
    }

    pub(super) struct Turn<F: 'static> {
        worker: WorkerId,
        run: Option<Run>,
        /// `None` once it is over.
        future: Option<Pin<Box<F>>>,
    }

    impl<F: Future> Turn<F> {
        pub(super) fn new(worker: WorkerId, run: Option<Run>, future: F) -> Self {
            let future = Some(Box::pin(future));
            Self {
                worker,
                run,
                future,
            }
        }
    }

    impl<F: Future + 'static> Future for Turn<F> {
        type Output = F::Output;

        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
            // Not borrowed during the call, so that a hook may replace itself.
            let (worker, run) = (self.worker, self.run);
            let future = self.future.as_mut().expect("it is not over");
            let Some(turns) = TURNS.with_borrow(Option::clone) else {
                return future.as_mut().poll(cx);
            };
            if !turns.begin(worker, run, cx.waker()) {
                return Poll::Pending;
            }
            // Also if the poll panics.
            let _turn = Begun(turns);
            let polled = future.as_mut().poll(cx);
            if polled.is_ready() {
                self.future = None;
            }
            polled
        }
    }

    impl<F: 'static> Drop for Turn<F> {
        fn drop(&mut self) {
            // The thread may be about to end.
            let turns = TURNS
                .try_with(|turns| turns.borrow().clone())
                .ok()
                .flatten();
            if let (Some(turns), Some(future)) = (turns, self.future.take()) {
                turns.bury(self.worker, Box::new(future));
            }
        }
    }

    struct Begun(Rc<dyn Turns>);

    impl Drop for Begun {
        fn drop(&mut self) {
            self.0.end();
        }
    }
}

#[cfg(all(test, feature = "sim"))]
mod tests {
    use std::any::Any;
    use std::cell::{Cell, RefCell};
    use std::future::pending;
    use std::rc::Rc;
    use std::task::Waker;

    use futures_util::FutureExt;
    use tokio::task::{JoinSet, yield_now};
    use uuid::Uuid;

    use super::*;

    /// One process stands still.
    #[derive(Default)]
    struct Still {
        worker: Cell<u128>,
        waits: RefCell<Vec<Waker>>,
        at: Cell<u128>,
        buried: RefCell<Vec<Box<dyn Any>>>,
    }

    impl Turns for Still {
        fn begin(&self, worker: WorkerId, _: Option<Run>, task: &Waker) -> bool {
            let worker = worker.0.as_u128();
            if worker == self.worker.get() {
                self.waits.borrow_mut().push(task.clone());
                return false;
            }
            self.at.set(worker);
            true
        }

        fn end(&self) {
            self.at.set(0);
        }

        fn wait(&self, _: WorkerId, _: Duration, _: Duration) -> Option<Wait> {
            None
        }

        fn bury(&self, _: WorkerId, remains: Box<dyn Any>) {
            self.buried.borrow_mut().push(remains);
        }
    }

    #[tokio::test]
    async fn a_process_that_stands_still_goes_on_where_it_was() {
        let still = Rc::new(Still::default());
        set_turns(Some(still.clone()));
        still.worker.set(2);
        let mut tasks = JoinSet::new();
        for worker in 1..=2 {
            let id = WorkerId(Uuid::from_u128(worker));
            tasks.spawn(in_turn(id, None, async move {
                yield_now().await;
                worker
            }));
        }
        assert_eq!(tasks.join_next().await.unwrap().unwrap(), 1);
        for _ in 0..10 {
            yield_now().await;
        }
        assert!(tasks.try_join_next().is_none());
        still.worker.set(0);
        still.waits.take().into_iter().for_each(Waker::wake);
        assert_eq!(tasks.join_next().await.unwrap().unwrap(), 2);
        assert_eq!(still.at.get(), 0, "nobody has a turn outside of polls");
        assert!(still.buried.borrow().is_empty());
        set_turns(None);
    }

    #[tokio::test]
    async fn what_is_left_of_an_aborted_task_is_handed_over() {
        let still = Rc::new(Still::default());
        set_turns(Some(still.clone()));
        let held = Rc::new(());
        let guard = held.clone();
        let mut task = Box::pin(in_turn(WorkerId(Uuid::from_u128(1)), None, async move {
            let _guard = guard;
            pending::<()>().await;
        }));
        assert!((&mut task).now_or_never().is_none());
        drop(task);
        assert_eq!(Rc::strong_count(&held), 2, "it was not dropped");
        still.buried.take();
        assert_eq!(Rc::strong_count(&held), 1);
        set_turns(None);
    }
}
