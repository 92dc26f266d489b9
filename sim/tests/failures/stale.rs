//! Lost leases: runs that go on although their job was taken back.

use job_engine::planted::Bug;
use job_sim::check::coverage::Point;
use job_sim::scenario::{Direction, EndSpec, Fault, RunSpec};
use job_sim::trace::Fate;

use super::support::*;

/// 1
#[test]
fn a_reclaim_does_not_overwrite_a_job_that_completed_meanwhile() {
    // The end arrives when the lease has run out and nobody has looked yet.
    let sim = workers(1).job(1_000, &[stubborn(2_000)]);
    let sim = sim.fault(hold_back(0, 1_500, 4_000));
    let report = sim.holds(&[]);
    assert_eq!(report.coverage.count(Point::LeaseLost), 0);
    assert_eq!(starts_ms(&report, 0).len(), 1);
    sim.finds(Bug::LateFinishRefused, "fences.finish");
    // And the other way round: it arrives after the reclaim, and loses.
    let sim = workers(2).job(1_000, &[stubborn(3_000), stubborn(20_000)]);
    let sim = sim
        .fault(hold_back(0, 1_500, 9_000))
        .fault(hold_back(1, 1_500, 500));
    sim.holds(&[Point::LeaseLost, Point::FinishAfterReclaim]);
    sim.finds(Bug::ReclaimUnguarded, "leases.early");
}

/// 2
#[test]
fn a_heartbeat_that_fails_frees_no_place() {
    let sim = workers(1).knobs(|knobs| (knobs.jobs_max, knobs.jobs_min) = (1, 1));
    let sim = sim
        .job(1_000, &[stubborn(20_000)])
        .job(2_000, &[])
        .fault(store(
            4_000,
            1_500,
            job_sim::scenario::StoreTrouble::Refuses,
        ));
    let report = sim.holds(&[Point::StoreFailed, Point::OutlivesLease]);
    assert!(starts_ms(&report, 1)[0] > 20_000);
    sim.finds(Bug::HeartbeatFailureFreesPlaces, "capacity.asked");
}

/// 3
#[test]
fn a_runner_that_ignores_the_loss_of_its_lease_is_aborted_and_changes_nothing() {
    let failing = RunSpec {
        end: EndSpec::Fail,
        ..stubborn(30_000)
    };
    let sim = workers(2).job(1_000, &[failing, run(500, EndSpec::Complete)]);
    let sim = sim.fault(cut(0, 2_000, 20_000, Direction::Both)).fault(cut(
        1,
        500,
        1_000,
        Direction::Both,
    ));
    let report = sim.holds(&[
        Point::LeaseLost,
        Point::ToldByItsWorker,
        Point::RunnerAborted,
    ]);
    assert!(fates(&report, 0).contains(&Fate::Completed));
    sim.finds(Bug::LostNotAborted, "shutdown.abort");
}

/// 4, 15
#[test]
fn jobs_of_a_claim_that_crosses_a_shutdown_are_put_back_and_not_started() {
    let sim = workers(1).latency_ms(100).job(7_000, &[]);
    let sim = sim.fault(deploy(0, 7_350));
    let report = sim.holds(&[Point::ReleasedUnstarted]);
    assert_eq!(starts_ms(&report, 0).len(), 1);
    sim.finds(Bug::DrainStillStarts, "shutdown.starts");
    sim.finds(Bug::LateClaimNotReleased, "logs.drained");
    sim.finds(Bug::StopForgetsClaim, "shutdown.in_flight");
}

/// 9, 10
#[test]
fn lost_jobs_of_a_type_that_a_worker_does_not_know_hide_no_others_and_wait() {
    let sim = workers(2).with(|scenario| scenario.workers[1].knobs.types = vec![1]);
    let sim = sim
        .with(|scenario| scenario.workers[1].start_ms = 3_000)
        .job_of(0, 1_000, &[run(60_000, EndSpec::Complete)])
        .job_of(1, 1_000, &[run(60_000, EndSpec::Complete)])
        .fault(crash(0, 4_000, Some(30_000)));
    let report = sim.holds(&[Point::CrashAtWork, Point::LeaseLost]);
    assert!(starts_ms(&report, 0)[1] > 34_000);
    assert!(starts_ms(&report, 1)[1] < 12_000);
    sim.finds(Bug::ReclaimPageHidesOthers, "leases.overlooked");
}

