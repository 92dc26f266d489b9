//! Futures that are dropped before they are done.

use std::future::Future;
use std::task::{Context, Poll, Waker};

use job_engine::store::Spawned;
use job_engine::{Command, Reply, StoreError};
use job_sqlite::SqliteStore;
use job_tokio::Store;

use crate::fixtures::{START, claim, exists, in_memory, new_job, on_file, run, run_on, spawn};

/// So often each number of polls is tried. The connection answers from a thread
/// of its own, so a poll gets further one time than another.
const ROUNDS: usize = 5;
/// More polls than any command needs.
const POLLS_MAX: usize = 14;

/// Polls a future this often, each time when it has been woken, then drops it.
/// Tells whether it got done.
async fn drop_after<T>(polls: usize, future: impl Future<Output = T>) -> bool {
    let mut future = Box::pin(future);
    let mut seen = 0;
    std::future::poll_fn(move |context| {
        seen += 1;
        match future.as_mut().poll(context) {
            Poll::Ready(_) => Poll::Ready(true),
            Poll::Pending if seen >= polls => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// The numbers of polls to try, each with the first of three ids of its own.
fn tries() -> impl Iterator<Item = (usize, u128)> {
    let polls = (1..=POLLS_MAX).flat_map(|polls| [polls; ROUNDS]);
    polls.zip((1..).step_by(3))
}

/// Drops a spawn of two jobs at each of its awaits. After each, the store
/// works, and has both of the jobs or neither.
async fn drop_a_spawn_everywhere(store: &SqliteStore) {
    let mut dropped = 0;
    for (polls, first) in tries() {
        let pair = Command::Spawn(vec![new_job(first), new_job(first + 1)]);
        let done = drop_after(polls, store.execute(None, &pair)).await;
        let next = run(store, &spawn(first + 2)).await;
        assert_eq!(next, Reply::Spawned(vec![Spawned::Created]));
        let both = (exists(store, first).await, exists(store, first + 1).await);
        assert_eq!(both.0, both.1, "after {polls} polls");
        assert!(both.0 || !done);
        dropped += usize::from(!done);
    }
    assert!(dropped >= ROUNDS, "the first poll is never the last");
}

#[tokio::test]
async fn a_command_that_is_dropped_at_any_await_leaves_the_store_usable() {
    let (store, _place) = on_file().await;
    drop_a_spawn_everywhere(&store).await;
    assert!(!in_transaction(&store).await);
}

#[tokio::test]
async fn a_command_that_is_dropped_in_memory_leaves_the_store_usable() {
    let (store, ()) = in_memory().await;
    drop_a_spawn_everywhere(&store).await;
}

#[tokio::test]
async fn a_command_that_is_dropped_in_a_transaction_is_done_wholly_or_not_at_all() {
    let (store, _place) = on_file().await;
    for (polls, first) in tries() {
        let pair = Command::Spawn(vec![new_job(first), new_job(first + 1)]);
        let mut transaction = job_sqlite::begin_immediate(store.pool()).await.unwrap();
        let kept = run_on(&store, &mut transaction, spawn(first + 2));
        kept.await.unwrap();
        let done = drop_after(polls, run_on(&store, &mut transaction, pair)).await;
        transaction.commit().await.unwrap();
        assert!(exists(&store, first + 2).await, "it was done before");
        let both = (exists(&store, first).await, exists(&store, first + 1).await);
        assert_eq!(both.0, both.1, "after {polls} polls");
        // It may have been done without being told.
        assert!(both.0 || !done, "after {polls} polls");
    }
}

#[tokio::test]
async fn a_begin_that_is_dropped_lets_others_write() {
    let (store, _place) = on_file().await;
    for (polls, n) in tries() {
        drop_after(polls, job_sqlite::begin_immediate(store.pool())).await;
        run(&store, &spawn(n)).await;
    }
}

#[tokio::test]
async fn a_command_that_waits_for_the_writer_can_be_dropped() {
    let (store, _place) = on_file().await;
    let transaction = job_sqlite::begin_immediate(store.pool()).await.unwrap();
    for n in 1..=5 {
        let waiting = spawn(n);
        let mut waiting = Box::pin(store.execute(None, &waiting));
        let mut context = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut context).is_pending());
    }
    drop(transaction);
    let claimed = store.execute(Some(START), &claim(1, 1, 10)).await;
    assert!(matches!(claimed, Ok(Reply::Claimed(_))));
    let reply: Result<_, StoreError> = store.execute(Some(START), &spawn(6)).await;
    assert_eq!(reply, Ok(Reply::Spawned(vec![Spawned::Created])));
}

/// Whether a connection of the store still holds the place of the writer.
async fn in_transaction(store: &SqliteStore) -> bool {
    let mut other = store.pool().acquire().await.unwrap();
    let begun = sqlx::query("BEGIN IMMEDIATE").execute(&mut *other).await;
    sqlx::query("ROLLBACK").execute(&mut *other).await.unwrap();
    begun.is_err()
}
