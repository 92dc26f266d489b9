//! How a runner learns that it should end, and says that it has not yet.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use job_engine::worker::StopReason;
use tokio::sync::watch;

/// Tells a runner to end, and why. Cloned freely; every clone sees the same.
#[derive(Clone, Debug)]
pub struct StopSignal {
    state: watch::Receiver<State>,
}

/// The sending half, kept by whoever drives the runner for as long as it runs.
#[derive(Debug)]
pub struct StopSender {
    state: watch::Sender<State>,
}

/// Of one run, shared by both halves.
#[derive(Debug, Default)]
struct State {
    /// `None` while it should go on.
    reason: Option<StopReason>,
    /// Its receivers are the holds. Most runs have none, and make none.
    holds: OnceLock<watch::Sender<()>>,
    /// So many await [`StopSignal::stopped`].
    awaited: AtomicU32,
}

/// The run has not ended while this lives, whatever its runner does.
#[derive(Clone, Debug)]
pub struct Hold {
    _holds: watch::Receiver<()>,
}

impl StopSignal {
    /// A signal, and what sends it.
    pub fn new() -> (StopSender, Self) {
        let (sender, receiver) = watch::channel(State::default());
        (StopSender { state: sender }, Self { state: receiver })
    }

    /// A signal that never comes, for a runner outside of a driver.
    pub fn never() -> Self {
        Self::new().1
    }

    /// Why the runner should end; `None` while it should not.
    pub fn reason(&self) -> Option<StopReason> {
        self.state.borrow().reason
    }

    /// Says that the run goes on until this is dropped, even if its runner ends before,
    /// or is aborted.
    pub fn hold(&self) -> Hold {
        let state = self.state.borrow();
        let holds = state.holds.get_or_init(|| watch::channel(()).0);
        Hold {
            _holds: holds.subscribe(),
        }
    }

    /// Waits until nobody holds the run. At once, if nobody ever did.
    pub async fn let_go(&self) {
        let holds = self.state.borrow().holds.get().cloned();
        if let Some(holds) = holds {
            holds.closed().await;
        }
    }

    /// Waits until the runner should end. Without a driver: for ever.
    pub async fn stopped(&self) -> StopReason {
        let _awaits = Awaits::new(self);
        let mut state = self.state.clone();
        loop {
            if let Some(reason) = state.borrow_and_update().reason {
                return reason;
            }
            if state.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl StopSender {
    /// Tells the runner to end. A lost lease outweighs a shutdown: the runner must know
    /// that another may be at work.
    pub fn stop(&self, reason: StopReason) {
        self.state.send_if_modified(|state| match state.reason {
            Some(StopReason::LeaseLost) => false,
            Some(StopReason::Shutdown) | None => {
                state.reason = Some(reason);
                true
            }
        });
    }

    /// Whether somebody awaits [`StopSignal::stopped`].
    pub fn is_awaited(&self) -> bool {
        self.state.borrow().awaited.load(Ordering::Relaxed) > 0
    }
}

struct Awaits<'a>(&'a StopSignal);

impl<'a> Awaits<'a> {
    fn new(signal: &'a StopSignal) -> Self {
        let state = signal.state.borrow();
        state.awaited.fetch_add(1, Ordering::Relaxed);
        Self(signal)
    }
}

impl Drop for Awaits<'_> {
    fn drop(&mut self) {
        let state = self.0.state.borrow();
        state.awaited.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_lost_lease_is_not_hidden_by_a_later_shutdown() {
        let (sender, signal) = StopSignal::new();
        assert_eq!(signal.reason(), None);
        sender.stop(StopReason::LeaseLost);
        sender.stop(StopReason::Shutdown);
        assert_eq!(signal.stopped().await, StopReason::LeaseLost);
        assert_eq!(signal.clone().reason(), Some(StopReason::LeaseLost));
    }

    #[tokio::test]
    async fn a_run_is_let_go_when_the_last_hold_is_dropped() {
        let (_sender, signal) = StopSignal::new();
        assert_eq!(signal.let_go().now_or_never(), Some(()));
        let first = signal.hold();
        let second = first.clone();
        let mut let_go = std::pin::pin!(signal.let_go());
        drop(first);
        assert_eq!(let_go.as_mut().now_or_never(), None);
        std::thread::spawn(|| drop(second)).join().unwrap();
        let_go.await;
    }

    #[tokio::test]
    async fn it_is_known_whether_somebody_waits_for_the_signal() {
        let (sender, signal) = StopSignal::new();
        assert!(!sender.is_awaited());
        let mut stopped = std::pin::pin!(signal.stopped());
        assert_eq!(stopped.as_mut().now_or_never(), None);
        assert!(sender.is_awaited());
        sender.stop(StopReason::Shutdown);
        assert_eq!(stopped.await, StopReason::Shutdown);
    }
}
