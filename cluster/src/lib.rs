//! Who owns what: the pure part of the cluster.
//!
//! A key hashes to one of 16384 slots ([`slot`]); a [`topology::Topology`] says which node owns each slot at an epoch. Nothing here
//! knows what a value or a command is.

pub mod assignment;
pub mod ring;
pub mod slot;
pub mod slots;
pub mod topology;

pub use assignment::{Seat, assign};
pub use forebay_proto::PEER_PROTOCOL;
pub use slot::{SLOT_COUNT, slot_of};
pub use slots::{Holders, NodeNumber, SlotTable};
pub use topology::{Node, NodeId, Topology};
