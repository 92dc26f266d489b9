//! Which connections are used, and what becomes of those that break.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use job_engine::store::Written;
use job_engine::{Command, Reply, StoreError};
use job_postgres::{ConnectConfig, PostgresStore, StoreOptions, connect, is_in_transaction};
use job_tokio::Store;
use sqlx::postgres::PgPoolOptions;
use sqlx::{ConnectOptions, Connection, Executor, PgConnection, PgPool, Row};

use crate::support::{
    TestDatabase, at, checkpoint, claim, claim_command, claim_one, completed, finish, heartbeat,
    id, new_job, reclaim, spawn, wait_for_blocked, wait_until, within,
};

/// Enough to use up the connections of the worker.
const MANY: usize = 5;

#[tokio::test]
async fn runners_that_use_up_the_pool_do_not_keep_the_worker_from_its_work() {
    let (database, admin) = TestDatabase::with_store().await;
    spawn(&admin, at(0), vec![new_job(1, "a"), new_job(2, "a")]).await;
    let store = PostgresStore::new(database.pool(1), StoreOptions::default()).unwrap();
    let _all = store.pool().acquire().await.unwrap();
    within("the work", async {
        let claimed = claim(&store, at(1), claim_command(1, 1, "a", 1)).await;
        let run = claimed.jobs[0].run;
        assert_eq!(
            heartbeat(&store, at(2), vec![run]).await,
            [Written::Applied]
        );
        assert_eq!(reclaim(&store, at(3), "a").await, []);
        assert_eq!(
            finish(&store, at(4), vec![completed(run)]).await,
            [Written::Applied]
        );
    })
    .await;
}

#[tokio::test]
async fn the_worker_s_connections_are_few_named_and_closed_on_demand() {
    let (database, store) = TestDatabase::with_store().await;
    spawn(&store, at(0), (0..20).map(|n| new_job(n, "a")).collect()).await;
    let claims = (0..20).map(|n| {
        let store = store.clone();
        tokio::spawn(async move { claim(&store, at(1), claim_command(1, n, "a", 1)).await })
    });
    for claim in claims.collect::<Vec<_>>() {
        claim.await.unwrap();
    }
    let mut observer = PgConnection::connect_with(&database.options())
        .await
        .unwrap();
    let count = "SELECT count(*) FROM pg_stat_activity \
                 WHERE datname = current_database() AND application_name = 'job'";
    let workers: i64 = observer.fetch_one(count).await.unwrap().get(0);
    assert!((1..=4).contains(&workers), "{workers}");

    store.close().await;
    let observer = tokio::sync::Mutex::new(observer);
    wait_until("the connections are closed", || async {
        let row = observer.lock().await.fetch_one(count).await.unwrap();
        row.get::<i64, _>(0) == 0
    })
    .await;
    let reply = store
        .execute(None, &Command::Claim(claim_command(1, 99, "a", 1)))
        .await;
    assert!(matches!(reply, Err(StoreError::Failed(_))), "{reply:?}");
    let reply = store.execute(None, &Command::Find(id(1))).await;
    assert!(matches!(reply, Ok(Reply::Found(Some(_)))), "{reply:?}");
}

#[tokio::test]
async fn a_command_that_is_given_up_on_gives_its_connection_back_at_once() {
    let (_database, store) = TestDatabase::with_store().await;
    spawn(&store, at(0), vec![new_job(1, "a"), new_job(2, "a")]).await;
    let [run, other] = [
        claim_one(&store, at(1), "a").await,
        claim_one(&store, at(1), "a").await,
    ];
    let mut transaction = store.pool().begin().await.unwrap();
    store
        .execute_on(&mut transaction, None, &checkpoint(run, "1"))
        .await
        .unwrap();
    for _ in 0..MANY {
        // They wait for the row.
        let end = finish(&store, at(2), vec![completed(run)]);
        let given_up = tokio::time::timeout(Duration::from_millis(20), end).await;
        given_up.unwrap_err();
    }
    // Sooner than the timeouts of the commands above.
    let renewed = heartbeat(&store, at(3), vec![other]);
    let renewed = tokio::time::timeout(Duration::from_secs(4), renewed).await;
    assert_eq!(renewed.expect("a connection is free"), [Written::Applied]);
    transaction.rollback().await.unwrap();
}

