//! Queues that stand still although there is work, and stores that are asked
//! too often.

use job_engine::planted::Bug;
use job_sim::check::coverage::Point;
use job_sim::scenario::{EndSpec, Fault, StoreTrouble};

use super::support::*;

/// 18
#[test]
fn a_job_whose_announcement_is_lost_waits_for_a_poll_and_no_longer() {
    let sim = workers(1).job(12_000, &[]).fault(Fault::Deaf {
        worker: 0,
        at_ms: 10_000,
        for_ms: 60_000,
        silent: true,
    });
    let report = sim.holds(&[]);
    let waited_ms = starts_ms(&report, 0)[0] - 12_000;
    assert!((100..5_100).contains(&waited_ms), "{waited_ms}");
    sim.finds(Bug::ListeningStopsPolling, "claims.poll");
}

/// 19
#[test]
fn a_listener_that_is_gone_is_noticed_and_polls_come_sooner() {
    let sim = workers(1).with_driver().job(12_000, &[]);
    let sim = sim.fault(Fault::Deaf {
        worker: 0,
        at_ms: 10_000,
        for_ms: 20_000,
        silent: false,
    });
    sim.holds(&[Point::KnowsItIsDeaf]);
    sim.finds(Bug::DeafListener, "claims.poll");
}

/// 21
#[test]
fn a_job_that_has_used_up_its_attempts_ends_and_holds_nothing_up() {
    let failures = vec![run(10, EndSpec::Fail); 8];
    let sim = workers(1).job(1_000, &failures).job(30_000, &[]);
    let report = sim.holds(&[Point::RetryAtCap]);
    assert_eq!(starts_ms(&report, 0).len(), 5);
    assert_eq!(starts_ms(&report, 1).len(), 1);
    sim.finds(Bug::AttemptCapOffByOne, "attempts.cap");
}

/// 23
#[test]
fn a_wake_up_that_crosses_a_claim_is_not_lost() {
    let sim = workers(1)
        .latency_ms(100)
        .knobs(|knobs| knobs.poll_ms = 60_000)
        .job(7_000, &[])
        .job(7_150, &[]);
    let report = sim.holds(&[Point::WokenDuringClaim]);
    assert!(starts_ms(&report, 1)[0] < 8_000);
    sim.finds(Bug::WakeDuringClaimLost, "claims.owed");
}

/// 24
#[test]
fn a_claim_that_took_all_it_might_is_followed_by_another() {
    let mut sim = workers(1).knobs(|knobs| {
        (knobs.jobs_max, knobs.jobs_min, knobs.poll_ms) = (2, 2, 60_000);
    });
    for _ in 0..7 {
        sim = sim.job(7_000, &[run(500, EndSpec::Complete)]);
    }
    let report = sim.holds(&[]);
    let last_ms = (0..7).map(|key| starts_ms(&report, key)[0]).max();
    assert!((8_500..9_000).contains(&last_ms.unwrap()), "{last_ms:?}");
    sim.finds(Bug::LimitTruncatesThenSleeps, "claims.owed");
}

/// 25
#[test]
fn types_take_turns_when_there_is_one_place() {
    let mut sim = workers(1).knobs(|knobs| (knobs.jobs_max, knobs.jobs_min) = (1, 1));
    for key in 0..40 {
        sim = sim.job_of(key % 2, 7_000, &[run(500, EndSpec::Complete)]);
    }
    let report = sim.holds(&[]);
    let first_ms = |place| {
        (0..40)
            .filter(|key| key % 2 == place)
            .map(|key| starts_ms(&report, key)[0])
            .min()
    };
    assert!(first_ms(0).max(first_ms(1)).unwrap() < 9_000);
    sim.finds(Bug::TypesDoNotTakeTurns, "claims.turns");
    sim.finds(Bug::ClaimNewestFirst, "due.order");
}

/// 26
#[test]
fn a_store_call_that_never_returns_is_given_up() {
    let sim = workers(1).with_driver().job(7_000, &[]);
    let sim = sim.fault(store(6_900, 4_000, StoreTrouble::Hangs));
    let report = sim.holds(&[Point::Unanswered]);
    assert_eq!(starts_ms(&report, 0).len(), 1);
    sim.finds(Bug::StoreCallsNeverTimeOut, "claims.owed");
}

/// 27
#[test]
fn lost_jobs_are_looked_for_again_after_the_store_was_away() {
    let sim = workers(2)
        .job(25_000, &[run(20_000, EndSpec::Complete)])
        .fault(store(5_000, 10_000, StoreTrouble::Refuses))
        .fault(crash(0, 30_000, Some(2_000)));
    sim.holds(&[Point::StoreFailed, Point::CrashAtWork, Point::LeaseLost]);
    sim.finds(Bug::ReclaimDiesOnError, "pace.upkeep");
}

/// 31
#[test]
fn a_store_that_fails_is_asked_ever_less_often() {
    let sim = workers(2).fault(store(5_000, 40_000, StoreTrouble::Refuses));
    let report = sim.holds(&[Point::StoreFailed]);
    let errors = report.coverage.count(Point::StoreFailed);
    assert!(errors < 100, "{errors} errors in forty seconds");
    sim.finds(Bug::StoreErrorHammers, "pace.hammers");
}

/// 33
#[test]
fn workers_that_start_together_do_not_stay_together() {
    let sim = workers(8);
    sim.holds(&[]);
    sim.finds(Bug::NoJitter, "pace.herd");
}

/// While as many jobs ran as claims are gathered from, nothing was claimed.
#[test]
fn a_due_job_starts_while_there_is_a_free_place() {
    let sim = workers(1).knobs(|knobs| (knobs.jobs_max, knobs.jobs_min) = (4, 2));
    let long = [run(60_000, EndSpec::Complete)];
    let sim = sim.job(1_000, &long).job(1_000, &long);
    let sim = sim.job(10_000, &[]).job_of(1, 10_000, &[]);
    let report = sim.holds(&[]);
    for job in [2, 3] {
        let waited_ms = starts_ms(&report, job)[0] - 10_000;
        assert!(waited_ms < 5_100, "{waited_ms}");
    }
    sim.finds(Bug::MinimumIsABan, "claims.owed");
}

/// Of many jobs whose configs are long, no claim brings more than arrive in time.
#[test]
fn a_claim_that_brings_too_much_asks_for_less() {
    let mut sim = workers(1).knobs(|knobs| (knobs.jobs_max, knobs.jobs_min) = (8, 8));
    // The driver waits for a second. A job that is never given up is owed its run.
    sim = sim.with(|scenario| {
        scenario.claimed_job_ms = 400;
        for retry in &mut scenario.types[0].retries {
            (retry.attempts_max, retry.crashes_max) = (None, None);
        }
    });
    for _ in 0..8 {
        sim = sim.job(85_000, &[]);
    }
    sim.holds(&[Point::ClaimLeftSome]);
    sim.finds(Bug::ClaimNeverShrinks, "repeats.shrinks");
}
