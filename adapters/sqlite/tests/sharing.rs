//! Several stores, processes or pools on one file.

use job_engine::store::{Finish, Outcome, Written};
use job_engine::{Command, Reply, StoreError};
use job_sqlite::{OpenOptions, SqliteStore};
use job_tokio::Store;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use tokio::task::JoinSet;

use crate::fixtures::{
    START, assert_each_taken_once, claim, claimed_runs, exists, new_job, on_file, path_in, run,
    spawn,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn stores_on_one_file_take_no_job_twice() {
    const JOBS: u128 = 120;
    let (store, place) = on_file().await;
    run(&store, &Command::Spawn((1..=JOBS).map(new_job).collect())).await;
    let mut tasks = JoinSet::new();
    for worker in 1..=4 {
        let other = SqliteStore::open(path_in(&place)).await.unwrap();
        tasks.spawn(async move {
            let mut taken = Vec::new();
            for seq in 0.. {
                let reply = other.execute(Some(START), &claim(worker, seq, 3)).await;
                let runs = claimed_runs(reply);
                if runs.is_empty() {
                    return taken;
                }
                for run in runs {
                    let finish = Command::Finish(vec![Finish {
                        run,
                        outcome: Outcome::Completed,
                    }]);
                    let reply = other.execute(Some(START), &finish).await;
                    assert_eq!(reply, Ok(Reply::Finished(vec![Written::Applied])));
                    taken.push(run);
                }
            }
            taken
        });
    }
    assert_each_taken_once(&tasks.join_all().await.concat(), JOBS);
}

#[tokio::test]
async fn a_store_that_waits_too_long_for_another_says_that_nothing_changed() {
    let (store, place) = on_file().await;
    let hasty = OpenOptions {
        busy_timeout: std::time::Duration::ZERO,
        ..OpenOptions::default()
    };
    let other = SqliteStore::open_with(path_in(&place), &hasty)
        .await
        .unwrap();
    let transaction = job_sqlite::begin_immediate(store.pool()).await.unwrap();
    let reply = other.execute(Some(START), &spawn(1)).await;
    assert!(matches!(reply, Err(StoreError::Failed(_))), "{reply:?}");
    assert!(job_sqlite::begin_immediate(other.pool()).await.is_err());
    transaction.rollback().await.unwrap();
    other.execute(Some(START), &spawn(1)).await.unwrap();
}

#[tokio::test]
async fn a_store_works_on_the_pool_of_an_application() {
    let place = tempfile::tempdir().unwrap();
    let options = SqliteConnectOptions::new()
        .filename(path_in(&place))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal);
    let pool = SqlitePoolOptions::new().max_connections(1);
    let pool = pool.connect_with(options).await.unwrap();
    let store = SqliteStore::new(pool.clone());
    store.migrate().await.unwrap();
    // The application has used up its pool; the worker goes on.
    let held = pool.acquire().await.unwrap();
    run(&store, &spawn(1)).await;
    let taken = claimed_runs(Ok(run(&store, &claim(1, 1, 1)).await));
    assert_eq!(taken.len(), 1);
    drop(held);
    assert!(exists(&store, 1).await);
}

#[tokio::test]
async fn a_store_works_on_a_pool_in_memory() {
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None);
    let pool = pool.connect("sqlite::memory:").await.unwrap();
    let store = SqliteStore::new(pool);
    store.migrate().await.unwrap();
    run(&store, &spawn(1)).await;
    assert!(exists(&store, 1).await);
}
