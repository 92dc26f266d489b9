//! Odd, large and wrong input.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use job::error::JobError;
use job::{
    ClockHandle, JobCompletion, JobEvent, JobEventKind, JobId, JobPollerConfig, JobState, Jobs,
    RetrySettings,
};
use serde_json::{Value, json};

use super::{at_once, service, service_on};
use crate::support::{TestBackend, TestInitializer, ended, eventually};

pub(super) async fn a_duplicate_id_is_refused_and_changes_nothing<B: TestBackend>() {
    let place = B::place().await;
    let mut jobs = service::<B>(&place).await;
    let spawner = B::add(&mut jobs, TestInitializer::completing("once"));
    let id = JobId::new();
    spawner.spawn(id, json!("first")).await.unwrap();
    let again = spawner.spawn(id, json!("second")).await;
    assert!(
        matches!(again, Err(JobError::DuplicateId(of)) if of == id),
        "{again:?}"
    );
    let job = jobs.find(id).await.unwrap();
    assert_eq!(job.config::<String>().unwrap(), "first");
    // In a transaction, too, which goes on.
    let mut transaction = B::begin(jobs.pool()).await;
    let again = spawner
        .spawn_in_op(&mut transaction, id, json!("third"))
        .await;
    assert!(matches!(again, Err(JobError::DuplicateId(_))), "{again:?}");
    let other = JobId::new();
    spawner
        .spawn_in_op(&mut transaction, other, json!("fourth"))
        .await
        .unwrap();
    job::backend::CallerTransaction::<B>::commit(transaction)
        .await
        .unwrap();
    jobs.find(other).await.unwrap();
}

pub(super) async fn the_past_is_now_and_the_far_future_is_pending<B: TestBackend>() {
    let place = B::place().await;
    let mut jobs = service::<B>(&place).await;
    let spawner = B::add(&mut jobs, TestInitializer::completing("timely"));
    jobs.start_poll().await.unwrap();
    let (past, future) = (JobId::new(), JobId::new());
    let far = chrono::DateTime::<Utc>::MAX_UTC;
    spawner.spawn_at(future, Value::Null, far).await.unwrap();
    let long_ago = chrono::DateTime::<Utc>::MIN_UTC;
    spawner.spawn_at(past, Value::Null, long_ago).await.unwrap();
    ended(&jobs, past).await;
    let job = jobs.find(future).await.unwrap();
    assert_eq!(job.state(), JobState::Pending);
    assert!(job.due_at().unwrap().to_rfc3339().starts_with("9999-12-31"));
}

pub(super) async fn a_large_config_and_nul_characters_come_back_whole<B: TestBackend>() {
    let place = B::place().await;
    let mut jobs = service::<B>(&place).await;
    let same = Arc::new(AtomicBool::new(false));
    let tell = Arc::clone(&same);
    let config = json!({"big": "x".repeat(10 << 20), "nul": "a\0b", "text": "\u{1f980}"});
    let expected = config.clone();
    let initializer = TestInitializer::new("large", move |mut job, config| {
        let tell = Arc::clone(&tell);
        let same = config == expected;
        async move {
            job.update_execution_state(&config).await.unwrap();
            let kept = job.execution_state::<Value>().unwrap();
            tell.store(same && kept == Some(config), Ordering::SeqCst);
            Ok(JobCompletion::Complete)
        }
    });
    let spawner = B::add(&mut jobs, initializer);
    jobs.start_poll().await.unwrap();
    let id = JobId::new();
    spawner.spawn(id, config).await.unwrap();
    ended(&jobs, id).await;
    assert!(same.load(Ordering::SeqCst));
    // There is a limit, and it is told.
    let beyond = json!("x".repeat(65 << 20));
    let refused = spawner.spawn(JobId::new(), beyond).await.unwrap_err();
    assert!(matches!(refused, JobError::Rejected(_)));
    assert!(
        refused.to_string().contains("at most 67108864 are allowed"),
        "{refused}"
    );
}

pub(super) async fn a_config_that_nobody_can_decode_ends_the_job_after_an_hour<B: TestBackend>() {
    let place = B::place().await;
    let (clock, controller) = ClockHandle::manual();
    let mut jobs = service_on::<B>(&place, clock).await;
    let spawner = jobs.add_initializer(typed::Typed);
    jobs.start_poll().await.unwrap();
    let id = JobId::new();
    spawner
        .spawn(id, typed::Config::Text("seven".to_owned()))
        .await
        .unwrap();
    let job = eventually("the job ends", async || {
        controller.advance(Duration::from_secs(60)).await;
        let job = jobs.find(id).await.ok()?;
        job.completed().then_some(job)
    })
    .await;
    assert_eq!((job.state(), job.attempt()), (JobState::Errored, 1));
    let error = job.last_error().unwrap();
    let what = "the config of a job of type `typed` does not decode: invalid type: string";
    assert!(error.contains(what), "{error}");
    let tried = |event: &JobEvent| matches!(event.kind, JobEventKind::Undecodable { .. });
    // It was tried more often than is read at once.
    let earlier = jobs.history(id, job.earlier().unwrap()).await.unwrap();
    let first = earlier.events.iter().find(|event| tried(event)).unwrap();
    let lasted = job.events().last().unwrap().at - first.at;
    assert!(
        lasted >= TimeDelta::hours(1) && lasted < TimeDelta::hours(2),
        "{lasted}"
    );
}

