//! Renewing leases.

use job_engine::store::{Outcome, Written};

use crate::conformance::Harness;
use crate::conformance::fixtures::{LEASE, SECOND, new_job};
use crate::store::Store;

pub async fn a_heartbeat_renews_the_lease_from_the_stores_now<S: Store>(harness: &mut Harness<S>) {
    let run = harness.start(1).await;
    let mut expected = harness.job(1).await;
    harness.advance(SECOND);
    let written = harness.heartbeat_for(vec![run], 3 * LEASE).await;
    assert_eq!(written, [Written::Applied]);
    let live = expected.live.as_mut().expect("it runs");
    let lease = live.lease.as_mut().expect("it runs");
    lease.expires_at = harness.now().saturating_add(3 * LEASE);
    assert_eq!(harness.job(1).await, expected);
}

pub async fn a_heartbeat_can_shorten_a_lease<S: Store>(harness: &mut Harness<S>) {
    let run = harness.start(1).await;
    harness.heartbeat_for(vec![run], SECOND).await;
    harness.advance(SECOND);
    assert_eq!(harness.reclaim().await.len(), 1);
}

pub async fn a_stale_heartbeat_changes_nothing<S: Store>(harness: &mut Harness<S>) {
    let first = harness.start(1).await;
    harness.advance(LEASE);
    harness.reclaim().await;
    let pending = harness.job(1).await;
    assert_eq!(harness.heartbeat(first).await, Written::Stale);
    assert_eq!(harness.job(1).await, pending);
    let second = harness.claim_one().await.run;
    let running = harness.job(1).await;
    harness.advance(SECOND);
    assert_eq!(harness.heartbeat(first).await, Written::Stale);
    assert_eq!(harness.heartbeat(harness.nth(1, 3)).await, Written::Stale);
    assert_eq!(harness.job(1).await, running);
    harness.finish(second, Outcome::Completed).await;
    assert_eq!(harness.heartbeat(second).await, Written::Stale);
}

pub async fn an_unknown_job_has_no_lease<S: Store>(harness: &mut Harness<S>) {
    assert_eq!(harness.heartbeat(harness.nth(1, 1)).await, Written::Stale);
    harness.spawn_one(new_job(1)).await;
    assert_eq!(harness.heartbeat(harness.nth(1, 0)).await, Written::Stale);
}

pub async fn a_lease_that_lapsed_is_renewed_if_nobody_took_the_job_back<S: Store>(
    harness: &mut Harness<S>,
) {
    let run = harness.start(1).await;
    harness.advance(5 * LEASE);
    assert_eq!(harness.heartbeat(run).await, Written::Applied);
    assert_eq!(harness.reclaim().await, []);
}

pub async fn each_run_of_a_heartbeat_is_decided_for_itself<S: Store>(harness: &mut Harness<S>) {
    let runs = harness.start_all(4).await;
    harness.finish(runs[1], Outcome::Completed).await;
    harness.finish(runs[2], Outcome::Released).await;
    harness.advance(SECOND);
    let named = vec![runs[3], runs[1], harness.nth(9, 1), runs[0], runs[2]];
    let expected = [
        Written::Applied,
        Written::Stale,
        Written::Stale,
        Written::Applied,
        Written::Stale,
    ];
    assert_eq!(harness.heartbeat_for(named, LEASE).await, expected);
    // Those that were not renewed would lapse now.
    harness.advance(LEASE - SECOND);
    assert_eq!(harness.reclaim().await, []);
}

pub async fn an_empty_heartbeat_renews_nothing<S: Store>(harness: &mut Harness<S>) {
    harness.start(1).await;
    harness.advance(LEASE);
    assert_eq!(harness.heartbeat_for(Vec::new(), LEASE).await, []);
    assert_eq!(harness.reclaim().await.len(), 1);
}
