//! Announcements between processes.

use std::collections::BTreeSet;

use job_engine::JobType;
use job_postgres::{PostgresStore, StoreOptions};
use job_tokio::{Store, Wake};
use sqlx::{Executor, PgPool};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::support::{TestDatabase, within};

fn types(names: &[&str]) -> BTreeSet<JobType> {
    names.iter().map(|name| JobType::from(*name)).collect()
}

fn wake(name: &str) -> Wake {
    Wake::JobType(name.into())
}

fn start(store: &PostgresStore, room: usize) -> (mpsc::Receiver<Wake>, JoinHandle<()>) {
    let (sender, receiver) = mpsc::channel(room);
    let store = store.clone();
    (
        receiver,
        tokio::spawn(async move { store.listen(sender).await }),
    )
}

/// The store of another process.
async fn other(database: &TestDatabase) -> PostgresStore {
    other_with(database, StoreOptions::default()).await
}

async fn other_with(database: &TestDatabase, options: StoreOptions) -> PostgresStore {
    let store = PostgresStore::new(database.pool(2), options).unwrap();
    store.check_schema().await.unwrap();
    store
}

async fn next(wakes: &mut mpsc::Receiver<Wake>) -> Wake {
    within("a wake-up", wakes.recv())
        .await
        .expect("the listener runs")
}

/// Cuts all connections that listen.
async fn cut(pool: &PgPool) {
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE datname = current_database() AND query LIKE 'LISTEN%'";
    pool.execute(cut).await.unwrap();
}

#[tokio::test]
async fn announcements_of_other_processes_arrive() {
    let (database, store) = TestDatabase::with_store().await;
    let other = other(&database).await;
    let (mut wakes, _task) = start(&store, 10);
    assert_eq!(next(&mut wakes).await, Wake::Restored);
    let long = "ü".repeat(127);
    let names = ["a", "b \"'", &long];
    other.announce(&types(&names)).await.unwrap();
    let mut heard = Vec::new();
    for _ in names {
        heard.push(next(&mut wakes).await);
    }
    assert_eq!(heard, names.map(wake));
}

#[tokio::test]
async fn nobody_is_woken_by_announcements_of_ones_own() {
    let (database, store) = TestDatabase::with_store().await;
    let other = other(&database).await;
    let (mut wakes, _task) = start(&store, 10);
    assert_eq!(next(&mut wakes).await, Wake::Restored);
    store.announce(&types(&["own"])).await.unwrap();
    other.announce(&types(&["other"])).await.unwrap();
    assert_eq!(next(&mut wakes).await, wake("other"));
    // A transaction of the application does not wake by itself.
    store.announce(&types(&["own"])).await.unwrap();
    let mut transaction = store.pool().begin().await.unwrap();
    let committed = types(&["committed"]);
    let announce = store.announce_on(&mut transaction, &committed);
    announce.await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(next(&mut wakes).await, wake("committed"));
}

#[tokio::test]
async fn an_announcement_in_a_transaction_arrives_when_it_commits() {
    let (_database, store) = TestDatabase::with_store().await;
    let (mut wakes, _task) = start(&store, 10);
    assert_eq!(next(&mut wakes).await, Wake::Restored);
    for (name, commit) in [("rolled back", false), ("committed", true)] {
        let mut transaction = store.pool().begin().await.unwrap();
        store
            .announce_on(&mut transaction, &types(&[name]))
            .await
            .unwrap();
        if commit {
            transaction.commit().await.unwrap();
        } else {
            transaction.rollback().await.unwrap();
        }
    }
    assert_eq!(next(&mut wakes).await, wake("committed"));
}

#[tokio::test]
async fn a_listener_whose_connection_is_cut_says_so_and_comes_back() {
    let (database, store) = TestDatabase::with_store().await;
    let other = other(&database).await;
    let (mut wakes, _task) = start(&store, 10);
    assert_eq!(next(&mut wakes).await, Wake::Restored);
    for name in ["once", "twice"] {
        cut(store.pool()).await;
        assert_eq!(next(&mut wakes).await, Wake::Lost);
        assert_eq!(next(&mut wakes).await, Wake::Restored);
        other.announce(&types(&[name])).await.unwrap();
        assert_eq!(next(&mut wakes).await, wake(name));
    }
}

