//! Ending runs.

use job_engine::history::{Live, RunRecord};
use job_engine::lifecycle::{RunEnd, State};
use job_engine::store::{Finish, Outcome, Written};
use job_engine::{ClaimId, Due, Fence, Run, Timestamp};

use crate::conformance::Harness;
use crate::conformance::fixtures::{
    ALICE, BOB, LEASE, MAIL, MICROSECOND, SECOND, START, error, json, new_job,
};
use crate::store::Store;

fn retried(attempt: u32) -> Outcome {
    Outcome::Retried {
        delay: SECOND,
        attempt,
        error: error("no route"),
    }
}

fn errored() -> Outcome {
    Outcome::Errored {
        error: error("gave up"),
    }
}

fn undecodable() -> Outcome {
    Outcome::Undecodable {
        delay: SECOND,
        error: error("unknown variant"),
    }
}

/// Every way in which a worker can say that a run ended.
fn outcomes() -> [Outcome; 8] {
    let due = Due::Now;
    [
        Outcome::Completed,
        Outcome::Rescheduled { due },
        retried(2),
        errored(),
        Outcome::Released,
        Outcome::Interrupted,
        undecodable(),
        Outcome::Snoozed { due },
    ]
}

/// The record of a first run that was claimed at the start and ended after a
/// second.
fn first_run(end: RunEnd) -> RunRecord {
    RunRecord {
        fence: Fence(1),
        attempt: 1,
        worker: ALICE,
        claim_seq: 1,
        claimed_at: START,
        ended_at: START.saturating_add(SECOND),
        end,
        error: None,
        next_due_at: None,
    }
}

pub async fn a_completed_job_is_over<S: Store>(harness: &mut Harness<S>) {
    let run = harness.start(1).await;
    harness.advance(SECOND);
    let written = harness.finish(run, Outcome::Completed).await;
    assert_eq!(written, Written::Applied);
    let job = harness.job(1).await;
    assert_eq!(job.state(), State::Completed);
    assert_eq!(job.live, None);
    assert_eq!(job.runs, [first_run(RunEnd::Completed)]);
    let claimed = harness.claim_type(job.job_type, 10).await;
    assert_eq!((claimed.jobs, claimed.next_due), (vec![], vec![]));
}

pub async fn an_errored_job_is_over_and_keeps_its_error<S: Store>(harness: &mut Harness<S>) {
    let run = harness.start(1).await;
    harness.advance(SECOND);
    assert_eq!(harness.finish(run, errored()).await, Written::Applied);
    let job = harness.job(1).await;
    assert_eq!((job.state(), job.live), (State::Errored, None));
    let expected = RunRecord {
        error: Some(error("gave up")),
        ..first_run(RunEnd::Errored)
    };
    assert_eq!(job.runs, [expected]);
}

