//! Level 2, one situation at a time.

use job_engine::planted::{Bug, with};
use job_sim::check::coverage::Point;
use job_sim::event::RUNNER_OPS;
use job_sim::paused;
use job_sim::scenario::{
    Direction, DueSpec, EndSpec, Fault, Knobs, MessageEffect, OnStop, Profile, RetrySpec, RunSpec,
    Scenario, StoreTrouble, TypeSpec, WorkerSpec, generate,
};
use job_sim::trace::Kind;
use job_sim::{Keep, Report};
use job_tokio::fault::POINTS;

use crate::support::job;

fn knobs() -> Knobs {
    Knobs {
        jobs_max: 6,
        jobs_min: 4,
        lease_ms: 10_000,
        poll_ms: 5_000,
        poll_deaf_ms: 2_000,
        shutdown_timeout_ms: 2_000,
        poll_only: false,
        edition: 0,
        types: Vec::new(),
    }
}

fn run(work_ms: u64, end: EndSpec) -> RunSpec {
    RunSpec {
        work_ms,
        checkpoint_ms: None,
        end,
        on_stop: OnStop::Yield,
    }
}

/// Three workers, two types, ten minutes of which the last three are calm, no
/// jobs and no faults.
fn empty(seed: u64) -> Scenario {
    let retry = RetrySpec {
        attempts_max: Some(5),
        min_backoff_ms: 1_000,
        max_backoff_ms: 20_000,
        jitter_pct: 20,
        reset_after_multiples: 3,
        crashes_max: Some(4),
        undecodable_max_ms: 3_600_000,
    };
    let worker = |key| WorkerSpec {
        key,
        start_ms: u64::from(key) * 700,
        clock_ahead_ms: i64::from(key) * 3_000 - 3_000,
        clock_drift_ppm: 0,
        knobs: knobs(),
    };
    Scenario {
        seed,
        horizon_ms: 600_000,
        calm_from_ms: 420_000,
        latency_us: (500, 3_000),
        types: vec![
            TypeSpec {
                retries: vec![retry.clone()],
            },
            TypeSpec {
                retries: vec![retry],
            },
        ],
        workers: (0..3).map(worker).collect(),
        jobs: Vec::new(),
        faults: Vec::new(),
        claimed_job_ms: 0,
        left_out: Vec::new(),
    }
}

/// The same with twenty-one jobs that do all that jobs do.
fn busy(seed: u64) -> Scenario {
    let mut scenario = empty(seed);
    for key in 0..20 {
        let mut runs = match key % 10 {
            0 => vec![run(2_000, EndSpec::Complete)],
            1 => vec![run(300, EndSpec::Fail), run(50, EndSpec::CompleteTx)],
            2 => vec![run(500, EndSpec::Panic)],
            3 => vec![run(0, EndSpec::Undecodable), run(100, EndSpec::Complete)],
            4 => vec![
                run(100, EndSpec::RescheduleMs(30_000)),
                run(100, EndSpec::Complete),
            ],
            5 => vec![
                run(100, EndSpec::RescheduleTxMs(20_000)),
                run(700, EndSpec::CompleteTx),
            ],
            6 => vec![run(25_000, EndSpec::Complete)],
            7 => vec![run(100, EndSpec::CompleteTx)],
            8 => (0..5).map(|_| run(10, EndSpec::Fail)).collect(),
            _ => vec![run(18_000, EndSpec::CompleteTx)],
        };
        for run in &mut runs {
            run.checkpoint_ms = (run.work_ms > 1_000).then_some(900);
        }
        let mut job = job(key, u64::from(key) * 15_000 + 3_000, runs);
        job.by = (key % 3 > 0).then_some(key % 3);
        job.due = match key % 4 {
            1 => DueSpec::InMs(5_000),
            2 => DueSpec::AtMs(120_000),
            _ => DueSpec::Now,
        };
        scenario.jobs.push(job);
    }
    scenario.jobs[4].unique = true;
    scenario.jobs[14].unique = true;
    scenario.jobs[0].again_ms = Some(50_000);
    let mut child = job(20, 0, vec![run(10, EndSpec::Complete)]);
    child.parent = Some(7);
    scenario.jobs.push(child);
    scenario
}

