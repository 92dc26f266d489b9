//! Level 3: the real driver in simulated hosts, over a simulated network.

use job_sim::check::coverage::{Coverage, Point};
use job_sim::cluster::{run, supports};
use job_sim::scenario::{
    Direction, Draws, DueSpec, EndSpec, Fault, Knobs, OnStop, RetrySpec, RunSpec, Scenario,
    StoreTrouble, Topic, TypeSpec, WorkerSpec,
};
use job_sim::trace::Kind;
use job_sim::{Keep, Report};

use crate::support::job;

const WORKERS: u32 = 3;

fn knobs() -> Knobs {
    Knobs {
        jobs_max: 5,
        jobs_min: 3,
        lease_ms: 5_000,
        poll_ms: 1_000,
        poll_deaf_ms: 500,
        shutdown_timeout_ms: 2_000,
        poll_only: false,
        edition: 0,
        types: Vec::new(),
    }
}

fn run_spec(work_ms: u64, end: EndSpec) -> RunSpec {
    RunSpec {
        work_ms,
        checkpoint_ms: Some(work_ms / 2),
        end,
        on_stop: OnStop::Yield,
    }
}

/// Three workers and ten jobs of all kinds for a minute, the last fifth calm.
fn scenario(seed: u64, faults: Vec<Fault>) -> Scenario {
    let retry = RetrySpec {
        attempts_max: Some(4),
        min_backoff_ms: 500,
        max_backoff_ms: 4_000,
        jitter_pct: 20,
        reset_after_multiples: 3,
        crashes_max: Some(5),
        undecodable_max_ms: 3_600_000,
    };
    let of_type = TypeSpec {
        retries: vec![retry],
    };
    let worker = |key: u32| WorkerSpec {
        key,
        start_ms: u64::from(key) * 170,
        clock_ahead_ms: i64::from(key) * 40_000 - 60_000,
        clock_drift_ppm: 0,
        knobs: knobs(),
    };
    let complete = |work_ms| run_spec(work_ms, EndSpec::Complete);
    let commit = |work_ms| run_spec(work_ms, EndSpec::CompleteTx);
    let mut jobs = vec![
        job(
            0,
            500,
            [12_000, 9_000, 4_000, 2_000, 1_000].map(commit).to_vec(),
        ),
        job(1, 700, vec![run_spec(300, EndSpec::Fail), complete(15_000)]),
        job(
            2,
            900,
            vec![run_spec(100, EndSpec::Panic), complete(20_000)],
        ),
        job(
            3,
            1_100,
            vec![
                run_spec(5_000, EndSpec::RescheduleMs(3_000)),
                complete(8_000),
            ],
        ),
        job(
            4,
            2_000,
            vec![
                run_spec(4_000, EndSpec::RescheduleTxMs(1_000)),
                commit(14_000),
            ],
        ),
        job(5, 0, Vec::new()),
        job(6, 5_000, vec![complete(25_000), complete(10_000)]),
        job(
            7,
            8_000,
            vec![run_spec(1, EndSpec::Undecodable), commit(11_000)],
        ),
        job(8, 14_000, vec![complete(16_000), complete(4_000)]),
        job(9, 21_000, vec![commit(9_000), commit(3_000)]),
    ];
    jobs[5].parent = Some(0);
    jobs[6].by = Some(2);
    jobs[8].due = DueSpec::InMs(1_500);
    jobs[8].again_ms = Some(17_000);
    Scenario {
        seed,
        horizon_ms: 60_000,
        calm_from_ms: 48_000,
        latency_us: (500, 20_000),
        types: vec![of_type.clone(), of_type],
        workers: (1..=WORKERS).map(worker).collect(),
        jobs,
        faults,
        claimed_job_ms: 0,
        left_out: Vec::new(),
    }
}

fn everything(keep: bool) -> Keep {
    Keep {
        trace: keep,
        hashes: keep,
        ..Keep::default()
    }
}

