//! Commands in transactions of the caller, and what others see of them.

use job_engine::lifecycle::State;
use job_engine::store::{Reclaim, Written};
use job_engine::{Command, Rejection, Reply, StoreError};
use job_tokio::Store;

use sqlx::Executor;

use crate::support::{
    LEASE, TestDatabase, at, checkpoint, claim, claim_command, claim_one, completed, find, finish,
    heartbeat, id, new_job, reclaim, spawn, within,
};

#[tokio::test]
async fn what_is_rolled_back_leaves_nothing() {
    let (_database, store) = TestDatabase::with_store().await;
    spawn(&store, at(0), vec![new_job(1, "a")]).await;
    let run = claim_one(&store, at(1), "a").await;
    let before = find(&store, id(1)).await;

    let mut transaction = store.pool().begin().await.unwrap();
    for command in [
        Command::Spawn(vec![new_job(2, "a")]),
        checkpoint(run, "1"),
        Command::Finish(vec![completed(run)]),
    ] {
        let reply = store
            .execute_on(&mut transaction, Some(at(2)), &command)
            .await;
        reply.unwrap();
    }
    let seen = store
        .execute_on(&mut transaction, None, &Command::Find(id(1)))
        .await;
    let Ok(Reply::Found(Some(seen))) = seen else {
        panic!("{seen:?}");
    };
    assert_eq!(seen.state(), State::Completed);
    transaction.rollback().await.unwrap();

    assert_eq!(find(&store, id(1)).await, before);
    assert_eq!(find(&store, id(2)).await, None);
    assert_eq!(
        finish(&store, at(3), vec![completed(run)]).await,
        [Written::Applied]
    );
}

#[tokio::test]
async fn what_is_committed_is_there() {
    let (_database, store) = TestDatabase::with_store().await;
    spawn(&store, at(0), vec![new_job(1, "a")]).await;
    let run = claim_one(&store, at(1), "a").await;
    let mut transaction = store.pool().begin().await.unwrap();
    let finish = Command::Finish(vec![completed(run)]);
    let reply = store
        .execute_on(&mut transaction, Some(at(2)), &finish)
        .await;
    assert_eq!(reply, Ok(Reply::Finished(vec![Written::Applied])));
    transaction.commit().await.unwrap();
    assert_eq!(find(&store, id(1)).await.unwrap().state(), State::Completed);
    // A repeat after a commit whose reply was lost.
    let reply = store.execute(Some(at(3)), &finish).await;
    assert_eq!(reply, Ok(Reply::Finished(vec![Written::Applied])));
}

#[tokio::test]
async fn a_worker_s_own_commands_are_refused_in_a_transaction() {
    let (_database, store) = TestDatabase::with_store().await;
    let mut transaction = store.pool().begin().await.unwrap();
    let reclaim = Reclaim {
        policies: Vec::new(),
        jobs_max: 1,
    };
    for command in [
        Command::Claim(claim_command(1, 1, "a", 1)),
        Command::Reclaim(reclaim),
    ] {
        let reply = store.execute_on(&mut transaction, None, &command).await;
        assert_eq!(
            reply,
            Err(StoreError::Rejected(Rejection::NotInTransaction))
        );
    }
}

#[tokio::test]
async fn a_runner_with_an_open_transaction_holds_up_no_heartbeat_and_loses_no_lease() {
    let (_database, store) = TestDatabase::with_store().await;
    spawn(&store, at(0), vec![new_job(1, "a"), new_job(2, "a")]).await;
    let [one, other] = [
        claim_one(&store, at(1), "a").await,
        claim_one(&store, at(1), "a").await,
    ];
    let ended = Command::Finish(vec![completed(one)]);
    // Each with whether the lease of its own run can be renewed beside it.
    for (what, command, isolation, renewable) in [
        ("a checkpoint", checkpoint(one, "1"), "READ COMMITTED", true),
        (
            "a checkpoint",
            checkpoint(one, "1"),
            "REPEATABLE READ",
            false,
        ),
        ("a hold", Command::Hold(one), "READ COMMITTED", true),
        ("a hold", Command::Hold(one), "REPEATABLE READ", false),
        ("an end", ended, "READ COMMITTED", false),
    ] {
        let mut transaction = store.pool().begin().await.unwrap();
        let set = format!("SET TRANSACTION ISOLATION LEVEL {isolation}");
        transaction.execute(&*set).await.unwrap();
        let done = store.execute_on(&mut transaction, Some(at(2)), &command);
        done.await.unwrap();

        let renewed = heartbeat(&store, at(100), vec![one, other]);
        let renewed = within("the heartbeat", renewed).await;
        assert_eq!(renewed, [Written::Applied, Written::Applied], "{what}");
        for (run, renewable) in [(one, renewable), (other, true)] {
            let live = find(&store, run.job).await.unwrap().live.unwrap();
            let since = if renewable { at(100) } else { at(1) };
            let expires_at = live.lease.unwrap().expires_at;
            let expected = since.saturating_add(LEASE);
            assert_eq!(expires_at, expected, "{what}, {isolation}");
        }
        let later = at(1).saturating_add(LEASE);
        let lost = within("recovery", reclaim(&store, later, "a")).await;
        assert_eq!(lost, [], "{what}");

        transaction.rollback().await.unwrap();
        let renewed = heartbeat(&store, at(1), vec![one, other]).await;
        assert_eq!(renewed, [Written::Applied, Written::Applied], "{what}");
    }
}

#[tokio::test]
async fn a_claim_passes_over_what_another_claim_is_taking() {
    let (_database, store) = TestDatabase::with_store().await;
    spawn(&store, at(0), vec![new_job(1, "a"), new_job(2, "a")]).await;
    let mut transaction = store.pool().begin().await.unwrap();
    sqlx::query("SELECT 1 FROM job_live WHERE id = $1 FOR UPDATE")
        .bind(id(1).0)
        .execute(&mut *transaction)
        .await
        .unwrap();
    let command = claim_command(1, 1, "a", 2);
    let claimed = within("the claim", claim(&store, at(1), command)).await;
    let ids: Vec<_> = claimed.jobs.iter().map(|job| job.run.job).collect();
    assert_eq!(ids, [id(2)]);
    transaction.rollback().await.unwrap();
    assert_eq!(claim_one(&store, at(1), "a").await.job, id(1));
}
