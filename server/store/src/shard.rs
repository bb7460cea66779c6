//! One lock's part of the store; the lock itself is in [`crate::locking`].

use std::sync::Arc;

use crate::UnixMillis;
use crate::counters::StoreCounters;
use crate::database::{Database, Databases, KEPT, Life, NEVER, PLACE_IS_GOOD, Tally};
use crate::entry::Entry;
use crate::eviction::{Sweep, Trial};
use crate::expiry::SlotPass;
use crate::garbage::Garbage;
use crate::key::{HashSeed, Key};
use crate::loads::Loads;
use crate::placement::Placement;
use crate::random::Random;
use crate::table::{Place, Table};
use crate::watch::Watch;

/// The fields come in the order in which a read meets them: up to its counter they are in the lock's cache line, so that
/// processors that read by turns pass one line on, and no more.
#[repr(C)]
pub(crate) struct Shard {
    placement: Placement,
    /// Whether `figures` differs from what was told last.
    figures_changed: bool,
    /// Whether there is a `trial`.
    pub(crate) is_on_trial: bool,
    databases: Databases,
    pub(crate) counters: StoreCounters,
    figures: Figures,
    pub(crate) loads: Loads,
    pub(crate) trial: Option<Box<Trial>>,
    /// Made with the first eviction.
    pub(crate) sweep: Option<Box<Sweep>>,
    pub(crate) random: Random,
    seed: HashSeed,
    number: usize,
    /// A buffer for changing short strings, kept so that it need not be allocated each time.
    pub(crate) scratch: Vec<u8>,
    /// The slot that active expiry is in the middle of.
    pub(crate) pass: Option<SlotPass>,
    pub(crate) watch: Arc<Watch>,
}

/// Of all databases.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    /// How many entries there are, of any kind.
    pub(crate) entries: usize,
    /// How many of them have a deadline.
    pub(crate) mortal: usize,
    /// No entry is dead before this time. May be too early.
    pub(crate) next_death: UnixMillis,
    /// How many entries have come for whose sake one is to be evicted here rather than elsewhere.
    pub(crate) due: usize,
}

/// What is known about a key.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Found {
    Nothing,
    /// It is known not to exist at the origin.
    Absent(Place),
    /// Its deadline has passed, but it may be served if need be.
    Stale(Place),
    Live(Place),
}

impl Found {
    /// Where something is remembered about the key, be it that it is absent.
    pub(crate) fn place(self) -> Option<Place> {
        match self {
            Found::Nothing => None,
            Found::Absent(place) | Found::Stale(place) | Found::Live(place) => Some(place),
        }
    }
}

impl Shard {
    /// In bytes from its start.
    #[cfg(test)]
    pub(crate) const END_OF_WHAT_READS_TOUCH: usize =
        std::mem::offset_of!(Shard, counters) + std::mem::offset_of!(StoreCounters, hits) + size_of::<u64>();

    pub(crate) fn new(number: usize, placement: Placement, databases: u16, seed: HashSeed, watch: Arc<Watch>) -> Self {
        Shard {
            placement,
            figures_changed: false,
            databases: Databases::new(databases),
            is_on_trial: false,
            trial: None,
            counters: StoreCounters::default(),
            figures: Figures { entries: 0, mortal: 0, next_death: NEVER, due: 0 },
            loads: Loads::new(),
            sweep: None,
            random: Random::new(number as u64),
            seed,
            number,
            scratch: Vec::new(),
            pass: None,
            watch,
        }
    }

    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// The slot that the shard numbers so.
    pub(crate) fn slot(&self, index: usize) -> u16 {
        self.placement.slot(self.number, index)
    }

    pub(crate) fn seed(&self) -> HashSeed {
        self.seed
    }

    /// How many entries it has, of any kind.
    pub(crate) fn entries(&self) -> usize {
        self.figures.entries
    }

    /// The key's slot, numbered as the shard does.
    pub(crate) fn index_of(&self, key: &Key<'_>) -> usize {
        self.placement.index(key.slot())
    }

    pub(crate) fn database_count(&self) -> u16 {
        self.databases.len()
    }

    #[inline]
    pub(crate) fn database(&self, db: u16) -> Option<&Database> {
        self.databases.get(db)
    }

    #[inline]
    pub(crate) fn database_mut(&mut self, db: u16) -> Option<&mut Database> {
        self.databases.get_mut(db)
    }

    pub(crate) fn databases(&self) -> impl Iterator<Item = (u16, &Database)> {
        self.databases.iter()
    }

    /// Whether the figures differ from what [`Self::tell_figures`] told last.
    #[inline]
    pub(crate) fn figures_have_changed(&self) -> bool {
        self.figures_changed
    }

