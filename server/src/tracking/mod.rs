//! Client tracking: a client that keeps what it has read is told when that is not true any more.
//!
//! A connection that has said CLIENT TRACKING ON is remembered under each key that it reads ([`Interests`]); whatever changes the key takes that
//! away and puts an `invalidate` into the connection's [`Mailbox`](mailbox::Mailbox), which the connection empties between its replies. With BCAST the
//! connection names prefixes instead, and is told of every key. The names, the words and the order are Redis'.
//!
//! # Nobody keeps for ever what is old
//!
//! **Invariant.** *Behind each reply to a tracked read stands, in the same connection, an `invalidate` for its keys as soon as what it said may not be
//! so any more.* That is so because
//!
//! 1. *Interest and value are of one moment.* At the owner, interest is entered under the lock of the key's shard, at the end of the very run that
//!    has read the value ([`Engine::remember`](crate::engine::Engine)); the store tells of each change under that lock ([`Watcher`]). A run that is
//!    discarded, since a key is to be loaded first, enters nothing: the fill that comes then is not a change of what anybody has read. What
//!    is lent to one run and not kept is taken out behind it, which is told like any change: nobody would tell of the next one.
//! 2. *What is told during a request is written behind its reply.* A mailbox is emptied only while nothing that its connection has asked is on its way
//!    ([`write_pushes`]); so what is told between the reading of a value elsewhere and its reply comes behind that reply.
//! 3. *Who asks another node is interested before it asks.* The node that a client is connected to enters the interest in its own table, and sends the
//!    request with the *token* by which it listens to the owner ([`hearing`]). The owner enters that node's interest as in 1, and puts what it has
//!    to tell into the queue of that token ([`subscribers`]). Without a token, the client is told of the key at once.
//! 4. *A token that has ended is noticed by who listens.* Tokens are never used again. Whenever a question for news is not answered with news (the
//!    owner died, forgot the token, does not answer in time; this node has lost touch with the cluster), the listener drops the token and tells its clients of
//!    all keys whose slots that owner has, in this order; the reader of 3 enters its interest and then looks for the token, so one of the two sees the other.
//!    A read that the owner has answered without knowing the token is among them, since its interest had been entered before.
//! 5. *A slot that changes hands is told of.* With each topology, all keys are told of whose slots have another owner than before
//!    ([`Tracking::moved`]). A former owner serves a slot no more when there is such a topology.
//! 6. *What is forgotten is told of.* A full table (`tracking-table-max-keys`) tells of a key that it drops; a full mailbox becomes one `invalidate` of
//!    everything; a full queue ends its token, see 4.
//!
//! Who uses BCAST is told of everything where others are told of some keys because news may have been lost, and once more when it is heard from the owner again.
//!
//! Locks are taken in this order: shard, a part of [`Interests`] or the table of subscribers, the terms of a client, a mailbox or queue. None is taken under one of
//! the last two.
//!
//! Without any tracking client anywhere, a change costs a look at one flag ([`Store::is_watched`](forebay_store::Store::is_watched)), and a read one
//! at whether its session tracks.

mod broadcast;
pub mod hearing;
mod interest;
pub mod mailbox;
pub mod message;
pub mod subscribers;
pub mod terms;

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use forebay_cluster::{SLOT_COUNT, Topology};
use forebay_store::Watcher;
use parking_lot::{Mutex, RwLock};

use crate::clients::{Client, ClientId};
use crate::node::Node;
use broadcast::Prefixes;
use hearing::Hearing;
use interest::{Interested, Interests};
use mailbox::Push;
pub use mailbox::write_pushes;
use subscribers::Subscribers;
pub use terms::{Mode, Terms, Tracks};

/// Who is interested in a key: a connection of this node, or another node for connections of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Who(u64);

const OF_NODES: u64 = 1 << 63;

impl Who {
    pub fn client(id: ClientId) -> Who {
        Who(id)
    }

    pub(crate) fn node(number: u64) -> Who {
        Who(number | OF_NODES)
    }

    fn as_node(self) -> Option<u64> {
        (self.0 & OF_NODES != 0).then_some(self.0 & !OF_NODES)
    }
}

/// Who makes the changes of the run in work and does not want to be told of them (NOLOOP).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writer {
    pub who: Who,
    /// The connection; of another node, as that numbers it.
    pub client: ClientId,
}

thread_local! {
    static WRITER: Cell<Option<Writer>> = const { Cell::new(None) };
}

/// Makes the changes of this thread somebody's until it is dropped.
pub struct Writing(());

impl Writing {
    pub fn by(writer: Writer) -> Writing {
        WRITER.set(Some(writer));
        Writing(())
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        WRITER.set(None);
    }
}

