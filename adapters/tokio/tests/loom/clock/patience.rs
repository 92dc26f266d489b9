//! Patience without an end: in a model no time passes.

use std::pin::Pin;
use std::time::Duration;

pub(super) struct Patience;

impl Patience {
    pub(super) fn new(_: Duration) -> Self {
        Self
    }

    pub(super) fn is_over(&self) -> bool {
        false
    }

    pub(super) fn reports_end(&mut self) -> bool {
        false
    }

    pub(super) async fn output_of<F: Future>(&mut self, future: Pin<&mut F>) -> Option<F::Output> {
        Some(future.await)
    }

    pub(super) async fn wait_for(&mut self, event: impl Future<Output = ()>) {
        event.await;
    }
}
