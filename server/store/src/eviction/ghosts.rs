//! What is remembered of entries that went: two bytes for each, found by the hash of their key.
//!
//! A key that comes back gets its uses back. Cells are in sets of four; what is put into a full set drives out the one with
//! the fewest uses. A tenth of a cell's bits tells keys apart, so now and then one inherits from another: that costs a
//! little of the hit ratio and nothing else.

use crate::prefetch::fetch_line;

/// The most uses that are remembered.
pub(super) const MOST: u8 = (1 << USES_BITS) - 1;

const USES_BITS: u32 = 6;
const USES_MASK: u16 = MOST as u16;
const SET: usize = 4;
/// Cells for each 8 entries of the shard: not quite one a key, so that all that eviction keeps is within two bytes a key.
const CELLS_PER_EIGHT: usize = 7;

/// Empty cells are 0: nothing is remembered of what has no uses.
#[derive(Default)]
pub(super) struct Ghosts {
    sets: Box<[[u16; SET]]>,
    /// In ticks: the time up to which the uses are halved.
    aged_at: u32,
}

impl Ghosts {
    /// Makes room for the ghosts of as many entries as there are. What was known is forgotten if that changes much.
    pub(super) fn fit(&mut self, entries: usize) {
        let sets = entries * CELLS_PER_EIGHT / 8 / SET + 1;
        let fits = self.sets.len() / 2 <= sets && sets <= self.sets.len() + self.sets.len() / 4;
        if !fits {
            self.sets = vec![[0; SET]; sets].into_boxed_slice();
        }
    }

    /// Halves all uses if another half-life has begun, which is a power of two of ticks. It may be another one each time: what is
    /// known is aged by the time that has passed since the last time. A clock that is set back ages nothing.
    pub(super) fn age(&mut self, now: u32, half_life_bits: u32) {
        let halvings = (now >> half_life_bits).saturating_sub(self.aged_at >> half_life_bits).min(u16::BITS - 1);
        self.aged_at = now;
        if halvings > 0 {
            let age = |cell: &mut u16| *cell = *cell & !USES_MASK | (*cell & USES_MASK) >> halvings;
            self.sets.iter_mut().flatten().for_each(age);
        }
    }

    pub(super) fn remember(&mut self, hash: u64, uses: u8) {
        let Some((set, tag)) = self.set_of(hash) else { return };
        let uses = u16::from(uses.min(MOST));
        let Some(fewest) = set.iter_mut().min_by_key(|cell| **cell & USES_MASK) else { return };
        if uses > 0 && *fewest & USES_MASK <= uses {
            *fewest = tag | uses;
        }
    }

    /// The uses that are remembered of a key, and no longer.
    pub(super) fn recall(&mut self, hash: u64) -> u8 {
        let Some((set, tag)) = self.set_of(hash) else { return 0 };
        let known = |cell: &&mut u16| **cell & !USES_MASK == tag && **cell & USES_MASK > 0;
        set.iter_mut().find(known).map_or(0, |cell| (std::mem::take(cell) & USES_MASK) as u8)
    }

    /// Asks for the cache line where [`Self::remember`] and [`Self::recall`] will look. The lower half of a hash will do.
    #[inline]
    pub(super) fn approach(&self, hash: u64) {
        if let Some(set) = self.sets.get(self.index_of(hash)) {
            fetch_line(set);
        }
    }

    #[inline]
    fn set_of(&mut self, hash: u64) -> Option<(&mut [u16; SET], u16)> {
        let tag = ((hash >> u32::BITS) as u16) << USES_BITS;
        let index = self.index_of(hash);
        Some((self.sets.get_mut(index)?, tag))
    }

    /// The upper half of the product of 32 bits with a number of n sets is evenly spread over 0…n−1.
    #[inline]
    fn index_of(&self, hash: u64) -> usize {
        ((u64::from(hash as u32) * self.sets.len() as u64) >> u32::BITS) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ghosts_of(entries: usize) -> Ghosts {
        let mut ghosts = Ghosts::default();
        ghosts.fit(entries);
        ghosts
    }

    fn hash(number: u64) -> u64 {
        crate::random::Random::new(number).next()
    }

    #[test]
    fn what_is_remembered_is_recalled_once() {
        let mut ghosts = ghosts_of(1_000);
        ghosts.remember(hash(1), 9);
        ghosts.remember(hash(2), 200);
        assert_eq!((ghosts.recall(hash(1)), ghosts.recall(hash(2))), (9, MOST));
        assert_eq!((ghosts.recall(hash(1)), ghosts.recall(hash(3))), (0, 0));
    }

    #[test]
    fn uses_are_halved_with_each_half_life() {
        let mut ghosts = ghosts_of(1_000);
        ghosts.age(7 << 4, 4);
        ghosts.remember(hash(1), 8);
        ghosts.age((8 << 4) - 1, 4);
        ghosts.age(9 << 4, 4);
        assert_eq!(ghosts.recall(hash(1)), 2);
        ghosts.remember(hash(1), 8);
        ghosts.age(5 << 4, 4);
        assert_eq!(ghosts.recall(hash(1)), 8, "a clock that was set back ages nothing");
    }

    #[test]
    fn another_half_life_forgets_nothing() {
        let mut ghosts = ghosts_of(1_000);
        let time = 5 << 10;
        ghosts.age(time, 4);
        ghosts.remember(hash(1), 8);
        ghosts.age(time, 10);
        ghosts.age(time + 1, 3);
        assert_eq!(ghosts.recall(hash(1)), 8);
    }

    #[test]
    fn those_used_often_outlast_the_others() {
        let mut ghosts = ghosts_of(4_000);
        (0..1_000).for_each(|n| ghosts.remember(hash(n), 5));
        (1_000..20_000).for_each(|n| ghosts.remember(hash(n), 1));
        let left = (0..1_000).filter(|n| ghosts.recall(hash(*n)) == 5).count();
        assert!(left > 950, "{left}");
    }

    #[test]
    fn without_room_nothing_is_remembered() {
        let mut ghosts = Ghosts::default();
        ghosts.remember(hash(1), 9);
        assert_eq!(ghosts.recall(hash(1)), 0);
    }

    #[test]
    fn memory_stays_within_two_bytes_an_entry() {
        let mut ghosts = ghosts_of(10_000);
        assert!(size_of_val(&*ghosts.sets) <= 17_600);
        ghosts.remember(hash(1), 9);
        ghosts.fit(11_000);
        assert_eq!(ghosts.recall(hash(1)), 9, "a small change forgets nothing");
        ghosts.fit(1_000);
        assert!(size_of_val(&*ghosts.sets) <= 2_000);
    }
}
