//! Runners that sleep on the clock of the service.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use job::testing::TestJobs;
use job::{CurrentJob, JobCompletion, JobId, JobPollerConfig, JobState, Memory};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::{DAY, HOUR, Log, panic_of};
use crate::support::{TestBackend, TestInitializer, history};

const MINUTE: Duration = Duration::from_secs(60);

on_every_backend![
    a_run_that_sleeps_for_longer_than_its_lease_keeps_it,
    a_runner_that_still_sleeps_in_the_end_goes_on_in_a_later_call,
    other_jobs_run_while_a_runner_sleeps,
    a_call_that_is_given_up_on_loses_those_who_sleep,
    a_runner_that_slept_away_its_lease_is_told,
];

/// Sleeps for as many minutes as its config says.
fn sleeping<B: TestBackend>() -> TestInitializer<B> {
    TestInitializer::new(
        "sleeping",
        |job: CurrentJob<B>, minutes: Value| async move {
            let minutes = minutes.as_u64().ok_or("not a number")?;
            job.clock().sleep(MINUTE * minutes as u32).await;
            Ok(JobCompletion::Complete)
        },
    )
}

/// A service of which a lease lasts five minutes.
async fn open_with_leases<B: TestBackend>(place: &B::Place) -> TestJobs<B> {
    let config = B::on(place).poller_config(JobPollerConfig {
        job_lost_interval: 5 * MINUTE,
        shutdown_timeout: MINUTE,
        ..JobPollerConfig::default()
    });
    TestJobs::open(config).await.unwrap()
}

async fn a_run_that_sleeps_for_longer_than_its_lease_keeps_it<B: TestBackend>() {
    let place = B::place().await;
    let mut test = open_with_leases::<B>(&place).await;
    let spawner = test.add_initializer(sleeping());
    let (id, start) = (JobId::new(), test.now());
    spawner.spawn(id, json!(60)).await.unwrap();
    assert_eq!(test.advance(2 * HOUR).await, 1);
    assert_eq!(test.now(), start + TimeDelta::hours(2));
    let seen = test.seen().await;
    let job = seen.assert_completed(id);
    assert_eq!(history(job), ["spawned", "started", "completed"]);
    assert_eq!(job.events()[2].at, start + TimeDelta::hours(1));
}

async fn a_runner_that_still_sleeps_in_the_end_goes_on_in_a_later_call<B: TestBackend>() {
    let place = B::place().await;
    let mut test = open_with_leases::<B>(&place).await;
    let spawner = test.add_initializer(sleeping());
    let (id, other) = (JobId::new(), JobId::new());
    spawner.spawn(id, json!(60)).await.unwrap();
    assert_eq!(test.advance(HOUR / 2).await, 0);
    let state = test.jobs().find(id).await.unwrap().state();
    assert_eq!(state, JobState::Running);

    // What does not move the clock lets it sleep.
    assert_eq!(test.drain().await, 0);
    spawner.spawn(other, json!(0)).await.unwrap();
    assert!(test.run_one().await);
    assert!(!test.run_one().await);
    test.seen().await.assert_completed(other);

    assert_eq!(test.advance(HOUR / 2 - MINUTE).await, 0);
    test.clock().advance(MINUTE).await;
    assert_eq!(test.drain().await, 1);
    let seen = test.seen().await;
    let job = seen.assert_completed(id);
    assert_eq!(history(job), ["spawned", "started", "completed"]);
}

async fn other_jobs_run_while_a_runner_sleeps<B: TestBackend>() {
    let place = B::place().await;
    let mut test = open_with_leases::<B>(&place).await;
    let log = Log::default();
    let child = test.add_initializer(log.initializer("child"));
    let child = Arc::new(child);
    let (jobs, spawner) = (test.jobs().clone(), Arc::clone(&child));
    // It looks once a minute whether the job has ended that it spawned.
    let parent = move |job: CurrentJob<B>, due_in: Value| {
        let (jobs, spawner) = (jobs.clone(), Arc::clone(&spawner));
        async move {
            let (id, minutes) = (JobId::new(), due_in.as_i64().ok_or("not a number")?);
            let due_at = job.clock().now() + TimeDelta::minutes(minutes);
            let spawned = spawner.spawn_at(id, due_in, due_at).await;
            spawned.map_err(|error| error.to_string())?;
            while !jobs.find(id).await.unwrap().completed() {
                job.clock().sleep(MINUTE).await;
            }
            Ok(JobCompletion::Complete)
        }
    };
    let parents = test.add_initializer(TestInitializer::new("parent", parent));
    let start = test.now();
    for minutes in [20, 10] {
        parents.spawn(JobId::new(), json!(minutes)).await.unwrap();
    }
    assert_eq!(test.advance(HOUR).await, 4);
    assert_eq!(log.entries(), [json!(10), json!(20)]);
    for minutes in [10, 20] {
        let seen = test.seen().await;
        let child = seen.assert_spawned(&child, &json!(minutes));
        let parent = seen.assert_spawned(&parents, &json!(minutes));
        let (begun, ended) = (child.events()[1].at, parent.events()[2].at);
        assert_eq!(begun, start + TimeDelta::minutes(minutes));
        assert!(ended - begun <= TimeDelta::minutes(1), "{ended}");
    }
}