    pub(crate) fn tell_figures(&mut self) -> Figures {
        self.figures_changed = false;
        self.figures
    }

    /// Counts of one database.
    pub(crate) fn tally(&self, db: u16) -> Tally {
        self.database(db).map(|database| *database.tally()).unwrap_or_default()
    }

    pub(crate) fn set_due(&mut self, due: usize) {
        self.figures_mut().due = due;
    }

    pub(crate) fn set_next_death(&mut self, at: UnixMillis) {
        self.figures_mut().next_death = at;
    }

    /// Looks a key up, and removes it if it is of no more use.
    pub(crate) fn lookup(&mut self, key: &Key<'_>, now: UnixMillis, garbage: &mut Garbage) -> Found {
        let Some(table) = self.table(key) else {
            return Found::Nothing;
        };
        let (mut late, mut absent) = (false, false);
        // What the entry tells is taken while the comparison has it at hand.
        let found = table.find(key.hash(), |entry| {
            let found = entry.is_of(key.bytes());
            if found {
                late = entry.is_late(now);
                absent = entry.is_absent();
            }
            found
        });
        match found {
            None => Found::Nothing,
            Some(place) if late => self.lookup_late(key, place, now, garbage),
            Some(place) if absent => Found::Absent(place),
            Some(place) => Found::Live(place),
        }
    }

    /// The entry of a key that [`Self::lookup`] finds live: the path of nearly all reads.
    #[inline]
    pub(crate) fn live_entry(&mut self, key: &Key<'_>, now: UnixMillis) -> Option<&mut Entry> {
        let slot = self.placement.index(key.slot());
        let table = self.database_mut(key.db())?.table_mut(slot);
        let entry = table.get_mut(key.hash(), |entry| entry.is_of(key.bytes()))?;
        (!entry.is_late(now) && !entry.is_absent()).then_some(entry)
    }

    #[inline]
    pub(crate) fn entry(&self, key: &Key<'_>, place: Place) -> &Entry {
        self.table(key).and_then(|table| table.at(place)).expect(PLACE_IS_GOOD)
    }

    #[inline]
    pub(crate) fn entry_mut(&mut self, key: &Key<'_>, place: Place) -> &mut Entry {
        let slot = self.placement.index(key.slot());
        let entry = self.database_mut(key.db()).and_then(|database| database.table_mut(slot).at_mut(place));
        entry.expect(PLACE_IS_GOOD)
    }

    /// The bytes of the index that one entry of the key's slot accounts for.
    pub(crate) fn index_share(&self, key: &Key<'_>) -> usize {
        self.table(key).map_or(0, |table| table.allocated().div_ceil(table.len().max(1)))
    }

    /// The table of the key's slot; `None` if nothing has been written to its database.
    #[inline]
    pub(crate) fn table(&self, key: &Key<'_>) -> Option<&Table<Entry>> {
        Some(self.database(key.db())?.table(self.placement.index(key.slot())))
    }

    /// Changes an entry in any way.
    #[inline]
    pub(crate) fn change(&mut self, key: &Key<'_>, place: Place, change: impl FnOnce(&mut Entry)) {
        let entry = self.entry_mut(key, place);
        let before = Life::of(entry);
        change(entry);
        let after = Life::of(entry);
        if before != after {
            self.note_change(key, &before, &after);
        }
    }

    /// Changes the entry of a key that [`Self::lookup`] finds live, in its value alone: neither its deadline nor whether it
    /// is absent. That the value is no longer what the origin gave may bring its death nearer. Gives `given` back where
    /// there is no such entry.
    #[inline]
    pub(crate) fn edit_live<G, R>(
        &mut self,
        key: &Key<'_>,
        now: UnixMillis,
        given: G,
        change: impl FnOnce(&mut Entry, G) -> R,
    ) -> Result<R, G> {
        let Some(entry) = self.live_entry(key, now) else {
            return Err(given);
        };
        let before = entry.dead_at();
        let result = change(entry, given);
        let after = entry.dead_at();
        if before != after {
            let slot = self.placement.index(key.slot());
            self.note_death(key.db(), slot, after);
        }
        Ok(result)
    }

    /// Notes a client's change of the key: nothing that is being loaded for it may be stored any more. Every path by
    /// which a client changes a key ends here, or the fence would leak.
    #[inline]
    pub(crate) fn changed(&mut self, key: &Key<'_>, changes: u64) {
        self.counters.changes += changes;
        self.loads.void(key);
        if changes > 0 {
            self.watch.changed(key.slot(), key.bytes());
        }
    }

