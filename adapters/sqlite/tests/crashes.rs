//! Processes that just stop: a store opens the files as they were left.

use job_engine::lifecycle::State;
use job_engine::store::{Claim, Written};
use job_engine::{Command, Reply};
use job_sqlite::SqliteStore;
use tempfile::TempDir;

use crate::fixtures::{claim, claimed_runs, exists, find, on_file, path_in, run, run_on, spawn};

/// What a power loss leaves: a copy of the database and its log as they are,
/// with all connections still open. The index of the log, which is shared
/// memory, is lost.
async fn after_power_loss(place: &TempDir) -> (SqliteStore, TempDir) {
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(place.path()).unwrap() {
        let file = file.unwrap();
        if !file.file_name().to_string_lossy().ends_with("-shm") {
            std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
        }
    }
    let store = SqliteStore::open(path_in(&copy)).await.unwrap();
    store.check_schema().await.unwrap();
    (store, copy)
}

#[tokio::test]
async fn what_was_committed_is_there_and_what_was_not_is_not() {
    let (store, place) = on_file().await;
    run(&store, &spawn(1)).await;
    let mut transaction = job_sqlite::begin_immediate(store.pool()).await.unwrap();
    let half_done = run_on(&store, &mut transaction, spawn(2));
    half_done.await.unwrap();
    let (reopened, _copy) = after_power_loss(&place).await;
    assert!(exists(&reopened, 1).await);
    assert!(!exists(&reopened, 2).await);
    // And it can be written.
    run(&reopened, &spawn(2)).await;
    assert!(exists(&reopened, 2).await);
}

#[tokio::test]
async fn a_claim_whose_reply_was_lost_in_the_crash_can_be_repeated() {
    let (store, place) = on_file().await;
    run(&store, &spawn(1)).await;
    let lost = claim(1, 1, 5);
    let taken = claimed_runs(Ok(run(&store, &lost).await));
    let (reopened, _copy) = after_power_loss(&place).await;
    let job = find(&reopened, 1).await.unwrap();
    assert_eq!(job.state(), State::Running);
    let Command::Claim(again) = lost else {
        panic!("a claim was made");
    };
    let again = Command::Claim(Claim {
        repeat: true,
        ..again
    });
    assert_eq!(claimed_runs(Ok(run(&reopened, &again).await)), taken);
}

#[tokio::test]
async fn a_store_that_was_dropped_without_a_close_is_opened_again() {
    let (store, place) = on_file().await;
    run(&store, &spawn(1)).await;
    let running = claimed_runs(Ok(run(&store, &claim(1, 1, 1)).await))[0];
    drop(store);
    let reopened = SqliteStore::open(path_in(&place)).await.unwrap();
    let heartbeat = Command::Heartbeat(job_engine::store::Heartbeat {
        runs: vec![running],
        lease: std::time::Duration::from_secs(60),
    });
    let renewed = Reply::Heartbeat(vec![Written::Applied]);
    assert_eq!(run(&reopened, &heartbeat).await, renewed);
}
