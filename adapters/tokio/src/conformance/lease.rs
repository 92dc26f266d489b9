//! What a run writes while it runs.

use job_engine::store::{Outcome, Written};
use job_engine::{Due, lifecycle::RunEnd};

use super::bench::{Bench, LEASE, policy, run, secs};
use crate::store::Store;

/// From the store's now.
pub async fn a_heartbeat_renews_the_lease<S: Store>(bench: &mut Bench<S>) {
    let started = bench.start(1, "mail").await;
    let claimed_at = bench.now;
    bench.pass(LEASE / 2);
    assert_eq!(bench.heartbeat(&[started]).await, [Written::Applied]);
    let lease = bench.read(1).await.live.unwrap().lease.unwrap();
    assert_eq!(lease.expires_at, bench.now.saturating_add(LEASE));
    assert_eq!(lease.claimed_at, claimed_at);
    bench.pass(LEASE / 2);
    assert!(bench.reclaim(vec![policy("mail")], 10).await.is_empty());
    assert_eq!(bench.heartbeat(&[]).await, []);
}

/// Nobody else runs the job, so nothing is wrong.
pub async fn a_heartbeat_renews_a_lapsed_lease_that_nobody_took<S: Store>(bench: &mut Bench<S>) {
    let started = bench.start(1, "mail").await;
    bench.pass(LEASE * 5);
    assert_eq!(bench.heartbeat(&[started]).await, [Written::Applied]);
    assert!(bench.reclaim(vec![policy("mail")], 10).await.is_empty());
    assert_eq!(
        bench.finish(started, Outcome::Completed).await,
        Written::Applied
    );
}

/// One by one.
pub async fn a_heartbeat_tells_which_runs_are_stale<S: Store>(bench: &mut Bench<S>) {
    let mut runs = Vec::new();
    for n in 1..=4 {
        runs.push(bench.start(n, "mail").await);
    }
    bench.finish(runs[1], Outcome::Completed).await;
    bench
        .finish(
            runs[2],
            Outcome::Rescheduled {
                due: Due::In(secs(5)),
            },
        )
        .await;
    runs.push(run(9, 1));
    runs.push(run(1, 2));
    let (good, stale) = (Written::Applied, Written::Stale);
    let written = bench.heartbeat(&runs).await;
    assert_eq!(written, [good, stale, stale, good, stale, stale]);
}

/// Even if the same worker has both.
pub async fn a_heartbeat_of_an_old_run_does_not_renew_the_new_one<S: Store>(bench: &mut Bench<S>) {
    let old = bench.start(1, "mail").await;
    bench.pass(LEASE);
    bench.reclaim(vec![policy("mail")], 10).await;
    let new = bench.claim_one(1, "mail").await;
    let expires_at = bench.read(1).await.live.unwrap().lease.unwrap().expires_at;
    bench.pass(secs(10));
    assert_eq!(bench.heartbeat(&[old]).await, [Written::Stale]);
    let lease = bench.read(1).await.live.unwrap().lease.unwrap();
    assert_eq!(lease.expires_at, expires_at);
    let both = bench.heartbeat(&[old, new]).await;
    assert_eq!(both, [Written::Stale, Written::Applied]);
}

/// Through retries, reschedules, releases and crashes.
pub async fn a_checkpoint_is_kept_until_the_job_ends<S: Store>(bench: &mut Bench<S>) {
    let started = bench.start(1, "mail").await;
    assert_eq!(
        bench.checkpoint(started, "{\"page\": 7}").await,
        Written::Applied
    );
    for end in [Outcome::Released, Outcome::Rescheduled { due: Due::Now }] {
        let run = bench.read(1).await.live.unwrap().fence;
        bench.finish(super::bench::run(1, run.0), end).await;
        bench.claim_one(1, "mail").await;
    }
    bench.pass(LEASE);
    bench.reclaim(vec![policy("mail")], 10).await;
    let claimed = bench.claim("mail", 1).await.remove(0);
    assert_eq!(claimed.state.unwrap().as_str(), "{\"page\": 7}");
    bench.finish(claimed.run, Outcome::Completed).await;
    let found = bench.read(1).await;
    assert_eq!((found.live, found.runs.len()), (None, 4));
    assert_eq!(found.runs[2].end, RunEnd::Lost);
}

/// Within a run, too.
pub async fn a_later_checkpoint_replaces_the_earlier<S: Store>(bench: &mut Bench<S>) {
    let started = bench.start(1, "mail").await;
    bench.checkpoint(started, "1").await;
    bench.checkpoint(started, "2").await;
    assert_eq!(bench.checkpoint(started, "2").await, Written::Applied);
    let state = bench.read(1).await.live.unwrap().state.unwrap();
    assert_eq!(state.as_str(), "2");
}

/// Of an old run, an ended one, one that never was.
pub async fn a_stale_checkpoint_changes_nothing<S: Store>(bench: &mut Bench<S>) {
    let old = bench.start(1, "mail").await;
    bench.checkpoint(old, "1").await;
    bench.finish(old, Outcome::Released).await;
    assert_eq!(bench.checkpoint(old, "2").await, Written::Stale);
    bench.claim_one(1, "mail").await;
    assert_eq!(bench.checkpoint(old, "2").await, Written::Stale);
    assert_eq!(bench.checkpoint(run(9, 1), "2").await, Written::Stale);
    let state = bench.read(1).await.live.unwrap().state.unwrap();
    assert_eq!(state.as_str(), "1");
}
