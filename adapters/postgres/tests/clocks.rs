//! Artificial clocks: one for the tables of a schema.

use std::sync::Arc;
use std::time::{Duration, Instant};

use job_engine::Command;
use job_postgres::{ClockError, PostgresStore, StoreOptions};
use job_tokio::clock::ClockId;
use job_tokio::{ArtificialClockConfig, ClockHandle, Store};
use sqlx::{ConnectOptions, Connection, Executor, PgConnection, Row};
use tokio::sync::Barrier;

use crate::support::{TestDatabase, new_job, wait_until, within};

/// Two that start at once must not be lucky.
const RACES: usize = 10;

fn new_clock() -> ClockId {
    let (clock, _controller) = ClockHandle::artificial(ArtificialClockConfig::manual());
    clock.artificial_id().unwrap()
}

/// Another store on the tables, with connections of a name.
fn named_store(database: &TestDatabase, name: &str, options: StoreOptions) -> PostgresStore {
    let connect = database.options().application_name(name);
    let pool = sqlx::postgres::PgPoolOptions::new()
        .max_connections(2)
        .connect_lazy_with(connect);
    PostgresStore::new(pool, options).unwrap()
}

fn store(database: &TestDatabase) -> PostgresStore {
    named_store(database, "store", StoreOptions::default())
}

/// The sessions that hold the lock of a clock.
async fn holders(store: &PostgresStore) -> Vec<i32> {
    let holders = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 \
                   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let holders = store.pool().fetch_all(holders).await.unwrap();
    holders.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn a_second_clock_is_refused_and_told_who_has_the_first() {
    let (database, observer) = TestDatabase::with_store().await;
    let first = named_store(&database, "first service", StoreOptions::default());
    let _first = first.with_clock(new_clock()).await.unwrap();
    let [pid] = holders(&observer).await[..] else {
        panic!("one session holds the lock");
    };
    let begin = Instant::now();
    let refused = within("the answer", store(&database).with_clock(new_clock())).await;
    let refused = refused.unwrap_err();
    assert!(begin.elapsed() >= Duration::from_secs(5), "no wait");
    let text = refused.to_string();
    for part in [
        "another artificial clock is in use on the same job tables",
        &format!("pid {pid} and the application name \"first service\""),
        "share one ClockHandle between the services (its clones are one clock)",
        "a schema or a database of its own (TestJobs::postgres, schema(..))",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(matches!(refused, ClockError::InUse { .. }));
    // Who was refused has left nothing behind.
    wait_until("only the first holds it", || async {
        holders(&observer).await == [pid]
    })
    .await;
}

#[tokio::test]
async fn stores_with_the_same_clock_share_the_tables() {
    let (database, observer) = TestDatabase::with_store().await;
    let clock = new_clock();
    let _stores = [
        store(&database).with_clock(clock).await.unwrap(),
        store(&database).with_clock(clock).await.unwrap(),
    ];
    assert_eq!(holders(&observer).await.len(), 2);
}

#[tokio::test]
async fn each_schema_has_a_clock_of_its_own() {
    let database = TestDatabase::empty().await;
    let mut stores = Vec::new();
    for schema in ["one", "odd \"'name"] {
        let options = StoreOptions {
            schema: Some(schema.to_owned()),
            ..StoreOptions::default()
        };
        let store = named_store(&database, "store", options);
        store.migrate().await.unwrap();
        stores.push(store.with_clock(new_clock()).await.unwrap());
    }
}

#[tokio::test]
async fn a_store_that_is_closed_lets_go_of_its_clock_and_still_spawns() {
    let (database, observer) = TestDatabase::with_store().await;
    let store = store(&database).with_clock(new_clock()).await.unwrap();
    let clone = store.clone();
    store.close().await;
    wait_until("the connection is closed", || async {
        holders(&observer).await.is_empty()
    })
    .await;
    let spawn = Command::Spawn(vec![new_job(1, "a")]);
    clone.execute(None, &spawn).await.unwrap();
}

#[tokio::test]
async fn the_clock_is_held_until_the_last_clone_is_dropped() {
    let (database, observer) = TestDatabase::with_store().await;
    let first = store(&database).with_clock(new_clock()).await.unwrap();
    let clone = first.clone();
    drop(first);
    assert_eq!(holders(&observer).await.len(), 1);

    let (waits, other) = (Arc::new(Barrier::new(2)), store(&database));
    let waiting = {
        let waits = Arc::clone(&waits);
        tokio::spawn(async move {
            waits.wait().await;
            other.with_clock(new_clock()).await
        })
    };
    waits.wait().await;
    drop(clone);
    let other = within("the other is let in", waiting).await.unwrap();
    assert_eq!(holders(&observer).await.len(), 1);
    drop(other.unwrap());
    wait_until("the connection is closed", || async {
        holders(&observer).await.is_empty()
    })
    .await;
}

/// Each time on tables of their own, since the one that loses tries for 5 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_clocks_that_start_at_once_exactly_one_wins() {
    let database = TestDatabase::empty().await;
    let mut races = tokio::task::JoinSet::new();
    for race in 0..RACES {
        let options = StoreOptions {
            schema: Some(format!("race_{race}")),
            ..StoreOptions::default()
        };
        let stores = [(); 2].map(|()| named_store(&database, "store", options.clone()));
        stores[0].migrate().await.unwrap();
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
            (race, ends)
        });
    }
    for (race, ends) in within("the races", races.join_all()).await {
        let won = ends.iter().filter(|end| end.is_ok()).count();
        let lost: Vec<_> = ends.iter().filter_map(|end| end.as_ref().err()).collect();
        assert_eq!(won, 1, "race {race}: {lost:?}");
        assert!(matches!(lost[0], ClockError::InUse { .. }), "{lost:?}");
    }
}

