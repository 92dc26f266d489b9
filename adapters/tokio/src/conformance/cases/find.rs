//! Reading a job.

use job_engine::history::{Lease, Live, RunRecord, Snapshot};
use job_engine::lifecycle::{RunEnd, State};
use job_engine::store::{NewJob, Outcome};
use job_engine::{Due, Fence, Timestamp};

use crate::conformance::Harness;
use crate::conformance::fixtures::{
    ALICE, BOB, LEASE, MAIL, SECOND, START, error, id, json, new_job,
};
use crate::store::Store;

fn seconds_after_start(seconds: u32) -> Timestamp {
    START.saturating_add(seconds * SECOND)
}

/// A job with something in each of its parts.
fn rich_job() -> NewJob {
    NewJob {
        unique_type: true,
        trace: Some("00-trace-01".to_owned()),
        due: Due::At(seconds_after_start(1)),
        ..new_job(1)
    }
}

fn pending() -> Snapshot {
    Snapshot {
        id: id(1),
        job_type: MAIL,
        unique_type: true,
        config: json("{\"n\":1}"),
        spawned_at: START,
        trace: Some("00-trace-01".to_owned()),
        live: Some(Live {
            attempt: 1,
            crashes: 0,
            interruptions: 0,
            undecodable_since: None,
            due_at: seconds_after_start(1),
            fence: Fence(0),
            state: None,
            lease: None,
        }),
        runs: Vec::new(),
        earlier: None,
    }
}

pub async fn an_unknown_job_is_not_found<S: Store>(harness: &mut Harness<S>) {
    assert_eq!(harness.find(id(1)).await, None);
    harness.spawn_one(new_job(1)).await;
    assert_eq!(harness.find(id(2)).await, None);
}

pub async fn a_pending_job_is_found_with_all_its_parts<S: Store>(harness: &mut Harness<S>) {
    harness.spawn_one(rich_job()).await;
    assert_eq!(harness.job(1).await, pending());
}

pub async fn a_running_job_is_found_with_its_lease<S: Store>(harness: &mut Harness<S>) {
    harness.spawn_one(rich_job()).await;
    harness.advance(2 * SECOND);
    harness.claim_one_as(BOB).await;
    harness.checkpoint(harness.nth(1, 1), "[1]").await;
    let expected = Snapshot {
        live: Some(Live {
            attempt: 1,
            crashes: 0,
            interruptions: 0,
            undecodable_since: None,
            due_at: seconds_after_start(1),
            fence: Fence(1),
            state: Some(json("[1]")),
            lease: Some(Lease {
                worker: BOB,
                claim_seq: 1,
                claimed_at: seconds_after_start(2),
                expires_at: seconds_after_start(2).saturating_add(LEASE),
            }),
        }),
        ..pending()
    };
    assert_eq!(harness.job(1).await, expected);
    assert_eq!(expected.state(), State::Running);
}

pub async fn a_job_that_is_over_is_found_with_its_whole_history<S: Store>(
    harness: &mut Harness<S>,
) {
    harness.spawn_one(rich_job()).await;
    harness.advance(2 * SECOND);
    let first = harness.claim_one().await.run;
    harness.advance(SECOND);
    let outcome = Outcome::Retried {
        delay: SECOND,
        attempt: 2,
        error: error("no route"),
    };
    harness.finish(first, outcome).await;
    harness.advance(SECOND);
    let second = harness.claim_one_as(BOB).await.run;
    harness.advance(SECOND);
    harness.finish(second, Outcome::Completed).await;
    let failed = RunRecord {
        fence: Fence(1),
        attempt: 1,
        worker: ALICE,
        claim_seq: 1,
        claimed_at: seconds_after_start(2),
        ended_at: seconds_after_start(3),
        end: RunEnd::Retried,
        error: Some(error("no route")),
        next_due_at: Some(seconds_after_start(4)),
    };
    let completed = RunRecord {
        fence: Fence(2),
        attempt: 2,
        worker: BOB,
        claim_seq: 2,
        claimed_at: seconds_after_start(4),
        ended_at: seconds_after_start(5),
        end: RunEnd::Completed,
        error: None,
        next_due_at: None,
    };
    let expected = Snapshot {
        live: None,
        runs: vec![failed, completed],
        ..pending()
    };
    assert_eq!(harness.job(1).await, expected);
    assert_eq!(expected.state(), State::Completed);
}