fn text_of(report: &Report) -> String {
    let entries = report.trace.entries.iter();
    let lines = entries.map(|entry| {
        let at_ms = entry.at_us as f64 / 1_000.0;
        let who = entry
            .who
            .map_or_else(|| "-".to_owned(), |who| who.to_string());
        format!("{at_ms:10.3} {who:8} {}\n", entry.text)
    });
    lines.collect()
}

/// Runs it, and wants it to be without a violation.
fn passes(scenario: &Scenario) -> Report {
    assert!(scenario.faults.iter().all(supports));
    let report = run(scenario, everything(true));
    if let Some(violation) = &report.violation {
        panic!("{}seed {}: {violation}", text_of(&report), scenario.seed);
    }
    report
}

/// The jobs that have ended, as the store says.
fn ended(report: &Report) -> Vec<u32> {
    let of_job = |key: u32| {
        let mut entries = report.trace.entries.iter();
        entries.any(|entry| {
            let run = format!("{key}#");
            let words: Vec<&str> = entry.text.split([' ', ',']).collect();
            let ends = words.windows(2).any(|pair| {
                pair[0].starts_with(&run) && ["Completed", "Errored"].contains(&pair[1])
            });
            let gave_up = entry.text.contains(&format!("gave up {run}"));
            entry.kind == Kind::Applied && (ends || gave_up) && !entry.text.contains("Stale")
        })
    };
    (0..10).filter(|key| of_job(*key)).collect()
}

fn all_end(report: &Report, seed: u64) {
    let all: Vec<u32> = (0..10).collect();
    assert_eq!(ended(report), all, "{}seed {seed}", text_of(report));
}

fn count(report: &Report, kind: Kind) -> usize {
    let entries = report.trace.entries.iter();
    entries.filter(|entry| entry.kind == kind).count()
}

#[test]
fn without_a_fault_all_jobs_end_and_no_call_goes_unanswered() {
    for seed in 1..=3 {
        let report = passes(&scenario(seed, Vec::new()));
        all_end(&report, seed);
        let coverage = &report.coverage;
        for point in [
            Point::OutlivesLease,
            Point::ChildSpawned,
            Point::IdConflict,
            Point::Panicked,
        ] {
            assert!(coverage.count(point) > 0, "seed {seed}: {point}");
        }
        for point in [
            Point::Unanswered,
            Point::StoreFailed,
            Point::LeaseLost,
            Point::KnowsItIsDeaf,
        ] {
            assert_eq!(coverage.count(point), 0, "seed {seed}: {point}");
        }
    }
}

fn partition(worker: u32, direction: Direction, hold: bool) -> Fault {
    Fault::Partition {
        worker,
        at_ms: 9_000,
        for_ms: 14_000,
        direction,
        hold,
    }
}

#[test]
fn a_worker_whose_replies_are_lost_loses_its_leases_and_comes_back() {
    for seed in 1..=3 {
        let faults = (1..=WORKERS).map(|key| partition(key, Direction::FromStore, false));
        let report = passes(&scenario(seed, faults.take(2).collect()));
        all_end(&report, seed);
        // Its requests still arrive. What it never hears is that its leases are
        // renewed.
        let coverage = &report.coverage;
        assert!(coverage.count(Point::Unanswered) > 0, "seed {seed}");
        assert!(coverage.count(Point::KnowsItIsDeaf) > 0, "seed {seed}");
        assert!(coverage.count(Point::ToldByItsWorker) > 0, "seed {seed}");
    }
}

#[test]
fn a_worker_whose_requests_are_lost_is_told_that_its_leases_are() {
    for seed in 1..=3 {
        let faults = (1..=WORKERS).map(|key| partition(key, Direction::ToStore, false));
        let report = passes(&scenario(seed, faults.take(2).collect()));
        all_end(&report, seed);
        let coverage = &report.coverage;
        for point in [
            Point::LeaseLost,
            Point::ToldByItsWorker,
            Point::StateSurvivesCrash,
        ] {
            assert!(coverage.count(point) > 0, "seed {seed}: {point}");
        }
    }
}

