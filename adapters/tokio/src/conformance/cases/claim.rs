//! Taking jobs that are due.

use job_engine::history::Lease;
use job_engine::store::{Claim, Claimed, ClaimedJob, Left, LeftOut, NewJob, Outcome};
use job_engine::{Due, Fence, JobId, JobType, Timestamp};
use uuid::Uuid;

use crate::conformance::Harness;
use crate::conformance::fixtures::{
    ALICE, BOB, LEASE, MAIL, MICROSECOND, PRINT, SECOND, START, id, json, new_job, new_jobs, quota,
};
use crate::store::Store;

fn due_in(n: u128, seconds: u32) -> NewJob {
    NewJob {
        due: Due::In(seconds * SECOND),
        ..new_job(n)
    }
}

fn seconds_after_start(seconds: u32) -> Timestamp {
    START.saturating_add(seconds * SECOND)
}

/// The numbers of the jobs, in their order.
fn numbers(claimed: &Claimed) -> Vec<u128> {
    let jobs = claimed.jobs.iter();
    jobs.map(|job| job.run.job.0.as_u128()).collect()
}

pub async fn a_job_is_claimed_when_it_is_due_and_not_a_microsecond_before<S: Store>(
    harness: &mut Harness<S>,
) {
    harness.spawn_one(due_in(1, 1)).await;
    harness.advance(SECOND - MICROSECOND);
    let early = harness.claim_type(MAIL, 10).await;
    assert_eq!(numbers(&early), []);
    assert_eq!(early.next_due, [(MAIL, seconds_after_start(1))]);
    harness.advance(MICROSECOND);
    let due = harness.claim_type(MAIL, 10).await;
    assert_eq!(numbers(&due), [1]);
    assert_eq!((due.now, due.next_due), (seconds_after_start(1), vec![]));
}

pub async fn a_claim_grants_a_lease_from_the_stores_now<S: Store>(harness: &mut Harness<S>) {
    harness.spawn_one(new_job(1)).await;
    harness.advance(SECOND);
    let claim = harness.new_claim(vec![quota(MAIL, 1)]);
    harness.claim(&claim).await;
    let expected = Lease {
        worker: ALICE,
        claim_seq: claim.id.seq,
        claimed_at: seconds_after_start(1),
        expires_at: seconds_after_start(1).saturating_add(LEASE),
    };
    assert_eq!(harness.live(1).await.lease, Some(expected));
}

