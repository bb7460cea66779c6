//! Who is to hold which slot: a pure function of the nodes and of who holds what now, which every node computes alike.
//!
//! The ring says which nodes a slot prefers; but points fall unevenly, and a bound on what a node may hold makes a plain ring move
//! slots in vain whenever the bound changes (V. Mirrokni et al., "Consistent Hashing with Bounded Loads", SODA 2018; by simulation up to
//! 4 % of all slots in a small cluster). So what is held stays where it is as long as nobody has more than its share, and the ring
//! settles the rest: who takes over what has lost its owner, and which slots a newcomer takes from those who have too many. A
//! newcomer gets its share and nothing else moves.
//!
//! A slot whose owner is gone goes to one of its replicas, which has the data. Replicas are in as many zones as there are, and on
//! as many nodes.

mod owners;
mod quota;
mod replicas;

use std::collections::HashMap;

use crate::ring::Ring;
use crate::slot::SLOT_COUNT;
use crate::slots::{Holders, MAX_COPIES, NodeNumber, SlotTable};
use crate::topology::NodeId;

/// A node that may hold slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    pub number: NodeNumber,
    pub id: NodeId,
    /// Its capacity beside the others', in thousandths.
    pub weight: u32,
    /// Availability zone, where known.
    pub zone: Option<String>,
}

/// The table that is to come after `previous`, for the nodes in `seats`, with `copies` holders of each slot where there are as many
/// nodes. Nobody holds anything if there are no seats.
pub fn assign(previous: &SlotTable, seats: &[Seat], copies: usize) -> SlotTable {
    if seats.iter().all(|seat| seat.weight == 0) {
        return SlotTable::vacant();
    }
    let room = Room::new(seats);
    let held = room.seated(previous);
    let owners = owners::choose(&room, &held);
    let replicas = replicas::choose(&room, &held, &owners, copies.clamp(1, MAX_COPIES) - 1);
    let holders = owners.iter().zip(&replicas).map(|(owner, replicas)| room.holders(*owner, replicas));
    SlotTable::new(holders.collect())
}

/// Who holds a slot now.
struct Held {
    /// The holders that have a seat: the owner first, if it has one.
    seats: Vec<usize>,
    has_owner: bool,
}

/// The seats, by their index from here on, and their ring.
struct Room<'s> {
    seats: &'s [Seat],
    ring: Ring,
    /// How many slots each is to own.
    shares: Vec<usize>,
    /// Each one's zone, by a number of its own.
    zones: Vec<Option<Zone>>,
}

type Zone = usize;

impl<'s> Room<'s> {
    fn new(seats: &'s [Seat]) -> Self {
        let ring = Ring::new(seats.iter().map(|seat| (&seat.id, seat.weight)));
        let weights: Vec<_> = seats.iter().map(|seat| seat.weight).collect();
        let zone_of = |seat: &Seat| {
            seat.zone.as_ref().map(|zone| (0..).zip(seats).find(|(_, other)| other.zone.as_ref() == Some(zone)))
        };
        let zones = seats.iter().map(|seat| zone_of(seat).flatten().map(|(first, _)| first)).collect();
        Room { seats, ring, shares: quota::shares(&weights, usize::from(SLOT_COUNT)), zones }
    }

    fn seated(&self, table: &SlotTable) -> Vec<Held> {
        let index: HashMap<_, _> = self.seats.iter().enumerate().map(|(index, seat)| (seat.number, index)).collect();
        let held = |(_, holders): (u16, &Holders)| Held {
            seats: holders.iter().filter_map(|number| index.get(number).copied()).collect(),
            has_owner: holders.first().is_some_and(|owner| index.contains_key(owner)),
        };
        table.iter().map(held).collect()
    }

    fn holders(&self, owner: usize, replicas: &[usize]) -> Holders {
        std::iter::once(&owner).chain(replicas).map(|seat| self.seats[*seat].number).collect()
    }

    /// Slots sorted by how much they prefer a seat.
    fn by_preference(&self, seat: usize, slots: impl Iterator<Item = u16>) -> Vec<u16> {
        let mut slots: Vec<_> = slots.filter_map(|slot| Some((self.ring.distance(slot, seat)?, slot))).collect();
        slots.sort_unstable();
        slots.into_iter().map(|(_, slot)| slot).collect()
    }
}

#[cfg(test)]
mod tests;