#[test]
fn what_was_held_back_arrives_late_and_harms_nothing() {
    let mut late = 0;
    for seed in 1..=3 {
        let faults = (1..=WORKERS).map(|key| partition(key, Direction::Both, true));
        let report = passes(&scenario(seed, faults.take(2).collect()));
        all_end(&report, seed);
        assert!(report.coverage.count(Point::LeaseLost) > 0, "seed {seed}");
        late += report.coverage.count(Point::StaleHeartbeat);
        late += report.coverage.count(Point::StaleFinish);
    }
    assert!(late > 0);
}

#[test]
fn a_crash_by_power_loss_or_not_costs_a_lease_and_no_job() {
    for seed in 1..=4 {
        let crash = |worker, at_ms| Fault::Crash {
            worker,
            at_ms,
            back_ms: Some(3_000),
        };
        let faults = vec![crash(1, 10_000), crash(2, 10_500), crash(3, 18_000)];
        let report = passes(&scenario(seed, faults));
        all_end(&report, seed);
        assert_eq!(count(&report, Kind::Crashed), 3, "seed {seed}");
        assert_eq!(count(&report, Kind::Up), 6, "seed {seed}");
        for point in [Point::CrashAtWork, Point::LeaseLost] {
            assert!(report.coverage.count(point) > 0, "seed {seed}: {point}");
        }
    }
}

#[test]
fn the_store_restarts_and_every_worker_connects_again() {
    for seed in 1..=3 {
        let restart = |at_ms, for_ms| Fault::StoreRestart { at_ms, for_ms };
        let faults = vec![restart(7_000, 500), restart(20_000, 2_000)];
        let report = passes(&scenario(seed, faults));
        all_end(&report, seed);
        let lost = report.coverage.count(Point::KnowsItIsDeaf);
        assert!(lost >= u64::from(2 * WORKERS), "seed {seed}: {lost}");
        assert!(report.coverage.count(Point::StoreFailed) > 0, "seed {seed}");
    }
}

#[test]
fn a_worker_is_restarted_and_puts_back_what_it_runs() {
    for seed in 1..=3 {
        let restart = |worker, at_ms| Fault::Restart {
            worker,
            at_ms,
            back_ms: Some(1_000),
            knobs: None,
        };
        let faults = vec![restart(1, 9_000), restart(2, 14_000), restart(3, 19_000)];
        let mut scenario = scenario(seed, faults);
        for job in &mut scenario.jobs {
            for run in &mut job.runs {
                run.on_stop = [OnStop::Ignore, OnStop::Yield, OnStop::Fail][job.key as usize % 3];
            }
        }
        let report = passes(&scenario);
        all_end(&report, seed);
        assert_eq!(count(&report, Kind::Stopped), 3, "seed {seed}");
        assert_eq!(report.coverage.count(Point::LeaseLost), 0, "seed {seed}");
        for point in [Point::ShutdownAtWork, Point::RunnerAborted, Point::Released] {
            assert!(report.coverage.count(point) > 0, "seed {seed}: {point}");
        }
    }
}

#[test]
fn a_process_dies_at_each_fault_point() {
    for point in job_tokio::fault::POINTS {
        let reached = Point::crash_at(point).expect("every point has its situation");
        let crash = |worker| Fault::CrashAt {
            worker,
            point: point.to_owned(),
            nth: 1,
            back_ms: 1_000,
        };
        let mut faults: Vec<Fault> = (1..=WORKERS).map(crash).collect();
        faults.extend((1..=WORKERS).map(|worker| Fault::Restart {
            worker,
            at_ms: 15_000,
            back_ms: Some(1_000),
            knobs: None,
        }));
        let mut scenario = scenario(7, faults);
        for job in &mut scenario.jobs {
            for run in &mut job.runs {
                run.on_stop = OnStop::Ignore;
            }
        }
        let report = passes(&scenario);
        assert!(report.coverage.count(reached) > 0, "{point}");
        all_end(&report, 7);
    }
}

#[test]
fn a_runner_that_takes_its_process_along_is_run_again() {
    let mut scenario = scenario(3, Vec::new());
    scenario.jobs[1].runs[0].end = EndSpec::Kill;
    scenario.jobs[4].runs[1].end = EndSpec::Kill;
    let report = passes(&scenario);
    all_end(&report, 3);
    assert_eq!(count(&report, Kind::Crashed), 2);
}

