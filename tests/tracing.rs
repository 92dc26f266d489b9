//! The spans, fields and events that operators alert on.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use job::{
    Backend, CurrentJob, JobCompletion, JobId, JobSpawner, JobSvcConfig, Jobs, Memory, Postgres,
    RetrySettings, RunTraces, Sqlite,
};
use opentelemetry::Context;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider,
};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use serde_json::Value;
use tracing::Instrument;
use tracing::field::{Field, Visit};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::layer::{Layer, SubscriberExt};

use crate::support::{TestBackend, TestInitializer, ended};

/// The spans of all tests, since the subscriber is that of the whole process.
fn exporter() -> &'static InMemorySpanExporter {
    static EXPORTER: OnceLock<(InMemorySpanExporter, SdkTracerProvider)> = OnceLock::new();
    let (exporter, _provider) = EXPORTER.get_or_init(|| {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder()
            .with_simple_exporter(exporter.clone())
            .build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::set_global_default(subscriber).expect("no other test sets one");
        (exporter, provider)
    });
    exporter
}

/// The finished spans of this name that are about this job.
fn spans_of(name: &str, id: JobId) -> Vec<SpanData> {
    let id = Some(id.to_string());
    let spans = exporter().get_finished_spans().unwrap().into_iter();
    spans
        .filter(|span| span.name == name && field(span, "job_id") == id)
        .collect()
}

/// A type whose jobs run twice: they reschedule themselves once.
fn twice() -> TestInitializer<Memory> {
    TestInitializer::new("again", |mut job, _| async move {
        match job.execution_state::<bool>() {
            Ok(None) => {
                let kept = job.update_execution_state(true).await;
                kept.map_err(|error| error.to_string())?;
                Ok(JobCompletion::RescheduleNow)
            }
            _ => Ok(JobCompletion::Complete),
        }
    })
}

