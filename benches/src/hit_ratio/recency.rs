//! Keys in the order of their last use.

use std::collections::{BTreeMap, HashMap};

/// Keys ordered by when they were last pushed or renewed.
#[derive(Default)]
pub(super) struct RecencyList {
    clock: u64,
    used_at: HashMap<u64, u64>,
    by_use: BTreeMap<u64, u64>,
}

impl RecencyList {
    pub(super) fn len(&self) -> usize {
        self.used_at.len()
    }

    /// Adds a key that is not in the list, as the newest.
    pub(super) fn push(&mut self, key: u64) {
        self.clock += 1;
        self.used_at.insert(key, self.clock);
        self.by_use.insert(self.clock, key);
    }

    /// Makes a key the newest. Tells whether it is in the list.
    pub(super) fn renew(&mut self, key: u64) -> bool {
        let known = self.remove(key);
        if known {
            self.push(key);
        }
        known
    }

    pub(super) fn remove(&mut self, key: u64) -> bool {
        self.used_at.remove(&key).is_some_and(|at| self.by_use.remove(&at).is_some())
    }

    pub(super) fn oldest(&self) -> Option<u64> {
        self.by_use.first_key_value().map(|(_, key)| *key)
    }

    pub(super) fn pop_oldest(&mut self) -> Option<u64> {
        let (_, key) = self.by_use.pop_first()?;
        self.used_at.remove(&key);
        Some(key)
    }
}
