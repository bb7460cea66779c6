//! Active expiry: removing what is dead although nobody asks for it.
//!
//! Each slot knows a time before which none of its entries is dead. A step goes through slots whose time has come,
//! removes what is dead in them and learns their next time, a few entries at a time, so that a lock is never
//! held for long. Entries whose time has not come are looked at only where they share a slot with one whose has.

use smallvec::SmallVec;

use crate::UnixMillis;
use crate::database::{Database, NEVER};
use crate::entry::Entry;
use crate::garbage::Garbage;
use crate::random::Random;
use crate::shard::Shard;
use crate::store::Store;

/// Entries looked at before the lock is let go.
const LOOKS_PER_LOCK: usize = 128;
/// Slots with no more entries than this are gone through whenever one of them is dead.
const TINY_SLOT: usize = 16;
/// Slots with more entries than this are large.
const SMALL_SLOT: usize = 128;
/// How many deadlines of a slot are remembered, to judge by when a part of its entries will be dead.
const SAMPLE: usize = 64;

/// Going through all entries of a slot for each one that dies would cost too much where there are many, so it is put off until a
/// part of them is dead.
struct Patience {
    /// One in so many of those with a deadline is dead by then.
    share: usize,
    /// Or this has passed since the first of them died, in milliseconds: the longest that a dead entry is left lying.
    delay: i64,
}

const PATIENCE_WITH_SMALL: Patience = Patience { share: 4, delay: 100 };
const PATIENCE_WITH_LARGE: Patience = Patience { share: 16, delay: 60_000 };

/// One thread's share of active expiry: which shards are its own, and where it stands. So several threads can do it together and
/// never wait for each other.
#[derive(Debug)]
pub struct ExpiryShare {
    number: usize,
    of: usize,
    /// The shard that the next step begins with, counted among its own.
    next: usize,
}

impl ExpiryShare {
    /// Share `number` of `of`, counted from 0.
    ///
    /// # Panics
    /// If there is no such share.
    pub fn new(number: usize, of: usize) -> Self {
        assert!(number < of, "share {number} of {of}");
        ExpiryShare { number, of, next: 0 }
    }

    /// All of it.
    pub fn whole() -> Self {
        ExpiryShare::new(0, 1)
    }

    /// The shards of this share among `shards` of them, beginning with the next.
    fn turn(&self, shards: usize) -> impl Iterator<Item = usize> + use<> {
        let ExpiryShare { number, of, next } = *self;
        let own = shards.saturating_sub(number).div_ceil(of);
        (next..next + own).map(move |turn| number + turn % own * of)
    }

    fn go_on_with(&mut self, shard: usize) {
        self.next = (shard - self.number) / self.of;
    }
}

/// What a step of active expiry did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpireStep {
    /// How many entries were looked at.
    pub looked_at: usize,
    /// How many of them were removed.
    pub expired: usize,
    /// Whether the budget ran out before the work.
    pub more: bool,
}

impl Store {
    /// Removes entries whose time has passed, from the shards of `share`. Looks at about `budget` entries at most, and goes on where
    /// the last step stopped. Large values are put into `garbage`.
    pub fn expire_step(
        &self,
        share: &mut ExpiryShare,
        now: UnixMillis,
        budget: usize,
        garbage: &mut Garbage,
    ) -> ExpireStep {
        let mut step = ExpireStep::default();
        for number in share.turn(self.cells().len()) {
            while self.cells()[number].next_death() <= now {
                if step.looked_at >= budget {
                    share.go_on_with(number);
                    step.more = true;
                    return step;
                }
                let mut sweep = Sweep::new(now, LOOKS_PER_LOCK.min(budget - step.looked_at), garbage);
                self.cells()[number].lock().expire(&mut sweep);
                step.looked_at += sweep.looked_at;
                step.expired += sweep.expired;
            }
        }
        step
    }

    /// No entry of the share is dead before this time, which may be too early.
    pub fn next_death(&self, share: &ExpiryShare) -> UnixMillis {
        share.turn(self.cells().len()).map(|number| self.cells()[number].next_death()).min().unwrap_or(NEVER)
    }
}

/// How far a slot has been gone through.
pub(crate) struct SlotPass {
    db: u16,
    slot: usize,
    /// Where the scan of its table stands.
    position: u64,
    /// The earliest death of those that were left alive, or were added meanwhile.
    next_death: UnixMillis,
    /// How many of them there are.
    survivors: u64,
    /// When some of them, picked evenly, will be dead.
    deaths: Vec<UnixMillis>,
    random: Random,
}

impl SlotPass {
    fn new(db: u16, slot: usize) -> Self {
        SlotPass {
            db,
            slot,
            position: 0,
            next_death: NEVER,
            survivors: 0,
            deaths: Vec::new(),
            random: Random::new(slot as u64),
        }
    }

