//! What is left to be done: by owners, who feed the other holders and hand over what is to be another's.

use std::collections::BTreeMap;

use super::{ClusterState, Slot, SlotSet};
use crate::slots::NodeNumber;

impl ClusterState {
    /// Whether nothing is to be moved, synced or promoted.
    pub fn is_settled(&self) -> bool {
        let counts = self.owned();
        self.slots().all(|(number, slot)| {
            let wanted = self.target.holders(number);
            let is_wanted = |holder: NodeNumber| wanted.contains(&holder);
            slot.owner.is_some()
                && slot.syncing.is_empty()
                && slot.holders().all(is_wanted)
                && self.next_owner(number, slot, &counts).is_none()
        })
    }

    /// To whom `from` is to hand over which of the slots that it owns, now.
    pub fn handovers(&self, from: NodeNumber) -> Vec<(NodeNumber, SlotSet)> {
        let mut counts = self.owned();
        let mut handovers = BTreeMap::<_, SlotSet>::new();
        for (number, slot) in self.slots().filter(|(_, slot)| slot.owner == Some(from)) {
            if let Some(to) = self.next_owner(number, slot, &counts) {
                handovers.entry(to).or_default().insert(number);
                *counts.entry(to).or_default() += 1;
            }
        }
        handovers.into_iter().collect()
    }

    /// To whom `owner` is to send the effects of which slots: all other holders, those that have a whole copy and those that do not.
    pub fn to_sync(&self, owner: NodeNumber) -> Vec<(NodeNumber, SlotSet)> {
        let mut fed = BTreeMap::<_, SlotSet>::new();
        for (number, slot) in self.slots().filter(|(_, slot)| slot.owner == Some(owner)) {
            for holder in slot.replicas.iter().chain(&slot.syncing) {
                fed.entry(*holder).or_default().insert(number);
            }
        }
        fed.into_iter().collect()
    }

    /// Who could take the slot from its owner at once, and should.
    fn next_owner(&self, number: u16, slot: &Slot, owned: &BTreeMap<NodeNumber, usize>) -> Option<NodeNumber> {
        let owner = slot.owner?;
        let is_ready = |number: &NodeNumber| slot.replicas.contains(number) && self.is_up(*number);
        let wanted = self.target.holders(number);
        if let Some(first) = wanted.first().filter(|first| **first != owner && is_ready(first)) {
            return Some(*first);
        }
        let stays = match self.is_up(owner) {
            // Where it is wanted, or until the one to come is ready.
            true => wanted.contains(&owner) || wanted.first().is_none_or(|first| self.is_up(*first)),
            false => false,
        };
        if stays {
            return None;
        }
        // Only who is about to end, or to be emptied, gives to somebody who is not wanted either.
        let is_fit = |number: &NodeNumber| is_ready(number) && (wanted.contains(number) || !self.is_up(owner));
        let count = |number: &NodeNumber| owned.get(number).copied().unwrap_or_default();
        let takers = slot.replicas.iter().copied().filter(is_fit);
        takers.min_by_key(|number| (!wanted.contains(number), count(number), *number))
    }

    /// How many slots each member owns.
    fn owned(&self) -> BTreeMap<NodeNumber, usize> {
        let mut counts = BTreeMap::new();
        self.slots().filter_map(|(_, slot)| slot.owner).for_each(|owner| *counts.entry(owner).or_default() += 1);
        counts
    }
}
