//! How a change becomes a new state.

use std::collections::HashMap;
use std::sync::Arc;

use super::{
    Applied, Change, ClusterState, Description, GroupsText, Incarnation, Member, Position, Refusal, Slot, SlotSet,
    Standing,
};
use crate::assignment::{Seat, assign};
use crate::slot::SLOT_COUNT;
use crate::slots::{Holders, MAX_COPIES, NodeNumber, SlotTable};

/// The most members that a cluster can have. Beyond it the assignment would take too long for a state machine.
const MAX_MEMBERS: usize = 1_000;

/// The largest weight, in thousandths: a node a hundred times as large as others. The ring has 150 points for each unit of it.
pub const MAX_WEIGHT: u32 = 100_000;

/// Whether a change has had an effect.
type Effect = Result<bool, Refusal>;

impl ClusterState {
    /// Makes a change, whatever it is and whenever it comes. What it does not allow is refused and has no effect.
    pub fn apply(&mut self, change: Change) -> Applied {
        let joining = match &change {
            Change::Join { description, .. } => Some(description.id.clone()),
            _ => None,
        };
        // What is done from here on is done at the next epoch, which comes into force if there was an effect.
        self.epoch += 1;
        let effect = self.change(change);
        if effect != Ok(true) {
            self.epoch -= 1;
        }
        let epoch = self.epoch;
        match (effect, joining.and_then(|id| self.member_by_id(&id))) {
            (Err(refusal), _) => Applied::Refused(refusal),
            (Ok(_), Some(member)) => Applied::Joined { number: member.number, epoch },
            (Ok(true), None) => Applied::Done { epoch },
            (Ok(false), None) => Applied::Unchanged,
        }
    }

    fn change(&mut self, change: Change) -> Effect {
        match change {
            Change::Join { description, incarnation } => self.join(description, incarnation),
            Change::Down { number, incarnation } => self.down(number, incarnation),
            Change::Lose { number } => self.lose(number),
            Change::Leave { number, incarnation } => self.leave(number, incarnation),
            Change::Drain { number } => self.drain(number),
            Change::Undrain { number } => self.undrain(number),
            Change::Remove { number } => self.remove(number),
            Change::Synced { number, incarnation, slots, epoch } => self.synced(number, incarnation, &slots, epoch),
            Change::HandOver { from, to, slots, epoch } => self.hand_over(from, to, &slots, epoch),
            Change::Report { number, incarnation, positions, epoch } => {
                self.report(number, incarnation, &positions, epoch)
            }
            Change::Rebalance => self.rebalance(),
            Change::SetGroups { text, over } => self.set_groups(text, over),
            Change::CallIn { groups, memories } => self.call_in(groups, memories),
            Change::SetKeeper { number } => self.set_keeper(number),
        }
    }

    fn join(&mut self, description: Description, incarnation: Incarnation) -> Effect {
        if description.weight > MAX_WEIGHT {
            return Err(Refusal::Other(format!("a node's weight is at most {}", MAX_WEIGHT / 1000)));
        }
        match self.member_by_id(&description.id).map(|member| member.number) {
            Some(number) => self.join_again(number, description, incarnation),
            None => self.join_newly(description, incarnation),
        }
    }

    fn join_newly(&mut self, description: Description, incarnation: Incarnation) -> Effect {
        let next = self.last_number.checked_add(1).filter(|_| self.members.len() < MAX_MEMBERS);
        let Some(next) = next else {
            return Err(Refusal::Other(format!("the cluster has {} members already", self.members.len())));
        };
        let (number, standing, since_epoch) = (NodeNumber(next), Standing::Up, self.epoch);
        self.last_number = next;
        self.members.insert(number, Member { number, incarnation, description, standing, since_epoch });
        self.assign_and_settle();
        Ok(true)
    }

    fn join_again(&mut self, number: NodeNumber, description: Description, incarnation: Incarnation) -> Effect {
        let member = self.expect(number)?;
        let standing = match member.standing {
            // The same process, that asks once more.
            Standing::Leaving if member.incarnation == incarnation => Standing::Leaving,
            Standing::Up | Standing::Leaving | Standing::Down | Standing::Lost => Standing::Up,
            Standing::Draining | Standing::Drained if member.incarnation == incarnation => member.standing,
            Standing::Draining | Standing::Drained => Standing::Draining,
        };
        let is_same = member.incarnation == incarnation && member.description == description;
        if is_same && member.standing == standing {
            return Ok(false);
        }
        if member.incarnation != incarnation {
            self.take_all_from(number);
        }
        if let Some(member) = self.members.get_mut(&number) {
            member.incarnation = incarnation;
            member.description = description;
        }
        self.stand(number, standing);
        self.assign_and_settle();
        Ok(true)
    }

