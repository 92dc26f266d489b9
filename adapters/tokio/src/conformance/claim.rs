//! Taking due jobs.

use std::collections::BTreeSet;
use std::time::Duration;

use job_engine::store::{Claim, Command, NewJob, Outcome, Reply};
use job_engine::{ClaimId, Due, Fence, JobId, Payload};

use super::bench::{Bench, LEASE, error, job, of, run, secs, worker};
use crate::store::Store;

const TICK: Duration = Duration::from_micros(1);

/// To the microsecond.
pub async fn a_job_is_taken_when_it_is_due_and_not_before<S: Store>(bench: &mut Bench<S>) {
    bench.spawn_due(1, "mail", Due::In(secs(60))).await;
    bench.pass(secs(60) - TICK);
    assert!(bench.claim("mail", 10).await.is_empty());
    bench.pass(TICK);
    assert_eq!(bench.claim("mail", 10).await.len(), 1);
    assert!(bench.claim("mail", 10).await.is_empty());
}

/// Those that are equally long due by their ids.
pub async fn jobs_are_taken_in_the_order_of_due_time_and_id<S: Store>(bench: &mut Bench<S>) {
    for (n, due) in [(5, 2), (4, 1), (3, 2), (2, 3), (1, 2)] {
        bench.spawn_due(n, "mail", Due::In(secs(due))).await;
    }
    bench.pass(secs(10));
    let ids = |jobs: Vec<job_engine::store::ClaimedJob>| -> Vec<JobId> {
        jobs.into_iter().map(|job| job.run.job).collect()
    };
    let first = bench.claim("mail", 3).await;
    assert_eq!(ids(first), [job(4), job(1), job(3)]);
    let rest = bench.claim("mail", 3).await;
    assert_eq!(ids(rest), [job(5), job(2)]);
}

/// A quota of none takes none.
pub async fn quotas_limit_each_type_for_itself<S: Store>(bench: &mut Bench<S>) {
    for n in 1..=4 {
        bench.spawn(n, "mail").await;
        bench.spawn(n + 10, "sms").await;
        bench.spawn(n + 20, "fax").await;
    }
    let claim = bench.new_claim(&[("fax", 0), ("mail", 3), ("sms", 1)]);
    let claimed = bench.send_claim(claim).await;
    let of_type = |name| {
        claimed
            .jobs
            .iter()
            .filter(|job| job.job_type == of(name))
            .count()
    };
    assert_eq!((of_type("mail"), of_type("sms"), of_type("fax")), (3, 1, 0));
}

/// They wait for a worker that knows them.
pub async fn types_that_are_not_named_are_left_alone<S: Store>(bench: &mut Bench<S>) {
    bench.spawn(1, "unknown").await;
    bench.spawn(2, "mail").await;
    assert_eq!(bench.claim("mail", 10).await.len(), 1);
    assert!(bench.claim("nothing of the kind", 10).await.is_empty());
    bench.claim_one(1, "unknown").await;
}

/// And not where there may be more due ones.
pub async fn the_next_due_time_is_told_where_nothing_more_is_due<S: Store>(bench: &mut Bench<S>) {
    bench.spawn_due(1, "mail", Due::In(secs(30))).await;
    bench.spawn_due(2, "mail", Due::In(secs(20))).await;
    bench.spawn(3, "mail").await;
    bench.spawn_due(4, "sms", Due::In(secs(10))).await;
    let claim = bench.new_claim(&[("sms", 1), ("fax", 1), ("mail", 2)]);
    let claimed = bench.send_claim(claim).await;
    let at = |due| bench.now.saturating_add(secs(due));
    assert_eq!(
        claimed.next_due,
        [(of("sms"), at(10)), (of("mail"), at(20))]
    );
    assert_eq!(claimed.now, bench.now);
    // A quota that is used up says nothing.
    bench.spawn(5, "mail").await;
    let claim = bench.new_claim(&[("mail", 1)]);
    assert_eq!(bench.send_claim(claim).await.next_due, []);
}

/// Whatever ended the run before.
pub async fn every_claim_has_a_new_fence<S: Store>(bench: &mut Bench<S>) {
    bench.spawn(1, "mail").await;
    let ends = [
        Outcome::Released,
        Outcome::Rescheduled { due: Due::Now },
        Outcome::Retried {
            delay: Duration::ZERO,
            attempt: 2,
            error: error("no route"),
        },
    ];
    for (fence, end) in (1..).zip(ends) {
        let claimed = bench.claim_one(1, "mail").await;
        assert_eq!(claimed.fence, Fence(fence));
        bench.finish(claimed, end).await;
    }
    bench.claim_one(1, "mail").await;
    bench.pass(LEASE);
    bench.reclaim(vec![super::bench::policy("mail")], 10).await;
    assert_eq!(bench.claim_one(1, "mail").await, run(1, 5));
}