/// Some faults of all kinds, by seed.
fn faults_of(seed: u64) -> Vec<Fault> {
    let draws = Draws::new(seed);
    let within = |n, what, range| draws.within(Topic::Cluster, [n, what, 9], range);
    (0..within(0, 0, (2, 5)))
        .map(|n| {
            let worker = within(n, 1, (1, u64::from(WORKERS))) as u32;
            let at_ms = within(n, 2, (2_000, 35_000));
            let for_ms = within(n, 3, (500, 9_000));
            let pct = within(n, 4, (5, 60)) as u8;
            match within(n, 5, (0, 15)) {
                0 => Fault::Crash {
                    worker,
                    at_ms,
                    back_ms: Some(for_ms),
                },
                1 => Fault::Restart {
                    worker,
                    at_ms,
                    back_ms: Some(for_ms),
                    knobs: None,
                },
                kind @ 2..=5 => Fault::Partition {
                    worker,
                    at_ms,
                    for_ms,
                    direction: [Direction::Both, Direction::ToStore, Direction::FromStore]
                        [kind as usize % 3],
                    hold: kind == 5,
                },
                6 => Fault::Net {
                    worker: (pct > 30).then_some(worker),
                    at_ms,
                    for_ms,
                    lose_request_pct: pct,
                    lose_reply_pct: pct,
                    duplicate_pct: 0,
                    delay_pct: pct / 2,
                    delay_ms: 400,
                },
                7 => Fault::StoreRestart { at_ms, for_ms },
                kind @ 8..=10 => Fault::Store {
                    at_ms,
                    for_ms,
                    trouble: [
                        StoreTrouble::Hangs,
                        StoreTrouble::SlowMs(for_ms / 4),
                        StoreTrouble::ErrorsPct(pct),
                        StoreTrouble::Refuses,
                    ][(kind as usize + usize::from(pct)) % 4],
                },
                11 => Fault::Deaf {
                    worker,
                    at_ms,
                    for_ms,
                    silent: pct > 30,
                },
                12 => Fault::Announcements {
                    at_ms,
                    for_ms,
                    lose_pct: pct,
                    double_pct: pct,
                },
                13 | 14 => Fault::CrashAt {
                    worker,
                    point: job_tokio::fault::POINTS[for_ms as usize % 10].to_owned(),
                    nth: u32::from(pct % 5) + 1,
                    back_ms: for_ms / 2,
                },
                _ => Fault::StoreClockJump {
                    at_ms,
                    by_ms: for_ms as i64 * 2 - 8_000,
                },
            }
        })
        .collect()
}

/// The scenario with faults, and with other jobs and workers, by seed.
fn swarm(seed: u64) -> Scenario {
    let draws = Draws::new(seed);
    let within = |n, what, range| draws.within(Topic::Cluster, [n, what, 10], range);
    let mut scenario = scenario(seed, faults_of(seed));
    let lease_ms = [2_000, 5_000, 10_000, 40_000][within(0, 0, (0, 3)) as usize];
    scenario.latency_us.1 = [1_000, 20_000, 60_000][within(0, 1, (0, 2)) as usize];
    for worker in &mut scenario.workers {
        let n = worker.key.into();
        worker.knobs.lease_ms = lease_ms;
        worker.knobs.jobs_max = within(n, 2, (1, 6)) as u32;
        worker.knobs.jobs_min = within(n, 3, (1, worker.knobs.jobs_max.into())) as u32;
        worker.knobs.poll_only = within(n, 4, (0, 5)) == 0;
        worker.knobs.shutdown_timeout_ms = within(n, 5, (0, 3)) * 1_000;
    }
    for job in &mut scenario.jobs {
        let n = job.key.into();
        job.unique = job.parent.is_none() && within(n, 6, (0, 5)) == 0;
        for run in &mut job.runs {
            let all = [OnStop::Yield, OnStop::Fail, OnStop::Ignore, OnStop::Block];
            run.on_stop = all[within(n, 7, (0, 3)) as usize];
            match within(n, 8, (0, 15)) {
                0 => run.end = EndSpec::Kill,
                1 => run.end = EndSpec::Hang,
                2 => run.end = EndSpec::Fail,
                _ => {}
            }
        }
    }
    scenario
}

