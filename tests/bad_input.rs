//! What users get wrong, and what they are told.

use std::time::{Duration, Instant};

use job::error::JobError;
use job::{IncludeMigrations, JobCompletion, JobId, JobState, JobSvcConfig, JobType, Jobs};
use serde_json::Value;
use sqlx::Executor;
use sqlx::migrate::{Migration, MigrationType, Migrator};

use crate::support::{TestDatabase, TestInitializer, ended, eventually};

async fn init_error(url: &str, connect_timeout: Duration) -> String {
    let config = JobSvcConfig::builder()
        .pg_con(url)
        .connect_timeout(connect_timeout)
        .build();
    Jobs::init(config.unwrap()).await.unwrap_err().to_string()
}

#[tokio::test]
async fn neither_or_both_of_pg_con_and_pool_is_an_error_that_says_so() {
    let neither = JobSvcConfig::builder().build().unwrap_err();
    assert!(
        neither.contains("one of pg_con and pool must be set"),
        "{neither}"
    );
    let pool = sqlx::PgPool::connect_lazy("postgres://localhost/x").unwrap();
    let both = JobSvcConfig::builder()
        .pg_con("postgres://localhost/x")
        .pool(pool)
        .build();
    let both = both.unwrap_err();
    assert!(both.contains("both are; remove one"), "{both}");
    let neither = JobSvcConfig::sqlite().build().unwrap_err();
    assert!(
        neither.contains("one of path and pool must be set"),
        "{neither}"
    );
}

