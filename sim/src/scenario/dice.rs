//! A die, for making scenarios.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Throws one after the other: what is made of a seed is kept as data, so
/// nothing depends on the place of a throw later.
#[derive(Debug)]
pub(super) struct Dice(ChaCha8Rng);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// From `from` to `to`, both included.
    pub(super) fn within(&mut self, from: u64, to: u64) -> u64 {
        let span = u128::from(to - from) + 1;
        from + ((u128::from(self.0.next_u64()) * span) >> 64) as u64
    }

    /// The same, small numbers as often as great ones.
    pub(super) fn any_size(&mut self, from: u64, to: u64) -> u64 {
        let bits = self.within(0, 63 - u64::from((to - from + 1).leading_zeros()));
        from + self.within(0, (to - from).min((1 << (bits + 1)) - 1))
    }

    pub(super) fn pct(&mut self, pct: u64) -> bool {
        self.within(0, 99) < pct
    }

    pub(super) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.within(0, choices.len() as u64 - 1) as usize]
    }
}
