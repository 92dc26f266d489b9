//! Poison, shutdowns, and outcomes that nobody was told.

use job_engine::planted::Bug;
use job_sim::check::coverage::Point;
use job_sim::event::RUNNER_OPS;
use job_sim::scenario::{Direction, EndSpec, Fault, MessageEffect};
use job_sim::trace::Fate;

use super::support::*;

/// 7
#[test]
fn a_runner_that_panics_strands_neither_its_job_nor_others() {
    let sim = workers(1)
        .with_driver()
        .job(
            7_000,
            &[run(50, EndSpec::Panic), run(50, EndSpec::Complete)],
        )
        .job(7_000, &[run(50, EndSpec::Complete)]);
    let report = sim.holds(&[Point::Panicked]);
    assert_eq!(fates(&report, 0), [Fate::Failed, Fate::Completed]);
    assert_eq!(fates(&report, 1), [Fate::Completed]);
    sim.finds(Bug::PanicEndsDriver, "paused.panic");
    let sim = sim.knobs(|knobs| (knobs.jobs_max, knobs.jobs_min) = (1, 1));
    sim.finds(Bug::PanicKillsReport, "claims.owed");
}

/// 49
#[test]
fn a_job_that_kills_its_process_is_given_up_after_some_crashes() {
    let kills = vec![run(200, EndSpec::Kill); 10];
    let sim = workers(2).job(1_000, &kills);
    let report = sim.holds(&[Point::CrashAtWork, Point::LeaseLost, Point::Abandoned]);
    assert_eq!(starts_ms(&report, 0).len(), 3);
    sim.finds(Bug::CrashesNeverCounted, "attempts.crash");
    sim.finds(Bug::AbandonedJobGoesBack, "lifecycle.edge");
}

/// 50
#[test]
fn a_job_that_nobody_can_decode_costs_no_attempt_and_ends_when_its_time_is_over() {
    let sim = workers(1).with_driver();
    let sim = sim.with(|scenario| scenario.types[0].retries[0].undecodable_max_ms = 5_000);
    let sim = sim.job(1_000, &vec![run(0, EndSpec::Undecodable); 10]);
    let report = sim.holds(&[Point::Undecodable]);
    // After 0, 1, 2, 3, 4.5 and 6.75 seconds.
    assert_eq!(fates(&report, 0), [Fate::Failed; 6]);
    sim.finds(Bug::UndecodableLoops, "logs.ended");
    sim.finds(Bug::UndecodableForEver, "attempts.undecodable");
    sim.finds(Bug::UndecodableCountsAttempt, "attempts.next");
}

/// The longest wait is 4 s: a run is healthy after three times that, and not after three
/// times the wait before it.
#[test]
fn a_job_that_takes_its_time_to_fail_is_given_up() {
    let sim = workers(1).with(|scenario| scenario.types[0].retries[0].reset_after_multiples = 3);
    let sim = sim.job(1_000, &vec![run(9_000, EndSpec::Fail); 10]);
    let report = sim.holds(&[Point::RetryAtCap]);
    assert_eq!(fates(&report, 0), [Fate::Failed; 5]);
    sim.finds(Bug::HealthySoon, "attempts.next");
    sim.finds(Bug::RetryKeepsAttempt, "attempts.next");
}

/// 51
#[test]
fn a_shutdown_waits_for_the_store_calls_that_are_under_way() {
    let sim = workers(1).with_driver().latency_ms(100).job(7_000, &[]);
    let sim = sim.fault(deploy(0, 150));
    sim.holds(&[]);
    sim.finds(Bug::CompleterDiesWithCaller, "shutdown.idle");
}

/// 52
#[test]
fn leases_are_renewed_for_as_long_as_a_shutdown_drains() {
    let sim = workers(2)
        .knobs(|knobs| knobs.shutdown_timeout_ms = 20_000)
        .job(1_000, &[stubborn(18_000)])
        .fault(deploy(0, 3_000))
        .fault(deploy(1, 4_000));
    let report = sim.holds(&[Point::ShutdownAtWork, Point::OutlivesLease]);
    assert_eq!(fates(&report, 0), [Fate::Completed]);
    assert_eq!(report.coverage.count(Point::LeaseLost), 0);
    sim.finds(Bug::HeartbeatsStopAtDrain, "overlap.needless");
}

/// 53
#[test]
fn an_end_whose_reply_is_lost_is_recorded_once() {
    let sim = workers(1)
        .job(7_000, &[run(2_000, EndSpec::Complete)])
        .job(20_000, &[]);
    let sim = sim.fault(cut(0, 9_000, 1_500, Direction::FromStore));
    let report = sim.holds(&[Point::Unanswered, Point::FinishRepeated]);
    assert_eq!(starts_ms(&report, 0).len(), 1);
    sim.finds(Bug::UnknownFinishDropped, "repeats.finish");
    sim.finds(Bug::RepeatedFinishIsStale, "fences.finish");
}

/// 53
#[test]
fn a_commit_whose_reply_is_lost_counts_once() {
    let sim = workers(1).with_driver();
    let sim = sim
        .job(7_000, &vec![run(2_000, EndSpec::CompleteTx); 3])
        .fault(cut(0, 9_010, 3_000, Direction::FromStore));
    let report = sim.holds(&[Point::CommitUnknown]);
    assert_eq!(starts_ms(&report, 0).len(), 1);
    let lost = workers(1).with_driver();
    let lost = lost
        .job(7_000, &vec![run(2_000, EndSpec::CompleteTx); 3])
        .fault(cut(0, 9_010, 3_000, Direction::ToStore));
    let report = lost.holds(&[Point::Unanswered]);
    assert_eq!(starts_ms(&report, 0).len(), 2);
    lost.finds(Bug::UnknownCommitIsSettled, "ends.settled");
}

/// 53
#[test]
fn a_spawn_whose_reply_is_lost_finds_its_own_job() {
    let sim = workers(1).job(7_000, &[]);
    let sim = sim.fault(Fault::Message {
        worker: u32::MAX,
        incarnation: 1,
        op: 2 * RUNNER_OPS + 1,
        effect: MessageEffect::LoseReply,
    });
    let report = sim.holds(&[Point::SpawnRepeated]);
    assert_eq!(starts_ms(&report, 0).len(), 1);
    sim.finds(Bug::RepeatedSpawnIsDuplicate, "spawns.repeat");
    let sim = sim.with_driver();
    sim.holds(&[Point::SpawnRepeated]);
    sim.finds(Bug::SpawnRetriesUnderNewToken, "spawns.told");
}

/// 53
#[test]
fn a_claim_of_unknown_outcome_is_repeated_and_never_replaced() {
    let sim = workers(1).job(7_000, &[]);
    let sim = sim.fault(cut(0, 7_003, 50, Direction::FromStore));
    sim.holds(&[Point::Unanswered, Point::RepeatFindsItsJobs]);
    sim.finds(Bug::UnknownClaimForgotten, "repeats.claim");
    let sim = sim.with_driver();
    sim.holds(&[Point::Unanswered]);
    sim.finds(Bug::TimeoutIsFailure, "repeats.claim");
}
