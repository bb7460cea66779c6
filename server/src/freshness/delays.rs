//! How long changes took from their commit to the owners of their keys, as a distribution.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Parts that each power of two is divided into, so that a figure is right to an eighth.
const PARTS_BITS: u32 = 3;
const PARTS: u64 = 1 << PARTS_BITS;

/// Powers of two of a microsecond that are told apart: up to nineteen hours.
const POWERS: u32 = 36;

const BUCKETS: usize = (POWERS * PARTS as u32) as usize;

/// Counts of delays.
#[derive(Debug)]
pub struct Delays {
    counts: Box<[AtomicU64]>,
    micros: AtomicU64,
}

impl Default for Delays {
    fn default() -> Self {
        Delays { counts: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(), micros: AtomicU64::new(0) }
    }
}

impl Delays {
    /// Counts one.
    pub fn add(&self, micros: u64) {
        self.counts[bucket(micros)].fetch_add(1, Relaxed);
        self.micros.fetch_add(micros, Relaxed);
    }

    /// The sum of all, in microseconds.
    pub fn sum(&self) -> u64 {
        self.micros.load(Relaxed)
    }

    /// What so large a share of them did not exceed, in microseconds; 0 if there was none.
    pub fn quantile(&self, share: f64) -> u64 {
        let counts: Vec<u64> = self.counts.iter().map(|count| count.load(Relaxed)).collect();
        let rank = (counts.iter().sum::<u64>() as f64 * share).ceil() as u64;
        let mut passed = 0;
        for (bucket, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            passed += count;
            if passed >= rank {
                return bound(bucket);
            }
        }
        0
    }

    /// How many there were up to each power of two of a microsecond, each without those before.
    pub fn by_powers(&self) -> Vec<u64> {
        self.counts.chunks(PARTS as usize).map(|parts| parts.iter().map(|count| count.load(Relaxed)).sum()).collect()
    }
}

/// From eight microseconds on each power of two has eight buckets; below, each microsecond has one, which counts with the power that it is of.
fn bucket(micros: u64) -> usize {
    let micros = micros.clamp(1, (1 << POWERS) - 1);
    let power = micros.ilog2();
    let part = match power.checked_sub(PARTS_BITS) {
        Some(shift) => (micros >> shift) & (PARTS - 1),
        None => (micros << (PARTS_BITS - power)) & (PARTS - 1),
    };
    (u64::from(power) * PARTS + part) as usize
}

/// The largest number of microseconds that is counted there.
fn bound(bucket: usize) -> u64 {
    let (power, part) = (bucket as u64 / PARTS, bucket as u64 % PARTS);
    let above = ((PARTS + part + 1) << power) / PARTS;
    above.saturating_sub(1).max(1 << power)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_bound_is_right_to_an_eighth(micros in 1u64..1 << 35) {
            let bound = bound(bucket(micros));
            prop_assert!(bound >= micros && bound <= micros + micros / 8 + 1, "{micros} -> {bound}");
        }
    }

    #[test]
    fn quantiles_are_of_what_was_added() {
        let delays = Delays::default();
        assert_eq!(delays.quantile(0.5), 0);
        (1..=100).for_each(|millis| delays.add(millis * 1_000));
        let [half, most] = [0.5, 0.99].map(|share| delays.quantile(share) / 1_000);
        assert!((50..58).contains(&half) && (99..113).contains(&most), "{half} {most}");
        assert_eq!(delays.by_powers().iter().sum::<u64>(), 100);
        assert_eq!(delays.sum(), 5_050_000);
    }
}
