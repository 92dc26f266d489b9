//! What `job::testing` promises to those who test their applications with it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{TimeDelta, Weekday};
use job::testing::{Performance, TestJobs};
use job::{
    Backend, ClockHandle, CurrentJob, JobCompletion, JobError, JobEventKind, JobId,
    JobPollerConfig, JobSpec, JobState, JobSvcConfig, Jobs, Memory, Postgres, RetrySettings,
};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::sync::Notify;

use crate::support::{TestBackend, TestDatabase, TestInitializer, ended, history};

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// Runs each test on each backend.
macro_rules! on_every_backend {
    ($($test:ident),* $(,)?) => {
        on_every_backend!(@ memory job::Memory, $($test),*);
        on_every_backend!(@ sqlite job::Sqlite, $($test),*);
        on_every_backend!(@ postgres job::Postgres, $($test),*);
    };
    (@ $module:ident $backend:ty, $($test:ident),*) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $test() {
                    super::$test::<$backend>().await;
                }
            )*
        }
    };
}

mod asserting;
mod choosing;
mod performing;
mod sleeping;
mod tasks;
mod unknown;

on_every_backend![
    what_is_due_runs_and_what_it_spawns,
    one_job_at_a_time_runs_when_a_test_says_so,
    each_retry_runs_at_its_time,
    a_lost_job_comes_back_when_its_lease_has_run_out,
    a_runner_is_performed_alone,
    what_a_transaction_spawned_is_seen_in_it,
    a_runner_may_complete_with_its_transaction,
    a_call_that_is_given_up_on_loses_its_worker,
    what_sleepers_spawn_runs_at_its_time,
    a_panic_of_a_runner_is_a_failure,
];

async fn open<B: TestBackend>(place: &B::Place) -> TestJobs<B> {
    TestJobs::open(B::on(place)).await.unwrap()
}

/// What the runners of a test have done.
#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<Vec<Value>>>);

impl Log {
    fn add(&self, entry: Value) {
        self.0.lock().unwrap().push(entry);
    }

    fn entries(&self) -> Vec<Value> {
        self.0.lock().unwrap().clone()
    }

    /// An initializer whose runners write down their configs.
    fn initializer<B: Backend>(&self, job_type: &'static str) -> TestInitializer<B> {
        let log = self.clone();
        TestInitializer::new(job_type, move |_, config| {
            log.add(config);
            async { Ok(JobCompletion::Complete) }
        })
    }
}

/// An initializer whose runners fail until the attempt that their config says.
fn failing<B: Backend>(retry: RetrySettings) -> TestInitializer<B> {
    let work = |job: CurrentJob<B>, config: Value| async move {
        match u64::from(job.attempt()) < config.as_u64().unwrap() {
            true => Err(format!("attempt {} fails", job.attempt())),
            false => Ok(JobCompletion::Complete),
        }
    };
    TestInitializer::new("failing", work).retry(retry)
}

async fn what_is_due_runs_and_what_it_spawns<B: TestBackend>() {
    let place = B::place().await;
    let mut test = open::<B>(&place).await;
    let log = Log::default();
    let second = test.add_initializer(log.initializer("second"));
    let spawner = Arc::new(second);
    let again = Arc::clone(&spawner);
    let first = test.add_initializer(TestInitializer::new("first", move |_, config: Value| {
        let spawner = Arc::clone(&again);
        async move {
            let spawned = spawner.spawn(JobId::new(), json!({ "of": config })).await;
            spawned.map_err(|error| error.to_string())?;
            Ok(JobCompletion::Complete)
        }
    }));
    assert_eq!(test.drain().await, 0);
    let specs = (1..=3).map(|n| JobSpec::new(JobId::new(), json!(n)));
    first.spawn_all(specs.collect()).await.unwrap();
    let later = test.now() + TimeDelta::hours(1);
    first.spawn_at(JobId::new(), json!(4), later).await.unwrap();
    assert_eq!(log.entries(), Vec::<Value>::new());

    assert_eq!(test.drain().await, 6);
    assert_eq!(log.entries().len(), 3);
    let seen = test.seen().await;
    assert_eq!(seen.jobs().len(), 7);
    let spawned = seen.assert_spawned(&spawner, &json!({ "of": 2 }));
    assert_eq!(spawned.state(), JobState::Completed);
    seen.assert_spawned_times(&spawner, &json!({ "of": 2 }), 1);
    seen.assert_due_at(&first, &json!(4), later);
    assert!(seen.spawned(&spawner, &json!({ "of": 4 })).is_empty());

    assert_eq!(test.advance(HOUR).await, 2);
    assert_eq!(test.now(), later);
    test.seen()
        .await
        .assert_spawned(&spawner, &json!({ "of": 4 }));
}