pub async fn the_history_folds_to_the_state_at_every_step<S: Store>(harness: &mut Harness<S>) {
    harness.spawn_one(new_job(1)).await;
    let error = error("no route");
    let outcomes = [
        Outcome::Rescheduled { due: Due::Now },
        Outcome::Released,
        Outcome::Interrupted,
        Outcome::Undecodable {
            delay: SECOND,
            error: error.clone(),
        },
        Outcome::Retried {
            delay: SECOND,
            attempt: 2,
            error: error.clone(),
        },
        Outcome::Errored { error },
    ];
    for outcome in outcomes {
        let state = harness.job(1).await.fold();
        assert_eq!(state, Some(State::Pending));
        let run = harness.claim_one().await.run;
        let state = harness.job(1).await.fold();
        assert_eq!(state, Some(State::Running));
        harness.finish(run, outcome).await;
        harness.advance(SECOND);
    }
    assert_eq!(harness.job(1).await.fold(), Some(State::Errored));
}

/// The fences of the runs of a page, the first and the last, and where earlier ones end.
fn told(runs: &[RunRecord], earlier: Option<Fence>) -> [Option<i64>; 3] {
    let fence = |run: &RunRecord| run.fence.0;
    let runs = [runs.first(), runs.last()].map(|run| run.map(fence));
    [runs[0], runs[1], earlier.map(|fence| fence.0)]
}

pub async fn a_long_history_is_read_page_by_page_from_its_end<S: Store>(harness: &mut Harness<S>) {
    harness.spawn_one(new_job(1)).await;
    for n in 1..=121 {
        // As many as are read at once, and one more or less.
        if [50, 51, 52].contains(&n) {
            let job = harness.job(1).await;
            let (first, earlier) = if n <= 51 { (1, None) } else { (2, Some(2)) };
            assert_eq!(
                told(&job.runs, job.earlier),
                [Some(first), Some(n - 1), earlier]
            );
        }
        let run = harness.claim_one().await.run;
        harness
            .finish(run, Outcome::Rescheduled { due: Due::Now })
            .await;
    }
    let running = harness.claim_one().await.run;
    let job = harness.job(1).await;
    assert_eq!(
        told(&job.runs, job.earlier),
        [Some(72), Some(121), Some(72)]
    );
    assert_eq!(job.fold(), Some(State::Running));
    let pages = [
        (72, [Some(22), Some(71), Some(22)]),
        (22, [Some(1), Some(21), None]),
        (51, [Some(1), Some(50), None]),
        (52, [Some(2), Some(51), Some(2)]),
        (1, [None; 3]),
        (i64::MIN, [None; 3]),
        (i64::MAX, [Some(72), Some(121), Some(72)]),
    ];
    for (before, expected) in pages {
        let page = harness.history(1, before).await;
        assert_eq!(told(&page.runs, page.earlier), expected, "before {before}");
        assert!(page.runs.is_sorted_by_key(|run| run.fence));
    }
    // One that is over is read in the same way.
    harness.finish(running, Outcome::Completed).await;
    let job = harness.job(1).await;
    assert_eq!(
        told(&job.runs, job.earlier),
        [Some(73), Some(122), Some(73)]
    );
    assert_eq!(job.fold(), Some(State::Completed));
}

pub async fn a_job_that_does_not_exist_has_no_history<S: Store>(harness: &mut Harness<S>) {
    harness.start(1).await;
    let page = harness.history(2, i64::MAX).await;
    assert_eq!(told(&page.runs, page.earlier), [None; 3]);
}

pub async fn reading_changes_nothing<S: Store>(harness: &mut Harness<S>) {
    harness.start(1).await;
    let before = harness.job(1).await;
    harness.advance(2 * LEASE);
    assert_eq!(harness.job(1).await, before);
    assert_eq!(harness.job(1).await, before);
}
