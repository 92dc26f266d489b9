//! Clocks that differ, long waits, and machines that sleep.

use job_engine::planted::Bug;
use job_sim::check::coverage::Point;
use job_sim::scenario::{DueSpec, EndSpec, Fault};

use super::support::*;

/// 12
#[test]
fn a_wait_that_is_longer_than_a_lease_is_followed_by_one_run() {
    let sim = workers(2)
        .job(
            1_000,
            &[
                run(10, EndSpec::RescheduleMs(30_000)),
                run(10, EndSpec::Complete),
            ],
        )
        .with(|scenario| scenario.jobs[0].due = DueSpec::InMs(40_000));
    let report = sim.holds(&[Point::Rescheduled]);
    let starts_ms = starts_ms(&report, 0);
    assert_eq!(starts_ms.len(), 2);
    assert!(starts_ms[0] >= 41_000 && starts_ms[1] >= 71_000);
    assert_eq!(report.coverage.count(Point::LeaseLost), 0);
}

/// 29
#[test]
fn heartbeats_come_well_before_the_lease_ends() {
    let sim = workers(2).job(1_000, &[run(30_000, EndSpec::Complete)]);
    let sim = sim.latency_ms(200);
    let report = sim.holds(&[Point::OutlivesLease]);
    assert_eq!(report.coverage.count(Point::LeaseLost), 0);
    sim.finds(Bug::HeartbeatTooLate, "heartbeats.late");
}

/// 35, 36
#[test]
fn clocks_of_workers_that_are_hours_off_change_nothing() {
    let hour_ms = 3_600_000;
    let sim = workers(2).with(|scenario| {
        scenario.workers[0].clock_ahead_ms = hour_ms;
        scenario.workers[1].clock_ahead_ms = -hour_ms;
    });
    let sim = sim
        .knobs(|knobs| knobs.poll_ms = 60_000)
        .job(1_000, &[run(20_000, EndSpec::Complete)])
        .job(1_000, &[run(10, EndSpec::RescheduleMs(10_000))])
        .fault(Fault::ClockJump {
            worker: 0,
            at_ms: 6_000,
            by_ms: hour_ms,
        });
    let report = sim.holds(&[Point::OutlivesLease, Point::Rescheduled]);
    assert_eq!(report.coverage.count(Point::LeaseLost), 0);
    assert!((11_000..12_000).contains(&starts_ms(&report, 1)[1]));
    sim.finds(Bug::DelayByWorkerClock, "backoff.asked");
    let slow = workers(1).job(1_000, &[]).with(|scenario| {
        scenario.workers[0].clock_ahead_ms = -hour_ms;
        scenario.jobs[0].due = DueSpec::InMs(10_000);
    });
    let slow = slow.knobs(|knobs| knobs.poll_ms = 60_000);
    assert!((11_000..11_100).contains(&starts_ms(&slow.holds(&[]), 0)[0]));
    slow.finds(Bug::NextDueByWorkerClock, "claims.owed");
}

/// 37
#[test]
fn a_job_does_not_start_a_moment_before_it_is_due() {
    let sim = workers(1).job(1_000, &[]).job(6_000, &[]);
    let sim = sim.with(|scenario| scenario.jobs[0].due = DueSpec::InMs(5_400));
    let report = sim.holds(&[]);
    assert!((6_400..6_500).contains(&starts_ms(&report, 0)[0]));
    sim.finds(Bug::ClaimsEarly, "due.early");
}

/// 38
#[test]
fn after_a_sleep_of_the_machine_there_is_nothing_to_catch_up() {
    let again = vec![run(100, EndSpec::RescheduleMs(1_000)); 200];
    let sim = workers(1).job(1_000, &again).fault(Fault::Pause {
        worker: 0,
        at_ms: 5_500,
        for_ms: 60_000,
    });
    let report = sim.holds(&[Point::Rescheduled]);
    let starts_ms = starts_ms(&report, 0);
    let gaps = starts_ms.windows(2).map(|pair| pair[1] - pair[0]);
    assert_eq!(gaps.clone().filter(|gap| *gap > 50_000).count(), 1);
    assert!(gaps.min().unwrap() >= 1_100);
    sim.finds(Bug::DelayFromDueTime, "backoff.asked");
}

/// 47
#[test]
fn the_wait_after_a_failure_never_grows_beyond_its_maximum() {
    let failures = vec![run(10, EndSpec::Fail); 8];
    let sim = workers(1).job(1_000, &failures);
    sim.holds(&[Point::BackoffAtMax]);
    sim.finds(Bug::BackoffIgnoresMax, "backoff.bounds");
}
