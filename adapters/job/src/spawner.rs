//! Creates jobs of one type.

use std::marker::PhantomData;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use job_engine::store::{NewJob, Spawned};
use job_engine::{Command, Due, Payload, Reply};
use job_tokio::fault::fault_point;
use job_tokio::to_timestamp;
use serde::Serialize;
use tracing::instrument;

use crate::backend::{AtomicWrite, Backend, DefaultBackend};
use crate::core::{Core, wrong_reply};
use crate::error::JobError;
use crate::{Job, JobId, JobType, trace};

/// Creates jobs of the type whose initializer it came from
/// ([`Jobs::add_initializer`](crate::Jobs::add_initializer)).
///
/// It works in processes that never poll, too.
pub struct JobSpawner<Config, B: Backend = DefaultBackend> {
    core: Arc<Core<B>>,
    job_type: JobType,
    _config: PhantomData<fn(Config)>,
}

impl<Config, B: Backend> JobSpawner<Config, B> {
    /// The type of the jobs that it creates.
    pub fn job_type(&self) -> &JobType {
        &self.job_type
    }

    pub(crate) fn new(core: Arc<Core<B>>, job_type: JobType) -> Self {
        Self {
            core,
            job_type,
            _config: PhantomData,
        }
    }
}

impl<Config: Serialize + Send + Sync, B: Backend> JobSpawner<Config, B> {
    /// Creates a job that is due at once.
    ///
    /// A lost connection does not create it twice: the call is repeated under
    /// the same key.
    ///
    /// # Errors
    ///
    /// [`JobError::DuplicateId`] if another job has the id; it is left as it
    /// is. Otherwise a config that cannot be serialized, or an error of the
    /// store.
    pub async fn spawn(&self, id: impl Into<JobId>, config: Config) -> Result<Job, JobError> {
        self.spawn_due(id.into(), config, Due::Now, false).await
    }

    /// Creates a job that is due at `schedule_at`; a time in the past is at
    /// once. Times are kept to the microsecond, up to the year 9999.
    ///
    /// # Errors
    ///
    /// As [`JobSpawner::spawn`].
    pub async fn spawn_at(
        &self,
        id: impl Into<JobId>,
        config: Config,
        schedule_at: DateTime<Utc>,
    ) -> Result<Job, JobError> {
        let due = Due::At(to_timestamp(schedule_at));
        self.spawn_due(id.into(), config, due, false).await
    }

    /// Creates a job that is due at once, in a transaction of the caller: the
    /// job exists when, and only when, the transaction commits.
    ///
    /// # Errors
    ///
    /// As [`JobSpawner::spawn`]; a duplicate leaves the transaction usable.
    pub async fn spawn_in_op(
        &self,
        op: &mut (impl AtomicWrite<B> + ?Sized),
        id: impl Into<JobId>,
        config: Config,
    ) -> Result<Job, JobError> {
        self.spawn_due_in(op, id.into(), config, Due::Now).await
    }

    /// Creates a job that is due at `schedule_at`, in a transaction of the
    /// caller.
    ///
    /// # Errors
    ///
    /// As [`JobSpawner::spawn_in_op`].
    pub async fn spawn_at_in_op(
        &self,
        op: &mut (impl AtomicWrite<B> + ?Sized),
        id: impl Into<JobId>,
        config: Config,
        schedule_at: DateTime<Utc>,
    ) -> Result<Job, JobError> {
        let due = Due::At(to_timestamp(schedule_at));
        self.spawn_due_in(op, id.into(), config, due).await
    }

    /// Creates the one job of this type, due at once, unless it exists or ever
    /// did. Consumes the spawner, so that no second job comes from it.
    ///
    /// Jobs of the type that were spawned in another way do not count.
    ///
    /// # Errors
    ///
    /// As [`JobSpawner::spawn`], but `Ok` if the unique job was there already.
    pub async fn spawn_unique(self, id: impl Into<JobId>, config: Config) -> Result<(), JobError> {
        match self.spawn_due(id.into(), config, Due::Now, true).await {
            Ok(_) | Err(JobError::DuplicateUniqueType(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    #[instrument(
        name = "job_spawner.spawn",
        skip_all,
        fields(job_id = %id, job_type = %self.job_type)
    )]
    async fn spawn_due(
        &self,
        id: JobId,
        config: Config,
        due: Due,
        unique_type: bool,
    ) -> Result<Job, JobError> {
        let new = self.new_job(id, &config, due, unique_type)?;
        let command = Command::Spawn(vec![new.clone()]);
        let reply = self.core.execute(&command).await?;
        fault_point(self.core.worker(), "after_spawn").await;
        let job = self.spawned(&new, reply)?;
        self.core.wake(self.job_type.as_engine());
        Ok(job)
    }

    #[instrument(
        name = "job_spawner.spawn",
        skip_all,
        fields(job_id = %id, job_type = %self.job_type)
    )]
    async fn spawn_due_in(
        &self,
        op: &mut (impl AtomicWrite<B> + ?Sized),
        id: JobId,
        config: Config,
        due: Due,
    ) -> Result<Job, JobError> {
        let new = self.new_job(id, &config, due, false)?;
        let command = Command::Spawn(vec![new.clone()]);
        let reply = self.core.execute_in(op, &command).await?;
        let job = self.spawned(&new, reply)?;
        let wake = {
            let core = Arc::downgrade(&self.core);
            let job_type = self.job_type.clone();
            move || {
                if let Some(core) = core.upgrade() {
                    core.wake(job_type.as_engine());
                }
            }
        };
        let store = self.core.store();
        op.after_commit(store, self.job_type.as_engine(), Box::new(wake))
            .await?;
        Ok(job)
    }

    fn new_job(
        &self,
        id: JobId,
        config: &Config,
        due: Due,
        unique_type: bool,
    ) -> Result<NewJob, JobError> {
        let json = serde_json::to_string(config).map_err(|source| JobError::SerializeConfig {
            job_type: self.job_type.clone(),
            source,
        })?;
        Ok(NewJob {
            id: id.into(),
            job_type: self.job_type.as_engine().clone(),
            unique_type,
            due,
            config: Payload::from_json(json),
            trace: trace::current(),
            token: self.core.spawn_token(),
        })
    }

    fn spawned(&self, new: &NewJob, reply: Reply) -> Result<Job, JobError> {
        let Reply::Spawned(spawned) = reply else {
            return Err(wrong_reply(&reply));
        };
        match spawned.first() {
            Some(Spawned::Created) => Ok(Job::from_spawn(new, self.core.clock().timestamp())),
            Some(Spawned::DuplicateId) => Err(JobError::DuplicateId(new.id.into())),
            Some(Spawned::DuplicateUniqueType) => {
                Err(JobError::DuplicateUniqueType(self.job_type.clone()))
            }
            None => Err(wrong_reply(&Reply::Spawned(spawned))),
        }
    }
}

impl<Config, B: Backend> Clone for JobSpawner<Config, B> {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.core), self.job_type.clone())
    }
}

impl<Config, B: Backend> std::fmt::Debug for JobSpawner<Config, B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JobSpawner")
            .field("job_type", &self.job_type)
            .finish_non_exhaustive()
    }
}
