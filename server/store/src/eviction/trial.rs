//! Which of two rules has more hits is found out by trial: two small models of a shard, one under each rule.
//!
//! Miniature simulation, after C. Waldspurger et al., "Cache Modeling and Optimization using Miniature Simulations", USENIX ATC
//! 2017: a model that holds a sample of the keys, picked by hash, in a memory scaled down alike has nearly the hit ratio of
//! the whole. A few shards keep books, and each for a sample of its own keys; so a trial costs a few instructions of a request on
//! average, and a fixed amount of memory.

use super::ghosts::Ghosts;
use super::lrfu::{Lrfu, Rule, outranks_by, worth_by};
use super::{Algorithm, EvictionPolicy, Moment};
use crate::key::Key;
use crate::shard::Shard;
use crate::table::{Place, Table};

/// One in so many shards keeps a trial.
const SHARDS_PER_TRIAL: usize = 16;
/// A model is made for so many keys at most; it may have grown to twice as many before it is made anew.
const MOST_KEYS: usize = 1024;
/// With fewer, chance would decide.
const FEWEST_KEYS: usize = 32;
/// Requests between two reports.
const REPORT_AFTER: u32 = 256;
/// Of so many keys that a model holds, one may be on probation.
const KEYS_PER_PROBATION: usize = 64;
/// Keys that a model compares for each that goes. More than a shard does, since a model has no pool.
const SAMPLES: usize = 16;

/// The two models, and what they have seen since the last report.
pub(crate) struct Trial {
    /// Only keys of whose hash these bits are 0 take part.
    mask: u64,
    by_frequency: Model,
    by_recency: Model,
    requests: u32,
    /// Hits that the model by frequency had more.
    lead: i32,
}

/// What a shard would hold under one rule.
struct Model {
    rule: Rule,
    capacity: usize,
    keys: Table<Record>,
    hand: u64,
    /// Keys on probation, in the order in which they came.
    newcomers: std::collections::VecDeque<u32>,
    ghosts: Ghosts,
}

/// A key, by 32 bits of its hash, and what the rule remembers of it.
#[derive(Clone, Copy)]
struct Record {
    key: u32,
    access: u32,
}

impl Shard {
    /// Begins or ends a trial as the policy wants it, and fits it to how many entries shards have on average: this one's own
    /// number goes up and down by chance, which a model of it would not stand.
    pub(super) fn follow_trial(&mut self, policy: EvictionPolicy, entries: usize, moment: &Moment<'_>) {
        let wanted = policy.is_tried() && self.number().is_multiple_of(SHARDS_PER_TRIAL) && entries >= FEWEST_KEYS;
        if !wanted {
            self.trial = None;
        } else if !self.trial.as_ref().is_some_and(|trial| trial.fits(entries)) {
            self.trial = Some(Box::new(Trial::new(entries)));
        }
        if let Some(trial) = &mut self.trial {
            trial.fit(entries, moment);
        }
        self.is_on_trial = self.trial.is_some();
    }

    /// Told of every read, whether the key was there or not.
    #[inline]
    pub(crate) fn observe_read(&mut self, key: &Key<'_>, moment: &Moment<'_>) {
        if self.is_on_trial {
            self.try_read(key, moment);
        }
    }

    #[cold]
    fn try_read(&mut self, key: &Key<'_>, moment: &Moment<'_>) {
        if let Some(trial) = &mut self.trial {
            trial.read(key.hash(), moment);
        }
    }

    /// Told of every value that is put under a key of which nothing was there.
    pub(crate) fn observe_arrival(&mut self, key: &Key<'_>, moment: &Moment<'_>) {
        if let Some(trial) = &mut self.trial {
            trial.put(key.hash(), moment);
        }
    }
}

impl Trial {
    fn new(entries: usize) -> Self {
        let share_bits = (entries / MOST_KEYS).max(1).next_power_of_two().ilog2();
        Trial {
            mask: (1 << share_bits) - 1,
            by_frequency: Model::new(Rule::Frequency),
            by_recency: Model::new(Rule::Recency),
            requests: 0,
            lead: 0,
        }
    }

    fn capacity(&self, entries: usize) -> usize {
        entries / (self.mask as usize + 1)
    }

    fn fits(&self, entries: usize) -> bool {
        let capacity = self.capacity(entries);
        capacity <= 2 * MOST_KEYS && (self.mask == 0 || capacity >= MOST_KEYS / 4)
    }

    fn fit(&mut self, entries: usize, moment: &Moment<'_>) {
        let capacity = self.capacity(entries);
        for model in [&mut self.by_frequency, &mut self.by_recency] {
            model.fit(capacity, moment);
        }
    }

    #[inline]
    fn read(&mut self, hash: u64, moment: &Moment<'_>) {
        if let Some(key) = self.sampled(hash) {
            self.read_sampled(key, moment);
        }
    }

    fn read_sampled(&mut self, key: u32, moment: &Moment<'_>) {
        self.lead += i32::from(self.by_frequency.read(key, moment)) - i32::from(self.by_recency.read(key, moment));
        self.requests += 1;
        if self.requests == REPORT_AFTER {
            moment.settings.learned().note_trial(self.lead);
            (self.requests, self.lead) = (0, 0);
        }
    }

