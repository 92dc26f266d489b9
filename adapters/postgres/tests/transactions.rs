//! Commands in transactions of the caller, and what others see of them.

use std::time::Duration;

use job_engine::lifecycle::State;
use job_engine::store::{Finish, Outcome, Reclaim, Spawned, Written};
use job_engine::{Command, ErrorText, Payload, Rejection, Reply, StoreError};
use job_tokio::Store;

use crate::support::{
    LEASE, TestDatabase, at, checkpoint, claim, claim_command, claim_one, completed, find, finish,
    heartbeat, id, new_job, reclaim, spawn, wait_for_blocked, within,
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

async fn check_spawn_race(unique: bool, commit: bool, expected: Spawned) {
    let (_database, store) = TestDatabase::with_store().await;
    let mut first = new_job(1, "a");
    let mut second = new_job(if unique { 2 } else { 1 }, "a");
    (first.unique_type, second.unique_type) = (unique, unique);
    second.token = 2;

    let mut transaction = store.pool().begin().await.unwrap();
    let reply = store
        .execute_on(&mut transaction, Some(at(0)), &Command::Spawn(vec![first]))
        .await;
    assert_eq!(reply, Ok(Reply::Spawned(vec![Spawned::Created])));
    let other = {
        let store = store.clone();
        tokio::spawn(async move {
            let mut transaction = store.pool().begin().await.unwrap();
            let command = Command::Spawn(vec![second]);
            let reply = store
                .execute_on(&mut transaction, Some(at(0)), &command)
                .await;
            transaction.commit().await.unwrap();
            reply
        })
    };
    wait_for_blocked(store.pool(), 1).await;
    if commit {
        transaction.commit().await.unwrap();
    } else {
        transaction.rollback().await.unwrap();
    }
    let reply = within("the other spawn", other).await.unwrap();
    assert_eq!(reply, Ok(Reply::Spawned(vec![expected])));
}

#[tokio::test]
async fn a_spawn_waits_for_an_open_one_with_the_same_id() {
    check_spawn_race(false, true, Spawned::DuplicateId).await;
    check_spawn_race(false, false, Spawned::Created).await;
}

#[tokio::test]
async fn a_spawn_waits_for_an_open_one_of_the_same_unique_type() {
    check_spawn_race(true, true, Spawned::DuplicateUniqueType).await;
    check_spawn_race(true, false, Spawned::Created).await;
}

#[tokio::test]
async fn an_end_that_waited_for_a_checkpoint_keeps_it() {
    let (_database, store) = TestDatabase::with_store().await;
    spawn(&store, at(0), vec![new_job(1, "a")]).await;
    let run = claim_one(&store, at(1), "a").await;
    let mut transaction = store.pool().begin().await.unwrap();
    let kept = checkpoint(run, "{\"page\": 7}");
    let reply = store.execute_on(&mut transaction, None, &kept).await;
    assert_eq!(reply, Ok(Reply::Checkpointed(Written::Applied)));

    let retried = Finish {
        run,
        outcome: Outcome::Retried {
            delay: Duration::from_secs(1),
            attempt: 2,
            error: ErrorText::new("no"),
        },
    };
    let other = {
        let store = store.clone();
        tokio::spawn(async move { finish(&store, at(2), vec![retried]).await })
    };
    wait_for_blocked(store.pool(), 1).await;
    transaction.commit().await.unwrap();
    let written = within("the end", other).await.unwrap();
    assert_eq!(written, [Written::Applied]);
    let live = find(&store, id(1)).await.unwrap().live.unwrap();
    assert_eq!(live.state, Some(Payload::from_json("{\"page\": 7}")));
    assert_eq!((live.attempt, live.due_at), (2, at(3)));
}

#[tokio::test]
async fn an_end_that_waited_for_another_end_is_stale() {
    let (_database, store) = TestDatabase::with_store().await;
    spawn(&store, at(0), vec![new_job(1, "a")]).await;
    let run = claim_one(&store, at(1), "a").await;
    let mut transaction = store.pool().begin().await.unwrap();
    let finished = Command::Finish(vec![completed(run)]);
    store
        .execute_on(&mut transaction, Some(at(2)), &finished)
        .await
        .unwrap();

    let released = Finish {
        run,
        outcome: Outcome::Released,
    };
    let other = {
        let store = store.clone();
        tokio::spawn(async move { finish(&store, at(2), vec![released]).await })
    };
    wait_for_blocked(store.pool(), 1).await;
    transaction.commit().await.unwrap();
    assert_eq!(within("the end", other).await.unwrap(), [Written::Stale]);
    assert_eq!(find(&store, id(1)).await.unwrap().runs.len(), 1);
}

#[tokio::test]
async fn a_runner_with_an_open_transaction_holds_up_no_heartbeat_and_loses_no_lease() {
    let (_database, store) = TestDatabase::with_store().await;
    spawn(&store, at(0), vec![new_job(1, "a"), new_job(2, "a")]).await;
    let [one, other] = [
        claim_one(&store, at(1), "a").await,
        claim_one(&store, at(1), "a").await,
    ];
    let mut transaction = store.pool().begin().await.unwrap();
    store
        .execute_on(&mut transaction, None, &checkpoint(one, "1"))
        .await
        .unwrap();

    let renewed = within(
        "the heartbeat",
        heartbeat(&store, at(100), vec![one, other]),
    )
    .await;
    assert_eq!(renewed, [Written::Applied, Written::Applied]);
    let live = find(&store, id(2)).await.unwrap().live.unwrap();
    assert_eq!(
        live.lease.unwrap().expires_at,
        at(100).saturating_add(LEASE)
    );
    let later = at(1).saturating_add(LEASE);
    let lost = within("recovery", reclaim(&store, later, "a")).await;
    assert_eq!(lost, []);

    transaction.commit().await.unwrap();
    let renewed = heartbeat(&store, later, vec![one, other]).await;
    assert_eq!(renewed, [Written::Applied, Written::Applied]);
    assert_eq!(reclaim(&store, later, "a").await, []);
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
