//! Whole slots, of all databases: what is done with them when they move.

use super::{Keyspace, not_locked_slot};
use crate::UnixMillis;
use crate::database::KEPT;
use crate::digest::{Digest, DigestLimits};
use crate::encoded;
use crate::entry::Entry;
use crate::key::Key;
use crate::shard::Shard;

/// Where a walk through a slot stands. A walk starts at the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotCursor {
    db: u16,
    position: u64,
}

impl SlotCursor {
    /// The beginning of a walk through the entries of [`KEPT`] alone.
    pub fn kept() -> SlotCursor {
        SlotCursor { db: KEPT, position: 0 }
    }
}

/// Something that is remembered under a key, seen on a walk through its slot: a value, or that the key is absent.
#[derive(Clone, Copy)]
pub struct Stored<'e> {
    db: u16,
    entry: &'e Entry,
}

/// What an entry is, as far as two nodes can compare it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Of its value, its deadline and when it was filled; `None` if it is too large.
    pub digest: Option<u64>,
    /// When the origin was read; `None` for what a client has written.
    pub filled_at: Option<UnixMillis>,
    /// When it expires.
    pub deadline: Option<UnixMillis>,
}

impl<'e> Stored<'e> {
    /// The number of its database.
    pub fn db(&self) -> u16 {
        self.db
    }

    /// Its key's name.
    pub fn key(&self) -> &'e [u8] {
        self.entry.key()
    }

    /// As [`Keyspace::filled_by`].
    pub fn filled_by(&self) -> Option<u16> {
        self.entry.fill().map(|fill| fill.group)
    }

    /// As [`Keyspace::encode`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        encoded::encode(self.entry, out);
    }
}

impl Keyspace<'_> {
    /// Visits some of the slot's entries, until `visit` says that it is enough, and says where to go on: `None` when all have been visited. One
    /// that is there from the start of a walk to its end is visited at least once. What is of no more use is left out. A
    /// bucket of the index, of about ten entries, is always visited whole.
    pub fn visit_slot(
        &self,
        slot: u16,
        mut cursor: SlotCursor,
        visit: &mut dyn FnMut(Stored<'_>) -> bool,
    ) -> Option<SlotCursor> {
        let (shard, index) = self.shard_of(slot);
        let now = self.now;
        loop {
            let mut goes_on = true;
            cursor.position = shard.database(cursor.db).map_or(0, |database| {
                database.table(index).scan(cursor.position, |entry| {
                    if entry.dead_at().is_none_or(|at| at > now) {
                        goes_on &= visit(Stored { db: cursor.db, entry });
                    }
                })
            });
            if cursor.position == 0 {
                cursor.db = shard.next_database(cursor.db)?;
            }
            if !goes_on {
                return Some(cursor);
            }
        }
    }

    /// As [`Self::clear_slot`] of all databases, with what clients cannot flush either: the slot is not this store's any more.
    pub fn forget_slot(&mut self, slot: u16) {
        self.clear_slot(slot, None);
        self.clear_slot(slot, Some(KEPT));
    }

    /// How many entries the slot has, of any kind, those included whose time has passed unnoticed.
    pub fn count_slot(&self, slot: u16) -> usize {
        let (shard, index) = self.shard_of(slot);
        shard.databases().map(|(_, database)| database.table(index).len()).sum()
    }

    /// Takes away all that the slot holds, in one database or in all of them; what is large is freed with [`Self::garbage`]. Loads
    /// under way for it are not voided: who gives a slot away stops them otherwise, and [`Store::flush_slots`](crate::Store::flush_slots)
    /// does.
    ///
    /// This looks at every entry, since they have to be counted down one by one: some 20 ns each.
    pub fn clear_slot(&mut self, slot: u16, db: Option<u16>) {
        let (number, index) = (self.store.placement().shard(slot), self.store.placement().index(slot));
        let shard = self.shards.get_mut(number).unwrap_or_else(|| not_locked_slot(slot));
        shard.clear_slot(index, db, &mut self.garbage);
        shard.watch.cleared(slot);
    }

    /// A digest of what the slot holds, but for what is late at `horizon`: equal on two nodes that hold the same, whatever each of them has let
    /// expire by then. `None` if that is more than the limits allow.
    pub fn digest_slot(&self, slot: u16, horizon: UnixMillis, limits: DigestLimits) -> Option<u64> {
        let (shard, index) = self.shard_of(slot);
        let mut digest = Digest::new(limits, horizon);
        for (db, database) in shard.databases() {
            let mut position = 0;
            loop {
                let mut fits = true;
                position = database.table(index).scan(position, |entry| fits = fits && digest.add(db, entry).is_some());
                if !fits {
                    return None;
                }
                if position == 0 {
                    break;
                }
            }
        }
        Some(digest.sum())
    }

    /// What tells an entry from others that its key may have had, be it the key's absence.
    pub fn stamp(&mut self, key: &Key<'_>, limits: DigestLimits) -> Stamp {
        let Some(place) = self.lookup(key).place() else { return Stamp::default() };
        let now = self.now;
        let entry = self.shard(key).entry(key, place);
        let filled_at = entry.fill().map(|fill| fill.filled_at);
        let mut digest = Digest::new(limits, now);
        let is_whole = digest.add(key.db(), entry).is_some();
        let mark = filled_at.map_or(0, |at| (at as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Stamp { digest: is_whole.then(|| digest.sum() ^ mark), filled_at, deadline: entry.deadline() }
    }

    fn shard_of(&self, slot: u16) -> (&Shard, usize) {
        let placement = self.store.placement();
        let shard = self.shards.get(placement.shard(slot)).unwrap_or_else(|| not_locked_slot(slot));
        (shard, placement.index(slot))
    }
}

#[cfg(test)]
mod tests;
