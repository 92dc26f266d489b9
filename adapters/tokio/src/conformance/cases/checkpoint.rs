//! Keeping the execution state.

use job_engine::Due;
use job_engine::lifecycle::State;
use job_engine::store::{Outcome, Written};

use crate::conformance::Harness;
use crate::conformance::fixtures::{LEASE, SECOND, error, json, new_job};
use crate::store::Store;

pub async fn a_checkpoint_is_kept_and_overwritten<S: Store>(harness: &mut Harness<S>) {
    let run = harness.start(1).await;
    assert_eq!(harness.checkpoint(run, "1").await, Written::Applied);
    assert_eq!(harness.live(1).await.state, Some(json("1")));
    assert_eq!(harness.checkpoint(run, "[2]").await, Written::Applied);
    assert_eq!(harness.live(1).await.state, Some(json("[2]")));
    // A JSON null is a state like any other.
    harness.checkpoint(run, "null").await;
    assert_eq!(harness.live(1).await.state, Some(json("null")));
}

pub async fn a_checkpoint_survives_every_end_that_is_not_final<S: Store>(harness: &mut Harness<S>) {
    let run = harness.start(1).await;
    harness.checkpoint(run, "1").await;
    let due = Due::Now;
    let retried = Outcome::Retried {
        delay: SECOND,
        attempt: 2,
        error: error("no route"),
    };
    let mut run = run;
    let again = [Outcome::Rescheduled { due }, Outcome::Snoozed { due }];
    for outcome in again.into_iter().chain([Outcome::Released, retried]) {
        harness.finish(run, outcome).await;
        assert_eq!(harness.live(1).await.state, Some(json("1")));
        harness.advance(SECOND);
        let claimed = harness.claim_one().await;
        assert_eq!(claimed.state, Some(json("1")));
        run = claimed.run;
    }
}

pub async fn a_checkpoint_survives_a_crash<S: Store>(harness: &mut Harness<S>) {
    let run = harness.start(1).await;
    harness.checkpoint(run, "1").await;
    harness.advance(LEASE);
    harness.reclaim().await;
    assert_eq!(harness.claim_one().await.state, Some(json("1")));
}

pub async fn a_checkpoint_does_not_outlive_its_job<S: Store>(harness: &mut Harness<S>) {
    let run = harness.start(1).await;
    harness.checkpoint(run, "1").await;
    harness.finish(run, Outcome::Completed).await;
    assert_eq!(harness.checkpoint(run, "2").await, Written::Stale);
    let job = harness.job(1).await;
    assert_eq!((job.state(), job.live), (State::Completed, None));
}

pub async fn a_checkpoint_leaves_the_lease_alone<S: Store>(harness: &mut Harness<S>) {
    let run = harness.start(1).await;
    let lease = harness.live(1).await.lease;
    harness.advance(SECOND);
    harness.checkpoint(run, "1").await;
    assert_eq!(harness.live(1).await.lease, lease);
}

pub async fn a_stale_checkpoint_changes_nothing<S: Store>(harness: &mut Harness<S>) {
    assert_eq!(
        harness.checkpoint(harness.nth(1, 1), "0").await,
        Written::Stale
    );
    harness.spawn_one(new_job(1)).await;
    assert_eq!(
        harness.checkpoint(harness.nth(1, 0), "0").await,
        Written::Stale
    );
    let first = harness.claim_one().await.run;
    harness.checkpoint(first, "1").await;
    harness.advance(LEASE);
    harness.reclaim().await;
    assert_eq!(harness.checkpoint(first, "2").await, Written::Stale);
    harness.claim_one().await;
    assert_eq!(harness.checkpoint(first, "3").await, Written::Stale);
    assert_eq!(
        harness.checkpoint(harness.nth(1, 3), "3").await,
        Written::Stale
    );
    assert_eq!(harness.live(1).await.state, Some(json("1")));
}

pub async fn a_repeat_of_a_checkpoint_is_applied<S: Store>(harness: &mut Harness<S>) {
    let run = harness.start(1).await;
    harness.checkpoint(run, "1").await;
    assert_eq!(harness.checkpoint(run, "1").await, Written::Applied);
    assert_eq!(harness.live(1).await.state, Some(json("1")));
}