/// Config, execution state, attempt, times and trace.
pub async fn a_claim_brings_all_that_the_run_needs<S: Store>(bench: &mut Bench<S>) {
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let new = NewJob {
        config: Payload::from_json(r#"{"to": "ada"}"#),
        trace: Some(trace.to_owned()),
        ..bench.new_job(1, "mail")
    };
    let spawned_at = bench.now;
    bench.spawn_all(vec![new]).await;
    bench.pass(secs(3));
    let first = bench.claim("mail", 1).await.remove(0);
    assert_eq!((first.attempt, first.state.clone()), (1, None));
    bench.checkpoint(first.run, r#"{"page": 7}"#).await;
    let retried = Outcome::Retried {
        delay: secs(5),
        attempt: 2,
        error: error("no route"),
    };
    bench.finish(first.run, retried).await;
    let due_at = bench.now.saturating_add(secs(5));
    bench.pass(secs(9));
    let second = bench.claim("mail", 1).await.remove(0);
    assert_eq!(second.config.as_str(), r#"{"to": "ada"}"#);
    assert_eq!(second.state.unwrap().as_str(), r#"{"page": 7}"#);
    assert_eq!((second.attempt, second.due_at), (2, due_at));
    assert_eq!(
        (second.spawned_at, second.trace.as_deref()),
        (spawned_at, Some(trace))
    );
}

fn again(claim: &Claim) -> Claim {
    Claim {
        repeat: true,
        ..claim.clone()
    }
}

/// With their leases renewed, as when the reply was lost.
pub async fn a_repeated_claim_returns_the_same_jobs_and_takes_no_more<S: Store>(
    bench: &mut Bench<S>,
) {
    for n in 1..=5 {
        bench.spawn(n, "mail").await;
    }
    let other = bench.claim("mail", 1).await;
    let claim = bench.new_claim(&[("mail", 2)]);
    let first = bench.send_claim(claim.clone()).await;
    bench.pass(secs(20));
    let second = bench.send_claim(again(&claim)).await;
    assert_eq!(first.jobs, second.jobs);
    assert_eq!(second.next_due, []);
    let lease = bench.read(2).await.live.unwrap().lease.unwrap();
    assert_eq!(lease.expires_at, bench.now.saturating_add(LEASE));
    let lease = bench.read(1).await.live.unwrap().lease.unwrap();
    assert!(
        lease.expires_at < bench.now.saturating_add(LEASE),
        "{other:?}"
    );
    // The same number of another worker is another claim.
    let stranger = Claim {
        id: ClaimId {
            worker: worker(2),
            ..claim.id
        },
        ..again(&claim)
    };
    assert_eq!(bench.send_claim(stranger).await.jobs.len(), 2);
}

/// It was lost on its way there.
pub async fn a_repeated_claim_that_took_nothing_takes_now<S: Store>(bench: &mut Bench<S>) {
    bench.spawn(1, "mail").await;
    let claim = bench.new_claim(&[("mail", 2)]);
    assert_eq!(bench.send_claim(again(&claim)).await.jobs.len(), 1);
}

/// The rest of the claim still counts.
pub async fn a_repeated_claim_leaves_out_what_has_ended<S: Store>(bench: &mut Bench<S>) {
    for n in 1..=3 {
        bench.spawn(n, "mail").await;
    }
    let claim = bench.new_claim(&[("mail", 2)]);
    let first = bench.send_claim(claim.clone()).await;
    bench.finish(first.jobs[0].run, Outcome::Released).await;
    let second = bench.send_claim(again(&claim)).await;
    assert_eq!(second.jobs, first.jobs[1..]);
}

/// As a worker does that shuts down.
pub async fn a_repeat_without_quotas_only_looks<S: Store>(bench: &mut Bench<S>) {
    bench.spawn(1, "mail").await;
    let nothing = bench.new_claim(&[]);
    assert!(bench.send_claim(again(&nothing)).await.jobs.is_empty());
    let claim = bench.new_claim(&[("mail", 1)]);
    let first = bench.send_claim(claim.clone()).await;
    let look = Claim {
        quotas: Vec::new(),
        ..again(&claim)
    };
    assert_eq!(bench.send_claim(look).await.jobs, first.jobs);
}

/// However many claim at once.
pub async fn concurrent_claims_take_no_job_twice<S: Store>(bench: &mut Bench<S>) {
    const JOBS: u128 = 300;
    for n in 1..=JOBS {
        bench.spawn(n, "mail").await;
    }
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..6 {
        let (store, now) = (bench.store.clone(), bench.now);
        let mut claim = bench.new_claim(&[("mail", 7)]);
        claim.id.worker = worker(100 + n);
        tasks.spawn(async move {
            let mut taken = Vec::new();
            loop {
                claim.id.seq += 1;
                let command = Command::Claim(claim.clone());
                match store.execute(Some(now), &command).await {
                    Ok(Reply::Claimed(claimed)) if claimed.jobs.is_empty() => return taken,
                    Ok(Reply::Claimed(claimed)) => {
                        assert!(claimed.jobs.iter().all(|job| job.run.fence == Fence(1)));
                        taken.extend(claimed.jobs.into_iter().map(|job| job.run.job));
                    }
                    other => panic!("{other:?}"),
                }
            }
        });
    }
    let taken: Vec<JobId> = tasks.join_all().await.concat();
    assert_eq!(taken.len() as u128, JOBS);
    assert_eq!(BTreeSet::from_iter(taken).len() as u128, JOBS);
    // The model was not told who took what.
    bench.model = job_engine::ModelStore::new();
}
