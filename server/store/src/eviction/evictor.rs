//! Eviction: takes the least worthy of a few entries, again and again.
//!
//! Sampling with a pool of the worst seen so far comes close to sorting all entries; the idea is from Redis 3.0's
//! approximate LRU (<https://redis.io/docs/latest/develop/reference/eviction/>).

use parking_lot::Mutex;
use smallvec::SmallVec;

use super::{EvictionPolicy, Moment};
use crate::UnixMillis;
use crate::database::{Database, NEVER};
use crate::entry::Entry;
use crate::garbage::Garbage;
use crate::key::HashSeed;
use crate::locking::LockedShard;
use crate::shard::Shard;
use crate::store::Store;
use crate::table::CURSOR_BITS;
use crate::walk::pick_by_weight;

/// How many of the least worthy entries seen are remembered.
const POOL: usize = 16;
/// Tries in a row that find nothing to compare, after which a step gives up; the next one tries again.
const FRUITLESS_TRIES: usize = 32;
/// Entries looked at for each one that is to be compared, where not all may be evicted.
const LOOKS_PER_SAMPLE: usize = 10;

/// What a step of eviction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EvictStep {
    /// How many entries were removed.
    pub evicted: usize,
    /// Whether the policy leaves nothing that may be evicted.
    pub exhausted: bool,
}

/// The pool, shared by all who evict.
#[derive(Default)]
pub(crate) struct Evictor {
    pool: Mutex<Pool>,
}

#[derive(Default)]
struct Pool {
    policy: EvictionPolicy,
    /// The least worthy last.
    candidates: Vec<Candidate>,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    shard: usize,
    db: u16,
    slot: usize,
    hash: u64,
    worth: u64,
}

impl Store {
    /// Evicts up to `budget` entries by the policy in force; the caller goes on for as long as memory is short.
    /// `random` gives 64 random bits.
    pub fn evict_step(&self, now: UnixMillis, budget: usize, random: &mut impl FnMut() -> u64) -> EvictStep {
        let mut step = EvictStep::default();
        let policy = self.settings().policy();
        let mut fruitless = 0;
        while step.evicted < budget && fruitless < FRUITLESS_TRIES {
            if !self.has_evictable(policy) {
                step.exhausted = true;
                return step;
            }
            let mut pool = self.evictor.pool.lock();
            pool.follow(policy);
            self.sample(policy, now, random, &mut pool);
            let evicted = self.evict_least_worthy(policy, now, &mut pool);
            step.evicted += usize::from(evicted);
            fruitless = if evicted { 0 } else { fruitless + 1 };
        }
        step
    }

    fn has_evictable(&self, policy: EvictionPolicy) -> bool {
        match policy {
            EvictionPolicy::NoEviction => false,
            policy if policy.is_volatile_only() => self.cells().iter().any(|cell| cell.mortal() > 0),
            _ => self.cells().iter().any(|cell| cell.entries() > 0),
        }
    }

    /// Adds a few entries of one shard to the pool.
    fn sample(&self, policy: EvictionPolicy, now: UnixMillis, random: &mut impl FnMut() -> u64, pool: &mut Pool) {
        let weights =
            self.cells().iter().map(|cell| if policy.is_volatile_only() { cell.mortal() } else { cell.entries() });
        let Some(number) = pick_by_weight(random(), weights) else {
            return;
        };
        let shard = self.cells()[number].lock();
        let sampler = Sampler {
            policy,
            moment: Moment { now, settings: self.settings(), draw: random() as u32 },
            seed: self.seed(),
            samples: self.settings().maxmemory_samples(),
        };
        sampler.sample_shard(&shard, random, pool);
    }

    fn evict_least_worthy(&self, policy: EvictionPolicy, now: UnixMillis, pool: &mut Pool) -> bool {
        let moment = Moment { now, settings: self.settings(), draw: 0 };
        while let Some(candidate) = pool.candidates.pop() {
            // Dropped after the lock: declared before it.
            let mut garbage = Garbage::default();
            let mut shard = self.cells()[candidate.shard].lock();
            if evict(&mut shard, &candidate, self.seed(), policy, &moment, &mut garbage) {
                return true;
            }
        }
        false
    }
}

