//! What the store has done.

use std::ops::AddAssign;

/// Counted since the start or the last [`Store::reset_counters`](crate::Store::reset_counters).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreCounters {
    /// Reads that found a value.
    pub hits: u64,
    /// Reads that found nothing.
    pub misses: u64,
    /// Reads that found that there is nothing at the origin.
    pub absent_hits: u64,
    /// Reads that were given a value past its deadline, because that was allowed. They are hits too.
    pub stale_served: u64,
    /// Entries removed because their time had passed.
    pub expired: u64,
    /// Entries removed because memory was short.
    pub evicted: u64,
    /// Keys that clients have changed; goes on through [`Store::reset_counters`](crate::Store::reset_counters).
    pub changes: u64,
    /// Fills stored.
    pub fills: u64,
    /// Fills refused because the key had changed since their load began.
    pub fenced_fills: u64,
    /// How often a lock had to be waited for.
    pub lock_conflicts: u64,
}

impl AddAssign for StoreCounters {
    fn add_assign(&mut self, other: Self) {
        self.hits += other.hits;
        self.misses += other.misses;
        self.absent_hits += other.absent_hits;
        self.stale_served += other.stale_served;
        self.expired += other.expired;
        self.evicted += other.evicted;
        self.changes += other.changes;
        self.fills += other.fills;
        self.fenced_fills += other.fenced_fills;
        self.lock_conflicts += other.lock_conflicts;
    }
}
