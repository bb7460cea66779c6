//! Active expiry: removing what is dead although nobody asks for it.
//!
//! Each slot knows a time before which none of its entries is dead. A step goes through slots whose time has come,
//! removes what is dead in them and learns their next time, a few entries at a time, so that a lock is never
//! held for long. Entries whose time has not come are looked at only where they share a slot with one whose has.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::UnixMillis;
use crate::database::{Database, NEVER};
use crate::entry::Entry;
use crate::garbage::Garbage;
use crate::shard::Shard;
use crate::store::Store;

/// Entries looked at before the lock is let go.
const LOOKS_PER_LOCK: usize = 128;
/// In slots with more entries than this, going through all of them for each one that dies would cost too much, so they
/// are gone through only when about one in [`WORTHWHILE_SHARE`] of those with a deadline is dead.
const SMALL_SLOT: usize = 128;
const WORTHWHILE_SHARE: i64 = 16;
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
                let limit = LOOKS_PER_LOCK.min(budget - step.looked_at);
                // Dropped after the lock, which is released at the end of the inner statement.
                let mut garbage = Garbage::default();
                self.cells()[number]
                    .lock()
                    .expire(now, limit, &mut step, &mut garbage);
            }
        }
        step
    }
}

/// How far a slot has been gone through.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotPass {
    db: u16,
    slot: usize,
    /// Where the scan of its table stands.
    position: u64,
    /// The earliest death of those that were left alive, or were added meanwhile.
    next_death: UnixMillis,
    /// Of those that were left alive: how many have a deadline, and the sum of the times until they are dead.
    mortal: i64,
    lifetimes: i64,
}

impl SlotPass {
    fn new(db: u16, slot: usize) -> Self {
        SlotPass {
            db,
            slot,
            position: 0,
            next_death: NEVER,
            mortal: 0,
            lifetimes: 0,
        }
    }

    /// Notes that an entry of a slot, perhaps this one, will be dead by then.
    pub(crate) fn note_death(&mut self, db: u16, slot: usize, at: UnixMillis) {
        if (db, slot) == (self.db, self.slot) {
            self.next_death = self.next_death.min(at);
        }
    }

    fn note_survivor(&mut self, at: UnixMillis, now: UnixMillis) {
        self.next_death = self.next_death.min(at);
        self.mortal += 1;
        self.lifetimes = self.lifetimes.saturating_add(at - now);
    }

    /// When the slot should be gone through again. If deaths are spread evenly, a share of 1/n of the entries is dead
    /// after 2/n of their mean lifetime.
    fn next_pass(&self, now: UnixMillis, entries: usize) -> UnixMillis {
        if entries <= SMALL_SLOT || self.mortal == 0 {
            return self.next_death;
        }
        let worthwhile_after = self.lifetimes / self.mortal * 2 / WORTHWHILE_SHARE;
        self.next_death
            .max(now.saturating_add(worthwhile_after.min(LONGEST_DELAY)))
    }
}

impl Shard {
    /// Goes through due slots until about `limit` entries have been looked at.
    fn expire(
        &mut self,
        now: UnixMillis,
        limit: usize,
        step: &mut ExpireStep,
        garbage: &mut Garbage,
    ) {
        let mut looked_at = 0;
        while looked_at < limit {
            let Some(mut pass) = self.pass.take().or_else(|| self.next_due_slot(now)) else {
                self.forget_passed_deaths();
                return;
            };
            let expired = self.expire_bucket(&mut pass, now, &mut looked_at, step, garbage);
            self.counters.expired += expired as u64;
            step.expired += expired;
            self.go_on_or_finish(pass, now);
        }
    }

    /// Looks at one bucket of the slot's table. Returns how many entries were removed.
    fn expire_bucket(
        &mut self,
        pass: &mut SlotPass,
        now: UnixMillis,
        looked_at: &mut usize,
        step: &mut ExpireStep,
        garbage: &mut Garbage,
    ) -> usize {
        let Some(database) = self.database(pass.db) else {
            pass.position = 0;
            return 0;
        };
        let mut dead = smallvec::SmallVec::<[u64; 16]>::new();
        let seed = self.seed();
        let before = *looked_at;
        pass.position = database
            .table(pass.slot)
            .scan(pass.position, |entry: &Entry| {
                *looked_at += 1;
                match entry.dead_at() {
                    Some(at) if at <= now => dead.push(seed.hash(entry.key())),
                    Some(at) => pass.note_survivor(at, now),
                    None => {}
                }
            });
        step.looked_at += *looked_at - before;
        dead.into_iter()
            .filter(|hash| self.remove_dead(pass, *hash, now, garbage))
            .count()
    }

    fn remove_dead(
        &mut self,
        pass: &SlotPass,
        hash: u64,
        now: UnixMillis,
        garbage: &mut Garbage,
    ) -> bool {
        let is_dead = |entry: &Entry| entry.dead_at().is_some_and(|at| at <= now);
        let place = self
            .database(pass.db)
            .and_then(|database| database.table(pass.slot).find(hash, is_dead));
        if let Some(place) = place {
            garbage.add(self.remove_at(pass.db, pass.slot, place));
        }
        place.is_some()
    }

    fn go_on_or_finish(&mut self, pass: SlotPass, now: UnixMillis) {
        if pass.position != 0 {
            self.pass = Some(pass);
        } else if let Some(database) = self.database_mut(pass.db) {
            let entries = database.table(pass.slot).len();
            database.set_next_death(pass.slot, pass.next_pass(now, entries));
        }
    }

    fn next_due_slot(&self, now: UnixMillis) -> Option<SlotPass> {
        self.databases().find_map(|(db, database)| {
            let due = |slot: &usize| database.next_death(*slot) <= now;
            (0..database.slots())
                .find(due)
                .map(|slot| SlotPass::new(db, slot))
        })
    }

    /// Nothing is due: learns from the slots when something will be.
    fn forget_passed_deaths(&mut self) {
        let earliest = |database: &Database| {
            (0..database.slots())
                .map(|slot| database.next_death(slot))
                .min()
        };
        let next = self
            .databases()
            .filter_map(|(_, database)| earliest(database))
            .min();
        self.set_next_death(next.unwrap_or(NEVER));
    }
}

#[cfg(test)]
mod tests;
