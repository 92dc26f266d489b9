//! What a test can rely on: who is at work, who answers, what is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use job::{JobCompletion, JobId};
use job_sim::scenario::{Direction, Fault, StoreTrouble};
use job_sim::{Sim, SimulatedTable, Simulation};

use super::support::{Counts, Orders, scenario, seconds};

fn at_once() -> Orders {
    Orders::new(|_, _| async { Ok(JobCompletion::Complete) })
}

#[test]
fn settle_waits_for_a_process_that_lost_its_lease_and_does_not_know() {
    let most = AtomicU32::new(0);
    for worker in 0..2 {
        let test = |sim: Sim| {
            let most = &most;
            async move {
                let (charges, service) = (Counts::default(), sim.clone());
                let of_runner = charges.clone();
                let orders = Orders::new(move |_, _| {
                    let (sim, charges) = (service.clone(), of_runner.clone());
                    async move {
                        sim.advance(seconds(1)).await;
                        let _ = sim.call("charge", move || charges.add(0)).await;
                        Ok(JobCompletion::Complete)
                    }
                });
                let spawner = orders.start(&sim).await;
                spawner.spawn(JobId::new(), 1).await.unwrap();
                sim.settle().await;
                let settled = charges.of(0);
                sim.advance(seconds(3_600)).await;
                assert_eq!(charges.of(0), settled);
                most.fetch_max(settled, Ordering::Relaxed);
            }
        };
        let pause = Fault::Pause {
            worker,
            at_ms: 500,
            for_ms: 10_000_000,
        };
        Simulation::new()
            .scenario(scenario(2, vec![pause]))
            .run(test);
    }
    assert_eq!(
        most.into_inner(),
        2,
        "one of the two had the job, and woke in the calm"
    );
}

#[test]
fn a_slow_database_slows_no_other_service() {
    let slow = Fault::Store {
        at_ms: 800,
        for_ms: 60_000,
        trouble: StoreTrouble::SlowMs(12_000),
    };
    let test = |sim: Sim| async move {
        let service = sim.clone();
        let orders = Orders::new(move |_, _| {
            let sim = service.clone();
            async move {
                sim.advance(seconds(1)).await;
                let before = sim.now();
                sim.call("it", || ()).await.unwrap();
                assert!(sim.now() - before < chrono::TimeDelta::seconds(1));
                Ok(JobCompletion::Complete)
            }
        });
        let spawner = orders.start(&sim).await;
        spawner.spawn(JobId::new(), 1).await.unwrap();
        sim.settle().await;
    };
    Simulation::new()
        .scenario(scenario(1, vec![slow]))
        .run(test);
}

#[test]
fn a_panic_in_any_task_fails_the_test_with_its_place() {
    let in_a_task = |sim: Sim| async move {
        at_once().start(&sim).await;
        tokio::spawn(async { assert_eq!(1, 2, "in a task of the test") });
        sim.settle().await;
    };
    let in_a_service = |sim: Sim| async move {
        let service = sim.clone();
        let orders = Orders::new(move |_, _| {
            let sim = service.clone();
            async move {
                let _ = sim.call("it", || assert_eq!(1, 2, "overdrawn")).await;
                Ok(JobCompletion::Complete)
            }
        });
        let spawner = orders.start(&sim).await;
        spawner.spawn(JobId::new(), 1).await.unwrap();
        sim.settle().await;
    };
    for (failure, text) in [
        (
            Simulation::new().seeds(0..1).check(in_a_task),
            "in a task of the test",
        ),
        (
            Simulation::new().seeds(0..1).check(in_a_service),
            "overdrawn",
        ),
    ] {
        let failure = failure.unwrap_err();
        assert!(
            failure
                .violation()
                .check
                .contains("application/processes.rs"),
            "{failure}"
        );
        assert!(failure.violation().text.contains(text), "{failure}");
    }
}

