//! Tests of applications that hold, and what they see.

use std::time::Duration;

use job::{JobCompletion, JobId, JobState};
use job_sim::{Sim, Simulation};

use super::support::{Counts, Orders, scenario, seconds};

const DAY: u64 = 24 * 3_600;

/// Writes each order in the transaction that it completes with, after work that takes a
/// while and fails now and then.
async fn what_is_written_with_the_end_of_a_run_is_written_once(sim: Sim) {
    let (written, of_runner) = (Counts::default(), Counts::default());
    let (in_transaction, outside) = (written.clone(), of_runner.clone());
    let orders = Orders::new(move |order, job| {
        let (in_transaction, outside) = (in_transaction.clone(), outside.clone());
        async move {
            job.clock().sleep(seconds(u64::from(order % 5))).await;
            outside.add(order);
            if outside.of(order) % 3 == 1 {
                return Err("not yet".into());
            }
            let mut transaction = job.pool().begin();
            transaction.write(move || in_transaction.add(order));
            Ok(JobCompletion::CompleteWithTx(transaction))
        }
    });
    let spawner = orders.start(&sim).await;
    for order in sim.inputs(12) {
        spawner.spawn(JobId::new(), order).await.unwrap();
        sim.advance(Duration::from_millis(sim.draw(
            "pause",
            order.into(),
            (0, 40_000),
        )))
        .await;
    }
    sim.settle().await;
    for order in sim.inputs(12) {
        assert_eq!(
            written.of(order),
            1,
            "{order}, by {} runs",
            of_runner.of(order)
        );
    }
}

#[test]
fn a_transaction_takes_effect_once_whatever_happens_to_the_workers() {
    Simulation::new()
        .seeds(0..300)
        .run(what_is_written_with_the_end_of_a_run_is_written_once);
    Simulation::new()
        .workers(5)
        .lasting(seconds(3_600))
        .seeds(0..50)
        .run(what_is_written_with_the_end_of_a_run_is_written_once);
}

#[test]
fn a_week_of_backoff_passes() {
    let test = |sim: Sim| async move {
        let runs = Counts::default();
        let of_runner = runs.clone();
        let orders = Orders::new(move |order, _| {
            let runs = of_runner.clone();
            async move {
                runs.add(order);
                match runs.of(order) {
                    9.. => Ok(JobCompletion::Complete),
                    _ => Err("the partner is away".into()),
                }
            }
        });
        let orders = orders.backoff(seconds(3_600), seconds(DAY));
        let spawner = orders.start(&sim).await;
        let begin = sim.now();
        let id = JobId::new();
        spawner.spawn(id, 7).await.unwrap();
        sim.advance(seconds(DAY)).await;
        let job = sim.jobs().find(id).await.unwrap();
        assert_eq!(job.state(), JobState::Pending);
        sim.settle().await;
        assert!(sim.now() - begin > chrono::TimeDelta::days(3));
        assert_eq!(
            sim.jobs().find(id).await.unwrap().state(),
            JobState::Completed
        );
        assert!(runs.of(7) >= 9);
    };
    let simulation = Simulation::new().lasting(seconds(7 * DAY));
    simulation.seeds(0..5).run(test);
}

#[test]
fn a_simulation_without_workers_that_were_started_is_a_test_like_any_other() {
    Simulation::new().seeds(0..3).run(|sim| async move {
        let begin = sim.now();
        sim.advance(seconds(60)).await;
        assert_eq!(sim.now() - begin, chrono::TimeDelta::seconds(60));
        sim.settle().await;
    });
}

#[test]
fn new_ids_follow_from_the_seed_and_draws_from_what_they_are_for() {
    let ids = || {
        let made = Counts::default();
        let list = std::sync::Mutex::new(Vec::new());
        let simulation = Simulation::new().scenario(scenario(1, Vec::new()));
        simulation.run(|sim| {
            list.lock().unwrap().extend([JobId::new(), JobId::new()]);
            made.add(0);
            let draws = [
                sim.draw("a", 1, (0, u64::MAX)),
                sim.draw("a", 2, (0, u64::MAX)),
                sim.draw("b", 1, (0, u64::MAX)),
                sim.draw("a", 1, (0, u64::MAX)),
            ];
            assert_eq!(draws[0], draws[3]);
            assert!(draws[0] != draws[1] && draws[0] != draws[2]);
            assert_eq!(sim.draw("a", 1, (5, 5)), 5);
            async {}
        });
        assert_eq!(made.of(0), 1, "a scenario is simulated once");
        list.into_inner().unwrap()
    };
    let first = ids();
    assert_eq!(first, ids());
    assert_ne!(first[0], first[1]);
    assert_ne!(JobId::new(), first[0], "outside of simulations ids are new");
}
