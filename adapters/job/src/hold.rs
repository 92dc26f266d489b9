//! Work that goes on when its runner has ended.

use job_engine::worker::StopReason;
use job_tokio::{Hold, StopSignal};

/// Its run has not ended while this lives; from [`CurrentJob::hold`]. Clones hold the same
/// run, until the last is dropped.
///
/// What a runner starts with [`tokio::task::spawn_blocking`] or [`tokio::spawn`] goes on
/// when the runner is aborted: [`shutdown_timeout`] after a shutdown began, or after the
/// lease was lost. Without a guard its job is put back then, and runs elsewhere beside the
/// work that is left over. With a guard, the run keeps its place and its lease, and its end
/// is recorded once the guard is dropped: as the runner ended, or put back if it was
/// aborted.
///
/// A shutdown waits for 5 s at most beyond its `shutdown_timeout`. What is held
/// for longer keeps its job until the lease runs out, which is `job_lost_interval` after it
/// was last renewed; then the job runs elsewhere. So work of that length asks
/// [`RunGuard::is_shutdown_requested`] from time to time, as other threads cannot be aborted.
/// A guard that is never dropped takes a place for as long as the process lives.
///
/// # Examples
///
/// ```
/// use async_trait::async_trait;
/// use job::{CurrentJob, JobCompletion, JobRunner};
/// use std::error::Error;
///
/// struct Compress {
///     blocks: u32,
/// }
///
/// #[async_trait]
/// impl JobRunner for Compress {
///     async fn run(&self, job: CurrentJob) -> Result<JobCompletion, Box<dyn Error>> {
///         let (guard, blocks) = (job.hold(), self.blocks);
///         let done = tokio::task::spawn_blocking(move || {
///             for _block in 0..blocks {
///                 if guard.is_shutdown_requested() {
///                     return false;
///                 }
///                 // Compress the block.
///             }
///             true
///         });
///         match done.await? {
///             true => Ok(JobCompletion::Complete),
///             false => Ok(JobCompletion::RescheduleNow),
///         }
///     }
/// }
/// ```
///
/// [`CurrentJob::hold`]: crate::CurrentJob::hold
/// [`shutdown_timeout`]: crate::JobPollerConfig::shutdown_timeout
#[derive(Clone, Debug)]
#[must_use = "the run is held while the guard lives"]
pub struct RunGuard {
    signal: StopSignal,
    _hold: Hold,
}

impl RunGuard {
    pub(crate) fn new(signal: &StopSignal) -> Self {
        Self {
            signal: signal.clone(),
            _hold: signal.hold(),
        }
    }

    /// Whether the run should end early, as
    /// [`CurrentJob::is_shutdown_requested`](crate::CurrentJob::is_shutdown_requested).
    pub fn is_shutdown_requested(&self) -> bool {
        self.signal.reason().is_some()
    }

    /// Whether the lease of the run is lost, or could not be renewed in time: another
    /// worker may run the job now.
    pub fn is_lease_lost(&self) -> bool {
        self.signal.reason() == Some(StopReason::LeaseLost)
    }
}
