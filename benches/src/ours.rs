//! `job` as an application would use it, in its default configuration.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use job::{
    Backend, CurrentJob, Job, JobCompletion, JobId, JobInitializer, JobRunner, JobSpawner, JobSpec,
    JobSvcConfig, JobType, Jobs, TaskContext, TaskResult,
};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::Result;
use crate::database::Database;
use crate::floor::CHUNK;

/// The job type of all that is measured, floors included.
pub const JOB_TYPE: &str = "bench";

/// How often to look whether the last runs are recorded, once they have ended.
pub const RECORDED_POLL: Duration = Duration::from_millis(1);

/// What a job is given.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Task {
    /// A number of its own.
    pub n: u64,
}

impl Task {
    /// As the job's row has it.
    pub fn json(self) -> String {
        format!(r#"{{"n":{}}}"#, self.n)
    }
}

/// It does nothing but count itself.
impl job::Task for Task {
    const TYPE: &'static str = JOB_TYPE;
    type State = Arc<Tally>;

    async fn run(self, cx: TaskContext<Arc<Tally>>) -> TaskResult {
        cx.state().add();
        Ok(JobCompletion::Complete)
    }
}

/// The jobs of one type, whose runners call a closure.
pub struct Initializer<F>(Arc<F>);

impl<F, Fut> Initializer<F>
where
    F: Fn(Task) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    /// Runners that do this.
    pub fn new(work: F) -> Self {
        Self(Arc::new(work))
    }
}

/// Runners that do nothing but count themselves.
pub fn counting(
    tally: &Arc<Tally>,
) -> Initializer<impl Fn(Task) -> BoxFuture<'static, ()> + Send + Sync + 'static> {
    let tally = Arc::clone(tally);
    Initializer::new(move |_| {
        tally.add();
        Box::pin(std::future::ready(())) as BoxFuture<'static, ()>
    })
}

impl<B, F, Fut> JobInitializer<B> for Initializer<F>
where
    B: Backend,
    F: Fn(Task) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    type Config = Task;

    fn job_type(&self) -> JobType {
        JobType::new(JOB_TYPE)
    }

    fn init(
        &self,
        job: &Job,
        _: JobSpawner<Task, B>,
    ) -> Result<Box<dyn JobRunner<B>>, Box<dyn Error>> {
        Ok(Box::new(Runner {
            task: job.config()?,
            work: Arc::clone(&self.0),
        }))
    }
}

struct Runner<F> {
    task: Task,
    work: Arc<F>,
}

#[async_trait]
impl<B, F, Fut> JobRunner<B> for Runner<F>
where
    B: Backend,
    F: Fn(Task) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    async fn run(&self, _: CurrentJob<B>) -> Result<JobCompletion<B>, Box<dyn Error>> {
        (self.work)(self.task).await;
        Ok(JobCompletion::Complete)
    }
}

/// How many runners ran.
#[derive(Debug)]
pub struct Tally {
    ran: AtomicU64,
    target: u64,
    reached: Notify,
}

impl Tally {
    /// None so far; `target` are waited for, and then each further one.
    pub fn new(target: usize) -> Arc<Self> {
        Arc::new(Self {
            ran: AtomicU64::new(0),
            target: target as u64,
            reached: Notify::new(),
        })
    }

    /// One more.
    pub fn add(&self) {
        if self.ran.fetch_add(1, Ordering::Relaxed) + 1 >= self.target {
            self.reached.notify_one();
        }
    }

    /// How many there are.
    pub fn ran(&self) -> u64 {
        self.ran.load(Ordering::Relaxed)
    }

    /// Waits until the target is reached; called again, until there are more. For
    /// one caller.
    pub async fn reached(&self) {
        self.reached.notified().await;
    }
}

/// A service in its default configuration on a Postgres database, whose tables it
/// makes if they are missing.
///
/// # Errors
///
/// When the database cannot be opened.
pub async fn service(url: &str) -> Result<Jobs> {
    let config = JobSvcConfig::builder().pg_con(url).build()?;
    Ok(Jobs::init(config).await?)
}

/// Makes the tables of a Postgres database and enqueues jobs.
///
/// # Errors
///
/// When one of them is not created.
pub async fn filled(database: &Database, jobs: usize) -> Result<()> {
    let mut service = service(&database.url()).await?;
    let spawner = service.add_initializer(counting(&Tally::new(0)));
    spawn_all(&spawner, jobs).await?;
    // Nothing of this service is to be busy while others are measured.
    let pool = service.pool().clone();
    drop((service, spawner));
    pool.close().await;
    Ok(())
}

/// Enqueues jobs, [`CHUNK`] at a time, each time in a transaction of its own.
///
/// # Errors
///
/// When one of them is not created.
pub async fn spawn_all<B: Backend>(spawner: &JobSpawner<Task, B>, jobs: usize) -> Result<()> {
    let numbers: Vec<u64> = (0..jobs as u64).collect();
    for chunk in numbers.chunks(CHUNK) {
        let specs = chunk
            .iter()
            .map(|n| JobSpec::new(JobId::new(), Task { n: *n }));
        spawner.spawn_all(specs.collect()).await?;
    }
    Ok(())
}

/// Waits until so many runs are in the history, and says how many statements that
/// took.
///
/// # Errors
///
/// When the database does not answer.
pub async fn recorded(connection: &mut PgConnection, runs: usize) -> Result<u32> {
    let mut statements = 0;
    loop {
        statements += 1;
        let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM job_runs");
        if count.fetch_one(&mut *connection).await? >= i64::try_from(runs)? {
            return Ok(statements);
        }
        sleep(RECORDED_POLL).await;
    }
}

/// How many in a second.
pub fn rate(jobs: usize, since: Instant) -> f64 {
    jobs as f64 / since.elapsed().as_secs_f64()
}
