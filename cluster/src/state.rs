//! The value that Raft agrees on: who the members are, who holds each slot, and where the slots are to go.
//!
//! It changes by [`Change`]s alone, each of which the Raft log gives to every node in the same order; [`ClusterState::apply`] is a pure
//! function of both, so that all nodes come to the same state. Every change that has an effect raises the epoch by one.
//!
//! `target` is where the slots are to be, by [`crate::assign`] of the members that have a seat. Who holds them follows step by step: who is
//! to hold a slot is listed as syncing, is sent a copy, becomes a replica, and may then be handed the slot by its owner.

mod apply;
mod called_in;
mod change;
mod moves;
mod settle;
mod shared;
mod slot_set;
mod succession;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};

use crate::slots::{MAX_COPIES, NodeNumber, PerSlot, SlotTable};
use crate::topology::{NodeId, address};

pub use apply::MAX_WEIGHT;
pub use called_in::CalledIn;
pub use change::{Applied, Change, Refusal};
pub use slot_set::SlotSet;

/// Which cluster this is: given when it is formed, so that nodes of another cluster are told apart. Shown as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub [u8; 16]);

/// A text is not a [`ClusterId`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a cluster's id: it takes 32 hexadecimal digits")]
pub struct InvalidClusterId(String);

/// A process's life as a member: drawn at random when it starts. What another life of the same node held is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

/// How far a holder of a slot has come: the epoch at which the slot's owner took it, and how many effects it has had since the slot
/// began. Two holders at the same position hold the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    pub epoch: u64,
    pub sequence: u64,
}

/// What a node says of itself when it joins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    pub id: NodeId,
    /// Host name or address that clients and peers are told.
    pub host: String,
    pub open_port: u16,
    /// 0 if that door is closed, as with all further ones.
    pub direct_port: u16,
    pub http_port: u16,
    pub peer_port: u16,
    pub raft_port: u16,
    /// Availability zone, where known.
    pub zone: Option<String>,
    /// Its capacity beside the others', in thousandths.
    pub weight: u32,
    /// Forebay's.
    pub version: String,
}

/// How a member stands to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// It serves.
    Up,
    /// It is about to end in order: what it owns goes to others, its seat stays.
    Leaving,
    /// Its lease has ended. Its seat stays, so that a restart moves nothing.
    Down,
    /// It has been down for so long that its seat was given away.
    Lost,
    /// All that it holds goes to others.
    Draining,
    /// It holds nothing any more, and may be removed. It may have ended as well.
    Drained,
}

/// One node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub number: NodeNumber,
    pub incarnation: Incarnation,
    pub description: Description,
    pub standing: Standing,
    /// The epoch at which it came to stand so.
    pub since_epoch: u64,
}

/// Who holds a slot. Nobody is named twice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Who serves it; nobody for a short while after its owner went down.
    pub owner: Option<NodeNumber>,
    /// The epoch at which the owner took it or, without an owner, at which the last one was taken away.
    pub owned_since: u64,
    /// Who holds a whole copy, and is sent every effect.
    pub replicas: ArrayVec<NodeNumber, MAX_COPIES>,
    /// Who is being sent a copy.
    pub syncing: ArrayVec<NodeNumber, MAX_COPIES>,
    /// The epoch at which somebody was last listed as syncing.
    pub syncing_since: u64,
}

/// The groups that were applied at run time, in their file's notation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupsText {
    /// Rises by one each time.
    pub version: u64,
    pub text: String,
}

/// What is known of the cluster. A clone shares the slots with its original until one of them changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterState {
    cluster: ClusterId,
    epoch: u64,
    copies: u8,
    /// The highest number that was ever given.
    last_number: u32,
    members: BTreeMap<NodeNumber, Member>,
    #[serde(with = "shared")]
    slots: Arc<PerSlot<Slot>>,
    #[serde(with = "shared")]
    target: Arc<SlotTable>,
    /// What has been reported of slots without an owner.
    reports: BTreeMap<u16, Vec<(NodeNumber, Position)>>,
    groups: Option<GroupsText>,
    #[serde(with = "shared")]
    called_in: Arc<CalledIn>,
    keeper: Option<NodeNumber>,
}

