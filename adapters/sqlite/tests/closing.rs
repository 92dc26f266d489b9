//! Closing a store.

use job_sqlite::{OpenOptions, SqliteStore};

use crate::fixtures::{exists, in_memory, on_file, path_in, run, spawn};

#[tokio::test]
async fn a_closed_store_goes_on_through_the_applications_pool() {
    let (store, _place) = on_file().await;
    run(&store, &spawn(1)).await;
    store.close().await;
    store.close().await;
    run(&store, &spawn(2)).await;
    assert!(exists(&store, 1).await && exists(&store, 2).await);
}

#[tokio::test]
async fn closing_a_store_in_memory_loses_nothing() {
    let (store, ()) = in_memory().await;
    run(&store, &spawn(1)).await;
    store.close().await;
    assert!(exists(&store, 1).await);
    store.migrate().await.unwrap();
}

#[tokio::test]
async fn one_connection_for_the_application_is_enough() {
    let place = tempfile::tempdir().unwrap();
    let options = OpenOptions {
        connections_max: 1,
        ..OpenOptions::default()
    };
    let store = SqliteStore::open_with(path_in(&place), &options)
        .await
        .unwrap();
    store.migrate().await.unwrap();
    // The application holds its own; the store has one for itself.
    let held = store.pool().acquire().await.unwrap();
    run(&store, &spawn(1)).await;
    drop(held);
    assert!(exists(&store, 1).await);
    store.close().await;
    run(&store, &spawn(2)).await;
    assert!(exists(&store, 2).await);
}
