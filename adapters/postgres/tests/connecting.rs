//! The first connection says what is wrong.

use std::time::{Duration, Instant};

use job_postgres::{PostgresStore, SchemaError, StoreOptions, connect};
use sqlx::ConnectOptions;
use tokio::net::TcpListener;

use crate::support::{TestDatabase, within};

const TIMEOUT: Duration = Duration::from_secs(5);

async fn check_error(url: &str, timeout: Duration, part: &str) {
    let error = within("the error", connect(url, None, timeout))
        .await
        .unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(text.contains(part), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_refused_without_delay() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    drop(taken);
    let begin = Instant::now();
    let url = format!("postgres://me:hunter2@127.0.0.1:{port}/jobs");
    check_error(&url, TIMEOUT, "refused").await;
    assert!(begin.elapsed() < TIMEOUT);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up_on() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let url = format!("postgres://me:hunter2@127.0.0.1:{port}/jobs");
    check_error(&url, Duration::from_millis(200), "within 200ms").await;
}

#[tokio::test]
async fn a_database_that_does_not_exist_is_named() {
    let database = TestDatabase::empty().await;
    let mut url = database.options().database("job_none").to_url_lossy();
    url.set_password(Some("hunter2")).unwrap();
    check_error(url.as_str(), TIMEOUT, "\"job_none\" does not exist").await;
}

#[tokio::test]
async fn a_url_that_cannot_be_read_is_not_repeated() {
    for url in [
        "postgres://me:hunter2@host:port/jobs",
        "hunter2",
        "postgres://me:hunter2@host/jobs?sslmode=hunter",
    ] {
        let error = connect(url, None, TIMEOUT).await.unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[tokio::test]
async fn a_connection_makes_a_pool_of_the_size_that_is_asked_for() {
    let database = TestDatabase::empty().await;
    let url = database.options().to_url_lossy();
    let pool = connect(url.as_str(), Some(3), TIMEOUT).await.unwrap();
    assert_eq!(pool.options().get_max_connections(), 3);
    let one: i32 = sqlx::query_scalar("SELECT 1")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(one, 1);
}

#[tokio::test]
async fn a_database_that_is_gone_is_not_taken_for_missing_tables() {
    let (database, store) = TestDatabase::with_store().await;
    let pool = sqlx::postgres::PgPoolOptions::new()
        .connect_lazy_with(database.options().database("job_none"));
    let gone = PostgresStore::new(pool, StoreOptions::default()).unwrap();
    let error = gone.check_schema().await.unwrap_err();
    assert!(matches!(error, SchemaError::Database(_)), "{error}");
    store.check_schema().await.unwrap();
}
