//! Wake-ups that gather until somebody takes them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use job_engine::JobType;
use tokio::sync::Notify;

/// A set of job types that may have become due, filled by spawns and emptied
/// by whoever acts on it. A type that is woken often is in it once, so it never
/// grows beyond the number of types.
#[derive(Clone, Debug, Default)]
pub struct Wakes {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    types: Mutex<BTreeSet<JobType>>,
    added: Notify,
}

impl Wakes {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a type.
    pub fn add(&self, job_type: &JobType) {
        let mut types = self.types();
        if !types.contains(job_type) {
            types.insert(job_type.clone());
        }
        drop(types);
        self.inner.added.notify_one();
    }

    /// Waits until there is a type, and takes all there are. For one caller at
    /// a time; cancel safe.
    pub async fn take(&self) -> BTreeSet<JobType> {
        loop {
            let types = std::mem::take(&mut *self.types());
            if !types.is_empty() {
                return types;
            }
            self.inner.added.notified().await;
        }
    }

    /// Takes all there are, perhaps none.
    pub fn take_now(&self) -> BTreeSet<JobType> {
        std::mem::take(&mut *self.types())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.types().is_empty()
    }

    fn types(&self) -> std::sync::MutexGuard<'_, BTreeSet<JobType>> {
        let types = self.inner.types.lock();
        types.unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_added_before_or_while_waiting_is_taken_once() {
        let wakes = Wakes::new();
        wakes.add(&JobType::new("a"));
        wakes.add(&JobType::new("a"));
        assert_eq!(wakes.take().await.len(), 1);
        let (taken, ()) = tokio::join!(wakes.take(), async {
            tokio::task::yield_now().await;
            wakes.add(&JobType::new("b"));
        });
        assert_eq!(taken, [JobType::new("b")].into());
        assert!(wakes.is_empty() && wakes.take_now().is_empty());
        wakes.add(&JobType::new("c"));
        assert!(!wakes.is_empty());
        assert_eq!(wakes.take_now(), [JobType::new("c")].into());
        assert!(wakes.is_empty());
    }
}
