//! What only Postgres has: other processes, es-entity, schemas, poolers.

use std::sync::Arc;
use std::time::Duration;

use job::error::JobError;
use job::{
    ArtificialClockConfig, ClockHandle, JobCompletion, JobId, JobPollerConfig, JobState,
    JobSvcConfig, JobType, Jobs,
};
use serde_json::Value;
use sqlx::Executor;
use tokio::sync::Notify;

use crate::support::{TestDatabase, TestInitializer, ended, eventually, history};

async fn service(database: &TestDatabase) -> Jobs {
    let config = JobSvcConfig::builder()
        .pg_con(database.url())
        .max_connections(5);
    Jobs::init(config.build().unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_process_hears_of_jobs_that_others_spawn() {
    let database = TestDatabase::create().await;
    // Its own polls would come an hour later.
    let config = JobSvcConfig::builder().pg_con(database.url());
    let config = config
        .poll_interval(Duration::from_secs(3600))
        .build()
        .unwrap();
    let mut worker = Jobs::init(config).await.unwrap();
    worker.add_initializer(TestInitializer::completing("remote"));
    worker.start_poll().await.unwrap();
    let mut client = service(&database).await;
    let spawner = client.add_initializer(TestInitializer::completing("remote"));
    // It may not listen yet when the first is announced; it looks when it does.
    for _ in 0..3 {
        let id = JobId::new();
        spawner.spawn(id, Value::Null).await.unwrap();
        ended(&client, id).await;
    }
    // In a transaction of the application, the announcement goes along.
    let id = JobId::new();
    let mut transaction = client.pool().begin().await.unwrap();
    spawner
        .spawn_in_op(&mut transaction, id, Value::Null)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    ended(&client, id).await;
}

#[tokio::test]
async fn an_operation_of_es_entity_commits_with_the_completion() {
    let database = TestDatabase::create().await;
    let mut jobs = service(&database).await;
    jobs.pool()
        .execute("CREATE TABLE ledger (job uuid, kind text)")
        .await
        .unwrap();
    let spawner = jobs.add_initializer(TestInitializer::new(
        "once",
        |job: job::CurrentJob, _| async move {
            let mut op = job.begin_op().await.map_err(|error| error.to_string())?;
            sqlx::query("INSERT INTO ledger VALUES ($1, $2)")
                .bind(*job.id())
                .bind(job.job_type().clone())
                .execute(&mut **op.tx_mut())
                .await
                .map_err(|error| error.to_string())?;
            Ok(JobCompletion::CompleteWithOp(op))
        },
    ));
    jobs.start_poll().await.unwrap();
    let id = JobId::new();
    spawner.spawn(id, Value::Null).await.unwrap();
    ended(&jobs, id).await;
    let row: (JobId, JobType) = sqlx::query_as("SELECT job, kind FROM ledger")
        .fetch_one(jobs.pool())
        .await
        .unwrap();
    assert_eq!(row, (id, JobType::new("once")));
}

#[tokio::test]
async fn a_job_spawned_in_an_operation_of_es_entity_runs_after_its_commit() {
    let database = TestDatabase::create().await;
    let mut jobs = service(&database).await;
    let spawner = jobs.add_initializer(TestInitializer::completing("child"));
    jobs.start_poll().await.unwrap();
    let id = JobId::new();
    let mut op = es_entity::DbOp::init(jobs.pool()).await.unwrap();
    spawner.spawn_in_op(&mut op, id, Value::Null).await.unwrap();
    op.commit().await.unwrap();
    ended(&jobs, id).await;
}

#[tokio::test]
async fn the_clock_of_an_operation_is_that_of_the_service() {
    let database = TestDatabase::create().await;
    let start = chrono::DateTime::from_timestamp(1_000_000_000, 0).unwrap();
    let (clock, _controller) = ClockHandle::manual_at(start);
    let config = JobSvcConfig::builder().pg_con(database.url()).clock(clock);
    let mut jobs = Jobs::init(config.build().unwrap()).await.unwrap();
    let spawner = jobs.add_initializer(TestInitializer::new(
        "timely",
        move |job: job::CurrentJob, _| async move {
            let op = job.begin_op().await.map_err(|error| error.to_string())?;
            assert_eq!(op.maybe_now(), Some(start));
            Ok(JobCompletion::CompleteWithOp(op))
        },
    ));
    jobs.start_poll().await.unwrap();
    let id = JobId::new();
    spawner.spawn(id, Value::Null).await.unwrap();
    let job = ended(&jobs, id).await;
    assert_eq!(job.state(), JobState::Completed, "{:?}", job.last_error());
    assert!(job.events().iter().all(|event| event.at == start));
}

#[tokio::test]
async fn the_tables_can_be_in_a_schema_of_their_own() {
    let database = TestDatabase::create().await;
    for schema in ["jobs", "odd \"name"] {
        let config = JobSvcConfig::builder()
            .pg_con(database.url())
            .schema(schema);
        let mut jobs = Jobs::init(config.build().unwrap()).await.unwrap();
        let spawner = jobs.add_initializer(TestInitializer::completing("here"));
        jobs.start_poll().await.unwrap();
        let id = JobId::new();
        spawner.spawn(id, Value::Null).await.unwrap();
        ended(&jobs, id).await;
        jobs.shutdown().await.unwrap();
    }
    let elsewhere = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    let pool = database.pool().await;
    let tables: i64 = sqlx::query_scalar(elsewhere)
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(tables, 0);
    let config = JobSvcConfig::builder().pg_con(database.url()).schema("");
    assert!(config.build().unwrap_err().contains("schema name"));
}

#[tokio::test]
async fn without_announcements_jobs_are_found_by_polling() {
    let database = TestDatabase::create().await.behind_a_pooler();
    let config = || {
        JobSvcConfig::builder()
            .pg_con(database.url())
            .poll_only(true)
    };
    let poller = config()
        .poll_interval(Duration::from_millis(20))
        .build()
        .unwrap();
    let mut worker = Jobs::init(poller).await.unwrap();
    worker.add_initializer(TestInitializer::completing("remote"));
    worker.start_poll().await.unwrap();
    let mut client = Jobs::init(config().build().unwrap()).await.unwrap();
    let spawner = client.add_initializer(TestInitializer::completing("remote"));
    let id = JobId::new();
    spawner.spawn(id, Value::Null).await.unwrap();
    ended(&client, id).await;
}

/// A worker whose runtime is torn down in the middle of a run, as if its process
/// had died; time is advanced by hand.
#[test]
fn a_lost_worker_is_recovered_by_advancing_the_clock() {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap()
    };
    let (main, doomed) = (runtime(), runtime());
    let database = main.block_on(TestDatabase::create());
    let (clock, controller) = ClockHandle::artificial(ArtificialClockConfig::manual());
    let config = || {
        let config = JobSvcConfig::builder().pg_con(database.url());
        config.clock(clock.clone()).build().unwrap()
    };
    let started = Arc::new(Notify::new());
    let tell = Arc::clone(&started);
    let id = JobId::new();
    let lost = doomed.block_on(async {
        let mut jobs = Jobs::init(config()).await.unwrap();
        let spawner = jobs.add_initializer(TestInitializer::new("fragile", move |_, _| {
            tell.notify_one();
            std::future::pending()
        }));
        jobs.start_poll().await.unwrap();
        spawner.spawn(id, Value::Null).await.unwrap();
        started.notified().await;
        jobs
    });
    doomed.shutdown_background();
    main.block_on(async {
        let mut jobs = Jobs::init(config()).await.unwrap();
        jobs.add_initializer(TestInitializer::completing("fragile"));
        jobs.start_poll().await.unwrap();
        let half = JobPollerConfig::default().job_lost_interval / 2;
        controller.advance(half).await;
        assert_eq!(jobs.find(id).await.unwrap().state(), JobState::Running);
        controller.advance(half * 2).await;
        let job = ended(&jobs, id).await;
        assert_eq!((job.state(), job.attempt()), (JobState::Completed, 2));
        let expected = ["spawned", "started", "lease lost", "started", "completed"];
        assert_eq!(history(&job), expected);
        jobs.shutdown().await.unwrap();
    });
    drop(lost);
}

#[tokio::test]
async fn a_run_that_lost_its_lease_can_write_nothing_in_any_transaction() {
    let database = TestDatabase::create().await;
    let mut jobs = service(&database).await;
    jobs.pool()
        .execute("CREATE TABLE ledger (attempt int)")
        .await
        .unwrap();
    let (held, free) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (hold, wait) = (Arc::clone(&held), Arc::clone(&free));
    let spawner = jobs.add_initializer(TestInitializer::new(
        "contested",
        move |mut job: job::CurrentJob, _| {
            let (hold, wait) = (Arc::clone(&hold), Arc::clone(&wait));
            async move {
                let attempt = i32::try_from(job.attempt()).unwrap();
                if attempt == 1 {
                    hold.notify_one();
                    wait.notified().await;
                    let lost = job.update_execution_state(1).await.unwrap_err();
                    assert!(matches!(lost, JobError::LeaseLost(_)), "{lost}");
                }
                let mut transaction = job.pool().begin().await.unwrap();
                let insert = sqlx::query("INSERT INTO ledger VALUES ($1)").bind(attempt);
                insert.execute(&mut *transaction).await.unwrap();
                Ok(JobCompletion::CompleteWithTx(transaction))
            }
        },
    ));
    jobs.start_poll().await.unwrap();
    let id = JobId::new();
    spawner.spawn(id, Value::Null).await.unwrap();
    held.notified().await;
    // As if the lease had run out; the same process takes the job back and runs
    // it again.
    let lapse = "UPDATE job_live SET lease_expires_at = now() - interval '1 second'";
    jobs.pool().execute(lapse).await.unwrap();
    let mut rescuer = service(&database).await;
    rescuer.add_initializer(TestInitializer::<job::Postgres>::new(
        "contested",
        |_, _| std::future::pending(),
    ));
    rescuer.start_poll().await.unwrap();
    eventually("the job is taken back", async || {
        let job = jobs.find(id).await.unwrap();
        history(&job).contains(&"lease lost").then_some(())
    })
    .await;
    free.notify_one();
    // Whoever has it now gives it back, and the first service completes it.
    rescuer.shutdown().await.unwrap();
    let job = ended(&jobs, id).await;
    assert_eq!(job.state(), JobState::Completed, "{:?}", job.last_error());
    let ledger: Vec<i32> = sqlx::query_scalar("SELECT attempt FROM ledger")
        .fetch_all(jobs.pool())
        .await
        .unwrap();
    assert_eq!(ledger, [2]);
}
