//! What the code of others must not take down: their panics stop here.
//!
//! Destructors of runners, payloads of panics and layers of `tracing` are the
//! application's, and each of them may panic. Whatever of theirs is called or dropped in a
//! task of the driver goes through this module.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;

use tokio::task::JoinError;
use tracing::Span;

/// What somebody panicked with. It can be dropped, also if dropping it panics.
pub struct Panic(Option<Box<dyn Any + Send>>);

impl Panic {
    /// Its text, if it has one.
    pub fn message(&self) -> &str {
        let payload = self.0.as_deref().expect("it is there until it is dropped");
        let text = payload.downcast_ref::<&str>().copied();
        text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message")
    }

    /// How a task ended that nobody awaited to end so; `None` if it was cancelled, as all
    /// are when their runtime is dropped.
    pub fn of_task(error: JoinError) -> Option<Self> {
        error.try_into_panic().ok().map(Self::from)
    }
}

impl From<Box<dyn Any + Send>> for Panic {
    fn from(payload: Box<dyn Any + Send>) -> Self {
        Self(Some(payload))
    }
}

impl Drop for Panic {
    fn drop(&mut self) {
        let payload = self.0.take();
        if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            // It may do so for ever.
            std::mem::forget(again);
        }
    }
}

impl std::fmt::Debug for Panic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Panic").field(&self.message()).finish()
    }
}

/// Calls what may panic without harm, such as a layer of `tracing`. `None` if it does.
pub fn guarded<T>(call: impl FnOnce() -> T) -> Option<T> {
    caught_call(call).ok()
}

fn caught_call<T>(call: impl FnOnce() -> T) -> Result<T, Panic> {
    catch_unwind(AssertUnwindSafe(call)).map_err(Panic::from)
}

/// Awaits what may panic when it is made, awaited, or dropped at its end.
///
/// It is made where it stays: a future that is handed from one to the next is copied, and
/// takes room, in each of them. Those of runs are large, and there is one for each job.
///
/// # Errors
///
/// What it panicked with.
pub async fn caught<F: Future>(make: impl FnOnce() -> F) -> Result<F::Output, Panic> {
    use futures_util::FutureExt;

    // It is dropped within what catches panics.
    AssertUnwindSafe(async move { make().await })
        .catch_unwind()
        .await
        .map_err(Panic::from)
}

/// Polls and drops a future in a span, as [`tracing::Instrument`] does. A layer that panics
/// when the span is entered, left or closed changes nothing for the future. That is made
/// where it stays, as in [`caught`].
pub async fn traced<F: Future>(span: GuardedSpan, make: impl FnOnce() -> F) -> F::Output {
    // The three are dropped in the opposite order: what is left of a future that is
    // dropped before its end is dropped in the span, too.
    let _leaves = Leaves(&span);
    let mut future = pin!(make());
    let _enters = Enters(&span);
    poll_fn(|cx| {
        let _within = span.within();
        future.as_mut().poll(cx)
    })
    .await
}

/// A span for [`traced`].
#[derive(Debug)]
pub struct GuardedSpan(Option<Span>);

impl GuardedSpan {
    /// The span that is made; no span at all if a layer panics meanwhile.
    pub fn new(make: impl FnOnce() -> Span) -> Self {
        Self(guarded(make))
    }

    fn within(&self) -> Leaves<'_> {
        self.enter();
        Leaves(self)
    }

    fn enter(&self) {
        if let Some(span) = &self.0 {
            guarded(|| span.with_subscriber(|(id, subscriber)| subscriber.enter(id)));
        }
    }

    /// Also what was entered by half.
    fn leave(&self) {
        if let Some(span) = &self.0 {
            guarded(|| span.with_subscriber(|(id, subscriber)| subscriber.exit(id)));
        }
    }
}

impl Drop for GuardedSpan {
    fn drop(&mut self) {
        let span = self.0.take();
        guarded(|| drop(span));
    }
}

struct Enters<'a>(&'a GuardedSpan);

impl Drop for Enters<'_> {
    fn drop(&mut self) {
        self.0.enter();
    }
}

struct Leaves<'a>(&'a GuardedSpan);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

#[cfg(test)]
mod tests {
    use std::panic::panic_any;

    use futures_util::FutureExt;

    use super::*;
    use crate::log::Log;

    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic_any(Self);
        }
    }

    #[tokio::test]
    async fn a_payload_that_panics_for_ever_when_it_is_dropped_is_harmless() {
        assert!(guarded(|| panic_any(Bomb)).is_none());
        let panic = caught(|| async { panic_any(Bomb) }).await.unwrap_err();
        assert_eq!(panic.message(), "no message");
        drop(panic);
        let error = tokio::spawn(async { panic_any(Bomb) }).await.unwrap_err();
        drop(Panic::of_task(error).unwrap());
    }

    #[tokio::test]
    async fn what_is_left_of_a_future_is_dropped_within_what_catches() {
        struct Last(Bomb);
        impl Future for Last {
            type Output = ();

            fn poll(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<()> {
                std::task::Poll::Ready(())
            }
        }
        assert!(caught(|| Last(Bomb)).await.is_err());
        let panic = caught(|| async { panic!("in words") }).await.unwrap_err();
        assert_eq!(panic.message(), "in words");
        assert_eq!(format!("{panic:?}"), "Panic(\"in words\")");
    }

    #[tokio::test]
    async fn a_future_is_polled_and_dropped_in_its_span_and_nothing_else_is() {
        struct Told;
        impl Drop for Told {
            fn drop(&mut self) {
                tracing::info!("dropped");
            }
        }
        let log = Log::begin();
        let span = || GuardedSpan::new(|| tracing::info_span!("run"));
        let waits = || async {
            let _told = Told;
            tracing::info!("begins");
            tokio::task::yield_now().await;
            tracing::info!("goes on");
            std::future::pending::<()>().await;
        };
        let mut traced = Box::pin(traced(span(), waits));
        for polled in ["begins", "goes on"] {
            assert!((&mut traced).now_or_never().is_none());
            tracing::info!("between");
            let told = [format!("INFO run: {polled}"), "INFO between".to_owned()];
            assert_eq!(log.lines(), told);
        }
        drop(traced);
        tracing::info!("after");
        assert_eq!(log.lines(), ["INFO run: dropped", "INFO after"]);
    }
}
