//! Tests of applications that fail, and what is said then.

use std::sync::atomic::{AtomicU64, Ordering};

use job::{JobCompletion, JobId};
use job_sim::{Failure, Sim, Simulation};

use super::support::{Counts, Orders, seconds};

#[track_caller]
fn says(failure: &Failure, expected: &[&str]) {
    let text = failure.to_string();
    for expected in expected {
        assert!(text.contains(expected), "{text}\ndoes not say {expected:?}");
    }
}

/// Counts each order outside of any transaction: an order whose process crashes, or loses
/// its lease, is counted again.
async fn each_order_is_counted_once(sim: Sim) {
    let counts = Counts::default();
    let of_runner = counts.clone();
    let orders = Orders::new(move |order, job| {
        let counts = of_runner.clone();
        async move {
            job.clock().sleep(seconds(2)).await;
            counts.add(order);
            Ok(JobCompletion::Complete)
        }
    });
    let spawner = orders.start(&sim).await;
    for order in sim.inputs(10) {
        spawner.spawn(JobId::new(), order).await.unwrap();
    }
    sim.settle().await;
    for order in sim.inputs(10) {
        assert_eq!(counts.of(order), 1, "order {order}");
    }
}

#[test]
fn what_is_done_outside_of_the_transaction_is_found_to_be_done_twice() {
    let simulation = Simulation::new().seeds(0..100);
    let failure = simulation.check(each_order_is_counted_once).unwrap_err();
    let scenario = failure.scenario();
    assert!(scenario.faults.len() <= 2, "{:?}", scenario.faults);
    assert!(scenario.left_out.len() >= 8, "{:?}", scenario.left_out);
    says(
        &failure,
        &[
            "application/failures.rs",
            "order ",
            "JOB_SIM_SEEDS=",
            "of order at attempt 2",
            "cargo test application::failures::what_is_done_outside",
        ],
    );
}

#[test]
fn a_failure_can_be_kept_as_a_scenario() {
    let simulation = Simulation::new().seeds(0..100);
    let failure = simulation.check(each_order_is_counted_once).unwrap_err();
    let text = failure.to_string();
    let json = text.split("r#\"").nth(1).unwrap().split("\"#").next();
    let scenario = json.unwrap();
    // As it is printed, but for what only whoever keeps it knows, and for what it returns.
    let again = job_sim::Simulation::new()
        .scenario(scenario.parse().unwrap())
        .check(each_order_is_counted_once);
    assert_eq!(again.unwrap_err().violation(), failure.violation());
    says(
        &failure,
        &[
            "\n    job_sim::Simulation::new()\n        .scenario(scenario.parse().unwrap())\n        \
             .run(/* the function or closure that this simulation runs in \
             application::failures::a_failure_can_be_kept_as_a_scenario */);\n",
        ],
    );
    // The seed alone leads there, too.
    let seed = failure.seed();
    let by_seed = Simulation::new().seeds(seed..seed + 1);
    let by_seed = by_seed.check(each_order_is_counted_once).unwrap_err();
    assert_eq!(by_seed.to_string(), text);
}

#[test]
fn a_test_that_fails_in_peace_is_said_to() {
    let test = |sim: Sim| async move {
        let orders = Orders::new(|_, _| async { Ok(JobCompletion::Complete) });
        orders.start(&sim).await;
        assert_eq!(1 + 1, 3, "sums");
    };
    let failure = Simulation::new().seeds(3..9).check(test).unwrap_err();
    assert_eq!(failure.seed(), 3);
    says(&failure, &["sums", "Nothing went wrong with any worker"]);
}

#[test]
fn a_runner_that_panics_fails_the_test_with_the_place() {
    let test = |sim: Sim| async move {
        let orders = Orders::new(|order, _| async move {
            assert_ne!(order, 4, "no order has this number");
            Ok(JobCompletion::Complete)
        });
        let spawner = orders.start(&sim).await;
        for order in sim.inputs(10) {
            spawner.spawn(JobId::new(), order).await.unwrap();
        }
        sim.settle().await;
    };
    let failure = Simulation::new().seeds(0..1).check(test).unwrap_err();
    let check = &failure.violation().check;
    assert!(check.starts_with("a panic at "), "{check}");
    says(
        &failure,
        &["no order has this number", "application/failures.rs"],
    );
    assert_eq!(failure.scenario().left_out.len(), 9);
}

#[test]
fn a_job_that_never_ends_is_named() {
    let test = |sim: Sim| async move {
        let orders = Orders::new(|order, _| async move {
            if order == 2 {
                std::future::pending::<()>().await;
            }
            Ok(JobCompletion::Complete)
        });
        let spawner = orders.start(&sim).await;
        for order in sim.inputs(3) {
            spawner.spawn(JobId::new(), order).await.unwrap();
        }
        sim.settle().await;
    };
    let failure = Simulation::new().seeds(0..1).check(test).unwrap_err();
    says(
        &failure,
        &[
            "all jobs end",
            "of type order (Running, attempt 1)",
            "application/failures.rs",
        ],
    );
}

#[test]
fn a_test_that_waits_for_ever_is_ended() {
    let test = |_: Sim| async { std::future::pending().await };
    let failure = Simulation::new().seeds(0..1).check(test).unwrap_err();
    says(&failure, &["the test still waits"]);
}

#[test]
fn whoever_depends_on_chance_is_named() {
    static SHARED: AtomicU64 = AtomicU64::new(0);
    let test = |sim: Sim| async move {
        let service = sim.clone();
        let orders = Orders::new(move |order, job| {
            let sim = service.clone();
            async move {
                if order == 6 {
                    let chance = SHARED.fetch_add(1, Ordering::Relaxed);
                    sim.advance(std::time::Duration::from_millis(chance * 10))
                        .await;
                }
                let _ = job;
                Ok(JobCompletion::Complete)
            }
        });
        let spawner = orders.start(&sim).await;
        for order in sim.inputs(8) {
            spawner.spawn(JobId::new(), order).await.unwrap();
        }
        sim.settle().await;
    };
    let failure = Simulation::new().seeds(0..1).check(test).unwrap_err();
    assert_eq!(failure.violation().check, "determinism");
    says(
        &failure,
        &[
            "differ first in event",
            "the runner that w",
            "starts run 7#1 of order",
        ],
    );
}
