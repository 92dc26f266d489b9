//! What the service promises, on every backend.

mod clock;
mod ends;
mod input;
mod tasks;
mod trials;

use std::convert::identity;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use job::error::JobError;
use job::{
    ArtificialClockConfig, ClockController, ClockHandle, CurrentJob, JobCompletion, JobEventKind,
    JobId, JobPollerConfig, JobState, Jobs, RetrySettings,
};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::support::{
    TestBackend, TestInitializer, behind_a_pooler, by_url_in_memory, by_url_on_postgres,
    by_url_on_sqlite, ended, eventually, history,
};

use clock::*;
use ends::*;
use input::*;
use tasks::*;
use trials::*;

/// Runs each scenario on each backend, on Postgres through a pooler, too, and once more on
/// each by the short way in: opened by a URL, with functions in place of initializers.
macro_rules! on_every_backend {
    ($($scenario:ident),* $(,)?) => {
        on_every_backend!(@ memory job::Memory as identity, $($scenario),*);
        on_every_backend!(@ sqlite job::Sqlite as identity, $($scenario),*);
        on_every_backend!(@ postgres job::Postgres as identity, $($scenario),*);
        on_every_backend!(@ pooler job::Postgres as behind_a_pooler, $($scenario),*);
        on_every_backend!(@ memory_by_url job::AnyBackend as by_url_in_memory, $($scenario),*);
        on_every_backend!(@ sqlite_by_url job::AnyBackend as by_url_on_sqlite, $($scenario),*);
        on_every_backend!(@ postgres_by_url job::AnyBackend as by_url_on_postgres, $($scenario),*);
    };
    (@ $module:ident $backend:ty as $placed:ident, $($scenario:ident),*) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $scenario() {
                    super::$placed(super::$scenario::<$backend>()).await;
                }
            )*
        }
    };
}

on_every_backend![
    a_job_runs_and_find_says_completed,
    a_job_ahead_of_time_waits_for_the_clock,
    a_shutdown_puts_back_what_still_runs,
    a_shutdown_lets_a_job_end_that_listens_for_it,
    the_last_clone_shuts_down_when_it_is_dropped,
    a_unique_job_is_spawned_once,
    a_unique_job_that_died_is_told_of,
    a_job_that_takes_its_time_to_fail_is_given_up,
    due_jobs_start_while_there_are_free_places,
    a_completing_transaction_commits_with_the_completion,
    a_transaction_of_a_failed_run_leaves_nothing,
    a_job_spawned_in_a_rolled_back_transaction_does_not_exist,
    a_job_spawned_in_a_transaction_runs_after_the_commit,
    failures_are_retried_and_the_history_tells,
    the_last_attempt_ends_the_job_as_errored,
    a_panic_counts_as_an_error_with_its_message,
    the_execution_state_survives_retries_and_reschedules,
    a_reschedule_starts_the_attempts_again,
    a_long_history_is_read_page_by_page,
    a_snoozed_run_was_no_attempt,
    a_runner_that_gives_its_job_up_ends_it,
    a_job_is_given_up_together_with_a_transaction,
    backoff_follows_the_artificial_clock,
    a_lease_is_kept_however_far_the_clock_is_advanced,
    a_shutdown_waits_by_the_clock,
    a_duplicate_id_is_refused_and_changes_nothing,
    the_past_is_now_and_the_far_future_is_pending,
    a_large_config_and_nul_characters_come_back_whole,
    a_config_that_nobody_can_decode_ends_the_job_after_an_hour,
    an_initializer_that_panics_counts_as_an_error,
    absurd_settings_do_no_harm,
    a_job_that_nobody_spawned_is_not_found,
    jobs_are_spawned_together_or_not_at_all,
    many_jobs_run_once_each,
    a_task_runs_with_its_state_and_any_error_is_tried_again,
    a_task_spawns_the_next_with_its_own_end,
    a_process_spawns_what_others_run,
    what_is_there_already_is_found,
    what_is_said_of_a_spawn_holds_in_whichever_order,
    a_task_that_wants_another_backend_is_told_which_it_is_on,
];

async fn service<B: TestBackend>(place: &B::Place) -> Jobs<B> {
    let config = B::on(place).poller_config(quick()).build();
    Jobs::init(config.unwrap()).await.unwrap()
}

/// On a clock that a test moves. It polls every ten minutes: hours pass, and each poll of
/// them takes its time.
async fn service_on<B: TestBackend>(place: &B::Place, clock: ClockHandle) -> Jobs<B> {
    let config = B::on(place).clock(clock);
    let config = config.poll_interval(Duration::from_secs(600)).build();
    Jobs::init(config.unwrap()).await.unwrap()
}

