//! Active expiry: removing what is dead although nobody asks for it.
//!
//! Each slot knows a time before which none of its entries is dead. A step goes through slots whose time has come,
//! removes what is dead in them and learns their next time, a few entries at a time, so that a lock is never
//! held for long. Entries whose time has not come are looked at only where they share a slot with one whose has.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

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
/// In slots with more entries than this, going through all of them for each one that dies would cost too much, so they
/// are gone through only when about one in [`WORTHWHILE_SHARE`] of those with a deadline is dead.
const SMALL_SLOT: usize = 128;
const WORTHWHILE_SHARE: usize = 16;
/// How many deadlines that is judged by.
const SAMPLE: usize = 4 * WORTHWHILE_SHARE;
/// The longest that a dead entry of a large slot is left lying, in milliseconds.
const LONGEST_DELAY: i64 = 60_000;

/// Which shard the next step begins with.
#[derive(Default)]
pub(crate) struct ExpiryCursor(AtomicUsize);

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
    /// Removes entries whose time has passed. Looks at about `budget` entries at most, and goes on where the last step
    /// stopped.
    pub fn expire_step(&self, now: UnixMillis, budget: usize) -> ExpireStep {
        let mut step = ExpireStep::default();
        let shards = self.cells().len();
        let start = self.expiry.0.load(Relaxed);
        for number in (start..start + shards).map(|number| number % shards) {
            while self.cells()[number].next_death() <= now {
                if step.looked_at >= budget {
                    self.expiry.0.store(number, Relaxed);
                    step.more = true;
                    return step;
                }
                let mut sweep = Sweep::new(now, LOOKS_PER_LOCK.min(budget - step.looked_at));
                self.cells()[number].lock().expire(&mut sweep);
                step.looked_at += sweep.looked_at;
                step.expired += sweep.expired;
            }
        }
        step
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
    fn next_pass(&mut self, now: UnixMillis, entries: usize) -> UnixMillis {
        let worthwhile = self.deaths.len() / WORTHWHILE_SHARE;
        if entries <= SMALL_SLOT || worthwhile == 0 {
            return self.next_death;
        }
        let (_, at, _) = self.deaths.select_nth_unstable(worthwhile - 1);
        self.next_death.max((*at).min(now.saturating_add(LONGEST_DELAY)))
    }
}

/// What is done to a shard while its lock is held.
struct Sweep {
    now: UnixMillis,
    /// About how many entries may be looked at.
    limit: usize,
    looked_at: usize,
    expired: usize,
    /// Dropped with the sweep, which outlives the lock.
    garbage: Garbage,
}

impl Sweep {
    fn new(now: UnixMillis, limit: usize) -> Self {
        Sweep { now, limit, looked_at: 0, expired: 0, garbage: Garbage::default() }
    }

    fn is_dead(&self, entry: &Entry) -> bool {
        entry.dead_at().is_some_and(|at| at <= self.now)
    }
}

impl Shard {
    /// Goes through due slots until enough entries have been looked at.
    fn expire(&mut self, sweep: &mut Sweep) {
        while sweep.looked_at < sweep.limit {
            let Some(mut pass) = self.pass.take().or_else(|| self.next_due_slot(sweep.now)) else {
                self.learn_next_death();
                return;
            };
            self.expire_bucket(&mut pass, sweep);
            self.go_on_or_finish(pass, sweep.now);
        }
    }

    /// Goes through one bucket of the slot's table.
    fn expire_bucket(&mut self, pass: &mut SlotPass, sweep: &mut Sweep) {
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

    fn expire_entry(&mut self, pass: &SlotPass, hash: u64, sweep: &mut Sweep) {
        let Some(database) = self.database(pass.db) else { return };
        if let Some(place) = database.table(pass.slot).find(hash, |entry| sweep.is_dead(entry)) {
            let removed = self.remove_at(pass.db, pass.slot, place);
            sweep.garbage.add(removed);
            sweep.expired += 1;
            self.counters.expired += 1;
        }
    }

    fn go_on_or_finish(&mut self, mut pass: SlotPass, now: UnixMillis) {
        if pass.position != 0 {
            self.pass = Some(pass);
        } else if let Some(database) = self.database_mut(pass.db) {
            let entries = database.table(pass.slot).len();
            let next_pass = pass.next_pass(now, entries);
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
