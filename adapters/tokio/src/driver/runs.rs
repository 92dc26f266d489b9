//! The tasks in which the runners run.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::{AbortHandle, Abortable};
use job_engine::store::ClaimedJob;
use job_engine::worker::{Ended, StopReason};
use job_engine::{ErrorText, JobType, Run, WorkerId};
use tokio::task::{Id, JoinError, JoinSet};

use super::RunJob;
use super::signal::{StopSender, StopSignal};
use crate::clock::{BusyGuard, ClockHandle};
use crate::guarded::{Panic, caught};
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
    /// `None` if the runtime is gone.
    task: Option<Id>,
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

    pub(super) fn start<R: RunJob>(&mut self, runners: &Arc<R>, job: ClaimedJob) {
        let (worker, run) = (self.worker, job.run);
        saw(worker, Seen::Started(&job));
        let (stop, signal) = StopSignal::new();
        let (abort, registration) = AbortHandle::new_pair();
        let name = TaskName {
            run,
            job_type: job.job_type.clone(),
        };
        // The runner is made and dropped inside of what catches panics, so that neither
        // its work nor its destructor can take the end of the run away.
        let (runners, held) = (Arc::clone(runners), signal.clone());
        let work = move || Abortable::new(runners.run_job(job, signal), registration);
        let clock = self.clock.clone();
        let future = async move {
            let result = caught(work).await;
            let ended = match result {
                Ok(Ok(ended)) => ended,
                Ok(Err(_aborted)) => Ended::Aborted,
                Err(panic) => panicked(panic.message()),
            };
            held.let_go().await;
            saw(worker, Seen::Ended(run, &ended));
            (run, ended, clock.busy())
        };
        let future = self.clock.participate(in_turn(worker, Some(run), future));
        let task = spawn(&mut self.tasks, &name, future);
        self.controls.insert(run, Control { stop, abort, task });
    }

    pub(super) fn stop(&self, run: Run, reason: StopReason) {
        if let Some(control) = self.controls.get(&run) {
            saw(self.worker, Seen::Told(run, reason));
            control.stop.stop(reason);
        }
    }

    pub(super) fn abort(&self, run: Run) {
        if let Some(control) = self.controls.get(&run) {
            saw(self.worker, Seen::Aborted(run));
            control.abort.abort();
        }
    }

    /// The next run that ends; `None` while there is none. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<(Run, Ended)> {
        loop {
            let joined = self.tasks.join_next().await?;
            if let Some(ended) = self.ended(joined) {
                return Some(ended);
            }
        }
    }

    /// A run that has ended by now.
    pub(super) fn next_now(&mut self) -> Option<(Run, Ended)> {
        loop {
            let joined = self.tasks.try_join_next()?;
            if let Some(ended) = self.ended(joined) {
                return Some(ended);
            }
        }
    }

    fn ended(
        &mut self,
        joined: Result<(Run, Ended, BusyGuard), JoinError>,
    ) -> Option<(Run, Ended)> {
        let (run, ended) = match joined {
            Ok((run, ended, _busy)) => (run, ended),
            // All that is not ours is caught within the task, so this is not expected.
            // The driver, whose other runs go on, must not end of it.
            Err(error) => {
                let task = Some(error.id());
                let mut controls = self.controls.iter();
                let (run, _) = controls.find(|(_, control)| control.task == task)?;
                let ended = match Panic::of_task(error) {
                    Some(panic) => panicked(panic.message()),
                    None => Ended::Aborted,
                };
                (*run, ended)
            }
        };
        self.controls.remove(&run);
        Some((run, ended))
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

/// What is recorded of a runner that panicked with this message.
pub fn panicked(message: &str) -> Ended {
    Ended::Failed(ErrorText::new(&format!("the runner panicked: {message}")))
}

#[cfg(all(feature = "tokio-task-names", tokio_unstable))]
fn spawn<F>(tasks: &mut JoinSet<(Run, Ended, BusyGuard)>, name: &TaskName, future: F) -> Option<Id>
where
    F: Future<Output = (Run, Ended, BusyGuard)> + Send + 'static,
{
    let name = format!("job-{}-{}", name.job_type, name.run.job);
    // The only error is that the runtime is gone, and then so is this task.
    let task = tasks.build_task().name(&name).spawn(future);
    task.ok().map(|task| task.id())
}

#[cfg(not(all(feature = "tokio-task-names", tokio_unstable)))]
fn spawn<F>(tasks: &mut JoinSet<(Run, Ended, BusyGuard)>, _: &TaskName, future: F) -> Option<Id>
where
    F: Future<Output = (Run, Ended, BusyGuard)> + Send + 'static,
{
    Some(tasks.spawn(future).id())
}
