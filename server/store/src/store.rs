//! The whole store: shards, and what is done to all of them.

use std::sync::Arc;

use crate::UnixMillis;
use crate::counters::StoreCounters;
use crate::database::KEPT;
use crate::garbage::Garbage;
use crate::key::{HashSeed, Key};
use crate::keyspace::Keyspace;
use crate::locking::{LockedShard, LockedShards, ShardCell};
use crate::placement::Placement;
use crate::settings::Settings;
use crate::shard::Shard;
use crate::watch::{Watch, Watcher};

/// How a store is made.
#[derive(Clone, Copy, Debug)]
pub struct StoreConfig {
    /// How many locks the store is divided among: a power of two, at most 256.
    pub shards: usize,
    /// How many databases there are.
    pub databases: u16,
    /// A secret random number: who does not know it cannot choose keys that collide.
    pub seed: u64,
}

impl Default for StoreConfig {
    /// 64 shards and 16 databases; the seed is 0, which is no secret.
    fn default() -> Self {
        StoreConfig { shards: 64, databases: 16, seed: 0 }
    }
}

/// The memory of a node.
pub struct Store {
    cells: Box<[ShardCell]>,
    placement: Placement,
    databases: u16,
    seed: HashSeed,
    settings: Settings,
    watch: Arc<Watch>,
}

impl Store {
    /// An empty store.
    ///
    /// # Panics
    /// If the number of shards is not a power of two up to 256.
    pub fn new(config: StoreConfig) -> Self {
        let placement = Placement::new(config.shards);
        let seed = HashSeed::new(config.seed);
        let watch = Arc::new(Watch::default());
        let cell = |number| ShardCell::new(Shard::new(number, placement, config.databases, seed, Arc::clone(&watch)));
        let cells = (0..config.shards).map(cell).collect();
        Store { cells, placement, databases: config.databases, seed, settings: Settings::default(), watch }
    }

    /// How many databases there are, [`KEPT`] not counted.
    pub fn databases(&self) -> u16 {
        self.databases
    }

    /// Whether there is such a database. The key of another one must not be asked for.
    pub fn has_database(&self, db: u16) -> bool {
        db < self.databases || db == KEPT
    }

    /// Says who is told of changes, once [`Self::set_watched`] has said that somebody is to be.
    ///
    /// # Panics
    /// When there is one already.
    pub fn watch_by(&self, watcher: Box<dyn Watcher>) {
        self.watch.by(watcher);
    }

    /// Says whether changes are told of. Who has said so and locks a slot afterwards is told of what is done to it after that.
    pub fn set_watched(&self, is_watched: bool) {
        self.watch.set(is_watched);
    }

    /// See [`Self::set_watched`].
    pub fn is_watched(&self) -> bool {
        self.watch.is_on()
    }

