//! What a node knows of one slot: what the slot is to it, and how far it has come.

use std::sync::Arc;

use forebay_cluster::NodeNumber;
use forebay_cluster::state::Position;
use forebay_store::SlotCursor;
use smallvec::SmallVec;

use super::effect::{Effect, Record};
use super::outbox::Shared;
use super::peer::Peer;
use super::renewal::Renewal;

/// Behind a lock of its own, which is taken under the shard's lock whenever the slot's entries are concerned, too.
#[derive(Default)]
pub(super) struct SlotLog {
    pub(super) duty: Duty,
    /// How far what is held here has come, at least; the default if it was never complete.
    pub(super) position: Position,
    /// The slot comes, or was about to come, whole to a copy that was whole before: some of it is newer than its position.
    pub(super) renewal: Option<Box<Renewal>>,
    /// The epoch of the history that was taken over, as long as nothing has been added to it.
    pub(super) inherited: Option<u64>,
    /// To whom an owner sends effects.
    pub(super) targets: SmallVec<[Target; 2]>,
    /// How a holder's copy stands.
    pub(super) copy: Copy,
    /// Eviction has taken something out of a copy here, so that its digest says nothing.
    pub(super) is_thinned: bool,
}

/// What a slot is to this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Duty {
    /// Nothing.
    #[default]
    Away,
    /// It serves the slot, which it took in epoch `since`. With `copies` others hold it or are to hold it.
    Owner { since: u64, copies: bool },
    /// It holds a copy, or is being sent one.
    Holder { owner: Option<NodeNumber>, since: u64 },
}

/// A node that an owner sends a slot's effects to.
pub(super) struct Target {
    pub(super) peer: Arc<Peer>,
    /// The cluster counts it among the replicas, so that it may become owner.
    pub(super) in_sync: bool,
    /// It has been said to the cluster that its copy is complete: it may count it already.
    pub(super) is_proposed: bool,
    /// The epoch at which it was made a target.
    view: u64,
    /// Of the peer's outbox.
    generation: u64,
    /// The record by which it was told last what it is.
    told: u64,
    /// It was told to forget what is held here ([`Replication::record_fill`](super::Replication::record_fill)), so that digests say nothing
    /// until it is sent the slot whole.
    is_thinned: bool,
    pub(super) stage: Stage,
}

/// How far a target has been brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It has what the owner has, as soon as it has dealt with record `from`; if it does not, it says so before.
    Following { from: u64 },
    /// It has asked for the slot. It is sent no effects until that begins.
    Asked,
    /// It is being sent the slot, and effects in between.
    Sending { cursor: SlotCursor },
    /// It does not take the slot from this node.
    Refused,
}

/// How a holder's copy stands to its owner's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Copy {
    /// It waits to be told, by a new feed. Feed `told` knows that its effects are of no use.
    Apart { told: u64 },
    /// It is complete and follows this feed.
    Following { feed: u64 },
    /// It comes whole by this feed; with the effects so far it will have come to `at`.
    Receiving { feed: u64, at: Position },
}

impl Default for Copy {
    fn default() -> Self {
        Copy::Apart { told: NO_FEED }
    }
}

/// The number of no feed.
pub(super) const NO_FEED: u64 = 0;

impl Target {
    /// Whether the effects of a slot go there.
    fn is_sent_effects(&self) -> bool {
        matches!(self.stage, Stage::Following { .. } | Stage::Sending { .. })
    }

    /// Whether it may become owner, as far as is known here: what must be held by whoever may must be held by it.
    pub(super) fn must_hold(&self) -> bool {
        self.in_sync || self.is_proposed
    }

    /// Who it is, and whether the cluster counts it.
    pub(super) fn counted(&self) -> (NodeNumber, bool) {
        (self.peer.number, self.in_sync)
    }

    /// The cluster counts it, or does not.
    pub(super) fn count(&mut self, in_sync: bool) {
        self.in_sync = in_sync;
        self.is_proposed &= !in_sync;
    }

    fn push(&self, record: &Shared<'_>) -> Option<u64> {
        self.peer.outbox.push(self.generation, record)
    }

    /// Whether it has dealt with record `ticket`, and then held what the owner held.
    pub(super) fn has_dealt_with(&self, ticket: u64) -> bool {
        let Stage::Following { from } = self.stage else { return false };
        self.peer.dealt() >= from.max(ticket) && !self.is_outdated()
    }

