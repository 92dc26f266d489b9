//! What catches a test that waits for a manual clock which nobody moves.

use std::io::{self, Write};
use std::process;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use super::manual::ManualClock;

/// How long a clock may be forgotten, in real time. Longer than a test needs that does
/// something else meanwhile, shorter than the limits of those who run tests.
const PATIENCE: Duration = Duration::from_secs(60);
/// The patience is worn out in so many parts, each of which sees no life: a process that
/// was stopped for a while has lost one part at most.
const PARTS: u32 = 4;
/// That of a process that ends by a panic.
const EXIT_CODE: i32 = 101;

/// Ends the process, with a message, when a manual clock on which someone sleeps is
/// forgotten. A thread watches for that, which begins with the first sleep and ends with
/// the clock.
#[derive(Debug)]
pub(super) struct Net(Mutex<Watch>);

#[derive(Debug)]
struct Watch {
    /// `None`: for ever.
    patience: Option<Duration>,
    /// Tells the thread of another patience, and by its drop that the clock is gone.
    thread: Option<mpsc::Sender<Option<Duration>>>,
}

impl Net {
    /// Patient for ever outside of tests.
    pub(super) fn new() -> Self {
        let is_of_test = cfg!(feature = "testing") && is_thread_of_test();
        Self(Mutex::new(Watch {
            patience: is_of_test.then_some(PATIENCE),
            thread: None,
        }))
    }

    /// Someone sleeps on the clock that has this.
    pub(super) fn watch(&self, clock: &Arc<ManualClock>) {
        let mut watch = self.state();
        if watch.thread.is_none() && watch.patience.is_some() {
            let (tell, told) = mpsc::channel();
            let (forgotten, patience) = (Arc::downgrade(clock), watch.patience);
            // Test runners name threads after the tests that they run.
            let first = thread::current().name().unwrap_or("unnamed").to_owned();
            let thread = thread::Builder::new().name("job-clock-net".to_owned());
            // Where there are no more threads, tests have other troubles.
            let _ = thread.spawn(move || wear_out(&forgotten, patience, &told, &first));
            watch.thread = Some(tell);
        }
    }

    pub(super) fn set_patience(&self, clock: &Arc<ManualClock>, patience: Option<Duration>) {
        let mut watch = self.state();
        watch.patience = patience;
        if let Some(thread) = &watch.thread {
            // An error means that there is none.
            let _ = thread.send(patience);
        }
        drop(watch);
        if clock.next_wake().is_some() {
            self.watch(clock);
        }
    }

    fn state(&self) -> MutexGuard<'_, Watch> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Programs that are built together with tests have the feature, too. The threads of tests
/// have names; those are neither that of a program nor those of a runtime.
fn is_thread_of_test() -> bool {
    let thread = thread::current();
    let name = thread.name();
    name.is_some_and(|name| name != "main" && !name.starts_with("tokio-"))
}

fn wear_out(
    clock: &Weak<ManualClock>,
    mut patience: Option<Duration>,
    told: &mpsc::Receiver<Option<Duration>>,
    first: &str,
) {
    let mut before = None;
    let mut parts = 0;
    loop {
        let waited = match patience {
            Some(patience) => told.recv_timeout(patience / PARTS),
            None => told.recv().map_err(RecvTimeoutError::from),
        };
        match waited {
            Ok(other) => (patience, parts) = (other, 0),
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                let Some(clock) = clock.upgrade() else {
                    return;
                };
                let is_forgotten = before.is_some_and(|signs| clock.is_forgotten_since(signs));
                before = Some(clock.signs());
                parts = if is_forgotten { parts + 1 } else { 0 };
                if parts == PARTS {
                    end(&clock, patience.unwrap_or(Duration::MAX), first);
                }
            }
        }
    }
}

fn end(clock: &ManualClock, patience: Duration, first: &str) -> ! {
    // Not through a macro: a test runner keeps back what those print until the test ends.
    let _ = writeln!(
        io::stderr(),
        "\na manual clock was forgotten, on which the thread {first:?} was the first to sleep: \
         for {patience:?} of real time nobody moved it and nothing was busy. {}. Advance the \
         clock. `ClockController::wait_for` ends a test where it waits in vain, without this \
         process; `ClockController::set_patience` sets how long a clock may be forgotten, `None` for \
         ever. The process ends",
        clock.waiting()
    );
    process::exit(EXIT_CODE)
}
