//! The databases of a shard: a table for each slot.

use crate::UnixMillis;
use crate::entry::Entry;
use crate::key::HashSeed;
use crate::table::{Place, Table};

/// When nothing will expire.
pub(crate) const NEVER: UnixMillis = UnixMillis::MAX;

/// The number of a database besides those of clients: what is in it moves and is copied with its slot as all else, but is never evicted, and no
/// flush empties it.
pub const KEPT: u16 = u16::MAX;

pub(crate) const PLACE_IS_GOOD: &str = "a place is good until its table changes";

/// Each is made when it is first written to.
#[repr(C)]
pub(crate) struct Databases {
    /// Number 0, which nearly all clients use, without a further pointer to follow.
    first: Option<Database>,
    /// From number 1 on; the last one is [`KEPT`]. It has no field of its own, or a read would touch one more line of the shard.
    others: Box<[Option<Box<Database>>]>,
}

impl Databases {
    pub(crate) fn new(count: u16) -> Self {
        Databases { first: None, others: (0..count).map(|_| None).collect() }
    }

    /// How many of clients there are, which are numbered from 0.
    pub(crate) fn len(&self) -> u16 {
        self.others.len() as u16
    }

    #[inline]
    pub(crate) fn get(&self, db: u16) -> Option<&Database> {
        match db.checked_sub(1) {
            None => self.first.as_ref(),
            Some(_) => self.others[self.place(db)?].as_deref(),
        }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, db: u16) -> Option<&mut Database> {
        match db.checked_sub(1) {
            None => self.first.as_mut(),
            Some(_) => {
                let place = self.place(db)?;
                self.others[place].as_deref_mut()
            }
        }
    }

    /// The database, of `slots` slots if it must be made.
    #[inline]
    pub(crate) fn get_or_insert(&mut self, db: u16, slots: usize) -> &mut Database {
        match db.checked_sub(1) {
            None => self.first.get_or_insert_with(|| Database::new(slots)),
            Some(_) => {
                let place = self.place(db).expect("a key is of a database that there is");
                self.others[place].get_or_insert_with(|| Box::new(Database::new(slots)))
            }
        }
    }

    pub(crate) fn take(&mut self, db: u16) -> Option<Database> {
        match db.checked_sub(1) {
            None => self.first.take(),
            Some(other) => self.others.get_mut(usize::from(other))?.take().map(|database| *database),
        }
    }

    pub(crate) fn swap(&mut self, a: u16, b: u16) {
        let (from_a, from_b) = (self.take(a), self.take(b));
        self.put(a, from_b);
        self.put(b, from_a);
    }

    /// Of any but the first, among the others.
    #[inline]
    fn place(&self, db: u16) -> Option<usize> {
        let last = self.others.len() - 1;
        let place = if db == KEPT { last } else { usize::from(db) - 1 };
        (place < last || db == KEPT).then_some(place)
    }

    /// With their numbers, [`KEPT`] the last.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u16, &Database)> {
        (0..self.len()).chain([KEPT]).filter_map(|db| Some((db, self.get(db)?)))
    }

    fn put(&mut self, db: u16, database: Option<Database>) {
        match db.checked_sub(1) {
            None => self.first = database,
            Some(other) => self.others[usize::from(other)] = database.map(Box::new),
        }
    }
}

/// Slots are numbered here as the shard numbers its own, from 0.
#[repr(C)]
pub(crate) struct Database {
    tables: Box<[SlotTable]>,
    /// Apart, so that what a lookup needs of a shard is one cache line.
    ledger: Box<Ledger>,
}

/// Half a cache line, and never astride two.
#[repr(align(32))]
struct SlotTable(Table<Entry>);

/// What is known of a database's entries without looking at them.
struct Ledger {
    /// For each slot, no entry is dead before this time; [`NEVER`] if it has no deadlines. May be too early.
    next_death: Box<[UnixMillis]>,
    tally: Tally,
}