fn quick() -> JobPollerConfig {
    JobPollerConfig {
        shutdown_timeout: Duration::from_millis(300),
        ..JobPollerConfig::default()
    }
}

/// Retries without a wait.
fn at_once(n_attempts: u32) -> RetrySettings {
    RetrySettings {
        n_attempts: Some(n_attempts),
        min_backoff: Duration::ZERO,
        max_backoff: Duration::ZERO,
        ..RetrySettings::default()
    }
}

async fn a_job_runs_and_find_says_completed<B: TestBackend>() {
    let place = B::place().await;
    let mut jobs = service::<B>(&place).await;
    let seen = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&seen);
    let spawner = B::add(
        &mut jobs,
        TestInitializer::new("greet", move |job, config| {
            *keep.lock().unwrap() = Some((*job.id(), job.attempt(), config));
            async { Ok(JobCompletion::Complete) }
        }),
    );
    jobs.start_poll().await.unwrap();
    let id = JobId::new();
    let spawned = spawner.spawn(id, json!({"name": "Ada"})).await.unwrap();
    assert_eq!((spawned.id, spawned.state()), (id, JobState::Pending));
    let job = ended(&jobs, id).await;
    assert_eq!(job.state(), JobState::Completed);
    assert_eq!(job.job_type.as_str(), "greet");
    assert_eq!(job.config::<Value>().unwrap(), json!({"name": "Ada"}));
    assert_eq!(history(&job), ["spawned", "started", "completed"]);
    let seen = seen.lock().unwrap().take().unwrap();
    assert_eq!(seen, (id, 1, json!({"name": "Ada"})));
    jobs.shutdown().await.unwrap();
    jobs.shutdown().await.unwrap();
}

async fn a_job_ahead_of_time_waits_for_the_clock<B: TestBackend>() {
    let place = B::place().await;
    let (clock, controller) = ClockHandle::artificial(ArtificialClockConfig::manual());
    let mut jobs = service_on::<B>(&place, clock.clone()).await;
    let ran_at = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&ran_at);
    let spawner = B::add(
        &mut jobs,
        TestInitializer::new("later", move |job, _| {
            *keep.lock().unwrap() = Some(job.clock().now());
            async { Ok(JobCompletion::Complete) }
        }),
    );
    jobs.start_poll().await.unwrap();
    let due_at = clock.now() + TimeDelta::seconds(60);
    let id = JobId::new();
    spawner.spawn_at(id, Value::Null, due_at).await.unwrap();
    // Something else has run, so this would have, too.
    let now = JobId::new();
    spawner.spawn(now, Value::Null).await.unwrap();
    ended(&jobs, now).await;
    assert_eq!(jobs.find(id).await.unwrap().state(), JobState::Pending);
    controller.advance(Duration::from_secs(59)).await;
    assert_eq!(jobs.find(id).await.unwrap().state(), JobState::Pending);
    controller.advance(Duration::from_secs(1)).await;
    let job = ended(&jobs, id).await;
    let ran_at = ran_at.lock().unwrap().unwrap();
    assert!(
        (ran_at - due_at).abs() < TimeDelta::milliseconds(1),
        "{ran_at} {due_at}"
    );
    assert_eq!(
        job.events()[1].at.timestamp_micros(),
        due_at.timestamp_micros()
    );
}

async fn a_shutdown_puts_back_what_still_runs<B: TestBackend>() {
    let place = B::place().await;
    let mut jobs = service::<B>(&place).await;
    let started = Arc::new(Notify::new());
    let tell = Arc::clone(&started);
    let spawner = B::add(
        &mut jobs,
        TestInitializer::new("endless", move |_, _| {
            tell.notify_one();
            std::future::pending()
        }),
    );
    jobs.start_poll().await.unwrap();
    let id = JobId::new();
    spawner.spawn(id, Value::Null).await.unwrap();
    started.notified().await;
    jobs.shutdown().await.unwrap();
    let job = eventually("the job is read", async || spawned_job(&jobs, id).await).await;
    assert_eq!((job.state(), job.attempt()), (JobState::Pending, 1));
    assert_eq!(history(&job), ["spawned", "started", "aborted"]);
}

async fn spawned_job<B: TestBackend>(jobs: &Jobs<B>, id: JobId) -> Option<job::Job> {
    jobs.find(id).await.ok()
}