#[tokio::test]
async fn the_connection_string_is_not_shown() {
    let url = "postgres://ada:hunter2@localhost/x";
    let config = JobSvcConfig::builder().pg_con(url).build().unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_malformed_connection_string_is_told_at_once() {
    for bad in [
        "not a url",
        "postgres://ada:hunter2@host:port/x",
        "mysql://host/x",
    ] {
        let error = init_error(bad, Duration::from_secs(5)).await;
        assert!(error.starts_with("the database failed: "), "{bad}: {error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_refuses_or_is_silent_is_told_in_time() {
    let started = Instant::now();
    let refused = init_error("postgres://127.0.0.1:1/x", Duration::from_secs(30)).await;
    assert!(refused.contains("refused"), "{refused}");
    // One that accepts the connection and then says nothing.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = format!("postgres://127.0.0.1:{port}/x");
    let silent = init_error(&url, Duration::from_millis(300)).await;
    assert!(silent.contains("within 300ms"), "{silent}");
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn a_database_that_does_not_exist_is_named() {
    let database = TestDatabase::create().await;
    let url = format!("{}_gone", database.url());
    let error = init_error(&url, Duration::from_secs(5)).await;
    assert!(error.contains("_gone\" does not exist"), "{error}");
}

#[tokio::test]
async fn missing_and_newer_tables_are_told_with_what_to_do() {
    let database = TestDatabase::create().await;
    let config = |migrate| {
        let config = JobSvcConfig::builder().pg_con(database.url());
        config.exec_migrations(migrate).build().unwrap()
    };
    let missing = Jobs::init(config(false)).await.unwrap_err();
    assert!(matches!(missing, JobError::Migration(_)));
    assert!(
        missing.to_string().contains("exec_migrations(true)"),
        "{missing}"
    );
    let jobs = Jobs::init(config(true)).await.unwrap();
    let newer = "UPDATE job_schema SET version = 99, compatible_since = 98";
    jobs.pool().execute(newer).await.unwrap();
    for migrate in [true, false] {
        let newer = Jobs::init(config(migrate)).await.unwrap_err().to_string();
        assert!(newer.contains("99") && newer.contains("upgrade"), "{newer}");
    }
    let older = "UPDATE job_schema SET version = 0, compatible_since = 0";
    jobs.pool().execute(older).await.unwrap();
    let older = Jobs::init(config(false)).await.unwrap_err().to_string();
    assert!(
        older.contains("run the migrations") || older.contains("exec_migrations"),
        "{older}"
    );
}

#[tokio::test]
async fn the_migrations_can_run_among_those_of_the_application() {
    let database = TestDatabase::create().await;
    let pool = database.pool().await;
    let theirs = Migration::new(
        20_200_101_000_000,
        "accounts".into(),
        MigrationType::Simple,
        "CREATE TABLE accounts (id int)".into(),
        false,
    );
    let mut migrator = Migrator {
        migrations: vec![theirs].into(),
        ..Migrator::DEFAULT
    };
    migrator.include_job_migrations().include_job_migrations();
    assert!(
        migrator
            .migrations
            .is_sorted_by_key(|migration| migration.version)
    );
    migrator.run(&pool).await.unwrap();
    migrator.run(&pool).await.unwrap();
    // With and without the migrations of the service itself.
    for migrate in [false, true] {
        let config = JobSvcConfig::builder()
            .pool(pool.clone())
            .exec_migrations(migrate);
        Jobs::init(config.build().unwrap()).await.unwrap();
    }
    migrator.run(&pool).await.unwrap();
}

#[tokio::test]
async fn a_type_that_is_not_allowed_is_refused_when_it_is_used() {
    let database = TestDatabase::create().await;
    for name in ["", "a\0b", &"x".repeat(256)] {
        let config = JobSvcConfig::builder()
            .pg_con(database.url())
            .build()
            .unwrap();
        let mut jobs = Jobs::init(config).await.unwrap();
        let name: &'static str = Box::leak(name.to_owned().into_boxed_str());
        let spawner = jobs.add_initializer(TestInitializer::completing(name));
        let refused = spawner.spawn(JobId::new(), Value::Null).await.unwrap_err();
        assert!(refused.to_string().contains("1 to 255 bytes"), "{refused}");
        let refused = jobs.start_poll().await.unwrap_err();
        assert!(matches!(refused, JobError::Rejected(_)), "{refused}");
    }
    assert_eq!(JobType::from("x".to_owned()), JobType::new("x"));
}

#[tokio::test]
async fn a_job_of_an_unknown_type_is_left_for_a_process_that_knows_it() {
    let database = TestDatabase::create().await;
    let service = || {
        let config = JobSvcConfig::builder().pg_con(database.url());
        Jobs::init(
            config
                .poll_interval(Duration::from_millis(20))
                .build()
                .unwrap(),
        )
    };
    let mut ignorant = service().await.unwrap();
    let mut knowing = service().await.unwrap();
    let known = ignorant.add_initializer(TestInitializer::completing("known"));
    ignorant.start_poll().await.unwrap();
    let spawner = knowing.add_initializer(TestInitializer::completing("unknown"));
    let (id, marker) = (JobId::new(), JobId::new());
    spawner.spawn(id, Value::Null).await.unwrap();
    // The other one has looked, and run what came later.
    known.spawn(marker, Value::Null).await.unwrap();
    ended(&ignorant, marker).await;
    assert_eq!(knowing.find(id).await.unwrap().state(), JobState::Pending);
    knowing.start_poll().await.unwrap();
    let job = ended(&knowing, id).await;
    assert_eq!((job.state(), job.attempt()), (JobState::Completed, 1));
}

#[tokio::test]
async fn a_spawn_while_the_database_is_away_is_an_error_in_time() {
    let database = TestDatabase::create().await;
    let config = JobSvcConfig::builder()
        .pg_con(database.url())
        .build()
        .unwrap();
    let mut jobs = Jobs::init(config).await.unwrap();
    let spawner = jobs.add_initializer(TestInitializer::<job::Postgres>::new(
        "orphan",
        |_, _| async { Ok(JobCompletion::Complete) },
    ));
    let pool = jobs.pool().clone();
    drop(database);
    let error = eventually("the loss is noticed", async || {
        spawner.spawn(JobId::new(), Value::Null).await.err()
    })
    .await;
    assert!(matches!(error, JobError::Store(_)), "{error}");
    pool.close().await;
}