    fn down(&mut self, number: NodeNumber, incarnation: Incarnation) -> Effect {
        let standing = match self.expect_life(number, incarnation)?.standing {
            Standing::Up | Standing::Leaving => Standing::Down,
            // With nothing to hold it has done what it was to do. Down, it would have a seat again.
            Standing::Draining => Standing::Drained,
            Standing::Down | Standing::Lost | Standing::Drained => return Ok(false),
        };
        self.take_all_from(number);
        self.stand(number, standing);
        self.assign_and_settle();
        Ok(true)
    }

    fn lose(&mut self, number: NodeNumber) -> Effect {
        match self.expect(number)?.standing {
            Standing::Down => self.stand(number, Standing::Lost),
            Standing::Lost | Standing::Drained => return Ok(false),
            Standing::Up | Standing::Leaving | Standing::Draining => return Err(Refusal::IsUp(number)),
        }
        self.assign_and_settle();
        Ok(true)
    }

    fn leave(&mut self, number: NodeNumber, incarnation: Incarnation) -> Effect {
        if self.expect_life(number, incarnation)?.standing != Standing::Up {
            return Ok(false);
        }
        self.stand(number, Standing::Leaving);
        self.assign_and_settle();
        Ok(true)
    }

    fn drain(&mut self, number: NodeNumber) -> Effect {
        match self.expect(number)?.standing {
            Standing::Draining | Standing::Drained => return Ok(false),
            // It holds nothing.
            Standing::Down | Standing::Lost => self.stand(number, Standing::Drained),
            Standing::Up | Standing::Leaving => {
                let is_heir =
                    |member: &Member| member.number != number && member.standing == Standing::Up && member.has_seat();
                if !self.members().any(is_heir) {
                    return Err(Refusal::LastNode(number));
                }
                self.stand(number, Standing::Draining);
            }
        }
        self.assign_and_settle();
        Ok(true)
    }

    fn undrain(&mut self, number: NodeNumber) -> Effect {
        if !matches!(self.expect(number)?.standing, Standing::Draining | Standing::Drained) {
            return Ok(false);
        }
        // Should it have ended, the leader will find out.
        self.stand(number, Standing::Up);
        self.assign_and_settle();
        Ok(true)
    }

    fn remove(&mut self, number: NodeNumber) -> Effect {
        match self.expect(number)?.standing {
            Standing::Down | Standing::Lost | Standing::Drained => {}
            Standing::Up | Standing::Leaving | Standing::Draining => return Err(Refusal::HoldsSlots(number)),
        }
        self.members.remove(&number);
        self.keeper = self.keeper.filter(|keeper| *keeper != number);
        self.assign_and_settle();
        Ok(true)
    }

    fn synced(&mut self, number: NodeNumber, incarnation: Incarnation, slots: &SlotSet, epoch: u64) -> Effect {
        self.expect_life(number, incarnation)?;
        let is_true = |slot: &Slot| {
            slot.syncing.contains(&number) && slot.owner.is_some() && slot.owned_since.max(slot.syncing_since) <= epoch
        };
        let fit: SlotSet = slots.iter().filter(|slot| is_true(self.slot(*slot))).collect();
        if fit.is_empty() {
            let is_done = slots.iter().all(|slot| self.slot(slot).replicas.contains(&number));
            return if is_done { Ok(false) } else { Err(Refusal::Overtaken(epoch)) };
        }
        let target = Arc::clone(&self.target);
        let all = Arc::make_mut(&mut self.slots);
        fit.iter().for_each(|slot| all.get_mut(slot).complete(number, target.holders(slot)));
        self.settle();
        Ok(true)
    }

    fn hand_over(&mut self, from: NodeNumber, to: NodeNumber, slots: &SlotSet, epoch: u64) -> Effect {
        self.expect(from)?;
        if self.expect(to)?.standing != Standing::Up {
            return Err(Refusal::IsNotUp(to));
        }
        let is_true =
            |slot: &Slot| slot.owner == Some(from) && slot.replicas.contains(&to) && slot.owned_since <= epoch;
        let fit: SlotSet = slots.iter().filter(|slot| is_true(self.slot(*slot))).collect();
        if fit.is_empty() {
            let is_done = slots.iter().all(|slot| self.slot(slot).owner == Some(to));
            return if is_done { Ok(false) } else { Err(Refusal::Overtaken(epoch)) };
        }
        let all = Arc::make_mut(&mut self.slots);
        fit.iter().for_each(|slot| all.get_mut(slot).hand_over(to, self.epoch));
        self.settle();
        Ok(true)
    }

    fn report(
        &mut self,
        number: NodeNumber,
        incarnation: Incarnation,
        positions: &[(u16, Position)],
        epoch: u64,
    ) -> Effect {
        self.expect_life(number, incarnation)?;
        let mut has_effect = false;
        for (slot, position) in positions.iter().filter(|(slot, _)| *slot < SLOT_COUNT) {
            let state = self.slots.get(*slot);
            if state.owner.is_some() || !state.replicas.contains(&number) || state.owned_since > epoch {
                continue;
            }
            let reports = self.reports.entry(*slot).or_default();
            match reports.iter_mut().find(|(reporter, _)| *reporter == number) {
                Some((_, reported)) => {
                    has_effect |= reported != position;
                    *reported = *position;
                }
                None => {
                    has_effect = true;
                    reports.push((number, *position));
                }
            }
        }
        if has_effect {
            self.settle();
        }
        Ok(has_effect)
    }