async fn a_shutdown_lets_a_job_end_that_listens_for_it<B: TestBackend>() {
    let place = B::place().await;
    let config = B::on(&place).build().unwrap();
    let mut jobs = Jobs::init(config).await.unwrap();
    let started = Arc::new(Notify::new());
    let tell = Arc::clone(&started);
    let spawner = B::add(
        &mut jobs,
        TestInitializer::new("polite", move |mut job, _| {
            let tell = Arc::clone(&tell);
            async move {
                assert!(!job.is_shutdown_requested());
                tell.notify_one();
                assert!(job.shutdown_requested().await);
                assert!(job.is_shutdown_requested() && !job.is_lease_lost());
                Ok(JobCompletion::Complete)
            }
        }),
    );
    jobs.start_poll().await.unwrap();
    let id = JobId::new();
    spawner.spawn(id, Value::Null).await.unwrap();
    started.notified().await;
    jobs.shutdown().await.unwrap();
    assert_eq!(jobs.find(id).await.unwrap().state(), JobState::Completed);
}

async fn the_last_clone_shuts_down_when_it_is_dropped<B: TestBackend>() {
    let place = B::place().await;
    let mut jobs = service::<B>(&place).await;
    let told = Arc::new(Notify::new());
    let tell = Arc::clone(&told);
    let spawner = B::add(
        &mut jobs,
        TestInitializer::new("polite", move |mut job, _| {
            let tell = Arc::clone(&tell);
            async move {
                tell.notify_one();
                job.shutdown_requested().await;
                tell.notify_one();
                Ok(JobCompletion::Complete)
            }
        }),
    );
    jobs.start_poll().await.unwrap();
    spawner.spawn(JobId::new(), Value::Null).await.unwrap();
    told.notified().await;
    let clone = jobs.clone();
    drop(jobs);
    drop(clone);
    told.notified().await;
}

async fn a_unique_job_is_spawned_once<B: TestBackend>() {
    let place = B::place().await;
    let mut jobs = service::<B>(&place).await;
    let spawner = B::add(&mut jobs, TestInitializer::completing("cleanup"));
    jobs.start_poll().await.unwrap();
    let (first, second) = (JobId::new(), JobId::new());
    spawner.clone().spawn_unique(first, json!(1)).await.unwrap();
    spawner
        .clone()
        .spawn_unique(second, json!(2))
        .await
        .unwrap();
    ended(&jobs, first).await;
    // Not even after it ended.
    spawner.spawn_unique(second, json!(3)).await.unwrap();
    let missing = jobs.find(second).await;
    assert!(matches!(missing, Err(JobError::NotFound(id)) if id == second));
}

async fn a_job_spawned_in_a_rolled_back_transaction_does_not_exist<B: TestBackend>() {
    let place = B::place().await;
    let mut jobs = service::<B>(&place).await;
    let spawner = B::add(&mut jobs, TestInitializer::completing("maybe"));
    let id = JobId::new();
    let mut transaction = B::begin(jobs.pool()).await;
    spawner
        .spawn_in_op(&mut transaction, id, Value::Null)
        .await
        .unwrap();
    drop(transaction);
    assert!(matches!(jobs.find(id).await, Err(JobError::NotFound(_))));
    spawner.spawn(id, Value::Null).await.unwrap();
}

async fn a_job_spawned_in_a_transaction_runs_after_the_commit<B: TestBackend>() {
    use job::backend::CallerTransaction;

    let place = B::place().await;
    let mut jobs = service::<B>(&place).await;
    let spawner = B::add(&mut jobs, TestInitializer::completing("maybe"));
    jobs.start_poll().await.unwrap();
    let (now, later) = (JobId::new(), JobId::new());
    let mut transaction = B::begin(jobs.pool()).await;
    spawner
        .spawn_in_op(&mut transaction, now, Value::Null)
        .await
        .unwrap();
    let due_at = Utc::now() + TimeDelta::hours(1);
    let spawned = spawner
        .spawn_at_in_op(&mut transaction, later, Value::Null, due_at)
        .await;
    spawned.unwrap();
    transaction.commit().await.unwrap();
    ended(&jobs, now).await;
    assert_eq!(jobs.find(later).await.unwrap().state(), JobState::Pending);
}

