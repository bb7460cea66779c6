//! Who is to hold the copies of each slot beside its owner.

use arrayvec::ArrayVec;

use super::quota::{Loads, shares};
use super::{Held, Room, Zone};
use crate::slot::SLOT_COUNT;
use crate::slots::MAX_COPIES;

/// The replicas of each slot, at most `copies` of them: as many as there are other nodes.
pub(super) fn choose(room: &Room<'_>, held: &[Held], owners: &[usize], copies: usize) -> Vec<Vec<usize>> {
    let weights: Vec<_> = room.seats.iter().map(|seat| seat.weight).collect();
    let candidates = weights.iter().filter(|weight| **weight > 0).count();
    let copies = copies.min(candidates.saturating_sub(1));
    let loads = Loads::new(shares(&weights, copies * usize::from(SLOT_COUNT)));
    let replicas = vec![Vec::new(); owners.len()];
    let mut choice = Choice { room, owners, copies, replicas, loads };
    choice.keep(held);
    choice.fill();
    choice.spread_over_zones();
    choice.feed_the_starving();
    choice.replicas
}

struct Choice<'c, 's> {
    room: &'c Room<'s>,
    owners: &'c [usize],
    copies: usize,
    replicas: Vec<Vec<usize>>,
    loads: Loads,
}

impl Choice<'_, '_> {
    fn keep(&mut self, held: &[Held]) {
        for (slot, held) in (0..SLOT_COUNT).zip(held) {
            let owner = self.owners[usize::from(slot)];
            let is_replica = |seat: &usize| *seat != owner && self.room.seats[*seat].weight > 0;
            let kept: Vec<_> = held.seats.iter().copied().filter(is_replica).take(self.copies).collect();
            kept.iter().for_each(|seat| self.loads.add(*seat));
            self.replicas[usize::from(slot)] = kept;
        }
    }

    fn fill(&mut self) {
        for slot in 0..SLOT_COUNT {
            while self.replicas[usize::from(slot)].len() < self.copies {
                let Some(taker) = self.taker(slot) else { break };
                self.loads.add(taker);
                self.replicas[usize::from(slot)].push(taker);
            }
        }
    }

    /// Whom the slot prefers as its next replica: of a new zone and with room, or at least one of them, or anybody.
    fn taker(&self, slot: u16) -> Option<usize> {
        let candidates: Vec<_> = self.room.ring.preferences(slot).filter(|seat| !self.holds(slot, *seat)).collect();
        let zones = self.zones(slot);
        let is_new = |seat: &usize| self.room.zones[*seat].is_none_or(|zone| !zones.contains(&zone));
        let has_room = |seat: &usize| self.loads.has_room(*seat);
        let found = candidates.iter().find(|seat| is_new(seat) && has_room(seat));
        let found = found.or_else(|| candidates.iter().find(|seat| is_new(seat)));
        found.or_else(|| candidates.iter().find(|seat| has_room(seat))).or_else(|| candidates.first()).copied()
    }

    /// Where two copies are in one zone and there is another zone, one of them goes there.
    fn spread_over_zones(&mut self) {
        for slot in 0..SLOT_COUNT {
            while let Some((place, taker)) = self.better_spread(slot) {
                self.give(slot, place, taker);
            }
        }
    }

    /// A replica that is in another holder's zone, and who could hold the copy in a zone of its own.
    fn better_spread(&self, slot: u16) -> Option<(usize, usize)> {
        let place = self.replicas[usize::from(slot)].iter().rposition(|seat| self.shares_zone(slot, *seat))?;
        let zones = self.zones(slot);
        let is_better = |seat: &usize| {
            !self.holds(slot, *seat) && self.room.zones[*seat].is_some_and(|zone| !zones.contains(&zone))
        };
        let mut better = self.room.ring.preferences(slot).filter(is_better);
        let first = better.next()?;
        let with_room = std::iter::once(first).chain(better).find(|seat| self.loads.has_room(*seat));
        Some((place, with_room.unwrap_or(first)))
    }

    fn shares_zone(&self, slot: u16, seat: usize) -> bool {
        let Some(zone) = self.room.zones[seat] else { return false };
        self.holders(slot).any(|other| other != seat && self.room.zones[other] == Some(zone))
    }

    /// Those who have much too few take from those who have too many, as far as the zones allow it.
    fn feed_the_starving(&mut self) {
        for taker in self.loads.seats() {
            if self.loads.is_starving(taker) {
                self.feed(taker);
            }
        }
    }

    fn feed(&mut self, taker: usize) {
        let others = (0..SLOT_COUNT).filter(|slot| !self.holds(*slot, taker));
        for slot in self.room.by_preference(taker, others) {
            if !self.loads.is_below_quota(taker) {
                return;
            }
            if let Some(place) = self.giver(slot, taker) {
                self.give(slot, place, taker);
            }
        }
    }

    /// Which replica can give its copy to the taker: one that has too many, and whose zone the taker stands for as well.
    fn giver(&self, slot: u16, taker: usize) -> Option<usize> {
        let zone = self.room.zones[taker];
        let is_lost = |giver: usize| self.room.zones[giver] != zone && !self.shares_zone(slot, giver);
        let is_taken = |giver: usize| {
            self.holders(slot).any(|other| other != giver && zone.is_some() && self.room.zones[other] == zone)
        };
        let replicas = &self.replicas[usize::from(slot)];
        replicas.iter().position(|giver| self.loads.is_above_quota(*giver) && !(is_lost(*giver) && is_taken(*giver)))
    }

    fn give(&mut self, slot: u16, place: usize, taker: usize) {
        let giver = std::mem::replace(&mut self.replicas[usize::from(slot)][place], taker);
        self.loads.remove(giver);
        self.loads.add(taker);
    }

    fn holders(&self, slot: u16) -> impl Iterator<Item = usize> {
        let replicas = self.replicas[usize::from(slot)].iter();
        std::iter::once(&self.owners[usize::from(slot)]).chain(replicas).copied()
    }

    fn holds(&self, slot: u16, seat: usize) -> bool {
        self.holders(slot).any(|holder| holder == seat)
    }

    fn zones(&self, slot: u16) -> ArrayVec<Zone, MAX_COPIES> {
        self.holders(slot).filter_map(|seat| self.room.zones[seat]).collect()
    }
}
