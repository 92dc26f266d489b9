//! How long things took.

use std::time::Duration;

/// Durations of one subject in one round.
#[derive(Clone, Debug, Default)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    /// One more.
    pub fn push(&mut self, took: Duration) {
        self.0.push(took);
    }

    /// All of another.
    pub fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many in a second, one after the other.
    pub fn rate(&self) -> f64 {
        self.0.len() as f64 / self.0.iter().sum::<Duration>().as_secs_f64()
    }

    /// In milliseconds, what this share of them, from 0 to 1, did not exceed: by
    /// the nearest rank. 0 if there are none.
    pub fn quantile_ms(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (share * sorted.len() as f64).ceil() as usize;
        let at = rank.saturating_sub(1);
        sorted.get(at).map_or(0.0, |took| took.as_secs_f64() * 1e3)
    }
}

impl FromIterator<Duration> for Latencies {
    fn from_iter<I: IntoIterator<Item = Duration>>(durations: I) -> Self {
        Self(durations.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_one_of_the_durations() {
        let hundred: Latencies = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(hundred.quantile_ms(0.5), 50.0);
        assert_eq!(hundred.quantile_ms(0.99), 99.0);
        let one: Latencies = [Duration::from_millis(7)].into_iter().collect();
        assert_eq!(one.quantile_ms(0.5), 7.0);
        assert_eq!(one.quantile_ms(0.99), 7.0);
        assert_eq!(Latencies::default().quantile_ms(0.5), 0.0);
    }
}