/// Makes a finish wait for a row, and then lets `function` have its connection.
async fn check_interrupted(function: &str) -> Result<Reply, StoreError> {
    let (_database, store) = TestDatabase::with_store().await;
    spawn(&store, at(0), vec![new_job(1, "a")]).await;
    let run = claim_one(&store, at(1), "a").await;
    let mut transaction = store.pool().begin().await.unwrap();
    store
        .execute_on(&mut transaction, None, &checkpoint(run, "1"))
        .await
        .unwrap();
    let waiting = {
        let store = store.clone();
        let command = Command::Finish(vec![completed(run)]);
        tokio::spawn(async move { store.execute(Some(at(2)), &command).await })
    };
    wait_for_blocked(store.pool(), 1).await;
    let interrupt = format!(
        "SELECT {function}(pid) FROM pg_stat_activity \
         WHERE datname = current_database() AND wait_event_type = 'Lock'"
    );
    store.pool().execute(&*interrupt).await.unwrap();
    let reply = within("the reply", waiting).await.unwrap();
    transaction.rollback().await.unwrap();
    // The next try is on a connection that works.
    let written = finish(&store, at(3), vec![completed(run)]).await;
    assert_eq!(written, [Written::Applied]);
    reply
}

#[tokio::test]
async fn a_connection_that_is_cut_leaves_the_outcome_unknown() {
    let reply = check_interrupted("pg_terminate_backend").await;
    assert!(matches!(reply, Err(StoreError::Unknown(_))), "{reply:?}");
}

#[tokio::test]
async fn a_statement_that_is_cancelled_has_failed_for_sure() {
    let reply = check_interrupted("pg_cancel_backend").await;
    assert!(matches!(reply, Err(StoreError::Failed(_))), "{reply:?}");
}

#[tokio::test]
async fn a_row_that_stays_locked_ends_in_a_failure() {
    let (_database, store) = TestDatabase::with_store().await;
    spawn(&store, at(0), vec![new_job(1, "a")]).await;
    let run = claim_one(&store, at(1), "a").await;
    let mut transaction = store.pool().begin().await.unwrap();
    store
        .execute_on(&mut transaction, None, &checkpoint(run, "1"))
        .await
        .unwrap();
    let command = Command::Finish(vec![completed(run)]);
    let reply = within("the timeout", store.execute(Some(at(2)), &command)).await;
    assert!(matches!(reply, Err(StoreError::Failed(_))), "{reply:?}");
    transaction.rollback().await.unwrap();
}

#[tokio::test]
async fn a_database_that_only_reads_fails_and_may_recover() {
    let (database, store) = TestDatabase::with_store().await;
    let name = database.options().get_database().unwrap().to_owned();
    for (read_only, fails) in [(true, true), (false, false)] {
        let alter =
            format!("ALTER DATABASE {name} SET default_transaction_read_only = {read_only}");
        let mut admin = PgConnection::connect_with(&database.options())
            .await
            .unwrap();
        admin
            .execute("SET default_transaction_read_only = off")
            .await
            .unwrap();
        admin.execute(&*alter).await.unwrap();
        let store = PostgresStore::new(database.pool(1), StoreOptions::default()).unwrap();
        let reply = store
            .execute(None, &Command::Spawn(vec![new_job(1, "a")]))
            .await;
        assert_eq!(
            matches!(reply, Err(StoreError::Failed(_))),
            fails,
            "{reply:?}"
        );
    }
    assert!(store.execute(None, &Command::Find(id(1))).await.is_ok());
}

