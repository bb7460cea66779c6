//! Which of the keys are asked for.

use std::fmt;

use clap::ValueEnum;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// How requests are spread over the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Spread {
    /// Every key is as likely as the other.
    Uniform,
    /// Few keys get most requests: Zipf's law with exponent 0.99, as YCSB has it.
    Zipf,
    /// One key gets half of all requests.
    Hot,
}

/// The exponent of [`Spread::Zipf`].
const ZIPF_EXPONENT: f64 = 0.99;

/// The share of requests that the one key of [`Spread::Hot`] gets.
const HOT_SHARE: f64 = 0.5;

/// Draws keys, the same ones in every run.
pub(crate) struct Draw {
    keys: usize,
    /// The share of draws that are the first key, whatever else it gets.
    hot: f64,
    /// The probability that a draw is one of the first keys up to this one; empty for a uniform spread.
    cumulated: Vec<f64>,
    random: SmallRng,
}

impl Draw {
    /// Draws from `0..keys`.
    pub(crate) fn new(spread: Spread, keys: usize, seed: u64) -> Draw {
        let cumulated = match spread {
            Spread::Uniform | Spread::Hot => Vec::new(),
            Spread::Zipf => zipf(keys, ZIPF_EXPONENT),
        };
        let hot = if spread == Spread::Hot { HOT_SHARE } else { 0.0 };
        Draw { keys, hot, cumulated, random: SmallRng::seed_from_u64(seed) }
    }

    pub(crate) fn next(&mut self) -> usize {
        if self.hot > 0.0 && self.random.random_bool(self.hot) {
            return 0;
        }
        if self.cumulated.is_empty() {
            return self.random.random_range(0..self.keys);
        }
        let point = self.random.random::<f64>();
        self.cumulated.partition_point(|&probability| probability < point).min(self.keys - 1)
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Spread::Uniform => "uniform",
            Spread::Zipf => "Zipf",
            Spread::Hot => "one hot",
        })
    }
}

/// The cumulated probabilities of Zipf's law over `keys` ranks.
fn zipf(keys: usize, exponent: f64) -> Vec<f64> {
    let mut sum = 0.0;
    let mut cumulated: Vec<f64> = (1..=keys)
        .map(|rank| {
            sum += (rank as f64).powf(-exponent);
            sum
        })
        .collect();
    cumulated.iter_mut().for_each(|probability| *probability /= sum);
    cumulated
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(spread: Spread) -> Vec<u32> {
        let mut counts = vec![0; 100];
        let mut draw = Draw::new(spread, counts.len(), 1);
        (0..100_000).for_each(|_| counts[draw.next()] += 1);
        counts
    }

    #[test]
    fn a_uniform_spread_has_no_favourites() {
        assert!(counts(Spread::Uniform).iter().all(|count| (800..1200).contains(count)));
    }

    #[test]
    fn the_hot_key_gets_half() {
        assert!((49_500..51_500).contains(&counts(Spread::Hot)[0]));
    }

    #[test]
    fn the_second_of_zipf_is_asked_for_half_as_often_as_the_first() {
        let counts = counts(Spread::Zipf);
        let ratio = f64::from(counts[0]) / f64::from(counts[1]);
        assert!((1.8..2.2).contains(&ratio), "{ratio}");
        assert!(counts[0] > 15 * counts[99]);
    }
}
