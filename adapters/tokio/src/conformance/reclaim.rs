//! Taking back jobs whose lease ran out.

use std::time::Duration;

use job_engine::Run;
use job_engine::lifecycle::{RunEnd, State};
use job_engine::store::{
    CRASHED_TOO_OFTEN, LOST_AT_LAST_ATTEMPT, NewJob, Outcome, Reclaimed, TypePolicy, Written,
};

use super::bench::{Bench, LEASE, error, job, of, policy, run, secs};
use crate::store::Store;

const TICK: Duration = Duration::from_micros(1);

/// To the microsecond.
pub async fn a_lease_lapses_exactly_at_its_end<S: Store>(bench: &mut Bench<S>) {
    bench.start(1, "mail").await;
    bench.pass(LEASE - TICK);
    assert!(bench.reclaim(vec![policy("mail")], 10).await.is_empty());
    bench.pass(TICK);
    let expected = Reclaimed {
        run: run(1, 1),
        job_type: of("mail"),
        attempt: 1,
        end: RunEnd::Lost,
    };
    assert_eq!(bench.reclaim(vec![policy("mail")], 10).await, [expected]);
    assert!(bench.reclaim(vec![policy("mail")], 10).await.is_empty());
}

/// And its history says so.
pub async fn a_lost_job_is_due_at_once_one_attempt_later<S: Store>(bench: &mut Bench<S>) {
    bench.start(1, "mail").await;
    bench.pass(LEASE * 3);
    bench.reclaim(vec![policy("mail")], 10).await;
    let found = bench.read(1).await;
    let live = found.live.clone().unwrap();
    assert_eq!((live.attempt, live.crashes, live.due_at), (2, 1, bench.now));
    let lost = &found.runs[0];
    assert_eq!(
        (lost.end, lost.attempt, &lost.error),
        (RunEnd::Lost, 1, &None)
    );
    assert_eq!(
        (lost.ended_at, lost.next_due_at),
        (bench.now, Some(bench.now))
    );
    assert_eq!(bench.claim("mail", 1).await[0].attempt, 2);
}

/// They wait for a worker that knows them.
pub async fn types_without_a_policy_are_left_alone_and_hide_no_others<S: Store>(
    bench: &mut Bench<S>,
) {
    for n in 1..=3 {
        bench.start(n, "unknown").await;
    }
    bench.start(4, "mail").await;
    bench.pass(LEASE);
    let reclaimed = bench
        .reclaim(vec![policy("other"), policy("mail")], 1)
        .await;
    assert_eq!(reclaimed.len(), 1);
    assert_eq!(reclaimed[0].run, run(4, 1));
    assert!(bench.reclaim(Vec::new(), 10).await.is_empty());
    assert_eq!(bench.reclaim(vec![policy("unknown")], 10).await.len(), 3);
}

/// By id.
pub async fn lost_jobs_are_taken_back_in_pages<S: Store>(bench: &mut Bench<S>) {
    for n in [3, 1, 2, 5, 4] {
        bench.start(n, "mail").await;
        bench.pass(secs(1));
    }
    bench.pass(LEASE);
    for page in [&[1, 2][..], &[3, 4], &[5], &[]] {
        let reclaimed = bench.reclaim(vec![policy("mail")], 2).await;
        let ids: Vec<_> = reclaimed.iter().map(|r| r.run.job).collect();
        let expected: Vec<_> = page.iter().map(|n| job(*n)).collect();
        assert_eq!(ids, expected);
    }
    assert!(bench.reclaim(vec![policy("mail")], 0).await.is_empty());
}

async fn crash<S: Store>(bench: &mut Bench<S>, policy: &TypePolicy) -> Reclaimed {
    bench.claim_one(1, "mail").await;
    bench.pass(LEASE);
    bench.reclaim(vec![policy.clone()], 10).await.remove(0)
}

/// A job that kills its worker does not do so for ever.
pub async fn crashes_are_counted_apart_and_end_the_job<S: Store>(bench: &mut Bench<S>) {
    let three = TypePolicy {
        crashes_max: Some(3),
        attempts_max: Some(30),
        ..policy("mail")
    };
    bench.spawn(1, "mail").await;
    let mut ends = Vec::new();
    for _ in 0..3 {
        ends.push(crash(bench, &three).await.end);
    }
    assert_eq!(ends, [RunEnd::Lost, RunEnd::Lost, RunEnd::Abandoned]);
    let found = bench.read(1).await;
    assert_eq!((found.state(), found.live), (State::Errored, None));
    let last = &found.runs[2];
    assert_eq!((last.attempt, last.next_due_at), (3, None));
    assert_eq!(last.error.as_ref().unwrap().as_str(), CRASHED_TOO_OFTEN);
}

