//! What shows through a real PgBouncer in transaction mode alone. The scenarios, and the
//! suite of the store, go through it too.

use job::error::JobError;
use job::{JobId, JobSvcConfig, Jobs};
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, Executor, PgConnection, Row};

use crate::support::{TestDatabase, TestInitializer, ended};

/// More connections to the server than one client needs, fewer than the pooler opens.
const HELD_MAX: usize = 10;

/// Without what PgBouncer refuses unless it is told to ignore it, and preparing nothing
/// that would stay behind.
fn client(database: &TestDatabase) -> PgConnectOptions {
    let options = database.options().extra_float_digits(None);
    options.statement_cache_capacity(0)
}

/// Opens a transaction on the connection to the server that was used last, and so keeps it
/// from everybody else.
async fn hold(client: &PgConnectOptions) -> PgConnection {
    let mut connection = client.connect().await.unwrap();
    connection.execute("BEGIN").await.unwrap();
    connection
}

/// Else all that goes through it would prove nothing.
#[tokio::test]
async fn the_pooler_gives_a_connection_to_another_client_after_each_transaction() {
    let database = TestDatabase::create().await.behind_a_pooler();
    let mut one = client(&database).connect().await.unwrap();
    let mut other = client(&database).connect().await.unwrap();
    one.execute("SET work_mem = '5MB'").await.unwrap();
    let seen = other.fetch_one("SHOW work_mem").await.unwrap();
    assert_eq!(seen.get::<String, _>(0), "5MB");
    let held = hold(&client(&database)).await;
    let seen = other.fetch_one("SHOW work_mem").await.unwrap();
    assert_ne!(seen.get::<String, _>(0), "5MB");
    held.close().await.unwrap();
}

#[tokio::test]
async fn a_service_behind_a_pooler_leaves_nothing_on_its_connections() {
    let database = TestDatabase::create().await.behind_a_pooler();
    let config = JobSvcConfig::builder()
        .pg_con(database.url())
        .poll_only(true);
    let mut jobs = Jobs::init(config.build().unwrap()).await.unwrap();
    let spawner = jobs.add_initializer(TestInitializer::completing("tidy"));
    jobs.start_poll().await.unwrap();
    for _ in 0..3 {
        let id = JobId::new();
        spawner.spawn(id, Value::Null).await.unwrap();
        ended(&jobs, id).await;
    }
    jobs.shutdown().await.unwrap();
    // The pooler has several by now, and each client that holds one gets another.
    let used = "SELECT count(*) FROM pg_stat_activity \
                WHERE datname = current_database() AND backend_type = 'client backend'";
    let mut held = vec![hold(&client(&database)).await];
    let used: i64 = held[0].fetch_one(used).await.unwrap().get(0);
    for _ in 1..used {
        held.push(hold(&client(&database)).await);
    }
    for connection in &mut held {
        // The pooler itself sets what it keeps for each of its clients.
        let left = "SELECT name FROM pg_settings WHERE source = 'session' AND name NOT IN \
                    ('application_name', 'client_encoding', 'DateStyle', \
                     'standard_conforming_strings', 'TimeZone') \
                    UNION ALL SELECT name FROM pg_prepared_statements WHERE name <> ''";
        let left = connection.fetch_all(left).await.unwrap();
        let left: Vec<String> = left.iter().map(|row| row.get(0)).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// Met first, with a connection string: a parameter that PgBouncer does not know.
#[tokio::test]
async fn a_service_that_its_pooler_refuses_says_how_to_be_let_in() {
    let database = TestDatabase::create().await.behind_a_pooler();
    let config = JobSvcConfig::builder().pg_con(database.url());
    let refused = Jobs::init(config.build().unwrap()).await.unwrap_err();
    let refused = refused.to_string();
    for part in ["extra_float_digits", "poll_only(true)"] {
        assert!(refused.contains(part), "{refused}");
    }
}

/// Met next: what is prepared on one connection to the server is asked for on another, by
/// the first statements or by later ones. From 1.21 on PgBouncer can keep what its clients
/// prepare; where it does, nothing is refused.
#[tokio::test]
async fn a_service_that_is_not_told_of_its_pooler_says_how_to_tell_it() {
    let database = TestDatabase::create().await.behind_a_pooler();
    if let Err(refused) = spawn_untold(&database).await {
        let refused = refused.to_string();
        assert!(refused.contains("poll_only(true)"), "{refused}");
    }
}

/// Spawns until that is refused. Each spawn finds the connection to the server held which
/// the last one used.
async fn spawn_untold(database: &TestDatabase) -> Result<(), JobError> {
    let options = database.options().extra_float_digits(None);
    let pool = PgPoolOptions::new().connect_lazy_with(options);
    let config = JobSvcConfig::builder().pool(pool).exec_migrations(true);
    let mut jobs = Jobs::init(config.build().unwrap()).await?;
    let spawner = jobs.add_initializer(TestInitializer::completing("lost"));
    let mut held = Vec::new();
    while held.len() < HELD_MAX {
        spawner.spawn(JobId::new(), Value::Null).await?;
        held.push(hold(&client(database)).await);
    }
    Ok(())
}
