//! Randomness that is keyed by what it is for.

use job_engine::draw::{mix, mix_words};

/// What a draw decides. The number is part of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Topic {
    /// How long a request travels.
    RequestLatency = 1,
    /// How long a reply travels.
    ReplyLatency,
    /// Whether a request is lost.
    LoseRequest,
    /// Whether a reply is lost.
    LoseReply,
    /// Whether a request arrives twice.
    Duplicate,
    /// Whether a message is delayed, and how long.
    Delay,
    /// Whether the store refuses a command, or fails after it.
    StoreError,
    /// How long an announcement travels.
    Announce,
    /// Whether an announcement is lost.
    LoseAnnouncement,
    /// Whether an announcement arrives twice.
    DoubleAnnouncement,
    /// The seed of the generator of a worker.
    WorkerSeed,
    /// The token of a spawn.
    SpawnToken,
    /// How long a runner takes to react to a stop.
    Reaction,
    /// The seed of the network of a cluster.
    Cluster,
}

/// The draws of one scenario. A draw depends on the seed, its topic and its key,
/// and on nothing that was drawn before: that is what lets a failing scenario
/// shrink.
#[derive(Clone, Copy, Debug)]
pub struct Draws {
    seed: u64,
}

impl Draws {
    /// The draws of the scenario with this seed.
    pub const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The number for this topic and key.
    pub fn draw(self, topic: Topic, key: [u64; 3]) -> u64 {
        let start = mix(self.seed ^ 0x6a09_e667_f3bc_c909);
        mix_words(start, [topic as u64, key[0], key[1], key[2]])
    }

    /// A number from `from` to `to`, both included.
    pub fn within(self, topic: Topic, key: [u64; 3], (from, to): (u64, u64)) -> u64 {
        scale(self.draw(topic, key), from, to)
    }

    /// True in `pct` of a hundred cases.
    pub fn happens(self, topic: Topic, key: [u64; 3], pct: u8) -> bool {
        pct > 0 && self.draw(topic, key) % 100 < u64::from(pct)
    }

    /// 32 bytes, for a generator.
    pub fn seed_bytes(self, topic: Topic, key: [u64; 2]) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (place, chunk) in bytes.chunks_exact_mut(8).enumerate() {
            let word = self.draw(topic, [key[0], key[1], place as u64]);
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}

/// `draw` moved into `from..=to`.
fn scale(draw: u64, from: u64, to: u64) -> u64 {
    let span = u128::from(to.saturating_sub(from)) + 1;
    from + ((u128::from(draw) * span) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_reaches_both_ends_and_depends_on_its_key_alone() {
        assert_eq!(scale(0, 3, 9), 3);
        assert_eq!(scale(u64::MAX, 3, 9), 9);
        assert_eq!(scale(u64::MAX, 0, u64::MAX), u64::MAX);
        let draws = Draws::new(7);
        let one = draws.draw(Topic::Delay, [1, 2, 3]);
        assert_eq!(one, Draws::new(7).draw(Topic::Delay, [1, 2, 3]));
        assert_ne!(one, draws.draw(Topic::Delay, [1, 3, 2]));
        assert_ne!(one, Draws::new(8).draw(Topic::Delay, [1, 2, 3]));
        assert!(!draws.happens(Topic::Delay, [0; 3], 0));
        assert!(draws.happens(Topic::Delay, [0; 3], 100));
    }
}