/// A node's part in client tracking.
#[derive(Default)]
pub struct Tracking {
    interests: Interests,
    /// Of the connections of this node.
    prefixes: RwLock<Prefixes>,
    has_prefixes: AtomicBool,
    /// Connections that track.
    clients: AtomicUsize,
    /// A copy of another node's slot has been read here by who tracks (READONLY): changes of copies are told of, too.
    reads_copies: AtomicBool,
    pub subscribers: Subscribers,
    pub hearing: Hearing,
    /// Held to decide whether the store is watched.
    switch: Mutex<()>,
}

/// The store's watcher.
struct NodeWatcher(Weak<Node>);

impl Watcher for NodeWatcher {
    fn changed(&self, slot: u16, key: &[u8]) {
        if let Some(node) = self.0.upgrade() {
            node.tracking.changed(&node, slot, key);
        }
    }

    fn cleared(&self, slot: u16) {
        if let Some(node) = self.0.upgrade() {
            let taken = node.tracking.interests.take_slot(slot);
            node.tracking.tell_taken(&node, taken);
        }
    }
}

/// Has the node's store tell of changes as soon as somebody tracks.
pub fn watch(node: &Arc<Node>) {
    node.store.watch_by(Box::new(NodeWatcher(Arc::downgrade(node))));
}

impl Tracking {
    // ---- who tracks ----

    /// A connection tracks from now on, or by other terms.
    pub fn begin(&self, node: &Node, client: &Client, terms: Terms) {
        let mut held = client.tracking.lock();
        if terms.is_broadcasting {
            let mut prefixes = self.prefixes.write();
            terms.prefixes.iter().for_each(|prefix| prefixes.add(prefix, client.id));
            self.has_prefixes.store(true, Relaxed);
            drop(prefixes);
            self.hearing.want_more();
        }
        if held.replace(Box::new(terms)).is_none() && self.clients.fetch_add(1, Relaxed) == 0 {
            self.hearing.want_more();
        }
        drop(held);
        self.decide(node);
    }

    /// A connection does not track any more, or has ended. What is entered for it is found to be nobody's when it is told of.
    pub fn end(&self, node: &Node, client: &Client) {
        let Some(terms) = client.tracking.lock().take() else { return };
        if terms.is_broadcasting {
            let mut prefixes = self.prefixes.write();
            prefixes.remove(client.id);
            self.has_prefixes.store(!prefixes.is_empty(), Relaxed);
        }
        self.clients.fetch_sub(1, Relaxed);
        self.decide(node);
    }

    /// Has the store tell of changes if somebody wants to know of them.
    pub(crate) fn decide(&self, node: &Node) {
        let _one_at_a_time = self.switch.lock();
        let is_wanted = self.has_clients() || !self.subscribers.is_empty();
        node.store.set_watched(is_wanted);
        if !is_wanted {
            self.interests.clear();
            self.reads_copies.store(false, Relaxed);
        }
    }

    pub fn has_clients(&self) -> bool {
        self.clients.load(Relaxed) > 0
    }

    /// How many connections track.
    pub fn clients(&self) -> usize {
        self.clients.load(Relaxed)
    }

    /// In how many keys somebody is interested.
    pub fn keys(&self) -> usize {
        self.interests.keys()
    }

    /// How many are interested in a key, of all keys.
    pub fn items(&self) -> usize {
        self.interests.items()
    }

    /// How many prefixes connections of this node have named.
    pub fn prefixes(&self) -> usize {
        self.prefixes.read().len()
    }

    fn named_prefixes(&self) -> Vec<Bytes> {
        self.prefixes.read().names()
    }

    // ---- reads ----

    /// Somebody has read the key. To be called under the lock of its shard, under which it was read.
    pub fn remember(&self, node: &Node, slot: u16, key: &[u8], who: Who) {
        if !node.roles.get(slot).owns() {
            self.reads_copies.store(true, Relaxed);
        }
        self.enter(node, slot, key, who);
    }

    /// A connection of this node is about to ask the key's owner for it.
    pub fn remember_elsewhere(&self, node: &Node, slot: u16, key: &[u8], who: Who, owner: Option<&str>) {
        self.enter(node, slot, key, who);
        let is_heard = owner.is_some_and(|owner| self.hearing.token(owner).is_some());
        if !is_heard {
            // Nobody would tell of it.
            let key = Bytes::copy_from_slice(key);
            self.interests.take(slot, &key).into_iter().for_each(|who| self.tell_one(node, who, &key, None));
        }
    }

