//! Who owns what, agreed on by Raft, and talking to other nodes. Pure are [`slot`], [`ring`], [`assignment`], [`state`] and [`topology`].
//!
//! A key hashes to one of 16384 slots ([`slot`]); a [`topology::Topology`] says which node owns each slot at an epoch, as of the
//! [`state::ClusterState`] that the nodes agree on by [`membership`]. Nothing here knows what a value or a command is.

pub mod assignment;
pub mod discovery;
pub mod door;
pub mod membership;
pub mod peer;
mod refusal;
pub mod ring;
pub mod slot;
pub mod slots;
pub mod state;
pub mod tls;
pub mod topology;

pub use assignment::{Seat, assign};
pub use forebay_proto::PEER_PROTOCOL;
pub use slot::{SLOT_COUNT, slot_of};
pub use slots::{Holders, MAX_COPIES, NodeNumber, SlotTable};
pub use state::{
    Applied, Change, ClusterId, ClusterState, Description, Incarnation, Member, Position, Refusal, Slot, SlotSet,
    Standing,
};
pub use tls::{PeerTls, PeerTlsError, PeerTlsFiles};
pub use topology::{Node, NodeId, Topology};
