//! What a worker is told once, when it is made.

use std::time::Duration;

use crate::ids::JobType;
use crate::limits::BATCH_LEN_MAX;
use crate::retry::RetrySettings;
use crate::store::TypePolicy;

/// How a worker behaves.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// The job types that it runs, and how each is retried.
    pub types: Vec<TypeConfig>,
    /// At most so many jobs run at once. At least 1.
    pub jobs_max: u32,
    /// While at least so many run, places that become free are gathered for up to
    /// [`GATHER_TIME`](super::GATHER_TIME), so that a claim takes several jobs at once.
    /// 1 to `jobs_max`.
    pub jobs_min: u32,
    /// How long a job may go without a heartbeat before it counts as lost.
    /// Heartbeats are sent every quarter of it, lost jobs looked for every half.
    pub lease: Duration,
    /// How often to look for due jobs while announcements arrive.
    pub poll_interval: Duration,
    /// How often to look for due jobs while announcements cannot arrive.
    pub poll_interval_deaf: Duration,
    /// How long a shutdown waits for jobs that run, before it aborts them.
    pub shutdown_timeout: Duration,
}

/// One job type of a worker.
#[derive(Clone, Debug)]
pub struct TypeConfig {
    /// The type.
    pub job_type: JobType,
    /// What follows a failure.
    pub retry: RetrySettings,
    /// Crashes in a row after which a job ends as errored; `None` for no limit.
    pub crashes_max: Option<u32>,
    /// A job whose config cannot be decoded is put back for so long, and then ends as
    /// errored.
    pub undecodable_max: Duration,
}

impl TypeConfig {
    /// What other workers are told of the type when they find a lost job.
    pub fn policy(&self) -> TypePolicy {
        TypePolicy {
            job_type: self.job_type.clone(),
            attempts_max: self.retry.n_attempts,
            crashes_max: self.crashes_max,
            healthy_after: self.retry.healthy_after(),
        }
    }
}

/// The shortest period of anything periodic. A configured zero would make the
/// worker spin.
const PERIOD_MIN: Duration = Duration::from_millis(10);

impl WorkerConfig {
    /// The same with every value moved into its range.
    pub(super) fn clamped(mut self) -> Self {
        self.jobs_max = self.jobs_max.clamp(1, BATCH_LEN_MAX as u32);
        self.jobs_min = self.jobs_min.clamp(1, self.jobs_max);
        self.lease = self.lease.max(PERIOD_MIN * 4);
        self.poll_interval = self.poll_interval.max(PERIOD_MIN);
        self.poll_interval_deaf = self.poll_interval_deaf.max(PERIOD_MIN);
        self
    }
}
