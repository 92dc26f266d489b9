//! A job that is to be created together with others.

use std::fmt;

use chrono::{DateTime, Utc};

use crate::JobId;

/// Describes a job for [`JobSpawner::spawn_all`](crate::JobSpawner::spawn_all).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use job::{Clock, JobId, JobSpec};
///
/// let now = JobSpec::new(JobId::new(), "at once");
/// let later = JobSpec::new(JobId::new(), "later")
///     .schedule_at(Clock::now() + Duration::from_secs(60));
/// assert!(now.schedule_at < later.schedule_at);
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct JobSpec<Config> {
    /// Its identity.
    pub id: JobId,
    /// What the runner is given.
    pub config: Config,
    /// When it is due; `None`, the default, is at once.
    pub schedule_at: Option<DateTime<Utc>>,
}

impl<Config> JobSpec<Config> {
    /// A job that is due at once.
    pub fn new(id: impl Into<JobId>, config: Config) -> Self {
        Self {
            id: id.into(),
            config,
            schedule_at: None,
        }
    }

    /// The same, due at `schedule_at`; a time in the past is at once. Times are kept
    /// to the microsecond, up to the year 9999.
    #[must_use]
    pub fn schedule_at(mut self, schedule_at: DateTime<Utc>) -> Self {
        self.schedule_at = Some(schedule_at);
        self
    }
}

// Without the config, which may hold secrets.
impl<Config> fmt::Debug for JobSpec<Config> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobSpec")
            .field("id", &self.id)
            .field("schedule_at", &self.schedule_at)
            .finish_non_exhaustive()
    }
}
