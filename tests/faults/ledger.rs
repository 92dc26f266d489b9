//! Work whose effects can be counted: every job writes into a ledger, and when all
//! is over the ledger must balance.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use job::error::JobError;
use job::{
    CurrentJob, Job, JobCompletion, JobId, JobPollerConfig, JobSpawner, JobState, JobSvcConfig,
    Jobs, RetrySettings,
};
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Executor, PgPool};

use crate::support::{TestInitializer, eventually, history};

/// How long a job may go without a heartbeat.
pub const LEASE: Duration = Duration::from_secs(3);
/// How the statement of a connection that listens begins.
pub const LISTENS: &str = "LISTEN";

/// Some services, and what they were asked to do.
pub struct Ledger {
    /// Past whatever goes wrong.
    pool: PgPool,
    services: Vec<Service>,
    spawned: Vec<Spawned>,
}

struct Service {
    jobs: Jobs,
    in_transaction: JobSpawner<Value>,
    outside: JobSpawner<Value>,
}

struct Spawned {
    job: JobId,
    in_transaction: bool,
    /// Whether the spawner was told that the job exists.
    certain: bool,
}

/// What happened, to see that something did.
#[derive(Debug, Default)]
pub struct Balance {
    pub jobs: usize,
    pub lost_leases: usize,
    pub failed_runs: usize,
    /// Runs of jobs whose effects may come more than once, beyond the first.
    pub repeated: usize,
}

impl Ledger {
    /// `straight` leads to the server past whatever goes wrong; each of `ways` is
    /// how a service gets there.
    pub async fn open(straight: PgConnectOptions, ways: &[String]) -> Self {
        // Each statement may be the first after the server was away.
        let pool = PgPoolOptions::new().connect_lazy_with(straight.clone());
        pool.execute("CREATE TABLE ledger (job uuid NOT NULL)")
            .await
            .unwrap();
        let mut services = Vec::new();
        for way in ways {
            services.push(Service::start(way).await);
        }
        Self {
            pool,
            services,
            spawned: Vec::new(),
        }
    }

    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Spawns jobs that take so long, all at once, every service in turn. Whoever is not told
    /// whether a spawn was committed does not ask again.
    pub async fn spawn(&mut self, count: usize, work: Duration) {
        let work = Value::from(work.as_millis() as u64);
        let services = &self.services;
        let spawns = (0..count).map(|n| {
            let work = work.clone();
            async move {
                let service = &services[n % services.len()];
                let in_transaction = n % 3 != 0;
                let spawner = match in_transaction {
                    true => &service.in_transaction,
                    false => &service.outside,
                };
                let job = JobId::new();
                let result = spawner.spawn(job, work).await;
                assert!(
                    !matches!(result, Err(JobError::DuplicateId(_))),
                    "a repeat of a spawn is the same spawn"
                );
                Spawned {
                    job,
                    in_transaction,
                    certain: result.is_ok(),
                }
            }
        });
        self.spawned.extend(join_all(spawns).await);
    }

    /// Waits until so many jobs run at once.
    pub async fn runs(&self, count: i64) {
        eventually("jobs run", async || {
            let running = sqlx::query_scalar("SELECT count(*) FROM job_live WHERE state = 1");
            let running: i64 = running.fetch_one(&self.pool).await.ok()?;
            (running >= count).then_some(())
        })
        .await;
    }

    /// Spawns jobs that take so long, until every service runs some of them.
    pub async fn spawn_everywhere(&mut self, work: Duration) {
        let mut running = 0;
        loop {
            self.spawn(10, work).await;
            running += 10;
            self.runs(running).await;
            let workers = "SELECT count(DISTINCT worker) FROM job_live WHERE state = 1";
            let workers: i64 = sqlx::query_scalar(workers)
                .fetch_one(&self.pool)
                .await
                .unwrap();
            if workers == self.services.len() as i64 {
                return;
            }
        }
    }

    /// Spawns a job that no service hears of but by an announcement.
    pub async fn spawn_from_outside(&mut self, job: JobId, work: Value) {
        let outsider = JobSvcConfig::builder().pool(self.pool.clone());
        let mut outsider: Jobs = Jobs::init(outsider.build().unwrap()).await.unwrap();
        let spawner = outsider.add_initializer(TestInitializer::new("outside", enter_outside));
        spawner.spawn(job, work).await.unwrap();
        self.spawned.push(Spawned {
            job,
            in_transaction: false,
            certain: true,
        });
    }

    /// Waits until all jobs have ended.
    pub async fn all_ended(&self) {
        eventually("all jobs end", async || {
            let left = sqlx::query_scalar("SELECT count(*) FROM job_live");
            let left: i64 = left.fetch_one(&self.pool).await.ok()?;
            (left == 0).then_some(())
        })
        .await;
    }

