//! S3-FIFO, after J. Yang et al., "FIFO Queues are All You Need for Cache Eviction", SOSP 2023, algorithm 1: a small queue
//! of a tenth, a main queue, and a ghost queue of as many keys as the main one has.

use std::collections::{HashMap, HashSet, VecDeque};

use super::Cache;

/// Uses are counted up to this.
const MOST_USES: u8 = 3;
/// Uses beyond which a key goes from the small queue to the main one.
const USES_TO_STAY: u8 = 1;

pub(super) struct S3Fifo {
    capacity: usize,
    small_capacity: usize,
    uses: HashMap<u64, u8>,
    small: VecDeque<u64>,
    main: VecDeque<u64>,
    ghosts: VecDeque<u64>,
    ghost_set: HashSet<u64>,
}

impl S3Fifo {
    pub(super) fn new(capacity: usize) -> Self {
        S3Fifo {
            capacity,
            small_capacity: capacity / 10,
            uses: HashMap::new(),
            small: VecDeque::new(),
            main: VecDeque::new(),
            ghosts: VecDeque::new(),
            ghost_set: HashSet::new(),
        }
    }

    fn evict(&mut self) {
        if self.small.len() >= self.small_capacity { self.evict_from_small() } else { self.evict_from_main() }
    }

    fn evict_from_small(&mut self) {
        while let Some(key) = self.small.pop_front() {
            if self.uses[&key] <= USES_TO_STAY {
                self.uses.remove(&key);
                self.remember(key);
                return;
            }
            self.uses.insert(key, 0);
            self.main.push_back(key);
            if self.main.len() > self.capacity - self.small_capacity {
                self.evict_from_main();
                return;
            }
        }
    }

    fn evict_from_main(&mut self) {
        while let Some(key) = self.main.pop_front() {
            let uses = self.uses.get_mut(&key).expect("a queued key is counted");
            if *uses == 0 {
                self.uses.remove(&key);
                return;
            }
            *uses -= 1;
            self.main.push_back(key);
        }
    }

    fn remember(&mut self, key: u64) {
        if self.ghost_set.insert(key) {
            self.ghosts.push_back(key);
        }
        while self.ghosts.len() > self.capacity - self.small_capacity {
            let forgotten = self.ghosts.pop_front();
            forgotten.map(|key| self.ghost_set.remove(&key));
        }
    }
}

impl Cache for S3Fifo {
    fn request(&mut self, key: u64) -> bool {
        if let Some(uses) = self.uses.get_mut(&key) {
            *uses = MOST_USES.min(*uses + 1);
            return true;
        }
        while self.uses.len() >= self.capacity {
            self.evict();
        }
        let queue = if self.ghost_set.remove(&key) {
            self.ghosts.retain(|ghost| *ghost != key);
            &mut self.main
        } else {
            &mut self.small
        };
        queue.push_back(key);
        self.uses.insert(key, 0);
        false
    }
}
