//! A shard's evictions: a hand goes round its entries, and the least worthy of those that it has passed lately goes.
//!
//! Comparing a few at a time and remembering the worst comes close to sorting all entries; the idea is from Redis 3.0's
//! approximate LRU (<https://redis.io/docs/latest/develop/reference/eviction/>). A hand instead of chance: it looks at every
//! entry equally often, a whole bucket at a time, and the next bucket's entries are on their way to the processor when it gets
//! there. The index places entries by their hash, so their order is as good as random.

use smallvec::SmallVec;

use super::ghosts::Ghosts;
use super::newcomers::{Newcomer, Newcomers};
use super::pace::Pace;
use super::{EvictionPolicy, Moment};
use crate::UnixMillis;
use crate::database::{Database, NEVER};
use crate::entry::Entry;
use crate::garbage::Garbage;
use crate::key::Key;
use crate::shard::Shard;
use crate::table::Place;

/// How many of the least worthy entries seen are remembered.
const POOL: usize = 8;
/// Buckets looked at for an eviction at most, where hardly any entry may be evicted.
const MOST_BUCKETS: usize = 64;

/// What a shard keeps for its evictions; made with the first of them.
pub(crate) struct Sweep {
    policy: EvictionPolicy,
    hand: Hand,
    pool: Pool,
    newcomers: Newcomers,
    ghosts: Ghosts,
    pace: Pace,
}

/// Where the next bucket to look at is.
#[derive(Default)]
struct Hand {
    db: u16,
    slot: usize,
    position: u64,
}

/// The least worthy last.
#[derive(Default)]
struct Pool(SmallVec<[Candidate; POOL]>);

#[derive(Clone, Copy, Debug)]
struct Candidate {
    hash: u64,
    worth: u64,
    slot: u16,
    db: u16,
}

/// An entry, found again.
struct Spotted {
    db: u16,
    slot: usize,
    hash: u64,
    place: Place,
    access: u32,
    deadline: Option<UnixMillis>,
}

impl Shard {
    /// Evicts up to `budget` entries. Returns how many; fewer mean that nothing more was found to evict for now.
    pub(super) fn evict(
        &mut self,
        policy: EvictionPolicy,
        budget: usize,
        moment: &Moment<'_>,
        garbage: &mut Garbage,
    ) -> usize {
        let kept = self.sweep.take().filter(|sweep| sweep.policy == policy);
        let mut sweep = kept.unwrap_or_else(|| Box::new(Sweep::new(policy, self, moment)));
        sweep.prepare(self, moment);
        let evicted = (0..budget).take_while(|_| sweep.evict_one(self, moment, garbage)).count();
        self.set_due(sweep.newcomers.due(self.entries()));
        self.sweep = Some(sweep);
        evicted
    }

    /// The metadata of an entry that is about to be written for the first time; to be told by [`Self::welcome`] that it has
    /// been.
    pub(crate) fn admit(&mut self, key: &Key<'_>, moment: &Moment<'_>) -> u32 {
        let policy = moment.settings.policy();
        match &mut self.sweep {
            Some(sweep) if sweep.policy == policy => policy.arrived(sweep.ghosts.recall(key.hash()), moment),
            _ => policy.admitted(moment),
        }
    }

    /// Told of an entry that was written for the first time.
    pub(crate) fn welcome(&mut self, key: &Key<'_>, moment: &Moment<'_>) {
        self.observe_arrival(key, moment);
        let (slot, entries) = (self.index_of(key), self.entries());
        let Some(sweep) = self.sweep.as_mut().filter(|sweep| sweep.policy.remembers()) else { return };
        sweep.newcomers.push(key.db(), slot, key.hash(), moment.now);
        let (policy, surplus) = (sweep.policy, sweep.newcomers.pop_surplus(entries));
        let due = sweep.newcomers.due(entries);
        self.set_due(due);
        if let Some(settled) = surplus.and_then(|newcomer| self.spot(newcomer.db, newcomer.slot, newcomer.hash)) {
            self.settle(policy, &settled);
        }
    }

    fn settle(&mut self, policy: EvictionPolicy, spotted: &Spotted) {
        let database = self.database_mut(spotted.db);
        if let Some(entry) = database.and_then(|database| database.table_mut(spotted.slot).at_mut(spotted.place)) {
            entry.set_access(policy.settled(spotted.access));
        }
    }