    fn enter(&self, node: &Node, slot: u16, key: &[u8], who: Who) {
        self.interests.enter(slot, key, who);
        let limit = node.settings.tracking_table_max_keys.load(Relaxed);
        while let Some((key, interested)) = self.interests.take_surplus(limit) {
            interested.into_iter().for_each(|who| self.tell_one(node, who, &key, None));
        }
    }

    // ---- changes ----

    /// The key is not what it was. Called under the lock of its shard.
    fn changed(&self, node: &Node, slot: u16, key: &[u8]) {
        let is_own = node.roles.get(slot).owns();
        if !is_own && !self.reads_copies.load(Relaxed) {
            return;
        }
        let writer = WRITER.get();
        let interested = self.interests.take(slot, key);
        let is_broadcast = is_own && (self.has_prefixes.load(Relaxed) || self.subscribers.have_prefixes());
        if interested.is_empty() && !is_broadcast {
            return;
        }
        let key = Bytes::copy_from_slice(key);
        interested.into_iter().for_each(|who| self.tell_one(node, who, &key, writer));
        if is_broadcast {
            self.broadcast(node, &key, writer);
            self.subscribers.broadcast(&key, writer);
        }
    }

    /// Databases were emptied or exchanged: all who track are told so, whatever they have read. To be called when it is done.
    pub fn flushed(&self, node: &Node) {
        if node.store.is_watched() {
            self.interests.clear();
            self.tell_everything(node, |_| true);
            self.subscribers.flushed();
        }
    }

    /// There is another topology than `before`: what others own by now is not told of by who has owned it. To be called when it is in force.
    pub fn moved(&self, node: &Node, before: &Topology) {
        if !node.store.is_watched() {
            return;
        }
        let now = node.topology.load();
        let owner = |topology: &Topology, slot| topology.owner_of(slot).map(|owner| owner.number);
        let moved: Vec<bool> = (0..SLOT_COUNT).map(|slot| owner(before, slot) != owner(&now, slot)).collect();
        if moved.contains(&true) {
            self.tell_slots(node, |slot| moved[usize::from(slot)]);
        }
    }

    /// What the owner at that address has told since it was heard last may be lost.
    fn lost(&self, node: &Node, owner: &str) {
        let topology = node.topology.load();
        let is_theirs = |slot| topology.owner_of(slot).is_none_or(|node| node.peer_address == owner);
        self.tell_slots(node, is_theirs);
        self.tell_everything(node, |terms| terms.is_broadcasting);
    }

    /// Tells of all keys of slots in which somebody is interested.
    fn tell_slots(&self, node: &Node, are_meant: impl Fn(u16) -> bool) {
        self.tell_taken(node, self.interests.take_slots(are_meant));
    }

    fn tell_taken(&self, node: &Node, taken: Vec<(Bytes, Interested)>) {
        for (key, interested) in taken {
            interested.into_iter().for_each(|who| self.tell_one(node, who, &key, None));
        }
    }

    fn tell_one(&self, node: &Node, who: Who, key: &Bytes, writer: Option<Writer>) {
        if let Some(number) = who.as_node() {
            return self.subscribers.tell(number, key, writer);
        }
        if writer.is_some_and(|writer| writer.who == who) {
            return;
        }
        if let Some(client) = node.clients.get(who.0) {
            deliver(node, &client, |is_redirected| Push::Key { key: key.clone(), is_redirected });
        }
    }

    /// Tells the connections of this node that have named a prefix of the key.
    fn broadcast(&self, node: &Node, key: &Bytes, writer: Option<Writer>) {
        let named = self.prefixes.read().of(key);
        for (prefix, id) in named {
            if writer.is_some_and(|writer| writer.who == Who::client(id)) {
                continue;
            }
            if let Some(client) = node.clients.get(id) {
                let key = key.clone();
                deliver(node, &client, |is_redirected| Push::OfPrefix { prefix, key, is_redirected });
            }
        }
    }

    /// Tells connections that whatever they keep may be old.
    fn tell_everything(&self, node: &Node, are_meant: impl Fn(&Terms) -> bool) {
        for client in node.clients.all() {
            let is_meant = client.tracking.lock().as_ref().is_some_and(|terms| are_meant(terms));
            if is_meant {
                deliver(node, &client, |is_redirected| Push::Everything { is_redirected });
            }
        }
    }
}

/// Puts something into the mailbox of a connection that tracks, or into that of the one that it has named.
fn deliver(node: &Node, client: &Client, push: impl FnOnce(bool) -> Push) {
    let mut held = client.tracking.lock();
    let Some(terms) = held.as_mut() else { return };
    match terms.redirect {
        0 => client.hear(push(false)),
        other => match node.clients.get(other) {
            Some(target) => target.hear(push(true)),
            None => {
                terms.is_broken = true;
                client.hear(Push::Broken(other));
            }
        },
    }
}