/// Runs it, and asserts that nothing is violated.
#[track_caller]
fn holds(scenario: &Scenario) -> Report {
    let report = paused::run(scenario, Keep::TRACE);
    if let Some(violation) = &report.violation {
        let entries = report.trace.entries.iter();
        let mut lines = entries.map(|entry| {
            let who = entry.who.map(|who| who.to_string()).unwrap_or_default();
            format!("{:>11} {who:<7} {}\n", entry.at_us, entry.text)
        });
        let skip = lines.len().saturating_sub(200);
        let text: String = lines.by_ref().skip(skip).collect();
        panic!(
            "{text}{violation} (job {:?}, worker {:?})",
            violation.job, violation.worker
        );
    }
    assert_eq!(report.simulated_us, scenario.horizon_ms * 1_000);
    report
}

/// So many events of this kind there were.
fn count(report: &Report, kind: Kind) -> usize {
    let entries = report.trace.entries.iter();
    entries.filter(|entry| entry.kind == kind).count()
}

/// So many runs are recorded to have ended like this.
fn ends(report: &Report, text: &str) -> usize {
    let entries = report.trace.entries.iter();
    let ended = entries.filter(|e| e.kind == Kind::Ended && e.text.contains(text));
    ended.count()
}

#[test]
fn without_faults_every_job_ends_as_planned() {
    let report = holds(&busy(1));
    for point in [
        Point::OutlivesLease,
        Point::IdConflict,
        Point::UniqueConflict,
        Point::ChildSpawned,
        Point::Rescheduled,
        Point::Panicked,
        Point::RetryAtCap,
    ] {
        assert!(report.coverage.count(point) > 0, "{point}");
    }
    for point in [Point::LeaseLost, Point::StoreFailed, Point::Unanswered] {
        assert_eq!(report.coverage.count(point), 0, "{point}");
    }
    assert!(ends(&report, "in its transaction") > 0);
}

#[test]
fn a_scenario_does_the_same_twice() {
    for seed in 0..20 {
        let mut scenario = busy(seed);
        scenario.faults = assorted(seed);
        let (one, same) = (holds(&scenario), holds(&scenario));
        assert_eq!(one.hash, same.hash, "seed {seed}");
        assert_eq!(one.trace, same.trace, "seed {seed}");
    }
}

/// Some faults of every kind.
fn assorted(seed: u64) -> Vec<Fault> {
    let worker = (seed % 3) as u32;
    let other = (worker + 1) % 3;
    let at_ms = 20_000 + seed * 3_100;
    vec![
        Fault::Net {
            worker: seed.is_multiple_of(2).then_some(worker),
            at_ms,
            for_ms: 40_000,
            lose_request_pct: 10,
            lose_reply_pct: 15,
            duplicate_pct: 10,
            delay_pct: 20,
            delay_ms: 4_000,
        },
        Fault::Crash {
            worker: other,
            at_ms: at_ms + 60_000,
            back_ms: Some(3_000 + seed * 500),
        },
        Fault::CrashAt {
            worker,
            point: POINTS[seed as usize % POINTS.len()].to_owned(),
            nth: 3,
            back_ms: 500,
        },
        Fault::Partition {
            worker,
            at_ms: at_ms + 100_000,
            for_ms: 9_000 + seed * 400,
            direction: [Direction::Both, Direction::ToStore, Direction::FromStore]
                [seed as usize % 3],
            hold: seed.is_multiple_of(4),
        },
        Fault::Store {
            at_ms: at_ms + 150_000,
            for_ms: 8_000,
            trouble: [
                StoreTrouble::Refuses,
                StoreTrouble::Hangs,
                StoreTrouble::SlowMs(800),
                StoreTrouble::ErrorsPct(50),
            ][seed as usize % 4],
        },
        Fault::StoreRestart {
            at_ms: at_ms + 180_000,
            for_ms: 2_000,
        },
        Fault::StoreClockJump {
            at_ms: at_ms + 200_000,
            by_ms: if seed.is_multiple_of(2) {
                12_000
            } else {
                -5_000
            },
        },
        Fault::Deaf {
            worker: other,
            at_ms: at_ms + 10_000,
            for_ms: 30_000,
            silent: seed % 2 == 1,
        },
        Fault::Announcements {
            at_ms: at_ms + 50_000,
            for_ms: 60_000,
            lose_pct: 40,
            double_pct: 30,
        },
        Fault::Restart {
            worker: other,
            at_ms: at_ms + 230_000,
            back_ms: Some(1_500),
            knobs: Some(Knobs {
                jobs_max: 3,
                jobs_min: 1,
                poll_only: true,
                ..knobs()
            }),
        },
    ]
}

