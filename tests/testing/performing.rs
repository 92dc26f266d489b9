//! Runners that are performed alone, and their early ends.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::TimeDelta;
use job::testing::{Performance, TestJobs};
use job::{
    CurrentJob, JobCompletion, JobError, JobEventKind, JobId, JobPollerConfig, JobState, Memory,
};
use serde_json::{Value, json};

use super::{DAY, HOUR, Log, open, panic_of};
use crate::support::{TestBackend, TestInitializer, history};

const MINUTE: Duration = Duration::from_secs(60);

on_every_backend![
    a_shutdown_may_have_begun_before_the_runner,
    a_shutdown_begins_when_its_time_has_come,
    a_runner_that_ends_before_a_shutdown_takes_no_longer,
    a_run_whose_lease_is_lost_can_write_nothing,
    what_a_run_without_a_lease_completes_with_is_rolled_back,
    what_is_performed_leaves_its_history_behind,
];

/// A service whose shutdowns take a minute.
async fn open_with_shutdown<B: TestBackend>(place: &B::Place) -> TestJobs<B> {
    let config = B::on(place).poller_config(JobPollerConfig {
        shutdown_timeout: MINUTE,
        ..JobPollerConfig::default()
    });
    TestJobs::open(config).await.unwrap()
}

/// Runs once a minute until it is told to end, and says in how many seconds it runs
/// again: how many minutes it has seen.
fn ticking<B: TestBackend>() -> TestInitializer<B> {
    TestInitializer::new("ticking", |mut job: CurrentJob<B>, _| async move {
        let (clock, mut minutes) = (job.clock().clone(), 0);
        while !job.is_shutdown_requested() {
            tokio::select! {
                biased;
                told = job.shutdown_requested() => assert!(told),
                () = clock.sleep(MINUTE) => minutes += 1,
            }
        }
        assert!(!job.is_lease_lost());
        // There is time left to end well.
        clock.sleep(MINUTE / 2).await;
        Ok(JobCompletion::RescheduleIn(Duration::from_secs(minutes)))
    })
}

fn minutes<B: TestBackend>(performed: Result<JobCompletion<B>, JobError>) -> u64 {
    match performed.unwrap() {
        JobCompletion::RescheduleIn(delay) => delay.as_secs(),
        other => panic!("{other:?}"),
    }
}

async fn a_shutdown_may_have_begun_before_the_runner<B: TestBackend>() {
    let place = B::place().await;
    let mut test = open_with_shutdown::<B>(&place).await;
    let start = test.now();
    let asked = Performance::default().shutdown();
    let performed = test.perform_as(asked, &ticking(), Value::Null).await;
    assert_eq!(minutes(performed), 0);
    assert_eq!(test.now(), start + TimeDelta::seconds(30));
}

async fn a_shutdown_begins_when_its_time_has_come<B: TestBackend>() {
    let place = B::place().await;
    let mut test = open_with_shutdown::<B>(&place).await;
    let start = test.now();
    let asked = Performance::default().shutdown_after(HOUR + MINUTE / 2);
    let performed = test
        .perform_as(asked.clone(), &ticking(), Value::Null)
        .await;
    assert_eq!(minutes(performed), 60);
    assert_eq!(test.now(), start + TimeDelta::minutes(61));

    // It need not sleep until then.
    let idle = TestInitializer::<B>::new("idle", |mut job: CurrentJob<B>, _| async move {
        job.shutdown_requested().await;
        Ok(JobCompletion::Complete)
    });
    let performed = test.perform_as(asked, &idle, Value::Null).await;
    assert!(matches!(performed, Ok(JobCompletion::Complete)));
    let passed = test.now() - start;
    assert_eq!(passed, TimeDelta::seconds(61 * 60 + 60 * 60 + 30));
}

async fn a_runner_that_ends_before_a_shutdown_takes_no_longer<B: TestBackend>() {
    let place = B::place().await;
    let mut test = open_with_shutdown::<B>(&place).await;
    let start = test.now();
    let short = TestInitializer::<B>::new("short", |mut job: CurrentJob<B>, _| async move {
        job.clock().sleep(MINUTE).await;
        assert!(!job.is_shutdown_requested());
        Ok(JobCompletion::Complete)
    });
    let asked = Performance::default().shutdown_after(HOUR);
    test.perform_as(asked, &short, Value::Null).await.unwrap();
    assert_eq!(test.now(), start + TimeDelta::minutes(1));
}

async fn a_run_whose_lease_is_lost_can_write_nothing<B: TestBackend>() {
    let place = B::place().await;
    let mut test = open_with_shutdown::<B>(&place).await;
    let log = Log::default();
    let seen = log.clone();
    let work = move |mut job: CurrentJob<B>, _| {
        let log = seen.clone();
        async move {
            let state: Option<Value> = job.execution_state().unwrap();
            for _ in 0..2 {
                let told = [job.is_shutdown_requested(), job.is_lease_lost()];
                let kept = job.update_execution_state("mine").await;
                let lost = matches!(&kept, Err(JobError::LeaseLost(id)) if id == job.id());
                assert_eq!(kept.is_err(), lost);
                log.add(json!([state, told, lost]));
                job.shutdown_requested().await;
            }
            Ok(JobCompletion::Complete)
        }
    };
    let watchful = TestInitializer::new("watchful", work);
    let at_once = Performance::default().lease_lost();
    let later = Performance::default()
        .state(json!("kept"))
        .lease_lost_after(HOUR);
    for performance in [at_once, later] {
        let performed = test.perform_as(performance, &watchful, Value::Null).await;
        assert!(matches!(performed, Ok(JobCompletion::Complete)));
    }
    let (well, lost) = (json!([false, false]), json!([true, true]));
    assert_eq!(
        log.entries(),
        [
            json!([null, lost, true]),
            json!([null, lost, true]),
            json!(["kept", well, false]),
            json!(["kept", lost, true]),
        ]
    );
}