    /// An entry by the hash of its key; one of another key with the same hash is as good.
    fn spot(&self, db: u16, slot: u16, hash: u64) -> Option<Spotted> {
        let (database, slot, seed) = (self.database(db)?, usize::from(slot), self.seed());
        let place = database.table(slot).find(hash, |entry| seed.hash(entry.key()) == hash)?;
        let entry = database.table(slot).at(place)?;
        Some(Spotted { db, slot, hash, place, access: entry.access(), deadline: entry.deadline() })
    }

    fn evict_spotted(&mut self, spotted: &Spotted, garbage: &mut Garbage) {
        garbage.add(self.remove_at(spotted.db, spotted.slot, spotted.place));
        self.counters.evicted += 1;
    }
}

impl Sweep {
    fn new(policy: EvictionPolicy, shard: &Shard, moment: &Moment<'_>) -> Self {
        Sweep {
            policy,
            hand: Hand::default(),
            pool: Pool::default(),
            newcomers: Newcomers::default(),
            ghosts: Ghosts::default(),
            pace: Pace::new(&shard.counters, moment.now),
        }
    }

    /// Exchanges two databases.
    pub(crate) fn swap(&mut self, a: u16, b: u16) {
        self.newcomers.swap(a, b);
        self.pool.0.clear();
    }

    /// Fits what is kept to what has happened since the last time.
    fn prepare(&mut self, shard: &Shard, moment: &Moment<'_>) {
        if let Some(took) = self.pace.turnover(&shard.counters, shard.entries(), moment.now) {
            moment.settings.learned().note_turnover(took);
        }
        if self.policy.remembers() {
            self.ghosts.fit(shard.entries());
            self.ghosts.age(moment.settings.learned().half_life(moment.now));
        }
    }

    fn evict_one(&mut self, shard: &mut Shard, moment: &Moment<'_>, garbage: &mut Garbage) -> bool {
        self.look_around(shard, moment);
        let Some(goes) = self.choose(shard, moment) else {
            return false;
        };
        self.ghosts.remember(goes.hash, self.policy.legacy(goes.access, moment));
        shard.evict_spotted(&goes, garbage);
        true
    }

    fn choose(&mut self, shard: &mut Shard, moment: &Moment<'_>) -> Option<Spotted> {
        let Some(least_worthy) = self.least_worthy(shard, moment) else {
            return self.any_newcomer(shard);
        };
        let outranked = self.outranked_newcomer(shard, &least_worthy, moment);
        if outranked.is_some() {
            self.pool.offer(Candidate::of(&least_worthy, self.policy, moment));
        }
        outranked.or(Some(least_worthy))
    }

    /// Where all that may go are on probation, the first goes before its time.
    fn any_newcomer(&mut self, shard: &Shard) -> Option<Spotted> {
        let newcomers = std::iter::from_fn(|| self.newcomers.pop());
        let mut found = newcomers.filter_map(|newcomer| shard.spot(newcomer.db, newcomer.slot, newcomer.hash));
        found.find(|newcomer| self.policy.may_take(newcomer.deadline))
    }

    /// Lets the hand pass at least as many entries as an eviction is to compare.
    fn look_around(&mut self, shard: &Shard, moment: &Moment<'_>) {
        let (policy, since) = (self.policy, self.newcomers.since(moment.now));
        let (samples, pool) = (moment.settings.maxmemory_samples(), &mut self.pool);
        let (mut passed, mut buckets) = (0, 0);
        while passed < samples && buckets < MOST_BUCKETS {
            buckets += 1;
            let found = self.hand.pass(shard, policy.is_volatile_only(), |db, slot, entry| {
                let (access, deadline) = (entry.access(), entry.deadline());
                if policy.may_take(deadline) && !policy.is_on_probation(access, since, moment) {
                    passed += 1;
                    pool.consider(policy.worth(access, deadline, moment), db, slot, || shard.seed().hash(entry.key()));
                }
            });
            if !found {
                return;
            }
        }
    }

    /// Takes the least worthy entry out of the pool that is still there and has not been used since.
    fn least_worthy(&mut self, shard: &Shard, moment: &Moment<'_>) -> Option<Spotted> {
        while let Some(candidate) = self.pool.0.pop() {
            let Some(spotted) = shard.spot(candidate.db, candidate.slot, candidate.hash) else { continue };
            let worth = self.policy.worth(spotted.access, spotted.deadline, moment);
            if worth <= candidate.worth && self.policy.may_take(spotted.deadline) {
                return Some(spotted);
            }
        }
        None
    }