#[test]
fn an_error_that_speaks_of_panics_is_an_error_like_any_other() {
    Simulation::new().seeds(0..5).run(|sim| async move {
        let orders = Orders::new(|_, job| async move {
            match job.attempt() {
                1 => Err("HTTP 500: the runner panicked: upstream".into()),
                _ => Ok(JobCompletion::Complete),
            }
        });
        let spawner = orders.start(&sim).await;
        spawner.spawn(JobId::new(), 1).await.unwrap();
        sim.settle().await;
    });
}

#[test]
fn a_call_in_a_task_of_a_runner_is_refused() {
    let test = |sim: Sim| async move {
        let service = sim.clone();
        let orders = Orders::new(move |_, _| {
            let sim = service.clone();
            async move {
                let mut tasks = tokio::task::JoinSet::new();
                tasks.spawn(async move { sim.call("it", || ()).await });
                tasks.join_next().await;
                Ok(JobCompletion::Complete)
            }
        });
        let spawner = orders.start(&sim).await;
        spawner.spawn(JobId::new(), 1).await.unwrap();
        sim.settle().await;
    };
    let failure = Simulation::new().seeds(0..1).check(test).unwrap_err();
    let text = &failure.violation().text;
    assert!(text.contains("Await it in the runner"), "{text}");
}

#[test]
fn a_job_that_reschedules_itself_for_ever_does_not_settle() {
    let test = |sim: Sim| async move {
        let orders = Orders::new(|_, _| async { Ok(JobCompletion::RescheduleIn(seconds(60))) });
        let spawner = orders.start(&sim).await;
        spawner.spawn(JobId::new(), 1).await.unwrap();
        sim.settle().await;
    };
    let simulation = Simulation::new().scenario(scenario(3, Vec::new()));
    let failure = simulation.check(test).unwrap_err();
    let text = &failure.violation().text;
    assert!(text.contains("reschedule itself for ever"), "{text}");
}

#[test]
fn a_test_that_waits_for_ever_is_ended_with_workers_too() {
    let test = |sim: Sim| async move {
        let spawner = at_once().start(&sim).await;
        spawner.spawn(JobId::new(), 1).await.unwrap();
        std::future::pending().await
    };
    let failure = Simulation::new().seeds(0..1).check(test).unwrap_err();
    let text = failure.to_string();
    assert!(text.contains("the test still waits"), "{text}");
    assert!(text.len() < 100_000, "a year of peace is no long story");
}

#[test]
fn a_failure_of_the_second_simulation_of_a_seed_alone_is_found() {
    let count = AtomicU32::new(0);
    let test = |sim: Sim| {
        let nth = count.fetch_add(1, Ordering::Relaxed);
        async move {
            at_once().start(&sim).await;
            sim.settle().await;
            assert_ne!(nth, 2, "the third simulation");
        }
    };
    let failure = Simulation::new().seeds(0..1).check(test).unwrap_err();
    assert_eq!(failure.violation().check, "determinism");
}

#[test]
fn nothing_keeps_a_simulation_alive_that_is_over() {
    let token = Arc::new(());
    let test = |sim: Sim| {
        let token = token.clone();
        async move {
            let (of_runner, service) = (token.clone(), sim.clone());
            let orders = Orders::new(move |_, _| {
                let (sim, token) = (service.clone(), of_runner.clone());
                async move {
                    sim.advance(seconds(1)).await;
                    drop(token);
                    Ok(JobCompletion::Complete)
                }
            });
            let spawner = orders.start(&sim).await;
            spawner.spawn(JobId::new(), 1).await.unwrap();
            sim.advance(Duration::from_millis(100)).await;
            // On its way when the test ends.
            let on_its_way = sim.clone();
            let call = sim.call("it", move || {
                on_its_way.note("served");
                drop(token);
            });
            tokio::select! { biased; _ = call => {}, () = sim.advance(Duration::ZERO) => {} }
        }
    };
    let crash = Fault::Crash {
        worker: 0,
        at_ms: 50,
        back_ms: None,
    };
    for faults in [Vec::new(), vec![crash]] {
        Simulation::new().scenario(scenario(1, faults)).run(test);
        assert_eq!(Arc::strong_count(&token), 1);
    }
}

