//! Whether a driver goes on, and how it is heard of when it ends by itself.

use job_engine::WorkerId;
use thiserror::Error;
use tokio::sync::watch;

use crate::guarded::{Panic, guarded};

/// Why a driver has ended that nobody asked to. Its runs ended with it, unrecorded.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WorkerEnded {
    /// A bug of ours.
    #[error("it panicked: {0}")]
    Panicked(String),
    /// With it went all of its tasks.
    #[error("its tokio runtime was dropped")]
    RuntimeDropped,
}

/// What is asked of a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Nothing,
    Shutdown,
    /// By a simulator: it is not to be heard of.
    #[cfg_attr(not(feature = "sim"), expect(dead_code, reason = "nobody kills it"))]
    Death,
}

/// Where a driver is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Running,
    Stopped,
    EndedByItself(WorkerEnded),
}

/// The life of a driver, owned by its task. It tells how that ended, even if the task is
/// dropped with its runtime, or was never polled.
pub(super) struct Life {
    worker: WorkerId,
    stage: watch::Sender<Stage>,
    asked: watch::Receiver<Asked>,
}

impl Life {
    pub(super) fn new(
        worker: WorkerId,
        asked: watch::Receiver<Asked>,
    ) -> (Self, watch::Receiver<Stage>) {
        let (sender, stage) = watch::channel(Stage::Running);
        let life = Self {
            worker,
            stage: sender,
            asked,
        };
        (life, stage)
    }

    pub(super) fn end(self, ended: Result<(), Panic>) {
        match ended {
            Ok(()) => self.enter(Stage::Stopped),
            Err(panic) => self.ended_by_itself(WorkerEnded::Panicked(panic.message().to_owned())),
        }
    }

    fn ended_by_itself(&self, why: WorkerEnded) {
        let poller_id = self.worker;
        // A panic is told in any case.
        let draining = *self.asked.borrow() == Asked::Shutdown;
        guarded(|| match &why {
            WorkerEnded::RuntimeDropped if draining => tracing::warn!(
                %poller_id,
                "the worker's tokio runtime was dropped before its shutdown was over: what it \
                 still ran is run again when the leases run out; await the shutdown to its end"
            ),
            why => tracing::error!(
                %poller_id,
                %why,
                "the worker has ended by itself and runs no more jobs; what it ran is run again \
                 by other workers when the leases run out"
            ),
        });
        self.enter(Stage::EndedByItself(why));
    }

    /// The first end is the one that counts.
    fn enter(&self, end: Stage) {
        self.stage.send_if_modified(|stage| {
            let first = *stage == Stage::Running;
            if first {
                *stage = end;
            }
            first
        });
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let running = *self.stage.borrow() == Stage::Running;
        let asked = *self.asked.borrow();
        match asked {
            _ if !running => {}
            Asked::Death => self.enter(Stage::Stopped),
            Asked::Nothing | Asked::Shutdown => self.ended_by_itself(WorkerEnded::RuntimeDropped),
        }
    }
}
