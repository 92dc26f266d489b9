//! What is logged, counted; and layers that panic.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use tracing::{Event, Level, Metadata, Subscriber, span};

/// What a subscriber is told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Call {
    NewSpan,
    Enter,
    Exit,
    Event,
    Close,
}

/// A subscriber that counts events, and panics when it is called so.
#[derive(Clone, Default)]
pub(crate) struct Events {
    pub(crate) levels: Arc<Mutex<Vec<Level>>>,
    pub(crate) fails: Option<Call>,
    pub(crate) spans: Arc<AtomicU32>,
    pub(crate) panics: Arc<AtomicU32>,
}

impl Events {
    pub(crate) fn count(&self, level: Level) -> usize {
        let levels = self.levels.lock().unwrap();
        levels.iter().filter(|other| **other == level).count()
    }

    fn called(&self, call: Call) {
        if self.fails == Some(call) {
            self.panics.fetch_add(1, Ordering::SeqCst);
            panic!("a layer panics");
        }
    }
}

impl Subscriber for Events {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        self.called(Call::NewSpan);
        let before = self.spans.fetch_add(1, Ordering::SeqCst);
        span::Id::from_u64(u64::from(before) + 1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        self.called(Call::Event);
        self.levels.lock().unwrap().push(*event.metadata().level());
    }

    fn enter(&self, _: &span::Id) {
        self.called(Call::Enter);
    }

    fn exit(&self, _: &span::Id) {
        self.called(Call::Exit);
    }

    fn try_close(&self, _: span::Id) -> bool {
        self.called(Call::Close);
        true
    }
}
