//! A job that is about to be spawned.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use job_engine::Due;
use job_tokio::to_timestamp;
use serde::Serialize;

use crate::backend::{AtomicWrite, Backend, DefaultBackend};
use crate::core::Core;
use crate::error::JobError;
use crate::{Job, JobId, JobSpawner, JobType, Task};

type Spawning<'a, T> = Pin<Box<dyn Future<Output = Result<T, JobError>> + Send + 'a>>;

/// A job that is about to be spawned, by [`Jobs::spawn`](crate::Jobs::spawn) or
/// [`JobSpawner::job`]. It is when this is awaited; then there is a [`Job`].
///
/// By default it is due at once, has a new id, and is committed by itself.
///
/// If the future is dropped before it is done, by a timeout perhaps, the job may or may not
/// come about. With an id of one's own and [`Spawn::or_find`] it can be spawned again.
///
/// # Errors
///
/// As [`JobSpawner::spawn`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use job::{JobError, JobId, JobType, Jobs};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), JobError> {
/// let jobs = Jobs::connect("memory:").await?;
/// let reports = jobs.spawner::<u32>(JobType::new("report"));
///
/// let id = JobId::new();
/// let hour = Duration::from_secs(3_600);
/// reports.job(2026).id(id).after(hour).await?;
///
/// // Whoever comes second finds it.
/// let spawned = reports.job(2026).id(id).or_find().await?;
/// assert!(!spawned.created);
/// # Ok(())
/// # }
/// ```
#[must_use = "it is spawned when it is awaited"]
pub struct Spawn<C, B: Backend = DefaultBackend> {
    spawner: JobSpawner<C, B>,
    config: C,
    job: Said,
}

/// What was said of a job.
#[derive(Debug)]
struct Said {
    id: JobId,
    due: Due,
}

/// As [`Spawn`], in a transaction of the caller: the job exists when, and only when, that
/// commits. If the future is dropped before it is done, roll it back.
///
/// # Errors
///
/// As [`JobSpawner::spawn_in_op`].
#[must_use = "it is spawned when it is awaited"]
pub struct SpawnIn<'a, C, B: Backend, T: ?Sized> {
    spawn: Spawn<C, B>,
    op: &'a mut T,
}

/// As [`Spawn`] or [`SpawnIn`], unless there is a job with this id already: then that is
/// found. Awaited, it is a [`Spawned`].
///
/// # Errors
///
/// As those; [`JobError::DuplicateId`] only if the job with this id is one of another type.
#[must_use = "it is spawned when it is awaited"]
pub struct OrFind<S>(S);

/// A job that was spawned, or was there already.
#[derive(Clone, Debug)]
pub struct Spawned {
    /// The job.
    pub job: Job,
    /// Whether it came about by this call, or by an earlier try of it.
    pub created: bool,
}

impl<T: Task, B: Backend> Spawn<T, B> {
    pub(crate) fn of_task(core: &Arc<Core<B>>, task: T) -> Self {
        let spawner = JobSpawner::new(Arc::clone(core), JobType::new(T::TYPE));
        Self::new(spawner, task)
    }
}

impl<C, B: Backend> Spawn<C, B> {
    pub(crate) fn new(spawner: JobSpawner<C, B>, config: C) -> Self {
        Self {
            spawner,
            config,
            job: Said {
                id: JobId::new(),
                due: Due::Now,
            },
        }
    }

    /// In a transaction of the caller: the job exists when, and only when, it commits.
    ///
    /// It is to be one of the database of the service. One of another kind of database is
    /// refused with [`JobError::OtherBackend`]; one of another database of the same kind is not
    /// noticed: the job is created there, if that has the tables.
    pub fn in_tx<T: AtomicWrite<B> + ?Sized>(self, op: &mut T) -> SpawnIn<'_, C, B, T> {
        SpawnIn { spawn: self, op }
    }

    /// If there is a job of this type with this id already, it is found, and left as it is.
    pub fn or_find(self) -> OrFind<Self> {
        OrFind(self)
    }
}

impl<C, B: Backend, T: ?Sized> SpawnIn<'_, C, B, T> {
    /// As [`Spawn::or_find`].
    pub fn or_find(self) -> OrFind<Self> {
        OrFind(self)
    }
}

impl<C, B: Backend> OrFind<Spawn<C, B>> {
    /// As [`Spawn::in_tx`].
    pub fn in_tx<T: AtomicWrite<B> + ?Sized>(self, op: &mut T) -> OrFind<SpawnIn<'_, C, B, T>> {
        self.0.in_tx(op).or_find()
    }
}