mod typed {
    //! A type whose config was written by an older version of the program.

    use super::*;
    use job::{Job, JobInitializer, JobRunner, JobSpawner, JobType};

    #[derive(serde::Serialize, serde::Deserialize)]
    #[serde(untagged)]
    pub enum Config {
        Text(String),
    }

    pub struct Typed;

    impl<B: TestBackend> JobInitializer<B> for Typed {
        type Config = Config;

        fn job_type(&self) -> JobType {
            JobType::new("typed")
        }

        fn retry_on_error_settings(&self) -> RetrySettings {
            at_once(2)
        }

        fn init(
            &self,
            job: &Job,
            _: JobSpawner<Config, B>,
        ) -> Result<Box<dyn JobRunner<B>>, Box<dyn std::error::Error>> {
            let number: u32 = job.config()?;
            Err(format!("nobody expects {number}").into())
        }
    }
}

pub(super) async fn an_initializer_that_panics_counts_as_an_error<B: TestBackend>() {
    let place = B::place().await;
    let mut jobs = service::<B>(&place).await;
    let spawner = jobs.add_initializer(panicking::Panicking);
    jobs.start_poll().await.unwrap();
    let id = JobId::new();
    spawner.spawn(id, ()).await.unwrap();
    let job = ended(&jobs, id).await;
    assert_eq!(
        job.last_error(),
        Some("the runner panicked: no runner today")
    );
}

mod panicking {
    use super::*;
    use job::{Job, JobInitializer, JobRunner, JobSpawner, JobType};

    pub struct Panicking;

    impl<B: TestBackend> JobInitializer<B> for Panicking {
        type Config = ();

        fn job_type(&self) -> JobType {
            JobType::new("panicking")
        }

        fn retry_on_error_settings(&self) -> RetrySettings {
            at_once(1)
        }

        fn init(
            &self,
            _: &Job,
            _: JobSpawner<(), B>,
        ) -> Result<Box<dyn JobRunner<B>>, Box<dyn std::error::Error>> {
            panic!("no runner today")
        }
    }
}

pub(super) async fn absurd_settings_do_no_harm<B: TestBackend>() {
    let place = B::place().await;
    let poller = JobPollerConfig {
        job_lost_interval: Duration::MAX,
        max_jobs_per_process: usize::MAX,
        min_jobs_per_process: 0,
        shutdown_timeout: Duration::ZERO,
    };
    let config = B::on(&place)
        .poller_config(poller)
        .poll_interval(Duration::MAX);
    let mut jobs = Jobs::init(config.build().unwrap()).await.unwrap();
    let retry = RetrySettings {
        n_attempts: Some(0),
        n_warn_attempts: Some(u32::MAX),
        min_backoff: Duration::MAX,
        max_backoff: Duration::MAX,
        backoff_jitter_pct: 255,
        attempt_reset_after_backoff_multiples: u32::MAX,
    };
    let failing = || TestInitializer::new("failing", |_, _| async { Err("no".to_owned()) });
    let once = B::add(&mut jobs, failing().retry(retry.clone()));
    let initializer = TestInitializer::new("patient", |job, _| async move {
        match job.attempt() {
            1 => Err("no".to_owned()),
            _ => Ok(JobCompletion::RescheduleIn(Duration::MAX)),
        }
    });
    let patient = B::add(
        &mut jobs,
        initializer.retry(RetrySettings {
            n_attempts: None,
            ..retry
        }),
    );
    jobs.start_poll().await.unwrap();
    let (errored, waiting) = (JobId::new(), JobId::new());
    once.spawn(errored, Value::Null).await.unwrap();
    patient.spawn(waiting, Value::Null).await.unwrap();
    assert_eq!(ended(&jobs, errored).await.attempt(), 1);
    let job = eventually("the job waits", async || {
        let job = jobs.find(waiting).await.unwrap();
        (job.attempt() == 2).then_some(job)
    })
    .await;
    assert!(job.due_at().unwrap().to_rfc3339().starts_with("9999-12-31"));
    jobs.shutdown().await.unwrap();
}