/// Jobs that pass every fault point, and a crash of each worker at this one.
fn passing(point: &str) -> Scenario {
    let mut scenario = empty(7);
    for key in 0..20 {
        let at_ms = 1_500 + u64::from(key) * 4_000;
        let mut job = job(key, at_ms, vec![run(1_500, EndSpec::CompleteTx)]);
        if key % 2 == 1 {
            // Long enough for a heartbeat and a shutdown.
            job.runs = vec![run(15_000, EndSpec::Complete)];
            job.runs[0].on_stop = OnStop::Ignore;
        }
        job.by = Some(key % 3);
        scenario.jobs.push(job);
    }
    for worker in 0..3 {
        scenario.faults.push(Fault::CrashAt {
            worker,
            point: point.to_owned(),
            nth: 1 + worker,
            back_ms: 2_000,
        });
    }
    if point == "before_release" {
        for worker in 0..3 {
            scenario.faults.push(Fault::Restart {
                worker,
                at_ms: 40_000 + u64::from(worker) * 5_000,
                back_ms: Some(1_000),
                knobs: None,
            });
        }
        for fault in &mut scenario.faults {
            if let Fault::CrashAt { nth, .. } = fault {
                *nth = 1;
            }
        }
    }
    scenario
}

#[test]
fn a_crash_at_any_fault_point_is_recovered_from() {
    for point in POINTS {
        let report = holds(&passing(point));
        let crash = Point::crash_at(point).unwrap();
        assert!(report.coverage.count(crash) > 0, "{point}");
        assert!(count(&report, Kind::Crashed) > 0, "{point}");
    }
}

#[test]
fn a_lost_reply_to_a_claim_is_asked_for_again() {
    let mut scenario = busy(3);
    scenario.faults.push(Fault::Net {
        worker: None,
        at_ms: 1_000,
        for_ms: 200_000,
        lose_request_pct: 0,
        lose_reply_pct: 40,
        duplicate_pct: 20,
        delay_pct: 20,
        delay_ms: 2_000,
    });
    let report = holds(&scenario);
    for point in [
        Point::ClaimReplyLost,
        Point::RepeatFindsItsJobs,
        Point::FinishRepeated,
        Point::Unanswered,
    ] {
        assert!(report.coverage.count(point) > 0, "{point}");
    }
}

/// One job that completes in a transaction, to whose commit this happens.
fn commit(effect: MessageEffect, shutdown_timeout_ms: u64) -> Scenario {
    let mut scenario = empty(5);
    scenario.workers.truncate(1);
    scenario.workers[0].knobs.shutdown_timeout_ms = shutdown_timeout_ms;
    let runs = vec![run(100, EndSpec::CompleteTx); 2];
    scenario.jobs.push(job(0, 5_000, runs));
    // The calls of a runner: it takes its row, the finish in the transaction, the commit.
    scenario.faults.push(Fault::Message {
        worker: 0,
        incarnation: 1,
        op: RUNNER_OPS + 3,
        effect,
    });
    scenario
}

#[test]
fn a_run_whose_commit_is_not_answered_is_found_to_be_over_by_a_heartbeat() {
    let report = holds(&commit(MessageEffect::LoseReply, 2_000));
    assert_eq!(report.coverage.count(Point::CommitUnknown), 1);
    assert_eq!(report.coverage.count(Point::StaleHeartbeat), 1);
    assert_eq!(count(&report, Kind::Aborted), 1);
    assert_eq!(count(&report, Kind::Committed), 1);
}

#[test]
fn a_commit_that_is_given_up_counts_once_all_the_same() {
    let report = holds(&commit(MessageEffect::LoseReply, 60_000));
    assert_eq!(report.coverage.count(Point::CommitUnknown), 1);
    assert_eq!(count(&report, Kind::Aborted), 0);
    assert_eq!(count(&report, Kind::Ended), 1);
    assert_eq!(count(&report, Kind::Committed), 1);
}

