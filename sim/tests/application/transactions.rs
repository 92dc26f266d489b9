//! Transactions of applications do what those of the real stores do.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use job::{Job, JobCompletion, JobError, JobId, JobSpawner, JobState};
use job_sim::scenario::{Direction, Fault, StoreTrouble};
use job_sim::{Sim, Simulated, SimulatedTable, Simulation};
use uuid::Uuid;

use super::support::{Orders, scenario, seconds};

/// The spawner of the orders, for their own runners.
type Spawner = Arc<OnceLock<JobSpawner<u32, Simulated>>>;

/// Spawns one job after an hour of which the returned one is looked at.
async fn after_an_hour(sim: &Sim, orders: Orders, spawner: &Spawner) -> Job {
    let of_test = orders.start(sim).await;
    assert!(spawner.set(of_test.clone()).is_ok(), "it is set once");
    let id = JobId::new();
    of_test.spawn(id, 1).await.unwrap();
    sim.advance(seconds(3_600)).await;
    sim.jobs().find(id).await.unwrap()
}

#[test]
fn a_state_is_kept_in_the_transaction_that_ends_its_run() {
    let test = |sim: Sim| async move {
        let orders = Orders::new(|_, mut job| async move {
            let runs: u32 = job.execution_state()?.unwrap_or(0);
            let mut transaction = job.pool().begin();
            let next = runs + 1;
            job.update_execution_state_in_op(&mut transaction, &next)
                .await?;
            Ok(match runs {
                3.. => JobCompletion::CompleteWithTx(transaction),
                _ => JobCompletion::RescheduleInWithTx(transaction, seconds(1)),
            })
        });
        let job = after_an_hour(&sim, orders, &Spawner::default()).await;
        assert_eq!((job.state(), job.last_error()), (JobState::Completed, None));
    };
    Simulation::new()
        .scenario(scenario(1, Vec::new()))
        .run(test);
}

