//! How often keys are asked for: a count-min sketch that forgets by halves.
//!
//! Each key has one counter in each row, which it shares with others; the least of them is closest to the truth, and never below it by
//! more than what two threads that count at the same moment lose. Only counters that are below the new value are raised ("conservative
//! update": Estan and Varghese, 2002), so that the many keys that are asked for once hardly raise those of the few. Its memory is the same
//! for any number of keys.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

const ROWS: u32 = 4;

/// With 500,000 requests a second for as many keys, a key's least counter is too high by some 200.
const COLUMN_BITS: u32 = 12;

/// All counters are halved this often. So that of a key that is asked for n times a second goes between n and 2n.
const WINDOW: Duration = Duration::from_secs(1);

pub(super) struct Sketch {
    counters: Box<[AtomicU32]>,
    since: Instant,
    /// Windows that have ended.
    windows: AtomicU64,
}

impl Default for Sketch {
    fn default() -> Self {
        let counters = (0..ROWS << COLUMN_BITS).map(|_| AtomicU32::new(0)).collect();
        Sketch { counters, since: Instant::now(), windows: AtomicU64::new(0) }
    }
}

impl Sketch {
    /// Counts a key, and tells about how often it was asked for in the last second.
    pub(super) fn add(&self, hash: u64, times: u32, now: Instant) -> u32 {
        self.forget(now);
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

    /// Halves what was counted for each window that has ended.
    fn forget(&self, now: Instant) {
        let (ended, known) = (self.windows_at(now), self.windows.load(Relaxed));
        if ended <= known || self.windows.compare_exchange(known, ended, Relaxed, Relaxed).is_err() {
            return;
        }
        let halvings = u32::try_from(ended - known).unwrap_or(u32::MAX);
        for counter in &self.counters {
            counter.store(counter.load(Relaxed).checked_shr(halvings).unwrap_or(0), Relaxed);
        }
    }

    fn windows_at(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.since).as_secs() / WINDOW.as_secs()
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
            highest = sketch.add(random.random(), 1, sketch.since).max(highest);
            if turn % 100 == 0 {
                for (hot, counted) in hot.iter().zip(&mut counted) {
                    *counted = sketch.add(*hot, 1, sketch.since);
                }
            }
        }
        assert!(counted.iter().all(|count| (1000..1100).contains(count)), "{counted:?}");
        assert!(highest < 200, "one of 100,000 that were asked for once is taken for one of {highest}");
    }

    #[test]
    fn what_was_counted_is_forgotten() {
        let sketch = Sketch::default();
        assert_eq!(sketch.add(1, 1000, sketch.since), 1000);
        assert_eq!(sketch.add(1, 0, sketch.since + WINDOW), 500);
        assert_eq!(sketch.add(1, 0, sketch.since + 3 * WINDOW), 125);
        assert_eq!(sketch.add(1, 1, sketch.since + 100_000 * WINDOW), 1);
    }

    #[test]
    fn one_may_stand_for_many() {
        let sketch = Sketch::default();
        sketch.add(1, u32::MAX, sketch.since);
        assert_eq!(sketch.add(1, 5, sketch.since), u32::MAX);
    }
}