#[tokio::test]
async fn the_statements_hold_on_a_database_with_stricter_isolation() {
    let (database, store) = TestDatabase::with_store().await;
    let name = database.options().get_database().unwrap().to_owned();
    let alter = format!("ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'");
    store.pool().execute(&*alter).await.unwrap();
    for poll_only in [false, true] {
        let options = StoreOptions {
            poll_only,
            ..StoreOptions::default()
        };
        let store = PostgresStore::new(database.pool(2), options).unwrap();
        let n = u128::from(poll_only);
        spawn(&store, at(0), vec![new_job(n, "a")]).await;
        let run = claim_one(&store, at(1), "a").await;
        let finishes = || vec![completed(run)];
        let (one, other) = tokio::join!(
            finish(&store, at(2), finishes()),
            finish(&store, at(2), finishes()),
        );
        assert_eq!(
            (one, other),
            (vec![Written::Applied], vec![Written::Applied])
        );
    }
}

/// The application aborts what it does, or runs into a timeout, and may have been
/// about to begin a transaction.
#[tokio::test]
async fn a_begin_that_is_dropped_at_any_await_takes_no_later_spawn_with_it() {
    let (database, observer) = TestDatabase::with_store().await;
    for polls in 1.. {
        let pool = database.pool(1);
        // From here on it is connected.
        drop(pool.acquire().await.unwrap());
        let begun = polled(pool.begin(), polls).await.is_some();
        check_spawn_stands(pool, &observer, polls).await;
        if begun {
            assert!(polls > 1, "it was never dropped while it waited");
            break;
        }
    }
}

#[tokio::test]
async fn a_transaction_that_was_left_behind_neither_takes_nor_fails_a_later_spawn() {
    let (database, observer) = TestDatabase::with_store().await;
    for (n, fails) in [(1, false), (2, true)] {
        let pool = database.pool(1);
        let mut connection = pool.acquire().await.unwrap();
        connection.execute("BEGIN").await.unwrap();
        if fails {
            connection.execute("SELECT 1 / 0").await.unwrap_err();
        }
        drop(connection);
        check_spawn_stands(pool, &observer, n).await;
    }
}

/// For what the application writes itself.
#[tokio::test]
async fn a_pool_of_ours_keeps_no_connection_that_is_in_a_transaction() {
    let (database, observer) = TestDatabase::with_store().await;
    let table = "CREATE TABLE ledger (n bigint)";
    observer.pool().execute(table).await.unwrap();
    let url = database.options().to_url_lossy();
    for polls in 1.. {
        let config = ConnectConfig {
            max_connections: 1,
            ..ConnectConfig::default()
        };
        let pool = connect(url.as_str(), &config).await.unwrap();
        drop(pool.acquire().await.unwrap());
        let begun = polled(pool.begin(), polls).await.is_some();
        pool.execute("INSERT INTO ledger VALUES (1)").await.unwrap();
        let written = "SELECT count(*) FROM ledger";
        let written: i64 = observer.pool().fetch_one(written).await.unwrap().get(0);
        assert_eq!(
            written,
            i64::from(polls),
            "dropped at its await number {polls}"
        );
        if begun {
            break;
        }
    }
}

#[tokio::test]
async fn a_check_of_the_tables_that_is_dropped_leaves_no_transaction_behind() {
    let (database, observer) = TestDatabase::with_store().await;
    for polls in 1.. {
        let pool = database.pool(1);
        drop(pool.acquire().await.unwrap());
        let store = PostgresStore::new(pool.clone(), StoreOptions::default()).unwrap();
        let checked = polled(store.check_schema(), polls).await.is_some();
        let mut connection = pool.acquire().await.unwrap();
        assert!(
            !is_in_transaction(&mut connection).await.unwrap(),
            "{polls}"
        );
        if checked {
            break;
        }
    }
    observer.close().await;
}

#[tokio::test]
async fn a_spawn_gets_past_a_connection_that_has_died_in_the_pool() {
    let (database, observer) = TestDatabase::with_store().await;
    let untested = PgPoolOptions::new()
        .max_connections(1)
        .test_before_acquire(false);
    let pool = untested.connect_lazy_with(database.options());
    let pid: i32 = pool
        .fetch_one("SELECT pg_backend_pid()")
        .await
        .unwrap()
        .get(0);
    let terminate = "SELECT pg_terminate_backend($1, 10000)";
    let terminate = sqlx::query(terminate).bind(pid);
    terminate.execute(observer.pool()).await.unwrap();
    check_spawn_stands(pool, &observer, 1).await;
}