    /// Ends the probation of the newcomer whose turn it is. If it is not worth more than the least worthy of the others, it goes
    /// in its stead.
    fn outranked_newcomer(
        &mut self,
        shard: &mut Shard,
        least_worthy: &Spotted,
        moment: &Moment<'_>,
    ) -> Option<Spotted> {
        let newcomer = self.next_newcomer(shard)?;
        let stays = self.policy.outranks(newcomer.access, least_worthy.access, moment);
        if stays || !self.policy.may_take(newcomer.deadline) {
            shard.settle(self.policy, &newcomer);
            return None;
        }
        Some(newcomer)
    }

    fn next_newcomer(&mut self, shard: &Shard) -> Option<Spotted> {
        loop {
            let Newcomer { db, slot, hash, .. } = self.newcomers.pop_due(shard.entries())?;
            // It may be gone, or have settled when it came a second time.
            let newcomer = shard.spot(db, slot, hash);
            if newcomer.as_ref().is_some_and(|newcomer| self.policy.settled(newcomer.access) != newcomer.access) {
                return newcomer;
            }
        }
    }
}

impl Hand {
    /// Shows the entries of the next bucket, with the database and the slot that they are in. Says whether there was one that
    /// has any of the kind in question.
    fn pass(&mut self, shard: &Shard, volatile_only: bool, mut show: impl FnMut(u16, usize, &Entry)) -> bool {
        let Some(database) = self.find_slot(shard, volatile_only) else {
            return false;
        };
        let (db, slot, table) = (self.db, self.slot, database.table(self.slot));
        self.position = table.scan(self.position, |entry| show(db, slot, entry));
        match self.position {
            0 => self.slot += 1,
            next => drop(table.scan(next, Entry::prefetch)),
        }
        true
    }

    /// Goes on to the next slot that has any of the kind, which may be the one where the hand is.
    fn find_slot<'s>(&mut self, shard: &'s Shard, volatile_only: bool) -> Option<&'s Database> {
        let databases = shard.database_count();
        // Once more than there are: the slots of the first that lie before the hand come last.
        for _ in 0..=databases {
            if let Some(database) = shard.database(self.db) {
                if self.find_slot_of(database, volatile_only) {
                    return Some(database);
                }
            }
            *self = Hand { db: (self.db + 1) % databases, slot: 0, position: 0 };
        }
        None
    }

    fn find_slot_of(&mut self, database: &Database, volatile_only: bool) -> bool {
        let has_any = |slot: &usize| match volatile_only {
            true => database.next_death(*slot) != NEVER,
            false => !database.table(*slot).is_empty(),
        };
        let found = (self.slot..database.slots()).find(has_any);
        if found != Some(self.slot) {
            self.position = 0;
        }
        self.slot = found.unwrap_or(database.slots());
        found.is_some()
    }
}

impl Pool {
    /// Remembers an entry if it is among the least worthy. The hash of its key is worked out only then.
    #[inline]
    fn consider(&mut self, worth: u64, db: u16, slot: usize, hash: impl FnOnce() -> u64) {
        if self.0.len() < POOL || self.0.first().is_some_and(|worthiest| worth < worthiest.worth) {
            self.offer(Candidate { hash: hash(), worth, slot: slot as u16, db });
        }
    }

    fn offer(&mut self, candidate: Candidate) {
        let is_known = |other: &Candidate| other.hash == candidate.hash && other.db == candidate.db;
        if self.0.iter().any(is_known) {
            return;
        }
        if self.0.len() == POOL {
            self.0.remove(0);
        }
        let at = self.0.partition_point(|other| other.worth > candidate.worth);
        self.0.insert(at, candidate);
    }
}

impl Candidate {
    fn of(spotted: &Spotted, policy: EvictionPolicy, moment: &Moment<'_>) -> Self {
        let worth = policy.worth(spotted.access, spotted.deadline, moment);
        Candidate { hash: spotted.hash, worth, slot: spotted.slot as u16, db: spotted.db }
    }
}

#[cfg(test)]
mod tests;