async fn what_a_run_without_a_lease_completes_with_is_rolled_back<B: TestBackend>() {
    let place = B::place().await;
    let mut test = open_with_shutdown::<B>(&place).await;
    let spawner = Arc::new(test.add_initializer(TestInitializer::<B>::completing("mail")));
    let inner = Arc::clone(&spawner);
    let work = move |mut job: CurrentJob<B>, _| {
        let spawner = Arc::clone(&inner);
        async move {
            job.shutdown_requested().await;
            let mut transaction = B::begin(job.pool()).await;
            let spawned = spawner.spawn_in_op(&mut transaction, JobId::new(), Value::Null);
            spawned.await.map_err(|error| error.to_string())?;
            Ok(JobCompletion::CompleteWithTx(transaction))
        }
    };
    let sending = TestInitializer::new("sending", work);
    for performance in [
        Performance::default().lease_lost(),
        Performance::default().lease_lost_after(HOUR),
    ] {
        let performed = test.perform_as(performance, &sending, Value::Null).await;
        assert!(matches!(performed, Err(JobError::LeaseLost(_))));
    }
    test.seen().await.assert_none_spawned(&spawner);

    // With a lease it is the test that decides.
    let performance = Performance::default().shutdown();
    let performed = test.perform_as(performance, &sending, Value::Null).await;
    let Ok(JobCompletion::CompleteWithTx(transaction)) = performed else {
        panic!("{performed:?}");
    };
    job::backend::CallerTransaction::commit(transaction)
        .await
        .unwrap();
    test.seen()
        .await
        .assert_spawned_times(&spawner, &Value::Null, 1);
}

async fn what_is_performed_leaves_its_history_behind<B: TestBackend>() {
    let place = B::place().await;
    let mut test = open::<B>(&place).await;
    let ids = Arc::new(Mutex::new(Vec::new()));
    let own = Arc::clone(&ids);
    let work = move |job: CurrentJob<B>, how: Value| {
        own.lock().unwrap().push(*job.id());
        async move {
            match how.as_str() {
                Some("fails") => Err("as it was told".to_owned()),
                Some("transaction") => {
                    let transaction = B::begin(job.pool()).await;
                    Ok(JobCompletion::CompleteWithTx(transaction))
                }
                _ => Ok(JobCompletion::RescheduleNow),
            }
        }
    };
    let any = TestInitializer::new("any", work);
    test.perform(&any, json!("again")).await.unwrap();
    test.perform(&any, json!("fails")).await.unwrap_err();
    let lost = Performance::default().lease_lost();
    test.perform_as(lost, &any, json!("again")).await.unwrap();
    let performed = test.perform(&any, json!("transaction")).await.unwrap();
    let JobCompletion::CompleteWithTx(transaction) = performed else {
        panic!("{performed:?}");
    };
    job::backend::CallerTransaction::commit(transaction)
        .await
        .unwrap();

    let spawner = test.add_initializer(any);
    assert_eq!(test.advance(30 * DAY).await, 0);
    let seen = test.seen().await;
    seen.assert_none_spawned(&spawner);
    assert!(seen.jobs().is_empty());
    let ids = ids.lock().unwrap().clone();
    let found = async |n: usize| test.jobs().find(ids[n]).await.unwrap();
    for n in [0, 1] {
        let job = found(n).await;
        assert_eq!(history(&job), ["spawned", "started", "completed"]);
        assert_eq!(job.job_type.as_str(), format!("performed alone {}", ids[n]));
    }
    let all = ["spawned", "started", "lease lost", "started", "completed"];
    assert_eq!(history(&found(2).await), all);
    // What the runner would have ended is up to the test.
    let job = found(3).await;
    assert_eq!(job.state(), JobState::Running);
    let last = job.events().last().map(|event| &event.kind);
    assert!(matches!(last, Some(JobEventKind::Started { .. })));
}

#[tokio::test]
async fn a_runner_that_does_not_end_when_it_is_told_to_is_told_of() {
    let text = panic_of(async {
        let mut test = open_with_shutdown::<Memory>(&()).await;
        let deaf = TestInitializer::new("deaf", |job: CurrentJob<Memory>, _| async move {
            job.clock().sleep(DAY).await;
            Ok(JobCompletion::Complete)
        });
        let asked = Performance::default().shutdown_after(HOUR);
        _ = test.perform_as(asked, &deaf, Value::Null).await;
    })
    .await;
    let part = "type deaf still sleeps 60s after it was told to end";
    assert!(text.contains(part), "{text}");
}
