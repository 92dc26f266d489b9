//! Taking back jobs whose lease ran out.

use std::time::Duration;

use job_engine::history::RunRecord;
use job_engine::lifecycle::{RunEnd, State};
use job_engine::store::{
    CRASHED_TOO_OFTEN, LOST_AT_LAST_ATTEMPT, NewJob, Outcome, Reclaimed, TypePolicy, Written,
};
use job_engine::{Due, ErrorText, Fence, JobType};

use crate::conformance::Harness;
use crate::conformance::fixtures::{
    ALICE, HEALTHY_AFTER, LEASE, MAIL, MICROSECOND, PRINT, SECOND, START, error, new_job, policy,
    quota,
};
use crate::store::Store;

/// The reclaim of the first run of a job of type mail.
fn lost<S: Store>(harness: &Harness<S>, n: u128) -> Reclaimed {
    Reclaimed {
        run: harness.nth(n, 1),
        job_type: MAIL,
        attempt: 1,
        end: RunEnd::Lost,
    }
}

fn crashes_max(max: u32) -> TypePolicy {
    TypePolicy {
        crashes_max: Some(max),
        ..policy(MAIL)
    }
}

fn attempts_max(max: u32) -> TypePolicy {
    TypePolicy {
        attempts_max: Some(max),
        ..policy(MAIL)
    }
}

/// Claims the one job and lets its lease run out.
async fn crash<S: Store>(harness: &mut Harness<S>, policy: TypePolicy) -> RunEnd {
    harness.claim_one().await;
    harness.advance(LEASE);
    let reclaimed = harness.reclaim_with(vec![policy], 10).await;
    assert_eq!(reclaimed.len(), 1);
    reclaimed[0].end
}

/// The crashes in a row and the next attempt of job 1.
async fn counts<S: Store>(harness: &mut Harness<S>) -> (u32, u32) {
    let live = harness.live(1).await;
    (live.crashes, live.attempt)
}

pub async fn a_job_is_taken_back_when_its_lease_ends_and_not_before<S: Store>(
    harness: &mut Harness<S>,
) {
    harness.start(1).await;
    harness.advance(LEASE - MICROSECOND);
    assert_eq!(harness.reclaim().await, []);
    harness.advance(MICROSECOND);
    assert_eq!(harness.reclaim().await, [lost(harness, 1)]);
}

pub async fn a_heartbeat_puts_the_reclaim_off<S: Store>(harness: &mut Harness<S>) {
    let run = harness.start(1).await;
    for _ in 0..3 {
        harness.advance(LEASE - MICROSECOND);
        assert_eq!(harness.reclaim().await, []);
        assert_eq!(harness.heartbeat(run).await, Written::Applied);
    }
    harness.advance(LEASE);
    assert_eq!(harness.reclaim().await, [lost(harness, 1)]);
}

pub async fn a_job_that_was_taken_back_is_due_at_once_as_the_next_attempt<S: Store>(
    harness: &mut Harness<S>,
) {
    harness.start(1).await;
    harness.advance(LEASE + SECOND);
    harness.reclaim().await;
    let job = harness.job(1).await;
    assert_eq!(job.state(), State::Pending);
    let ended_at = START.saturating_add(LEASE + SECOND);
    let expected = RunRecord {
        fence: Fence(1),
        attempt: 1,
        worker: ALICE,
        claim_seq: 1,
        claimed_at: START,
        ended_at,
        end: RunEnd::Lost,
        error: None,
        next_due_at: Some(ended_at),
    };
    assert_eq!(job.runs, [expected]);
    let claimed = harness.claim_one().await;
    assert_eq!((claimed.attempt, claimed.due_at), (2, ended_at));
}