#[tokio::test]
async fn a_pool_whose_connections_are_all_in_transactions_is_refused() {
    let (database, _observer) = TestDatabase::with_store().await;
    let begins = PgPoolOptions::new()
        .max_connections(2)
        .after_connect(|connection, _| {
            Box::pin(async move { connection.execute("BEGIN").await.map(drop) })
        });
    let pool = begins.connect_lazy_with(database.options());
    let store = PostgresStore::new(pool, StoreOptions::default()).unwrap();
    let spawn = Command::Spawn(vec![new_job(1, "a")]);
    let refused = store.execute(None, &spawn).await.unwrap_err();
    assert!(
        refused.to_string().contains("hooks of the pool"),
        "{refused}"
    );
}

/// It may be in a transaction that has failed: behind a pooler a begin has settings
/// with it, which can fail.
#[tokio::test]
async fn a_connection_on_which_a_command_failed_is_not_used_again() {
    let (database, _observer) = TestDatabase::with_store().await;
    let pool = database.pool(1);
    let ask = "SELECT pg_backend_pid()";
    let before: i32 = pool.fetch_one(ask).await.unwrap().get(0);
    let options = StoreOptions {
        schema: Some("nowhere".to_owned()),
        poll_only: true,
        ..StoreOptions::default()
    };
    let store = PostgresStore::new(pool.clone(), options).unwrap();
    let failed = store.execute(None, &Command::Find(id(1))).await;
    assert!(matches!(failed, Err(StoreError::Failed(_))), "{failed:?}");
    let after: i32 = pool.fetch_one(ask).await.unwrap().get(0);
    assert_ne!(before, after);
}

/// What a future returns that is polled so often and then dropped.
async fn polled<T>(future: impl Future<Output = T>, polls: u32) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}

async fn check_spawn_stands(pool: PgPool, observer: &PostgresStore, n: u32) {
    let store = PostgresStore::new(pool, StoreOptions::default()).unwrap();
    spawn(&store, at(0), vec![new_job(n.into(), "a")]).await;
    let found = observer.execute(None, &Command::Find(id(n.into()))).await;
    assert!(matches!(found, Ok(Reply::Found(Some(_)))), "{n}: {found:?}");
}

#[tokio::test]
async fn behind_a_pooler_nothing_is_left_on_the_connection() {
    let (database, _) = TestDatabase::with_store().await;
    let options = StoreOptions {
        poll_only: true,
        ..StoreOptions::default()
    };
    let store = PostgresStore::new(database.pool(1), options).unwrap();
    store.check_schema().await.unwrap();
    spawn(&store, at(0), vec![new_job(1, "a")]).await;
    store
        .announce(&[job_engine::JobType::new("a")].into())
        .await
        .unwrap();
    let mut connection = store.pool().acquire().await.unwrap();
    for (ask, expected) in [
        ("SELECT current_setting('enable_seqscan')", "on"),
        (
            "SELECT count(*)::text FROM pg_prepared_statements WHERE name <> ''",
            "0",
        ),
        ("SELECT (now() = statement_timestamp())::text", "true"),
    ] {
        // Asked without preparing anything.
        let answer: String = connection.fetch_one(ask).await.unwrap().get(0);
        assert_eq!(answer, expected, "{ask}");
    }
}

/// As in an application that owns its runtime and drops that first.
#[test]
fn a_store_may_outlive_its_runtime() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let (database, store) = runtime.block_on(TestDatabase::with_store());
    runtime.block_on(async {
        spawn(&store, at(0), vec![new_job(1, "a")]).await;
        claim_one(&store, at(1), "a").await;
    });
    drop(runtime);
    drop(store);
    drop(database);
}
