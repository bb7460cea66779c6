//! From the state of the cluster to what each slot is to this node.

use std::collections::HashSet;
use std::sync::Arc;

use forebay_cluster::state::{ClusterState, Position, Slot};
use forebay_cluster::{NodeNumber, SLOT_COUNT};
use forebay_store::{Garbage, Keyspace};

use super::peer::Peer;
use super::slot_log::{Copy, Duty, SlotLog, Target};
use super::{Host, Replication};

impl Replication {
    /// Fits this node's part to a state of the cluster. `old` is the state that it was fitted to before. `changed` is told what becomes of each
    /// slot that has changed, under the lock of its shard: what it is to the node afterwards is decided together with what is told to
    /// whom.
    ///
    /// A slot that is not to be held here any more is emptied. To be called by one task, with each state once.
    pub fn reconcile(
        &self,
        host: &dyn Host,
        here: NodeNumber,
        old: Option<&ClusterState>,
        new: &ClusterState,
        changed: &mut dyn FnMut(&mut Keyspace<'_>, u16, Duty),
    ) {
        let mut garbage = Garbage::default();
        for slot in 0..SLOT_COUNT {
            let listed = new.slot(slot);
            if old.is_some_and(|old| old.slot(slot) == listed) && !self.is_to_be_offered_again(slot, new.epoch()) {
                continue;
            }
            let mut keyspace = host.store().lock(slot, host.now());
            self.fit(&mut keyspace, slot, here, listed, new.epoch());
            let duty = self.log(slot).lock().duty;
            changed(&mut keyspace, slot, duty);
            garbage = std::mem::take(keyspace.garbage());
            drop(keyspace);
            if garbage.is_heavy() {
                host.reclaim(std::mem::take(&mut garbage));
            }
        }
        drop(garbage);
        self.retire_peers();
        self.applied.send_replace(new.epoch());
    }

    /// The epoch of the last state that this node's part was fitted to.
    pub fn applied(&self) -> u64 {
        *self.applied.borrow()
    }

    /// Positions of slots, for a report of those without an owner. Read after the state that took the owner away has been reconciled, they do
    /// not change any more until there is a new one. The position of what was never complete is the default.
    pub fn positions(&self, slots: impl IntoIterator<Item = u16>) -> Vec<(u16, Position)> {
        slots.into_iter().map(|slot| (slot, self.log(slot).lock().position)).collect()
    }

    /// Whether a peer has refused the slot by another state than this one.
    fn is_to_be_offered_again(&self, slot: u16, epoch: u64) -> bool {
        self.log(slot).lock().refused_since().is_some_and(|view| view < epoch)
    }

    fn fit(&self, keyspace: &mut Keyspace<'_>, slot: u16, here: NodeNumber, listed: &Slot, epoch: u64) {
        let mut log = self.log(slot).lock();
        let holds = listed.replicas.contains(&here) || listed.syncing.contains(&here);
        if listed.owner == Some(here) {
            log.own(keyspace, slot, listed.owned_since);
            self.fit_targets(&mut log, slot, here, listed, epoch);
            let copies = !log.targets.is_empty();
            log.duty = Duty::Owner { since: listed.owned_since, copies };
        } else if holds {
            log.hold(listed);
        } else {
            keyspace.forget_slot(slot);
            *log = SlotLog::default();
        }
    }

    fn fit_targets(&self, log: &mut SlotLog, slot: u16, here: NodeNumber, listed: &Slot, epoch: u64) {
        let others = |numbers: &[NodeNumber], in_sync| {
            numbers.iter().filter(|number| **number != here).map(move |number| (*number, in_sync)).collect::<Vec<_>>()
        };
        let wanted = [others(&listed.replicas, true), others(&listed.syncing, false)].concat();
        log.targets.retain(|target| wanted.iter().any(|(number, _)| *number == target.peer.number));
        for (number, in_sync) in wanted {
            let is_refused = log.refused_since().is_some_and(|view| view < epoch);
            // Who is to be sent the slot since then holds nothing of it, whatever it held before: it has been another's, or its holder down,
            // in states that were not seen here.
            let is_anew = |target: &Target| !in_sync && target.is_of_before(listed.syncing_since);
            let is_to_be_told = |target: &Target| is_refused && target.has_refused() || is_anew(target);
            match log.target(number) {
                Some(target) if !is_to_be_told(target) => target.count(in_sync),
                Some(target) if is_anew(target) => {
                    // What was proposed of it before is not agreed on any more.
                    log.detach(number);
                    log.attach(slot, &self.peer_or_new(number), in_sync, epoch);
                }
                Some(_) | None => log.attach(slot, &self.peer_or_new(number), in_sync, epoch),
            }
        }
    }

    fn peer_or_new(&self, number: NodeNumber) -> Arc<Peer> {
        if let Some(peer) = self.peer(number) {
            return peer;
        }
        let peer = Arc::new(Peer::new(number));
        self.peers.write().insert(number, Arc::clone(&peer));
        self.peers_changed.send_modify(|changes| *changes += 1);
        peer
    }

    /// Ends the feeds to peers that hold nothing of this node any more.
    fn retire_peers(&self) {
        let mut wanted = HashSet::new();
        for slot in 0..SLOT_COUNT {
            wanted.extend(self.log(slot).lock().targets.iter().map(|target| target.peer.number));
        }
        let mut peers = self.peers.write();
        let before = peers.len();
        peers.retain(|number, peer| {
            let stays = wanted.contains(number);
            if !stays {
                peer.retire();
            }
            stays
        });
        if peers.len() != before {
            self.peers_changed.send_modify(|changes| *changes += 1);
        }
    }
}

impl SlotLog {
    /// The slot becomes this node's own, or stays so.
    fn own(&mut self, keyspace: &mut Keyspace<'_>, slot: u16, since: u64) {
        if matches!(self.duty, Duty::Owner { since: known, .. } if known == since) {
            return;
        }
        let held = self.position;
        if held == Position::default() {
            // There was no whole copy anywhere: what has come of one is worth nothing.
            keyspace.forget_slot(slot);
        }
        // The slot's effects are counted on from there, so that whoever is as far goes on, too. If some of it is newer, nobody is.
        let is_held_elsewhere = held != Position::default() && self.renewal.take().is_none();
        self.inherited = is_held_elsewhere.then_some(held.epoch);
        self.position = Position { epoch: since, sequence: held.sequence };
        self.targets.clear();
        self.copy = Copy::default();
        self.is_thinned = false;
    }

    /// The slot is another's, and this node holds a copy.
    fn hold(&mut self, listed: &Slot) {
        let duty = Duty::Holder { owner: listed.owner, since: listed.owned_since };
        if self.duty != duty {
            // Nothing is carried out any more of what a former owner sends.
            self.copy = Copy::default();
        }
        self.targets.clear();
        self.duty = duty;
    }
}