    /// What may be changed while it runs.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Places and hashes a key; `slot` is what the cluster's hash of it says, below 16384.
    #[inline]
    pub fn key<'k>(&self, db: u16, slot: u16, bytes: &'k [u8]) -> Key<'k> {
        Key::new(db, slot, bytes, self.seed)
    }

    /// Locks the shard of one slot, for as long as the view lives.
    #[inline]
    pub fn lock(&self, slot: u16, now: UnixMillis) -> Keyspace<'_> {
        Keyspace::new(self, LockedShards::one(&self.cells, self.placement.shard(slot)), now)
    }

    /// Locks the shards of several slots. All who lock several do so in the same order, so nobody waits for ever; but
    /// a thread must not lock while it holds a view.
    pub fn lock_slots(&self, slots: impl IntoIterator<Item = u16>, now: UnixMillis) -> Keyspace<'_> {
        let numbers = slots.into_iter().map(|slot| self.placement.shard(slot)).collect();
        Keyspace::new(self, LockedShards::several(&self.cells, numbers), now)
    }

    /// Locks everything.
    pub fn lock_all(&self, now: UnixMillis) -> Keyspace<'_> {
        Keyspace::new(self, LockedShards::several(&self.cells, (0..self.cells.len()).collect()), now)
    }

    /// How many keys the database has, those included whose time has passed unnoticed.
    pub fn len(&self, db: u16) -> usize {
        self.locked_shards().map(|shard| shard.tally(db).keys).sum()
    }

    /// Whether the database has no keys.
    pub fn is_empty(&self, db: u16) -> bool {
        self.len(db) == 0
    }

    /// How many keys of the database have a deadline.
    pub fn volatile_len(&self, db: u16) -> usize {
        self.locked_shards().map(|shard| shard.tally(db).volatile_keys).sum()
    }

    /// The mean time that the database's keys with a deadline have left, in milliseconds; 0 if there are none.
    pub fn average_ttl(&self, db: u16, now: UnixMillis) -> i64 {
        let (mut keys, mut deadlines) = (0, 0);
        for shard in self.locked_shards() {
            let tally = shard.tally(db);
            keys += tally.volatile_keys as i128;
            deadlines += tally.deadlines;
        }
        let average = deadlines.checked_div(keys).map_or(0, |mean| mean - i128::from(now));
        average.clamp(0, i128::from(i64::MAX)) as i64
    }

    /// How many keys are being loaded.
    pub fn loads_under_way(&self) -> usize {
        self.locked_shards().map(|shard| shard.loads.len()).sum()
    }

    /// Empties a database, or all of them, at one moment; voids what is being loaded for them.
    pub fn flush(&self, db: Option<u16>) -> Garbage {
        let mut garbage = Garbage::default();
        for shard in &mut self.lock_all_shards() {
            shard.flush(|other| db.is_none_or(|db| db == other), &mut garbage);
        }
        garbage
    }

    /// Empties those slots that `chosen` says, in one database or in all of them, shard by shard; voids what is being loaded for the databases
    /// there. `chosen` is asked of every slot, under its shard's lock, so that it can note what becomes of the slot.
    pub fn flush_slots(&self, db: Option<u16>, chosen: &mut dyn FnMut(u16) -> bool) -> Garbage {
        let mut garbage = Garbage::default();
        for (number, mut shard) in self.locked_shards().enumerate() {
            for index in 0..self.placement.slots_per_shard() {
                if chosen(self.placement.slot(number, index)) {
                    shard.clear_slot(index, db, &mut garbage);
                }
            }
            shard.void_loads(db);
        }
        garbage
    }

    /// Exchanges two databases at one moment; voids what is being loaded for them.
    pub fn swap(&self, a: u16, b: u16) {
        for shard in &mut self.lock_all_shards() {
            shard.swap(a, b);
        }
    }

    /// What has been done since the start or the last reset.
    pub fn counters(&self) -> StoreCounters {
        let mut sum = StoreCounters::default();
        for cell in &self.cells {
            sum += cell.lock().counters;
            sum.lock_conflicts += cell.conflicts();
        }
        sum
    }

    /// Starts counting at 0 again, but for the changes, of which INFO tells how many are not saved.
    pub fn reset_counters(&self) {
        for cell in &self.cells {
            let mut shard = cell.lock();
            cell.reset_conflicts();
            shard.counters = StoreCounters { changes: shard.counters.changes, ..StoreCounters::default() };
        }
    }

    pub(crate) fn placement(&self) -> Placement {
        self.placement
    }

    #[inline]
    pub(crate) fn cell_of(&self, slot: u16) -> &ShardCell {
        &self.cells[self.placement.shard(slot)]
    }

    pub(crate) fn seed(&self) -> HashSeed {
        self.seed
    }

    pub(crate) fn cells(&self) -> &[ShardCell] {
        &self.cells
    }

    /// One shard after the other, each locked while it is looked at.
    pub(crate) fn locked_shards(&self) -> impl Iterator<Item = LockedShard<'_>> {
        self.cells.iter().map(ShardCell::lock)
    }

    fn lock_all_shards(&self) -> Vec<LockedShard<'_>> {
        self.locked_shards().collect()
    }
}