#[tokio::test]
async fn a_loss_is_told_even_when_there_was_no_room_for_wake_ups() {
    let (database, store) = TestDatabase::with_store().await;
    let other = other(&database).await;
    let (mut wakes, _task) = start(&store, 1);
    assert_eq!(next(&mut wakes).await, Wake::Restored);
    for _ in 0..20 {
        other.announce(&types(&["a"])).await.unwrap();
    }
    cut(store.pool()).await;
    let mut heard = vec![next(&mut wakes).await];
    while heard.last() != Some(&Wake::Restored) {
        heard.push(next(&mut wakes).await);
    }
    let lost = heard.iter().filter(|wake| **wake == Wake::Lost).count();
    assert_eq!(lost, 1, "{heard:?}");
}

#[tokio::test]
async fn a_listener_ends_when_nobody_receives() {
    let (_database, store) = TestDatabase::with_store().await;
    let (mut wakes, task) = start(&store, 10);
    assert_eq!(next(&mut wakes).await, Wake::Restored);
    drop(wakes);
    within("the listener ends", task).await.unwrap();
}

#[tokio::test]
async fn the_stores_of_two_schemas_do_not_wake_each_other() {
    let database = TestDatabase::empty().await;
    let store = |schema: &str| {
        let options = StoreOptions {
            schema: Some(schema.to_owned()),
            ..StoreOptions::default()
        };
        PostgresStore::new(database.pool(2), options).unwrap()
    };
    let [one, same, other] = [store("one \"1\""), store("one \"1\""), store("other")];
    let (mut wakes, _task) = start(&one, 10);
    assert_eq!(next(&mut wakes).await, Wake::Restored);
    other.announce(&types(&["of the other"])).await.unwrap();
    same.announce(&types(&["of this"])).await.unwrap();
    assert_eq!(next(&mut wakes).await, wake("of this"));
}

#[tokio::test]
async fn behind_a_pooler_a_store_announces_but_does_not_listen() {
    let (database, store) = TestDatabase::with_store().await;
    let options = StoreOptions {
        poll_only: true,
        ..StoreOptions::default()
    };
    let pooled = other_with(&database, options).await;
    let (mut nothing, task) = start(&pooled, 10);
    let (mut wakes, _task) = start(&store, 10);
    assert_eq!(next(&mut wakes).await, Wake::Restored);
    pooled.announce(&types(&["a"])).await.unwrap();
    assert_eq!(next(&mut wakes).await, wake("a"));
    // It never says that announcements arrive, so its driver polls.
    assert!(nothing.try_recv().is_err());
    drop(nothing);
    within("it ends", task).await.unwrap();
}

/// They mean the same tables, so they have to hear each other.
#[tokio::test]
async fn a_store_that_is_told_its_schema_hears_one_that_found_it_and_the_other_way_round() {
    let (database, finds) = TestDatabase::with_store().await;
    let told = StoreOptions {
        schema: Some("public".to_owned()),
        ..StoreOptions::default()
    };
    let told = other_with(&database, told).await;
    for (from, to) in [(&finds, &told), (&told, &finds)] {
        let (mut wakes, _task) = start(to, 10);
        assert_eq!(next(&mut wakes).await, Wake::Restored);
        from.announce(&types(&["a"])).await.unwrap();
        assert_eq!(next(&mut wakes).await, wake("a"));
    }
}

#[tokio::test]
async fn no_notification_goes_along_in_a_transaction_where_none_is_wanted() {
    let (database, store) = TestDatabase::with_store().await;
    let (mut wakes, _task) = start(&store, 10);
    assert_eq!(next(&mut wakes).await, Wake::Restored);
    let other = other(&database).await;
    for (poll_only, notify_in_transactions) in [(true, true), (false, false)] {
        let quiet = StoreOptions {
            poll_only,
            notify_in_transactions,
            ..StoreOptions::default()
        };
        let quiet = other_with(&database, quiet).await;
        let mut transaction = quiet.pool().begin().await.unwrap();
        let announced = types(&["unwanted"]);
        quiet
            .announce_on(&mut transaction, &announced)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        // Whatever the transaction sent would have come before this.
        other.announce(&types(&["marker"])).await.unwrap();
        assert_eq!(next(&mut wakes).await, wake("marker"));
        // Announcements of its own go on.
        quiet.announce(&types(&["own"])).await.unwrap();
        assert_eq!(next(&mut wakes).await, wake("own"));
    }
}