    /// Once nothing is wrong any more: waits until all jobs have ended, and compares
    /// the ledger with what it must be.
    pub async fn balance(self) -> Balance {
        let judge = JobSvcConfig::builder().pool(self.pool.clone());
        let judge: Jobs = Jobs::init(judge.build().unwrap()).await.unwrap();
        self.all_ended().await;
        let rows = sqlx::query_scalar("SELECT job FROM ledger");
        let rows: Vec<JobId> = rows.fetch_all(&self.pool).await.unwrap();
        let mut entries: BTreeMap<JobId, usize> = BTreeMap::new();
        for job in rows {
            *entries.entry(job).or_default() += 1;
        }
        let mut balance = Balance::default();
        for spawned in &self.spawned {
            let entries = entries.remove(&spawned.job).unwrap_or(0);
            match judge.find(spawned.job).await {
                Ok(job) => balance.add(&job, spawned, entries),
                Err(JobError::NotFound(id)) => {
                    assert!(!spawned.certain, "{id} was spawned, and is lost");
                    assert_eq!(entries, 0, "{id} was never spawned, and ran");
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert!(entries.is_empty(), "of nobody's jobs: {entries:?}");
        for service in self.services {
            service.jobs.shutdown().await.unwrap();
        }
        balance
    }
}

impl Balance {
    fn add(&mut self, job: &Job, spawned: &Spawned, entries: usize) {
        let id = spawned.job;
        let history = history(job);
        assert_eq!(job.state(), JobState::Completed, "{id}: {history:?}");
        let count = |what: &str| history.iter().filter(|event| **event == what).count();
        assert_eq!(count("completed"), 1, "{id}: {history:?}");
        let ended = count("completed") + count("failed") + count("lease lost");
        // Those that were put back did nothing: nobody shuts down meanwhile.
        let put_back = count("aborted") + count("released");
        assert_eq!(count("started"), ended + put_back, "{id}: {history:?}");
        if spawned.in_transaction {
            assert_eq!(entries, 1, "{id} is to have one entry: {history:?}");
        } else {
            assert!(entries >= 1, "{id} is to have an entry: {history:?}");
            assert!(
                entries <= ended,
                "{id} has more entries than runs: {history:?}"
            );
            self.repeated += entries - 1;
        }
        self.jobs += 1;
        self.lost_leases += count("lease lost");
        self.failed_runs += count("failed");
    }
}

impl Service {
    async fn start(url: &str) -> Self {
        let poller = JobPollerConfig {
            job_lost_interval: LEASE,
            ..JobPollerConfig::default()
        };
        let config = JobSvcConfig::builder()
            .pg_con(url)
            .max_connections(4)
            .poller_config(poller);
        let mut jobs = Jobs::init(config.build().unwrap()).await.unwrap();
        let retry = RetrySettings {
            n_attempts: None,
            n_warn_attempts: None,
            min_backoff: Duration::from_millis(50),
            max_backoff: Duration::from_secs(1),
            ..RetrySettings::default()
        };
        let enter = TestInitializer::new("in_transaction", enter_in_transaction);
        let in_transaction = jobs.add_initializer(enter.retry(retry.clone()));
        let enter = TestInitializer::new("outside", enter_outside);
        let outside = jobs.add_initializer(enter.retry(retry));
        jobs.start_poll().await.unwrap();
        Self {
            jobs,
            in_transaction,
            outside,
        }
    }
}

const ENTER: &str = "INSERT INTO ledger (job) VALUES ($1)";

async fn work(config: &Value) {
    let work = config.as_u64().expect("milliseconds");
    tokio::time::sleep(Duration::from_millis(work)).await;
}

async fn enter_in_transaction(job: CurrentJob, config: Value) -> Result<JobCompletion, String> {
    work(&config).await;
    let entered = async {
        let mut transaction = job.pool().begin().await?;
        let enter = sqlx::query(ENTER).bind(*job.id());
        enter.execute(&mut *transaction).await?;
        Ok::<_, sqlx::Error>(transaction)
    };
    let transaction = entered.await.map_err(|error| error.to_string())?;
    Ok(JobCompletion::CompleteWithTx(transaction))
}

async fn enter_outside(mut job: CurrentJob, config: Value) -> Result<JobCompletion, String> {
    work(&config).await;
    let kept = job.update_execution_state(job.attempt()).await;
    kept.map_err(|error| error.to_string())?;
    let enter = sqlx::query(ENTER).bind(*job.id());
    let entered = enter.execute(job.pool()).await;
    entered.map_err(|error| error.to_string())?;
    Ok(JobCompletion::Complete)
}
