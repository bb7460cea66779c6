//! The immutable picture of the cluster that every request is routed by.

use std::fmt;
use std::sync::Arc;

use crate::slot::SLOT_COUNT;

/// A node's identity, 40 lowercase hexadecimal digits as `CLUSTER NODES` shows them. It outlives restarts and addresses.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(Arc<str>);

/// Digits of a [`NodeId`] (Redis' `CLUSTER_NAMELEN`).
pub const NODE_ID_DIGITS: usize = 40;

/// Why a text is not a [`NodeId`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidNodeId(String);

/// One member of the cluster, as clients and peers reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub id: NodeId,
    /// Host name or address that clients and peers are told.
    pub host: String,
    pub open_port: u16,
    pub direct_port: u16,
    pub peer_port: u16,
    /// Availability zone, where known.
    pub zone: Option<String>,
}

/// Members and slot owners at one epoch. Immutable: a change is a new value with the next epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    epoch: u64,
    nodes: Vec<Node>,
    /// For each slot, the owner's index in `nodes`.
    owners: Box<[u16]>,
    /// This node's index in `nodes`.
    here: u16,
}

impl Topology {
    /// The topology of a node that is alone: it owns every slot.
    pub fn solo(node: Node) -> Topology {
        Topology { epoch: 1, nodes: vec![node], owners: vec![0; usize::from(SLOT_COUNT)].into(), here: 0 }
    }

    /// The version, which rises by one with every change.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// All members, in a stable order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node that this process is.
    pub fn here(&self) -> &Node {
        &self.nodes[usize::from(self.here)]
    }

    /// The node responsible for `slot`.
    ///
    /// # Panics
    /// When `slot` is not below [`SLOT_COUNT`].
    pub fn owner(&self, slot: u16) -> &Node {
        &self.nodes[usize::from(self.owners[usize::from(slot)])]
    }

    /// Whether this process owns `slot`.
    #[inline]
    pub fn is_here(&self, slot: u16) -> bool {
        self.owners[usize::from(slot)] == self.here
    }
}

impl NodeId {
    /// Reads an identity.
    ///
    /// # Errors
    /// When `text` is not 40 lowercase hexadecimal digits.
    pub fn parse(text: &str) -> Result<NodeId, InvalidNodeId> {
        let valid = text.len() == NODE_ID_DIGITS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        match valid {
            true => Ok(NodeId(text.into())),
            false => Err(InvalidNodeId(text.to_owned())),
        }
    }

    /// An identity from 20 random bytes.
    pub fn from_bytes(bytes: [u8; NODE_ID_DIGITS / 2]) -> NodeId {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        NodeId(digits.into())
    }

    /// The 40 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({})", self.0)
    }
}

impl fmt::Display for InvalidNodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a node id: it takes {NODE_ID_DIGITS} lowercase hexadecimal digits", self.0)
    }
}

impl std::error::Error for InvalidNodeId {}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Node {
        Node {
            id: NodeId::from_bytes([7; 20]),
            host: "127.0.0.1".to_owned(),
            open_port: 6379,
            direct_port: 6380,
            peer_port: 8001,
            zone: None,
        }
    }

    #[test]
    fn a_lone_node_owns_every_slot() {
        let topology = Topology::solo(node());
        assert!((0..SLOT_COUNT).all(|slot| topology.is_here(slot) && topology.owner(slot) == topology.here()));
    }

    #[test]
    fn an_identity_is_forty_lowercase_digits() {
        let id = NodeId::from_bytes([0xab; 20]);
        assert_eq!(NodeId::parse(id.as_str()).as_ref(), Ok(&id));
        for wrong in ["", "ab", &"AB".repeat(20), &"g".repeat(40)] {
            assert!(NodeId::parse(wrong).is_err(), "{wrong}");
        }
    }
}
