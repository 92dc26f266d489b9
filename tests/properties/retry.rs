//! Whatever the settings are and however runs end: the attempts, the waits and the
//! end of a job are those that its settings promise.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, Utc};
use job::{
    ArtificialClockConfig, ClockHandle, CurrentJob, Job, JobCompletion, JobEventKind, JobId,
    JobState, Jobs, Memory, Postgres, RetrySettings, Sqlite,
};
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestCaseResult, TestRunner};
use serde_json::Value;

use super::{config, runtime};
use crate::support::{TestBackend, TestInitializer};

/// How one run goes.
#[derive(Clone, Copy, Debug)]
struct Run {
    takes: Duration,
    end: End,
}

#[derive(Clone, Copy, Debug)]
enum End {
    Fails,
    RunsAgainNow,
    RunsAgainIn(Duration),
    RunsAgainAt(Duration),
    Snoozes(Duration),
    GivesUp,
}

fn seconds(range: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_secs)
}

fn run() -> impl Strategy<Value = Run> {
    let takes = prop_oneof![
        3 => Just(Duration::ZERO),
        2 => seconds(0..20),
        1 => seconds(0..2_000),
    ];
    let end = prop_oneof![
        6 => Just(End::Fails),
        1 => Just(End::RunsAgainNow),
        1 => seconds(0..100).prop_map(End::RunsAgainIn),
        1 => seconds(0..100).prop_map(End::RunsAgainAt),
        1 => seconds(0..100).prop_map(End::Snoozes),
        1 => Just(End::GivesUp),
    ];
    (takes, end).prop_map(|(takes, end)| Run { takes, end })
}

fn settings() -> impl Strategy<Value = RetrySettings> {
    let attempts = || proptest::option::of(0..8_u32);
    let durations = prop_oneof![
        1 => Just((Duration::ZERO, Duration::from_secs(60))),
        1 => (seconds(0..30), seconds(0..600)),
        // So short that runs often take just as long as decides.
        1 => (seconds(1..3), seconds(0..8)),
    ];
    (attempts(), attempts(), durations, any::<u8>(), 0..5_u32).prop_map(
        |(n_attempts, n_warn_attempts, (min, max), jitter, multiples)| RetrySettings {
            n_attempts,
            n_warn_attempts,
            min_backoff: min,
            max_backoff: max,
            backoff_jitter_pct: jitter,
            attempt_reset_after_backoff_multiples: multiples,
        },
    )
}

/// The wait after this attempt, without jitter: it doubles up to the longest.
fn backoff(settings: &RetrySettings, attempt: u32) -> Duration {
    let mut wait = settings.min_backoff;
    for _ in 1..attempt {
        wait = (wait * 2).min(settings.max_backoff);
    }
    wait.min(settings.max_backoff)
}

/// When each run began, by its own clock, and as which attempt.
type Starts = Arc<Mutex<Vec<(u32, DateTime<Utc>)>>>;

/// A runner whose n-th run goes as the script says; after that it completes.
fn scripted<B: TestBackend>(script: Vec<Run>, starts: Starts) -> TestInitializer<B> {
    TestInitializer::new("scripted", move |job: CurrentJob<B>, _| {
        let began = job.clock().now();
        let mut starts = starts.lock().unwrap();
        let run = script.get(starts.len()).copied();
        starts.push((job.attempt(), began));
        async move {
            let Some(run) = run else {
                return Ok(JobCompletion::Complete);
            };
            job.clock().sleep(run.takes).await;
            match run.end {
                End::Fails => Err("as the script says".to_owned()),
                End::RunsAgainNow => Ok(JobCompletion::RescheduleNow),
                End::RunsAgainIn(wait) => Ok(JobCompletion::RescheduleIn(wait)),
                End::RunsAgainAt(wait) => Ok(JobCompletion::RescheduleAt(job.clock().now() + wait)),
                End::Snoozes(wait) => Ok(JobCompletion::snooze_in(wait)),
                End::GivesUp => Ok(JobCompletion::fail("as the script says")),
            }
        }
    })
}

/// Runs a job to its end on artificial time.
async fn play<B: TestBackend>(settings: &RetrySettings, script: &[Run]) -> (Job, Starts) {
    let place = B::place().await;
    let (clock, controller) = ClockHandle::artificial(ArtificialClockConfig::manual());
    let config = B::on(&place).clock(clock).build().unwrap();
    let mut jobs = Jobs::init(config).await.unwrap();
    let starts = Starts::default();
    let initializer = scripted(script.to_vec(), Arc::clone(&starts));
    let spawner = jobs.add_initializer(initializer.retry(settings.clone()));
    jobs.start_poll().await.unwrap();
    let id = JobId::new();
    spawner.spawn(id, Value::Null).await.unwrap();
    let job = loop {
        let job = jobs.find(id).await.unwrap();
        if job.completed() {
            break job;
        }
        controller.advance_to_next_wake().await;
    };
    let shutdown = jobs.shutdown();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            biased;
            done = &mut shutdown => break done.unwrap(),
            _ = controller.advance_to_next_wake() => {}
        }
    }
    (job, starts)
}