    fn put(&mut self, hash: u64, moment: &Moment<'_>) {
        if let Some(key) = self.sampled(hash) {
            self.by_frequency.put(key, moment);
            self.by_recency.put(key, moment);
        }
    }

    /// What a model knows a key by that takes part. The bits that pick it say nothing more about it.
    #[inline]
    fn sampled(&self, hash: u64) -> Option<u32> {
        (hash >> u32::BITS & self.mask == 0).then_some(hash as u32)
    }
}

impl Model {
    fn new(rule: Rule) -> Self {
        Model {
            rule,
            capacity: 0,
            keys: Table::new(),
            hand: 0,
            newcomers: std::collections::VecDeque::new(),
            ghosts: Ghosts::default(),
        }
    }

    fn fit(&mut self, capacity: usize, moment: &Moment<'_>) {
        self.capacity = capacity;
        while self.keys.len() > capacity {
            self.evict(moment);
        }
        if self.rule == Rule::Frequency {
            self.ghosts.fit(capacity);
            moment.settings.learned().age(&mut self.ghosts, moment.now);
        }
    }

    /// A key is read, and put if it is missing, as whoever misses a value does. Tells whether it was there.
    fn read(&mut self, key: u32, moment: &Moment<'_>) -> bool {
        let Some(place) = self.find(key) else {
            self.add(key, moment);
            return false;
        };
        if let Some(record) = self.keys.at_mut(place) {
            record.access = Lrfu::touched(record.access, moment);
        }
        true
    }

    fn put(&mut self, key: u32, moment: &Moment<'_>) {
        if self.find(key).is_none() {
            self.add(key, moment);
        }
    }

    fn add(&mut self, key: u32, moment: &Moment<'_>) {
        while self.keys.len() >= self.capacity.max(1) {
            self.evict(moment);
        }
        let access = match self.rule {
            Rule::Frequency => Lrfu::arrived(self.ghosts.recall(spread(key)), moment),
            Rule::Recency => Lrfu::admitted(moment),
        };
        self.keys.insert(spread(key), Record { key, access }, |record| spread(record.key));
        if self.rule == Rule::Frequency {
            self.newcomers.push_back(key);
            self.settle_surplus();
        }
    }

    /// Ends the probation of those who have been here for long while nothing had to go.
    fn settle_surplus(&mut self) {
        while self.newcomers.len() > 2 * self.probation_places() {
            let Some(newcomer) = self.next_newcomer() else { return };
            self.settle(newcomer);
        }
    }

    fn evict(&mut self, moment: &Moment<'_>) {
        let goes = match (self.least_worthy(moment), self.next_newcomer()) {
            (Some(least_worthy), Some(newcomer)) => self.decide(least_worthy, newcomer, moment),
            (one, other) => one.or(other),
        };
        let Some((place, record)) = goes.and_then(|record| Some((self.find(record.key)?, record))) else {
            return;
        };
        self.keys.remove(place);
        self.ghosts.remember(spread(record.key), Lrfu::legacy(record.access, moment));
    }

    /// The newcomer stays, or it goes; see `Sweep::outranked_newcomer`.
    fn decide(&mut self, least_worthy: Record, newcomer: Record, moment: &Moment<'_>) -> Option<Record> {
        if !outranks_by(self.rule, newcomer.access, least_worthy.access, moment) {
            return Some(newcomer);
        }
        self.settle(newcomer);
        Some(least_worthy)
    }

    fn settle(&mut self, newcomer: Record) {
        if let Some(record) = self.find(newcomer.key).and_then(|place| self.keys.at_mut(place)) {
            record.access = Lrfu::settled(newcomer.access);
        }
    }

    fn least_worthy(&mut self, moment: &Moment<'_>) -> Option<Record> {
        let (mut least, mut passed, mut buckets) = (None, 0, 0);
        while passed < SAMPLES && buckets < SAMPLES {
            buckets += 1;
            let rule = self.rule;
            self.hand = self.keys.scan(self.hand, |record| {
                if Lrfu::settled(record.access) == record.access {
                    passed += 1;
                    let worth = worth_by(rule, record.access, moment);
                    if least.is_none_or(|(least, _)| worth < least) {
                        least = Some((worth, *record));
                    }
                }
            });
        }
        least.map(|(_, record)| record)
    }

    fn next_newcomer(&mut self) -> Option<Record> {
        while self.newcomers.len() > self.probation_places() {
            let key = self.newcomers.pop_front()?;
            let record = self.find(key).and_then(|place| self.keys.at(place)).copied();
            if record.is_some() {
                return record;
            }
        }
        None
    }

    fn probation_places(&self) -> usize {
        (self.capacity / KEYS_PER_PROBATION).max(1)
    }

    fn find(&self, key: u32) -> Option<Place> {
        self.keys.find(spread(key), |record| record.key == key)
    }
}

/// The table takes addresses from the low bits and tags from the high ones.
#[inline]
fn spread(key: u32) -> u64 {
    u64::from(key) << u32::BITS | u64::from(key)
}

#[cfg(test)]
mod tests;
