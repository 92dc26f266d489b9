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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::future::pending;
    use std::sync::{Arc, Mutex};

    use chrono::DateTime;
    use job_engine::{Command, Reply, StoreError, Timestamp};
    use uuid::Uuid;

    use super::*;

    /// A store that listens each time for so many seconds, and then for ever.
    #[derive(Clone)]
    struct Brief {
        lasts: Arc<Mutex<VecDeque<u64>>>,
        began: Arc<Mutex<Vec<u64>>>,
        clock: ClockHandle,
    }

    impl Store for Brief {
        async fn execute(&self, _: Option<Timestamp>, _: &Command) -> Result<Reply, StoreError> {
            Err(StoreError::Unknown("it only listens".to_owned()))
        }

        async fn listen(&self, _: mpsc::Sender<Wake>) {
            let now = self.clock.timestamp().saturating_since(Timestamp::EPOCH);
            self.began.lock().unwrap().push(now.as_secs());
            let lasts = self.lasts.lock().unwrap().pop_front();
            match lasts {
                Some(secs) => self.clock.sleep(Duration::from_secs(secs)).await,
                None => pending().await,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_is_made_to_listen_ever_more_slowly_until_it_has_for_more_than_a_minute() {
        let clock = ClockHandle::tokio_time(DateTime::UNIX_EPOCH);
        let store = Brief {
            lasts: Arc::new(Mutex::new([0, 0, 0, 61, 60, 0, 0, 0, 0, 0, 0].into())),
            began: Arc::default(),
            clock: clock.clone(),
        };
        let (wakes, mut heard) = mpsc::channel(64);
        let listens = listen(WorkerId(Uuid::nil()), store.clone(), clock, wakes);
        let an_hour = tokio::time::timeout(Duration::from_secs(3_600), listens);
        assert!(an_hour.await.is_err());
        let began = [0, 1, 3, 7, 69, 131, 135, 143, 159, 191, 251, 311];
        assert_eq!(*store.began.lock().unwrap(), began);
        let mut lost = 0;
        while let Ok(wake) = heard.try_recv() {
            assert!(matches!(wake, Wake::Lost));
            lost += 1;
        }
        assert_eq!(lost, began.len() - 1);
    }
}