    fn rebalance(&mut self) -> Effect {
        let held = self.slots().map(|(number, slot)| self.held(number, slot));
        let target = assign(&SlotTable::new(held.collect()), &self.seats(), self.copies());
        if target == *self.target {
            return Ok(false);
        }
        self.target = Arc::new(target);
        self.settle();
        Ok(true)
    }

    /// Who has a copy of a slot: the owner, and then in the target's order, so that a target that is reached stays as it is.
    fn held(&self, number: u16, slot: &Slot) -> Holders {
        let mut holders: Vec<_> = slot.holders().collect();
        let target = self.target.holders(number);
        holders.sort_by_key(|holder| {
            let rank = target.iter().position(|wanted| wanted == holder);
            (slot.owner != Some(*holder), rank.unwrap_or(usize::MAX))
        });
        holders.into_iter().take(MAX_COPIES).collect()
    }

    fn set_groups(&mut self, text: String, over: Option<u64>) -> Effect {
        if self.groups.as_ref().is_some_and(|groups| groups.text == text) {
            return Ok(false);
        }
        let version = self.groups.as_ref().map_or(0, |groups| groups.version);
        if over.is_some_and(|over| over != version) {
            return Err(Refusal::OtherGroups(version));
        }
        self.groups = Some(GroupsText { version: version + 1, text });
        Ok(true)
    }

    fn call_in(&mut self, groups: Vec<String>, memories: Vec<(String, String)>) -> Effect {
        if groups.is_empty() && memories.is_empty() {
            return Ok(false);
        }
        Arc::make_mut(&mut self.called_in).add(groups, memories).map(|()| true)
    }

    fn set_keeper(&mut self, number: Option<NodeNumber>) -> Effect {
        if let Some(number) = number
            && self.expect(number)?.standing != Standing::Up
        {
            return Err(Refusal::IsNotUp(number));
        }
        Ok(std::mem::replace(&mut self.keeper, number) != number)
    }

    fn expect(&self, number: NodeNumber) -> Result<&Member, Refusal> {
        self.member(number).ok_or(Refusal::NoSuchNode(number))
    }

    fn expect_life(&self, number: NodeNumber, incarnation: Incarnation) -> Result<&Member, Refusal> {
        let member = self.expect(number)?;
        match member.incarnation == incarnation {
            true => Ok(member),
            false => Err(Refusal::AnotherLife(number)),
        }
    }

    pub(super) fn stand(&mut self, number: NodeNumber, standing: Standing) {
        if let Some(member) = self.members.get_mut(&number).filter(|member| member.standing != standing) {
            member.standing = standing;
            member.since_epoch = self.epoch;
        }
    }

    /// What the member holds is gone.
    fn take_all_from(&mut self, number: NodeNumber) {
        let all = Arc::make_mut(&mut self.slots);
        for (slot, state) in all.iter_mut() {
            if state.owner == Some(number) {
                state.owner = None;
                state.owned_since = self.epoch;
                self.reports.remove(&slot);
            }
            state.replicas.retain(|replica| *replica != number);
            state.syncing.retain(|syncing| *syncing != number);
        }
        self.reports.values_mut().for_each(|reports| reports.retain(|(reporter, _)| *reporter != number));
        self.reports.retain(|_, reports| !reports.is_empty());
    }

    /// The target for the members as they stand now, and the slots' next step to it.
    fn assign_and_settle(&mut self) {
        self.lose_replaced();
        let target = assign(&self.target, &self.seats(), self.copies());
        if target != *self.target {
            self.target = Arc::new(target);
        }
        self.settle();
    }

    /// A node that is down and whose place is taken by a newer one, at the same address, will not return: it has lost its disk.
    fn lose_replaced(&mut self) {
        let address = |member: &Member| (member.description.host.clone(), member.description.peer_port);
        let newest: HashMap<_, _> = self.members().map(|member| (address(member), member.number)).collect();
        let is_replaced = |member: &&Member| {
            member.standing == Standing::Down
                && newest.get(&address(member)).is_some_and(|newest| *newest > member.number)
        };
        let replaced: Vec<_> = self.members().filter(is_replaced).map(|member| member.number).collect();
        replaced.into_iter().for_each(|number| self.stand(number, Standing::Lost));
    }

    fn seats(&self) -> Vec<Seat> {
        let seat = |member: &Member| Seat {
            number: member.number,
            id: member.description.id.clone(),
            weight: member.description.weight,
            zone: member.description.zone.clone(),
        };
        self.members().filter(|member| member.has_seat()).map(seat).collect()
    }
}
