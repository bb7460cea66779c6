//! The groups that the nodes agree on, at one node: taken over from the cluster's state, and what was loaded by others taken out.
//!
//! A node begins with the groups of its own configuration. As soon as its cluster has agreed on groups, those are used instead, here and
//! after every start: [`follow`] takes them before the roles of the same state, so that whatever a node serves in a state is served by the
//! groups of that state.
//!
//! **Invariant.** *Once a slot is suspect, no request of it is answered from an entry that was loaded by a definition (key, query, shape) which
//! is not its key's.* Every loaded entry carries the fingerprint of its definition. Groups are replaced as one value; then every slot becomes
//! *suspect*, under its shard's lock. Requests of a suspect slot first drop the entries of their keys that are not of the present
//! definition ([`look_through_keys`]); meanwhile the first worker goes through all of it ([`sweep`]), and a slot without such entries is
//! suspect no more. No load of a former definition is stored after that (`engine/flight.rs`). A slot that comes from another node is suspect,
//! too, for that node may have had other groups. So a request of a slot that is not suspect, which nearly all are nearly always, pays
//! nothing.
//!
//! The hot keys of a slot that becomes suspect are taken back from the nodes that hold copies of them ([`crate::hot`]). Nobody waits for that
//! here, so a copy may be served for a moment yet, 400 ms at most; nobody who has seen the new value is given it.
//!
//! What a client has written is not dropped for another definition, and an entry keeps the ttl that it was loaded with, however the group's has
//! changed. Where a group is called in since its rows have changed ([`crate::freshness`]), what clients have written for its keys by then goes as
//! well ([`called_in`]), as it does when a change names its key.

mod called_in;
mod desk;
mod follow;
mod sweep;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;
use forebay_origin::Fault;
use forebay_store::Keyspace;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::node::Node;

use called_in::CalledIn;
pub use desk::GroupsDesk;
pub use follow::{Follower, call_in_alone};
pub use sweep::{look_through, look_through_keys, may_be_former};

/// The longest text of groups that is agreed on, in bytes: it is in the Raft log and in every state.
pub const MAX_TEXT: usize = 1 << 20;

/// What a node knows of the groups that were agreed on.
#[derive(Default)]
pub struct Agreement {
    told: ArcSwap<Told>,
    /// Slots have become suspect.
    suspected: Notify,
    dropped: AtomicU64,
    /// How often what a group had loaded was called in, at a node that is alone.
    generations: Mutex<HashMap<String, u16>>,
    called_in: CalledIn,
}

/// What has become of the groups that were agreed on.
#[derive(Clone, Default)]
pub struct Told {
    /// The version that was looked at last; 0: the cluster has agreed on none.
    pub version: u64,
    /// What keeps this node from using it, or will keep loads from succeeding.
    pub faults: Vec<Fault>,
}

impl Agreement {
    pub fn told(&self) -> Arc<Told> {
        self.told.load_full()
    }

    /// Entries that were dropped since they had been loaded by a definition which is no more.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// One more generation of each of these.
    fn call_in(&self, groups: &BTreeSet<String>) -> HashMap<String, u16> {
        let mut generations = self.generations.lock();
        for group in groups {
            let generation = generations.entry(group.clone()).or_default();
            *generation = generation.wrapping_add(1);
        }
        generations.clone()
    }

    fn tell(&self, told: Told) {
        self.told.store(Arc::new(told));
    }
}

impl Told {
    /// What is wrong with a group.
    pub fn fault_of(&self, group: &str) -> Option<String> {
        let place = format!("group \"{group}\".");
        self.faults.iter().find(|fault| fault.place.starts_with(&place)).map(one_line)
    }
}

/// From now on the slot may hold what was loaded by others than its keys' groups. Called with its shard locked.
pub fn suspect(node: &Node, keyspace: &mut Keyspace<'_>, slot: u16) {
    if node.origin.is_some() {
        node.roles.suspect(keyspace, slot);
        if let Some(member) = node.member() {
            member.hot.grants.changed_slot(slot, None);
        }
        node.groups.suspected.notify_one();
    }
}

/// A fault for where a line end would end it.
pub fn one_line(fault: &Fault) -> String {
    fault.to_string().replace(['\r', '\n'], " ")
}