pub async fn a_claimed_job_brings_all_that_its_runner_needs<S: Store>(harness: &mut Harness<S>) {
    let job = NewJob {
        trace: Some("00-trace-01".to_owned()),
        config: json(r#"{"to":"ann"}"#),
        ..new_job(1)
    };
    harness.spawn_one(job).await;
    let first = harness.claim_one().await;
    let expected = ClaimedJob {
        run: harness.nth(1, 1),
        job_type: MAIL,
        attempt: 1,
        due_at: START,
        spawned_at: START,
        interruptions: 0,
        undecodable_since: None,
        config: json(r#"{"to":"ann"}"#),
        state: None,
        trace: Some("00-trace-01".to_owned()),
    };
    assert_eq!(first, expected);
    harness.checkpoint(first.run, "[1]").await;
    let outcome = Outcome::Retried {
        delay: SECOND,
        attempt: 2,
        error: crate::conformance::fixtures::error("no route"),
    };
    harness.finish(first.run, outcome).await;
    harness.advance(3 * SECOND);
    let second = harness.claim_one().await;
    let expected = ClaimedJob {
        run: harness.nth(1, 2),
        attempt: 2,
        due_at: seconds_after_start(1),
        state: Some(json("[1]")),
        ..expected
    };
    assert_eq!(second, expected);
}

pub async fn the_longest_due_job_is_first_and_ties_go_by_id<S: Store>(harness: &mut Harness<S>) {
    let jobs = vec![due_in(1, 3), due_in(5, 1), due_in(4, 2), due_in(3, 2)];
    harness.spawn(jobs).await;
    harness.advance(10 * SECOND);
    let first = harness.claim_type(MAIL, 3).await;
    assert_eq!(numbers(&first), [5, 3, 4]);
    assert_eq!(numbers(&harness.claim_type(MAIL, 3).await), [1]);
}

pub async fn the_jobs_of_all_types_come_in_one_order<S: Store>(harness: &mut Harness<S>) {
    let print = |job| NewJob {
        job_type: PRINT,
        ..job
    };
    let jobs = vec![
        print(due_in(1, 1)),
        due_in(2, 1),
        print(due_in(3, 3)),
        due_in(4, 2),
        print(due_in(5, 2)),
    ];
    harness.spawn(jobs).await;
    harness.advance(10 * SECOND);
    let claim = harness.new_claim(vec![quota(MAIL, 9), quota(PRINT, 9)]);
    assert_eq!(numbers(&harness.claim(&claim).await), [1, 2, 4, 5, 3]);
}

pub async fn ids_are_ordered_by_their_bytes<S: Store>(harness: &mut Harness<S>) {
    let ids = [0, 1, 0xff, 1 << 64, 0x7f << 120, 0x80 << 120, u128::MAX];
    harness
        .spawn(ids.map(new_job).into_iter().rev().collect())
        .await;
    assert_eq!(numbers(&harness.claim_type(MAIL, 4).await), ids[..4]);
    assert_eq!(numbers(&harness.claim_type(MAIL, 4).await), ids[4..]);
}

pub async fn each_type_has_a_quota_of_its_own<S: Store>(harness: &mut Harness<S>) {
    let printed = (11..=15).map(|n| NewJob {
        job_type: PRINT,
        ..new_job(n)
    });
    harness
        .spawn(new_jobs(5).into_iter().chain(printed).collect())
        .await;
    let claim = harness.new_claim(vec![quota(MAIL, 2), quota(PRINT, 3)]);
    let claimed = harness.claim(&claim).await;
    assert_eq!(numbers(&claimed), [1, 2, 11, 12, 13]);
}

pub async fn a_quota_of_zero_takes_nothing_and_hints_nothing<S: Store>(harness: &mut Harness<S>) {
    harness.spawn(vec![new_job(1), due_in(2, 5)]).await;
    let claimed = harness.claim_type(MAIL, 0).await;
    assert_eq!((numbers(&claimed), claimed.next_due), (vec![], vec![]));
}

pub async fn types_that_are_not_named_are_left_alone<S: Store>(harness: &mut Harness<S>) {
    let job_type = PRINT;
    harness
        .spawn_one(NewJob {
            job_type,
            ..new_job(1)
        })
        .await;
    let claimed = harness.claim_type(MAIL, 10).await;
    assert_eq!((numbers(&claimed), claimed.next_due), (vec![], vec![]));
    assert_eq!(harness.live(1).await.lease, None);
}

pub async fn types_are_told_apart_to_the_letter<S: Store>(harness: &mut Harness<S>) {
    let names = [
        "mail", "Mail", "mail ", "mails", "mai", "m_il", "m%", "máil",
    ];
    let jobs = names.into_iter().zip(1..).map(|(name, n)| NewJob {
        job_type: JobType::new(name),
        ..new_job(n)
    });
    harness.spawn(jobs.collect()).await;
    for (name, n) in names.into_iter().zip(1..) {
        let claimed = harness.claim_type(JobType::new(name), 10).await;
        assert_eq!(numbers(&claimed), [n], "{name:?}");
    }
}

pub async fn a_type_without_jobs_gives_nothing<S: Store>(harness: &mut Harness<S>) {
    let claimed = harness.claim_type(MAIL, 10).await;
    let nothing = Claimed {
        now: START,
        jobs: Vec::new(),
        left: Vec::new(),
        next_due: Vec::new(),
    };
    assert_eq!(claimed, nothing);
}

pub async fn a_claim_without_types_takes_nothing<S: Store>(harness: &mut Harness<S>) {
    harness.spawn_one(new_job(1)).await;
    let claim = harness.new_claim(Vec::new());
    assert_eq!(numbers(&harness.claim(&claim).await), []);
    assert_eq!(numbers(&harness.repeat_claim(&claim).await), []);
}

pub async fn a_running_job_is_not_claimed_again<S: Store>(harness: &mut Harness<S>) {
    harness.start(1).await;
    assert_eq!(numbers(&harness.claim_type(MAIL, 10).await), []);
    // Not even when its lease has ended: that is for a reclaim to say.
    harness.advance(2 * LEASE);
    assert_eq!(numbers(&harness.claim_type(MAIL, 10).await), []);
}

pub async fn the_fence_rises_with_every_claim_and_is_never_used_twice<S: Store>(
    harness: &mut Harness<S>,
) {
    harness.spawn_one(new_job(1)).await;
    for fence in 1..=5 {
        let claimed = harness.claim_one().await;
        assert_eq!(claimed.run.fence, Fence(fence));
        match fence {
            1 => harness.finish(claimed.run, Outcome::Released).await,
            2 => {
                let due = Due::Now;
                harness
                    .finish(claimed.run, Outcome::Rescheduled { due })
                    .await
            }
            _ => {
                harness.advance(LEASE);
                assert_eq!(harness.reclaim().await.len(), 1);
                continue;
            }
        };
    }
    assert_eq!(harness.live(1).await.fence, Fence(5));
}

pub async fn the_next_due_time_is_told_for_each_type_in_the_order_of_the_quotas<S: Store>(
    harness: &mut Harness<S>,
) {
    let printed = NewJob {
        job_type: PRINT,
        ..due_in(3, 2)
    };
    harness
        .spawn(vec![due_in(1, 5), due_in(2, 4), printed])
        .await;
    let none = JobType::new("none");
    let claim = harness.new_claim(vec![quota(PRINT, 1), quota(none, 1), quota(MAIL, 1)]);
    let expected = [
        (PRINT, seconds_after_start(2)),
        (MAIL, seconds_after_start(4)),
    ];
    assert_eq!(harness.claim(&claim).await.next_due, expected);
}

pub async fn the_next_due_time_is_told_also_when_some_jobs_were_due<S: Store>(
    harness: &mut Harness<S>,
) {
    harness.spawn(vec![new_job(1), due_in(2, 4)]).await;
    let claimed = harness.claim_type(MAIL, 2).await;
    assert_eq!(numbers(&claimed), [1]);
    assert_eq!(claimed.next_due, [(MAIL, seconds_after_start(4))]);
}

pub async fn a_used_up_quota_tells_no_next_due_time<S: Store>(harness: &mut Harness<S>) {
    harness.spawn(vec![new_job(1), due_in(2, 4)]).await;
    let claimed = harness.claim_type(MAIL, 1).await;
    assert_eq!((numbers(&claimed), claimed.next_due), (vec![1], vec![]));
}

pub async fn a_running_job_is_no_reason_to_claim_again<S: Store>(harness: &mut Harness<S>) {
    harness.start(1).await;
    harness.advance(SECOND);
    assert_eq!(harness.claim_type(MAIL, 5).await.next_due, []);
}

pub async fn a_repeat_returns_the_same_jobs_with_their_lease_renewed<S: Store>(
    harness: &mut Harness<S>,
) {
    harness.spawn(vec![due_in(3, 0), due_in(1, 0)]).await;
    let claim = harness.new_claim(vec![quota(MAIL, 5)]);
    let first = harness.claim(&claim).await;
    assert_eq!(numbers(&first), [1, 3]);
    harness.spawn(vec![new_job(2), due_in(4, 9)]).await;
    harness.advance(SECOND);
    let again = harness.repeat_claim(&claim).await;
    let expected = Claimed {
        now: seconds_after_start(1),
        ..first
    };
    assert_eq!(again, expected);
    let lease = harness.live(3).await.lease.expect("it runs");
    assert_eq!(lease.claimed_at, START);
    let expires_at = seconds_after_start(1).saturating_add(LEASE);
    assert_eq!(lease.expires_at, expires_at);
    assert_eq!(harness.live(2).await.lease, None);
}

pub async fn a_repeat_that_asks_for_fewer_names_the_others<S: Store>(harness: &mut Harness<S>) {
    let printed = NewJob {
        job_type: PRINT,
        ..new_job(9)
    };
    harness.spawn(new_jobs(4)).await;
    harness.spawn_one(printed).await;
    let claim = harness.new_claim(vec![quota(MAIL, 4), quota(PRINT, 1)]);
    harness.claim(&claim).await;
    harness.advance(SECOND);
    let fewer = Claim {
        quotas: vec![quota(MAIL, 1)],
        ..claim.clone()
    };
    let again = harness.repeat_claim(&fewer).await;
    assert_eq!(numbers(&again), [1]);
    let left = |n, job_type| Left {
        run: harness.nth(n, 1),
        job_type,
        why: LeftOut::BeyondQuota,
    };
    let expected = [left(2, MAIL), left(3, MAIL), left(4, MAIL), left(9, PRINT)];
    assert_eq!(again.left, expected);
    // All of them run on until their worker says otherwise.
    let lease = harness.live(4).await.lease.expect("it runs");
    assert_eq!(
        lease.expires_at,
        seconds_after_start(1).saturating_add(LEASE)
    );
    let none = Claim {
        quotas: Vec::new(),
        ..claim
    };
    let again = harness.repeat_claim(&none).await;
    assert_eq!((numbers(&again), again.left.len()), (vec![], 5));
}

pub async fn a_repeat_leaves_out_what_ended_meanwhile<S: Store>(harness: &mut Harness<S>) {
    harness.spawn(new_jobs(3)).await;
    let claim = harness.new_claim(vec![quota(MAIL, 3)]);
    harness.claim(&claim).await;
    harness.finish(harness.nth(2, 1), Outcome::Completed).await;
    harness.finish(harness.nth(3, 1), Outcome::Released).await;
    let again = harness.repeat_claim(&claim).await;
    assert_eq!(numbers(&again), [1]);
    assert_eq!(harness.live(3).await.lease, None);
}

pub async fn a_repeat_whose_jobs_have_all_ended_claims<S: Store>(harness: &mut Harness<S>) {
    harness.spawn_one(new_job(1)).await;
    let claim = harness.new_claim(vec![quota(MAIL, 3)]);
    harness.claim(&claim).await;
    harness.finish(harness.nth(1, 1), Outcome::Completed).await;
    harness.spawn(vec![new_job(2), due_in(3, 9)]).await;
    let again = harness.repeat_claim(&claim).await;
    assert_eq!(numbers(&again), [2]);
    assert_eq!(again.next_due, [(MAIL, seconds_after_start(9))]);
}

pub async fn a_repeat_of_a_claim_that_took_nothing_claims<S: Store>(harness: &mut Harness<S>) {
    let claim = harness.new_claim(vec![quota(MAIL, 3)]);
    harness.claim(&claim).await;
    harness.spawn_one(new_job(1)).await;
    assert_eq!(numbers(&harness.repeat_claim(&claim).await), [1]);
    // From now on it has taken something.
    harness.spawn_one(new_job(2)).await;
    assert_eq!(numbers(&harness.repeat_claim(&claim).await), [1]);
}

pub async fn a_repeat_does_not_return_the_jobs_of_another_claim<S: Store>(
    harness: &mut Harness<S>,
) {
    harness.spawn(new_jobs(4)).await;
    let first = harness.new_claim(vec![quota(MAIL, 1)]);
    assert_eq!(numbers(&harness.claim(&first).await), [1]);
    let second = harness.new_claim(vec![quota(MAIL, 1)]);
    assert_eq!(numbers(&harness.claim(&second).await), [2]);
    // Another worker counts its own claims.
    let mut of_bob = second.clone();
    of_bob.id.worker = BOB;
    assert_eq!(numbers(&harness.repeat_claim(&of_bob).await), [3]);
    assert_eq!(numbers(&harness.repeat_claim(&first).await), [1]);
    assert_eq!(numbers(&harness.repeat_claim(&second).await), [2]);
}

pub async fn a_repeat_does_not_return_a_job_that_another_claim_has_taken_since<S: Store>(
    harness: &mut Harness<S>,
) {
    harness.spawn(new_jobs(2)).await;
    let claim = harness.new_claim(vec![quota(MAIL, 2)]);
    harness.claim(&claim).await;
    harness.advance(LEASE);
    harness.heartbeat(harness.nth(2, 1)).await;
    harness.reclaim().await;
    assert_eq!(harness.claim_one_as(BOB).await.run, harness.nth(1, 2));
    assert_eq!(numbers(&harness.repeat_claim(&claim).await), [2]);
}

pub async fn a_repeat_extends_a_lease_that_has_lapsed<S: Store>(harness: &mut Harness<S>) {
    harness.spawn_one(new_job(1)).await;
    let claim = harness.new_claim(vec![quota(MAIL, 1)]);
    harness.claim(&claim).await;
    harness.advance(2 * LEASE);
    assert_eq!(numbers(&harness.repeat_claim(&claim).await), [1]);
    assert_eq!(harness.reclaim().await, []);
}

pub async fn a_repeat_without_types_only_looks<S: Store>(harness: &mut Harness<S>) {
    // As a worker does that shuts down and does not know what it has taken.
    harness.spawn(new_jobs(2)).await;
    let mut claim = harness.new_claim(vec![quota(MAIL, 1)]);
    let taken = harness.claim(&claim).await;
    claim.quotas.clear();
    let left = harness.repeat_claim(&claim).await.left;
    let left: Vec<_> = left.into_iter().map(|left| left.run).collect();
    assert_eq!(left, [taken.jobs[0].run]);
    harness.finish(harness.nth(1, 1), Outcome::Completed).await;
    assert_eq!(numbers(&harness.repeat_claim(&claim).await), []);
}

pub async fn a_full_batch_is_claimed<S: Store>(harness: &mut Harness<S>) {
    harness.spawn(new_jobs(1_000)).await;
    harness.spawn_one(new_job(1_001)).await;
    let claim = harness.new_claim(vec![quota(MAIL, 1_000)]);
    let claimed = harness.claim(&claim).await;
    assert_eq!(numbers(&claimed), (1..=1_000).collect::<Vec<_>>());
    assert_eq!(harness.repeat_claim(&claim).await.jobs, claimed.jobs);
    assert_eq!(harness.claim_one().await.run.job, id(1_001));
}

pub async fn many_types_are_claimed_at_once<S: Store>(harness: &mut Harness<S>) {
    let of_type = |n: u128| JobType::from(format!("type {n}"));
    let jobs = (1..=500).map(|n| NewJob {
        id: JobId(Uuid::from_u128(n)),
        job_type: of_type(n),
        due: if n % 3 == 0 {
            Due::In(SECOND)
        } else {
            Due::Now
        },
        ..new_job(n)
    });
    harness.spawn(jobs.collect()).await;
    let quotas = (1..=1_000).map(|n| quota(of_type(n), 1)).collect();
    let claim = harness.new_claim(quotas);
    let claimed = harness.claim(&claim).await;
    assert_eq!((claimed.jobs.len(), claimed.next_due.len()), (334, 166));
}