    pub(crate) fn is_of(&self, db: u16, slot: usize) -> bool {
        (db, slot) == (self.db, self.slot)
    }

    /// Notes that an entry of the slot will be dead by then. The sample is drawn by Algorithm R (J. S. Vitter, "Random
    /// Sampling with a Reservoir", ACM TOMS 11(1), 1985).
    pub(crate) fn note_survivor(&mut self, at: UnixMillis) {
        self.next_death = self.next_death.min(at);
        self.survivors += 1;
        if self.deaths.len() < SAMPLE {
            self.deaths.push(at);
        } else if let Some(death) = self.deaths.get_mut((self.random.next() % self.survivors) as usize) {
            *death = at;
        }
    }

    /// When the slot should be gone through again.
    fn next_pass(&mut self, entries: usize) -> UnixMillis {
        let patience = if entries <= SMALL_SLOT { PATIENCE_WITH_SMALL } else { PATIENCE_WITH_LARGE };
        let worthwhile = self.deaths.len() / patience.share;
        if entries <= TINY_SLOT || worthwhile == 0 {
            return self.next_death;
        }
        let (_, at, _) = self.deaths.select_nth_unstable(worthwhile - 1);
        (*at).min(self.next_death.saturating_add(patience.delay))
    }
}

/// What is done to a shard while its lock is held.
struct Sweep<'g> {
    now: UnixMillis,
    /// About how many entries may be looked at.
    limit: usize,
    looked_at: usize,
    expired: usize,
    /// Outlives the lock.
    garbage: &'g mut Garbage,
}

impl<'g> Sweep<'g> {
    fn new(now: UnixMillis, limit: usize, garbage: &'g mut Garbage) -> Self {
        Sweep { now, limit, looked_at: 0, expired: 0, garbage }
    }

    fn is_dead(&self, entry: &Entry) -> bool {
        entry.dead_at().is_some_and(|at| at <= self.now)
    }
}

impl Shard {
    /// Goes through due slots until enough entries have been looked at.
    fn expire(&mut self, sweep: &mut Sweep<'_>) {
        while sweep.looked_at < sweep.limit {
            let Some(mut pass) = self.pass.take().or_else(|| self.next_due_slot(sweep.now)) else {
                self.learn_next_death();
                return;
            };
            self.expire_bucket(&mut pass, sweep);
            self.go_on_or_finish(pass);
        }
    }

    /// Goes through one bucket of the slot's table.
    fn expire_bucket(&mut self, pass: &mut SlotPass, sweep: &mut Sweep<'_>) {
        let seed = self.seed();
        let Some(database) = self.database(pass.db) else { return };
        let mut dead = SmallVec::<[u64; 16]>::new();
        let position = database.table(pass.slot).scan(pass.position, |entry| {
            sweep.looked_at += 1;
            if sweep.is_dead(entry) {
                dead.push(seed.hash(entry.key()));
            } else if let Some(at) = entry.dead_at() {
                pass.note_survivor(at);
            }
        });
        pass.position = position;
        for hash in dead {
            self.expire_entry(pass, hash, sweep);
        }
    }

    fn expire_entry(&mut self, pass: &SlotPass, hash: u64, sweep: &mut Sweep<'_>) {
        let Some(database) = self.database(pass.db) else { return };
        if let Some(place) = database.table(pass.slot).find(hash, |entry| sweep.is_dead(entry)) {
            let removed = self.remove_at(pass.db, pass.slot, place);
            self.watch.changed(self.slot(pass.slot), removed.key());
            sweep.garbage.add(removed);
            sweep.expired += 1;
            self.counters.expired += 1;
        }
    }

    fn go_on_or_finish(&mut self, mut pass: SlotPass) {
        if pass.position != 0 {
            self.pass = Some(pass);
        } else if let Some(database) = self.database_mut(pass.db) {
            let entries = database.table(pass.slot).len();
            let next_pass = pass.next_pass(entries);
            database.set_next_death(pass.slot, next_pass);
        }
    }

    fn next_due_slot(&self, now: UnixMillis) -> Option<SlotPass> {
        self.databases().find_map(|(db, database)| {
            let due = |slot: &usize| database.next_death(*slot) <= now;
            (0..database.slots()).find(due).map(|slot| SlotPass::new(db, slot))
        })
    }

    /// Nothing is due: learns from the slots when something will be.
    fn learn_next_death(&mut self) {
        let earliest = |database: &Database| (0..database.slots()).map(|slot| database.next_death(slot)).min();
        let next = self.databases().filter_map(|(_, database)| earliest(database)).min();
        self.set_next_death(next.unwrap_or(NEVER));
    }
}

#[cfg(test)]
mod tests;
