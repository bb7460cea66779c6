//! Eviction from the store as a whole: shards take turns, picked by how much they hold.

use smallvec::SmallVec;

use super::{EvictionPolicy, Moment, Onlooker};
use crate::UnixMillis;
use crate::garbage::Garbage;
use crate::locking::ShardCell;
use crate::store::Store;
use crate::walk::pick_by_weight;

/// Entries that go from one shard in a row: many enough that picking a shard and taking its lock hardly count, few enough
/// that nobody waits long for the lock.
const IN_A_ROW: usize = 16;
/// Where shards are small, one in so many entries goes in a row, so that they stay about alike.
const ENTRIES_PER_ROW: usize = 64;
/// How many entries that a shard holds weigh as much as one that has come since it evicted the last time: where entries come,
/// they go, so that a newcomer meets its rival soon; but a shard to which nothing comes has its turn too.
const DUE_WEIGHT: usize = 1024;
/// Shards in a row that give nothing, after which a step gives up; the next one tries again.
const FRUITLESS_TRIES: usize = 32;

/// What a step of eviction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EvictStep {
    /// How many entries were removed.
    pub evicted: usize,
    /// Whether the policy leaves nothing that may be evicted.
    pub exhausted: bool,
}

impl Store {
    /// Evicts up to `budget` entries by the policy in force; the caller goes on for as long as memory is short.
    /// `random` gives 64 random bits.
    pub fn evict_step(&self, now: UnixMillis, budget: usize, random: &mut impl FnMut() -> u64) -> EvictStep {
        self.evict_step_with(now, budget, random, &mut ())
    }

    /// As [`Self::evict_step`], while somebody looks on.
    pub fn evict_step_with(
        &self,
        now: UnixMillis,
        budget: usize,
        random: &mut impl FnMut() -> u64,
        onlooker: &mut impl Onlooker,
    ) -> EvictStep {
        let mut step = EvictStep::default();
        let policy = self.settings().policy();
        let mut fruitless = 0;
        while step.evicted < budget && fruitless < FRUITLESS_TRIES {
            let Some(turn) = self.pick_shard(policy, random()) else {
                step.exhausted = true;
                return step;
            };
            let evicted = self.evict_from(&turn, policy, now, budget - step.evicted, onlooker);
            step.evicted += evicted;
            fruitless = if evicted > 0 { 0 } else { fruitless + 1 };
        }
        step
    }

    fn evict_from(
        &self,
        turn: &Turn,
        policy: EvictionPolicy,
        now: UnixMillis,
        budget: usize,
        onlooker: &mut impl Onlooker,
    ) -> usize {
        // Dropped after the lock: declared before it.
        let mut garbage = Garbage::default();
        let mut shard = self.cells()[turn.shard].lock();
        let moment = Moment { now, settings: self.settings(), number: 0 };
        shard.follow_trial(policy, turn.mean_entries, &moment);
        shard.evict(policy, budget.min(turn.in_a_row), &moment, &mut garbage, onlooker)
    }

    /// `None` if there is nothing that the policy may evict.
    fn pick_shard(&self, policy: EvictionPolicy, draw: u64) -> Option<Turn> {
        let evictable = |cell: &ShardCell| match policy {
            EvictionPolicy::NoEviction => 0,
            policy if policy.is_volatile_only() => cell.mortal(),
            _ => cell.entries(),
        };
        let held: SmallVec<[usize; 64]> = self.cells().iter().map(evictable).collect();
        let weight = |(cell, held): (&ShardCell, &usize)| if *held == 0 { 0 } else { held + cell.due() * DUE_WEIGHT };
        let shard = pick_by_weight(draw, self.cells().iter().zip(&held).map(weight));
        // Others may change the weights while they are looked at, so that chance finds none.
        let shard = shard.or_else(|| held.iter().position(|held| *held > 0))?;
        let mean_entries = held.iter().sum::<usize>() / held.len();
        let in_a_row = match self.cells()[shard].due() {
            0 => mean_entries / ENTRIES_PER_ROW,
            due => due,
        };
        Some(Turn { shard, in_a_row: in_a_row.clamp(1, IN_A_ROW), mean_entries })
    }
}

/// Whose turn it is to evict.
struct Turn {
    shard: usize,
    in_a_row: usize,
    /// Evictable entries of a shard, on average.
    mean_entries: usize,
}

#[cfg(test)]
mod tests;
