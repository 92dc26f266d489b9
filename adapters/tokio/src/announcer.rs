//! Tells other processes what became due, off the path of the write itself.

use std::sync::Arc;
use std::time::Duration;

use job_engine::{JobType, WorkerId};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::store::Store;
use crate::turn::in_turn;
use crate::wakes::Wakes;

/// How long one announcement may take. It is only a hint.
const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long after one announcement the next is sent. Whoever was woken by the first
/// looks for jobs for about as long.
const GAP: Duration = Duration::from_millis(5);

/// Passes announcements to the store, one call at a time. What is announced
/// during a call, and for 5 ms after it, gathers for the next: a process that is busy
/// sends few.
#[derive(Clone, Debug)]
pub struct Announcer {
    wakes: Wakes,
    _task: Arc<JoinSet<()>>,
}

impl Announcer {
    /// Starts the task that sends the announcements of the process of this worker; it
    /// ends with the last clone of the announcer.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn start<S: Store>(worker: WorkerId, store: S) -> Self {
        let wakes = Wakes::new();
        let mut task = JoinSet::new();
        task.spawn(in_turn(worker, None, send_all(store, wakes.clone())));
        Self {
            wakes,
            _task: Arc::new(task),
        }
    }

    /// Announces that jobs of this type may be due.
    pub fn announce(&self, job_type: &JobType) {
        self.wakes.add(job_type);
    }
}

async fn send_all<S: Store>(store: S, wakes: Wakes) {
    loop {
        let types = wakes.take().await;
        match timeout(ANNOUNCE_TIMEOUT, store.announce(&types)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "announcement lost"),
            Err(_) => tracing::debug!("announcement lost: the store did not answer"),
        }
        sleep(GAP).await;
    }
}