/// As if the process had died while they slept.
async fn a_call_that_is_given_up_on_loses_those_who_sleep<B: TestBackend>() {
    let place = B::place().await;
    let mut test = open_with_leases::<B>(&place).await;
    let begun = Arc::new(Notify::new());
    let begins = Arc::clone(&begun);
    let work = move |_, _| {
        let begins = Arc::clone(&begins);
        async move {
            begins.notify_one();
            Ok(JobCompletion::Complete)
        }
    };
    let sleepers = test.add_initializer(sleeping());
    let telling = test.add_initializer(TestInitializer::new("telling", work));
    let (id, start) = (JobId::new(), test.now());
    sleepers.spawn(id, json!(60)).await.unwrap();
    let due_at = start + TimeDelta::minutes(10);
    telling
        .spawn_at(JobId::new(), Value::Null, due_at)
        .await
        .unwrap();
    tokio::select! {
        _ = test.advance(HOUR) => panic!("an hour is long"),
        () = begun.notified() => {}
    }
    assert_eq!(test.now(), due_at);
    test.advance(DAY).await;
    let seen = test.seen().await;
    let job = seen.assert_completed(id);
    let all = ["spawned", "started", "lease lost", "started", "completed"];
    assert_eq!(history(job), all);
}

/// The test moves the clock while no worker can keep a lease, and another takes the job.
async fn a_runner_that_slept_away_its_lease_is_told<B: TestBackend>() {
    let place = B::place().await;
    let mut test = open_with_leases::<B>(&place).await;
    let log = Log::default();
    let told = log.clone();
    let work = move |mut job: CurrentJob<B>, _| {
        let log = told.clone();
        async move {
            if job.attempt() == 1 {
                let clock = job.clock().clone();
                let stopped = clock.timeout(HOUR, job.shutdown_requested()).await;
                log.add(json!([stopped.is_ok(), job.is_lease_lost()]));
            }
            Ok(JobCompletion::Complete)
        }
    };
    let spawner = test.add_initializer(TestInitializer::new("watchful", work));
    let id = JobId::new();
    spawner.spawn(id, Value::Null).await.unwrap();
    assert_eq!(test.advance(MINUTE).await, 0);
    test.clock().advance(10 * MINUTE).await;
    assert_eq!(test.lose_one().await, Some(id));
    assert_eq!(test.drain().await, 1);
    assert_eq!(log.entries(), [json!([true, true])]);
    assert_eq!(test.advance(DAY).await, 1);
    let seen = test.seen().await;
    let job = seen.assert_completed(id);
    assert_eq!(job.attempt(), 3);
}

/// It would otherwise end at another time than it began, or be cut off.
#[tokio::test]
async fn no_time_passes_while_a_runner_awaits_real_work() {
    let mut test = TestJobs::memory().await;
    let log = Log::default();
    let times = log.clone();
    let work = move |job: CurrentJob<Memory>, limited: Value| {
        let log = times.clone();
        async move {
            let begun = job.clock().now();
            let real = tokio::time::sleep(Duration::from_millis(20));
            match limited.as_bool() {
                Some(true) => {
                    let _busy = job.clock().busy();
                    let limited = job.clock().timeout(MINUTE, real).await;
                    limited.map_err(|error| error.to_string())?;
                }
                _ => real.await,
            }
            log.add(json!((job.clock().now() - begun).num_seconds()));
            Ok(JobCompletion::Complete)
        }
    };
    let spawner = test.add_initializer(TestInitializer::new("working", work));
    for limited in [false, true] {
        spawner.spawn(JobId::new(), json!(limited)).await.unwrap();
    }
    let clock = test.jobs().clock().clone();
    let ticking = tokio::spawn(async move {
        for _ in 0..24 {
            clock.sleep(HOUR).await;
        }
    });
    assert_eq!(test.advance(DAY).await, 2);
    assert_eq!(log.entries(), [json!(0), json!(0)]);
    ticking.await.unwrap();
}

#[tokio::test]
async fn a_runner_that_waits_for_a_task_that_sleeps_is_told_of() {
    let text = panic_of(async {
        let test = TestJobs::memory().await;
        let mut test = test.with_patience(Duration::from_millis(20));
        let work = |job: CurrentJob<Memory>, _| async move {
            let sleep = job.clock().sleep(HOUR);
            tokio::spawn(sleep)
                .await
                .map_err(|error| error.to_string())?;
            Ok(JobCompletion::Complete)
        };
        let spawner = test.add_initializer(TestInitializer::new("joining", work));
        spawner.spawn(JobId::new(), Value::Null).await.unwrap();
        test.advance(DAY).await;
    })
    .await;
    for part in [
        "type joining has not ended after 20ms",
        "If it waits for a task that does, move the clock meanwhile",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

/// A runner that is never to sleep less than its time, whatever else goes on.
#[tokio::test]
async fn a_runner_that_works_and_sleeps_in_turns_sees_exact_times() {
    let mut test = TestJobs::memory().await;
    let log = Log::default();
    let times = log.clone();
    let work = move |mut job: CurrentJob<Memory>, every: Value| {
        let log = times.clone();
        async move {
            let every = every.as_u64().ok_or("not a number")?;
            let start = job.clock().now();
            for n in 1..=10 {
                job.clock().sleep(MINUTE * every as u32).await;
                let kept = job.update_execution_state(n).await;
                kept.map_err(|error| error.to_string())?;
                let passed = job.clock().now() - start;
                assert_eq!(passed.num_minutes(), n * every as i64);
            }
            log.add(json!(every));
            Ok(JobCompletion::Complete)
        }
    };
    let spawner = test.add_initializer(TestInitializer::new("turns", work));
    for every in [7, 3, 5] {
        spawner.spawn(JobId::new(), json!(every)).await.unwrap();
    }
    assert_eq!(test.advance(DAY).await, 3);
    assert_eq!(log.entries(), [json!(3), json!(5), json!(7)]);
}