pub async fn crashes_in_a_row_are_counted<S: Store>(harness: &mut Harness<S>) {
    harness.spawn_one(new_job(1)).await;
    for crashes in 1..=3 {
        assert_eq!(crash(harness, policy(MAIL)).await, RunEnd::Lost);
        assert_eq!(counts(harness).await, (crashes, crashes + 1));
    }
    // What is put back may not have run at all.
    let run = harness.claim_one().await.run;
    harness.finish(run, Outcome::Released).await;
    assert_eq!(counts(harness).await, (3, 4));
    let run = harness.claim_one().await.run;
    let due = Due::Now;
    harness.finish(run, Outcome::Rescheduled { due }).await;
    assert_eq!(crash(harness, policy(MAIL)).await, RunEnd::Lost);
    assert_eq!(counts(harness).await, (1, 2));
}

pub async fn a_job_that_crashes_too_often_is_abandoned<S: Store>(harness: &mut Harness<S>) {
    harness.spawn_one(new_job(1)).await;
    assert_eq!(crash(harness, crashes_max(3)).await, RunEnd::Lost);
    assert_eq!(crash(harness, crashes_max(3)).await, RunEnd::Lost);
    assert_eq!(crash(harness, crashes_max(3)).await, RunEnd::Abandoned);
    let job = harness.job(1).await;
    assert_eq!((job.state(), job.live), (State::Errored, None));
    let last = job.runs.last().expect("it ran");
    assert_eq!(last.error, Some(ErrorText::new(CRASHED_TOO_OFTEN)));
    assert_eq!((last.attempt, last.next_due_at), (3, None));
    assert_eq!(harness.claim_type(MAIL, 1).await.jobs, []);
}

pub async fn a_job_without_an_attempt_left_is_abandoned<S: Store>(harness: &mut Harness<S>) {
    harness.spawn_one(new_job(1)).await;
    assert_eq!(crash(harness, attempts_max(2)).await, RunEnd::Lost);
    assert_eq!(crash(harness, attempts_max(2)).await, RunEnd::Abandoned);
    let job = harness.job(1).await;
    let last = job.runs.last().expect("it ran");
    assert_eq!(last.error, Some(ErrorText::new(LOST_AT_LAST_ATTEMPT)));
    assert_eq!((job.state(), job.live), (State::Errored, None));
}

pub async fn a_limit_of_none_is_no_limit<S: Store>(harness: &mut Harness<S>) {
    harness.spawn_one(new_job(1)).await;
    for _ in 0..50 {
        assert_eq!(crash(harness, policy(MAIL)).await, RunEnd::Lost);
    }
    assert_eq!(counts(harness).await, (50, 51));
}

pub async fn a_limit_of_zero_is_a_limit_of_one<S: Store>(harness: &mut Harness<S>) {
    harness.spawn_one(new_job(1)).await;
    assert_eq!(crash(harness, crashes_max(0)).await, RunEnd::Abandoned);
    harness.spawn_one(new_job(2)).await;
    assert_eq!(crash(harness, attempts_max(0)).await, RunEnd::Abandoned);
}

pub async fn a_run_that_lived_long_enough_starts_the_counts_again<S: Store>(
    harness: &mut Harness<S>,
) {
    harness.spawn_one(new_job(1)).await;
    crash(harness, policy(MAIL)).await;
    crash(harness, policy(MAIL)).await;
    assert_eq!(counts(harness).await, (2, 3));
    // Its lease ends a microsecond too early for that.
    let run = harness.claim_one().await.run;
    let lease = HEALTHY_AFTER - MICROSECOND;
    harness.heartbeat_for(vec![run], lease).await;
    harness.advance(lease);
    harness.reclaim().await;
    assert_eq!(counts(harness).await, (3, 4));
    let run = harness.claim_one().await.run;
    harness.heartbeat_for(vec![run], HEALTHY_AFTER).await;
    harness.advance(HEALTHY_AFTER);
    // Limits are for the counts as they are then.
    let policy = TypePolicy {
        attempts_max: Some(2),
        ..crashes_max(2)
    };
    let reclaimed = harness.reclaim_with(vec![policy], 10).await;
    assert_eq!((reclaimed[0].attempt, reclaimed[0].end), (4, RunEnd::Lost));
    assert_eq!(counts(harness).await, (1, 1));
}

