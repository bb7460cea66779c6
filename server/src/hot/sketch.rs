//! How often keys are asked for: a count-min sketch that forgets by halves.
//!
//! Each key has one counter in each row, which it shares with others; the least of them is closest to the truth, and never below it by
//! more than what two threads that count at the same moment lose. Only counters that are below the new value are raised ("conservative
//! update": Estan and Varghese, 2002), so that the many keys that are asked for once hardly raise those of the few. Its memory is the same
//! for any number of keys.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

const ROWS: u32 = 4;

/// With 500,000 requests a second for as many keys, a key's least counter is too high by some 200.
const COLUMN_BITS: u32 = 12;

/// All counters are halved each second. So that of a key that is asked for n times a second goes between n and 2n.
pub(super) struct Sketch {
    counters: Box<[AtomicU32]>,
    /// The last second that has begun.
    second: AtomicU64,
}

impl Default for Sketch {
    fn default() -> Self {
        let counters = (0..ROWS << COLUMN_BITS).map(|_| AtomicU32::new(0)).collect();
        Sketch { counters, second: AtomicU64::new(0) }
    }
}

impl Sketch {
    /// Counts a key in a second, and tells about how often it was asked for in the one before.
    pub(super) fn add(&self, hash: u64, times: u32, second: u64) -> u32 {
        self.forget(second);
        self.count(hash, times)
    }

    /// Counts a key in the second that was counted in last.
    pub(super) fn count(&self, hash: u64, times: u32) -> u32 {
        let least = Self::places(hash).map(|place| self.counters[place].load(Relaxed)).min().unwrap_or_default();
        let count = least.saturating_add(times);
        for counter in Self::places(hash).map(|place| &self.counters[place]) {
            if counter.load(Relaxed) < count {
                counter.store(count, Relaxed);
            }
        }
        count
    }

    fn places(hash: u64) -> impl Iterator<Item = usize> {
        let column = move |row: u32| (hash >> (row * COLUMN_BITS)) as usize & ((1 << COLUMN_BITS) - 1);
        (0..ROWS).map(move |row| ((row as usize) << COLUMN_BITS) | column(row))
    }

    /// Halves what was counted for each second that has ended. A clock that was set back changes nothing until it has caught up.
    fn forget(&self, second: u64) {
        let known = self.second.load(Relaxed);
        if second <= known || self.second.compare_exchange(known, second, Relaxed, Relaxed).is_err() {
            return;
        }
        let halvings = u32::try_from(second - known).unwrap_or(u32::MAX);
        for counter in &self.counters {
            counter.store(counter.load(Relaxed).checked_shr(halvings).unwrap_or(0), Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    #[test]
    fn the_keys_that_are_asked_for_most_are_told_from_the_rest() {
        let (sketch, mut random) = (Sketch::default(), StdRng::seed_from_u64(7));
        let hot: Vec<u64> = (0..10).map(|_| random.random()).collect();
        let (mut counted, mut highest) = (vec![0; hot.len()], 0);
        for turn in 0..100_000 {
            highest = sketch.add(random.random(), 1, 7).max(highest);
            if turn % 100 == 0 {
                for (hot, counted) in hot.iter().zip(&mut counted) {
                    *counted = sketch.add(*hot, 1, 7);
                }
            }
        }
        assert!(counted.iter().all(|count| (1000..1100).contains(count)), "{counted:?}");
        assert!(highest < 200, "one of 100,000 that were asked for once is taken for one of {highest}");
    }

    #[test]
    fn what_was_counted_is_forgotten() {
        let sketch = Sketch::default();
        assert_eq!(sketch.add(1, 1000, 7), 1000);
        assert_eq!(sketch.add(1, 0, 8), 500);
        assert_eq!(sketch.add(1, 0, 10), 125);
        assert_eq!(sketch.add(1, 0, 9), 125, "the clock was set back");
        assert_eq!(sketch.add(1, 1, 100_000), 1);
    }

    #[test]
    fn one_may_stand_for_many() {
        let sketch = Sketch::default();
        sketch.add(1, u32::MAX, 7);
        assert_eq!(sketch.add(1, 5, 7), u32::MAX);
    }
}
