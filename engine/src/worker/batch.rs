//! How much may be in one command, or in its reply, to arrive in time.

use crate::limits::BATCH_LEN_MAX;

/// The longest batch, of those that were not answered in time as few as necessary.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchLen(usize);

impl BatchLen {
    /// All that a command may have, until one is not answered.
    pub(super) const fn new() -> Self {
        Self(BATCH_LEN_MAX)
    }

    pub(super) const fn max(self) -> usize {
        self.0
    }

    /// So many came in time: the next may be up to a quarter more.
    pub(super) fn arrived(&mut self, len: usize) {
        let more = len + (len / 4).max(1);
        self.0 = self.0.max(more).min(BATCH_LEN_MAX);
    }

    /// So many were not answered in time: half of them may be, at least one.
    pub(super) fn was_not_answered(&mut self, len: usize) {
        self.0 = (len / 2).max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrives_makes_the_next_batch_up_to_a_quarter_longer() {
        let mut len = BatchLen::new();
        len.was_not_answered(9);
        assert_eq!(len.max(), 4);
        for (arrived, max) in [(1, 4), (4, 5), (5, 6), (6, 7), (40, 50), (3, 50)] {
            len.arrived(arrived);
            assert_eq!(len.max(), max, "after {arrived}");
        }
        len.arrived(BATCH_LEN_MAX);
        assert_eq!(len.max(), BATCH_LEN_MAX);
        len.was_not_answered(1);
        assert_eq!(len.max(), 1);
    }
}