async fn one_job_at_a_time_runs_when_a_test_says_so<B: TestBackend>() {
    let place = B::place().await;
    let mut test = open::<B>(&place).await;
    let log = Log::default();
    let spawner = test.add_initializer(log.initializer("logged"));
    for n in 1..=3 {
        let due_at = test.now() - TimeDelta::seconds(10 - n);
        spawner
            .spawn_at(JobId::new(), json!(n), due_at)
            .await
            .unwrap();
    }
    for n in 1..=3 {
        assert!(test.run_one().await);
        assert_eq!(log.entries().len(), n);
    }
    assert!(!test.run_one().await);
    assert_eq!(log.entries(), [json!(1), json!(2), json!(3)]);
    for job in test.seen().await.jobs() {
        assert_eq!(history(job), ["spawned", "started", "completed"]);
    }
}

async fn each_retry_runs_at_its_time<B: TestBackend>() {
    let place = B::place().await;
    let mut test = open::<B>(&place).await;
    let retry = RetrySettings {
        n_attempts: Some(4),
        min_backoff: DAY,
        max_backoff: 7 * DAY,
        backoff_jitter_pct: 0,
        ..RetrySettings::default()
    };
    let spawner = test.add_initializer(failing(retry));
    let (well, ill) = (JobId::new(), JobId::new());
    spawner.spawn(well, json!(3)).await.unwrap();
    spawner.spawn(ill, json!(9)).await.unwrap();
    let start = test.now();
    assert_eq!(test.drain().await, 2);
    test.seen()
        .await
        .assert_failed_with(well, "attempt 1 fails");

    assert_eq!(test.advance(14 * DAY).await, 5);
    assert_eq!(test.now(), start + TimeDelta::days(14));
    let seen = test.seen().await;
    let job = seen.assert_completed(well);
    let started = job.events().iter().filter_map(|event| {
        let started = matches!(event.kind, JobEventKind::Started { .. });
        started.then_some((event.at - start).num_days())
    });
    assert_eq!(started.collect::<Vec<_>>(), [0, 1, 3]);
    seen.assert_errored_with(ill, "attempt 4 fails");
}

async fn a_lost_job_comes_back_when_its_lease_has_run_out<B: TestBackend>() {
    let place = B::place().await;
    let config = B::on(&place).poller_config(JobPollerConfig {
        job_lost_interval: HOUR,
        ..JobPollerConfig::default()
    });
    let mut test = TestJobs::open(config).await.unwrap();
    let log = Log::default();
    let spawner = test.add_initializer(log.initializer("logged"));
    let id = JobId::new();
    assert_eq!(test.lose_one().await, None);
    spawner.spawn(id, json!(1)).await.unwrap();
    assert_eq!(test.lose_one().await, Some(id));
    assert_eq!(
        test.jobs().find(id).await.unwrap().state(),
        JobState::Running
    );
    assert_eq!(test.advance(HOUR - Duration::from_micros(1)).await, 0);
    assert_eq!(test.advance(Duration::from_micros(1)).await, 1);
    let seen = test.seen().await;
    let job = seen.assert_completed(id);
    assert_eq!(job.attempt(), 2);
    let all = ["spawned", "started", "lease lost", "started", "completed"];
    assert_eq!(history(job), all);
}

