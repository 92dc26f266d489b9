//! How a runner learns that it should end.

use job_engine::worker::StopReason;
use tokio::sync::watch;

/// Tells a runner to end, and why. Cloned freely; every clone sees the same.
#[derive(Clone, Debug)]
pub struct StopSignal {
    reason: watch::Receiver<Option<StopReason>>,
}

/// The sending half, kept by the driver for as long as the runner runs.
#[derive(Debug)]
pub(super) struct StopSender {
    reason: watch::Sender<Option<StopReason>>,
}

impl StopSignal {
    pub(super) fn new() -> (StopSender, Self) {
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
    /// A lost lease outweighs a shutdown: the runner must know that another may
    /// be at work.
    pub(super) fn stop(&self, reason: StopReason) {
        self.reason.send_if_modified(|current| match *current {
            Some(StopReason::LeaseLost) => false,
            Some(StopReason::Shutdown) | None => {
                *current = Some(reason);
                true
            }
        });
    }
}

#[cfg(test)]
mod tests {
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
}