fn field(span: &SpanData, name: &str) -> Option<String> {
    let fields = &mut span.attributes.iter();
    let field = fields.find(|field| field.key.as_str() == name)?;
    Some(field.value.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_have_their_names_and_fields() {
    let exporter = exporter();
    let mut jobs = Jobs::init(JobSvcConfig::memory().build().unwrap())
        .await
        .unwrap();
    let retry = RetrySettings {
        n_attempts: Some(2),
        min_backoff: Duration::from_millis(1),
        // On a slow machine, a run takes longer than a few milliseconds.
        attempt_reset_after_backoff_multiples: 0,
        ..RetrySettings::default()
    };
    let initializer = TestInitializer::new("flaky", |_, _| async { Err("no route".to_owned()) });
    let flaky = jobs.add_initializer(initializer.retry(retry));
    let again = jobs.add_initializer(twice());
    jobs.start_poll().await.unwrap();
    let (failing, good) = (JobId::new(), JobId::new());
    flaky.spawn(failing, Value::Null).await.unwrap();
    again.spawn(good, Value::Null).await.unwrap();
    ended(&jobs, failing).await;
    ended(&jobs, good).await;
    jobs.shutdown().await.unwrap();

    let spans = exporter.get_finished_spans().unwrap();
    let named = |name: &str| spans.iter().filter(|s| s.name == name).collect::<Vec<_>>();
    for name in [
        "job.poll_jobs",
        "job.detect_lost_jobs",
        "job.shutdown",
        "job.find",
    ] {
        assert!(!named(name).is_empty(), "{name}");
    }
    let of = |name: &str, id: JobId| {
        let id = Some(id.to_string());
        let spans = named(name).into_iter();
        spans
            .filter(|span| field(span, "job_id") == id)
            .collect::<Vec<_>>()
    };
    let runs = of("job.execute_job", failing);
    assert_eq!(runs.len(), 2);
    for (run, (attempt, level)) in runs.iter().zip([("1", "WARN"), ("2", "ERROR")]) {
        let expected = [
            ("job_type", "flaky"),
            ("attempt", attempt),
            ("conclusion", "Error"),
            ("error", "true"),
            ("error.message", "no route"),
            ("error.level", level),
        ];
        for (name, value) in expected {
            assert_eq!(field(run, name).as_deref(), Some(value), "{name}");
        }
        assert!(field(run, "poller_id").is_some());
    }
    let fails = of("job.fail_job", failing).into_iter();
    let will_retry: Vec<_> = fails
        .map(|span| field(span, "will_retry").unwrap())
        .collect();
    assert_eq!(will_retry, ["true", "false"]);
    assert_eq!(of("job.reschedule_job", good).len(), 1);
    assert_eq!(of("job.complete_job", good).len(), 1);
    let conclusions = of("job.execute_job", good).into_iter();
    let conclusions: Vec<_> = conclusions.map(|span| field(span, "conclusion")).collect();
    assert_eq!(
        conclusions,
        [Some("RescheduleNow".into()), Some("Complete".into())]
    );
}

/// As one that the runner returns; alone, and together with a transaction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_runner_gives_up_is_told_with_its_reason() {
    exporter();
    let mut jobs = Jobs::init(JobSvcConfig::memory().build().unwrap())
        .await
        .unwrap();
    let initializer =
        TestInitializer::new("declined", |job: CurrentJob<Memory>, in_tx| async move {
            let declined = JobCompletion::fail("the card has expired");
            Ok(match in_tx {
                Value::Bool(true) => declined.in_tx(job.pool().begin().await),
                _ => declined,
            })
        });
    let declined = jobs.add_initializer(initializer);
    jobs.start_poll().await.unwrap();
    let ids = [(false, "Fail"), (true, "FailWithTx")].map(|case| (JobId::new(), case));
    for (id, (in_tx, _)) in ids {
        declined.spawn(id, Value::Bool(in_tx)).await.unwrap();
        ended(&jobs, id).await;
    }
    jobs.shutdown().await.unwrap();
    for (id, (_, conclusion)) in ids {
        let runs = spans_of("job.execute_job", id);
        assert_eq!(runs.len(), 1);
        for (name, value) in [
            ("conclusion", conclusion),
            ("error.message", "the card has expired"),
            ("error.level", "ERROR"),
        ] {
            assert_eq!(field(&runs[0], name).as_deref(), Some(value), "{name}");
        }
        let failed = spans_of("job.fail_job", id);
        assert_eq!(failed.len(), 1, "{conclusion}");
        assert_eq!(field(&failed[0], "will_retry").as_deref(), Some("false"));
    }
}

async fn service(run_traces: Option<RunTraces>) -> (Jobs<Memory>, JobSpawner<Value, Memory>) {
    let mut config = JobSvcConfig::memory();
    if let Some(run_traces) = run_traces {
        config = config.run_traces(run_traces);
    }
    let mut jobs = Jobs::init(config.build().unwrap()).await.unwrap();
    let spawner = jobs.add_initializer(twice());
    jobs.start_poll().await.unwrap();
    (jobs, spawner)
}

/// What the spawn of its job is for a run.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Spawn {
    Parent,
    Link,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_run_is_in_the_trace_of_its_spawn_and_later_ones_link_to_it() {
    exporter();
    for (run_traces, expected) in [
        (None, [Spawn::Parent, Spawn::Link]),
        (Some(RunTraces::Auto), [Spawn::Parent, Spawn::Link]),
        (Some(RunTraces::ChildOfSpawn), [Spawn::Parent; 2]),
        (Some(RunTraces::Linked), [Spawn::Link; 2]),
    ] {
        let (jobs, spawner) = service(run_traces).await;
        let id = JobId::new();
        let request = tracing::info_span!("request");
        let spawned = spawner.spawn(id, Value::Null).instrument(request);
        spawned.await.unwrap();
        ended(&jobs, id).await;
        jobs.shutdown().await.unwrap();
        let spawn = &spans_of("job_spawner.spawn", id)[0].span_context;
        let runs = spans_of("job.execute_job", id);
        let seen: Vec<_> = runs.iter().map(|run| relation(run, spawn)).collect();
        assert_eq!(seen, expected, "{run_traces:?}");
    }
}

fn relation(run: &SpanData, spawn: &SpanContext) -> Spawn {
    let same_trace = run.span_context.trace_id() == spawn.trace_id();
    let links: Vec<_> = run.links.iter().map(|l| l.span_context.span_id()).collect();
    if same_trace {
        assert_eq!(run.parent_span_id, spawn.span_id());
        assert_eq!(links, []);
        Spawn::Parent
    } else {
        assert_eq!(run.parent_span_id, SpanId::INVALID, "it is a root");
        assert_eq!(links, [spawn.span_id()]);
        Spawn::Link
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_trace_state_of_the_caller_goes_on_in_the_run() {
    exporter();
    let (jobs, spawner) = service(None).await;
    let caller = SpanContext::new(
        TraceId::from(0xaaaa_u128),
        SpanId::from(0xbbbb_u64),
        TraceFlags::SAMPLED,
        true,
        TraceState::from_key_value([("vendor", "p:8"), ("other", "x")]).unwrap(),
    );
    let request = tracing::info_span!("request");
    let parent = Context::new().with_remote_span_context(caller);
    request.set_parent(parent).unwrap();
    let id = JobId::new();
    let spawned = spawner.spawn(id, Value::Null).instrument(request);
    spawned.await.unwrap();
    ended(&jobs, id).await;
    jobs.shutdown().await.unwrap();
    let runs = spans_of("job.execute_job", id);
    assert_eq!(runs[0].span_context.trace_id(), TraceId::from(0xaaaa_u128));
    let states = [
        runs[0].span_context.trace_state(),
        runs[1].links[0].span_context.trace_state(),
    ];
    for state in states {
        assert_eq!(state.header(), "vendor=p:8,other=x");
    }
}

/// Keeps what the events say that are of a text.
#[derive(Clone)]
struct Said {
    text: &'static str,
    events: Arc<Mutex<Vec<String>>>,
}

impl Said {
    fn with(text: &'static str) -> Self {
        let events = Arc::default();
        Self { text, events }
    }
}

impl<S: tracing::Subscriber> Layer<S> for Said {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        let mut text = Text(format!("{} ", event.metadata().level()));
        event.record(&mut text);
        if text.0.contains(self.text) {
            self.events.lock().unwrap().push(text.0);
        }
    }
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push_str(&format!("{}={value:?} ", field.name()));
    }
}

/// What is said when a worker of this service starts.
async fn said_at_start<B: Backend>(config: JobSvcConfig<B>) -> String {
    let starts = Said::with("polling for jobs");
    let subscriber = tracing_subscriber::registry().with(starts.clone());
    let _guard = tracing::subscriber::set_default(subscriber);
    let mut jobs = Jobs::init(config).await.unwrap();
    jobs.add_initializer(TestInitializer::completing("mail"));
    jobs.add_initializer(TestInitializer::completing("report"));
    jobs.start_poll().await.unwrap();
    jobs.shutdown().await.unwrap();
    let said = starts.events.lock().unwrap();
    assert_eq!(said.len(), 1, "{said:?}");
    said[0].clone()
}

fn assert_says(said: &str, what: &[&str]) {
    for what in what {
        assert!(said.contains(what), "{what} is not in {said}");
    }
}

#[tokio::test]
async fn one_event_says_where_and_how_a_worker_starts_and_no_secret() {
    let said = said_at_start(JobSvcConfig::memory().build().unwrap()).await;
    let version = format!("version={:?}", env!("CARGO_PKG_VERSION"));
    assert_says(
        &said,
        &[
            "INFO",
            &version,
            r#"backend="memory""#,
            r#"types="mail, report""#,
            "max_jobs_per_process=50",
            "listens=true",
            "poll_interval=15s",
        ],
    );
    assert!(
        !said.contains("schema") && !said.contains("pool_size"),
        "{said}"
    );

    let place = Sqlite::place().await;
    let said = said_at_start(Sqlite::on(&place).build().unwrap()).await;
    assert_says(
        &said,
        &[r#"backend="sqlite""#, "listens=true", "pool_size="],
    );

    let place = Postgres::place().await;
    let url = place.url();
    let (user, host) = url
        .rsplit_once('@')
        .expect("the URL of the server has a user");
    let url = match user.matches(':').count() {
        // Where everybody is trusted, it is sent and not looked at.
        1 => format!("{user}:hunter2@{host}"),
        _ => url.clone(),
    };
    let config = JobSvcConfig::builder().pg_con(&url).max_connections(7);
    let config = config.schema("ops").poll_only(true);
    let said = said_at_start(config.build().unwrap()).await;
    assert_says(
        &said,
        &[
            r#"backend="postgres""#,
            r#"schema="ops""#,
            "listens=false",
            "poll_interval=1s",
            "pool_size=7",
        ],
    );
    for secret in ["hunter2", host, "postgres://"] {
        assert!(!said.contains(secret), "{secret} is in {said}");
    }
}

#[tokio::test]
async fn a_worker_that_runs_nothing_is_warned_of_with_what_to_do() {
    let warnings = Said::with("nothing is registered");
    let subscriber = tracing_subscriber::registry().with(warnings.clone());
    let _guard = tracing::subscriber::set_default(subscriber);
    for (registers, warned) in [(true, 0), (false, 1)] {
        let mut jobs = JobSvcConfig::memory().await.unwrap();
        if registers {
            jobs.add_initializer(TestInitializer::completing("mail"));
        }
        jobs.start_poll().await.unwrap();
        jobs.shutdown().await.unwrap();
        let said = std::mem::take(&mut *warnings.events.lock().unwrap());
        assert_eq!(said.len(), warned, "{said:?}");
        for text in said {
            assert_says(&text, &["WARN", "call add_task", "before start_poll"]);
        }
    }
}