async fn a_runner_is_performed_alone<B: TestBackend>() {
    let place = B::place().await;
    let mut test = open::<B>(&place).await;
    let counting = TestInitializer::<B>::new(
        "counting",
        |mut job: CurrentJob<B>, config: Value| async move {
            let before: Option<u64> = job.execution_state().unwrap();
            let count = before.unwrap_or(0) + config.as_u64().ok_or("not a number")?;
            let kept = job.update_execution_state(count).await;
            kept.map_err(|error| error.to_string())?;
            assert_eq!(job.job_type().as_str(), "counting");
            Ok(JobCompletion::RescheduleIn(Duration::from_secs(
                count * u64::from(job.attempt()),
            )))
        },
    );
    let secs = |completed: Result<JobCompletion<B>, JobError>| match completed.unwrap() {
        JobCompletion::RescheduleIn(delay) => delay.as_secs(),
        other => panic!("{other:?}"),
    };
    assert_eq!(secs(test.perform(&counting, json!(7)).await), 7);
    let later = Performance::default().attempt(3).state(json!(10));
    assert_eq!(secs(test.perform_as(later, &counting, json!(7)).await), 51);
    let failed = test.perform(&counting, json!("seven")).await.unwrap_err();
    assert!(failed.to_string().contains("not a number"), "{failed}");

    // Nothing of it is left to be seen, or to be run.
    let spawner = test.add_initializer(counting);
    assert_eq!(test.advance(30 * DAY).await, 0);
    test.seen().await.assert_none_spawned(&spawner);
}

async fn what_a_transaction_spawned_is_seen_in_it<B: TestBackend>() {
    let place = B::place().await;
    let mut test = open::<B>(&place).await;
    let spawner = test.add_initializer(TestInitializer::completing("welcome"));
    let mut transaction = B::begin(test.jobs().pool()).await;
    let spawned = spawner.spawn_in_op(&mut transaction, JobId::new(), json!("ada"));
    spawned.await.unwrap();
    let seen = test.seen_in(&mut transaction).await;
    seen.assert_spawned(&spawner, &json!("ada"));
    job::backend::CallerTransaction::rollback(transaction).await;
    test.seen().await.assert_none_spawned(&spawner);
    assert_eq!(test.drain().await, 0);
}

async fn a_runner_may_complete_with_its_transaction<B: TestBackend>() {
    let place = B::place().await;
    let mut test = open::<B>(&place).await;
    let work = |job: CurrentJob<B>, _| async move {
        Ok(JobCompletion::CompleteWithTx(B::begin(job.pool()).await))
    };
    let spawner = test.add_initializer(TestInitializer::new("transaction", work));
    let id = JobId::new();
    spawner.spawn(id, Value::Null).await.unwrap();
    assert_eq!(test.drain().await, 1);
    test.seen().await.assert_completed(id);
}

/// As if the process had died in the middle of the run.
async fn a_call_that_is_given_up_on_loses_its_worker<B: TestBackend>() {
    let place = B::place().await;
    let config = B::on(&place).poller_config(JobPollerConfig {
        job_lost_interval: HOUR,
        ..JobPollerConfig::default()
    });
    let mut test = TestJobs::open(config).await.unwrap();
    let begun = Arc::new(Notify::new());
    let begins = Arc::clone(&begun);
    let work = move |job: CurrentJob<B>, _| {
        let begins = Arc::clone(&begins);
        async move {
            if job.attempt() == 1 {
                begins.notify_one();
                std::future::pending::<()>().await;
            }
            Ok(JobCompletion::Complete)
        }
    };
    let spawner = test.add_initializer(TestInitializer::new("dying", work));
    let id = JobId::new();
    spawner.spawn(id, Value::Null).await.unwrap();
    tokio::select! {
        _ = test.drain() => panic!("the runner ends"),
        () = begun.notified() => {}
    }
    let start = test.now();
    assert_eq!(test.advance(DAY).await, 1);
    let seen = test.seen().await;
    let job = seen.assert_completed(id);
    let all = ["spawned", "started", "lease lost", "started", "completed"];
    assert_eq!(history(job), all);
    let back = job.events()[2].at - start;
    assert_eq!(back, TimeDelta::hours(1));
}

async fn what_sleepers_spawn_runs_at_its_time<B: TestBackend>() {
    let place = B::place().await;
    let mut test = open::<B>(&place).await;
    let log = Log::default();
    let spawner = Arc::new(test.add_initializer(log.initializer("hourly")));
    let (clock, start) = (test.jobs().clock().clone(), test.now());
    let hourly = Arc::clone(&spawner);
    let spawning = tokio::spawn(async move {
        for n in 1..=3 {
            clock.sleep(HOUR).await;
            hourly.spawn(JobId::new(), json!(n)).await.unwrap();
        }
    });
    assert_eq!(test.advance(DAY).await, 3);
    spawning.await.unwrap();
    let seen = test.seen().await;
    let jobs = seen.jobs().iter();
    let started = jobs.map(|job| (job.events()[1].at - start).num_minutes());
    assert_eq!(started.collect::<Vec<_>>(), [60, 120, 180]);
}