async fn failures_are_retried_and_the_history_tells<B: TestBackend>() {
    let place = B::place().await;
    let mut jobs = service::<B>(&place).await;
    let initializer = TestInitializer::new("flaky", |job, _| async move {
        match job.attempt() {
            3 => Ok(JobCompletion::Complete),
            n => Err(format!("attempt {n} failed")),
        }
    });
    let spawner = B::add(&mut jobs, initializer.retry(at_once(5)));
    jobs.start_poll().await.unwrap();
    let id = JobId::new();
    spawner.spawn(id, Value::Null).await.unwrap();
    let job = ended(&jobs, id).await;
    assert_eq!((job.state(), job.attempt()), (JobState::Completed, 3));
    assert_eq!(job.last_error(), Some("attempt 2 failed"));
    let expected = [
        "spawned",
        "started",
        "failed",
        "started",
        "failed",
        "started",
        "completed",
    ];
    assert_eq!(history(&job), expected);
    let times: Vec<_> = job.events().iter().map(|event| event.at).collect();
    assert!(times.is_sorted(), "{times:?}");
}

async fn the_last_attempt_ends_the_job_as_errored<B: TestBackend>() {
    let place = B::place().await;
    let mut jobs = service::<B>(&place).await;
    let initializer = TestInitializer::new("doomed", |_, _| async { Err("no\0way".to_owned()) });
    let spawner = B::add(&mut jobs, initializer.retry(at_once(2)));
    jobs.start_poll().await.unwrap();
    let id = JobId::new();
    spawner.spawn(id, Value::Null).await.unwrap();
    let job = ended(&jobs, id).await;
    assert_eq!((job.state(), job.attempt()), (JobState::Errored, 2));
    assert!(job.completed());
    // Postgres cannot hold a NUL in a text.
    assert_eq!(job.last_error(), Some("no\u{fffd}way"));
    assert_eq!(
        history(&job),
        ["spawned", "started", "failed", "started", "errored"]
    );
}

async fn a_panic_counts_as_an_error_with_its_message<B: TestBackend>() {
    let place = B::place().await;
    let mut jobs = service::<B>(&place).await;
    let initializer = TestInitializer::new("panicky", |job, _| async move {
        assert!(job.attempt() > 1, "not yet");
        Ok(JobCompletion::Complete)
    });
    let spawner = B::add(&mut jobs, initializer.retry(at_once(5)));
    jobs.start_poll().await.unwrap();
    let id = JobId::new();
    spawner.spawn(id, Value::Null).await.unwrap();
    let job = ended(&jobs, id).await;
    assert_eq!(job.state(), JobState::Completed);
    assert_eq!(job.last_error(), Some("the runner panicked: not yet"));
}

async fn the_execution_state_survives_retries_and_reschedules<B: TestBackend>() {
    let place = B::place().await;
    let mut jobs = service::<B>(&place).await;
    let initializer =
        TestInitializer::new("stepwise", |mut job: job::CurrentJob<B>, _| async move {
            let step: u32 = job.execution_state().unwrap().unwrap_or(0);
            job.update_execution_state(step + 1).await.unwrap();
            assert_eq!(job.execution_state::<u32>().unwrap(), Some(step + 1));
            match step {
                0 => Err("once more".to_owned()),
                1 => Ok(JobCompletion::RescheduleNow),
                2 => {
                    let mut transaction = B::begin(job.pool()).await;
                    let kept = job
                        .update_execution_state_in_op(&mut transaction, &10)
                        .await;
                    kept.unwrap();
                    Ok(JobCompletion::RescheduleNowWithTx(transaction))
                }
                10 => Ok(JobCompletion::Complete),
                other => Err(format!("unexpected step {other}")),
            }
        });
    let spawner = B::add(&mut jobs, initializer.retry(at_once(2)));
    jobs.start_poll().await.unwrap();
    let id = JobId::new();
    spawner.spawn(id, Value::Null).await.unwrap();
    let job = ended(&jobs, id).await;
    assert_eq!(job.state(), JobState::Completed, "{:?}", job.last_error());
}

async fn backoff_follows_the_artificial_clock<B: TestBackend>() {
    let place = B::place().await;
    let (clock, controller) = ClockHandle::artificial(ArtificialClockConfig::manual());
    let mut jobs = service_on::<B>(&place, clock.clone()).await;
    let runs = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&runs);
    let initializer = TestInitializer::new("failing", move |_, _| {
        count.fetch_add(1, Ordering::SeqCst);
        async { Err("down".to_owned()) }
    });
    let retry = RetrySettings {
        n_attempts: Some(4),
        min_backoff: Duration::from_secs(100),
        backoff_jitter_pct: 0,
        ..RetrySettings::default()
    };
    let spawner = B::add(&mut jobs, initializer.retry(retry));
    jobs.start_poll().await.unwrap();
    let id = JobId::new();
    spawner.spawn(id, Value::Null).await.unwrap();
    for attempt in 1..=3 {
        let job = eventually("the failure is recorded", async || {
            let job = jobs.find(id).await.unwrap();
            (job.attempt() == attempt + 1).then_some(job)
        })
        .await;
        let wait = job.due_at().unwrap() - clock.now();
        assert_eq!(wait.num_seconds(), 100 << (attempt - 1));
        controller
            .advance(Duration::from_secs(100 << (attempt - 1)))
            .await;
    }
    let job = ended(&jobs, id).await;
    assert_eq!(
        (job.state(), runs.load(Ordering::SeqCst)),
        (JobState::Errored, 4)
    );
}

