//! A shard's evictions: a hand goes round its entries, and the least worthy of those that it has passed lately goes.
//!
//! Comparing a few at a time and remembering the worst comes close to sorting all entries; the idea is from Redis 3.0's
//! approximate LRU (<https://redis.io/docs/latest/develop/reference/eviction/>), with a hand in place of chance.
//!
//! An eviction costs cache misses more than instructions. So evictions come in rows, and what a row is going to touch is asked
//! for at its beginning.

use super::ghosts::Ghosts;
use super::hand::{Hand, Stops};
use super::newcomers::{Newcomers, TRACE};
use super::onlooker::Onlooker;
use super::pace::Pace;
use super::pool::{Candidate, Pool};
use super::{EvictionPolicy, Moment};
use crate::UnixMillis;
use crate::database::KEPT;
use crate::entry::Entry;
use crate::garbage::Garbage;
use crate::key::Key;
use crate::shard::Shard;
use crate::table::{Approach, Place};

/// Buckets looked at for an eviction at most, where hardly any entry may be evicted.
const MOST_BUCKETS: usize = 64;

/// What a shard keeps for its evictions; made with the first of them.
pub(crate) struct Sweep {
    policy: EvictionPolicy,
    hand: Hand,
    /// Entries that the hand is behind by.
    behind: usize,
    /// Buckets that it passed in the latest row.
    stride: usize,
    pool: Pool,
    newcomers: Newcomers,
    ghosts: Ghosts,
    pace: Pace,
}

/// Whether there is anything to choose among.
enum Found {
    Some,
    /// No slot that the hand stops at has any.
    Nowhere,
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
        onlooker: &mut impl Onlooker,
    ) -> usize {
        let kept = self.sweep.take().filter(|sweep| sweep.policy == policy);
        let mut sweep = kept.unwrap_or_else(|| Box::new(Sweep::new(policy, self, moment)));
        sweep.prepare(self, moment);
        sweep.approach(self, budget, onlooker);
        sweep.stride = 0;
        let evicted = (0..budget).take_while(|_| sweep.evict_one(self, moment, garbage, onlooker)).count();
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

    /// Asks for what [`Self::admit`] will read.
    #[inline]
    pub(crate) fn approach_arrival(&self, key: &Key<'_>) {
        if let Some(sweep) = &self.sweep {
            sweep.ghosts.approach(key.hash());
        }
    }

    /// Told of an entry that was written for the first time.
    pub(crate) fn welcome(&mut self, key: &Key<'_>, moment: &Moment<'_>) {
        if key.db() == KEPT {
            return;
        }
        self.observe_arrival(key, moment);
        let (slot, entries) = (self.index_of(key), self.entries());
        let Some(sweep) = self.sweep.as_mut().filter(|sweep| sweep.policy.remembers()) else { return };
        sweep.newcomers.push(key.db(), slot, key.hash(), moment.now);
        let (policy, surplus) = (sweep.policy, sweep.newcomers.pop_surplus(entries));
        let due = sweep.newcomers.due(entries);
        self.set_due(due);
        if let Some(settled) = surplus.and_then(|newcomer| self.spot(newcomer.db, newcomer.slot, newcomer.trace())) {
            self.settle(policy, &settled);
        }
    }

    fn settle(&mut self, policy: EvictionPolicy, spotted: &Spotted) {
        let database = self.database_mut(spotted.db);
        if let Some(entry) = database.and_then(|database| database.table_mut(spotted.slot).at_mut(spotted.place)) {
            entry.set_access(policy.settled(spotted.access));
        }
    }

    /// An entry by the [`TRACE`] of its hash; another one with the same is as good.
    fn spot(&self, db: u16, slot: u16, trace: u64) -> Option<Spotted> {
        let (database, slot, seed) = (self.database(db)?, usize::from(slot), self.seed());
        let (mut hash, mut access, mut deadline) = (0, 0, None);
        let place = database.table(slot).find(trace, |entry| {
            hash = seed.hash(entry.key());
            let found = hash & TRACE == trace;
            if found {
                (access, deadline) = (entry.access(), entry.deadline());
            }
            found
        })?;
        Some(Spotted { db, slot, hash, place, access, deadline })
    }

    #[inline]
    fn approach_spot(&self, db: u16, slot: u16, trace: u64) -> Option<Approach<'_, Entry>> {
        self.database(db)?.table(usize::from(slot)).approach(trace)
    }

    fn evict_spotted(&mut self, spotted: &Spotted, garbage: &mut Garbage, onlooker: &mut impl Onlooker) {
        let evicted = self.remove_at(spotted.db, spotted.slot, spotted.place);
        onlooker.evicted(self.slot(spotted.slot), spotted.db, evicted.key());
        self.watch.changed(self.slot(spotted.slot), evicted.key());
        garbage.add(evicted);
        self.counters.evicted += 1;
    }
}