    /// With which record it will have dealt with `ticket` and hold what the owner holds, if nothing comes in between.
    pub(super) fn expects(&self, ticket: u64) -> Option<u64> {
        let Stage::Following { from } = self.stage else { return None };
        Some(from.max(ticket)).filter(|_| !self.is_outdated())
    }

    /// Whether it holds the slot, or will when it has dealt with what is on its way.
    pub(super) fn is_followed(&self) -> bool {
        self.expects(0).is_some()
    }

    /// Whether what is pushed for it may be lost, since the outbox has begun anew.
    pub(super) fn is_outdated(&self) -> bool {
        self.generation != self.peer.outbox.generation()
    }

    /// Whether it was made a target by a state before that of `epoch`.
    pub(super) fn is_of_before(&self, epoch: u64) -> bool {
        self.view < epoch
    }

    pub(super) fn has_refused(&self) -> bool {
        self.stage == Stage::Refused
    }

    /// It has not taken a record of the slot from this node, and takes none until it is told anew what it is. If it has been meanwhile, by a
    /// state that one of the two did not know yet, it has still to answer to that.
    pub(super) fn refuse(&mut self, record: u64) {
        if record >= self.told {
            self.stage = Stage::Refused;
        }
    }

    /// Has the slot sent whole.
    pub(super) fn ask(&mut self, slot: u16) {
        if !matches!(self.stage, Stage::Asked) {
            self.stage = Stage::Asked;
            self.peer.ask(slot);
        }
    }
}

impl SlotLog {
    pub(super) fn is_owner(&self) -> bool {
        matches!(self.duty, Duty::Owner { .. })
    }

    /// What tells one time at which this node owns the slot from another: the last bits of the epoch at which that began. There are many
    /// marks ([`Recorded`](super::Recorded)), and the next time comes some epochs later, not just 65,536.
    pub(super) fn tenure(&self) -> Option<u16> {
        match self.duty {
            Duty::Owner { since, .. } => Some(since as u16),
            Duty::Holder { .. } | Duty::Away => None,
        }
    }

    pub(super) fn target(&mut self, number: NodeNumber) -> Option<&mut Target> {
        self.targets.iter_mut().find(|target| target.peer.number == number)
    }

    /// Adds an effect to an owner's history. Its number.
    pub(super) fn next_sequence(&mut self) -> u64 {
        self.inherited = None;
        self.position.sequence += 1;
        self.position.sequence
    }

    /// Whether any target is far behind.
    pub(super) fn is_pressed(&self) -> bool {
        self.targets.iter().any(|target| target.is_sent_effects() && target.peer.outbox.is_pressed())
    }

    /// Sends a record to all to whom effects go. Tells `sent` of every target, with the record's number if it is on its way there.
    pub(super) fn send(&self, record: &mut Vec<u8>, mut sent: impl FnMut(&Target, Option<u64>)) {
        let record = Shared::new(record, 1);
        for target in &self.targets {
            let ticket = if target.is_sent_effects() { target.push(&record) } else { None };
            sent(target, ticket);
        }
    }

    /// Sends a digest to those that hold what the owner holds, or will when they have dealt with what is on its way.
    pub(super) fn send_digest(&mut self, record: &mut Vec<u8>) {
        let record = Shared::new(record, 1);
        let is_alike = |target: &&Target| matches!(target.stage, Stage::Following { .. }) && !target.is_thinned;
        for target in self.targets.iter().filter(is_alike) {
            target.push(&record);
        }
    }

    /// All targets are told to forget something that is kept here.
    pub(super) fn thin_targets(&mut self) {
        self.targets.iter_mut().for_each(|target| target.is_thinned = true);
    }

    /// As [`Self::send`], of an effect that is not an entry.
    pub(super) fn send_effect(&mut self, slot: u16, effect: Effect<'_>, sent: impl FnMut(&Target, Option<u64>)) {
        let sequence = self.next_sequence();
        if !self.targets.is_empty() {
            let mut record = Vec::with_capacity(64);
            Record::Effect { slot, sequence, effect }.write(&mut record);
            self.send(&mut record, sent);
        }
    }

