//! Listens to other processes for as long as the driver lives.

use std::time::Duration;

use job_engine::WorkerId;
use tokio::sync::mpsc;

use crate::clock::ClockHandle;
use crate::guarded::{caught, guarded};
use crate::store::{Store, Wake};

/// The wait after the store has stopped to listen; it doubles with each time that follows
/// soon.
const AGAIN_MIN: Duration = Duration::from_secs(1);
/// The longest such wait. Listening for longer than that sets the wait back.
const AGAIN_MAX: Duration = Duration::from_secs(60);

/// Passes on what the store hears. A store that stops to listen, which it should not, is
/// made to again after a wait; meanwhile the driver knows that it hears nothing, and polls.
pub(super) async fn listen<S: Store>(
    worker: WorkerId,
    store: S,
    clock: ClockHandle,
    wakes: mpsc::Sender<Wake>,
) {
    let mut wait = AGAIN_MIN;
    loop {
        let began = clock.timestamp();
        let ended = caught(|| store.listen(wakes.clone())).await;
        if wakes.send(Wake::Lost).await.is_err() {
            return; // The driver is gone.
        }
        if clock.timestamp().saturating_since(began) > AGAIN_MAX {
            wait = AGAIN_MIN;
        }
        guarded(|| match &ended {
            Ok(()) => tracing::error!(
                poller_id = %worker, ?wait,
                "the store no longer listens to other processes; listening again"
            ),
            Err(panic) => tracing::error!(
                poller_id = %worker, ?wait, panic = panic.message(),
                "the store panicked while it listened to other processes; listening again"
            ),
        });
        clock.sleep(wait).await;
        wait = (wait * 2).min(AGAIN_MAX);
    }
}
