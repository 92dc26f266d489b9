//! The first connection says what is wrong.

use std::time::{Duration, Instant};

use job_postgres::{ConnectConfig, PostgresStore, SchemaError, StoreOptions, connect};
use sqlx::{ConnectOptions, Executor, Row};
use tokio::net::TcpListener;

use crate::support::{TestDatabase, within};

const TIMEOUT: Duration = Duration::from_secs(5);

fn within_time(timeout: Duration) -> ConnectConfig {
    ConnectConfig {
        timeout,
        ..ConnectConfig::default()
    }
}

async fn check_error(url: &str, timeout: Duration, part: &str) {
    let config = within_time(timeout);
    let error = within("the error", connect(url, &config)).await;
    let error = error.unwrap_err();
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
    let tried = format!("no connection to 127.0.0.1:{port}: ");
    check_error(&url, TIMEOUT, &tried).await;
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
        "postgres://me:hunter2@host/jobs?search_path=jobs",
        "postgres://me:hunter2@one:1,two:2/jobs",
    ] {
        let error = connect(url, &within_time(TIMEOUT)).await.unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[tokio::test]
async fn a_connection_makes_a_pool_of_the_size_that_is_asked_for() {
    let database = TestDatabase::empty().await;
    let url = database.options().to_url_lossy();
    let config = ConnectConfig {
        max_connections: 3,
        ..ConnectConfig::default()
    };
    let pool = connect(url.as_str(), &config).await.unwrap();
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

/// The connections of a process that is behind a pooler, its own and those of the pool.
#[tokio::test]
async fn nothing_that_a_pooler_refuses_is_sent_to_one() {
    let (database, _store) = TestDatabase::with_store().await;
    // As if it had been refused: what the role or database says holds then.
    let name = database.options().get_database().unwrap().to_owned();
    let mut admin = database.options().connect().await.unwrap();
    let digits = format!("ALTER DATABASE {name} SET extra_float_digits = 3");
    admin.execute(&*digits).await.unwrap();
    let url = database.options().to_url_lossy();
    for (poll_only, expected) in [(true, "3"), (false, "2")] {
        let config = ConnectConfig {
            poll_only,
            ..ConnectConfig::default()
        };
        let pool = connect(url.as_str(), &config).await.unwrap();
        let digits = "SELECT current_setting('extra_float_digits')";
        let digits: String = pool.fetch_one(digits).await.unwrap().get(0);
        assert_eq!(digits, expected);
    }
}

#[tokio::test]
async fn a_database_that_falls_silent_is_given_up_on_whoever_made_the_pool() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let url = format!("postgres://me:hunter2@127.0.0.1:{port}/jobs");
    let pool = sqlx::PgPool::connect_lazy(&url).unwrap();
    for migrate in [false, true] {
        let store = PostgresStore::new(pool.clone(), StoreOptions::default()).unwrap();
        let error = store.prepare(migrate, Duration::from_millis(200)).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains("within 200ms"), "{error}");
    }
}

#[tokio::test]
async fn a_pool_that_is_used_up_is_told_in_time() {
    let (database, _store) = TestDatabase::with_store().await;
    let pool = database.pool(1);
    let _all = pool.acquire().await.unwrap();
    let store = PostgresStore::new(pool.clone(), StoreOptions::default()).unwrap();
    let error = store.prepare(true, Duration::from_millis(200)).await;
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("of the pool") && error.contains("within 200ms"),
        "{error}"
    );
}