pub async fn a_reclaim_looks_at_the_life_of_the_run_not_at_the_clock<S: Store>(
    harness: &mut Harness<S>,
) {
    harness.spawn_one(new_job(1)).await;
    crash(harness, policy(MAIL)).await;
    harness.claim_one().await;
    // Nobody looked for a long time; the run has not lived any longer for it.
    harness.advance(10 * HEALTHY_AFTER);
    harness.reclaim().await;
    assert_eq!(counts(harness).await, (2, 3));
}

pub async fn types_that_are_not_named_are_left_alone<S: Store>(harness: &mut Harness<S>) {
    harness.start(1).await;
    harness.advance(LEASE);
    let before = harness.job(1).await;
    let reclaimed = harness.reclaim_with(vec![policy(PRINT)], 10).await;
    assert_eq!(reclaimed, []);
    assert_eq!(harness.reclaim_with(Vec::new(), 10).await, []);
    assert_eq!(harness.job(1).await, before);
}

pub async fn types_that_are_not_named_do_not_hide_the_others<S: Store>(harness: &mut Harness<S>) {
    let unknown = |n| NewJob {
        job_type: PRINT,
        ..new_job(n)
    };
    let mut jobs: Vec<_> = (1..=20).map(unknown).collect();
    jobs.push(new_job(21));
    harness.spawn(jobs).await;
    let claim = harness.new_claim(vec![quota(PRINT, 20), quota(MAIL, 1)]);
    harness.claim(&claim).await;
    harness.advance(LEASE);
    let reclaimed = harness.reclaim_with(vec![policy(MAIL)], 1).await;
    assert_eq!(reclaimed, [lost(harness, 21)]);
}

pub async fn the_smallest_ids_are_taken_back_first<S: Store>(harness: &mut Harness<S>) {
    harness.start_all(5).await;
    // The end of the lease does not decide.
    harness
        .heartbeat_for(vec![harness.nth(1, 1)], LEASE + SECOND)
        .await;
    harness.advance(LEASE + SECOND);
    let policies = || vec![policy(PRINT), policy(MAIL)];
    let first = harness.reclaim_with(policies(), 3).await;
    assert_eq!(
        first,
        [lost(harness, 1), lost(harness, 2), lost(harness, 3)]
    );
    assert_eq!(harness.reclaim_with(policies(), 0).await, []);
    let second = harness.reclaim_with(policies(), 3).await;
    assert_eq!(second, [lost(harness, 4), lost(harness, 5)]);
    assert_eq!(harness.reclaim_with(policies(), 3).await, []);
}

pub async fn each_type_has_a_policy_of_its_own<S: Store>(harness: &mut Harness<S>) {
    let types = [MAIL, PRINT, JobType::new("third")];
    let jobs = types.iter().zip(1..).map(|(job_type, n)| NewJob {
        job_type: job_type.clone(),
        ..new_job(n)
    });
    harness.spawn(jobs.collect()).await;
    let fifth = Outcome::Retried {
        delay: Duration::ZERO,
        attempt: 5,
        error: error("no route"),
    };
    let run = harness.claim_type(types[2].clone(), 1).await.jobs[0].run;
    harness.finish(run, fifth).await;
    let quotas = types.iter().cloned().map(|t| quota(t, 1)).collect();
    let claim = harness.new_claim(quotas);
    harness.claim(&claim).await;
    harness.advance(LEASE);
    let abandoning = TypePolicy {
        job_type: PRINT,
        ..crashes_max(1)
    };
    let healthy = TypePolicy {
        job_type: types[2].clone(),
        healthy_after: LEASE,
        ..policy(MAIL)
    };
    let policies = vec![healthy, abandoning, policy(MAIL)];
    let reclaimed = harness.reclaim_with(policies, 10).await;
    let ends: Vec<_> = reclaimed.iter().map(|r| r.end).collect();
    assert_eq!(ends, [RunEnd::Lost, RunEnd::Abandoned, RunEnd::Lost]);
    assert_eq!(harness.live(1).await.attempt, 2);
    assert_eq!(harness.live(3).await.attempt, 1);
}

