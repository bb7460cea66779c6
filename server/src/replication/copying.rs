//! Slots that a peer has asked for are sent whole, a few entries at a time, in the stream of their effects.
//!
//! An entry that is changed while its slot is being sent is told as an effect as well. If the walk has been there, the effect comes behind the
//! copy; if not, the copy comes behind the effect and is of what the effect has left. An entry that a walk does not meet because it has
//! come or gone meanwhile is told by an effect alone.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use forebay_cluster::state::SlotSet;
use forebay_cluster::{NodeNumber, SLOT_COUNT};
use forebay_store::{Keyspace, SlotCursor};

use super::effect::{LENGTH, MAX_RECORD, Writer};
use super::peer::Peer;
use super::slot_log::{SlotLog, Stage};
use super::{Host, Replication};

/// Slots that are sent by turns, so that a large one does not hold up the others.
const AT_ONCE: usize = 4;

/// Entries and bytes sent under one lock; in tests fewer entries, so that effects come in between. One entry is sent whole, whatever
/// its size.
const ENTRIES: u64 = if cfg!(test) { 3 } else { 64 };
const BYTES: usize = 64 * 1024;

/// No more is put into an outbox with so many bytes: the peer, or the way there, is slower than we.
const ENOUGH: usize = 4 * 1024 * 1024;

/// The slots that are being sent to a peer.
pub(super) struct Copying<'p> {
    peer: &'p Arc<Peer>,
    slots: VecDeque<u16>,
    buffer: Vec<u8>,
}

impl<'p> Copying<'p> {
    pub(super) fn new(peer: &'p Arc<Peer>) -> Self {
        Copying { peer, slots: VecDeque::new(), buffer: Vec::new() }
    }

    /// Puts some entries into the outbox. Whether there is more to be sent as soon as there is room.
    pub(super) fn step(&mut self, replication: &Replication, host: &dyn Host) -> bool {
        if self.peer.outbox.queued() > ENOUGH {
            return true;
        }
        if self.slots.len() < AT_ONCE {
            self.slots.extend(self.peer.next_asked());
        }
        if let Some(slot) = self.slots.pop_front() {
            if self.send_some(replication, host, slot) {
                self.slots.push_back(slot);
            }
        }
        !self.slots.is_empty() || self.peer.has_asked()
    }

    /// Whether there is more of the slot to be sent.
    fn send_some(&mut self, replication: &Replication, host: &dyn Host, slot: u16) -> bool {
        let keyspace = host.store().lock(slot, host.now());
        let mut log = replication.log(slot).lock();
        let number = self.peer.number;
        if log.target(number).is_some_and(|target| target.stage == Stage::Asked) {
            replication.counts.slots_sent.fetch_add(1, Relaxed);
            log.begin(slot, number);
        }
        let Some(Stage::Sending { cursor }) = log.target(number).map(|target| target.stage) else {
            return false;
        };
        let (next, entries) = self.send_entries(&keyspace, &mut log, slot, cursor);
        replication.counts.entries_sent.fetch_add(entries, Relaxed);
        let Some(next) = next else {
            log.end(slot, number);
            return false;
        };
        if let Some(target) = log.target(number) {
            target.stage = Stage::Sending { cursor: next };
        }
        true
    }

    /// Sends from `cursor` on. Where to go on, and how many entries were sent.
    fn send_entries(
        &mut self,
        keyspace: &Keyspace<'_>,
        log: &mut SlotLog,
        slot: u16,
        cursor: SlotCursor,
    ) -> (Option<SlotCursor>, u64) {
        let (buffer, mut entries) = (&mut self.buffer, 0);
        buffer.clear();
        let next = keyspace.visit_slot(slot, cursor, &mut |stored| {
            let before = buffer.len();
            Writer::entry(buffer, slot, (stored.db(), stored.key()), |out| stored.encode(out));
            match buffer.len() - before > LENGTH + MAX_RECORD {
                true => buffer.truncate(before),
                false => entries += 1,
            }
            entries < ENTRIES && buffer.len() < BYTES
        });
        if entries > 0 {
            log.send_entries(self.peer.number, buffer, entries);
        }
        (next, entries)
    }
}

impl Replication {
    /// Waits until a copy may have been completed that the cluster does not count among the replicas yet.
    pub async fn completion(&self) {
        self.completed.notified().await;
    }

    /// The slots of this node that peers hold whole, and that the cluster still lists as syncing: to be proposed as `Synced`, and again for as
    /// long as they are told here. From then on they must hold what replicas must hold: it may be agreed on before that is known here, and then
    /// such a copy's holder may be who comes after this node.
    pub fn complete(&self) -> Vec<(NodeNumber, SlotSet)> {
        let mut complete: Vec<(NodeNumber, SlotSet)> = Vec::new();
        for slot in 0..SLOT_COUNT {
            let mut log = self.log(slot).lock();
            for target in log.targets.iter_mut().filter(|target| !target.in_sync && target.has_dealt_with(0)) {
                target.is_proposed = true;
                let number = target.peer.number;
                match complete.iter_mut().find(|(known, _)| *known == number) {
                    Some((_, slots)) => slots.insert(slot),
                    None => {
                        let mut slots = SlotSet::new();
                        let inserted = slots.insert(slot);
                        complete.push((number, slots));
                        inserted
                    }
                };
            }
        }
        complete
    }

    pub(super) fn is_newly_complete(&self, slot: u16, number: NodeNumber) -> bool {
        self.log(slot).lock().target(number).is_some_and(|target| !target.in_sync && target.has_dealt_with(0))
    }
}
