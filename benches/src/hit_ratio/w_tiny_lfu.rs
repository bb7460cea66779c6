//! W-TinyLFU, after G. Einziger, R. Friedman and B. Manes, "TinyLFU: A Highly Efficient Cache Admission Policy", ACM
//! Transactions on Storage 13(4), 2017: an LRU window of a hundredth, a segmented LRU behind it whose protected part is four
//! fifths, and between them an admission by frequency.

use super::Cache;
use super::recency::RecencyList;
use super::sketch::TinyLfu;

pub(super) struct WTinyLfu {
    capacity: usize,
    window_capacity: usize,
    protected_capacity: usize,
    window: RecencyList,
    probation: RecencyList,
    protected: RecencyList,
    frequencies: TinyLfu,
}

impl WTinyLfu {
    pub(super) fn new(capacity: usize) -> Self {
        let window_capacity = (capacity / 100).max(1);
        WTinyLfu {
            capacity,
            window_capacity,
            protected_capacity: (capacity - window_capacity) * 4 / 5,
            window: RecencyList::default(),
            probation: RecencyList::default(),
            protected: RecencyList::default(),
            frequencies: TinyLfu::new(capacity),
        }
    }

    fn is_hit(&mut self, key: u64) -> bool {
        if self.window.renew(key) || self.protected.renew(key) {
            return true;
        }
        let promoted = self.probation.remove(key);
        if promoted {
            self.protected.push(key);
            self.demote();
        }
        promoted
    }

    fn demote(&mut self) {
        if self.protected.len() > self.protected_capacity {
            if let Some(key) = self.protected.pop_oldest() {
                self.probation.push(key);
            }
        }
    }

    /// The window's oldest key and the main part's vie for the place.
    fn make_room(&mut self) {
        if self.window.len() <= self.window_capacity {
            return;
        }
        let Some(candidate) = self.window.pop_oldest() else { return };
        if self.window.len() + self.probation.len() + self.protected.len() < self.capacity {
            self.probation.push(candidate);
            return;
        }
        let main = if self.probation.len() > 0 { &mut self.probation } else { &mut self.protected };
        let Some(victim) = main.oldest() else { return };
        if self.frequencies.of(candidate) > self.frequencies.of(victim) {
            main.remove(victim);
            self.probation.push(candidate);
        }
    }
}

impl Cache for WTinyLfu {
    fn request(&mut self, key: u64) -> bool {
        self.frequencies.count(key);
        if self.is_hit(key) {
            return true;
        }
        self.window.push(key);
        self.make_room();
        false
    }
}
