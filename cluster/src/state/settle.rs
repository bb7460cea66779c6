//! What follows from who the members are and where the slots are to be, without anybody doing anything: who begins to be sent a copy, who
//! is let go, and who takes over what has lost its owner.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{ClusterState, Member, Slot, Standing};
use crate::slots::{Holders, NodeNumber};

impl ClusterState {
    /// Brings every slot one step closer to the target, as far as nobody has to do anything for it.
    pub(super) fn settle(&mut self) {
        let present = Present::new(&self.members, self.copies(), self.epoch);
        let all = Arc::make_mut(&mut self.slots);
        for (slot, state) in all.iter_mut() {
            let target = self.target.holders(slot);
            if state.owner.is_none() && present.succeed(slot, state, target, self.reports.get(&slot)) {
                self.reports.remove(&slot);
            }
            if state.owner.is_some() {
                present.settle(state, target);
            }
        }
        self.end_drains();
    }

    /// Who drains and holds nothing any more is drained.
    fn end_drains(&mut self) {
        let draining = self.members().filter(|member| member.standing == Standing::Draining);
        let is_empty = |number: &NodeNumber| !self.slots().any(|(_, slot)| slot.is_held_by(*number));
        let drained: Vec<_> = draining.map(|member| member.number).filter(is_empty).collect();
        drained.into_iter().for_each(|number| self.stand(number, Standing::Drained));
    }
}

/// The members that are there, as needed for every slot.
pub(super) struct Present {
    /// In ascending order.
    up: Vec<NodeNumber>,
    /// Those of `up` that slots may be meant for.
    pub(super) seated: Vec<NodeNumber>,
    /// In ascending order.
    draining: Vec<NodeNumber>,
    /// How many whole copies there can be, of those that are wanted.
    enough: usize,
    pub(super) epoch: u64,
}

impl Present {
    fn new(members: &BTreeMap<NodeNumber, Member>, copies: usize, epoch: u64) -> Self {
        let standing = |standing: Standing| {
            members.values().filter(move |member| member.standing == standing).map(|member| member.number)
        };
        let seated = members.values().filter(|member| member.standing == Standing::Up && member.has_seat());
        let seated: Vec<_> = seated.map(|member| member.number).collect();
        // While nobody could take a copy, nobody is relieved of one.
        let enough = if seated.is_empty() { copies } else { copies.min(seated.len()) };
        Present {
            up: standing(Standing::Up).collect(),
            seated,
            draining: standing(Standing::Draining).collect(),
            enough,
            epoch,
        }
    }

    pub(super) fn is_up(&self, number: NodeNumber) -> bool {
        self.up.binary_search(&number).is_ok()
    }

    /// Whether a copy there may be counted on: not if the node is about to end.
    fn is_lasting(&self, number: NodeNumber) -> bool {
        self.is_up(number) || self.draining.binary_search(&number).is_ok()
    }

    /// Of a slot that has an owner.
    fn settle(&self, slot: &mut Slot, target: &Holders) {
        if slot.syncing.is_empty()
            && slot.replicas.len() + 1 == target.len()
            && slot.holders().all(|holder| target.contains(&holder))
        {
            // All that are wanted have it, and nobody else: as most slots are most of the time.
            return;
        }
        slot.syncing.retain(|number| target.contains(number) && self.is_up(*number));
        for number in target {
            if self.is_up(*number) && !slot.is_held_by(*number) {
                slot.syncing.push(*number);
                slot.syncing_since = self.epoch;
            }
        }
        while let Some(place) = self.surplus(slot, target) {
            slot.replicas.remove(place);
        }
    }

    /// A replica that is not wanted and not needed either, since there are enough copies without it. Who is about to go anyway goes first.
    fn surplus(&self, slot: &Slot, target: &Holders) -> Option<usize> {
        let lasting = slot.holders().filter(|number| self.is_lasting(*number)).count();
        let is_surplus = |number: NodeNumber| {
            !target.contains(&number) && lasting - usize::from(self.is_lasting(number)) >= self.enough
        };
        let unwanted = slot.replicas.iter().enumerate().filter(|(_, number)| is_surplus(**number));
        unwanted.min_by_key(|(_, number)| (self.is_lasting(**number), self.is_up(**number))).map(|(place, _)| place)
    }
}

impl Slot {
    /// A node that was being sent a copy has the whole.
    pub(super) fn complete(&mut self, number: NodeNumber, target: &Holders) {
        self.syncing.retain(|syncing| *syncing != number);
        if self.replicas.is_full() {
            // Of more copies than there can be wanted ones, at least one is not wanted.
            let unwanted = self.replicas.iter().position(|replica| !target.contains(replica));
            self.replicas.remove(unwanted.unwrap_or(0));
        }
        self.replicas.push(number);
    }

    /// A replica becomes the owner, and the owner a replica.
    pub(super) fn hand_over(&mut self, to: NodeNumber, epoch: u64) {
        let Some(place) = self.replicas.iter().position(|replica| *replica == to) else { return };
        match self.owner.replace(to) {
            Some(from) => self.replicas[place] = from,
            None => drop(self.replicas.remove(place)),
        }
        self.owned_since = epoch;
    }
}
