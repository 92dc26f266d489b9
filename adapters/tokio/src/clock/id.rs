//! Which artificial clock it is.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Tells an artificial clock from all others, also from those of other processes and
/// machines. From [`ClockHandle::artificial_id`](super::ClockHandle::artificial_id).
///
/// 64 random bits, drawn when the clock is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClockId(u64);

impl ClockId {
    pub(super) fn draw() -> Self {
        // Seeded by the operating system. It is only ever compared with others, so no
        // seed has to replay it; one that a seed did replay would be that of another
        // process too.
        Self(RandomState::new().build_hasher().finish())
    }

    /// The bits, for a store that keeps fewer.
    pub fn as_u64(self) -> u64 {
        self.0
    }
}
