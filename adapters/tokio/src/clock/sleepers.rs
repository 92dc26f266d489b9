//! The queue of those who sleep on an artificial clock.

use std::collections::BTreeMap;
use std::task::Waker;

use chrono::{DateTime, Utc};

/// When a sleeper wakes, and a number that rises with each sleeper: the order
/// of waking, with ties in the order in which the sleeps were made.
pub(super) type SleeperId = (DateTime<Utc>, u64);

/// Adding, waking and cancelling each take O(log n) of the sleepers.
#[derive(Debug)]
pub(super) struct Sleepers<N> {
    ever: u64,
    asleep: BTreeMap<SleeperId, Option<Sleeper<N>>>,
}

/// Someone who awaits a sleep. A sleep that was made and never awaited has none.
#[derive(Debug)]
pub(super) struct Sleeper<N> {
    pub(super) waker: Waker,
    /// What the clock wants to know about it.
    pub(super) note: N,
}

impl<N> Sleepers<N> {
    pub(super) fn new() -> Self {
        Self {
            ever: 0,
            asleep: BTreeMap::new(),
        }
    }

    /// Makes the id of a new sleep and, unless it is over at `now` already,
    /// takes it in.
    pub(super) fn add(&mut self, now: DateTime<Utc>, wake_at: DateTime<Utc>) -> SleeperId {
        self.ever += 1;
        let id = (wake_at, self.ever);
        if wake_at > now {
            self.asleep.insert(id, None);
        }
        id
    }

    /// Keeps the latest one to await a sleep. Hands back the one before, to be
    /// dropped where no lock is held: a waker may own a whole task.
    ///
    /// # Errors
    ///
    /// The sleep is over; the sleeper comes back.
    pub(super) fn park(
        &mut self,
        id: SleeperId,
        sleeper: Sleeper<N>,
    ) -> Result<Option<Sleeper<N>>, Sleeper<N>> {
        match self.asleep.get_mut(&id) {
            Some(kept) => Ok(kept.replace(sleeper)),
            None => Err(sleeper),
        }
    }

    /// Forgets a sleep. Hands back who awaited it, to be dropped as above.
    pub(super) fn remove(&mut self, id: SleeperId) -> Option<Sleeper<N>> {
        self.asleep.remove(&id).flatten()
    }

    /// Takes out the next sleep that is over at `now`.
    pub(super) fn pop_due(
        &mut self,
        now: DateTime<Utc>,
    ) -> Option<(SleeperId, Option<Sleeper<N>>)> {
        let next = self.asleep.first_entry()?;
        (next.key().0 <= now).then(|| next.remove_entry())
    }

    pub(super) fn next_wake(&self) -> Option<DateTime<Utc>> {
        self.asleep.keys().next().map(|(wake_at, _)| *wake_at)
    }

    /// All sleeps, the next to be over first, and who awaits them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (DateTime<Utc>, Option<&N>)> {
        self.asleep.iter().map(|((wake_at, _), sleeper)| {
            let note = sleeper.as_ref().map(|sleeper| &sleeper.note);
            (*wake_at, note)
        })
    }

    pub(super) fn count(&self) -> usize {
        self.asleep.len()
    }
}