/// 11
#[test]
fn a_job_that_takes_many_leases_is_not_taken_from_a_healthy_worker() {
    let sim = workers(2).job(1_000, &[run(40_000, EndSpec::Complete)]);
    let report = sim.holds(&[Point::OutlivesLease]);
    assert_eq!(report.coverage.count(Point::LeaseLost), 0);
    assert_eq!(starts_ms(&report, 0).len(), 1);
    sim.finds(Bug::ReclaimByClaimTime, "leases.early");
}

/// 13
#[test]
fn a_process_that_stands_still_loses_its_jobs_and_its_runners_are_told() {
    let sim = workers(2).job(1_000, &[stubborn(20_000), run(10_000, EndSpec::Complete)]);
    let away = sim
        .fault(cut(1, 500, 1_000, Direction::Both))
        .fault(Fault::Pause {
            worker: 0,
            at_ms: 3_000,
            for_ms: 9_000,
        });
    let report = away.holds(&[Point::PausedBeyondLease, Point::RunsOverlap]);
    assert_eq!(starts_ms(&report, 0).len(), 2);
    let alone = workers(2).job(1_000, &[stubborn(20_000), run(10_000, EndSpec::Complete)]);
    let alone = alone.fault(cut(1, 500, 1_000, Direction::Both)).fault(cut(
        0,
        3_000,
        12_000,
        Direction::Both,
    ));
    alone.holds(&[Point::ToldByItsWorker, Point::LeaseLost]);
    alone.finds(Bug::LapseNotTold, "belief.untold");
}

/// 14
#[test]
fn a_late_end_or_checkpoint_does_not_touch_the_run_that_followed() {
    let late = RunSpec {
        checkpoint_ms: Some(2_500),
        ..stubborn(3_000)
    };
    let sim = workers(2).job(1_000, &[late, stubborn(20_000)]);
    let sim = sim
        .fault(cut(1, 500, 1_000, Direction::Both))
        .fault(hold_back(0, 2_000, 9_000));
    sim.holds(&[Point::StaleFinish, Point::FinishAfterReclaim]);
    sim.finds(Bug::FinishIgnoresFence, "lifecycle.edge");
    sim.finds(Bug::CheckpointIgnoresFence, "fences.checkpoint");
}

/// 16
#[test]
fn an_old_run_cannot_end_a_new_one_of_the_same_worker() {
    // Worker 1 takes the job back and has no room for it; the claim of worker 0
    // then arrives before the end of its old run.
    let sim = workers(2).with(|scenario| {
        let knobs = &mut scenario.workers[1].knobs;
        (knobs.jobs_max, knobs.jobs_min) = (1, 1);
        scenario.workers[0].start_ms = 2_000;
    });
    let sim = sim
        .job(1_000, &[stubborn(60_000)])
        .job(3_000, &[stubborn(4_300), stubborn(20_000)])
        .fault(hold_back(0, 3_500, 11_000));
    sim.holds(&[Point::LeaseLost, Point::StaleFinish]);
    sim.finds(Bug::FinishByWorkerOnly, "lifecycle.edge");
    let again = workers(1).job(1_000, &[run(10, EndSpec::RescheduleMs(1_000))]);
    again.holds(&[Point::Rescheduled]);
    again.finds(Bug::ClaimReusesFence, "fences.claim");
}

/// 17
#[test]
fn jobs_of_a_claim_whose_reply_is_lost_are_found_by_its_repeat() {
    let sim = workers(1)
        .job(1_000, &[stubborn(40_000)])
        .job(7_000, &[run(2_000, EndSpec::Complete)])
        .fault(cut(0, 7_003, 50, Direction::FromStore));
    let report = sim.holds(&[Point::ClaimReplyLost, Point::RepeatFindsItsJobs]);
    assert_eq!(starts_ms(&report, 1).len(), 1);
    sim.finds(Bug::RepeatedClaimTakesMore, "repeats.forgotten");
    sim.finds(Bug::HeartbeatRenewsAllOwned, "lifecycle.untouched");
}