    /// Adds an entry whose key is not there.
    pub(crate) fn insert(&mut self, key: &Key<'_>, entry: Entry) {
        let slot = self.placement.index(key.slot());
        let (seed, slots) = (self.seed, self.placement.slots_per_shard());
        let dead_at = entry.dead_at();
        self.databases.get_or_insert(key.db(), slots).insert(slot, key.hash(), entry, seed);
        let figures = self.figures_mut();
        figures.entries += 1;
        figures.mortal += usize::from(dead_at.is_some());
        self.note_death(key.db(), slot, dead_at);
    }

    pub(crate) fn remove(&mut self, key: &Key<'_>, place: Place) -> Entry {
        self.remove_at(key.db(), self.placement.index(key.slot()), place)
    }

    /// As [`Self::remove`]; the slot is numbered as the shard does.
    pub(crate) fn remove_at(&mut self, db: u16, slot: usize, place: Place) -> Entry {
        let database = self.database_mut(db).expect("an entry's database is there");
        let entry = database.remove(slot, place);
        let figures = self.figures_mut();
        figures.entries -= 1;
        figures.mortal -= usize::from(entry.deadline().is_some());
        entry
    }

    /// Takes databases away, with all that is being loaded for them.
    pub(crate) fn flush(&mut self, flushed: impl Fn(u16) -> bool, garbage: &mut Garbage) {
        for db in (0..self.databases.len()).filter(|db| flushed(*db)) {
            if let Some(database) = self.databases.take(db) {
                let figures = self.figures_mut();
                figures.entries -= database.tally().entries;
                figures.mortal -= database.tally().mortal;
                garbage.add_database(database);
            }
        }
        self.pass = None;
        self.loads.void_databases(flushed, self.seed);
    }

    /// The database behind this one; the first of clients is number 0.
    pub(crate) fn next_database(&self, db: u16) -> Option<u16> {
        let next = db.checked_add(1)?;
        Some(if next < self.databases.len() { next } else { KEPT })
    }

    /// Takes away all that a slot of the shard holds, in one database or in all of clients.
    pub(crate) fn clear_slot(&mut self, slot: usize, db: Option<u16>, garbage: &mut Garbage) {
        let clients = 0..self.databases.len();
        let chosen = db.map_or(clients, |db| db..db.saturating_add(1));
        // The last number has none behind it.
        for db in chosen.chain(db.filter(|db| *db == KEPT)) {
            let Some(database) = self.databases.get_mut(db) else { continue };
            if database.table(slot).is_empty() {
                continue;
            }
            let (cleared, mortal) = database.clear(slot);
            let figures = self.figures_mut();
            figures.entries -= cleared.len();
            figures.mortal -= mortal;
            self.pass.take_if(|pass| pass.is_of(db, slot));
            garbage.add_table(cleared);
        }
    }

    /// Nothing that is being loaded for the database, or for any, may be stored any more.
    pub(crate) fn void_loads(&mut self, db: Option<u16>) {
        self.loads.void_databases(|other| db.is_none_or(|db| db == other), self.seed);
    }

    pub(crate) fn swap(&mut self, a: u16, b: u16) {
        self.databases.swap(a, b);
        self.pass = None;
        if let Some(sweep) = &mut self.sweep {
            sweep.swap(a, b);
        }
        self.loads.void_databases(|db| db == a || db == b, self.seed);
    }

    #[cold]
    fn lookup_late(&mut self, key: &Key<'_>, place: Place, now: UnixMillis, garbage: &mut Garbage) -> Found {
        let entry = self.entry(key, place);
        if entry.dead_at().is_some_and(|at| at > now) && !entry.is_absent() {
            return Found::Stale(place);
        }
        garbage.add(self.remove(key, place));
        self.counters.expired += 1;
        self.watch.changed(key.slot(), key.bytes());
        Found::Nothing
    }

    #[inline]
    fn figures_mut(&mut self) -> &mut Figures {
        self.figures_changed = true;
        &mut self.figures
    }

    fn note_change(&mut self, key: &Key<'_>, before: &Life, after: &Life) {
        if let Some(database) = self.database_mut(key.db()) {
            database.recount(before, after);
        }
        if before.is_mortal() != after.is_mortal() {
            let figures = self.figures_mut();
            figures.mortal = figures.mortal - usize::from(before.is_mortal()) + usize::from(after.is_mortal());
        }
        let slot = self.placement.index(key.slot());
        self.note_death(key.db(), slot, after.dead_at);
    }

    fn note_death(&mut self, db: u16, slot: usize, dead_at: Option<UnixMillis>) {
        let Some(at) = dead_at else { return };
        if let Some(database) = self.database_mut(db) {
            database.lower_next_death(slot, at);
        }
        if at < self.figures.next_death {
            self.figures_mut().next_death = at;
        }
        if let Some(pass) = &mut self.pass {
            if pass.is_of(db, slot) {
                pass.note_survivor(at);
            }
        }
    }
}