impl Sweep {
    fn new(policy: EvictionPolicy, shard: &Shard, moment: &Moment<'_>) -> Self {
        Sweep {
            policy,
            hand: Hand::default(),
            behind: 0,
            stride: 0,
            pool: Pool::default(),
            newcomers: Newcomers::default(),
            ghosts: Ghosts::default(),
            pace: Pace::new(&shard.counters, moment.now),
        }
    }

    /// Exchanges two databases.
    pub(crate) fn swap(&mut self, a: u16, b: u16) {
        self.newcomers.swap(a, b);
        self.pool.clear();
    }

    /// Fits what is kept to what has happened since the last time.
    fn prepare(&mut self, shard: &Shard, moment: &Moment<'_>) {
        if let Some(took) = self.pace.turnover(&shard.counters, shard.entries(), moment.now) {
            moment.settings.learned().note_turnover(took);
        }
        if self.policy.remembers() {
            self.ghosts.fit(shard.entries());
            moment.settings.learned().age(&mut self.ghosts, moment.now);
        }
    }

    /// Asks for what so many evictions will read, so that their cache misses overlap; as [`Store::prefetch`] does for keys.
    ///
    /// [`Store::prefetch`]: crate::Store::prefetch
    fn approach(&self, shard: &Shard, evictions: usize, onlooker: &impl Onlooker) {
        let stops = Stops { volatile_only: self.policy.is_volatile_only(), yields: |slot| onlooker.yields(slot) };
        let entries = shard.entries();
        let due = || self.newcomers.next_due(entries, evictions);
        self.hand.approach_buckets(shard, &stops, self.stride);
        for newcomer in due() {
            self.ghosts.approach(newcomer.trace());
            shard.approach_spot(newcomer.db, newcomer.slot, newcomer.trace());
        }
        self.hand.approach_entries(shard, &stops, self.stride);
        for newcomer in due() {
            if let Some(bucket) = shard.approach_spot(newcomer.db, newcomer.slot, newcomer.trace()) {
                bucket.visit_likely(Entry::prefetch);
            }
        }
    }

    fn evict_one(
        &mut self,
        shard: &mut Shard,
        moment: &Moment<'_>,
        garbage: &mut Garbage,
        onlooker: &mut impl Onlooker,
    ) -> bool {
        let Some(goes) = self.choose_yielding(shard, moment, onlooker) else {
            return false;
        };
        self.ghosts.remember(goes.hash, self.policy.legacy(goes.access, moment));
        shard.evict_spotted(&goes, garbage, onlooker);
        true
    }

    /// Chooses an entry of a slot that the onlooker yields, or of any slot where no such slot has any.
    fn choose_yielding(&mut self, shard: &mut Shard, moment: &Moment<'_>, onlooker: &impl Onlooker) -> Option<Spotted> {
        self.behind += 1;
        match self.look_around(shard, moment, |slot| onlooker.yields(slot)) {
            Found::Some => self.choose(shard, moment, |slot| onlooker.yields(slot)),
            Found::Nowhere => {
                self.look_around(shard, moment, |_| true);
                self.choose(shard, moment, |_| true)
            }
        }
    }

