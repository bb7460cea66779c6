//! Warming keys ahead of their use, so that the cache misses of a batch of commands overlap instead of adding up.
//!
//! A lookup goes from a shard to a bucket of its index and from there to the entry; each is mostly a miss in a large
//! store, and none can start before the one ahead of it has ended. Over a batch they can: every key's first line is
//! asked for, then every key's second, and by the time that the last has been asked for, the first are there.

use crate::entry::Entry;
use crate::key::Key;
use crate::shard::Shard;
use crate::store::Store;
use crate::table::Approach;

/// The most keys that one [`Store::prefetch`] warms. Their lines, some five for each, fit well in the smallest first-level
/// cache that matters, 32 KiB.
pub const MAX_PREFETCHED: usize = 64;

impl Store {
    /// Asks the processor to bring into its cache what a lookup of these keys will touch: a hint, without effect on
    /// what the store holds, counts or remembers. Only the first [`MAX_PREFETCHED`] keys are warmed. Shards that are
    /// locked by others are left alone, so this never waits; the caller must not hold a view.
    ///
    /// Worth its some 150 instructions a key for two keys and more, right before they are used.
    pub fn prefetch(&self, keys: &[Key<'_>]) {
        let keys = &keys[..keys.len().min(MAX_PREFETCHED)];
        for key in keys {
            fetch_line(self.cell_of(key.slot()));
        }
        for key in keys {
            self.approach_unless_locked(key, |_, _| {});
        }
        for key in keys {
            self.approach_unless_locked(key, |shard, bucket| {
                if !bucket.visit_likely(Entry::prefetch) {
                    shard.approach_arrival(key);
                }
            });
        }
    }

    #[inline]
    fn approach_unless_locked(&self, key: &Key<'_>, then: impl FnOnce(&Shard, Approach<'_, Entry>)) {
        if let Some(shard) = self.cell_of(key.slot()).try_lock() {
            if let Some(bucket) = shard.table(key).and_then(|table| table.approach(key.hash())) {
                then(&shard, bucket);
            }
        }
    }
}

/// Asks for the cache line at this address, which need not be valid.
#[inline]
pub(crate) fn fetch_line<T: ?Sized>(at: *const T) {
    let at = at.cast::<i8>();
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has the instruction, which is a hint and faults at no address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at);
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: the instruction is a hint, which faults at no address and changes neither registers nor flags.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{at}]", at = in(reg) at, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = at;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Expiry, StoreConfig};

    const NOW: i64 = 1_000;

    #[test]
    fn a_warmed_key_is_what_it_was() {
        let store = Store::new(StoreConfig::default());
        let names: Vec<String> = (0..2 * MAX_PREFETCHED).map(|n| format!("key:{n}")).collect();
        let keys: Vec<Key<'_>> =
            names.iter().enumerate().map(|(n, name)| store.key(n as u16 % 3, n as u16 % 5, name.as_bytes())).collect();
        for key in keys.iter().step_by(2) {
            store.lock(key.slot(), NOW).set_string(key, key.bytes(), Expiry::At(NOW + 5));
        }
        let counters = store.counters();
        store.prefetch(&[]);
        store.prefetch(&keys);
        store.prefetch(&keys[..1]);
        assert_eq!(store.counters(), counters);
        for (n, key) in keys.iter().enumerate() {
            let found = store.lock(key.slot(), NOW).read_string(key).unwrap().map(|string| string.to_vec());
            assert_eq!(found.as_deref(), (n % 2 == 0).then_some(key.bytes()));
        }
    }

    #[test]
    fn a_locked_shard_is_left_alone() {
        let store = Store::new(StoreConfig::default());
        let key = store.key(0, 7, b"key");
        std::thread::scope(|threads| {
            let _held = store.lock(7, NOW);
            threads.spawn(|| store.prefetch(&[key])).join().expect("it neither waits nor fails");
        });
    }
}
