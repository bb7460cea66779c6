//! Walks over keys: SCAN, KEYS, RANDOMKEY, and the keys of a slot.

use crate::UnixMillis;
use crate::database::Database;
use crate::entry::Entry;
use crate::entry_ref::ValueRef;
use crate::object_type::ObjectType;
use crate::store::Store;
use crate::table::CURSOR_BITS;

/// How many entries a random pick looks at before it gives up on chance and takes the first key that it finds.
const RANDOM_TRIES: usize = 64;

/// Where a scan stands: the slot, counted through the shards one after the other, and the position in its table. It
/// fits in 53 bits, so that clients with numbers of any kind can carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ScanCursor {
    shard: usize,
    slot: usize,
    position: u64,
}

impl Store {
    /// Visits some of the database's keys, about `count`, and says where to go on: 0 when all have been visited. A scan
    /// starts at 0. A key that is there from the start of a scan to its end is visited at least once. A cursor that
    /// no scan gave is as good as any, or the end.
    pub fn scan(
        &self,
        db: u16,
        cursor: u64,
        count: usize,
        now: UnixMillis,
        visit: &mut dyn FnMut(&[u8], ObjectType),
    ) -> u64 {
        let Some(mut cursor) = ScanCursor::decode(cursor, self) else {
            return 0;
        };
        let mut seen = 0;
        while seen < count.max(1) {
            match self.scan_shard(db, cursor, count.max(1), &mut seen, &mut |entry| visit_key(entry, now, visit)) {
                Some(next) => cursor = next,
                None if cursor.shard + 1 == self.cells().len() => return 0,
                None => cursor = ScanCursor { shard: cursor.shard + 1, slot: 0, position: 0 },
            }
        }
        cursor.encode(self)
    }

    /// Visits keys of one slot, from a position in it on, which is 0 at its start, until `count` entries have been seen, and adds how many to `seen`.
    /// Answers where to go on; 0 when the slot is done. Positions are of this store alone: another one has the keys in another order.
    #[expect(clippy::too_many_arguments, reason = "a scan's state is its caller's")]
    pub fn scan_slot(
        &self,
        db: u16,
        slot: u16,
        position: u64,
        count: usize,
        seen: &mut usize,
        now: UnixMillis,
        visit: &mut dyn FnMut(&[u8], ObjectType),
    ) -> u64 {
        let shard = self.cells()[self.placement().shard(slot)].lock();
        let Some(database) = shard.database(db) else { return 0 };
        let table = database.table(self.placement().index(slot));
        let mut position = position;
        while *seen < count {
            position = table.scan(position, |entry| {
                *seen += 1;
                visit_key(entry, now, visit);
            });
            if position == 0 {
                return 0;
            }
        }
        position
    }

    /// Visits every key of the database, shard by shard.
    pub fn for_each_key(&self, db: u16, now: UnixMillis, visit: &mut dyn FnMut(&[u8], ObjectType)) {
        for shard in self.locked_shards() {
            let Some(database) = shard.database(db) else {
                continue;
            };
            for slot in 0..database.slots() {
                database.table(slot).iter().for_each(|entry| visit_key(entry, now, visit));
            }
        }
    }

    /// A key of the database, picked about evenly. `None` if it has none that are alive.
    pub fn random_key(&self, db: u16, now: UnixMillis, random: &mut impl FnMut() -> u64) -> Option<Vec<u8>> {
        let by_chance = (0..RANDOM_TRIES).find_map(|_| self.random_try(db, now, random));
        by_chance.or_else(|| self.first_key_from(db, now, random()))
    }

    /// Visits up to `limit` keys of a slot.
    pub fn keys_in_slot(&self, db: u16, slot: u16, limit: usize, now: UnixMillis, visit: &mut dyn FnMut(&[u8])) {
        let shard = self.cells()[self.placement().shard(slot)].lock();
        let Some(database) = shard.database(db) else {
            return;
        };
        let entries = database.table(self.placement().index(slot)).iter();
        entries.filter(|entry| is_visible(entry, now)).take(limit).for_each(|entry| visit(entry.key()));
    }

    /// How many keys a slot has, those included whose time has passed unnoticed.
    pub fn count_in_slot(&self, db: u16, slot: u16) -> usize {
        let shard = self.cells()[self.placement().shard(slot)].lock();
        let Some(database) = shard.database(db) else {
            return 0;
        };
        database.table(self.placement().index(slot)).iter().filter(|entry| !entry.is_absent()).count()
    }