async fn a_job_that_nobody_spawned_is_not_found<B: TestBackend>() {
    let place = B::place().await;
    let jobs = service::<B>(&place).await;
    let id = JobId::new();
    let error = jobs.find(id).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("there is no job with the id {id}")
    );
}

async fn jobs_are_spawned_together_or_not_at_all<B: TestBackend>() {
    use job::JobSpec;
    use job::backend::CallerTransaction;

    // More than one command takes.
    const JOBS: usize = 2_500;
    let place = B::place().await;
    let mut jobs = service::<B>(&place).await;
    let spawner = B::add(&mut jobs, TestInitializer::completing("bulk"));
    assert!(spawner.spawn_all(Vec::new()).await.unwrap().is_empty());

    let mut specs: Vec<_> = (0..JOBS)
        .map(|at| JobSpec::new(JobId::new(), serde_json::json!(at)))
        .collect();
    let due_at = Utc::now() + TimeDelta::hours(1);
    specs[JOBS - 1] = specs[JOBS - 1].clone().schedule_at(due_at);
    let spawned = spawner.spawn_all(specs.clone()).await.unwrap();
    let (told, asked) = (spawned.iter().map(|job| &job.id), &specs);
    assert!(told.eq(asked.iter().map(|spec| &spec.id)));
    let last = jobs.find(specs[JOBS - 1].id).await.unwrap();
    let wait = last.due_at().unwrap() - due_at;
    assert!(wait.num_microseconds().unwrap().abs() <= 1, "{wait}");

    // In the last batch: the others are undone.
    let mut more: Vec<_> = (0..JOBS)
        .map(|_| JobSpec::new(JobId::new(), Value::Null))
        .collect();
    more[JOBS - 7].id = specs[0].id;
    let error = spawner.spawn_all(more.clone()).await.unwrap_err();
    assert!(matches!(error, JobError::DuplicateId(id) if id == specs[0].id));
    for at in [0, 1_000, JOBS - 1] {
        let found = jobs.find(more[at].id).await;
        assert!(matches!(found, Err(JobError::NotFound(_))));
    }
    more[JOBS - 7].id = more[3].id;
    let error = spawner.spawn_all(more.clone()).await.unwrap_err();
    assert!(matches!(error, JobError::DuplicateId(id) if id == more[3].id));

    more[JOBS - 7].id = JobId::new();
    let mut transaction = B::begin(jobs.pool()).await;
    let in_op = spawner.spawn_all_in_op(&mut transaction, more.clone());
    assert_eq!(in_op.await.unwrap().len(), JOBS);
    transaction.commit().await.unwrap();

    jobs.start_poll().await.unwrap();
    for spec in [&specs[0], &specs[JOBS - 2], &more[0], &more[JOBS - 1]] {
        ended(&jobs, spec.id).await;
    }
}

async fn many_jobs_run_once_each<B: TestBackend>() {
    const JOBS: usize = 500;
    let place = B::place().await;
    let mut jobs = service::<B>(&place).await;
    let ran = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&ran);
    let spawner = B::add(
        &mut jobs,
        TestInitializer::new("count", move |job, _| {
            keep.lock().unwrap().push(*job.id());
            async { Ok(JobCompletion::Complete) }
        }),
    );
    let mut ids: Vec<_> = (0..JOBS).map(|_| JobId::new()).collect();
    let mut transaction = B::begin(jobs.pool()).await;
    for id in &ids {
        spawner
            .spawn_in_op(&mut transaction, *id, Value::Null)
            .await
            .unwrap();
    }
    job::backend::CallerTransaction::<B>::commit(transaction)
        .await
        .unwrap();
    jobs.start_poll().await.unwrap();
    for id in &ids {
        assert_eq!(ended(&jobs, *id).await.attempt(), 1);
    }
    let mut ran = ran.lock().unwrap().clone();
    ran.sort();
    ids.sort();
    assert_eq!(ran, ids);
}
