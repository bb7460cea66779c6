//! A hand that goes round the entries of a shard, a bucket of an index at a time.
//!
//! It passes every entry equally often. The index places entries by their hash, so their order is as good as random; and where
//! the hand will be next is known ahead, so that what it will meet can be on its way to the processor.

use crate::database::{Database, NEVER};
use crate::entry::Entry;
use crate::shard::Shard;
use crate::table::Table;

/// Which slots the hand stops at.
pub(super) struct Stops<Y> {
    /// Those alone that have entries with a deadline.
    pub(super) volatile_only: bool,
    /// Those alone that this says of, numbered as the cluster does.
    pub(super) yields: Y,
}

impl<Y: Fn(u16) -> bool> Stops<Y> {
    #[inline]
    fn has(&self, shard: &Shard, database: &Database, slot: usize) -> bool {
        let has_any = match self.volatile_only {
            true => database.next_death(slot) != NEVER,
            false => !database.table(slot).is_empty(),
        };
        has_any && (self.yields)(shard.slot(slot))
    }
}

/// Where the next bucket to look at is.
#[derive(Clone, Copy, Default)]
pub(super) struct Hand {
    db: u16,
    slot: usize,
    position: u64,
}

impl Hand {
    /// Shows the entries of the next bucket, with the database and the slot that they are in. Says whether there was one that
    /// has any of the kind in question.
    pub(super) fn pass(
        &mut self,
        shard: &Shard,
        stops: &Stops<impl Fn(u16) -> bool>,
        mut show: impl FnMut(u16, usize, &Entry),
    ) -> bool {
        let stepped = self.step(shard, stops, |hand, table| {
            let (db, slot) = (hand.db, hand.slot);
            table.scan(hand.position, |entry| show(db, slot, entry))
        });
        stepped.is_some()
    }

    /// Asks for the next buckets, so many of them.
    pub(super) fn approach_buckets(mut self, shard: &Shard, stops: &Stops<impl Fn(u16) -> bool>, buckets: usize) {
        let mut step = || self.step(shard, stops, |hand, table| table.approach_scan(hand.position));
        (0..buckets).map_while(|_| step()).for_each(drop);
    }

    /// Asks for the entries of the next buckets, which should be there by now.
    pub(super) fn approach_entries(mut self, shard: &Shard, stops: &Stops<impl Fn(u16) -> bool>, buckets: usize) {
        let mut step = || self.step(shard, stops, |hand, table| table.scan(hand.position, Entry::prefetch_head));
        (0..buckets).map_while(|_| step()).for_each(drop);
    }

    /// Does something at the next bucket, which says where to go on in the table, and goes on.
    #[inline]
    fn step(
        &mut self,
        shard: &Shard,
        stops: &Stops<impl Fn(u16) -> bool>,
        visit: impl FnOnce(&Self, &Table<Entry>) -> u64,
    ) -> Option<()> {
        let table = self.find_slot(shard, stops)?.table(self.slot);
        self.position = visit(self, table);
        if self.position == 0 {
            self.slot += 1;
        }
        Some(())
    }

    /// Goes on to the next slot that has any of the kind, which may be the one where the hand is.
    fn find_slot<'s>(&mut self, shard: &'s Shard, stops: &Stops<impl Fn(u16) -> bool>) -> Option<&'s Database> {
        let databases = shard.database_count();
        // Once more than there are: the slots of the first that lie before the hand come last.
        for _ in 0..=databases {
            if let Some(database) = shard.database(self.db) {
                if self.find_slot_of(shard, database, stops) {
                    return Some(database);
                }
            }
            *self = Hand { db: (self.db + 1) % databases, slot: 0, position: 0 };
        }
        None
    }

    fn find_slot_of(&mut self, shard: &Shard, database: &Database, stops: &Stops<impl Fn(u16) -> bool>) -> bool {
        let found = (self.slot..database.slots()).find(|slot| stops.has(shard, database, *slot));
        if found != Some(self.slot) {
            self.position = 0;
        }
        self.slot = found.unwrap_or(database.slots());
        found.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Expiry, Store, StoreConfig};

    #[test]
    fn every_entry_of_every_database_is_passed_once_a_round() {
        let store = Store::new(StoreConfig { shards: 1, ..StoreConfig::default() });
        for (db, number) in [0, 3].into_iter().flat_map(|db| (0..500).map(move |number| (db, number))) {
            let (name, slot) = (format!("{number}"), number % 3);
            store.lock(slot, 0).set_string(&store.key(db, slot, name.as_bytes()), b"v", Expiry::None);
        }
        let shard = store.cells()[0].lock();
        let stops = |volatile_only| Stops { volatile_only, yields: |_| true };
        let (mut hand, mut passed) = (Hand::default(), std::collections::HashMap::new());
        while passed.len() < 1_000 {
            hand.approach_buckets(&shard, &stops(false), 7);
            hand.approach_entries(&shard, &stops(false), 7);
            let mut note = |db, slot, entry: &Entry| *passed.entry((db, slot, entry.key().to_vec())).or_insert(0) += 1;
            assert!(hand.pass(&shard, &stops(false), &mut note));
        }
        assert!(passed.values().all(|times| *times == 1));
        assert!(!hand.pass(&shard, &stops(true), |_, _, _| ()), "nothing has a deadline");
    }
}