#[test]
fn a_run_whose_commit_never_arrives_is_tried_again() {
    let scenario = commit(MessageEffect::LoseRequest, 60_000);
    let report = holds(&scenario);
    assert_eq!(count(&report, Kind::Ended), 2);
    assert_eq!(count(&report, Kind::Committed), 1);
    let report = with(Bug::UnknownCommitIsSettled, || {
        paused::run(&scenario, Keep::default())
    });
    assert_eq!(report.violation.expect("it is found").check, "ends.settled");
}

#[test]
fn a_shutdown_lets_runners_end_aborts_the_others_and_puts_their_jobs_back() {
    let mut scenario = empty(9);
    for (key, on_stop) in [OnStop::Yield, OnStop::Fail, OnStop::Ignore]
        .into_iter()
        .enumerate()
    {
        let mut job = job(key as u32, 5_000, vec![run(60_000, EndSpec::Complete)]);
        job.runs[0].on_stop = on_stop;
        scenario.jobs.push(job);
    }
    for worker in 0..3 {
        scenario.faults.push(Fault::Restart {
            worker,
            at_ms: 20_000,
            back_ms: Some(4_000),
            knobs: None,
        });
    }
    let report = holds(&scenario);
    for point in [Point::ShutdownAtWork, Point::RunnerAborted, Point::Released] {
        assert!(report.coverage.count(point) > 0, "{point}");
    }
    assert_eq!(report.coverage.count(Point::LeaseLost), 0);
    assert_eq!(count(&report, Kind::Stopped), 3);
}

/// Runs that go on beyond their leases, cut off from the store.
fn cut_off() -> Scenario {
    let mut scenario = empty(11);
    for key in 0..6 {
        let mut job = job(key, 5_000, vec![run(40_000, EndSpec::CompleteTx)]);
        job.runs[0].on_stop = OnStop::Ignore;
        job.runs[0].checkpoint_ms = Some(39_000);
        scenario.jobs.push(job);
    }
    for worker in 0..2 {
        scenario.faults.push(Fault::Partition {
            worker,
            at_ms: 15_000,
            for_ms: 28_000,
            direction: Direction::Both,
            hold: worker == 0,
        });
    }
    for worker in &mut scenario.workers {
        worker.knobs.shutdown_timeout_ms = 30_000;
    }
    scenario
}

#[test]
fn a_partition_beyond_the_lease_costs_the_run_and_its_transaction() {
    let report = holds(&cut_off());
    for point in [
        Point::LeaseLost,
        Point::ToldByItsWorker,
        Point::RunsOverlap,
        Point::StaleHeartbeat,
        Point::TransactionRefused,
        Point::KnowsItIsDeaf,
    ] {
        assert!(report.coverage.count(point) > 0, "{point}");
    }
}

#[test]
fn a_service_that_hides_a_lost_lease_from_a_runner_is_found_out() {
    for (bug, check) in [
        (Bug::CommitWithStaleLease, "effects.unfenced"),
        (Bug::StaleCheckpointHidden, "data.told"),
    ] {
        let report = with(bug, || paused::run(&cut_off(), Keep::default()));
        let violation = report.violation.expect("the bug is found");
        assert_eq!(violation.check, check);
    }
}

#[test]
fn a_job_that_kills_its_process_is_given_up() {
    let mut scenario = empty(13);
    scenario.jobs.push(job(
        0,
        5_000,
        (0..9).map(|_| run(100, EndSpec::Kill)).collect(),
    ));
    scenario
        .jobs
        .push(job(1, 4_000, vec![run(300_000, EndSpec::Complete)]));
    let report = holds(&scenario);
    assert_eq!(report.coverage.count(Point::Abandoned), 1);
    assert_eq!(report.coverage.count(Point::CrashAtWork), 4);
}

#[test]
fn generated_scenarios_hold_and_repeat() {
    for seed in 0..25 {
        let scenario = generate(Profile::PAUSED, seed);
        let [one, same] = [(); 2].map(|()| paused::run(&scenario, Keep::default()));
        assert_eq!(one.violation, None, "seed {seed}");
        assert_eq!(one.hash, same.hash, "seed {seed}");
    }
}
