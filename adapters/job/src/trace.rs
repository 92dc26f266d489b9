//! The trace context of a spawn, and what it is for the runs.
//!
//! Stored as a W3C `traceparent`, and behind a newline the `tracestate` if there is one
//! (<https://www.w3.org/TR/trace-context/>).

use std::time::Duration;

use job_engine::Fence;
use tracing::Span;

/// A run that starts so soon after the spawn belongs to what spawned it.
const SOON: Duration = Duration::from_secs(60);

/// How the trace of a run hangs together with that in which its job was spawned.
///
/// The trace of the spawn is not made longer by jobs that live long: a job that
/// reschedules itself for months would hang all of its runs into the trace of the deploy
/// that spawned it; and if that was not sampled, none of them would ever be seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RunTraces {
    /// The first run of a job is a child of the spawn if it starts within a minute of it.
    /// Each other run has a trace of its own, with a link to the spawn.
    #[default]
    Auto,
    /// Each run is a child of the spawn.
    ChildOfSpawn,
    /// Each run has a trace of its own, with a link to the spawn.
    Linked,
}

/// What the spawn is for the span of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relation {
    Parent,
    Link,
}

impl RunTraces {
    /// For a run with this fence, which starts so long after the spawn.
    pub(crate) fn of_run(self, fence: Fence, age: Duration) -> Relation {
        match self {
            Self::ChildOfSpawn => Relation::Parent,
            Self::Linked => Relation::Link,
            // The first fence of a job is 1.
            Self::Auto if fence == Fence(1) && age <= SOON => Relation::Parent,
            Self::Auto => Relation::Link,
        }
    }
}

#[cfg(feature = "opentelemetry")]
pub(crate) use with_opentelemetry::{current, relate};

#[cfg(feature = "opentelemetry")]
mod with_opentelemetry {
    use std::str::FromStr;

    use job_engine::limits::TRACE_LEN_MAX;
    use job_tokio::guarded::guarded;
    use opentelemetry::Context;
    use opentelemetry::trace::{
        SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState,
    };
    use tracing_opentelemetry::OpenTelemetrySpanExt;

    use super::{Relation, Span};

    /// The trace context of the current span, if it is part of a trace.
    pub(crate) fn current() -> Option<String> {
        // A spawn does not fail by its trace.
        guarded(|| {
            let context = Span::current().context();
            let span = context.span();
            let of_span = span.span_context();
            of_span.is_valid().then(|| written(of_span))
        })
        .flatten()
    }

    /// Makes the stored trace context the parent of `span`, or links to it. A text that is
    /// none is ignored: a job must run whatever its trace says.
    pub(crate) fn relate(span: &Span, of_spawn: Option<&str>, relation: Relation) {
        let Some(of_spawn) = of_spawn.and_then(read) else {
            return;
        };
        match relation {
            Relation::Parent => {
                // The error says that no OpenTelemetry layer is installed.
                let _ = span.set_parent(Context::new().with_remote_span_context(of_spawn));
            }
            Relation::Link => span.add_link(of_spawn),
        }
    }

    fn written(context: &SpanContext) -> String {
        let parent = format!(
            "00-{}-{}-{:02x}",
            context.trace_id(),
            context.span_id(),
            context.trace_flags()
        );
        let state = context.trace_state().header();
        // What a header cannot carry, a store may refuse.
        let fits = !state.is_empty()
            && parent.len() + 1 + state.len() <= TRACE_LEN_MAX
            && state.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        if fits {
            format!("{parent}\n{state}")
        } else {
            parent
        }
    }

    fn read(text: &str) -> Option<SpanContext> {
        let (parent, state) = text.split_once('\n').unwrap_or((text, ""));
        let mut parts = parent.split('-');
        let (_version, trace, span, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let context = SpanContext::new(
            TraceId::from_hex(trace).ok()?,
            SpanId::from_hex(span).ok()?,
            TraceFlags::new(u8::from_str_radix(flags, 16).ok()?),
            true,
            TraceState::from_str(state).unwrap_or_default(),
        );
        context.is_valid().then_some(context)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

        #[test]
        fn a_trace_context_is_read_and_anything_else_is_ignored() {
            let context = read(PARENT).unwrap();
            assert_eq!(context.span_id().to_string(), "b7ad6b7169203331");
            assert!(context.is_sampled() && context.is_remote());
            for bad in [
                "",
                "00",
                "00-x-y-z",
                "00-00000000000000000000000000000000-b7ad6b7169203331-01",
                "\nvendor=1",
            ] {
                assert!(read(bad).is_none(), "{bad}");
            }
        }

        #[test]
        fn the_trace_state_is_kept_where_it_fits() {
            let text = format!("{PARENT}\nvendor=p:8,other=b");
            let context = read(&text).unwrap();
            assert_eq!(context.trace_state().get("vendor"), Some("p:8"));
            assert_eq!(written(&context), text);
            // A state that is none does not cost the parent.
            assert_eq!(
                written(&read(&format!("{PARENT}\nnothing")).unwrap()),
                PARENT
            );
            let long = (0..10).map(|n| (format!("vendor{n}"), "x".repeat(200)));
            for state in [
                TraceState::from_key_value(long).unwrap(),
                TraceState::from_key_value([("vendor", "a\0b")]).unwrap(),
            ] {
                let (trace, span) = (context.trace_id(), context.span_id());
                let context = SpanContext::new(trace, span, context.trace_flags(), true, state);
                assert_eq!(written(&context), PARENT);
            }
        }
    }
}

#[cfg(not(feature = "opentelemetry"))]
pub(crate) fn current() -> Option<String> {
    None
}

#[cfg(not(feature = "opentelemetry"))]
pub(crate) fn relate(_: &Span, _: Option<&str>, _: Relation) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_first_run_that_starts_soon_is_a_child_of_the_spawn() {
        let (soon, late) = (SOON, SOON + Duration::from_micros(1));
        for (fence, age, relation) in [
            (1, soon, Relation::Parent),
            (1, late, Relation::Link),
            (2, soon, Relation::Link),
        ] {
            assert_eq!(RunTraces::Auto.of_run(Fence(fence), age), relation);
            let of_run = |traces: RunTraces| traces.of_run(Fence(fence), age);
            assert_eq!(of_run(RunTraces::ChildOfSpawn), Relation::Parent);
            assert_eq!(of_run(RunTraces::Linked), Relation::Link);
        }
    }
}
