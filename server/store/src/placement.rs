//! Which shard holds which slots.

use crate::locking::MAX_SHARDS;

/// As many as Redis Cluster has.
pub const SLOTS: u16 = 16384;

/// Neighbouring slots go to different shards; a shard numbers its own slots from 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placement {
    /// The bits of a slot that are its shard's number.
    shard_mask: u16,
    /// How many bits those are.
    shard_bits: u8,
}

impl Placement {
    pub(crate) fn new(shards: usize) -> Self {
        assert!(
            shards.is_power_of_two() && shards <= MAX_SHARDS,
            "{shards} shards: a power of two up to {MAX_SHARDS} is needed"
        );
        Placement { shard_mask: (shards - 1) as u16, shard_bits: shards.ilog2() as u8 }
    }

    pub(crate) fn slots_per_shard(self) -> usize {
        usize::from(SLOTS) >> self.shard_bits
    }

    #[inline]
    pub(crate) fn shard(self, slot: u16) -> usize {
        debug_assert!(slot < SLOTS);
        usize::from(slot & self.shard_mask)
    }

    /// The slot's number within its shard.
    #[inline]
    pub(crate) fn index(self, slot: u16) -> usize {
        usize::from(slot >> self.shard_bits)
    }
}
