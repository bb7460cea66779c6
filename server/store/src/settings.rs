//! What may be changed while the store runs.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering::Relaxed};

use crate::eviction::{EvictionPolicy, Learned};

/// Settings that a command may change at any time. Each is read where it matters, so a change holds from the next
/// access on; what is stored already stays as it is until it is written again.
#[derive(Debug)]
pub struct Settings {
    hash_max_compact_entries: AtomicUsize,
    hash_max_compact_value: AtomicUsize,
    compress_over: AtomicUsize,
    policy: AtomicU8,
    lfu_log_factor: AtomicU32,
    lfu_decay_minutes: AtomicU32,
    maxmemory_samples: AtomicUsize,
    learned: Learned,
}

impl Default for Settings {
    /// The defaults of Redis 7, as `CONFIG GET` tells them.
    fn default() -> Self {
        Settings {
            hash_max_compact_entries: AtomicUsize::new(512),
            hash_max_compact_value: AtomicUsize::new(64),
            compress_over: AtomicUsize::new(0),
            policy: AtomicU8::new(EvictionPolicy::default() as u8),
            lfu_log_factor: AtomicU32::new(10),
            lfu_decay_minutes: AtomicU32::new(1),
            maxmemory_samples: AtomicUsize::new(5),
            learned: Learned::default(),
        }
    }
}

impl Settings {
    /// The most fields that a hash may have in the compact encoding.
    #[inline]
    pub fn hash_max_compact_entries(&self) -> usize {
        self.hash_max_compact_entries.load(Relaxed)
    }

    /// Sets [`Self::hash_max_compact_entries`].
    pub fn set_hash_max_compact_entries(&self, entries: usize) {
        self.hash_max_compact_entries.store(entries, Relaxed);
    }

    /// The longest field or value, in bytes, that a hash may have in the compact encoding.
    #[inline]
    pub fn hash_max_compact_value(&self) -> usize {
        self.hash_max_compact_value.load(Relaxed)
    }

    /// Sets [`Self::hash_max_compact_value`].
    pub fn set_hash_max_compact_value(&self, bytes: usize) {
        self.hash_max_compact_value.store(bytes, Relaxed);
    }

    /// Strings longer than this many bytes are kept compressed where that saves memory; `None` for never. Strings of
    /// up to 1 KiB never are.
    pub fn compress_over(&self) -> Option<usize> {
        match self.compress_over.load(Relaxed) {
            0 => None,
            bytes => Some(bytes),
        }
    }

    /// Sets [`Self::compress_over`].
    pub fn set_compress_over(&self, bytes: Option<usize>) {
        self.compress_over.store(bytes.map_or(0, |bytes| bytes.max(1)), Relaxed);
    }

    /// Which entries go first under memory pressure.
    #[inline]
    pub fn policy(&self) -> EvictionPolicy {
        EvictionPolicy::from_number(self.policy.load(Relaxed))
    }

    /// Sets [`Self::policy`]. What is remembered of past accesses is read in the new policy's terms, so its choices are
    /// only as good as before once the entries have been used again.
    pub fn set_policy(&self, policy: EvictionPolicy) {
        self.policy.store(policy as u8, Relaxed);
    }

    /// How slowly the logarithmic counter of the LFU policies rises.
    pub fn lfu_log_factor(&self) -> u32 {
        self.lfu_log_factor.load(Relaxed)
    }

    /// Sets [`Self::lfu_log_factor`].
    pub fn set_lfu_log_factor(&self, factor: u32) {
        self.lfu_log_factor.store(factor, Relaxed);
    }

    /// Minutes without an access after which an LFU counter falls by one; 0 for never.
    pub fn lfu_decay_minutes(&self) -> u32 {
        self.lfu_decay_minutes.load(Relaxed)
    }

    /// Sets [`Self::lfu_decay_minutes`].
    pub fn set_lfu_decay_minutes(&self, minutes: u32) {
        self.lfu_decay_minutes.store(minutes, Relaxed);
    }

    /// How many entries an eviction compares.
    pub fn maxmemory_samples(&self) -> usize {
        self.maxmemory_samples.load(Relaxed)
    }

    /// Sets [`Self::maxmemory_samples`]; at least one.
    pub fn set_maxmemory_samples(&self, entries: usize) {
        self.maxmemory_samples.store(entries.max(1), Relaxed);
    }

    /// What the LRFU policies have learned of the requests: not set, but kept where the policies find it.
    #[inline]
    pub(crate) fn learned(&self) -> &Learned {
        &self.learned
    }
}