    fn choose(&mut self, shard: &mut Shard, moment: &Moment<'_>, yields: impl Fn(u16) -> bool) -> Option<Spotted> {
        let Some(least_worthy) = self.least_worthy(shard, moment, &yields) else {
            return self.any_newcomer(shard, &yields);
        };
        let outranked = self.outranked_newcomer(shard, &least_worthy, moment, &yields);
        match outranked {
            Some(_) => self.pool.offer(Candidate::of(&least_worthy, self.policy, moment)),
            None => self.behind = moment.settings.maxmemory_samples(),
        }
        outranked.or(Some(least_worthy))
    }

    /// Where all that may go are on probation, the first goes before its time.
    fn any_newcomer(&mut self, shard: &Shard, yields: &impl Fn(u16) -> bool) -> Option<Spotted> {
        let newcomers = std::iter::from_fn(|| self.newcomers.pop());
        let mut found = newcomers.filter_map(|newcomer| shard.spot(newcomer.db, newcomer.slot, newcomer.trace()));
        found.find(|newcomer| self.policy.may_take(newcomer.deadline) && yields(shard.slot(newcomer.slot)))
    }

    /// Lets the hand pass the entries that it is behind by, a bucket at a time, as soon as they are as many as an eviction is to
    /// compare. It falls behind by so many with every entry that is taken out of the pool; by one with any other eviction,
    /// so that the pool keeps up with what changes.
    fn look_around(&mut self, shard: &Shard, moment: &Moment<'_>, yields: impl Fn(u16) -> bool) -> Found {
        let (policy, since) = (self.policy, self.newcomers.since(moment.now));
        let (samples, pool) = (moment.settings.maxmemory_samples(), &mut self.pool);
        if pool.is_empty() {
            self.behind = samples;
        }
        if self.behind < samples {
            return Found::Some;
        }
        let stops = Stops { volatile_only: policy.is_volatile_only(), yields };
        let mut buckets = 0;
        while self.behind > 0 && buckets < MOST_BUCKETS {
            buckets += 1;
            self.stride += 1;
            let mut passed = 0;
            let found = self.hand.pass(shard, &stops, |db, slot, entry| {
                let (access, deadline) = (entry.access(), entry.deadline());
                if policy.may_take(deadline) && !policy.is_on_probation(access, since, moment) {
                    passed += 1;
                    pool.consider(policy.worth(access, deadline, moment), db, slot, || shard.seed().hash(entry.key()));
                }
            });
            self.behind = self.behind.saturating_sub(passed);
            if !found {
                return if pool.is_empty() { Found::Nowhere } else { Found::Some };
            }
        }
        Found::Some
    }

    /// Takes the least worthy entry out of the pool that is still there and has not been used since.
    fn least_worthy(&mut self, shard: &Shard, moment: &Moment<'_>, yields: &impl Fn(u16) -> bool) -> Option<Spotted> {
        while let Some(candidate) = self.pool.pop() {
            let Some(spotted) = shard.spot(candidate.db, candidate.slot, candidate.hash & TRACE) else { continue };
            let worth = self.policy.worth(spotted.access, spotted.deadline, moment);
            let may_go = self.policy.may_take(spotted.deadline) && yields(shard.slot(spotted.slot));
            if worth <= candidate.worth && may_go {
                return Some(spotted);
            }
            self.behind = moment.settings.maxmemory_samples();
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
        yields: &impl Fn(u16) -> bool,
    ) -> Option<Spotted> {
        let newcomer = self.next_newcomer(shard)?;
        let stays = self.policy.outranks(newcomer.access, least_worthy.access, moment);
        if stays || !self.policy.may_take(newcomer.deadline) || !yields(shard.slot(newcomer.slot)) {
            shard.settle(self.policy, &newcomer);
            return None;
        }
        Some(newcomer)
    }

    fn next_newcomer(&mut self, shard: &Shard) -> Option<Spotted> {
        loop {
            let newcomer = self.newcomers.pop_due(shard.entries())?;
            // It may be gone, or have settled when it came a second time.
            let newcomer = shard.spot(newcomer.db, newcomer.slot, newcomer.trace());
            if newcomer.as_ref().is_some_and(|newcomer| self.policy.settled(newcomer.access) != newcomer.access) {
                return newcomer;
            }
        }
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