#[test]
fn notes_are_no_events_that_spin() {
    let test = |sim: Sim| async move {
        at_once().start(&sim).await;
        (0..30_000).for_each(|number| sim.note(format!("note {number}")));
    };
    Simulation::new()
        .scenario(scenario(1, Vec::new()))
        .run(test);
}

#[test]
#[should_panic(expected = "there is no seed in 9..3")]
fn no_seeds_are_no_test() {
    #[expect(clippy::reversed_empty_ranges, reason = "swapped, as they may be")]
    let seeds = 9..3;
    Simulation::new().seeds(seeds).run(|_| async {});
}

#[test]
fn timers_of_tokio_are_exact_while_nothing_is_due() {
    Simulation::new().seeds(0..3).run(|sim| async move {
        let table = SimulatedTable::default();
        let (of_runner, service) = (table.clone(), sim.clone());
        let orders = Orders::new(move |order, _| {
            of_runner.insert((order, service.now()));
            async { Ok(JobCompletion::Complete) }
        });
        let spawner = orders.start(&sim).await;
        let begin = sim.now();
        let hour = chrono::TimeDelta::hours(1);
        spawner
            .spawn_at(JobId::new(), 5, begin + hour * 5)
            .await
            .unwrap();
        tokio::time::sleep(seconds(3 * 3_600 + 1)).await;
        assert_eq!((sim.now() - begin).num_seconds(), 3 * 3_600 + 1);
        assert_eq!(table.rows(), []);
        sim.advance(seconds(3 * 3_600)).await;
        let late = table.rows()[0].1 - (begin + hour * 5);
        assert!(late < chrono::TimeDelta::minutes(10), "{late}");
    });
}

#[test]
fn the_service_of_the_test_does_no_work() {
    let test = |sim: Sim| async move {
        at_once().start(&sim).await;
        sim.jobs().start_poll().await.unwrap();
        sim.advance(seconds(60)).await;
    };
    let failure = Simulation::new().seeds(0..1).check(test).unwrap_err();
    let text = failure.violation().to_string();
    assert!(text.contains("the service of the test polls"), "{text}");
}

#[test]
fn a_worker_that_waits_to_send_something_again_is_no_idle_one() {
    // The end of the first run is recorded, and its worker does not know.
    let lost = Fault::Partition {
        worker: 0,
        at_ms: 900,
        for_ms: 2_000,
        direction: Direction::FromStore,
        hold: false,
    };
    let restart = Fault::Restart {
        worker: 0,
        at_ms: 3_500,
        back_ms: Some(100),
        knobs: None,
    };
    let test = |sim: Sim| async move {
        let (table, service) = (SimulatedTable::default(), sim.clone());
        let of_runner = table.clone();
        let orders = Orders::new(move |order, job| {
            let (table, sim) = (of_runner.clone(), service.clone());
            async move {
                table.insert((order, sim.now()));
                job.clock().sleep(seconds(1)).await;
                Ok(JobCompletion::Complete)
            }
        });
        let spawner = orders.start(&sim).await;
        spawner.spawn(JobId::new(), 1).await.unwrap();
        let due_at = sim.now() + chrono::TimeDelta::hours(1);
        spawner.spawn_at(JobId::new(), 2, due_at).await.unwrap();
        sim.settle().await;
        let rows = table.rows();
        assert_eq!((rows.len(), rows[1].0), (2, 2), "{rows:?}");
        assert!(
            rows[1].1 - due_at < chrono::TimeDelta::seconds(1),
            "{rows:?}"
        );
    };
    let scenario = scenario(1, vec![lost, restart]);
    Simulation::new().scenario(scenario).run(test);
}