pub async fn a_rescheduled_job_starts_again_at_its_first_attempt<S: Store>(
    harness: &mut Harness<S>,
) {
    let first = harness.start(1).await;
    harness.finish(first, retried(5)).await;
    harness.advance(SECOND);
    let second = harness.claim_one().await;
    assert_eq!(second.attempt, 5);
    harness.checkpoint(second.run, r#""kept""#).await;
    let due = Due::In(SECOND);
    harness
        .finish(second.run, Outcome::Rescheduled { due })
        .await;
    let due_at = START.saturating_add(2 * SECOND);
    let expected = Live {
        attempt: 1,
        crashes: 0,
        interruptions: 0,
        undecodable_since: None,
        due_at,
        fence: Fence(2),
        state: Some(json(r#""kept""#)),
        lease: None,
    };
    let job = harness.job(1).await;
    assert_eq!(job.live, Some(expected));
    let second = &job.runs[1];
    assert_eq!((second.attempt, second.end), (5, RunEnd::Rescheduled));
    assert_eq!(second.next_due_at, Some(due_at));
}

pub async fn a_snoozed_job_waits_at_its_attempt_and_keeps_its_state<S: Store>(
    harness: &mut Harness<S>,
) {
    let first = harness.start(1).await;
    harness.finish(first, retried(5)).await;
    harness.advance(SECOND);
    // A crash and an interruption, which it forgets.
    harness.claim_one().await;
    harness.advance(LEASE);
    harness.reclaim().await;
    let third = harness.claim_one().await.run;
    harness.finish(third, Outcome::Interrupted).await;
    let fourth = harness.claim_one().await;
    assert_eq!((fourth.attempt, fourth.interruptions), (6, 1));
    harness.checkpoint(fourth.run, r#""kept""#).await;
    for due in [Due::In(SECOND), Due::Now, Due::At(START)] {
        let run = match harness.live(1).await.lease {
            Some(_) => fourth.run,
            None => harness.claim_one().await.run,
        };
        harness.finish(run, Outcome::Snoozed { due }).await;
        let expected = Live {
            attempt: 6,
            crashes: 0,
            interruptions: 0,
            undecodable_since: None,
            due_at: due.resolve(harness.now()),
            fence: run.fence,
            state: Some(json(r#""kept""#)),
            lease: None,
        };
        let job = harness.job(1).await;
        let last = job.runs.last().unwrap();
        assert_eq!((last.attempt, last.end), (6, RunEnd::Snoozed));
        assert_eq!(last.next_due_at, Some(expected.due_at));
        assert_eq!(job.live, Some(expected));
        harness.advance(SECOND);
    }
}

pub async fn a_rescheduled_job_is_due_now_or_after_a_delay_or_at_a_time<S: Store>(
    harness: &mut Harness<S>,
) {
    harness.spawn_one(new_job(1)).await;
    harness.advance(SECOND);
    let now = harness.now();
    let dues = [
        (Due::Now, now),
        (Due::At(START), START),
        (Due::At(Timestamp::EPOCH), Timestamp::EPOCH),
        (Due::In(SECOND), now.saturating_add(SECOND)),
    ];
    for (due, due_at) in dues {
        let run = harness.claim_one().await.run;
        harness.finish(run, Outcome::Rescheduled { due }).await;
        assert_eq!(harness.live(1).await.due_at, due_at);
    }
    assert_eq!(harness.claim_type(new_job(1).job_type, 1).await.jobs, []);
}

pub async fn a_retried_job_waits_for_its_delay_from_the_stores_now<S: Store>(
    harness: &mut Harness<S>,
) {
    let run = harness.start(1).await;
    harness.advance(SECOND);
    assert_eq!(harness.finish(run, retried(2)).await, Written::Applied);
    let due_at = START.saturating_add(2 * SECOND);
    let job = harness.job(1).await;
    let expected = RunRecord {
        error: Some(error("no route")),
        next_due_at: Some(due_at),
        ..first_run(RunEnd::Retried)
    };
    assert_eq!(job.runs, [expected]);
    let live = harness.live(1).await;
    assert_eq!((live.attempt, live.due_at), (2, due_at));
    harness.advance(SECOND - MICROSECOND);
    assert_eq!(harness.claim_type(job.job_type, 1).await.jobs, []);
    harness.advance(MICROSECOND);
    assert_eq!(harness.claim_one().await.attempt, 2);
}

pub async fn a_released_job_is_due_at_once_at_the_same_attempt<S: Store>(harness: &mut Harness<S>) {
    let first = harness.start(1).await;
    harness.finish(first, retried(3)).await;
    harness.advance(10 * SECOND);
    let second = harness.claim_one().await;
    harness.advance(SECOND);
    harness.finish(second.run, Outcome::Released).await;
    let live = harness.live(1).await;
    assert_eq!((live.attempt, live.due_at), (3, harness.now()));
    let job = harness.job(1).await;
    assert_eq!(job.runs[1].end, RunEnd::Released);
    assert_eq!(job.runs[1].next_due_at, Some(harness.now()));
    assert_eq!(harness.claim_one().await.attempt, 3);
}

pub async fn a_run_can_end_after_its_lease_lapsed_if_nobody_took_it_back<S: Store>(
    harness: &mut Harness<S>,
) {
    let run = harness.start(1).await;
    harness.advance(10 * LEASE);
    let written = harness.finish(run, Outcome::Completed).await;
    assert_eq!(written, Written::Applied);
    assert_eq!(harness.reclaim().await, []);
}

pub async fn a_stale_fence_changes_nothing<S: Store>(harness: &mut Harness<S>) {
    let first = harness.start(1).await;
    harness.advance(LEASE);
    harness.reclaim().await;
    let pending = harness.job(1).await;
    for outcome in outcomes() {
        assert_eq!(harness.finish(first, outcome).await, Written::Stale);
    }
    assert_eq!(harness.job(1).await, pending);
    harness.claim_one().await;
    let running = harness.job(1).await;
    for outcome in outcomes() {
        assert_eq!(harness.finish(first, outcome).await, Written::Stale);
    }
    assert_eq!(harness.job(1).await, running);
}

pub async fn a_fence_that_was_never_given_changes_nothing<S: Store>(harness: &mut Harness<S>) {
    harness.start(1).await;
    let before = harness.job(1).await;
    for fence in [i64::MIN, -1, 0, 2, i64::MAX] {
        let written = harness
            .finish(harness.nth(1, fence), Outcome::Completed)
            .await;
        assert_eq!(written, Written::Stale, "fence {fence}");
    }
    assert_eq!(harness.job(1).await, before);
}

pub async fn an_unknown_job_is_stale<S: Store>(harness: &mut Harness<S>) {
    for outcome in outcomes() {
        assert_eq!(
            harness.finish(harness.nth(1, 1), outcome).await,
            Written::Stale
        );
    }
}

pub async fn a_job_that_was_never_claimed_cannot_be_finished<S: Store>(harness: &mut Harness<S>) {
    harness.spawn_one(new_job(1)).await;
    for fence in [0, 1] {
        let written = harness
            .finish(harness.nth(1, fence), Outcome::Completed)
            .await;
        assert_eq!(written, Written::Stale);
    }
    assert_eq!(harness.job(1).await.state(), State::Pending);
}

pub async fn a_repeat_of_an_end_is_applied_and_changes_nothing<S: Store>(harness: &mut Harness<S>) {
    for (outcome, n) in outcomes().into_iter().zip(1..) {
        harness.spawn_one(new_job(n)).await;
        let claimed = harness.claim_one().await;
        harness.finish(claimed.run, outcome.clone()).await;
        let before = harness.job(n).await;
        harness.advance(SECOND);
        let written = harness.finish(claimed.run, outcome.clone()).await;
        assert_eq!(written, Written::Applied, "{outcome:?}");
        assert_eq!(harness.job(n).await, before, "{outcome:?}");
        // Out of the way of the next.
        let far = Due::In(1_000 * LEASE);
        for job in harness.claim_type(new_job(n).job_type, 10).await.jobs {
            let later = Outcome::Rescheduled { due: far };
            harness.finish(job.run, later).await;
        }
    }
}

pub async fn a_repeat_of_an_end_is_applied_even_when_the_job_runs_again<S: Store>(
    harness: &mut Harness<S>,
) {
    let first = harness.start(1).await;
    harness.finish(first, retried(2)).await;
    harness.advance(SECOND);
    let second = harness.claim_one().await.run;
    let running = harness.job(1).await;
    let repeated = harness.finish(first, retried(2)).await;
    assert_eq!(repeated, Written::Applied);
    assert_eq!(harness.job(1).await, running);
    harness.finish(second, Outcome::Completed).await;
    let repeated = harness.finish(first, retried(2)).await;
    assert_eq!(repeated, Written::Applied);
    assert_eq!(harness.job(1).await.state(), State::Completed);
}

pub async fn another_end_of_a_run_that_is_over_is_stale<S: Store>(harness: &mut Harness<S>) {
    for (first, n) in outcomes().into_iter().zip(1..) {
        harness.spawn_one(new_job(n)).await;
        let claimed = harness.claim_type(new_job(n).job_type, 100).await;
        let run = claimed.jobs.iter().map(|job| job.run);
        let run = run.filter(|run| *run == harness.nth(n, 1));
        let run: Vec<Run> = run.collect();
        harness.finish(run[0], first.clone()).await;
        let before = harness.job(n).await;
        for second in outcomes() {
            if second.end() != first.end() {
                let written = harness.finish(run[0], second.clone()).await;
                assert_eq!(written, Written::Stale, "{first:?}, then {second:?}");
            }
        }
        assert_eq!(harness.job(n).await, before);
    }
}

pub async fn each_end_of_a_batch_is_decided_for_itself<S: Store>(harness: &mut Harness<S>) {
    let runs = harness.start_all(10).await;
    harness.finish(runs[9], Outcome::Completed).await;
    let mut ends: Vec<_> = runs.iter().copied().zip(outcomes()).collect();
    // A stale one, an unknown one, and a repeat among them.
    ends.insert(1, (harness.nth(8, 9), Outcome::Completed));
    ends.insert(3, (harness.nth(99, 1), Outcome::Completed));
    ends.push((runs[9], Outcome::Completed));
    let finishes = ends
        .into_iter()
        .map(|(run, outcome)| Finish { run, outcome })
        .collect();
    let (applied, stale) = (Written::Applied, Written::Stale);
    let expected = [
        applied, stale, applied, stale, applied, applied, applied, applied, applied, applied,
        applied,
    ];
    assert_eq!(harness.finish_all(finishes).await, expected);
    let mut states = Vec::new();
    for n in 1..=10 {
        states.push(harness.job(n).await.state());
    }
    let expected = [
        State::Completed,
        State::Pending,
        State::Pending,
        State::Errored,
        State::Pending,
        State::Pending,
        State::Pending,
        State::Pending,
        State::Running,
        State::Completed,
    ];
    assert_eq!(states, expected);
}

pub async fn a_run_that_ends_resets_the_crashes<S: Store>(harness: &mut Harness<S>) {
    let due = Due::Now;
    let ends = [
        (Outcome::Rescheduled { due }, 0),
        (Outcome::Snoozed { due }, 0),
        (retried(2), 0),
        // It may not have run at all.
        (Outcome::Released, 1),
        (undecodable(), 1),
        (Outcome::Interrupted, 1),
    ];
    for ((outcome, crashes), n) in ends.into_iter().zip(1..) {
        harness.start(n).await;
        harness.advance(LEASE);
        harness.reclaim().await;
        assert_eq!(harness.live(n).await.crashes, 1);
        let second = harness.claim_one().await;
        assert_eq!(second.run, harness.nth(n, 2));
        // The crash is still counted while the job runs again.
        assert_eq!(harness.live(n).await.crashes, 1);
        harness.finish(second.run, outcome).await;
        assert_eq!(harness.live(n).await.crashes, crashes);
        harness.advance(SECOND);
        let third = harness.claim_one().await.run;
        harness.finish(third, Outcome::Completed).await;
    }
}

/// The interruptions in a row, and whether the config could be decoded last.
async fn said<S: Store>(harness: &mut Harness<S>) -> (u32, Option<Timestamp>) {
    let live = harness.live(1).await;
    (live.interruptions, live.undecodable_since)
}

pub async fn interruptions_are_counted_until_a_run_ends_otherwise<S: Store>(
    harness: &mut Harness<S>,
) {
    harness.spawn_one(new_job(1)).await;
    let due = Due::Now;
    let ends = [
        (Outcome::Interrupted, 1),
        (Outcome::Interrupted, 2),
        (Outcome::Released, 2),
        (undecodable(), 2),
        (Outcome::Interrupted, 3),
        (retried(2), 0),
        (Outcome::Interrupted, 1),
        (Outcome::Snoozed { due }, 0),
        (Outcome::Interrupted, 1),
        (Outcome::Rescheduled { due }, 0),
    ];
    let mut before = 0;
    for (outcome, interruptions) in ends {
        let claimed = harness.claim_one().await;
        assert_eq!(claimed.interruptions, before);
        let (attempt, end) = (claimed.attempt, outcome.end());
        harness.finish(claimed.run, outcome).await;
        assert_eq!(said(harness).await.0, interruptions);
        if !matches!(end, RunEnd::Retried | RunEnd::Rescheduled) {
            assert_eq!(harness.live(1).await.attempt, attempt, "{end:?}");
        }
        before = interruptions;
        harness.advance(SECOND);
    }
    // A crash is none, and forgets none.
    let run = harness.claim_one().await.run;
    harness.finish(run, Outcome::Interrupted).await;
    harness.claim_one().await;
    harness.advance(LEASE);
    harness.reclaim().await;
    assert_eq!(said(harness).await.0, 1);
}

pub async fn an_undecodable_job_waits_at_its_attempt_and_says_since_when<S: Store>(
    harness: &mut Harness<S>,
) {
    harness.spawn_one(new_job(1)).await;
    let since = harness.now();
    for _ in 0..2 {
        let claimed = harness.claim_one().await;
        assert_eq!(claimed.attempt, 1);
        harness.finish(claimed.run, undecodable()).await;
        assert_eq!(said(harness).await, (0, Some(since)));
        assert_eq!(harness.claim_type(MAIL, 1).await.jobs, []);
        harness.advance(SECOND);
    }
    for (outcome, expected) in [
        (Outcome::Released, Some(since)),
        (Outcome::Interrupted, None),
    ] {
        let claimed = harness.claim_one().await;
        assert_eq!(claimed.undecodable_since, Some(since));
        harness.finish(claimed.run, outcome).await;
        assert_eq!(said(harness).await.1, expected);
    }
    let record = &harness.job(1).await.runs[0];
    assert_eq!(record.end, RunEnd::Undecodable);
    assert_eq!(record.error, Some(error("unknown variant")));
    assert_eq!(record.next_due_at, Some(since.saturating_add(SECOND)));
}

/// As where a database has forgotten the last claims, and gives their fences again.
pub async fn a_run_is_told_from_one_with_its_fence_by_its_claim<S: Store>(
    harness: &mut Harness<S>,
) {
    let run = harness.start(1).await;
    let others = [
        ClaimId {
            worker: BOB,
            ..run.claim
        },
        ClaimId {
            seq: run.claim.seq + 1,
            ..run.claim
        },
    ];
    for claim in others {
        let other = Run { claim, ..run };
        assert_eq!(harness.heartbeat(other).await, Written::Stale);
        assert_eq!(harness.checkpoint(other, "1").await, Written::Stale);
        assert_eq!(harness.hold(other).await, Written::Stale);
        for outcome in outcomes() {
            assert_eq!(harness.finish(other, outcome).await, Written::Stale);
        }
    }
    assert_eq!(
        harness.finish(run, Outcome::Completed).await,
        Written::Applied
    );
    for claim in others {
        let other = Run { claim, ..run };
        let written = harness.finish(other, Outcome::Completed).await;
        assert_eq!(written, Written::Stale, "that is no repeat");
    }
}

pub async fn a_run_is_held_while_it_runs_and_nothing_changes<S: Store>(harness: &mut Harness<S>) {
    let first = harness.start(1).await;
    let running = harness.job(1).await;
    assert_eq!(harness.hold(first).await, Written::Applied);
    assert_eq!(harness.job(1).await, running);
    harness.finish(first, retried(2)).await;
    assert_eq!(harness.hold(first).await, Written::Stale);
    assert_eq!(harness.hold(harness.nth(7, 1)).await, Written::Stale);
}

pub async fn every_end_is_in_the_history_in_its_order<S: Store>(harness: &mut Harness<S>) {
    harness.spawn_one(new_job(1)).await;
    let due = Due::Now;
    let ends = [
        Outcome::Released,
        Outcome::Rescheduled { due },
        retried(2),
        Outcome::Released,
        Outcome::Interrupted,
        undecodable(),
        Outcome::Snoozed { due },
        retried(3),
        errored(),
    ];
    for outcome in ends {
        let run = harness.claim_one().await.run;
        harness.advance(SECOND);
        harness.finish(run, outcome).await;
        harness.advance(SECOND);
    }
    let runs = harness.job(1).await.runs;
    let told: Vec<_> = runs.iter().map(|r| (r.fence.0, r.attempt, r.end)).collect();
    let expected = [
        (1, 1, RunEnd::Released),
        (2, 1, RunEnd::Rescheduled),
        (3, 1, RunEnd::Retried),
        (4, 2, RunEnd::Released),
        (5, 2, RunEnd::Interrupted),
        (6, 2, RunEnd::Undecodable),
        (7, 2, RunEnd::Snoozed),
        (8, 2, RunEnd::Retried),
        (9, 3, RunEnd::Errored),
    ];
    assert_eq!(told, expected);
}

pub async fn an_empty_batch_finishes_nothing<S: Store>(harness: &mut Harness<S>) {
    assert_eq!(harness.finish_all(Vec::new()).await, []);
}

pub async fn a_full_batch_is_finished<S: Store>(harness: &mut Harness<S>) {
    let runs = harness.start_all(1_000).await;
    let ends = runs.iter().zip(outcomes().into_iter().cycle());
    let finishes: Vec<_> = ends
        .map(|(run, outcome)| Finish { run: *run, outcome })
        .collect();
    let written = harness.finish_all(finishes.clone()).await;
    assert_eq!(written, [Written::Applied; 1_000]);
    let repeated = harness.finish_all(finishes).await;
    assert_eq!(repeated, [Written::Applied; 1_000]);
}
