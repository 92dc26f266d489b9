//! When the tasks of a process are polled.
//!
//! Without the feature `sim` they always are. With it, a simulator is asked before
//! each poll, through a hook of its thread: so a process can stand still as a whole,
//! and one that is gone does nothing more. It is for runtimes of a single thread:
//! tasks on other threads do not see the hook.

#[cfg(feature = "sim")]
pub use simulated::{Turns, set_turns};

use job_engine::{Run, WorkerId};

/// A task of the process of `worker`, the one that performs `run` if it does.
#[cfg(feature = "sim")]
pub fn in_turn<F: Future>(
    worker: WorkerId,
    run: Option<Run>,
    future: F,
) -> impl Future<Output = F::Output> {
    simulated::Turn::new(worker, run, future)
}

/// The future itself.
#[cfg(not(feature = "sim"))]
#[inline(always)]
pub(crate) fn in_turn<F: Future>(_: WorkerId, _: Option<Run>, future: F) -> F {
    future
}

#[cfg(feature = "sim")]
mod simulated {
    use std::cell::RefCell;
    use std::pin::Pin;
    use std::rc::Rc;
    use std::task::{Context, Poll, Waker};

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
    }

    thread_local! {
        static TURNS: RefCell<Option<Rc<dyn Turns>>> = const { RefCell::new(None) };
    }

    /// Sets the hook of this thread, or takes it away.
    pub fn set_turns(turns: Option<Rc<dyn Turns>>) {
        TURNS.set(turns);
    }

    pub(super) struct Turn<F> {
        worker: WorkerId,
        run: Option<Run>,
        future: Pin<Box<F>>,
    }

    impl<F: Future> Turn<F> {
        pub(super) fn new(worker: WorkerId, run: Option<Run>, future: F) -> Self {
            let future = Box::pin(future);
            Self {
                worker,
                run,
                future,
            }
        }
    }

    impl<F: Future> Future for Turn<F> {
        type Output = F::Output;

        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
            // Not borrowed during the call, so that a hook may replace itself.
            let Some(turns) = TURNS.with_borrow(Option::clone) else {
                return self.future.as_mut().poll(cx);
            };
            if !turns.begin(self.worker, self.run, cx.waker()) {
                return Poll::Pending;
            }
            // Also if the poll panics.
            let _turn = Begun(turns);
            self.future.as_mut().poll(cx)
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
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;
    use std::task::Waker;

    use tokio::task::JoinSet;
    use tokio::task::yield_now;
    use uuid::Uuid;

    use super::*;

    /// One process stands still.
    #[derive(Default)]
    struct Still {
        worker: Cell<u128>,
        waits: RefCell<Vec<Waker>>,
        at: Cell<u128>,
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
        set_turns(None);
    }
}