    /// Makes a peer a target, or tells it anew what it is: from here on it is sent effects, and it says so if it does not hold the rest.
    pub(super) fn attach(&mut self, slot: u16, peer: &Arc<Peer>, in_sync: bool, view: u64) {
        if self.targets.is_empty() {
            // Nobody has counted what has changed here without targets: nobody may take an older copy for a whole one.
            if self.inherited.is_none() {
                self.position.sequence += 1;
            }
        }
        let (is_thinned, is_proposed) =
            self.target(peer.number).map_or((false, false), |target| (target.is_thinned, target.is_proposed));
        self.detach(peer.number);
        let (peer, generation) = (Arc::clone(peer), peer.outbox.generation());
        let number = peer.number;
        let stage = Stage::Asked;
        self.targets.push(Target { peer, in_sync, is_proposed, view, generation, told: 0, is_thinned, stage });
        self.follow(slot, number);
    }

    /// Tells a target where the owner stands.
    fn follow(&mut self, slot: u16, number: NodeNumber) {
        let (position, inherited) = (self.position, self.inherited);
        let Some(target) = self.target(number) else { return };
        let was = inherited.unwrap_or(position.epoch);
        let mut record = Vec::with_capacity(64);
        Record::Follow { slot, view: target.view, was, position }.write(&mut record);
        if let Some(from) = target.push(&Shared::new(&mut record, 1)) {
            target.told = from;
            target.stage = Stage::Following { from };
            target.peer.will_be_complete(from, slot);
        }
    }

    /// As [`Self::attach`], for a target whose outbox has begun anew.
    pub(super) fn reattach(&mut self, slot: u16, number: NodeNumber) {
        if let Some(target) = self.target(number) {
            target.generation = target.peer.outbox.generation();
            if target.stage != Stage::Refused {
                self.follow(slot, number);
            }
        }
    }

    /// Tells those once more what they are who do not take the slot from this node. Mostly they have refused by a state that one of the two
    /// did not know, and are told anew when it does.
    pub(super) fn offer_again(&mut self, slot: u16) {
        let refused = |target: &&Target| target.stage == Stage::Refused && !target.is_outdated();
        let numbers: SmallVec<[NodeNumber; 2]> =
            self.targets.iter().filter(refused).map(|target| target.peer.number).collect();
        numbers.into_iter().for_each(|number| self.follow(slot, number));
    }

    /// The epoch at which a target that does not take the slot was made one.
    pub(super) fn refused_since(&self) -> Option<u64> {
        self.targets.iter().filter(|target| target.stage == Stage::Refused).map(|target| target.view).min()
    }

    pub(super) fn detach(&mut self, number: NodeNumber) {
        self.targets.retain(|target| target.peer.number != number);
    }

    /// Begins to send the slot whole.
    pub(super) fn begin(&mut self, slot: u16, number: NodeNumber) {
        let position = self.position;
        let Some(target) = self.target(number) else { return };
        let mut record = Vec::with_capacity(64);
        Record::Begin { slot, view: target.view, position }.write(&mut record);
        if let Some(told) = target.push(&Shared::new(&mut record, 1)) {
            target.told = told;
            target.is_thinned = false;
            target.stage = Stage::Sending { cursor: SlotCursor::default() };
        }
    }

    /// Ends sending the slot whole.
    pub(super) fn end(&mut self, slot: u16, number: NodeNumber) {
        let position = self.position;
        let Some(target) = self.target(number) else { return };
        let mut record = Vec::with_capacity(64);
        Record::End { slot, position }.write(&mut record);
        if let Some(from) = target.push(&Shared::new(&mut record, 1)) {
            target.stage = Stage::Following { from };
            target.peer.will_be_complete(from, slot);
        }
    }

    /// Sends so many entries of a slot that is sent whole.
    pub(super) fn send_entries(&mut self, number: NodeNumber, entries: &mut Vec<u8>, count: u64) {
        if let Some(target) = self.target(number) {
            target.push(&Shared::new(entries, count));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: u16 = 7;

    /// A holder that is ahead refuses what it is told by an old state. When it says so, it has been told by the new one.
    #[test]
    fn a_refusal_is_of_what_was_told_then() {
        let (peer, mut log) = (Arc::new(Peer::new(NodeNumber(2))), SlotLog::default());
        log.attach(SLOT, &peer, true, 1);
        let first = peer.outbox.pushed();
        log.attach(SLOT, &peer, true, 2);
        let second = peer.outbox.pushed();
        let mut refuse = |record| {
            let target = log.target(peer.number).unwrap();
            target.refuse(record);
            target.stage
        };
        assert_eq!(refuse(first), Stage::Following { from: second });
        assert_eq!(refuse(second), Stage::Refused);
    }
}