/// What can be said of a job, in whichever order.
macro_rules! says {
    ($(impl[$($of:tt)*] $spawn:ty, $($path:tt).+;)+) => { $(
        impl<$($of)*> $spawn {
            /// By which id it is known. Two jobs with one id cannot exist, so an id that
            /// follows from what the job is about makes it come about once; a second spawn of
            /// it is refused with [`JobError::DuplicateId`], or finds it
            /// ([`Spawn::or_find`]). Default: a new one.
            pub fn id(mut self, id: impl Into<JobId>) -> Self {
                self.$($path).+.id = id.into();
                self
            }

            /// When it is due; a time in the past is at once. Times are kept to the
            /// microsecond, up to the year 9999. The last of this and `after` holds.
            pub fn at(mut self, at: DateTime<Utc>) -> Self {
                self.$($path).+.due = Due::At(to_timestamp(at));
                self
            }

            /// After how long it is due, by the clock of the database, or the artificial clock
            /// if there is one; at the end of the year 9999 if that is longer.
            pub fn after(mut self, delay: Duration) -> Self {
                self.$($path).+.due = Due::In(delay);
                self
            }
        }
    )+ };
}

says! {
    impl[C, B: Backend] Spawn<C, B>, job;
    impl[C, B: Backend, T: ?Sized] SpawnIn<'_, C, B, T>, spawn.job;
    impl[C, B: Backend] OrFind<Spawn<C, B>>, 0.job;
    impl[C, B: Backend, T: ?Sized] OrFind<SpawnIn<'_, C, B, T>>, 0.spawn.job;
}

impl<C, B> IntoFuture for Spawn<C, B>
where
    C: Serialize + Send + Sync + 'static,
    B: Backend,
{
    type Output = Result<Job, JobError>;
    type IntoFuture = Spawning<'static, Job>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let spawner = &self.spawner;
            spawner
                .spawn_due(self.job.id, self.config, self.job.due)
                .await
        })
    }
}

impl<'a, C, B, T> IntoFuture for SpawnIn<'a, C, B, T>
where
    C: Serialize + Send + Sync + 'static,
    B: Backend,
    T: AtomicWrite<B> + ?Sized,
{
    type Output = Result<Job, JobError>;
    type IntoFuture = Spawning<'a, Job>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { spawn, op } = self;
            let spawner = &spawn.spawner;
            spawner
                .spawn_due_in(op, spawn.job.id, spawn.config, spawn.job.due)
                .await
        })
    }
}

impl<C, B> IntoFuture for OrFind<Spawn<C, B>>
where
    C: Serialize + Send + Sync + 'static,
    B: Backend,
{
    type Output = Result<Spawned, JobError>;
    type IntoFuture = Spawning<'static, Spawned>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let OrFind(spawn) = self;
            let (spawner, id) = (spawn.spawner.clone(), spawn.job.id);
            let spawned = spawn.await;
            let existing = spawner.existing(id);
            or_existing(spawned, existing, spawner.job_type()).await
        })
    }
}

impl<'a, C, B, T> IntoFuture for OrFind<SpawnIn<'a, C, B, T>>
where
    C: Serialize + Send + Sync + 'static,
    B: Backend,
    T: AtomicWrite<B> + ?Sized,
{
    type Output = Result<Spawned, JobError>;
    type IntoFuture = Spawning<'a, Spawned>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let OrFind(SpawnIn { spawn, op }) = self;
            let (spawner, id) = (spawn.spawner.clone(), spawn.job.id);
            let spawned = spawn.in_tx(&mut *op).await;
            let existing = spawner.existing_in(op, id);
            or_existing(spawned, existing, spawner.job_type()).await
        })
    }
}

/// What is there in place of a job whose id was taken. Only of its type it is what the caller
/// means.
async fn or_existing(
    spawned: Result<Job, JobError>,
    existing: impl Future<Output = Result<Job, JobError>>,
    job_type: &JobType,
) -> Result<Spawned, JobError> {
    let (job, created) = match spawned {
        Err(duplicate @ JobError::DuplicateId(_)) => match existing.await? {
            job if job.job_type == *job_type => (job, false),
            _ => return Err(duplicate),
        },
        spawned => (spawned?, true),
    };
    Ok(Spawned { job, created })
}

impl Deref for Spawned {
    type Target = Job;

    fn deref(&self) -> &Job {
        &self.job
    }
}

impl<C, B: Backend> fmt::Debug for Spawn<C, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spawn")
            .field("job_type", self.spawner.job_type())
            .field("job", &self.job)
            .finish_non_exhaustive()
    }
}

impl<C, B: Backend, T: ?Sized> fmt::Debug for SpawnIn<'_, C, B, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SpawnIn").field(&self.spawn).finish()
    }
}

impl<S: fmt::Debug> fmt::Debug for OrFind<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OrFind").field(&self.0).finish()
    }
}