/// What the settings promise, step by step.
fn judge(settings: &RetrySettings, script: &[Run], job: &Job, starts: &Starts) -> TestCaseResult {
    let starts = starts.lock().unwrap();
    let mut ends = job.events().iter().filter(|event| {
        !matches!(
            event.kind,
            JobEventKind::Spawned | JobEventKind::Started { .. }
        )
    });
    let mut attempt = 1;
    let mut due = job.events()[0].at;
    for (n, (began_as, began)) in starts.iter().enumerate() {
        prop_assert_eq!(*began_as, attempt, "the attempt of run {}", n);
        prop_assert!(*began >= due, "run {} began early", n);
        // The service knows of the job, so it need not be looked for.
        prop_assert!(
            *began <= due + Duration::from_secs(1),
            "run {} began late",
            n
        );
        let event = ends
            .next()
            .ok_or_else(|| TestCaseError::fail("an end is missing"))?;
        let Some(Run { takes, end }) = script.get(n).copied() else {
            prop_assert_eq!(&event.kind, &JobEventKind::Completed);
            prop_assert_eq!(job.state(), JobState::Completed);
            break;
        };
        prop_assert!(event.at >= *began + takes);
        due = match (end, &event.kind) {
            (
                End::Fails,
                JobEventKind::Failed {
                    attempt: failed,
                    retry_at,
                    ..
                },
            ) => {
                prop_assert_eq!(*failed, attempt);
                let healthy = was_healthy(settings, attempt, takes);
                let last = settings.n_attempts.is_some_and(|n| attempt >= n);
                prop_assert!(healthy || !last, "attempt {} was the last", attempt);
                attempt = if healthy { 1 } else { attempt + 1 };
                let failed_as = if healthy { 1 } else { attempt - 1 };
                let wait = (*retry_at - event.at).to_std().unwrap_or_default();
                let base = backoff(settings, failed_as);
                let spread = base * u32::from(settings.backoff_jitter_pct.min(100)) / 100;
                let most = (base + spread).min(settings.max_backoff);
                // Stores round to microseconds.
                prop_assert!(wait + Duration::from_micros(1) >= base - spread, "{wait:?}");
                prop_assert!(
                    wait <= most + Duration::from_micros(1),
                    "{wait:?} > {most:?}"
                );
                *retry_at
            }
            (
                End::Fails,
                JobEventKind::Errored {
                    attempt: failed, ..
                },
            ) => {
                prop_assert_eq!(*failed, attempt);
                prop_assert!(!was_healthy(settings, attempt, takes));
                let last = settings.n_attempts.is_some_and(|n| attempt >= n);
                prop_assert!(last, "gave up after attempt {}", attempt);
                prop_assert_eq!(job.state(), JobState::Errored);
                prop_assert_eq!(starts.len(), n + 1, "it ran after its end");
                break;
            }
            (End::RunsAgainNow, JobEventKind::Rescheduled { due_at }) => {
                attempt = 1;
                prop_assert_eq!(*due_at, event.at);
                *due_at
            }
            (End::RunsAgainIn(wait), JobEventKind::Rescheduled { due_at }) => {
                attempt = 1;
                prop_assert_eq!(*due_at, event.at + wait);
                *due_at
            }
            (End::RunsAgainAt(wait), JobEventKind::Rescheduled { due_at }) => {
                attempt = 1;
                prop_assert_eq!(*due_at, *began + takes + wait);
                *due_at
            }
            (End::Snoozes(wait), JobEventKind::Snoozed { due_at }) => {
                prop_assert_eq!(*due_at, event.at + wait);
                *due_at
            }
            (
                End::GivesUp,
                JobEventKind::Errored {
                    attempt: failed,
                    error,
                },
            ) => {
                prop_assert_eq!(*failed, attempt);
                prop_assert_eq!(error, "as the script says");
                prop_assert_eq!(job.state(), JobState::Errored);
                prop_assert_eq!(starts.len(), n + 1, "it ran after its end");
                break;
            }
            (end, kind) => {
                let text = format!("{end:?} was recorded as {kind:?}");
                return Err(TestCaseError::fail(text));
            }
        };
    }
    prop_assert!(ends.next().is_none(), "an end too many");
    Ok(())
}

/// Whether a run took longer than so many times the longest wait.
fn was_healthy(settings: &RetrySettings, attempt: u32, took: Duration) -> bool {
    let multiples = settings.attempt_reset_after_backoff_multiples;
    let threshold = settings.max_backoff * multiples;
    attempt > 1 && !threshold.is_zero() && took > threshold
}

fn check<B: TestBackend>(cases: u32) {
    let runtime = runtime();
    let cases_of_it = (settings(), proptest::collection::vec(run(), 0..12));
    let mut runner = TestRunner::new(config(cases));
    let checked = runner.run(&cases_of_it, |(settings, script)| {
        let (job, starts) = runtime.block_on(play::<B>(&settings, &script));
        judge(&settings, &script, &job, &starts)
    });
    checked.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn retries_keep_to_their_settings_in_memory() {
    check::<Memory>(60);
}

#[test]
fn retries_keep_to_their_settings_on_sqlite() {
    check::<Sqlite>(10);
}

#[test]
fn retries_keep_to_their_settings_on_postgres() {
    check::<Postgres>(10);
}
