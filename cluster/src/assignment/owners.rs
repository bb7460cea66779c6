//! Who is to own each slot.

use super::quota::Loads;
use super::{Held, Room};
use crate::slot::SLOT_COUNT;

/// The owner of each slot.
pub(super) fn choose(room: &Room<'_>, held: &[Held]) -> Vec<usize> {
    let mut choice = Choice { room, held, owners: Vec::new(), loads: Loads::new(room.shares.clone()) };
    choice.keep_or_replace();
    choice.feed_the_starving();
    choice.relieve_the_overloaded();
    choice.owners
}

struct Choice<'c, 's> {
    room: &'c Room<'s>,
    held: &'c [Held],
    owners: Vec<usize>,
    loads: Loads,
}

impl Choice<'_, '_> {
    /// The first that holds a slot keeps it or, where the owner is gone, takes it over: it has the data. Those that nobody holds are
    /// dealt out when it is known what everybody has.
    fn keep_or_replace(&mut self) {
        const NOBODY: usize = usize::MAX;
        self.owners = self.held.iter().map(|held| held.seats.first().copied().unwrap_or(NOBODY)).collect();
        self.owners.iter().filter(|owner| **owner != NOBODY).for_each(|owner| self.loads.add(*owner));
        for slot in 0..SLOT_COUNT {
            if self.owners[usize::from(slot)] == NOBODY {
                let taker = self.preferred(slot, |loads, seat| loads.is_below_quota(seat));
                self.loads.add(taker);
                self.owners[usize::from(slot)] = taker;
            }
        }
    }

    /// Those who have much too few take from those who have too many.
    fn feed_the_starving(&mut self) {
        for taker in self.loads.seats() {
            if self.loads.is_starving(taker) {
                self.feed(taker);
            }
        }
    }

    fn feed(&mut self, taker: usize) {
        let others = (0..SLOT_COUNT).filter(|slot| self.loads.is_above_quota(self.owner(*slot)));
        let mut slots = self.room.by_preference(taker, others);
        // What it has a copy of costs nothing to move, and what has lost its owner is on the move anyway. The sort is stable.
        slots.sort_by_key(|slot| {
            let held = &self.held[usize::from(*slot)];
            (!held.seats.contains(&taker), held.has_owner)
        });
        for slot in slots {
            if !self.loads.is_below_quota(taker) {
                return;
            }
            if self.loads.is_above_quota(self.owner(slot)) {
                self.give(slot, taker);
            }
        }
    }

    /// Those who still have much too many give to those whom the slot prefers and who have too few: first what has lost its owner, and
    /// is on the move anyway.
    fn relieve_the_overloaded(&mut self) {
        let (settled, orphaned): (Vec<_>, Vec<_>) =
            (0..SLOT_COUNT).partition(|slot| self.held[usize::from(*slot)].has_owner);
        for slot in orphaned.into_iter().chain(settled) {
            if self.loads.is_overloaded(self.owner(slot)) {
                let taker = self.preferred(slot, |loads, seat| loads.is_below_quota(seat));
                self.give(slot, taker);
            }
        }
    }

    fn give(&mut self, slot: u16, taker: usize) {
        let owner = std::mem::replace(&mut self.owners[usize::from(slot)], taker);
        self.loads.remove(owner);
        self.loads.add(taker);
    }

    /// Whom the slot prefers of those that are fit: the ones with a copy first.
    fn preferred(&self, slot: u16, is_fit: impl Fn(&Loads, usize) -> bool) -> usize {
        let copies = self.held[usize::from(slot)].seats.iter().copied();
        let mut seats = copies.chain(self.room.ring.preferences(slot));
        let found = seats.find(|seat| is_fit(&self.loads, *seat));
        found.expect("the quotas are all slots, so somebody is below as long as one slot is left over")
    }

    fn owner(&self, slot: u16) -> usize {
        self.owners[usize::from(slot)]
    }
}
