//! The spans and fields that operators alert on.

use std::time::Duration;

use job::{JobCompletion, JobId, JobSvcConfig, Jobs, RetrySettings};
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use serde_json::Value;
use tracing::Instrument;
use tracing_subscriber::layer::SubscriberExt;

use crate::support::{TestInitializer, ended};

fn field(span: &SpanData, name: &str) -> Option<String> {
    let fields = &mut span.attributes.iter();
    let field = fields.find(|field| field.key.as_str() == name)?;
    Some(field.value.to_string())
}

/// One test, since the subscriber is that of the whole process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_have_their_names_fields_and_parents() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::set_global_default(subscriber).expect("no other test sets one");

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
    let initializer = TestInitializer::new("again", |job, _| async move {
        match job.execution_state::<bool>() {
            Ok(None) => {
                let mut job = job;
                job.update_execution_state(true)
                    .await
                    .map_err(|error| error.to_string())?;
                Ok(JobCompletion::RescheduleNow)
            }
            _ => Ok(JobCompletion::Complete),
        }
    });
    let again = jobs.add_initializer(initializer);
    jobs.start_poll().await.unwrap();
    let (failing, good) = (JobId::new(), JobId::new());
    flaky.spawn(failing, Value::Null).await.unwrap();
    let request = tracing::info_span!("request");
    again
        .spawn(good, Value::Null)
        .instrument(request)
        .await
        .unwrap();
    ended(&jobs, failing).await;
    ended(&jobs, good).await;
    jobs.shutdown().await.unwrap();
    provider.force_flush().unwrap();

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

    // The trace of the request goes on in the runs.
    let request = named("request")[0].span_context.clone();
    let spawn = of("job_spawner.spawn", good)[0];
    assert_eq!(spawn.parent_span_id, request.span_id());
    for run in of("job.execute_job", good) {
        assert_eq!(run.span_context.trace_id(), request.trace_id());
        assert_eq!(run.parent_span_id, spawn.span_context.span_id());
    }
}