#[tokio::test]
async fn locks_of_the_application_are_not_taken_for_clocks() {
    let (database, observer) = TestDatabase::with_store().await;
    let mut application = PgConnection::connect_with(&database.options())
        .await
        .unwrap();
    application
        .execute(
            "SELECT pg_advisory_lock('job_live'::regclass::oid::bigint),
                    pg_advisory_lock(7),
                    pg_advisory_lock(7, 7)",
        )
        .await
        .unwrap();
    let held = store(&database).with_clock(new_clock()).await.unwrap();
    assert_eq!(holders(&observer).await.len(), 2);
    drop(held);
}

#[tokio::test]
async fn behind_a_pooler_no_session_is_held() {
    let (database, observer) = TestDatabase::with_store().await;
    let options = StoreOptions {
        poll_only: true,
        ..StoreOptions::default()
    };
    let stores = [(); 2].map(|()| named_store(&database, "store", options.clone()));
    let mut unchecked = Vec::new();
    for store in stores {
        unchecked.push(store.with_clock(new_clock()).await.unwrap());
    }
    assert!(holders(&observer).await.is_empty());
}

#[tokio::test]
async fn the_server_does_not_end_the_session_for_being_idle() {
    let (database, observer) = TestDatabase::with_store().await;
    let known = "SELECT count(*) FROM pg_settings WHERE name = 'idle_session_timeout'";
    let known: i64 = observer.pool().fetch_one(known).await.unwrap().get(0);
    if known == 0 {
        return;
    }
    let name = database.options().get_database().unwrap().to_owned();
    let alter = format!("ALTER DATABASE {name} SET idle_session_timeout = '200ms'");
    observer.pool().execute(&*alter).await.unwrap();
    let _held = store(&database).with_clock(new_clock()).await.unwrap();
    // One that was connected later and is idle as long is ended.
    let mut idle = database.options().connect().await.unwrap();
    let pid: i32 = idle
        .fetch_one("SELECT pg_backend_pid()")
        .await
        .unwrap()
        .get(0);
    wait_until("an idle session is ended", || async {
        let alive = sqlx::query("SELECT 1 FROM pg_stat_activity WHERE pid = $1").bind(pid);
        alive
            .fetch_optional(observer.pool())
            .await
            .unwrap()
            .is_none()
    })
    .await;
    assert_eq!(holders(&observer).await.len(), 1);
}

#[tokio::test]
async fn a_database_that_is_gone_is_an_error_of_its_own() {
    let (database, _store) = TestDatabase::with_store().await;
    let connect = database.options().database("job_none");
    let pool = sqlx::postgres::PgPoolOptions::new().connect_lazy_with(connect);
    let gone = PostgresStore::new(pool, StoreOptions::default()).unwrap();
    let error = gone.with_clock(new_clock()).await.unwrap_err();
    assert!(matches!(error, ClockError::Database(_)), "{error}");
}

/// As in an application that owns its runtime and drops that first.
#[test]
fn a_store_with_a_clock_may_outlive_its_runtime() {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap()
    };
    let (main, doomed) = (runtime(), runtime());
    let (database, observer) = main.block_on(TestDatabase::with_store());
    let held = doomed.block_on(async { store(&database).with_clock(new_clock()).await.unwrap() });
    drop(doomed);
    drop(held);
    main.block_on(wait_until("the connection is closed", || async {
        holders(&observer).await.is_empty()
    }));
}
