//! What a node would serve for a key, and what is known of where that came from.

use std::time::{Duration, Instant};

use forebay_origin::Xid;
use forebay_store::{DigestLimits, Keyspace, Presence};

use crate::hot::CopiesAge;
use crate::node::Node;
use crate::roles::Role;

/// What is larger is not compared: all of it is gone through under a lock.
const COMPARED: DigestLimits = DigestLimits { items: 4096, bytes: 256 * 1024 };

/// What ends so soon is not compared either, in milliseconds: two nodes' clocks do not end it at the same time.
const ENDS_SOON: i64 = 1000;

/// What a node has of a key. Times that are told as "ago" are by the clock of who tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sight {
    pub(super) standing: Standing,
    /// `None`: nothing that would be served.
    pub(super) entry: Option<Held>,
    /// Of an owner: when it took in that transaction, if no other has changed the key since.
    pub(super) changed: Option<Taken>,
    /// Answers that are kept here for another node's key.
    pub(super) copies: Option<CopiesAge>,
}

/// What a node is to a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Standing {
    #[default]
    Neither = 0,
    Owner = 1,
    Replica = 2,
}

/// An entry, its known absence included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// Whether the load that it came by could see the transaction; `None` if that is not known here.
    pub(super) sees: Option<bool>,
    /// The same on all nodes that hold the same, if they can be compared.
    pub(super) identity: Option<u64>,
    /// When it was loaded, in milliseconds of Unix' time by its owner's clock.
    pub(super) filled_at: Option<i64>,
    /// How long ago it was loaded, by the same clock as [`Taken::ago`].
    pub(super) loaded_ago: Option<Duration>,
}

/// When an owner took a change in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) ago: Duration,
    /// In milliseconds of Unix' time.
    pub(super) at: i64,
}

impl Sight {
    /// What this node has of a key of database 0.
    pub(super) fn of(node: &Node, key: &[u8], xid: Xid) -> Sight {
        let slot = forebay_cluster::slot_of(key);
        let copies = node.member().and_then(|member| member.hot.copies.age_of(0, key));
        let mut keyspace = node.store.lock(slot, node.clock.unix_millis());
        let standing = match node.roles.get(slot) {
            Role::Owned | Role::Shared if node.has_lease() => Standing::Owner,
            Role::Replica => Standing::Replica,
            _ => return Sight { copies, ..Sight::default() },
        };
        let entry = held(node, &mut keyspace, (slot, key), (standing, xid));
        let changed = taken(node, &keyspace, (slot, key), xid).filter(|_| standing == Standing::Owner);
        Sight { standing, entry, changed, copies }
    }
}

fn held(
    node: &Node,
    keyspace: &mut Keyspace<'_>,
    (slot, name): (u16, &[u8]),
    (standing, xid): (Standing, Xid),
) -> Option<Held> {
    let key = node.store.key(0, slot, name);
    let is_served = keyspace.presence(&key) != Presence::Missing
        // What is pending is newer than what the database has.
        && !node.writes.behind.is_pending(keyspace, &key)
        && !is_former(node, name, keyspace.filled_by(&key));
    if !is_served {
        return None;
    }
    let now = keyspace.now();
    let stamp = keyspace.stamp(&key, COMPARED);
    let ends_soon = stamp.deadline.is_some_and(|deadline| deadline - now < ENDS_SOON);
    let mut held =
        Held { identity: stamp.digest.filter(|_| !ends_soon), filled_at: stamp.filled_at, ..Held::default() };
    // Only who has loaded it knows by which snapshot, and only of what was not written over.
    if let (Standing::Owner, Some(_)) = (standing, stamp.filled_at) {
        if let Some((snapshot, loaded)) = node.freshness.memory.load_of_entry(slot, name) {
            held.sees = Some(snapshot.sees(xid));
            held.loaded_ago = Some(loaded.elapsed());
        }
    }
    Some(held)
}

/// Whether it was loaded by a definition that is not its key's any more: then nobody is given it.
fn is_former(node: &Node, key: &[u8], filled_by: Option<u16>) -> bool {
    let Some(origin) = &node.origin else { return false };
    filled_by.is_some_and(|by| origin.groups().rules_of(key).is_none_or(|rules| rules.definition != by))
}

fn taken(node: &Node, keyspace: &Keyspace<'_>, (slot, key): (u16, &[u8]), xid: Xid) -> Option<Taken> {
    let (xids, ago) = node.freshness.memory.recall(slot, key, Instant::now()).changed?;
    (xids.last() == Some(&xid)).then(|| Taken { ago, at: keyspace.now() - ago.as_millis() as i64 })
}