/// An error is not a crash.
pub async fn any_other_end_starts_the_count_of_crashes_again<S: Store>(bench: &mut Bench<S>) {
    let two = TypePolicy {
        crashes_max: Some(2),
        ..policy("mail")
    };
    bench.spawn(1, "mail").await;
    let retried = Outcome::Retried {
        delay: Duration::ZERO,
        attempt: 9,
        error: error("no route"),
    };
    for outcome in [retried, Outcome::Released] {
        assert_eq!(crash(bench, &two).await.end, RunEnd::Lost);
        let started = bench.claim_one(1, "mail").await;
        bench.finish(started, outcome).await;
        assert_eq!(bench.read(1).await.live.unwrap().crashes, 0);
    }
    assert_eq!(crash(bench, &two).await.end, RunEnd::Lost);
    assert_eq!(crash(bench, &two).await.end, RunEnd::Abandoned);
}

/// A job that is killed at every deployment is not at fault.
pub async fn a_long_healthy_run_starts_both_counts_again<S: Store>(bench: &mut Bench<S>) {
    let strict = TypePolicy {
        crashes_max: Some(2),
        attempts_max: Some(2),
        healthy_after: LEASE * 2,
        ..policy("mail")
    };
    bench.spawn(1, "mail").await;
    for _ in 0..3 {
        let started = bench.claim_one(1, "mail").await;
        bench.pass(LEASE);
        bench.heartbeat(&[started]).await;
        bench.pass(LEASE);
        let lost = bench.reclaim(vec![strict.clone()], 10).await.remove(0);
        assert_eq!(lost.end, RunEnd::Lost);
        let live = bench.read(1).await.live.unwrap();
        assert_eq!((live.attempt, live.crashes), (1, 1));
    }
    assert_eq!(crash(bench, &strict).await.end, RunEnd::Abandoned);
}

/// A job that may run once does not run twice.
pub async fn the_last_attempt_can_be_lost<S: Store>(bench: &mut Bench<S>) {
    for (n, attempts_max) in [(1, 0), (2, 1)] {
        let once = TypePolicy {
            attempts_max: Some(attempts_max),
            ..policy("mail")
        };
        bench.start(n, "mail").await;
        bench.pass(LEASE);
        let lost = bench.reclaim(vec![once], 10).await.remove(0);
        assert_eq!((lost.end, lost.attempt), (RunEnd::Abandoned, 1));
        let found = bench.read(n).await;
        let reason = found.runs[0].error.clone().unwrap();
        assert_eq!(reason.as_str(), LOST_AT_LAST_ATTEMPT);
    }
}

/// However late the look comes.
pub async fn what_ended_is_not_reclaimed<S: Store>(bench: &mut Bench<S>) {
    for (n, outcome) in [(1, Outcome::Completed), (2, Outcome::Released)] {
        let started = bench.start(n, "mail").await;
        bench.finish(started, outcome).await;
    }
    bench.pass(LEASE * 2);
    assert!(bench.reclaim(vec![policy("mail")], 10).await.is_empty());
    assert_eq!(bench.read(1).await.runs.len(), 1);
}

async fn can_write_nothing<S: Store>(bench: &mut Bench<S>, loser: Run) {
    let retried = Outcome::Retried {
        delay: Duration::ZERO,
        attempt: 2,
        error: error("no route"),
    };
    for outcome in [Outcome::Completed, Outcome::Released, retried] {
        assert_eq!(bench.finish(loser, outcome).await, Written::Stale);
    }
    assert_eq!(bench.checkpoint(loser, "1").await, Written::Stale);
    assert_eq!(bench.heartbeat(&[loser]).await, [Written::Stale]);
}

/// While the job waits, while another runs it, and after it ended.
pub async fn the_loser_can_write_nothing<S: Store>(bench: &mut Bench<S>) {
    let loser = bench.start(1, "mail").await;
    bench.pass(LEASE);
    bench.reclaim(vec![policy("mail")], 10).await;
    can_write_nothing(bench, loser).await;
    let mut claim = bench.new_claim(&[("mail", 1)]);
    claim.id.worker = super::bench::worker(2);
    let winner = bench.send_claim(claim).await.jobs[0].run;
    can_write_nothing(bench, loser).await;
    assert_eq!(
        bench.finish(winner, Outcome::Completed).await,
        Written::Applied
    );
    can_write_nothing(bench, loser).await;
    assert_eq!(bench.read(1).await.runs.len(), 2);
}

/// Its identity alone is not enough.
pub async fn the_loser_can_write_nothing_when_it_runs_the_job_again<S: Store>(
    bench: &mut Bench<S>,
) {
    let new = NewJob {
        ..bench.new_job(1, "mail")
    };
    bench.spawn_all(vec![new]).await;
    let old = bench.claim_one(1, "mail").await;
    bench.pass(LEASE);
    bench.reclaim(vec![policy("mail")], 10).await;
    let new = bench.claim_one(1, "mail").await;
    can_write_nothing(bench, old).await;
    assert_eq!(
        bench.finish(new, Outcome::Completed).await,
        Written::Applied
    );
}
