//! What is remembered of entries that went: not quite two bytes for each, found by the hash of their key.
//!
//! A key that comes back gets its uses back. Most that go were used once; a byte is enough for one of those, of which the last
//! that went are known. Of the others there are two bytes, the number of uses among them, and the one with the fewest gives
//! way. What lies in so few bits is now and then another key's (one in sixty of those used once, one in three hundred of the
//! others): then a key inherits what is not its own, which costs a little of the hit ratio and nothing else.

use crate::prefetch::fetch_line;

/// The most uses that are remembered.
pub(super) const MOST: u8 = (1 << USES_BITS) - 1;

const USES_BITS: u32 = 6;
const USES_MASK: u16 = MOST as u16;
const ENTRIES_PER_SET: usize = 8;

#[derive(Default)]
pub(super) struct Ghosts {
    sets: Box<[Set]>,
    /// In ticks: the time up to which the uses are halved.
    aged_at: u32,
}

/// The ghosts of as many entries as [`ENTRIES_PER_SET`] says, beside each other so that one cache line has them.
#[derive(Clone, Default)]
struct Set {
    once: [Queue; 2],
    /// A part of the hash and the uses; 0 where there are none.
    often: [u16; 3],
}

/// A part of the hash of each key, the latest first; 0 for none.
#[derive(Clone, Copy, Default)]
struct Queue([u8; 4]);

impl Ghosts {
    /// Makes room for the ghosts of as many entries as there are. What was known is forgotten if that changes much.
    pub(super) fn fit(&mut self, entries: usize) {
        let sets = entries / ENTRIES_PER_SET + 1;
        let fits = self.sets.len() / 2 <= sets && sets <= self.sets.len() + self.sets.len() / 4;
        if !fits {
            self.sets = vec![Set::default(); sets].into_boxed_slice();
        }
    }

    /// Halves all uses if another half-life has begun, which is a power of two of ticks. It may be another one each time: what is
    /// known is aged by the time that has passed since the last time. A clock that is set back ages nothing.
    pub(super) fn age(&mut self, now: u32, half_life_bits: u32) {
        let halvings = (now >> half_life_bits).saturating_sub(self.aged_at >> half_life_bits).min(u16::BITS - 1);
        self.aged_at = now;
        if halvings > 0 {
            self.sets.iter_mut().for_each(|set| set.halve(halvings));
        }
    }

    pub(super) fn remember(&mut self, hash: u64, uses: u8) {
        let Some(set) = self.set_of(hash) else { return };
        match uses {
            0 => {}
            1 => set.queue_of(hash).push(once_tag(hash)),
            uses => set.remember_often(often_tag(hash), u16::from(uses.min(MOST))),
        }
    }

    /// The uses that are remembered of a key, and no longer.
    pub(super) fn recall(&mut self, hash: u64) -> u8 {
        let Some(set) = self.set_of(hash) else { return 0 };
        match set.recall_often(often_tag(hash)) {
            0 => u8::from(set.queue_of(hash).take(once_tag(hash))),
            uses => uses as u8,
        }
    }

    /// What it takes, in bytes.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        size_of_val(&*self.sets)
    }

    /// Asks for the cache line where [`Self::remember`] and [`Self::recall`] will look. The lower half of a hash will do.
    #[inline]
    pub(super) fn approach(&self, hash: u64) {
        if let Some(set) = self.sets.get(self.index_of(hash)) {
            fetch_line(set);
        }
    }

    #[inline]
    fn set_of(&mut self, hash: u64) -> Option<&mut Set> {
        let index = self.index_of(hash);
        self.sets.get_mut(index)
    }

    /// The upper half of the product of 32 bits with a number of n sets is evenly spread over 0…n−1.
    #[inline]
    fn index_of(&self, hash: u64) -> usize {
        ((u64::from(hash as u32) * self.sets.len() as u64) >> u32::BITS) as usize
    }
}

impl Set {
    /// What was used once is forgotten.
    fn halve(&mut self, times: u32) {
        self.once = Default::default();
        for ghost in &mut self.often {
            *ghost = *ghost & !USES_MASK | (*ghost & USES_MASK) >> times;
        }
    }

    fn remember_often(&mut self, tag: u16, uses: u16) {
        let fewest = self.often.iter_mut().min_by_key(|ghost| **ghost & USES_MASK);
        if let Some(ghost) = fewest.filter(|ghost| **ghost & USES_MASK <= uses) {
            *ghost = tag | uses;
        }
    }

    fn recall_often(&mut self, tag: u16) -> u16 {
        let known = |ghost: &&mut u16| **ghost & !USES_MASK == tag && **ghost & USES_MASK > 0;
        self.often.iter_mut().find(known).map_or(0, |ghost| std::mem::take(ghost) & USES_MASK)
    }

    #[inline]
    fn queue_of(&mut self, hash: u64) -> &mut Queue {
        &mut self.once[(hash >> 48) as usize % 2]
    }
}

impl Queue {
    /// The oldest gives way.
    fn push(&mut self, tag: u8) {
        self.0.rotate_right(1);
        self.0[0] = tag;
    }

    /// Tells whether it was there.
    fn take(&mut self, tag: u8) -> bool {
        let Some(at) = self.0.iter().position(|other| *other == tag) else { return false };
        self.0[at..].rotate_left(1);
        self.0[3] = 0;
        true
    }
}

/// Not 0.
#[inline]
fn once_tag(hash: u64) -> u8 {
    ((hash >> 40) as u8).max(1)
}

#[inline]
fn often_tag(hash: u64) -> u16 {
    ((hash >> u32::BITS) as u16) << USES_BITS
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
    fn of_those_used_once_the_latest_are_known() {
        let mut ghosts = ghosts_of(4_000);
        (0..20_000).for_each(|n| ghosts.remember(hash(n), 1));
        let known_of = |ghosts: &mut Ghosts, keys: std::ops::Range<u64>| {
            let all = keys.end - keys.start;
            keys.filter(|n| ghosts.recall(hash(*n)) == 1).count() as u64 * 100 / all
        };
        assert!(known_of(&mut ghosts, 30_000..40_000) <= 3, "hardly any that never came");
        assert!(known_of(&mut ghosts, 19_000..20_000) >= 90);
        assert!(known_of(&mut ghosts, 0..10_000) <= 10);
        ghosts.remember(hash(1), 1);
        ghosts.age(1 << 4, 4);
        assert_eq!(ghosts.recall(hash(1)), 0, "half a use is none");
    }

    #[test]
    fn those_used_often_outlast_the_others() {
        let mut ghosts = ghosts_of(4_000);
        (0..500).for_each(|n| ghosts.remember(hash(n), 5));
        (1_000..20_000).for_each(|n| ghosts.remember(hash(n), 1 + n as u8 % 2));
        let left = (0..500).filter(|n| ghosts.recall(hash(*n)) == 5).count();
        assert!(left > 475, "{left}");
    }

    #[test]
    fn without_room_nothing_is_remembered() {
        let mut ghosts = Ghosts::default();
        ghosts.remember(hash(1), 9);
        assert_eq!(ghosts.recall(hash(1)), 0);
    }

    #[test]
    fn a_small_change_of_size_forgets_nothing() {
        let mut ghosts = ghosts_of(10_000);
        ghosts.remember(hash(1), 9);
        ghosts.fit(11_000);
        assert_eq!(ghosts.recall(hash(1)), 9);
        let size = ghosts.size();
        ghosts.fit(1_000);
        assert!(ghosts.size() < size / 9);
    }
}