impl ClusterState {
    /// A cluster without members, with so many copies of each slot as soon as there are as many nodes: from 1 to [`MAX_COPIES`].
    pub fn new(cluster: ClusterId, copies: u8) -> ClusterState {
        ClusterState {
            cluster,
            epoch: 0,
            copies: copies.clamp(1, MAX_COPIES as u8),
            last_number: 0,
            members: BTreeMap::new(),
            slots: Arc::new(PerSlot::all(Slot::default())),
            target: Arc::new(SlotTable::vacant()),
            reports: BTreeMap::new(),
            groups: None,
            called_in: Arc::default(),
            keeper: None,
        }
    }

    /// The version, which rises by one with every change. 0: there is no cluster yet.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Which cluster it is of.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// How many copies of each slot there are to be, the owner's included.
    pub fn copies(&self) -> usize {
        usize::from(self.copies)
    }

    /// All members, by their numbers.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// The member of that number.
    pub fn member(&self, number: NodeNumber) -> Option<&Member> {
        self.members.get(&number)
    }

    /// The member of that identity.
    pub fn member_by_id(&self, id: &NodeId) -> Option<&Member> {
        self.members().find(|member| member.description.id == *id)
    }

    /// # Panics
    /// When `slot` is not below [`crate::SLOT_COUNT`].
    pub fn slot(&self, slot: u16) -> &Slot {
        self.slots.get(slot)
    }

    /// Every slot in order.
    pub fn slots(&self) -> impl Iterator<Item = (u16, &Slot)> {
        self.slots.iter()
    }

    /// Where the slots are to be.
    pub fn target(&self) -> &SlotTable {
        &self.target
    }

    /// The slots that nobody serves.
    pub fn orphaned(&self) -> impl Iterator<Item = u16> {
        self.slots().filter(|(_, slot)| slot.owner.is_none()).map(|(number, _)| number)
    }

    /// Whether the member has told how far its copy of a slot without an owner has come.
    pub fn has_reported(&self, slot: u16, number: NodeNumber) -> bool {
        self.reports.get(&slot).is_some_and(|reports| reports.iter().any(|(reporter, _)| *reporter == number))
    }

    /// The groups, if they were ever replaced at run time.
    pub fn groups(&self) -> Option<&GroupsText> {
        self.groups.as_ref()
    }

    /// Which groups' entries were called in, and how often.
    pub fn called_in(&self) -> &CalledIn {
        &self.called_in
    }

    /// Who reads the feed of changes.
    pub fn keeper(&self) -> Option<NodeNumber> {
        self.keeper
    }

    fn is_up(&self, number: NodeNumber) -> bool {
        self.member(number).is_some_and(|member| member.standing == Standing::Up)
    }
}

impl Description {
    /// Its peer port, as `host:port`.
    pub fn peer_address(&self) -> String {
        address(&self.host, self.peer_port)
    }

    /// Its raft port, as `host:port`.
    pub fn raft_address(&self) -> String {
        address(&self.host, self.raft_port)
    }
}

impl Member {
    /// Whether slots may be meant for it: a member that is down keeps its seat for a while.
    pub fn has_seat(&self) -> bool {
        self.description.weight > 0 && matches!(self.standing, Standing::Up | Standing::Leaving | Standing::Down)
    }

    /// Whether it is there, as far as the cluster knows, and so may hold slots.
    pub fn may_hold(&self) -> bool {
        matches!(self.standing, Standing::Up | Standing::Leaving | Standing::Draining)
    }
}

impl Slot {
    /// Whether the node is its owner, a replica, or syncing.
    pub fn is_held_by(&self, number: NodeNumber) -> bool {
        self.holders().any(|holder| holder == number) || self.syncing.contains(&number)
    }

    /// Who has a whole copy: the owner first, if there is one.
    pub fn holders(&self) -> impl Iterator<Item = NodeNumber> {
        self.owner.into_iter().chain(self.replicas.iter().copied())
    }
}

impl ClusterId {
    /// Reads an id as it is shown.
    ///
    /// # Errors
    /// When `text` is not 32 hexadecimal digits.
    pub fn parse(text: &str) -> Result<ClusterId, InvalidClusterId> {
        let is_valid = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = is_valid.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        number.map(|number| ClusterId(number.to_be_bytes())).ok_or_else(|| InvalidClusterId(text.to_owned()))
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterId({self})")
    }
}

#[cfg(test)]
mod tests;