    /// Goes through one shard until enough entries have been seen. `None` when the shard is done.
    fn scan_shard(
        &self,
        db: u16,
        mut cursor: ScanCursor,
        count: usize,
        seen: &mut usize,
        visit: &mut dyn FnMut(&Entry),
    ) -> Option<ScanCursor> {
        let shard = self.cells()[cursor.shard].lock();
        let database = shard.database(db)?;
        while *seen < count {
            cursor = next_occupied(database, cursor)?;
            cursor.position = database.table(cursor.slot).scan(cursor.position, |entry| {
                *seen += 1;
                visit(entry);
            });
            if cursor.position == 0 {
                cursor.slot += 1;
            }
        }
        Some(cursor)
    }

    /// Picks a shard by its size, in it a slot by its size, and there an entry.
    fn random_try(&self, db: u16, now: UnixMillis, random: &mut impl FnMut() -> u64) -> Option<Vec<u8>> {
        let shard = self.cells()[self.random_shard(random())?].lock();
        let database = shard.database(db)?;
        let slot = random_slot(database, random())?;
        let entry = database.table(slot).random(random())?;
        is_visible(entry, now).then(|| entry.key().to_vec())
    }

    /// A shard, picked by how many entries it holds. `None` if there are none at all.
    pub(crate) fn random_shard(&self, draw: u64) -> Option<usize> {
        pick_by_weight(draw, self.cells().iter().map(|cell| cell.entries()))
    }

    fn first_key_from(&self, db: u16, now: UnixMillis, draw: u64) -> Option<Vec<u8>> {
        let shards = self.cells().len();
        let start = draw as usize % shards;
        (0..shards).find_map(|step| {
            let shard = self.cells()[(start + step) % shards].lock();
            let database = shard.database(db)?;
            let mut entries = (0..database.slots()).flat_map(|slot| database.table(slot).iter());
            entries.find(|entry| is_visible(entry, now)).map(|entry| entry.key().to_vec())
        })
    }
}

impl ScanCursor {
    /// `None` if it lies behind the last slot.
    fn decode(cursor: u64, store: &Store) -> Option<Self> {
        let rank = (cursor >> CURSOR_BITS) as usize;
        let per_shard = store.placement().slots_per_shard();
        let (shard, slot) = (rank / per_shard, rank % per_shard);
        let position = cursor & ((1 << CURSOR_BITS) - 1);
        (shard < store.cells().len()).then_some(ScanCursor { shard, slot, position })
    }

    /// 0, which is where a scan starts, for the place behind the last slot.
    fn encode(self, store: &Store) -> u64 {
        let rank = self.shard * store.placement().slots_per_shard() + self.slot;
        if rank >= usize::from(crate::SLOTS) { 0 } else { (rank as u64) << CURSOR_BITS | self.position }
    }
}

/// The cursor itself if there is anything in its slot, or the start of the next slot where there is.
fn next_occupied(database: &Database, cursor: ScanCursor) -> Option<ScanCursor> {
    let slot = (cursor.slot..database.slots()).find(|slot| !database.table(*slot).is_empty())?;
    let position = if slot == cursor.slot { cursor.position } else { 0 };
    Some(ScanCursor { slot, position, ..cursor })
}

/// A slot of the database, picked by how many entries it holds. `None` if there are none.
pub(crate) fn random_slot(database: &Database, draw: u64) -> Option<usize> {
    pick_by_weight(draw, (0..database.slots()).map(|slot| database.table(slot).len()))
}

/// The index of a weight, picked as often as it says. `None` if all are 0.
pub(crate) fn pick_by_weight(draw: u64, weights: impl Iterator<Item = usize> + Clone) -> Option<usize> {
    let total: usize = weights.clone().sum();
    let mut left = (draw as usize).checked_rem(total)?;
    for (index, weight) in weights.enumerate() {
        if left < weight {
            return Some(index);
        }
        left -= weight;
    }
    // The weights may have changed between the two looks at them.
    None
}

fn visit_key(entry: &Entry, now: UnixMillis, visit: &mut dyn FnMut(&[u8], ObjectType)) {
    if entry.deadline().is_some_and(|deadline| deadline <= now) {
        return;
    }
    if let Some(value) = ValueRef::of(entry.value()) {
        visit(entry.key(), value.object_type());
    }
}

fn is_visible(entry: &Entry, now: UnixMillis) -> bool {
    !entry.is_absent() && entry.deadline().is_none_or(|deadline| deadline > now)
}

#[cfg(test)]
mod tests;