#[test]
fn a_duplicate_leaves_its_transaction_usable() {
    let test = |sim: Sim| async move {
        let spawner = Spawner::default();
        let of_runner = spawner.clone();
        let orders = Orders::new(move |order, job| {
            let spawner = of_runner.clone();
            async move {
                let mut transaction = job.pool().begin();
                let id = JobId::from(Uuid::from_u128(77));
                for _ in 0..2 {
                    let spawner = spawner.get().expect("it is set");
                    match spawner.spawn_in_op(&mut transaction, id, order + 1).await {
                        Ok(_) | Err(JobError::DuplicateId(_)) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Ok(JobCompletion::CompleteWithTx(transaction))
            }
        });
        let job = after_an_hour(&sim, orders, &spawner).await;
        assert_eq!((job.state(), job.last_error()), (JobState::Completed, None));
        let child = sim.jobs().find(Uuid::from_u128(77).into()).await.unwrap();
        assert_eq!(child.state(), JobState::Completed);
    };
    Simulation::new()
        .scenario(scenario(1, Vec::new()))
        .run(test);
}

#[test]
fn the_test_has_transactions_too() {
    let test = |sim: Sim| async move {
        let orders = Orders::new(|_, _| async { Ok(JobCompletion::Complete) });
        let spawner = orders.start(&sim).await;
        let rows = SimulatedTable::default();
        for (row, committed) in [(1, false), (2, true)] {
            let mut transaction = sim.jobs().pool().begin();
            rows.insert_in(&mut transaction, row);
            let id = JobId::new();
            spawner
                .spawn_in_op(&mut transaction, id, row)
                .await
                .unwrap();
            let again = spawner.spawn_in_op(&mut transaction, id, row).await;
            assert!(matches!(again, Err(JobError::DuplicateId(_))), "{again:?}");
            if committed {
                transaction.commit().await.unwrap();
            } else {
                drop(transaction);
            }
            let found = sim.jobs().find(id).await;
            assert_eq!(found.is_ok(), committed);
        }
        assert_eq!(rows.rows(), [2]);
        sim.settle().await;
    };
    Simulation::new()
        .scenario(scenario(1, Vec::new()))
        .run(test);
}

#[test]
fn a_transaction_of_which_a_statement_failed_is_over() {
    let test = |sim: Sim| async move {
        let (spawner, rows) = (Spawner::default(), SimulatedTable::default());
        let (of_runner, table, service) = (spawner.clone(), rows.clone(), sim.clone());
        let orders = Orders::new(move |order, job| {
            let (spawner, table, sim) = (of_runner.clone(), table.clone(), service.clone());
            async move {
                if order > 1 {
                    return Ok(JobCompletion::Complete);
                }
                sim.advance(seconds(1)).await;
                let mut transaction = job.pool().begin();
                table.insert_in(&mut transaction, job.attempt());
                let spawner = spawner.get().expect("it is set");
                // Whatever comes of it.
                let _ = spawner.spawn_in_op(&mut transaction, JobId::new(), 2).await;
                sim.advance(seconds(60)).await;
                Ok(JobCompletion::CompleteWithTx(transaction))
            }
        });
        let job = after_an_hour(&sim, orders, &spawner).await;
        assert_eq!(job.state(), JobState::Completed);
        assert_eq!(rows.rows(), [2], "the first attempt has written nothing");
    };
    for trouble in [StoreTrouble::Refuses, StoreTrouble::Hangs] {
        let fault = Fault::Store {
            at_ms: 800,
            for_ms: 1_000,
            trouble,
        };
        Simulation::new()
            .scenario(scenario(1, vec![fault]))
            .run(test);
    }
}

#[test]
fn a_restart_of_the_database_ends_the_transactions_that_are_open() {
    let test = |sim: Sim| async move {
        let rows = SimulatedTable::default();
        let (table, service) = (rows.clone(), sim.clone());
        let orders = Orders::new(move |_, job| {
            let (table, sim) = (table.clone(), service.clone());
            async move {
                let mut transaction = job.pool().begin();
                table.insert_in(&mut transaction, job.attempt());
                sim.advance(seconds(5)).await;
                Ok(JobCompletion::CompleteWithTx(transaction))
            }
        });
        let job = after_an_hour(&sim, orders, &Spawner::default()).await;
        assert_eq!(job.state(), JobState::Completed);
        assert_eq!(rows.rows(), [2]);
    };
    let restart = Fault::StoreRestart {
        at_ms: 2_000,
        for_ms: 500,
    };
    let scenario = scenario(1, vec![restart]);
    Simulation::new().scenario(scenario).run(test);
}

#[test]
fn a_commit_of_a_runner_that_is_not_answered_comes_to_an_end() {
    let test = |sim: Sim| async move {
        let rows = SimulatedTable::default();
        let (table, service) = (rows.clone(), sim.clone());
        let orders = Orders::new(move |_, job| {
            let (table, sim) = (table.clone(), service.clone());
            async move {
                sim.advance(seconds(1)).await;
                let mut transaction = job.pool().begin();
                table.insert_in(&mut transaction, job.attempt());
                match transaction.commit().await {
                    Ok(()) => Ok(JobCompletion::Complete),
                    Err(error) => Err(error.into()),
                }
            }
        });
        let job = after_an_hour(&sim, orders, &Spawner::default()).await;
        assert_eq!(job.state(), JobState::Completed);
        assert!(
            job.last_error()
                .is_some_and(|error| error.contains("commit"))
        );
        assert_eq!(rows.rows().last(), Some(&2));
    };
    let cut_off = Fault::Partition {
        worker: 0,
        at_ms: 900,
        for_ms: 1_000,
        direction: Direction::FromStore,
        hold: false,
    };
    let hangs = Fault::Store {
        at_ms: 900,
        for_ms: 1_000,
        trouble: StoreTrouble::Hangs,
    };
    for fault in [cut_off, hangs] {
        Simulation::new()
            .scenario(scenario(1, vec![fault]))
            .run(test);
    }
}

/// Makes a note when it is dropped.
struct Notes(Sim);

impl Drop for Notes {
    fn drop(&mut self) {
        self.0.note("dropped");
        JobId::new();
    }
}

#[test]
fn what_is_lost_of_a_transaction_may_call_back_when_it_is_dropped() {
    let test = |sim: Sim| async move {
        let service = sim.clone();
        let orders = Orders::new(move |_, job| {
            let sim = service.clone();
            async move {
                sim.advance(seconds(1)).await;
                let mut transaction = job.pool().begin();
                let notes = Notes(sim.clone());
                transaction.write(move || drop(notes));
                let notes = Notes(sim.clone());
                let _ = sim.call("it", move || notes).await;
                Ok(JobCompletion::CompleteWithTx(transaction))
            }
        });
        let spawner = orders.start(&sim).await;
        for order in 0..3 {
            spawner.spawn(JobId::new(), order).await.unwrap();
        }
        sim.settle().await;
    };
    let lost = |direction| Fault::Partition {
        worker: 0,
        at_ms: 900,
        for_ms: 3_000,
        direction,
        hold: false,
    };
    for direction in [Direction::ToStore, Direction::FromStore] {
        let scenario = scenario(1, vec![lost(direction)]);
        Simulation::new().scenario(scenario).run(test);
    }
    Simulation::new().seeds(0..100).run(test);
}

#[test]
fn a_commit_whose_reply_is_lost_counts_once() {
    let test = |sim: Sim| async move {
        let rows = SimulatedTable::default();
        let (table, service) = (rows.clone(), sim.clone());
        let orders = Orders::new(move |_, job| {
            let (table, sim) = (table.clone(), service.clone());
            async move {
                let mut transaction = job.pool().begin();
                table.insert_in(&mut transaction, job.attempt());
                sim.advance(seconds(1)).await;
                Ok(JobCompletion::CompleteWithTx(transaction))
            }
        });
        let spawner = orders.start(&sim).await;
        let id = JobId::new();
        spawner.spawn(id, 1).await.unwrap();
        sim.settle().await;
        assert_eq!(rows.rows().len(), 1, "{:?}", rows.rows());
    };
    // Replies are lost from one millisecond to the next: of the claim, of the statement
    // that ends the run, of the commit.
    let mut lost = 0;
    for at_ms in 995..1_015 {
        let fault = Fault::Partition {
            worker: 0,
            at_ms,
            for_ms: 2,
            direction: Direction::FromStore,
            hold: false,
        };
        let mut scenario = scenario(1, vec![fault]);
        scenario.latency_us = (1_000, 1_000);
        Simulation::new().scenario(scenario).run(test);
        lost += 1;
    }
    assert_eq!(lost, 20);
}

#[test]
fn nothing_of_a_crashed_process_runs_its_destructors_and_its_rows_are_free_at_once() {
    struct Guard(SimulatedTable<&'static str>);
    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.insert("dropped");
        }
    }
    let rows = SimulatedTable::default();
    let test = |sim: Sim| {
        let rows = rows.clone();
        async move {
            let (table, service) = (rows.clone(), sim.clone());
            let orders = Orders::new(move |_, job| {
                let (guard, sim) = (Guard(table.clone()), service.clone());
                async move {
                    guard.0.insert("run");
                    sim.advance(seconds(5)).await;
                    std::mem::forget(guard);
                    Ok(JobCompletion::CompleteWithTx(job.pool().begin()))
                }
            });
            let spawner = orders.start(&sim).await;
            spawner.spawn(JobId::new(), 1).await.unwrap();
            sim.advance(Duration::from_secs(120)).await;
            sim.settle().await;
            assert_eq!(rows.rows(), ["run", "run"]);
        }
    };
    let crash = Fault::Crash {
        worker: 0,
        at_ms: 500,
        back_ms: Some(100),
    };
    Simulation::new()
        .scenario(scenario(1, vec![crash]))
        .run(test);
    assert_eq!(rows.rows(), ["run", "run", "dropped"], "when all is over");
}
