//! Commands in a transaction of the caller.

use job_engine::store::{Claim, Finish, NewJob, Outcome, Reclaim, Spawned, Written};
use job_engine::{Command, JobType, Rejection, Reply, StoreError};
use job_sqlite::SqliteStore;
use job_tokio::Store;
use sqlx::Executor;

use crate::fixtures::{
    MAIL, START, claim, claimed_runs, exists, find, id, in_memory, new_job, on_file, run, run_on,
    spawn,
};

fn complete(run: job_engine::Run) -> Command {
    Command::Finish(vec![Finish {
        run,
        outcome: Outcome::Completed,
    }])
}

/// A store with a table of the application.
async fn with_letters() -> (SqliteStore, tempfile::TempDir) {
    let (store, place) = on_file().await;
    let table = "CREATE TABLE letters (text TEXT NOT NULL UNIQUE)";
    store.pool().execute(table).await.unwrap();
    (store, place)
}

async fn letters(store: &SqliteStore) -> i64 {
    let count = sqlx::query_scalar("SELECT count(*) FROM letters");
    count.fetch_one(store.pool()).await.unwrap()
}

#[tokio::test]
async fn a_command_is_kept_with_the_callers_own_writes() {
    let (store, _place) = with_letters().await;
    let mut transaction = job_sqlite::begin_immediate(store.pool()).await.unwrap();
    let insert = "INSERT INTO letters VALUES ('dear ann')";
    transaction.execute(insert).await.unwrap();
    let reply = run_on(&store, &mut transaction, spawn(1));
    let created = Reply::Spawned(vec![Spawned::Created]);
    assert_eq!(reply.await.unwrap(), created);
    assert!(!exists(&store, 1).await, "nobody sees it yet");
    transaction.commit().await.unwrap();
    assert!(exists(&store, 1).await);
    assert_eq!(letters(&store).await, 1);
}

#[tokio::test]
async fn a_transaction_that_is_rolled_back_leaves_nothing() {
    let (store, _place) = with_letters().await;
    run(&store, &spawn(1)).await;
    let running = claimed_runs(Ok(run(&store, &claim(1, 1, 1)).await))[0];
    let before = find(&store, 1).await;
    for rolled_back in [true, false] {
        let mut transaction = job_sqlite::begin_immediate(store.pool()).await.unwrap();
        let insert = "INSERT INTO letters VALUES ('dear ann')";
        transaction.execute(insert).await.unwrap();
        for command in [spawn(2), complete(running)] {
            let done = run_on(&store, &mut transaction, command);
            done.await.unwrap();
        }
        if rolled_back {
            transaction.rollback().await.unwrap();
        } else {
            drop(transaction);
        }
        assert!(!exists(&store, 2).await);
        assert_eq!(find(&store, 1).await, before);
        assert_eq!(letters(&store).await, 0);
    }
}

#[tokio::test]
async fn a_stale_end_is_told_to_the_caller_who_can_roll_back() {
    let (store, _place) = on_file().await;
    run(&store, &spawn(1)).await;
    let running = claimed_runs(Ok(run(&store, &claim(1, 1, 1)).await))[0];
    run(&store, &complete(running)).await;
    let late = Command::Finish(vec![Finish {
        run: running,
        outcome: Outcome::Released,
    }]);
    let mut transaction = job_sqlite::begin_immediate(store.pool()).await.unwrap();
    let reply = run_on(&store, &mut transaction, late);
    let stale = Reply::Finished(vec![Written::Stale]);
    assert_eq!(reply.await.unwrap(), stale);
}

#[tokio::test]
async fn a_command_that_fails_leaves_the_transaction_as_it_was() {
    let (store, _place) = with_letters().await;
    // A row in the way of the second of the statements that spawn.
    let obstacle = "INSERT INTO job_live (id, job_type, due_at) VALUES (x'01', 'mail', 0);
        CREATE TRIGGER obstacle BEFORE INSERT ON job_live
        BEGIN SELECT RAISE(ABORT, 'in the way'); END";
    store.pool().execute(obstacle).await.unwrap();
    let mut transaction = job_sqlite::begin_immediate(store.pool()).await.unwrap();
    let insert = "INSERT INTO letters VALUES ('dear ann')";
    transaction.execute(insert).await.unwrap();
    let failed = run_on(&store, &mut transaction, spawn(1));
    let failed = failed.await;
    assert!(
        matches!(failed, Err(StoreError::Rejected(Rejection::Data(_)))),
        "{failed:?}"
    );
    transaction.commit().await.unwrap();
    assert!(!exists(&store, 1).await, "not even the first statement");
    assert_eq!(letters(&store).await, 1);
}

