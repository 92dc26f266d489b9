//! Creating jobs.

use job_engine::history::{Live, Snapshot};
use job_engine::lifecycle::State;
use job_engine::store::{NewJob, Outcome, Spawned};
use job_engine::{Due, Fence, Timestamp};

use crate::conformance::Harness;
use crate::conformance::fixtures::{
    MAIL, MICROSECOND, PRINT, SECOND, START, id, json, new_job, new_jobs,
};
use crate::store::Store;

fn unique(n: u128) -> NewJob {
    NewJob {
        unique_type: true,
        ..new_job(n)
    }
}

pub async fn a_job_that_is_spawned_is_pending_as_its_first_attempt<S: Store>(
    harness: &mut Harness<S>,
) {
    let job = NewJob {
        config: json(r#"{"to":"ann"}"#),
        trace: Some("00-trace-01".to_owned()),
        due: Due::In(SECOND),
        ..new_job(1)
    };
    assert_eq!(harness.spawn_one(job).await, Spawned::Created);
    let expected = Snapshot {
        id: id(1),
        job_type: MAIL,
        unique_type: false,
        config: json(r#"{"to":"ann"}"#),
        spawned_at: START,
        trace: Some("00-trace-01".to_owned()),
        live: Some(Live {
            attempt: 1,
            crashes: 0,
            interruptions: 0,
            undecodable_since: None,
            due_at: START.saturating_add(SECOND),
            fence: Fence(0),
            state: None,
            lease: None,
        }),
        runs: Vec::new(),
        earlier: None,
    };
    assert_eq!(harness.job(1).await, expected);
    assert_eq!(expected.state(), State::Pending);
}

pub async fn a_job_is_due_now_or_after_a_delay_or_at_a_time<S: Store>(harness: &mut Harness<S>) {
    let past = Timestamp::from_micros(START.as_micros() - 5);
    let future = START.saturating_add(SECOND);
    let dues = [
        (Due::Now, START),
        (Due::In(3 * SECOND), START.saturating_add(3 * SECOND)),
        (Due::At(past), past),
        (Due::At(future), future),
    ];
    for ((due, due_at), n) in dues.into_iter().zip(1..) {
        harness.spawn_one(NewJob { due, ..new_job(n) }).await;
        assert_eq!(harness.live(n).await.due_at, due_at);
    }
}

pub async fn a_job_that_was_due_in_the_past_is_claimed_at_once<S: Store>(harness: &mut Harness<S>) {
    let due = Due::At(Timestamp::EPOCH);
    harness.spawn_one(NewJob { due, ..new_job(1) }).await;
    assert_eq!(harness.claim_one().await.due_at, Timestamp::EPOCH);
}

pub async fn another_job_with_the_same_id_is_refused_and_changes_nothing<S: Store>(
    harness: &mut Harness<S>,
) {
    harness.spawn_one(new_job(1)).await;
    let before = harness.job(1).await;
    harness.advance(SECOND);
    let other = NewJob {
        job_type: PRINT,
        config: json("2"),
        due: Due::In(SECOND),
        token: 8,
        ..new_job(1)
    };
    assert_eq!(harness.spawn_one(other).await, Spawned::DuplicateId);
    assert_eq!(harness.job(1).await, before);
}

pub async fn a_repeat_of_a_spawn_is_created_and_changes_nothing<S: Store>(
    harness: &mut Harness<S>,
) {
    harness.spawn_one(new_job(1)).await;
    let pending = harness.job(1).await;
    harness.advance(SECOND);
    assert_eq!(harness.spawn_one(new_job(1)).await, Spawned::Created);
    assert_eq!(harness.job(1).await, pending);
    harness.claim_one().await;
    let running = harness.job(1).await;
    assert_eq!(harness.spawn_one(new_job(1)).await, Spawned::Created);
    assert_eq!(harness.job(1).await, running);
}

pub async fn a_repeat_of_a_spawn_is_created_even_when_the_job_is_over<S: Store>(
    harness: &mut Harness<S>,
) {
    let run = harness.start(1).await;
    harness.finish(run, Outcome::Completed).await;
    assert_eq!(harness.spawn_one(new_job(1)).await, Spawned::Created);
    assert_eq!(harness.job(1).await.state(), State::Completed);
    let another = NewJob {
        token: 8,
        ..new_job(1)
    };
    assert_eq!(harness.spawn_one(another).await, Spawned::DuplicateId);
}

pub async fn a_type_has_one_unique_job_ever<S: Store>(harness: &mut Harness<S>) {
    assert_eq!(harness.spawn_one(unique(1)).await, Spawned::Created);
    let second = Spawned::DuplicateUniqueType(id(1));
    assert_eq!(harness.spawn_one(unique(2)).await, second);
    let run = harness.claim_one().await.run;
    assert_eq!(harness.spawn_one(unique(3)).await, second);
    harness.finish(run, Outcome::Completed).await;
    assert_eq!(harness.spawn_one(unique(4)).await, second);
    for refused in [2, 3, 4] {
        assert_eq!(harness.find(id(refused)).await, None);
    }
    let of_another_type = NewJob {
        job_type: PRINT,
        ..unique(5)
    };
    let created = harness.spawn_one(of_another_type).await;
    assert_eq!(created, Spawned::Created);
}

pub async fn a_repeat_of_a_unique_spawn_is_created<S: Store>(harness: &mut Harness<S>) {
    harness.spawn_one(unique(1)).await;
    let before = harness.job(1).await;
    assert!(before.unique_type);
    harness.advance(SECOND);
    assert_eq!(harness.spawn_one(unique(1)).await, Spawned::Created);
    assert_eq!(harness.job(1).await, before);
}

pub async fn a_unique_job_and_ordinary_ones_of_its_type_live_side_by_side<S: Store>(
    harness: &mut Harness<S>,
) {
    let jobs = vec![new_job(1), unique(2), new_job(3)];
    assert_eq!(harness.spawn(jobs).await, [Spawned::Created; 3]);
    assert_eq!(harness.claim_type(MAIL, 10).await.jobs.len(), 3);
}

pub async fn the_id_is_looked_at_before_the_unique_type<S: Store>(harness: &mut Harness<S>) {
    harness.spawn(vec![unique(1), new_job(2)]).await;
    let both_taken = NewJob {
        token: 8,
        ..unique(2)
    };
    assert_eq!(harness.spawn_one(both_taken).await, Spawned::DuplicateId);
    // The token decides alone, so this is a repeat of the job that exists.
    assert_eq!(harness.spawn_one(unique(2)).await, Spawned::Created);
    assert!(!harness.job(2).await.unique_type);
}

pub async fn one_conflict_does_not_keep_the_rest_of_a_batch_out<S: Store>(
    harness: &mut Harness<S>,
) {
    harness.spawn(vec![new_job(3), unique(4)]).await;
    let another = NewJob {
        token: 8,
        ..new_job(3)
    };
    let batch = vec![
        new_job(1),
        another,
        unique(5),
        new_job(3),
        new_job(2),
        NewJob {
            job_type: PRINT,
            ..unique(6)
        },
    ];
    let expected = [
        Spawned::Created,
        Spawned::DuplicateId,
        Spawned::DuplicateUniqueType(id(4)),
        Spawned::Created,
        Spawned::Created,
        Spawned::Created,
    ];
    assert_eq!(harness.spawn(batch).await, expected);
    assert_eq!(harness.claim_type(MAIL, 10).await.jobs.len(), 4);
    assert_eq!(harness.claim_type(PRINT, 10).await.jobs.len(), 1);
}

pub async fn the_jobs_of_one_batch_conflict_with_each_other<S: Store>(harness: &mut Harness<S>) {
    let repeat = NewJob {
        due: Due::In(SECOND),
        ..new_job(1)
    };
    let another = NewJob {
        token: 8,
        ..new_job(1)
    };
    let batch = vec![new_job(1), repeat, another, unique(2), unique(3)];
    let expected = [
        Spawned::Created,
        Spawned::Created,
        Spawned::DuplicateId,
        Spawned::Created,
        Spawned::DuplicateUniqueType(id(2)),
    ];
    assert_eq!(harness.spawn(batch).await, expected);
    // The first of them is the job.
    assert_eq!(harness.live(1).await.due_at, START);
    assert_eq!(harness.find(id(3)).await, None);
}

pub async fn a_conflict_frees_its_id_for_the_rest_of_the_batch<S: Store>(harness: &mut Harness<S>) {
    harness.spawn_one(unique(1)).await;
    let batch = vec![unique(2), new_job(2)];
    let expected = [Spawned::DuplicateUniqueType(id(1)), Spawned::Created];
    assert_eq!(harness.spawn(batch).await, expected);
    assert!(!harness.job(2).await.unique_type);
}

pub async fn an_empty_batch_creates_nothing<S: Store>(harness: &mut Harness<S>) {
    assert_eq!(harness.spawn(Vec::new()).await, []);
}

pub async fn a_full_batch_is_created<S: Store>(harness: &mut Harness<S>) {
    let spawned = harness.spawn(new_jobs(1_000)).await;
    assert_eq!(spawned, [Spawned::Created; 1_000]);
    harness.advance(MICROSECOND);
    let repeated = harness.spawn(new_jobs(1_000)).await;
    assert_eq!(repeated, [Spawned::Created; 1_000]);
    assert_eq!(harness.job(1_000).await.spawned_at, START);
}
