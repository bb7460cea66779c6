//! LFU: the least frequently used key goes, and of several the least recently used.
//!
//! *Perfect* counts from the start and also while a key is not in the cache. *In-cache* counts while a key is in the cache, as
//! caches do that keep the counter in the entry. So does *ageing*, and a newcomer begins with the count of the last that went, so
//! that old fame fades (LFU-DA; M. Arlitt et al., "Evaluating Content Management Techniques for Web Proxy Caches", SIGMETRICS
//! Performance Evaluation Review 27(4), 2000).

use std::collections::{BTreeSet, HashMap};

use super::Cache;

pub(super) struct Lfu {
    capacity: usize,
    kind: Kind,
    clock: u64,
    /// What a newcomer's count begins with.
    age: u64,
    /// Counts, and the times of the last uses.
    past: HashMap<u64, (u64, u64)>,
    /// Counts, times of the last uses, keys.
    cached: BTreeSet<(u64, u64, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Perfect,
    InCache,
    Ageing,
}

impl Lfu {
    pub(super) fn new(kind: Kind, capacity: usize) -> Self {
        Lfu { capacity, kind, clock: 0, age: 0, past: HashMap::new(), cached: BTreeSet::new() }
    }

    fn evict(&mut self) {
        let Some((count, _, key)) = self.cached.pop_first() else { return };
        if self.kind != Kind::Perfect {
            self.past.remove(&key);
        }
        if self.kind == Kind::Ageing {
            self.age = count;
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
