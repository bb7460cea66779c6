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

    /// The slot that a shard numbers so.
    #[inline]
    pub(crate) fn slot(self, shard: usize, index: usize) -> u16 {
        debug_assert!(shard <= usize::from(self.shard_mask) && index < self.slots_per_shard());
        (index << self.shard_bits | shard) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_found_again_by_its_shard_and_its_number_there() {
        for shards in [1, 8, MAX_SHARDS] {
            let placement = Placement::new(shards);
            assert!((0..SLOTS).all(|slot| placement.slot(placement.shard(slot), placement.index(slot)) == slot));
        }
    }
}
