//! The limit on how long to wait for what an artificial clock does not move.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::Notify;

/// A limit on waits, in real time, measured by a thread of its own: the time of tokio
/// may be paused, and then a timer of tokio would be over at once whenever a task waits
/// for real I/O. The thread is started by the first wait, and ends with this.
#[derive(Debug)]
pub struct Patience {
    limit: Duration,
    over: Arc<Over>,
    /// Tells the thread, in turn, that a wait begins and that it has ended.
    turns: Option<mpsc::Sender<()>>,
    reported: bool,
}

#[derive(Debug, Default)]
struct Over {
    flag: AtomicBool,
    notify: Notify,
}

impl Patience {
    /// Each wait may take so long.
    pub fn new(limit: Duration) -> Self {
        Self {
            limit,
            over: Arc::default(),
            turns: None,
            reported: false,
        }
    }

    /// Whether one wait took longer than the limit. There is no more patience
    /// after it: the next wait would most likely be for the same thing.
    pub(super) fn is_over(&self) -> bool {
        self.over.flag.load(Ordering::SeqCst)
    }

    /// Whether it is over and this is the first time to ask.
    pub(super) fn reports_end(&mut self) -> bool {
        self.is_over() && !std::mem::replace(&mut self.reported, true)
    }

    /// Waits for `event`, at most as long as the limit.
    pub async fn wait_for(&mut self, event: impl Future<Output = ()>) {
        self.take_turn();
        tokio::select! {
            biased;
            () = event => {}
            () = self.over.notify.notified() => {}
        }
        self.take_turn();
    }

    /// Awaits `future`, at most as long as the limit; `None` if it is not over then. What
    /// is over at once needs no thread that watches it.
    pub async fn output_of<F: Future>(&mut self, mut future: Pin<&mut F>) -> Option<F::Output> {
        if let Some(output) = future.as_mut().now_or_never() {
            return Some(output);
        }
        let mut output = None;
        self.wait_for(async { output = Some(future.await) }).await;
        output
    }

    fn take_turn(&mut self) {
        let turns = self
            .turns
            .get_or_insert_with(|| watch(self.limit, &self.over));
        // An error means that the time is over.
        let _ = turns.send(());
    }
}

fn watch(limit: Duration, over: &Arc<Over>) -> mpsc::Sender<()> {
    let (turns, taken) = mpsc::channel();
    let ending = Arc::clone(over);
    let watch = move || {
        while taken.recv().is_ok() {
            if taken.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                ending.end();
                return;
            }
        }
    };
    let thread = thread::Builder::new().name("job-clock-patience".to_owned());
    if thread.spawn(watch).is_err() {
        // Rather no patience than a wait without an end.
        over.end();
    }
    turns
}

impl Over {
    fn end(&self) {
        self.flag.store(true, Ordering::SeqCst);
        self.notify.notify_one();
    }
}
