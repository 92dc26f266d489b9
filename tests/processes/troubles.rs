//! What a worker says when it could not renew its leases.
//!
//! A machine that has too much to do keeps the database from answering in time, and
//! then leases are lost although nothing befell the process. The worker knows.

use std::fmt::Debug;
use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc::UnboundedSender;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use uuid::Uuid;

use super::books::{Clock, Line};

/// What the driver logs begins so.
const COULD_NOT: &str = "could not renew leases";

static LISTENER: Mutex<Option<Listener>> = Mutex::new(None);

struct Listener {
    worker: Uuid,
    clock: Clock,
    lines: UnboundedSender<Line>,
}

/// From now on the troubles of this process are sent there.
pub fn listen(worker: Uuid, clock: Clock, lines: UnboundedSender<Line>) {
    let listener = Listener {
        worker,
        clock,
        lines,
    };
    set(Some(listener));
    let subscriber = tracing_subscriber::registry().with(Troubles);
    tracing::subscriber::set_global_default(subscriber).expect("it is the only one");
}

/// Lets go of where they are sent.
pub fn stop_listening() {
    set(None);
}

fn set(listener: Option<Listener>) {
    let mut current = LISTENER.lock().unwrap_or_else(PoisonError::into_inner);
    *current = listener;
}

struct Troubles;

impl<S: Subscriber> Layer<S> for Troubles {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut message = Message::default();
        event.record(&mut message);
        if !message.0.starts_with(COULD_NOT) {
            return;
        }
        let listener = LISTENER.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(listener) = &*listener {
            // Without a receiver the process is about to end.
            let _ = listener.lines.send(Line::NotRenewed {
                worker: listener.worker,
                at: listener.clock.now(),
            });
        }
    }
}

#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}
