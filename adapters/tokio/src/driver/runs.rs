//! The tasks in which the runners run.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use futures_util::future::{AbortHandle, Abortable};
use job_engine::planted::{Bug, planted};
use job_engine::store::ClaimedJob;
use job_engine::worker::{Ended, StopReason};
use job_engine::{ErrorText, JobType, Run, WorkerId};
use tokio::task::{JoinError, JoinSet};

use super::RunJob;
use super::signal::{StopSender, StopSignal};
use crate::clock::{BusyGuard, ClockHandle};
use crate::observer::{Seen, saw};
use crate::turn::in_turn;

/// One task a run. Whatever happens in it, its end is reported with the run
/// that it was.
pub(super) struct RunTasks {
    worker: WorkerId,
    clock: ClockHandle,
    tasks: JoinSet<(Run, Ended, BusyGuard)>,
    controls: BTreeMap<Run, Control>,
}

struct Control {
    stop: StopSender,
    abort: AbortHandle,
}

impl RunTasks {
    pub(super) fn new(worker: WorkerId, clock: ClockHandle) -> Self {
        Self {
            worker,
            clock,
            tasks: JoinSet::new(),
            controls: BTreeMap::new(),
        }
    }

    pub(super) fn start<R: RunJob>(&mut self, runners: &R, job: ClaimedJob) {
        let (worker, run) = (self.worker, job.run);
        saw(worker, Seen::Started(&job));
        let (stop, signal) = StopSignal::new();
        let (abort, registration) = AbortHandle::new_pair();
        self.controls.insert(run, Control { stop, abort });
        let name = TaskName {
            run,
            job_type: job.job_type.clone(),
        };
        let work = Abortable::new(runners.run_job(job, signal), registration);
        // The runner is dropped inside of what catches panics, so that neither
        // its work nor its destructor can take the end of the run away.
        #[expect(
            clippy::redundant_async_block,
            reason = "it decides what is dropped where"
        )]
        let work = AssertUnwindSafe(async move { work.await }).catch_unwind();
        let clock = self.clock.clone();
        let future = async move {
            let result = work.await;
            let unreported = result.is_err() && planted(Bug::PanicKillsReport);
            let ended = match result {
                Ok(Ok(ended)) => ended,
                Ok(Err(_aborted)) => Ended::Aborted,
                Err(panic) => Ended::Failed(panic_text(&*panic)),
            };
            saw(worker, Seen::Ended(run, &ended));
            if unreported {
                std::future::pending::<()>().await;
            }
            (run, ended, clock.busy())
        };
        let future = self.clock.participate(in_turn(worker, Some(run), future));
        spawn(&mut self.tasks, &name, future);
    }

    pub(super) fn stop(&self, run: Run, reason: StopReason) {
        if let Some(control) = self.controls.get(&run)
            && !planted(Bug::StopNotDelivered)
        {
            saw(self.worker, Seen::Told(run, reason));
            control.stop.stop(reason);
        }
    }

    pub(super) fn abort(&self, run: Run) {
        if let Some(control) = self.controls.get(&run)
            && !planted(Bug::AbortNotDone)
        {
            saw(self.worker, Seen::Aborted(run));
            control.abort.abort();
        }
    }

    /// The next run that ends; `None` while there is none. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<(Run, Ended)> {
        let joined = self.tasks.join_next().await?;
        Some(self.ended(joined))
    }

    /// A run that has ended by now.
    pub(super) fn next_now(&mut self) -> Option<(Run, Ended)> {
        let joined = self.tasks.try_join_next()?;
        Some(self.ended(joined))
    }

    fn ended(&mut self, joined: Result<(Run, Ended, BusyGuard), JoinError>) -> (Run, Ended) {
        let (run, ended, _busy) = joined.expect("run tasks catch panics, nobody aborts them");
        self.controls.remove(&run);
        (run, ended)
    }
}

/// What the task of a run is called.
#[cfg_attr(
    not(all(feature = "tokio-task-names", tokio_unstable)),
    expect(dead_code, reason = "tasks have no names without it")
)]
struct TaskName {
    run: Run,
    job_type: JobType,
}

/// What is recorded of a runner that panicked with this.
pub fn panic_text(panic: &(dyn Any + Send)) -> ErrorText {
    let message = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    ErrorText::new(&format!("the runner panicked: {message}"))
}

#[cfg(all(feature = "tokio-task-names", tokio_unstable))]
fn spawn<F>(tasks: &mut JoinSet<(Run, Ended, BusyGuard)>, name: &TaskName, future: F)
where
    F: Future<Output = (Run, Ended, BusyGuard)> + Send + 'static,
{
    let name = format!("job-{}-{}", name.job_type, name.run.job);
    // The only error is that the runtime is gone, and then so is this task.
    let _ = tasks.build_task().name(&name).spawn(future);
}

#[cfg(not(all(feature = "tokio-task-names", tokio_unstable)))]
fn spawn<F>(tasks: &mut JoinSet<(Run, Ended, BusyGuard)>, _: &TaskName, future: F)
where
    F: Future<Output = (Run, Ended, BusyGuard)> + Send + 'static,
{
    tasks.spawn(future);
}