#[tokio::test]
async fn a_connection_without_a_transaction_gets_one_for_the_command() {
    let (store, _place) = on_file().await;
    let mut connection = store.pool().acquire().await.unwrap();
    let done = run_on(&store, &mut connection, spawn(1));
    done.await.unwrap();
    assert!(exists(&store, 1).await);
}

#[tokio::test]
async fn a_transaction_that_read_before_another_wrote_fails_and_says_why() {
    let (store, _place) = with_letters().await;
    let mut transaction = store.pool().begin().await.unwrap();
    let read = "SELECT * FROM letters";
    transaction.execute(read).await.unwrap();
    run(&store, &spawn(1)).await;
    let late = run_on(&store, &mut transaction, spawn(2));
    match late.await {
        Err(StoreError::Failed(text)) => assert!(text.contains("begin_immediate"), "{text}"),
        other => panic!("{other:?}"),
    }
    transaction.rollback().await.unwrap();
    assert!(!exists(&store, 2).await);
}

#[tokio::test]
async fn a_transaction_that_begins_as_a_writer_cannot_be_overtaken() {
    let (store, _place) = with_letters().await;
    let mut transaction = job_sqlite::begin_immediate(store.pool()).await.unwrap();
    transaction.execute("SELECT * FROM letters").await.unwrap();
    let others = spawn(1);
    let mut others = Box::pin(store.execute(Some(START), &others));
    // The other writer waits, however often it is asked.
    for _ in 0..100 {
        assert!(futures_util::poll!(&mut others).is_pending());
        tokio::task::yield_now().await;
    }
    let done = run_on(&store, &mut transaction, spawn(2));
    done.await.unwrap();
    transaction.commit().await.unwrap();
    others.await.unwrap();
    assert!(exists(&store, 1).await && exists(&store, 2).await);
}

#[tokio::test]
async fn commands_that_only_workers_send_are_refused() {
    let (store, ()) = in_memory().await;
    let claim = Command::Claim(Claim {
        quotas: Vec::new(),
        ..match claim(1, 1, 1) {
            Command::Claim(claim) => claim,
            other => panic!("{other:?}"),
        }
    });
    let reclaim = Command::Reclaim(Reclaim {
        policies: Vec::new(),
        jobs_max: 1,
    });
    let mut transaction = job_sqlite::begin_immediate(store.pool()).await.unwrap();
    for command in [claim, reclaim] {
        let refused = run_on(&store, &mut transaction, command);
        let expected = StoreError::Rejected(Rejection::NotInTransaction);
        assert_eq!(refused.await, Err(expected));
    }
    let too_long = Command::Spawn(vec![NewJob {
        job_type: JobType::new(""),
        ..new_job(1)
    }]);
    let refused = run_on(&store, &mut transaction, too_long);
    let refused = refused.await;
    assert!(matches!(refused, Err(StoreError::Rejected(_))));
    let found = run_on(&store, &mut transaction, Command::Find(id(1)));
    assert_eq!(found.await, Ok(Reply::Found(None)));
}

#[tokio::test]
async fn a_transaction_of_the_caller_works_in_memory() {
    let (store, ()) = in_memory().await;
    for (n, commit) in [(1, true), (2, false)] {
        let mut transaction = job_sqlite::begin_immediate(store.pool()).await.unwrap();
        let done = run_on(&store, &mut transaction, spawn(n));
        done.await.unwrap();
        if commit {
            transaction.commit().await.unwrap();
        } else {
            drop(transaction);
        }
        assert_eq!(exists(&store, n).await, commit);
    }
    assert_eq!(find(&store, 1).await.unwrap().job_type, MAIL);
}
