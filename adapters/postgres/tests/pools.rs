//! Which connections are used, and what becomes of those that break.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use job_engine::store::Written;
use job_engine::{Command, Reply, StoreError};
use job_postgres::{PostgresStore, StoreOptions};
use job_tokio::Store;
use sqlx::{Connection, Executor, PgConnection, PgPool, Row};

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
    assert!((1..=3).contains(&workers), "{workers}");

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
            assert!(polls > 2, "it was never dropped while it waited");
            break;
        }
    }
}

#[tokio::test]
async fn a_failed_transaction_that_was_left_behind_fails_no_later_spawn() {
    let (database, observer) = TestDatabase::with_store().await;
    let pool = database.pool(1);
    let mut connection = pool.acquire().await.unwrap();
    connection.execute("BEGIN").await.unwrap();
    connection.execute("SELECT 1 / 0").await.unwrap_err();
    drop(connection);
    check_spawn_stands(pool, &observer, 1).await;
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