impl Pool {
    /// What one policy remembered is of no use to another.
    fn follow(&mut self, policy: EvictionPolicy) {
        if self.policy != policy {
            self.policy = policy;
            self.candidates.clear();
        }
    }

    fn offer(&mut self, candidate: Candidate) {
        let known =
            |other: &Candidate| (other.hash, other.slot, other.db) == (candidate.hash, candidate.slot, candidate.db);
        if self.candidates.iter().any(known) {
            return;
        }
        let at = self.candidates.partition_point(|other| other.worth > candidate.worth);
        if self.candidates.len() < POOL {
            self.candidates.insert(at, candidate);
        } else if at > 0 {
            self.candidates.remove(0);
            self.candidates.insert(at - 1, candidate);
        }
    }
}

/// Picks entries to compare.
struct Sampler<'s> {
    policy: EvictionPolicy,
    moment: Moment<'s>,
    seed: HashSeed,
    samples: usize,
}

impl Sampler<'_> {
    /// Looks at slots picked by their size until there are enough entries.
    fn sample_shard(&self, shard: &Shard, random: &mut impl FnMut() -> u64, pool: &mut Pool) {
        let databases: SmallVec<[(u16, &Database); 16]> = shard.databases().collect();
        let mut sampled = 0;
        for _ in 0..self.samples {
            let weights = databases.iter().map(|(_, database)| self.weight(database));
            let Some((db, database)) = pick_by_weight(random(), weights).map(|index| databases[index]) else { return };
            let slot_weights = (0..database.slots()).map(|slot| self.slot_weight(database, slot));
            let Some(slot) = pick_by_weight(random(), slot_weights) else { continue };
            sampled += self.sample_slot(database, slot, random(), |hash, worth| {
                pool.offer(Candidate { shard: shard.number(), db, slot, hash, worth });
            });
            if sampled >= self.samples {
                return;
            }
        }
    }

    /// Looks at buckets in a row from a random one on, until there are enough entries. Returns how many.
    fn sample_slot(&self, database: &Database, slot: usize, draw: u64, mut offer: impl FnMut(u64, u64)) -> usize {
        let table = database.table(slot);
        let most_looks = (self.samples * LOOKS_PER_SAMPLE).min(table.len());
        let (mut position, mut sampled, mut looked_at) = (draw >> (64 - CURSOR_BITS), 0, 0);
        while sampled < self.samples && looked_at < most_looks {
            position = table.scan(position, |entry| {
                looked_at += 1;
                if sampled < self.samples && self.may_evict(entry) {
                    sampled += 1;
                    let worth = self.policy.worth(entry.access(), entry.deadline(), &self.moment);
                    offer(self.seed.hash(entry.key()), worth);
                }
            });
        }
        sampled
    }

    fn may_evict(&self, entry: &Entry) -> bool {
        !self.policy.is_volatile_only() || entry.deadline().is_some()
    }

    fn weight(&self, database: &Database) -> usize {
        if self.policy.is_volatile_only() { database.tally().mortal } else { database.tally().entries }
    }

    fn slot_weight(&self, database: &Database, slot: usize) -> usize {
        if self.policy.is_volatile_only() && database.next_death(slot) == NEVER {
            0
        } else {
            database.table(slot).len()
        }
    }
}

/// Evicts a candidate, unless it is gone or has been used since it was sampled.
fn evict(
    shard: &mut LockedShard<'_>,
    candidate: &Candidate,
    seed: HashSeed,
    policy: EvictionPolicy,
    moment: &Moment<'_>,
    garbage: &mut Garbage,
) -> bool {
    let still_unworthy = |entry: &Entry| {
        seed.hash(entry.key()) == candidate.hash
            && (!policy.is_volatile_only() || entry.deadline().is_some())
            && policy.worth(entry.access(), entry.deadline(), moment) <= candidate.worth
    };
    let Some(database) = shard.database(candidate.db) else {
        return false;
    };
    let Some(place) = database.table(candidate.slot).find(candidate.hash, still_unworthy) else {
        return false;
    };
    let evicted = shard.remove_at(candidate.db, candidate.slot, place);
    policy.evicted(evicted.access(), moment);
    garbage.add(evicted);
    shard.counters.evicted += 1;
    true
}

#[cfg(test)]
mod tests;
