//! What must hold when a process is killed or stopped, one story a test.

use std::collections::BTreeSet;
use std::time::Duration;

use job::backend::begin_immediate;
use job::error::JobError;
use job::{
    CurrentJob, JobCompletion, JobId, JobPollerConfig, JobState, JobSvcConfig, Jobs, RetrySettings,
    Sqlite,
};
use job_engine::store::NewJob;
use job_engine::{Due, Payload};
use job_postgres::{PostgresStore, StoreOptions};
use job_tokio::Store;
use serde_json::Value;
use sqlx::{Executor, PgPool};

use super::{Role, Signal, Worker};
use crate::support::{TestDatabase, TestInitializer, ended, eventually, history};

const LEASE: Duration = Duration::from_secs(2);

/// The life of a worker process on the Postgres database at `url`.
pub async fn work_on_postgres(url: &str) {
    let mut jobs = service(url).await;
    start(&mut jobs).await;
    std::future::pending::<()>().await;
}

/// The life of a worker process on the SQLite file at `path`.
pub async fn work_on_sqlite(path: &str) {
    let mut jobs = service_on_file(path.as_ref()).await;
    jobs.add_initializer(TestInitializer::new("ledger", enter_on_file));
    jobs.start_poll().await.unwrap();
    std::future::pending::<()>().await;
}

/// What the server calls the connections of workers.
const WORKER: &str = "job-test-worker";

fn worker_on(database: &TestDatabase) -> Worker {
    let url = database.url();
    let and = if url.contains('?') { '&' } else { '?' };
    Worker::start(
        Role::Postgres,
        &format!("{url}{and}application_name={WORKER}"),
    )
}

/// The server carries out what a process had sent before it was killed.
async fn eventually_gone(pool: &PgPool) {
    eventually("the server forgets the worker", async || {
        let connections = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND application_name = $1";
        let connections = sqlx::query_scalar::<_, i64>(connections).bind(WORKER);
        (connections.fetch_one(pool).await.unwrap() == 0).then_some(())
    })
    .await;
}

async fn service(url: &str) -> Jobs {
    let poller = JobPollerConfig {
        job_lost_interval: LEASE,
        ..JobPollerConfig::default()
    };
    let config = JobSvcConfig::builder().pg_con(url).poller_config(poller);
    Jobs::init(config.build().unwrap()).await.unwrap()
}

/// Registers the types of these tests and polls.
async fn start(jobs: &mut Jobs) {
    let retry = RetrySettings {
        n_attempts: None,
        ..RetrySettings::default()
    };
    jobs.add_initializer(TestInitializer::completing("nothing"));
    let poison = TestInitializer::new("poison", |_, _| async { std::process::abort() });
    jobs.add_initializer(poison.crashes_max(2));
    jobs.add_initializer(TestInitializer::new("ledger", enter).retry(retry.clone()));
    jobs.add_initializer(TestInitializer::new("gated", pass_the_gate).retry(retry));
    jobs.start_poll().await.unwrap();
}

/// Takes some time and enters the run into the ledger, in the transaction that
/// it completes with.
async fn enter(job: CurrentJob, _: Value) -> Result<JobCompletion, String> {
    tokio::time::sleep(Duration::from_millis(20)).await;
    let entered = async {
        let mut transaction = job.pool().begin().await?;
        insert(&mut *transaction, &job, "entered").await?;
        Ok::<_, sqlx::Error>(transaction)
    };
    let transaction = entered.await.map_err(|error| error.to_string())?;
    Ok(JobCompletion::CompleteWithTx(transaction))
}

