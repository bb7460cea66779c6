//! What may be changed, and what comes of it.

use serde::{Deserialize, Serialize};

use super::{Description, Incarnation, Position, SlotSet};
use crate::slots::NodeNumber;

/// What may be changed.
///
/// What is said about slots carries the epoch of the state by which it was said. A change may be proposed, believed lost and committed much
/// later; of slots that have gone on since, it is not true any more, and they are left alone. So whoever proposes looks at the state that
/// comes of it, and proposes again what it still finds undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// A process wants to be a member: a new one, or one that is known by its id. What an earlier life of it held is taken away.
    Join { description: Description, incarnation: Incarnation },
    /// The member's lease has surely ended.
    Down { number: NodeNumber, incarnation: Incarnation },
    /// The member has been down for so long that others are to take its place.
    Lose { number: NodeNumber },
    /// The member is about to end.
    Leave { number: NodeNumber, incarnation: Incarnation },
    /// All that the member holds is to go to others.
    Drain { number: NodeNumber },
    /// A drain is called off.
    Undrain { number: NodeNumber },
    /// The member is forgotten. It must hold nothing, or be down.
    Remove { number: NodeNumber },
    /// The member now holds whole copies of these slots; said by their owner.
    Synced { number: NodeNumber, incarnation: Incarnation, slots: SlotSet, epoch: u64 },
    /// `to`, a replica that has every effect, takes these slots over from `from`, which has ceased to serve them, and does so until a
    /// state tells that it was done or overtaken.
    HandOver { from: NodeNumber, to: NodeNumber, slots: SlotSet, epoch: u64 },
    /// How far the member's copies of slots without an owner have come.
    Report { number: NodeNumber, incarnation: Incarnation, positions: Vec<(u16, Position)>, epoch: u64 },
    /// The target is made anew, from who holds the slots now.
    Rebalance,
    /// The groups are replaced: those of version `over` (0: there were none), or whichever there are.
    SetGroups { text: String, over: Option<u64> },
    /// Nothing that was loaded for these groups so far is to be served any more, and this is to be remembered of feeds of changes, by their names.
    CallIn { groups: Vec<String>, memories: Vec<(String, String)> },
    /// Another node reads the feed of changes.
    SetKeeper { number: Option<NodeNumber> },
}

/// What came of a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Applied {
    /// It has had an effect, and this is the new epoch.
    Done { epoch: u64 },
    /// The process is a member now, or was already.
    Joined { number: NodeNumber, epoch: u64 },
    /// It was so already.
    Unchanged,
    /// Nothing has been changed.
    Refused(Refusal),
}

/// Why a change is not made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    #[error("there is no node {0}")]
    NoSuchNode(NodeNumber),
    #[error("node {0} has started anew since")]
    AnotherLife(NodeNumber),
    #[error("node {0} still holds slots: drain it first, or stop it")]
    HoldsSlots(NodeNumber),
    #[error("node {0} is the last one that could hold slots")]
    LastNode(NodeNumber),
    #[error("node {0} is up")]
    IsUp(NodeNumber),
    #[error("node {0} is not up")]
    IsNotUp(NodeNumber),
    #[error("the slots have changed hands since epoch {0}")]
    Overtaken(u64),
    #[error("the groups were replaced by somebody else meanwhile: they are of version {0} now")]
    OtherGroups(u64),
    #[error("{0}")]
    Other(String),
}
