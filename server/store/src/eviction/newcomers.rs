//! Entries on probation, in the order in which they came.

use std::collections::VecDeque;

use crate::UnixMillis;

/// Of so many entries of a shard, one may be on probation.
const ENTRIES_PER_PLACE: usize = 64;
const FEWEST_PLACES: usize = 4;
/// Newcomers beyond the places that may wait for the next evictions, which come in batches and not to all shards alike.
const MOST_WAITING: usize = 64;

/// Where an entry is to be found that came not long ago. Twelve bytes, since one entry in [`ENTRIES_PER_PLACE`] has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Newcomer {
    hash_low: u32,
    /// The upper byte of the hash, and in the rest when it came: in ticks of 64 ms, which come round after 12 days.
    hash_high_and_time: u32,
    pub(super) slot: u16,
    pub(super) db: u16,
}

/// The bits of a hash that an index goes by: addresses are in the lower half, tags in the upper byte. They tell the entries
/// of a bucket apart as well as all bits do.
pub(super) const TRACE: u64 = 0xff00_0000_ffff_ffff;

const TICK_BITS: u32 = 6;
const TIME_BITS: u32 = 24;
const TIME_MASK: u32 = (1 << TIME_BITS) - 1;
/// Ticks by which the clock may have been set back, about an hour; see [`Newcomers::since`].
const SET_BACK: u32 = 1 << 16;

impl Newcomer {
    fn new(db: u16, slot: usize, hash: u64, now: UnixMillis) -> Self {
        let high = (hash >> u32::BITS) as u32 & !TIME_MASK;
        Newcomer { hash_low: hash as u32, hash_high_and_time: high | ticks(now), slot: slot as u16, db }
    }

    /// The part of its hash that is in [`TRACE`].
    #[inline]
    pub(super) fn trace(&self) -> u64 {
        u64::from(self.hash_high_and_time & !TIME_MASK) << u32::BITS | u64::from(self.hash_low)
    }
}

fn ticks(now: UnixMillis) -> u32 {
    (now >> TICK_BITS) as u32 & TIME_MASK
}

/// A queue of newcomers. Some of them may be gone.
#[derive(Default)]
pub(super) struct Newcomers {
    queue: VecDeque<Newcomer>,
}

impl Newcomers {
    pub(super) fn push(&mut self, db: u16, slot: usize, hash: u64, now: UnixMillis) {
        if self.queue.len() == self.queue.capacity() {
            // Not twice as many, as it would on its own: that room would be empty for good.
            self.queue.reserve_exact(self.queue.len() / 8 + FEWEST_PLACES);
        }
        self.queue.push_back(Newcomer::new(db, slot, hash, now));
    }

    /// The one whose probation ends with an eviction, in a shard of so many entries. `None` if nobody has been here for long
    /// enough.
    pub(super) fn pop_due(&mut self, entries: usize) -> Option<Newcomer> {
        if self.queue.len() > places(entries) { self.queue.pop_front() } else { None }
    }

    /// Those that [`Self::pop_due`] is going to give, at most so many of them.
    pub(super) fn next_due(&self, entries: usize, most: usize) -> impl Iterator<Item = &Newcomer> {
        self.queue.iter().take(most.min(self.due(entries)))
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
        let Some(oldest) = self.queue.front() else { return now };
        let waited = ticks(now).wrapping_sub(oldest.hash_high_and_time) & TIME_MASK;
        let is_ahead = waited > TIME_MASK - SET_BACK;
        ((now >> TICK_BITS) - i64::from(if is_ahead { 0 } else { waited })) << TICK_BITS
    }

    /// What it takes, in bytes.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.queue.capacity() * size_of::<Newcomer>()
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
        (0..10).for_each(|n| newcomers.push(0, 1, n, 1_000 + 64 * n as i64));
        assert_eq!(newcomers.since(2_000), 960);
        let due: Vec<_> = std::iter::from_fn(|| newcomers.pop_due(640)).collect();
        assert!(due.is_empty(), "{due:?}");
        assert_eq!(newcomers.next_due(320, 9).map(Newcomer::trace).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert_eq!(newcomers.pop_due(320).map(|newcomer| newcomer.trace()), Some(0));
        assert_eq!(newcomers.since(2_000), 1_024);
        assert_eq!(newcomers.pop_surplus(192), None);
    }

    #[test]
    fn the_clock_of_arrivals_may_wrap_and_be_set_back() {
        let mut newcomers = Newcomers::default();
        let wraps_at = 1i64 << (TIME_BITS + TICK_BITS);
        newcomers.push(0, 1, u64::MAX, wraps_at - 64);
        assert_eq!(newcomers.since(wraps_at + 640), wraps_at - 64);
        assert_eq!(newcomers.since(wraps_at - 640), wraps_at - 640);
        assert_eq!(newcomers.pop().map(|newcomer| newcomer.trace()), Some(TRACE));
    }
}
