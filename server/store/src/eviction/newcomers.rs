//! Entries on probation, in the order in which they came.

use std::collections::VecDeque;

use crate::UnixMillis;

/// Of so many entries of a shard, one may be on probation.
const ENTRIES_PER_PLACE: usize = 64;
const FEWEST_PLACES: usize = 4;
/// Newcomers beyond the places that may wait for the next evictions, which come in batches and not to all shards alike.
const MOST_WAITING: usize = 64;

/// Where an entry is to be found that came not long ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Newcomer {
    pub(super) hash: u64,
    pub(super) slot: u16,
    pub(super) db: u16,
    /// When it came, as the low bits of the clock's milliseconds.
    came_at: u32,
}

/// A queue of newcomers. Some of them may be gone.
#[derive(Default)]
pub(super) struct Newcomers {
    queue: VecDeque<Newcomer>,
}

impl Newcomers {
    pub(super) fn push(&mut self, db: u16, slot: usize, hash: u64, now: UnixMillis) {
        self.queue.push_back(Newcomer { hash, slot: slot as u16, db, came_at: now as u32 });
    }

    /// The one whose probation ends with an eviction, in a shard of so many entries. `None` if nobody has been here for long
    /// enough.
    pub(super) fn pop_due(&mut self, entries: usize) -> Option<Newcomer> {
        if self.queue.len() > places(entries) { self.queue.pop_front() } else { None }
    }

    /// How many are due, in a shard of so many entries.
    pub(super) fn due(&self, entries: usize) -> usize {
        self.queue.len().saturating_sub(places(entries))
    }

    /// The one that came first.
    pub(super) fn pop(&mut self) -> Option<Newcomer> {
        self.queue.pop_front()
    }

    /// The one whose probation ends because others have come and nothing was evicted.
    pub(super) fn pop_surplus(&mut self, entries: usize) -> Option<Newcomer> {
        if self.queue.len() > places(entries) + MOST_WAITING { self.queue.pop_front() } else { None }
    }

    /// No newcomer came before this.
    pub(super) fn since(&self, now: UnixMillis) -> UnixMillis {
        let waited = self.queue.front().map_or(0, |oldest| (now as u32).wrapping_sub(oldest.came_at) as i32);
        now - i64::from(waited.max(0))
    }

    /// Exchanges two databases.
    pub(super) fn swap(&mut self, a: u16, b: u16) {
        for newcomer in &mut self.queue {
            newcomer.db = match newcomer.db {
                db if db == a => b,
                db if db == b => a,
                db => db,
            };
        }
    }
}

fn places(entries: usize) -> usize {
    (entries / ENTRIES_PER_PLACE).max(FEWEST_PLACES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_due_when_all_places_are_taken() {
        let mut newcomers = Newcomers::default();
        assert_eq!(newcomers.since(7), 7);
        (0..10).for_each(|n| newcomers.push(0, 1, n, 1_000 + n as i64));
        assert_eq!(newcomers.since(2_000), 1_000);
        let due: Vec<_> = std::iter::from_fn(|| newcomers.pop_due(640)).collect();
        assert!(due.is_empty(), "{due:?}");
        assert_eq!(newcomers.pop_due(320).map(|newcomer| newcomer.hash), Some(0));
        assert_eq!(newcomers.since(2_000), 1_001);
        assert_eq!(newcomers.pop_surplus(192), None);
    }

    #[test]
    fn the_clock_of_arrivals_may_wrap() {
        let mut newcomers = Newcomers::default();
        let wraps_at = 1i64 << 32;
        newcomers.push(0, 1, 1, wraps_at - 5);
        assert_eq!(newcomers.since(wraps_at + 5), wraps_at - 5);
        assert_eq!(newcomers.since(wraps_at - 9), wraps_at - 9);
    }
}
