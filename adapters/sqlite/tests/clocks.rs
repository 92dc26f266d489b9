//! Artificial clocks: one for a file.

use std::sync::Arc;
use std::time::{Duration, Instant};

use job_sqlite::{ClockError, SqliteStore};
use job_tokio::clock::ClockId;
use job_tokio::{ArtificialClockConfig, ClockHandle};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::fixtures::{in_memory, on_file, path_in, run, spawn};

/// Two that start at once must not be lucky.
const RACES: usize = 10;

fn new_clock() -> ClockId {
    let (clock, _controller) = ClockHandle::artificial(ArtificialClockConfig::manual());
    clock.artificial_id().unwrap()
}

/// Insists that a second clock is refused on the file of the store.
async fn check_refused(first: SqliteStore, second: SqliteStore) {
    let first = first.with_clock(new_clock()).await.unwrap();
    let begin = Instant::now();
    let refused = second.with_clock(new_clock()).await.unwrap_err();
    assert!(begin.elapsed() >= Duration::from_secs(5), "no wait");
    assert!(matches!(refused, ClockError::InUse { .. }), "{refused}");
    let text = refused.to_string();
    for part in [
        "another artificial clock is in use on the same job tables",
        "jobs.db\"; share one ClockHandle between the services (its clones are one clock)",
        "a file of its own",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    drop(first);
}

#[tokio::test]
async fn a_second_clock_on_a_file_is_refused() {
    let (store, place) = on_file().await;
    let other = SqliteStore::open(path_in(&place)).await.unwrap();
    check_refused(store, other).await;
}

#[tokio::test]
async fn a_second_clock_is_refused_on_the_pool_of_an_application_too() {
    let (store, place) = on_file().await;
    let options = SqliteConnectOptions::new().filename(path_in(&place));
    let pool = SqlitePoolOptions::new().connect_lazy_with(options);
    check_refused(store, SqliteStore::new(pool)).await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_is_the_same_by_any_path() {
    let (store, place) = on_file().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let link = elsewhere.path().join("link");
    std::os::unix::fs::symlink(place.path(), &link).unwrap();
    let other = SqliteStore::open(link.join("jobs.db")).await.unwrap();
    check_refused(store, other).await;
}

#[tokio::test]
async fn the_clock_of_a_file_is_shared_and_kept_until_the_last_store_is_dropped() {
    let (store, place) = on_file().await;
    let clock = new_clock();
    let other = SqliteStore::open(path_in(&place)).await.unwrap();
    let first = store.with_clock(clock).await.unwrap();
    let clone = first.clone();
    let second = other.with_clock(clock).await.unwrap();
    drop((first, second));

    let waits = Arc::new(Barrier::new(2));
    let other = SqliteStore::open(path_in(&place)).await.unwrap();
    let waiting = {
        let waits = Arc::clone(&waits);
        tokio::spawn(async move {
            waits.wait().await;
            other.with_clock(new_clock()).await
        })
    };
    waits.wait().await;
    assert!(!waiting.is_finished());
    drop(clone);
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_store_that_is_closed_lets_go_of_its_clock_and_still_spawns() {
    let (store, place) = on_file().await;
    let store = store.with_clock(new_clock()).await.unwrap();
    let clone = store.clone();
    store.close().await;
    let other = SqliteStore::open(path_in(&place)).await.unwrap();
    other.with_clock(new_clock()).await.unwrap();
    run(&clone, &spawn(1)).await;
}

#[tokio::test]
async fn files_and_databases_in_memory_have_clocks_of_their_own() {
    let (one, _place) = on_file().await;
    let (other, _other_place) = on_file().await;
    let (memory, ()) = in_memory().await;
    let (other_memory, ()) = in_memory().await;
    let mut stores = Vec::new();
    for store in [one, other, memory, other_memory] {
        stores.push(store.with_clock(new_clock()).await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_clocks_that_start_at_once_exactly_one_wins() {
    let mut races = JoinSet::new();
    for race in 0..RACES {
        let (store, place) = on_file().await;
        let stores = [store, SqliteStore::open(path_in(&place)).await.unwrap()];
        races.spawn(async move {
            let start = Arc::new(Barrier::new(2));
            let starts = stores.map(|store| {
                let start = Arc::clone(&start);
                tokio::spawn(async move {
                    start.wait().await;
                    store.with_clock(new_clock()).await
                })
            });
            let mut ends = Vec::new();
            for start in starts {
                ends.push(start.await.unwrap());
            }
            drop(place);
            (race, ends)
        });
    }
    for (race, ends) in races.join_all().await {
        let won = ends.iter().filter(|end| end.is_ok()).count();
        let lost: Vec<_> = ends.iter().filter_map(|end| end.as_ref().err()).collect();
        assert_eq!(won, 1, "race {race}: {lost:?}");
    }
}
