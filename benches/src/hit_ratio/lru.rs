//! Exact LRU: the least recently used key goes.

use super::Cache;
use super::recency::RecencyList;

pub(super) struct Lru {
    capacity: usize,
    keys: RecencyList,
}

impl Lru {
    pub(super) fn new(capacity: usize) -> Self {
        Lru { capacity, keys: RecencyList::default() }
    }
}

impl Cache for Lru {
    fn request(&mut self, key: u64) -> bool {
        if self.keys.renew(key) {
            return true;
        }
        if self.keys.len() == self.capacity {
            self.keys.pop_oldest();
        }
        self.keys.push(key);
        false
    }
}
