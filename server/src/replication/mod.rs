//! Copies of slots on other nodes, and how they stay the same.
//!
//! The owner of a slot tells its other holders every change, in order, as an *effect* ([`effect`]). Under the lock of the slot's shard the
//! change is made, given the slot's next number ([`recording`]), and put into the outbox of each peer that holds the slot ([`outbox`]). So
//! all holders see the same changes in the same order, and two of them at the same [`Position`] hold the same.
//!
//! A peer is sent all of its slots by one *feed*, a pair of ordered streams ([`feed`]). When a peer becomes a holder, or a feed begins, the owner
//! says where each slot stands (`Follow`). A holder that is not there asks for the slot, which then comes whole, a few entries at a time, in
//! the same stream as the effects of that time ([`copying`]): an entry that changes in between is told as an effect, behind or before its
//! copy, and either order ends with what the owner has. A holder that has a copy already keeps it until then ([`renewal`]).
//!
//! A holder ([`holder`]) carries out what it is told by the node that it knows itself to be the slot's owner, and answers how many records it has
//! dealt with; before that, of which slots it has not: so an answer that covers a record says that the change is held ([`ack`]). A
//! deposed owner gets no such answer, since a holder knows the new one before it says how far it has come.
//!
//! What is not told: expiry, since deadlines are absolute and each holder removes what is late by itself; and what eviction takes out of a
//! copy, which it does only in need. A digest of each slot that is sent from time to time ([`audit`]) finds copies that differ for
//! whatever reason, and those come whole again.
//!
//! Locks are taken in this order: shard, [`SlotLog`], outbox or another part of a [`Peer`]. That of the grants of hot keys is taken under the
//! shard's or [`SlotLog`]'s, and no other under it.

pub mod ack;
mod audit;
mod copying;
pub mod effect;
mod feed;
mod frames;
mod holder;
mod outbox;
mod peer;
mod reconcile;
mod recording;
mod renewal;
mod slot_log;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use forebay_cluster::state::Position;
use forebay_cluster::{NodeNumber, SLOT_COUNT};
use forebay_resp::Args;
use forebay_store::{Garbage, Keyspace, Store, UnixMillis};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, mpsc, watch};

use crate::hot::Grants;

pub use ack::Recorded;
pub use feed::Opener;
pub use recording::Write;
pub use slot_log::Duty;

use peer::Peer;
use slot_log::SlotLog;

/// A node's part in keeping copies: of its own slots on others, and of others' slots here. Only a node of a cluster has one.
pub struct Replication {
    slots: Box<[Mutex<SlotLog>]>,
    peers: RwLock<HashMap<NodeNumber, Arc<Peer>>>,
    /// Rises when a peer comes or goes.
    peers_changed: watch::Sender<u64>,
    /// The epoch of the state that the slots' duties are of.
    applied: watch::Sender<u64>,
    /// A copy may have been completed.
    completed: Notify,
    last_feed: AtomicU64,
    /// The latest feed of each peer that has sent one here.
    heard: Mutex<HashMap<NodeNumber, Arc<AtomicU64>>>,
    /// Told of every change of an own key, for there may be copies of hot ones.
    grants: Arc<Grants>,
    counts: Counts,
}

/// What replication has done since the start.
#[derive(Debug, Default)]
pub struct Counts {
    /// Effects told to at least one peer.
    pub recorded: AtomicU64,
    /// Slots begun to be sent whole.
    pub slots_sent: AtomicU64,
    /// Entries of such slots.
    pub entries_sent: AtomicU64,
    /// Records carried out as a holder.
    pub carried_out: AtomicU64,
    /// Copies here that a digest, a size or a gap has shown to differ from their owners', and which were asked for anew.
    pub repaired: AtomicU64,
    /// Digests that agreed with the copy here, or came for one that eviction has thinned.
    pub compared: AtomicU64,
    /// How often a peer was too far behind and was cut off.
    pub cut_off: AtomicU64,
}

/// What replication needs of the node that it is part of.
pub trait Host: Send + Sync + 'static {
    /// Where the entries are.
    fn store(&self) -> &Store;

    fn now(&self) -> UnixMillis;

    /// Runs a command's handler on its keys, which are locked in `keyspace`, without replying, loading, counting or recording. The view's
    /// time is that of the owner's run.
    fn run(&self, keyspace: &mut Keyspace<'_>, db: u16, args: Args<'_>);

    /// Frees what is large, elsewhere.
    fn reclaim(&self, garbage: Garbage);
}

/// A raw, ordered pair of streams of frames to a peer. The drop of either end ends both.
pub struct Feed {
    pub outgoing: mpsc::Sender<Bytes>,
    pub incoming: mpsc::Receiver<Bytes>,
}

impl Replication {
    /// Of a node that has no slots yet.
    pub fn new(grants: Arc<Grants>) -> Replication {
        Replication {
            slots: (0..SLOT_COUNT).map(|_| Mutex::default()).collect(),
            peers: RwLock::default(),
            peers_changed: watch::Sender::new(0),
            applied: watch::Sender::new(0),
            completed: Notify::new(),
            last_feed: AtomicU64::new(slot_log::NO_FEED),
            heard: Mutex::default(),
            grants,
            counts: Counts::default(),
        }
    }

    /// What has been done.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// What the slot is to this node, and how far what it holds of it has come.
    pub fn standing(&self, slot: u16) -> (Duty, Position) {
        let log = self.log(slot).lock();
        (log.duty, log.position)
    }

    /// Whether what is held here of the slot was complete once. It stays so while it is sent anew.
    pub fn has_whole_copy(&self, slot: u16) -> bool {
        self.log(slot).lock().position != Position::default()
    }

    fn log(&self, slot: u16) -> &Mutex<SlotLog> {
        &self.slots[usize::from(slot)]
    }

    fn peer(&self, number: NodeNumber) -> Option<Arc<Peer>> {
        self.peers.read().get(&number).map(Arc::clone)
    }

    fn next_feed(&self) -> u64 {
        self.last_feed.fetch_add(1, Relaxed) + 1
    }
}

#[cfg(test)]
mod tests;
