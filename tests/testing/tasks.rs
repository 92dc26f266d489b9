//! Tests of tasks, and of what spawns them.

use std::time::Duration;

use es_entity::DbOp;
use es_entity::clock::ClockHandle as EsClock;
use job::backend::AnyTransaction;
use job::testing::{TestJobs, spawned};
use job::{
    CurrentJob, JobCompletion, JobError, JobId, JobSpec, JobSvcConfig, JobType, Jobs, MIGRATOR,
    Postgres, RetrySettings, Task, TaskContext, TaskEnd, TaskInitializer, TaskResult, TaskSettings,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::support::{TestDatabase, TestInitializer};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Report {
    year: u32,
}

impl Task for Report {
    const TYPE: &'static str = "report";
    type State = u32;

    async fn run(self, cx: TaskContext<u32>) -> TaskResult {
        match cx.attempt() {
            attempt if attempt <= *cx.state() => Err("the mail server is down".into()),
            _ => Ok(TaskEnd::Complete),
        }
    }

    fn settings() -> TaskSettings {
        TaskSettings::default().retry(RetrySettings {
            min_backoff: Duration::from_secs(60),
            ..RetrySettings::default()
        })
    }
}

#[tokio::test]
async fn a_task_is_retried_while_the_clock_of_a_test_is_moved() {
    let mut test = TestJobs::memory().await;
    test.add_task_with::<Report>(1);
    let report = test.spawn(Report { year: 2026 }).await.unwrap();
    test.drain().await;
    test.seen()
        .await
        .assert_failed_with(report.id, "mail server");
    test.advance(Duration::from_secs(90)).await;
    test.seen().await.assert_completed(report.id);
}

#[tokio::test]
async fn a_function_is_tested_as_a_task_is() {
    let mut test = TestJobs::memory().await;
    let doubled = test.add_fn("double", |n: u32, _: TaskContext| async move {
        match n.checked_mul(2) {
            Some(_) => Ok(TaskEnd::Complete),
            None => Err("too much".into()),
        }
    });
    let well = doubled.job(7).await.unwrap().id;
    let badly = doubled.job(u32::MAX).await.unwrap().id;
    test.drain().await;
    let seen = test.seen().await;
    seen.assert_completed(well);
    seen.assert_failed_with(badly, "too much");
}

/// Its tables are in use by a test that goes on for long.
#[tokio::test]
async fn a_schema_that_is_in_use_is_not_removed_however_old_it_is() {
    let database = TestDatabase::create().await;
    let pool = database.pool().await;
    let day_before_yesterday = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() - 48 * 3_600;
    let at = uuid::Timestamp::from_unix(uuid::NoContext, day_before_yesterday, 0);
    let schema = format!("job_test_{}", uuid::Uuid::new_v7(at).simple());
    let config = JobSvcConfig::builder()
        .pg_con(database.url())
        .schema(&schema);
    let old = TestJobs::open(config).await.unwrap();
    let exists = async || -> bool {
        let exists = sqlx::query_scalar("SELECT to_regnamespace($1) IS NOT NULL");
        exists.bind(&schema).fetch_one(&pool).await.unwrap()
    };
    TestJobs::postgres(database.url()).await.unwrap();
    assert!(exists().await);
    old.jobs().shutdown().await.unwrap();
    drop(old);
    crate::support::eventually("it is removed once it is not in use", async || {
        TestJobs::postgres(database.url()).await.unwrap();
        (!exists().await).then_some(())
    })
    .await;
}

#[tokio::test]
async fn migrations_for_tests_do_not_mind_those_of_others() {
    let database = TestDatabase::create().await;
    let pool = database.pool().await;
    let theirs = sqlx::migrate::Migrator {
        migrations: vec![sqlx::migrate::Migration::new(
            1,
            "theirs".into(),
            sqlx::migrate::MigrationType::Simple,
            "CREATE TABLE theirs ()".into(),
            false,
        )]
        .into(),
        ..sqlx::migrate::Migrator::DEFAULT
    };
    theirs.run(&pool).await.unwrap();
    MIGRATOR.run(&pool).await.unwrap();
    MIGRATOR.run(&pool).await.unwrap();
}

#[tokio::test]
#[should_panic(expected = "registered for the job type `report` already")]
async fn two_tasks_of_one_type_are_refused() {
    let mut test = TestJobs::memory().await;
    test.add_task_with::<Report>(0);
    test.add_fn("report", |_: Report, _: TaskContext| async {
        Ok(TaskEnd::Complete)
    });
}

#[tokio::test]
#[should_panic(expected = "registered for the job type `report` already")]
async fn an_initializer_does_not_replace_a_task() {
    let mut test = TestJobs::memory().await;
    test.add_task_with::<Report>(0);
    test.add_initializer(TestInitializer::completing("report"));
}

#[tokio::test]
async fn a_task_is_performed_alone() {
    let mut test = TestJobs::memory().await;
    let year = Report { year: 2026 };
    let well = TaskInitializer::<Report>::new(0);
    let end = test.perform(&well, year.clone()).await;
    assert!(matches!(end, Ok(JobCompletion::Complete)));
    let failing = TaskInitializer::<Report>::new(1);
    let error = test.perform(&failing, year).await.unwrap_err();
    assert!(
        error.to_string().ends_with("the mail server is down"),
        "{error}"
    );
}

#[tokio::test]
async fn what_a_transaction_has_spawned_on_postgres_is_seen_without_a_service() {
    let database = TestDatabase::create().await;
    let pool = database.pool().await;
    MIGRATOR.run(&pool).await.unwrap();
    let config = JobSvcConfig::builder().pool(pool.clone());
    let jobs = config.await.unwrap();
    let mut tx = pool.begin().await.unwrap();
    for year in [2025, 2026] {
        jobs.spawn(Report { year }).in_tx(&mut tx).await.unwrap();
    }
    let reports = spawned::<Report>(&mut *tx).await.unwrap();
    assert_eq!(reports, [2025, 2026].map(|year| Report { year }));
    tx.rollback().await.unwrap();
    let mut connection = pool.acquire().await.unwrap();
    assert_eq!(spawned::<Report>(&mut *connection).await.unwrap(), []);
}

#[tokio::test]
async fn what_a_transaction_has_spawned_on_sqlite_is_seen_without_a_service() {
    let jobs = JobSvcConfig::sqlite().path(":memory:").await.unwrap();
    let mut tx = job::backend::begin_immediate(jobs.pool()).await.unwrap();
    jobs.spawn(Report { year: 2026 })
        .in_tx(&mut tx)
        .await
        .unwrap();
    let odd = jobs.spawner::<&str>(job::JobType::new("report"));
    assert_eq!(
        spawned::<Report>(&mut *tx).await.unwrap(),
        [Report { year: 2026 }]
    );
    odd.job("last year").in_tx(&mut tx).await.unwrap();
    let undecodable = spawned::<Report>(&mut *tx).await;
    assert!(matches!(
        undecodable,
        Err(JobError::UndecodableConfig { .. })
    ));
}

#[tokio::test]
async fn what_failed_tests_have_left_for_days_is_removed() {
    let database = TestDatabase::create().await;
    let pool = database.pool().await;
    let made = |seconds| {
        let at = uuid::Timestamp::from_unix(uuid::NoContext, seconds, 0);
        format!("job_test_{}", uuid::Uuid::new_v7(at).simple())
    };
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let (old, young) = (made(now - 25 * 3_600), made(now - 23 * 3_600));
    for schema in [&*old, &*young, "job_test_data"] {
        let create = format!("CREATE SCHEMA {schema}");
        sqlx::query(&create).execute(&pool).await.unwrap();
    }
    let test = TestJobs::postgres(database.url()).await.unwrap();
    test.drop_schema().await.unwrap();
    let left = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'job\\_test\\_%' ORDER BY 1";
    let left: Vec<String> = sqlx::query_scalar(left).fetch_all(&pool).await.unwrap();
    assert_eq!(left, [&*young, "job_test_data"]);
}

#[tokio::test]
async fn a_url_that_cannot_be_opened_says_why() {
    for (url, why) in [
        ("mysql://user:secret@host/database", "begins with `mysql:`"),
        ("jobs.db", "has no scheme"),
        ("sqlite:", "names no file"),
        (
            "postgres://host/database?currentSchema=jobs",
            "currentSchema",
        ),
    ] {
        match Jobs::connect(url).await {
            Err(JobError::Config(text)) => {
                assert!(text.contains(why), "{url}: {text}");
                assert!(!text.contains("secret"), "{text}");
            }
            other => panic!("{url}: {other:?}"),
        }
    }
    let schema = Jobs::connect("memory:").schema("jobs").await;
    assert!(matches!(schema, Err(JobError::Config(text)) if text.contains("schema is a setting")));
}

#[tokio::test]
async fn a_transaction_of_another_database_is_refused_by_name() {
    let database = TestDatabase::create().await;
    let pool = database.pool().await;
    let jobs = Jobs::connect("memory:").await.unwrap();
    let mut tx = pool.begin().await.unwrap();
    let spawner = jobs.spawner::<u32>(JobType::new("report"));
    let all = vec![JobSpec::new(JobId::new(), 2026)];
    for refused in [
        jobs.spawn(Report { year: 2026 }).in_tx(&mut tx).await.err(),
        spawner.job(2026).in_tx(&mut tx).or_find().await.err(),
        spawner.spawn_all_in_op(&mut tx, all).await.err(),
    ] {
        let error = refused.expect("an error");
        assert!(matches!(error, JobError::OtherBackend { .. }), "{error:?}");
        assert_eq!(
            error.to_string(),
            "wrong backend: Postgres was asked for, and it is Memory"
        );
    }
    let mut any: AnyTransaction = DbOp::init_with_clock(&pool, &EsClock::realtime())
        .await
        .unwrap()
        .into();
    let error = any.on::<Postgres>().unwrap_err();
    assert!(error.to_string().ends_with("it is DbOp"), "{error}");
}

/// It comes from elsewhere than from the run.
#[tokio::test]
async fn a_task_that_ends_in_a_transaction_of_another_database_fails() {
    let database = TestDatabase::create().await;
    let pool = database.pool().await;
    let mut test = TestJobs::memory().await;
    let settings = TaskSettings::default().retry(RetrySettings {
        n_attempts: Some(1),
        ..RetrySettings::default()
    });
    let lost = test.add_fn_with("lost", settings, move |(), _: TaskContext| {
        let pool = pool.clone();
        async move { Ok(TaskEnd::CompleteWithTx(pool.begin().await?.into())) }
    });
    let job = lost.job(()).await.unwrap().id;
    test.drain().await;
    let why = "Postgres was asked for, and it is Memory";
    test.seen().await.assert_errored_with(job, why);
}

/// The runner sees what the test has spawned there, and adds to it.
#[tokio::test]
async fn what_is_performed_in_a_transaction_is_part_of_it() {
    let database = TestDatabase::create().await;
    let mut test = TestJobs::from_pool(database.pool().await).await.unwrap();
    let letters = test.add_initializer(TestInitializer::<Postgres>::completing("letter"));
    let (first, second) = (JobId::new(), JobId::new());
    let answer = {
        let letters = letters.clone();
        TestInitializer::new("answer", move |job: CurrentJob, _| {
            let letters = letters.clone();
            async move {
                let mut tx = job.begin().await.map_err(|error| error.to_string())?;
                let again = letters.spawn_in_op(&mut tx, first, json!("again")).await;
                assert!(matches!(again, Err(JobError::DuplicateId(id)) if id == first));
                let answer = letters.spawn_in_op(&mut tx, second, json!("answer"));
                answer.await.map_err(|error| error.to_string())?;
                Ok(JobCompletion::CompleteWithTx(tx))
            }
        })
    };
    let mut tx = test.jobs().pool().begin().await.unwrap();
    letters
        .spawn_in_op(&mut tx, first, json!("letter"))
        .await
        .unwrap();
    let end = test.perform_in(tx, &answer, Value::Null).await.unwrap();
    let JobCompletion::CompleteWithTx(mut tx) = end else {
        panic!("{end:?}");
    };
    let seen = test.seen_in(&mut tx).await;
    let ids: Vec<JobId> = seen.jobs().iter().map(|job| job.id).collect();
    assert_eq!(ids, [first, second]);
    drop(tx);
    assert!(test.seen().await.jobs().is_empty());

    // One that begins none leaves nothing either.
    let tx = test.jobs().pool().begin().await.unwrap();
    let idle = TestInitializer::<Postgres>::completing("idle");
    let end = test.perform_in(tx, &idle, Value::Null).await.unwrap();
    assert!(matches!(end, JobCompletion::Complete));
    letters.spawn(first, json!("letter")).await.unwrap();
}
