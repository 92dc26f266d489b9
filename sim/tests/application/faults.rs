//! What can go wrong, one by one.

use std::sync::{Arc, Mutex};

use chrono::TimeDelta;
use job::{JobCompletion, JobId};
use job_sim::scenario::{Direction, Fault};
use job_sim::{Sim, Simulation};

use super::support::{Counts, Orders, scenario, seconds};

type Log = Arc<Mutex<Vec<String>>>;

fn log(log: &Log, text: impl Into<String>) {
    log.lock().unwrap().push(text.into());
}

/// Spawns one job that begins to call a service after a second of work, and completes
/// whatever comes of the call. Returns what happened, in order.
fn what_happens(workers: u32, faults: Vec<Fault>) -> Vec<String> {
    let happened = Log::default();
    let test = |sim: Sim| {
        let happened = happened.clone();
        async move {
            let (of_runner, begin) = (happened.clone(), sim.now());
            let service = sim.clone();
            let orders = Orders::new(move |_, job| {
                let (sim, happened) = (service.clone(), of_runner.clone());
                async move {
                    let at = (sim.now() - begin).num_seconds();
                    log(&happened, format!("run {} at {at} s", job.attempt()));
                    sim.advance(seconds(1)).await;
                    let served = happened.clone();
                    let reply = sim.call("it", move || log(&served, "served")).await;
                    let at = (sim.now() - begin).num_seconds();
                    log(&happened, format!("ok {} at {at} s", reply.is_ok()));
                    Ok(JobCompletion::Complete)
                }
            });
            let spawner = orders.start(&sim).await;
            spawner.spawn(JobId::new(), 0).await.unwrap();
            sim.settle().await;
        }
    };
    let scenario = scenario(workers, faults);
    Simulation::new().scenario(scenario).run(test);
    let happened = happened.lock().unwrap();
    happened.clone()
}

#[test]
fn a_service_answers_where_nothing_goes_wrong() {
    let expected = ["run 1 at 0 s", "served", "ok true at 1 s"];
    assert_eq!(what_happens(1, Vec::new()), expected);
}

#[test]
fn a_process_that_crashes_does_nothing_more_and_its_job_is_run_again() {
    let crash = Fault::Crash {
        worker: 0,
        at_ms: 500,
        back_ms: Some(1_000),
    };
    let happened = what_happens(1, vec![crash]);
    assert_eq!(happened[0], "run 1 at 0 s");
    assert!(happened[1].starts_with("run 2 at "), "{happened:?}");
    assert_eq!(happened[2], "served", "{happened:?}");
    assert_eq!(happened.len(), 4);
}

#[test]
fn a_lost_reply_is_of_a_call_that_was_served_and_a_lost_request_of_none() {
    let partition = |direction| Fault::Partition {
        worker: 0,
        at_ms: 500,
        for_ms: 2_000,
        direction,
        hold: false,
    };
    let lost_reply = what_happens(1, vec![partition(Direction::FromStore)]);
    assert_eq!(lost_reply, ["run 1 at 0 s", "served", "ok false at 11 s"]);
    let lost_request = what_happens(1, vec![partition(Direction::ToStore)]);
    assert_eq!(lost_request, ["run 1 at 0 s", "ok false at 11 s"]);
}

#[test]
fn a_process_that_stands_still_goes_on_unaware_while_another_runs_its_job() {
    let pause = |worker| Fault::Pause {
        worker,
        at_ms: 500,
        for_ms: 100_000,
    };
    // Whichever of the two has the job.
    let happened: Vec<Vec<String>> = (0..2)
        .map(|worker| what_happens(2, vec![pause(worker)]))
        .collect();
    let stopped = happened.iter().find(|happened| happened.len() > 3);
    let stopped = stopped.expect("one of the two had the job");
    assert_eq!(stopped[0], "run 1 at 0 s");
    assert!(stopped[1].starts_with("run 2 at "), "{stopped:?}");
    assert_eq!(stopped[3].split(" at").next(), Some("ok true"));
    // It slept for a second, by its own account.
    assert!(stopped[4..].contains(&"served".to_owned()), "{stopped:?}");
    assert!(stopped.last().unwrap().ends_with("at 100 s"), "{stopped:?}");
}

#[test]
fn clocks_of_workers_can_be_wrong() {
    let mut scenario = scenario(1, Vec::new());
    scenario.workers[0].clock_ahead_ms = -90_000;
    Simulation::new().scenario(scenario).run(|sim| async move {
        let runs = Counts::default();
        let (of_runner, service) = (runs.clone(), sim.clone());
        let orders = Orders::new(move |order, job| {
            let behind = service.now() - job.clock().now();
            assert_eq!(behind, TimeDelta::seconds(90));
            of_runner.add(order);
            async { Ok(JobCompletion::Complete) }
        });
        let spawner = orders.start(&sim).await;
        spawner.spawn(JobId::new(), 3).await.unwrap();
        sim.settle().await;
        assert_eq!(runs.of(3), 1);
    });
}