/// Waits for the gate of its attempt, then tries whatever a run can write, and
/// tells how that went.
async fn pass_the_gate(mut job: CurrentJob, _: Value) -> Result<JobCompletion, String> {
    let told = |error: sqlx::Error| error.to_string();
    let pool = job.pool().clone();
    insert(&pool, &job, "started").await.map_err(told)?;
    let attempt = i32::try_from(job.attempt()).unwrap();
    loop {
        let open = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM gates WHERE attempt = $1");
        let open = open.bind(attempt).fetch_one(&pool).await.map_err(told)?;
        if open > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let kept = match job.update_execution_state(attempt).await {
        Ok(()) => "kept a state",
        Err(JobError::LeaseLost(_)) => "lost the lease",
        Err(error) => return Err(error.to_string()),
    };
    insert(&pool, &job, kept).await.map_err(told)?;
    let mut transaction = pool.begin().await.map_err(told)?;
    insert(&mut *transaction, &job, "completed")
        .await
        .map_err(told)?;
    Ok(JobCompletion::CompleteWithTx(transaction))
}

async fn service_on_file(path: &std::path::Path) -> Jobs<Sqlite> {
    let poller = JobPollerConfig {
        job_lost_interval: LEASE,
        ..JobPollerConfig::default()
    };
    let config = JobSvcConfig::sqlite().path(path).poller_config(poller);
    Jobs::init(config.build().unwrap()).await.unwrap()
}

async fn enter_on_file(job: CurrentJob<Sqlite>, _: Value) -> Result<JobCompletion<Sqlite>, String> {
    tokio::time::sleep(Duration::from_millis(5)).await;
    let entered = async {
        let mut transaction = begin_immediate(job.pool()).await?;
        let insert = sqlx::query("INSERT INTO ledger (job) VALUES ($1)").bind(*job.id());
        insert.execute(&mut *transaction).await?;
        Ok::<_, sqlx::Error>(transaction)
    };
    let transaction = entered.await.map_err(|error| error.to_string())?;
    Ok(JobCompletion::CompleteWithTx(transaction))
}

async fn insert(
    executor: impl sqlx::PgExecutor<'_>,
    job: &CurrentJob,
    what: &str,
) -> Result<(), sqlx::Error> {
    let insert = "INSERT INTO ledger (job, attempt, what) VALUES ($1, $2, $3)";
    let insert = sqlx::query(insert).bind(*job.id());
    let insert = insert
        .bind(i32::try_from(job.attempt()).unwrap())
        .bind(what);
    insert.execute(executor).await?;
    Ok(())
}

async fn prepare(database: &TestDatabase) -> Jobs {
    let jobs = service(&database.url()).await;
    let tables = "CREATE TABLE ledger (job uuid, attempt int, what text);
                  CREATE TABLE gates (attempt int)";
    jobs.pool().execute(tables).await.unwrap();
    jobs
}

async fn spawn_many(pool: &PgPool, job_type: &'static str, count: usize) -> Vec<JobId> {
    let store = PostgresStore::new(pool.clone(), StoreOptions::default()).unwrap();
    let ids: Vec<JobId> = (0..count).map(|_| JobId::new()).collect();
    for (n, batch) in (0..).zip(ids.chunks(1_000)) {
        let jobs = batch.iter().map(|id| NewJob {
            id: (*id).into(),
            job_type: job_engine::JobType::new(job_type),
            unique_type: false,
            due: Due::Now,
            config: Payload::from_json("null"),
            trace: None,
            token: n,
        });
        let spawn = job_engine::Command::Spawn(jobs.collect());
        store.execute(None, &spawn).await.unwrap();
    }
    ids
}

async fn count(pool: &PgPool, sql: &str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
}

async fn entries(pool: &PgPool, what: &str) -> Vec<i32> {
    let entries = "SELECT attempt FROM ledger WHERE what = $1 ORDER BY attempt";
    sqlx::query_scalar(entries)
        .bind(what)
        .fetch_all(pool)
        .await
        .unwrap()
}

async fn eventually_entered(pool: &PgPool, what: &str, attempts: &[i32]) {
    eventually(&format!("attempts {attempts:?}: {what}"), async || {
        (entries(pool, what).await == attempts).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_amid_a_thousand_jobs_loses_none() {
    let database = TestDatabase::create().await;
    let jobs = prepare(&database).await;
    let ids = spawn_many(jobs.pool(), "ledger", 1_000).await;
    let first = worker_on(&database);
    eventually("the work is well under way", async || {
        (count(jobs.pool(), "SELECT count(*) FROM ledger").await > 200).then_some(())
    })
    .await;
    drop(first);
    eventually_gone(jobs.pool()).await;
    let running = count(jobs.pool(), "SELECT count(*) FROM job_live WHERE state = 1").await;
    assert!(running > 0, "it was killed in the middle");
    let _second = worker_on(&database);
    let mut lost = 0;
    for id in &ids {
        let job = ended(&jobs, *id).await;
        assert_eq!(job.state(), JobState::Completed);
        // Those that were put back for want of a place did not run.
        let mut ends = history(&job);
        ends.retain(|event| !matches!(*event, "started" | "released"));
        match &ends[..] {
            ["spawned", "completed"] => assert_eq!(job.attempt(), 1),
            ["spawned", "lease lost", "completed"] => {
                assert_eq!(job.attempt(), 2);
                lost += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        lost, running,
        "what ran when it was killed, and nothing else"
    );
    // In the transaction of the completion: exactly once.
    let entries: Vec<JobId> = sqlx::query_scalar("SELECT job FROM ledger")
        .fetch_all(jobs.pool())
        .await
        .unwrap();
    assert_eq!(entries.len(), ids.len());
    assert_eq!(BTreeSet::from_iter(entries), BTreeSet::from_iter(ids));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_on_sqlite_that_is_killed_again_and_again_loses_no_job() {
    const JOBS: i64 = 1_000;
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("jobs.db");
    let mut jobs = service_on_file(&path).await;
    jobs.pool()
        .execute("CREATE TABLE ledger (job blob)")
        .await
        .unwrap();
    let spawner = jobs.add_initializer(TestInitializer::new("ledger", enter_on_file));
    let mut transaction = begin_immediate(jobs.pool()).await.unwrap();
    let ids: Vec<JobId> = (0..JOBS).map(|_| JobId::new()).collect();
    for id in &ids {
        spawner
            .spawn_in_op(&mut transaction, *id, Value::Null)
            .await
            .unwrap();
    }
    transaction.commit().await.unwrap();
    let entries = async || {
        let entries = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM ledger");
        entries.fetch_one(jobs.pool()).await.unwrap()
    };
    for share in 1..=3 {
        let _killed = Worker::start(Role::Sqlite, path.to_str().unwrap());
        eventually("a fifth of the work is done", async || {
            (entries().await >= share * JOBS / 5).then_some(())
        })
        .await;
    }
    let _last = Worker::start(Role::Sqlite, path.to_str().unwrap());
    for id in &ids {
        let job = ended(&jobs, *id).await;
        assert_eq!(job.state(), JobState::Completed, "{:?}", history(&job));
    }
    assert_eq!(entries().await, JOBS);
    let distinct = "SELECT count(DISTINCT job) FROM ledger";
    let distinct: i64 = sqlx::query_scalar(distinct)
        .fetch_one(jobs.pool())
        .await
        .unwrap();
    assert_eq!(distinct, JOBS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_process_cannot_write_for_a_job_that_another_has_claimed() {
    let database = TestDatabase::create().await;
    let mut jobs = prepare(&database).await;
    let id = spawn_many(jobs.pool(), "gated", 1).await[0];
    let pool = jobs.pool().clone();
    let stopped = worker_on(&database);
    eventually_entered(&pool, "started", &[1]).await;
    stopped.signal(Signal::Stop);
    // This process takes the job over once the lease has run out.
    start(&mut jobs).await;
    eventually_entered(&pool, "started", &[1, 2]).await;
    pool.execute("INSERT INTO gates VALUES (1)").await.unwrap();
    stopped.signal(Signal::Continue);
    eventually_entered(&pool, "lost the lease", &[1]).await;
    assert_eq!(jobs.find(id).await.unwrap().state(), JobState::Running);
    pool.execute("INSERT INTO gates VALUES (2)").await.unwrap();
    let job = ended(&jobs, id).await;
    let expected = ["spawned", "started", "lease lost", "started", "completed"];
    assert_eq!(history(&job), expected);
    assert_eq!(entries(&pool, "kept a state").await, [2]);
    assert_eq!(entries(&pool, "completed").await, [2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_process_cannot_write_for_a_job_that_it_has_claimed_again() {
    let database = TestDatabase::create().await;
    let jobs = prepare(&database).await;
    let id = spawn_many(jobs.pool(), "gated", 1).await[0];
    let pool = jobs.pool().clone();
    let worker = worker_on(&database);
    eventually_entered(&pool, "started", &[1]).await;
    worker.signal(Signal::Stop);
    eventually("the lease runs out", async || {
        let lapsed = "SELECT count(*) FROM job_live WHERE lease_expires_at <= now()";
        (count(&pool, lapsed).await == 1).then_some(())
    })
    .await;
    // Somebody takes the job back, and only the stopped process can claim it.
    let store = PostgresStore::new(pool.clone(), StoreOptions::default()).unwrap();
    store.check_schema().await.unwrap();
    let policy = job_engine::store::TypePolicy {
        job_type: job_engine::JobType::new("gated"),
        attempts_max: None,
        crashes_max: None,
        healthy_after: Duration::MAX,
    };
    let reclaim = job_engine::Command::Reclaim(job_engine::store::Reclaim {
        policies: vec![policy],
        jobs_max: 1,
    });
    store.execute(None, &reclaim).await.unwrap();
    worker.signal(Signal::Continue);
    // As whoever takes a job back does. The worker hears of it at once, while
    // its old run is still at work.
    eventually("the worker claims the job again", async || {
        let gated = [job_engine::JobType::new("gated")].into();
        store.announce(&gated).await.unwrap();
        (entries(&pool, "started").await == [1, 2]).then_some(())
    })
    .await;
    eventually_entered(&pool, "started", &[1, 2]).await;
    pool.execute("INSERT INTO gates VALUES (1)").await.unwrap();
    eventually_entered(&pool, "lost the lease", &[1]).await;
    pool.execute("INSERT INTO gates VALUES (2)").await.unwrap();
    let job = ended(&jobs, id).await;
    assert_eq!((job.state(), job.attempt()), (JobState::Completed, 2));
    assert_eq!(entries(&pool, "kept a state").await, [2]);
    assert_eq!(entries(&pool, "completed").await, [2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_kills_its_process_is_stopped_after_some_crashes() {
    let database = TestDatabase::create().await;
    let mut jobs = prepare(&database).await;
    let id = spawn_many(jobs.pool(), "poison", 1).await[0];
    for _ in 0..2 {
        let mut worker = worker_on(&database);
        eventually("the worker dies of it", async || worker.exited()).await;
        eventually("the lease runs out", async || {
            let held = "SELECT count(*) FROM job_live WHERE lease_expires_at > now()";
            (count(jobs.pool(), held).await == 0).then_some(())
        })
        .await;
    }
    // This process would die of it, too.
    start(&mut jobs).await;
    let job = ended(&jobs, id).await;
    assert_eq!((job.state(), job.attempt()), (JobState::Errored, 2));
    let expected = ["spawned", "started", "lease lost", "started", "errored"];
    assert_eq!(history(&job), expected);
    let error = job.last_error().unwrap();
    assert!(
        error.contains("the job seems to crash or block its worker"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_run_twenty_thousand_jobs_once_each() {
    const JOBS: usize = 20_000;
    let database = TestDatabase::create().await;
    let jobs = prepare(&database).await;
    spawn_many(jobs.pool(), "nothing", JOBS).await;
    let _workers = [worker_on(&database), worker_on(&database)];
    let pool = jobs.pool();
    eventually("all are done", async || {
        let left = count(pool, "SELECT count(*) FROM job_live").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        (left == 0).then_some(())
    })
    .await;
    // A second run of a job would be a second row. What was claimed ahead and found no place
    // in time went back without a run.
    let runs = "SELECT count(*) FROM job_runs WHERE run_end = 1 AND attempt = 1";
    assert_eq!(count(pool, runs).await, JOBS as i64);
    let released = job_engine::lifecycle::RunEnd::Released.code();
    let others = format!("SELECT count(*) FROM job_runs WHERE run_end NOT IN (1, {released})");
    assert_eq!(count(pool, &others).await, 0);
    let workers = count(pool, "SELECT count(DISTINCT worker) FROM job_runs").await;
    assert_eq!(workers, 2, "they shared the work");
}
