//! The server ends connections of each kind, and the one that listens is lost
//! without a word.

use std::time::Duration;

use job::JobId;
use serde_json::Value;
use sqlx::PgPool;

use super::ledger::{LISTENS, Ledger};
use super::proxy::Proxy;
use crate::support::{TestDatabase, eventually};

/// The last statement of a connection tells what it is for.
const KINDS: [(&str, &str); 5] = [
    ("claims", "-- Takes due jobs"),
    ("ends", "-- Ends runs"),
    ("spawns", "-- Creates jobs"),
    ("the transactions of runners", "INSERT INTO ledger"),
    ("listening", LISTENS),
];

/// Ends the connections whose last statement began so; how many there were.
async fn terminate(pool: &PgPool, statement: &str) -> i64 {
    let terminate = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                     WHERE datname = current_database() AND pid <> pg_backend_pid() \
                     AND starts_with(query, $1)";
    let terminated = sqlx::query_scalar(terminate).bind(statement);
    terminated.fetch_one(pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_each_kind_are_terminated_again_and_again() {
    let database = TestDatabase::create().await;
    let ways = [database.url(), database.url()];
    let mut ledger = Ledger::open(database.options(), &ways).await;
    for (kind, statement) in KINDS {
        let pool = ledger.pool().clone();
        let mut terminated = 0;
        eventually(
            &format!("connections for {kind} are terminated"),
            async || {
                ledger.spawn(5, Duration::from_millis(5)).await;
                terminated += terminate(&pool, statement).await;
                (terminated >= 5).then_some(())
            },
        )
        .await;
    }
    let balance = ledger.balance().await;
    println!("{balance:?}");
    assert!(balance.jobs > 50, "{balance:?}");
}

/// What others spawn is then found by polling, and heard of again once the loss
/// has been noticed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listening_connection_that_is_lost_without_a_word_costs_no_job() {
    let database = TestDatabase::create().await;
    let proxy = Proxy::start(database.options()).await;
    let mut ledger = Ledger::open(database.options(), &[proxy.url()]).await;
    let pool = ledger.pool().clone();
    let listening = async || {
        let listening = "SELECT pid FROM pg_stat_activity \
                         WHERE datname = current_database() AND starts_with(query, $1)";
        let listening = sqlx::query_scalar::<_, i32>(listening).bind(LISTENS);
        listening.fetch_optional(&pool).await.unwrap()
    };
    let first = eventually("it listens", listening).await;
    proxy.silence(LISTENS);
    // By somebody whom only an announcement could tell of.
    ledger
        .spawn_from_outside(JobId::new(), Value::from(1))
        .await;
    ledger.all_ended().await;
    eventually("it listens again", async || {
        listening().await.filter(|again| *again != first)
    })
    .await;
    let balance = ledger.balance().await;
    assert_eq!(balance.jobs, 1);
}
