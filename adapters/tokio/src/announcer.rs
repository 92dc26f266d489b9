//! Tells other processes what became due, off the path of the write itself.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use job_engine::{JobType, WorkerId};
use tokio::runtime::Handle;
use tokio::sync::watch;
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

/// How long the end of a worker waits for what it has announced.
const SENT_TIMEOUT: Duration = Duration::from_millis(500);

/// Passes announcements to the store, one call at a time. What is announced
/// during a call, and for 5 ms after it, gathers for the next: a process that is busy
/// sends few.
#[derive(Clone)]
pub struct Announcer {
    wakes: Wakes,
    counts: Counts,
    sender: Arc<Sender>,
}

/// How many announcements there were, and up to which of them all were sent.
#[derive(Clone)]
struct Counts {
    announced: Arc<AtomicU64>,
    sent: Arc<watch::Sender<u64>>,
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
        let counts = Counts {
            announced: Arc::default(),
            sent: Arc::new(watch::Sender::new(0)),
        };
        let start = {
            let (wakes, counts) = (wakes.clone(), counts.clone());
            move |tasks: &mut JoinSet<()>| {
                let sends = send_all(store.clone(), wakes.clone(), counts.clone());
                tasks.spawn(in_turn(worker, None, sends))
            }
        };
        let mut tasks = JoinSet::new();
        let task = start(&mut tasks);
        Self {
            wakes,
            counts,
            sender: Arc::new(Sender {
                task: Mutex::new((tasks, task)),
                start: Box::new(start),
            }),
        }
    }

    /// Announces that jobs of this type may be due.
    pub fn announce(&self, job_type: &JobType) {
        self.wakes.add(job_type);
        // After it was added: what is counted is there to be sent.
        self.counts.announced.fetch_add(1, Ordering::SeqCst);
        self.sender.go_on();
    }

    /// Waits until all that was announced before is sent, or could not be; so long at most,
    /// and no longer than half a second. A process that ends takes the rest along, and others would find what it has
    /// put back when they next poll.
    pub async fn sent(&self, at_most: Duration) {
        let announced = self.counts.announced.load(Ordering::SeqCst);
        let mut sent = self.counts.sent.subscribe();
        let all = sent.wait_for(|sent| *sent >= announced);
        let _ = timeout(SENT_TIMEOUT.min(at_most), all).await;
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

async fn send_all<S: Store>(store: S, wakes: Wakes, counts: Counts) {
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
        let announced = counts.announced.load(Ordering::SeqCst);
        if wakes.is_empty() {
            counts.sent.send_replace(announced);
        }
        sleep(GAP).await;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use job_engine::{Command, Reply, StoreError, Timestamp};
    use tokio::sync::mpsc;
    use tokio::time::Instant;
    use uuid::Uuid;

    use super::*;
    use crate::store::Wake;

    /// A store that takes so long for each announcement.
    #[derive(Clone)]
    struct Slow(Duration, Arc<Mutex<Vec<BTreeSet<JobType>>>>);

    impl Store for Slow {
        async fn execute(&self, _: Option<Timestamp>, _: &Command) -> Result<Reply, StoreError> {
            Err(StoreError::Failed("it only announces".to_owned()))
        }

        async fn announce(&self, types: &BTreeSet<JobType>) -> Result<(), StoreError> {
            sleep(self.0).await;
            self.1.lock().unwrap().push(types.clone());
            Ok(())
        }

        async fn listen(&self, wakes: mpsc::Sender<Wake>) {
            wakes.closed().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_that_was_announced_is_waited_for() {
        let told = Arc::default();
        let store = Slow(Duration::from_millis(100), Arc::clone(&told));
        let announcer = Announcer::start(WorkerId(Uuid::nil()), store);
        announcer.sent(Duration::MAX).await;
        announcer.announce(&JobType::new("a"));
        tokio::time::sleep(Duration::from_millis(50)).await;
        // While the first is on its way.
        announcer.announce(&JobType::new("b"));
        announcer.sent(Duration::MAX).await;
        let [a, b] = [["a"], ["b"]].map(|types| types.map(JobType::new).into());
        assert_eq!(*told.lock().unwrap(), [a, b]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_hangs_is_not_waited_for_for_long() {
        let store = Slow(Duration::from_secs(3), Arc::default());
        let announcer = Announcer::start(WorkerId(Uuid::nil()), store);
        announcer.announce(&JobType::new("a"));
        let begun = Instant::now();
        announcer.sent(Duration::MAX).await;
        assert_eq!(begun.elapsed(), SENT_TIMEOUT);
        let little = Duration::from_millis(20);
        announcer.sent(little).await;
        assert_eq!(begun.elapsed(), SENT_TIMEOUT + little);
    }
}