/// Counts over all slots.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// Entries of any kind.
    pub(crate) entries: usize,
    /// Entries of any kind with a deadline.
    pub(crate) mortal: usize,
    /// Keys, as clients see them: entries that are not absent.
    pub(crate) keys: usize,
    /// Keys with a deadline.
    pub(crate) volatile_keys: usize,
    /// The sum of those keys' deadlines: from it comes the average without a walk.
    pub(crate) deadlines: i128,
}

impl Database {
    pub(crate) fn new(slots: usize) -> Self {
        Database {
            tables: (0..slots).map(|_| SlotTable(Table::new())).collect(),
            ledger: Box::new(Ledger { next_death: vec![NEVER; slots].into_boxed_slice(), tally: Tally::default() }),
        }
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.ledger.tally
    }

    pub(crate) fn slots(&self) -> usize {
        self.tables.len()
    }

    #[inline]
    pub(crate) fn table(&self, slot: usize) -> &Table<Entry> {
        &self.tables[slot].0
    }

    /// To change entries. Who changes the [`Life`] of one has to [`Self::recount`] it.
    #[inline]
    pub(crate) fn table_mut(&mut self, slot: usize) -> &mut Table<Entry> {
        &mut self.tables[slot].0
    }

    pub(crate) fn next_death(&self, slot: usize) -> UnixMillis {
        self.ledger.next_death[slot]
    }

    pub(crate) fn set_next_death(&mut self, slot: usize, at: UnixMillis) {
        self.ledger.next_death[slot] = at;
    }

    /// Notes that an entry of the slot will be dead by then.
    pub(crate) fn lower_next_death(&mut self, slot: usize, at: UnixMillis) {
        self.ledger.next_death[slot] = self.ledger.next_death[slot].min(at);
    }

    /// Counts an entry that has been changed.
    pub(crate) fn recount(&mut self, before: &Life, after: &Life) {
        self.ledger.tally.forget(before);
        self.ledger.tally.count(after);
    }

    /// Adds an entry whose key is not there.
    pub(crate) fn insert(&mut self, slot: usize, hash: u64, entry: Entry, seed: HashSeed) {
        self.ledger.tally.count(&Life::of(&entry));
        self.tables[slot].0.insert(hash, entry, |other| seed.hash(other.key()));
    }

    /// Takes all entries of a slot away. Says, too, how many of them have a deadline.
    pub(crate) fn clear(&mut self, slot: usize) -> (Table<Entry>, usize) {
        let cleared = std::mem::replace(&mut self.tables[slot].0, Table::new());
        let before = self.ledger.tally.mortal;
        cleared.iter().for_each(|entry| self.ledger.tally.forget(&Life::of(entry)));
        self.ledger.next_death[slot] = NEVER;
        (cleared, before - self.ledger.tally.mortal)
    }

    pub(crate) fn remove(&mut self, slot: usize, place: Place) -> Entry {
        let entry = self.tables[slot].0.remove(place).expect(PLACE_IS_GOOD);
        self.ledger.tally.forget(&Life::of(&entry));
        entry
    }
}

/// What is counted of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    is_absent: bool,
    deadline: Option<UnixMillis>,
    /// As [`Entry::dead_at`].
    pub(crate) dead_at: Option<UnixMillis>,
}

impl Life {
    #[inline]
    pub(crate) fn of(entry: &Entry) -> Self {
        Life { is_absent: entry.is_absent(), deadline: entry.deadline(), dead_at: entry.dead_at() }
    }

    #[inline]
    pub(crate) fn is_mortal(&self) -> bool {
        self.deadline.is_some()
    }
}

impl Tally {
    fn count(&mut self, life: &Life) {
        self.entries += 1;
        self.mortal += usize::from(life.is_mortal());
        if life.is_absent {
            return;
        }
        self.keys += 1;
        if let Some(deadline) = life.deadline {
            self.volatile_keys += 1;
            self.deadlines += i128::from(deadline);
        }
    }

    fn forget(&mut self, life: &Life) {
        self.entries -= 1;
        self.mortal -= usize::from(life.is_mortal());
        if life.is_absent {
            return;
        }
        self.keys -= 1;
        if let Some(deadline) = life.deadline {
            self.volatile_keys -= 1;
            self.deadlines -= i128::from(deadline);
        }
    }
}
