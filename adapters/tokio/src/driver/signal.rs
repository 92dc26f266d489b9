//! How a runner learns that it should end.

use job_engine::worker::StopReason;
use tokio::sync::watch;

/// Tells a runner to end, and why. Cloned freely; every clone sees the same.
#[derive(Clone, Debug)]
pub struct StopSignal {
    reason: watch::Receiver<Option<StopReason>>,
}

/// The sending half, kept by whoever drives the runner for as long as it runs.
#[derive(Debug)]
pub struct StopSender {
    reason: watch::Sender<Option<StopReason>>,
}

impl StopSignal {
    /// A signal, and what sends it.
    pub fn new() -> (StopSender, Self) {
        let (sender, receiver) = watch::channel(None);
        (StopSender { reason: sender }, Self { reason: receiver })
    }

    /// A signal that never comes, for a runner outside of a driver.
    pub fn never() -> Self {
        Self::new().1
    }

    /// Why the runner should end; `None` while it should not.
    pub fn reason(&self) -> Option<StopReason> {
        *self.reason.borrow()
    }

    /// Waits until the runner should end. Without a driver: for ever.
    pub async fn stopped(&self) -> StopReason {
        let mut reason = self.reason.clone();
        loop {
            if let Some(reason) = *reason.borrow_and_update() {
                return reason;
            }
            if reason.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl StopSender {
    /// Tells the runner to end. A lost lease outweighs a shutdown: the runner must know
    /// that another may be at work.
    pub fn stop(&self, reason: StopReason) {
        self.reason.send_if_modified(|current| match *current {
            Some(StopReason::LeaseLost) => false,
            Some(StopReason::Shutdown) | None => {
                *current = Some(reason);
                true
            }
        });
    }

    /// Whether somebody awaits [`StopSignal::stopped`], as far as there is but one
    /// signal: each clone of it counts, too.
    pub fn is_awaited(&self) -> bool {
        self.reason.receiver_count() > 1
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
