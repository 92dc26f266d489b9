//! Seeded chance.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// The throws of one part of a run. Each part has a stream of its own, so that
/// what one of them does depends on the seed and not on the others.
pub struct Dice(ChaCha8Rng);

impl Dice {
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        generator.set_stream(stream);
        Self(generator)
    }

    /// From `from` to `to`, both included.
    pub fn within(&mut self, from: u64, to: u64) -> u64 {
        let span = u128::from(to - from) + 1;
        from + ((u128::from(self.0.next_u64()) * span) >> 64) as u64
    }

    pub fn pct(&mut self, pct: u64) -> bool {
        self.within(0, 99) < pct
    }

    /// One of them, as often as its weight says.
    pub fn weighted<T: Copy>(&mut self, choices: &[(u64, T)]) -> T {
        let mut throw = self.within(1, choices.iter().map(|(weight, _)| weight).sum());
        for (weight, choice) in choices {
            if throw <= *weight {
                return *choice;
            }
            throw -= weight;
        }
        unreachable!("no throw is above the sum of the weights");
    }

    /// A time between two numbers of milliseconds.
    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_micros(self.within(from * 1_000, to * 1_000))
    }
}
