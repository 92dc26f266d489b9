//! Creates jobs of one type.

use std::marker::PhantomData;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use job_engine::limits::BATCH_LEN_MAX;
use job_engine::store::{NewJob, Spawned};
use job_engine::{Command, Due, Payload, Reply};
use job_tokio::fault::fault_point;
use job_tokio::to_timestamp;
use serde::Serialize;
use tracing::instrument;

use crate::backend::{AtomicWrite, Backend, DefaultBackend};
use crate::core::{Core, wrong_reply};
use crate::error::JobError;
use crate::{Job, JobId, JobSpec, JobState, JobType, Spawn, readable, trace};

/// Creates jobs of one type. It comes from what registers the type
/// ([`Jobs::add_initializer`](crate::Jobs::add_initializer),
/// [`Jobs::add_task`](crate::Jobs::add_task)), or, where that is elsewhere, from
/// [`Jobs::spawner`](crate::Jobs::spawner).
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
    /// Makes a job. Nothing happens until it is awaited; until then it can be told when it
    /// is due, by which id it is known, and in which transaction it comes about: see
    /// [`Spawn`].
    pub fn job(&self, config: Config) -> Spawn<Config, B> {
        Spawn::new(self.clone(), config)
    }

    /// Creates a job that is due at once.
    ///
    /// A lost connection does not create it twice: the call is repeated under
    /// the same key.
    ///
    /// # Errors
    ///
    /// [`JobError::DuplicateId`] if another job has the id; it is left as it
    /// is. [`JobError::SerializeConfig`] if the config has no JSON, or none that a runner
    /// could read (a number in it is infinite or NaN, or it is nested more than 127 deep).
    /// Otherwise an error of the store.
    pub async fn spawn(&self, id: impl Into<JobId>, config: Config) -> Result<Job, JobError> {
        self.spawn_due(id.into(), config, Due::Now).await
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
        self.spawn_due(id.into(), config, due).await
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

    /// Creates all of these jobs in one transaction, or none of them. It is much faster
    /// than one by one. Returns them in the order of `specs`.
    ///
    /// A lost connection creates none of them twice.
    ///
    /// # Errors
    ///
    /// [`JobError::DuplicateId`] with the least id that another job has, one of
    /// `specs` included: then none is created. Otherwise as [`JobSpawner::spawn`].
    #[instrument(
        name = "job_spawner.spawn_all",
        skip_all,
        fields(job_type = %self.job_type, jobs = specs.len())
    )]
    pub async fn spawn_all(&self, specs: Vec<JobSpec<Config>>) -> Result<Vec<Job>, JobError> {
        let order = lock_order(&specs);
        let spawns = self.spawns(&specs, &order)?;
        let replies = self.core.spawn_all(&spawns).await?;
        fault_point(self.core.worker(), "after_spawn").await;
        let jobs = put_back(&order, self.all_spawned(&spawns, replies)?);
        if !jobs.is_empty() {
            self.core.wake(self.job_type.as_engine());
        }
        Ok(jobs)
    }

    /// Creates all of these jobs in a transaction of the caller: they exist when, and
    /// only when, it commits.
    ///
    /// # Errors
    ///
    /// As [`JobSpawner::spawn_all`]. The transaction can go on after a duplicate; but
    /// then some of the jobs may be part of it.
    #[instrument(
        name = "job_spawner.spawn_all",
        skip_all,
        fields(job_type = %self.job_type, jobs = specs.len())
    )]
    pub async fn spawn_all_in_op(
        &self,
        op: &mut (impl AtomicWrite<B> + ?Sized),
        specs: Vec<JobSpec<Config>>,
    ) -> Result<Vec<Job>, JobError> {
        let order = lock_order(&specs);
        let spawns = self.spawns(&specs, &order)?;
        op.fits(self.core.store())?;
        if !spawns.is_empty() {
            // Before any is refused: what was created by then may be committed.
            self.wake_after_commit(op).await?;
        }
        let mut jobs = Vec::with_capacity(specs.len());
        for spawn in &spawns {
            let reply = self.core.execute_in(op, spawn).await?;
            jobs.extend(self.all_spawned(std::slice::from_ref(spawn), vec![reply])?);
        }
        Ok(put_back(&order, jobs))
    }

    /// Creates the one job of this type, due at once, unless it exists or ever
    /// did. Consumes the spawner, so that no second job comes from it.
    ///
    /// Jobs of the type that were spawned in another way do not count.
    ///
    /// A unique job that ended as errored is there, too, and nothing runs then: that is
    /// logged as a warning. [`JobSpawner::spawn_unique_or_find`] tells the caller.
    ///
    /// # Errors
    ///
    /// As [`JobSpawner::spawn`], but `Ok` if the unique job was there already.
    pub async fn spawn_unique(self, id: impl Into<JobId>, config: Config) -> Result<(), JobError> {
        match self.spawn_new(id.into(), &config, Due::Now, true).await? {
            (_, Spawned::DuplicateUniqueType(existing)) => {
                // That it is there is all that was asked.
                if let Ok(job) = self.existing(existing.into()).await
                    && job.state() == JobState::Errored
                {
                    tracing::warn!(
                        job_id = %job.id, job_type = %job.job_type,
                        error = job.last_error().unwrap_or_default(),
                        "the unique job of this type has ended as errored: none runs"
                    );
                }
                Ok(())
            }
            (new, spawned) => self.outcome(&new, spawned).map(|_| ()),
        }
    }

    /// Creates the one job of this type, as [`JobSpawner::spawn_unique`], or finds the one
    /// that there is. Returns it: [`Job::id`] tells whether it is the new one, and
    /// [`Job::state`] how it is.
    ///
    /// # Errors
    ///
    /// As [`JobSpawner::spawn`].
    pub async fn spawn_unique_or_find(
        self,
        id: impl Into<JobId>,
        config: Config,
    ) -> Result<Job, JobError> {
        match self.spawn_new(id.into(), &config, Due::Now, true).await? {
            (_, Spawned::DuplicateUniqueType(existing)) => self.existing(existing.into()).await,
            (new, spawned) => self.outcome(&new, spawned),
        }
    }

    pub(crate) async fn spawn_due(
        &self,
        id: JobId,
        config: Config,
        due: Due,
    ) -> Result<Job, JobError> {
        let (new, spawned) = self.spawn_new(id, &config, due, false).await?;
        self.outcome(&new, spawned)
    }

    #[instrument(
        name = "job_spawner.spawn",
        skip_all,
        fields(job_id = %id, job_type = %self.job_type)
    )]
    async fn spawn_new(
        &self,
        id: JobId,
        config: &Config,
        due: Due,
        unique_type: bool,
    ) -> Result<(NewJob, Spawned), JobError> {
        let new = self.new_job(id, config, due, unique_type)?;
        let spawned = self.core.spawn(&new).await?;
        fault_point(self.core.worker(), "after_spawn").await;
        if spawned == Spawned::Created {
            self.core.wake(self.job_type.as_engine());
        }
        Ok((new, spawned))
    }

    pub(crate) async fn existing(&self, id: JobId) -> Result<Job, JobError> {
        self.core.find(id).await
    }

    pub(crate) async fn existing_in(
        &self,
        op: &mut (impl AtomicWrite<B> + ?Sized),
        id: JobId,
    ) -> Result<Job, JobError> {
        self.core.find_in(op, id).await
    }

    #[instrument(
        name = "job_spawner.spawn",
        skip_all,
        fields(job_id = %id, job_type = %self.job_type)
    )]
    pub(crate) async fn spawn_due_in(
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
        self.wake_after_commit(op).await?;
        Ok(job)
    }

    async fn wake_after_commit(
        &self,
        op: &mut (impl AtomicWrite<B> + ?Sized),
    ) -> Result<(), JobError> {
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
        Ok(())
    }

    /// The jobs as commands, each of as many as one may create.
    fn spawns(&self, specs: &[JobSpec<Config>], order: &[usize]) -> Result<Vec<Command>, JobError> {
        let batches = order.chunks(BATCH_LEN_MAX);
        batches
            .map(|batch| {
                let jobs = batch.iter().map(|at| {
                    let spec = &specs[*at];
                    let due = match spec.schedule_at {
                        Some(at) => Due::At(to_timestamp(at)),
                        None => Due::Now,
                    };
                    self.new_job(spec.id, &spec.config, due, false)
                });
                Ok(Command::Spawn(jobs.collect::<Result<_, JobError>>()?))
            })
            .collect()
    }

    /// What became of them: of all, or of those up to the first that was refused.
    fn all_spawned(&self, spawns: &[Command], replies: Vec<Reply>) -> Result<Vec<Job>, JobError> {
        let complete = replies.len() == spawns.len();
        let mut jobs = Vec::new();
        for (spawn, reply) in spawns.iter().zip(replies) {
            let (Command::Spawn(new), Reply::Spawned(spawned)) = (spawn, &reply) else {
                return Err(wrong_reply(&reply));
            };
            if new.len() != spawned.len() {
                return Err(wrong_reply(&reply));
            }
            for (new, spawned) in new.iter().zip(spawned) {
                jobs.push(self.outcome(new, *spawned)?);
            }
        }
        if !complete {
            return Err(wrong_reply(&Reply::Spawned(Vec::new())));
        }
        Ok(jobs)
    }

    fn new_job(
        &self,
        id: JobId,
        config: &Config,
        due: Due,
        unique_type: bool,
    ) -> Result<NewJob, JobError> {
        let json = readable::to_json(config).map_err(|source| JobError::SerializeConfig {
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
            Some(spawned) => self.outcome(new, *spawned),
            None => Err(wrong_reply(&Reply::Spawned(spawned))),
        }
    }

    fn outcome(&self, new: &NewJob, spawned: Spawned) -> Result<Job, JobError> {
        match spawned {
            Spawned::Created => Ok(Job::from_spawn(new, self.core.clock().timestamp())),
            Spawned::DuplicateId => Err(JobError::DuplicateId(new.id.into())),
            Spawned::DuplicateUniqueType(_) => {
                Err(JobError::DuplicateUniqueType(self.job_type.clone()))
            }
        }
    }
}

/// The places of the specs by their ids: in this order all who spawn many wait for each
/// other in one direction only.
fn lock_order<Config>(specs: &[JobSpec<Config>]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..specs.len()).collect();
    order.sort_by_key(|at| job_engine::JobId::from(specs[*at].id));
    order
}

/// The jobs in the places from which they were taken.
fn put_back(order: &[usize], jobs: Vec<Job>) -> Vec<Job> {
    let mut placed: Vec<_> = order.iter().zip(jobs).collect();
    placed.sort_by_key(|(at, _)| **at);
    placed.into_iter().map(|(_, job)| job).collect()
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
