//! Tells other processes what became due, off the path of the write itself.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use job_engine::{JobType, WorkerId};
use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use crate::guarded::{Panic, caught, guarded};
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
#[derive(Clone)]
pub struct Announcer {
    wakes: Wakes,
    sender: Arc<Sender>,
}

/// The task that sends, which goes with its runtime, and how it is started again.
struct Sender {
    task: Mutex<(JoinSet<()>, AbortHandle)>,
    start: Box<StartsIn>,
}

/// Starts the task on the current runtime.
type StartsIn = dyn Fn(&mut JoinSet<()>) -> AbortHandle + Send + Sync;

impl Announcer {
    /// Starts the task that sends the announcements of the process of this worker; it
    /// ends with the last clone of the announcer. If its runtime is dropped before, the
    /// next announcement from within another one starts it there.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn start<S: Store>(worker: WorkerId, store: S) -> Self {
        let wakes = Wakes::new();
        let start = {
            let wakes = wakes.clone();
            move |tasks: &mut JoinSet<()>| {
                let sends = send_all(store.clone(), wakes.clone());
                tasks.spawn(in_turn(worker, None, sends))
            }
        };
        let mut tasks = JoinSet::new();
        let task = start(&mut tasks);
        Self {
            wakes,
            sender: Arc::new(Sender {
                task: Mutex::new((tasks, task)),
                start: Box::new(start),
            }),
        }
    }

    /// Announces that jobs of this type may be due.
    pub fn announce(&self, job_type: &JobType) {
        self.wakes.add(job_type);
        self.sender.go_on();
    }
}

impl Sender {
    fn go_on(&self) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        let (tasks, sends) = &mut *task;
        if sends.is_finished() && Handle::try_current().is_ok() {
            while let Some(done) = tasks.try_join_next() {
                drop(done.map_err(Panic::of_task));
            }
            *sends = (self.start)(tasks);
        }
    }
}

impl fmt::Debug for Announcer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Announcer").finish_non_exhaustive()
    }
}

async fn send_all<S: Store>(store: S, wakes: Wakes) {
    loop {
        let types = wakes.take().await;
        let call = || async { timeout(ANNOUNCE_TIMEOUT, store.announce(&types)).await };
        let announced = caught(call).await;
        guarded(|| match &announced {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::debug!(%error, "announcement lost"),
            Ok(Err(_)) => tracing::debug!("announcement lost: the store did not answer"),
            Err(panic) => tracing::warn!(
                panic = panic.message(),
                "announcement lost: the store panicked"
            ),
        });
        sleep(GAP).await;
    }
}