/// So many as `SEEDS` says.
fn seeds(otherwise: u64) -> std::ops::RangeInclusive<u64> {
    let seeds = std::env::var("SEEDS").ok();
    let seeds = seeds.and_then(|seeds| seeds.parse().ok());
    1..=seeds.unwrap_or(otherwise)
}

#[test]
fn a_seed_runs_the_same_twice() {
    for seed in seeds(10) {
        let scenario = swarm(seed);
        let (one, other) = (passes(&scenario), run(&scenario, everything(true)));
        if one.hash != other.hash {
            let pairs = one.hashes.iter().zip(&other.hashes);
            let place = pairs.take_while(|(one, other)| one == other).count();
            let event = |report: &Report| report.trace.entries.get(place).map(|e| e.text.clone());
            panic!(
                "seed {seed}, event {place}: {:?} or {:?}",
                event(&one),
                event(&other)
            );
        }
    }
}

#[test]
fn lost_messages_break_connections_which_are_made_anew() {
    let mut broken = 0;
    for seed in 1..=3 {
        let lossy = Fault::Net {
            worker: None,
            at_ms: 3_000,
            for_ms: 25_000,
            lose_request_pct: 20,
            lose_reply_pct: 20,
            duplicate_pct: 0,
            delay_pct: 10,
            delay_ms: 500,
        };
        let report = passes(&scenario(seed, vec![lossy]));
        all_end(&report, seed);
        broken += report.coverage.count(Point::Unanswered);
    }
    assert!(broken > 0);
}

#[test]
fn a_store_that_hangs_or_is_slow_answers_the_dead_and_the_patient() {
    for (trouble, expected) in [
        (StoreTrouble::Hangs, Point::Unanswered),
        (StoreTrouble::SlowMs(1_600), Point::LateReplyToTheDead),
        (StoreTrouble::Refuses, Point::StoreFailed),
        (StoreTrouble::ErrorsPct(50), Point::Unanswered),
    ] {
        let (at_ms, for_ms) = (8_000, 9_000);
        let store = Fault::Store {
            at_ms,
            for_ms,
            trouble,
        };
        let crash = |worker, at_ms| Fault::Crash {
            worker,
            at_ms,
            back_ms: Some(2_000),
        };
        let crashes = [crash(1, 9_000), crash(2, 9_300), crash(3, 12_000)];
        let report = passes(&scenario(5, [vec![store], crashes.to_vec()].concat()));
        all_end(&report, 5);
        assert!(report.coverage.count(expected) > 0, "{trouble:?}");
    }
}

#[test]
fn a_deaf_worker_knows_it_unless_nobody_could() {
    for silent in [false, true] {
        let deaf = Fault::Deaf {
            worker: 1,
            at_ms: 4_000,
            for_ms: 20_000,
            silent,
        };
        let report = passes(&scenario(2, vec![deaf]));
        all_end(&report, 2);
        let knows = report.coverage.count(Point::KnowsItIsDeaf) > 0;
        assert_eq!(knows, !silent);
    }
}

#[test]
fn many_seeds_with_faults_of_all_kinds_pass() {
    let mut coverage = Coverage::default();
    for seed in seeds(16) {
        let mut scenario = swarm(seed);
        if seed % 8 == 0 {
            // Long enough for the end of all jobs to be due.
            scenario.horizon_ms = 48_000 + 160_000;
        }
        assert!(scenario.faults.iter().all(supports));
        let report = run(&scenario, Keep::default());
        if let Some(violation) = report.violation {
            println!("seed {seed}: {violation}");
            passes(&scenario);
        }
        coverage.add(&report.coverage);
    }
    let missed: Vec<&str> = coverage.missed().map(Point::name).collect();
    println!("not reached: {}", missed.join(", "));
}
