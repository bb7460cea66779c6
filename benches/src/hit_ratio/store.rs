//! The store itself, which holds at most so many entries.

use forebay_store::{EvictionPolicy, Expiry, SLOTS, Store, StoreConfig};

use super::{Cache, mix};

/// Requests in a millisecond.
const PACE: u64 = 20;
const START: i64 = 1_000_000_000;
/// So few shards that each has about as many entries as in a node of some size: what a shard does, it does for its own.
const ENTRIES_PER_SHARD: usize = 512;
/// Entries that the node evicts in one go.
const EVICTIONS: usize = 16;

pub(super) struct KeptInStore {
    store: Store,
    capacity: usize,
    entries: usize,
    requests: u64,
}

impl KeptInStore {
    pub(super) fn new(capacity: usize, policy: EvictionPolicy) -> Self {
        let shards = (capacity / ENTRIES_PER_SHARD).next_power_of_two().min(StoreConfig::default().shards);
        let store = Store::new(StoreConfig { shards, seed: 2026, ..StoreConfig::default() });
        store.settings().set_policy(policy);
        KeptInStore { store, capacity, entries: 0, requests: 0 }
    }
}

impl Cache for KeptInStore {
    fn request(&mut self, key: u64) -> bool {
        self.requests += 1;
        let now = START + (self.requests / PACE) as i64;
        let (name, slot) = (key.to_le_bytes(), (mix(key) % u64::from(SLOTS)) as u16);
        let key = self.store.key(0, slot, &name);
        if self.store.lock(slot, now).read(&key).is_some() {
            return true;
        }
        if self.entries >= self.capacity {
            let mut draw = self.requests;
            let mut random = || {
                draw += 1 << 40;
                mix(draw)
            };
            self.entries -= self.store.evict_step(now, EVICTIONS, &mut random).evicted;
        }
        self.store.lock(slot, now).set_string(&key, b"v", Expiry::None);
        self.entries += 1;
        false
    }
}