async fn a_panic_of_a_runner_is_a_failure<B: TestBackend>() {
    let place = B::place().await;
    let mut test = open::<B>(&place).await;
    let work = |_, _| async { panic!("oh no") };
    let spawner = test.add_initializer(TestInitializer::<B>::new("panics", work));
    let id = JobId::new();
    spawner.spawn(id, Value::Null).await.unwrap();
    assert_eq!(test.drain().await, 1);
    let seen = test.seen().await;
    seen.assert_failed_with(id, "the runner panicked: oh no");
    seen.assert_pending(id);
}

#[tokio::test]
async fn tests_on_one_database_do_not_disturb_each_other() {
    let database = TestDatabase::create().await;
    let mut tests = Vec::new();
    for n in 0..2 {
        let mut test = TestJobs::postgres(database.url()).await.unwrap();
        let spawner = test.add_initializer(TestInitializer::<Postgres>::completing("same"));
        spawner.spawn(JobId::new(), json!(n)).await.unwrap();
        tests.push((test, spawner));
    }
    for (n, (mut test, spawner)) in tests.into_iter().enumerate() {
        assert_eq!(test.drain().await, 1);
        test.seen()
            .await
            .assert_spawned_times(&spawner, &json!(n), 1);
        test.drop_schema().await.unwrap();
    }
    let pool = database.pool().await;
    let left = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'job\\_test\\_%'";
    let left: i64 = sqlx::query_scalar(left).fetch_one(&pool).await.unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn the_clock_of_a_test_starts_on_a_monday() {
    use chrono::Datelike;

    let test = TestJobs::memory().await;
    assert_eq!(test.now().weekday(), Weekday::Mon);
    assert_eq!(test.now().to_rfc3339(), "2001-01-01T00:00:00+00:00");
}

/// The panic of a future, as a text.
async fn panic_of(work: impl Future<Output = ()> + Send + 'static) -> String {
    let panic = tokio::spawn(work).await.unwrap_err().into_panic();
    *panic.downcast::<String>().unwrap()
}

#[tokio::test]
async fn a_runner_that_waits_for_the_clock_is_told_of() {
    let text = panic_of(async {
        let test = TestJobs::memory().await;
        let mut test = test.with_patience(Duration::from_millis(20));
        let sleeping = |job: CurrentJob<Memory>, _| async move {
            job.clock().sleep(HOUR).await;
            Ok(JobCompletion::Complete)
        };
        let spawner = test.add_initializer(TestInitializer::new("sleeping", sleeping));
        spawner.spawn(JobId::new(), Value::Null).await.unwrap();
        test.drain().await;
    })
    .await;
    for part in [
        "type sleeping has not ended after 20ms",
        "The clock stands at 2001-01-01 00:00:00 UTC",
        "a sleep lasts until 2001-01-01 01:00:00 UTC, made at tests/testing.rs:",
        "let the job run in `TestJobs::advance`",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[tokio::test]
async fn a_runner_that_sleeps_goes_on_when_the_clock_is_moved_meanwhile() {
    let mut test = TestJobs::memory().await;
    let sleeping = |job: CurrentJob<Memory>, _| async move {
        job.clock().sleep(HOUR).await;
        Ok(JobCompletion::Complete)
    };
    let spawner = test.add_initializer(TestInitializer::new("sleeping", sleeping));
    let id = JobId::new();
    spawner.spawn(id, Value::Null).await.unwrap();
    let clock = test.clock().clone();
    let (ran, _) = tokio::join!(test.drain(), clock.advance(HOUR));
    assert_eq!(ran, 1);
    test.seen().await.assert_completed(id);
}

#[tokio::test]
async fn what_is_asserted_in_vain_is_told_with_what_there_was() {
    let mut test = TestJobs::memory().await;
    let spawner = test.add_initializer(failing(RetrySettings {
        n_attempts: Some(1),
        ..RetrySettings::default()
    }));
    let (id, other) = (JobId::new(), JobId::new());
    spawner.spawn(id, json!(5)).await.unwrap();
    test.drain().await;
    let seen = test.seen().await;
    type Assertion = Box<dyn FnOnce(&job::testing::Seen) + Send>;
    let line = format!("{id} failing 5 Errored, errored: attempt 1 fails");
    let cases: [(Assertion, Vec<String>); 4] = [
        (
            Box::new(move |seen| _ = seen.assert_completed(id)),
            vec!["is Errored, not Completed".to_owned(), line.clone()],
        ),
        (
            Box::new(move |seen| _ = seen.assert_pending(other)),
            vec![format!("{other} was not spawned"), line.clone()],
        ),
        (
            Box::new(move |seen| _ = seen.assert_errored_with(id, "no such text")),
            vec![
                "has not failed with \"no such text\"".to_owned(),
                line.clone(),
            ],
        ),
        (
            Box::new(move |seen| _ = seen.assert_spawned(&spawner, &json!(6))),
            vec!["type failing was spawned with 6".to_owned(), line],
        ),
    ];
    for (assertion, parts) in cases {
        let seen = seen.clone();
        let text = panic_of(async move { assertion(&seen) }).await;
        for part in parts {
            assert!(text.contains(&part), "{text}");
        }
    }
}

#[tokio::test]
async fn a_job_that_never_lets_a_drain_end_is_told_of() {
    let text = panic_of(async {
        let mut test = TestJobs::memory().await;
        let again = |_, _| async { Ok(JobCompletion::<Memory>::RescheduleNow) };
        let spawner = test.add_initializer(TestInitializer::new("again", again));
        spawner.spawn(JobId::new(), Value::Null).await.unwrap();
        test.drain().await;
    })
    .await;
    let part = "type again has run 10000 times, and is due again";
    assert!(text.contains(part), "{text}");
}

#[tokio::test]
async fn a_transaction_in_memory_that_keeps_a_test_out_is_told_of() {
    let text = panic_of(async {
        let test = TestJobs::memory().await;
        let mut test = test.with_patience(Duration::from_millis(20));
        test.add_initializer(TestInitializer::completing("any"));
        let _open = test.jobs().pool().begin().await;
        test.drain().await;
    })
    .await;
    let part = "It may wait for a transaction that the test holds open";
    assert!(text.contains(part), "{text}");
}

/// Set in the process of a test that forgets to move its clock.
const FORGETS: &str = "JOB_TEST_FORGETS_ITS_CLOCK";

#[tokio::test]
async fn a_service_that_polls_a_clock_which_nobody_moves_ends_its_test() {
    if std::env::var_os(FORGETS).is_some() {
        forget_the_clock().await;
    }
    let this = std::env::current_exe().expect("the test binary has a path");
    let name = "testing::a_service_that_polls_a_clock_which_nobody_moves_ends_its_test";
    let mut command = Command::new(this);
    command.args([name, "--exact", "--nocapture"]);
    let output = command.env(FORGETS, "").output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(101), "{text}");
    for part in [
        "a manual clock was forgotten",
        "made at adapters/tokio/src/driver/mod.rs",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

/// Asks again and again whether a job has run that is due in a minute.
async fn forget_the_clock() {
    let (clock, controller) = ClockHandle::manual();
    controller.set_patience(Some(Duration::from_millis(50)));
    let config = JobSvcConfig::memory().clock(clock.clone()).build().unwrap();
    let mut jobs = Jobs::init(config).await.unwrap();
    let spawner = jobs.add_initializer(Log::default().initializer("logged"));
    jobs.start_poll().await.unwrap();
    let (id, due_at) = (JobId::new(), clock.now() + TimeDelta::minutes(1));
    spawner.spawn_at(id, json!(1), due_at).await.unwrap();
    let job = ended(&jobs, id).await;
    panic!("nobody ended the process: {job:?}");
}

#[tokio::test]
async fn a_test_of_a_service_that_polls_may_await_what_its_clock_brings() {
    let (clock, controller) = ClockHandle::manual();
    let config = JobSvcConfig::memory().clock(clock.clone()).build().unwrap();
    let mut jobs = Jobs::init(config).await.unwrap();
    let spawner = jobs.add_initializer(Log::default().initializer("logged"));
    jobs.start_poll().await.unwrap();
    let (id, due_at) = (JobId::new(), clock.now() + TimeDelta::minutes(1));
    spawner.spawn_at(id, json!(1), due_at).await.unwrap();
    controller.advance(Duration::from_secs(60)).await;
    let job = controller.wait_for(ended(&jobs, id)).await;
    assert_eq!(job.state(), JobState::Completed);
}
