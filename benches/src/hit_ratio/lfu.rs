//! LFU: the least frequently used key goes, and of several the least recently used.
//!
//! *Perfect* counts from the start and also while a key is not in the cache. *Ageing* counts while a key is in the cache, and a
//! newcomer begins with the count of the last that went, so that old fame fades (LFU-DA; M. Arlitt et al., "Evaluating Content
//! Management Techniques for Web Proxy Caches", SIGMETRICS Performance Evaluation Review 27(4), 2000).

use std::collections::{BTreeSet, HashMap};

use super::Cache;

pub(super) struct Lfu {
    capacity: usize,
    is_perfect: bool,
    clock: u64,
    /// The count of the last key that went, for those that age.
    age: u64,
    /// Counts, and the times of the last uses.
    past: HashMap<u64, (u64, u64)>,
    /// Counts, times of the last uses, keys.
    cached: BTreeSet<(u64, u64, u64)>,
}

impl Lfu {
    pub(super) fn perfect(capacity: usize) -> Self {
        Lfu { capacity, is_perfect: true, clock: 0, age: 0, past: HashMap::new(), cached: BTreeSet::new() }
    }

    pub(super) fn ageing(capacity: usize) -> Self {
        Lfu { is_perfect: false, ..Lfu::perfect(capacity) }
    }

    fn evict(&mut self) {
        let Some((count, _, key)) = self.cached.pop_first() else { return };
        if !self.is_perfect {
            self.age = count;
            self.past.remove(&key);
        }
    }
}

impl Cache for Lfu {
    fn request(&mut self, key: u64) -> bool {
        self.clock += 1;
        let (count, last_use) = self.past.get(&key).copied().unwrap_or((self.age, 0));
        let hit = self.cached.remove(&(count, last_use, key));
        if !hit && self.cached.len() == self.capacity {
            self.evict();
        }
        self.past.insert(key, (count + 1, self.clock));
        self.cached.insert((count + 1, self.clock, key));
        hit
    }
}
