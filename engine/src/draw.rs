//! Randomness as an argument.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::ids::{Run, WorkerId};

/// What a random number is for. The same seed gives the same number for the
/// same purpose, whatever was drawn before: that is what lets the simulator
/// take an event out of a failing case without changing all that follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The jitter of the backoff after a failed run.
    Backoff(Run),
    /// The jitter of the n-th interval of a periodic timer.
    Interval {
        /// Which timer.
        timer: u8,
        /// Counts its intervals.
        n: u64,
    },
    /// The jitter of the wait after the n-th store error of a lane.
    StoreRetry {
        /// Which lane.
        lane: u8,
        /// Counts the errors of that lane.
        n: u64,
    },
    /// The identity of the worker.
    WorkerId,
    /// Tells the n-th spawn of a process from a later one with the same id.
    SpawnToken(u64),
}

impl Purpose {
    fn words(self) -> [u64; 4] {
        match self {
            Purpose::Backoff(run) => {
                let (high, low) = run.job.0.as_u64_pair();
                [1, high, low, run.fence.0 as u64]
            }
            Purpose::Interval { timer, n } => [2, timer.into(), n, 0],
            Purpose::StoreRetry { lane, n } => [3, lane.into(), n, 0],
            Purpose::WorkerId => [4, 0, 0, 0],
            Purpose::SpawnToken(n) => [5, n, 0, 0],
        }
    }
}

/// The seeded generator that every draw of a worker comes from.
///
/// Production seeds it from the operating system, the simulator from the
/// scenario.
#[derive(Clone, Debug)]
pub struct Entropy {
    /// Never drawn from itself: a fresh copy for each draw costs less than
    /// winding back one that was used.
    generator: ChaCha8Rng,
}

impl Entropy {
    /// A generator with this seed.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self {
            generator: ChaCha8Rng::from_seed(seed),
        }
    }

    /// The number that this seed holds for `purpose`.
    pub fn draw(&self, purpose: Purpose) -> u64 {
        self.stream(purpose).next_u64()
    }

    /// The identity of the worker that this generator was made for.
    pub fn worker_id(&self) -> WorkerId {
        let mut stream = self.stream(Purpose::WorkerId);
        let [_, high, low] = [(); 3].map(|()| stream.next_u64());
        WorkerId(
            uuid::Builder::from_random_bytes(uuid::Uuid::from_u64_pair(high, low).into_bytes())
                .into_uuid(),
        )
    }

    /// Each purpose has a ChaCha stream of its own. The streams are chosen by a
    /// mix of the purpose; a collision would make two jitters equal, which harms
    /// nothing.
    fn stream(&self, purpose: Purpose) -> ChaCha8Rng {
        let mut generator = self.generator.clone();
        generator.set_stream(mix_words(0, purpose.words()));
        generator
    }
}

/// A number that depends on all of `words`, on their order, and on `start`.
pub fn mix_words(start: u64, words: impl IntoIterator<Item = u64>) -> u64 {
    words.into_iter().fold(start, |hash, word| {
        mix(hash.rotate_left(23) ^ word.wrapping_mul(WEYL))
    })
}

/// The increment of SplitMix64: odd, and its bits are as irregular as those of the golden
/// ratio.
const WEYL: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014): every input bit
/// changes about half of the output bits.
pub const fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The outputs of SplitMix64 for the seed 1234567, as its users publish them.
    #[test]
    fn the_finalizer_is_that_of_split_mix() {
        let seed: u64 = 1_234_567;
        let outputs = (1..=3).map(|n: u64| mix(seed.wrapping_add(n.wrapping_mul(WEYL))));
        assert_eq!(
            outputs.collect::<Vec<_>>(),
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }

    #[test]
    fn a_mix_depends_on_each_bit_of_each_word_and_on_their_order() {
        for start in 0..16 {
            let words = [start, 3, 5];
            let of = |words: [u64; 3]| mix_words(words[0], [words[1], words[2]]);
            for place in 0..3 {
                for bit in 0..64 {
                    let mut flipped = words;
                    flipped[place] ^= 1 << bit;
                    assert_ne!(of(flipped), of(words), "word {place}, bit {bit}");
                }
            }
            assert_ne!(of([start, 5, 3]), of(words));
        }
    }

    #[test]
    fn a_draw_depends_on_its_purpose_and_not_on_its_place() {
        let one = Entropy::from_seed([7; 32]);
        let other = Entropy::from_seed([7; 32]);
        other.draw(Purpose::SpawnToken(3));
        let purpose = Purpose::Interval { timer: 1, n: 9 };
        assert_eq!(one.draw(purpose), other.draw(purpose));
        assert_ne!(
            one.draw(purpose),
            one.draw(Purpose::Interval { timer: 1, n: 10 })
        );
        assert_eq!(one.worker_id(), other.worker_id());
        assert_ne!(
            Entropy::from_seed([8; 32]).worker_id(),
            Entropy::from_seed([7; 32]).worker_id()
        );
    }
}