/// There is nothing that could start again, and one attempt means one.
pub async fn a_first_attempt_counts_however_long_it_lived<S: Store>(harness: &mut Harness<S>) {
    harness.spawn_one(new_job(1)).await;
    let healthy = TypePolicy {
        healthy_after: LEASE,
        ..attempts_max(2)
    };
    assert_eq!(crash(harness, healthy.clone()).await, RunEnd::Lost);
    assert_eq!(counts(harness).await, (1, 2));
    // From the second on they start again.
    assert_eq!(crash(harness, healthy.clone()).await, RunEnd::Lost);
    assert_eq!(counts(harness).await, (1, 1));
    let only_one = TypePolicy {
        attempts_max: Some(1),
        ..healthy
    };
    assert_eq!(crash(harness, only_one).await, RunEnd::Abandoned);
}

pub async fn a_reclaim_of_nothing_does_nothing<S: Store>(harness: &mut Harness<S>) {
    assert_eq!(harness.reclaim().await, []);
}

pub async fn a_job_that_was_finished_is_not_taken_back<S: Store>(harness: &mut Harness<S>) {
    let run = harness.start(1).await;
    harness.advance(LEASE);
    harness.finish(run, Outcome::Completed).await;
    let before = harness.job(1).await;
    assert_eq!(harness.reclaim().await, []);
    assert_eq!(harness.job(1).await, before);
}

pub async fn a_pending_job_is_not_taken_back<S: Store>(harness: &mut Harness<S>) {
    let run = harness.start(1).await;
    harness.finish(run, Outcome::Released).await;
    harness.spawn_one(new_job(2)).await;
    harness.advance(10 * LEASE);
    assert_eq!(harness.reclaim().await, []);
}

pub async fn the_loser_of_a_lease_can_write_nothing<S: Store>(harness: &mut Harness<S>) {
    let loser = harness.start(1).await;
    harness.advance(LEASE);
    harness.reclaim().await;
    let before = harness.job(1).await;
    assert_eq!(harness.heartbeat(loser).await, Written::Stale);
    assert_eq!(harness.checkpoint(loser, "1").await, Written::Stale);
    let written = harness.finish(loser, Outcome::Completed).await;
    assert_eq!(written, Written::Stale);
    assert_eq!(harness.job(1).await, before);
}

pub async fn an_old_run_cannot_end_a_new_one_of_the_same_worker<S: Store>(
    harness: &mut Harness<S>,
) {
    // A stalls, its job is taken back, and A itself claims it again.
    let old = harness.start(1).await;
    harness.advance(LEASE);
    harness.reclaim().await;
    let new = harness.claim_one_as(ALICE).await.run;
    let running = harness.job(1).await;
    assert_eq!(harness.heartbeat(old).await, Written::Stale);
    assert_eq!(harness.checkpoint(old, "1").await, Written::Stale);
    let outcomes = [
        Outcome::Completed,
        Outcome::Released,
        Outcome::Errored {
            error: error("late"),
        },
    ];
    for outcome in outcomes {
        assert_eq!(harness.finish(old, outcome).await, Written::Stale);
    }
    assert_eq!(harness.job(1).await, running);
    let written = harness.finish(new, Outcome::Completed).await;
    assert_eq!(written, Written::Applied);
}

pub async fn a_repeat_of_a_reclaim_takes_nothing_more<S: Store>(harness: &mut Harness<S>) {
    harness.start_all(2).await;
    harness.advance(LEASE);
    assert_eq!(harness.reclaim().await.len(), 2);
    let before = harness.job(1).await;
    harness.advance(SECOND);
    assert_eq!(harness.reclaim().await, []);
    assert_eq!(harness.job(1).await, before);
}
