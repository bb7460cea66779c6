//! The immutable picture of the cluster that every request is routed by.

use std::fmt;
use std::sync::Arc;

use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};

use crate::slot::SLOT_COUNT;
use crate::slots::{MAX_COPIES, NodeNumber, PerSlot};
use crate::state::{ClusterState, Description, Incarnation, Member, Slot, Standing};

/// A node's identity, 40 lowercase hexadecimal digits as `CLUSTER NODES` shows them. It outlives restarts and addresses.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeId(Arc<str>);

/// Digits of a [`NodeId`] (Redis' `CLUSTER_NAMELEN`).
pub const NODE_ID_DIGITS: usize = 40;

/// Why a text is not a [`NodeId`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidNodeId(String);

/// One member of the cluster, as clients and peers reach it. Port 0: that door is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub number: NodeNumber,
    pub id: NodeId,
    /// Host name or address that clients and peers are told.
    pub host: String,
    pub open_port: u16,
    pub direct_port: u16,
    pub http_port: u16,
    pub peer_port: u16,
    pub raft_port: u16,
    /// Availability zone, where known.
    pub zone: Option<String>,
    pub standing: Standing,
    /// Host and peer port, for those who call it.
    pub peer_address: String,
    /// What its earlier lives have not handed on is gone.
    pub incarnation: Incarnation,
}

/// Members and who holds which slot, at one epoch. Immutable: a change is a new value with the next epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    epoch: u64,
    /// By their numbers.
    nodes: Vec<Node>,
    /// For each slot, the owner's place in `nodes`, or [`NOBODY`].
    owners: Box<[Place]>,
    /// This node's place in `nodes`, or [`NOT_A_MEMBER`].
    here: Place,
    /// What else is known of each slot, asked for more seldom.
    copies: PerSlot<Copies>,
}

/// An index in [`Topology::nodes`].
type Place = u16;

/// Who owns a slot that has no owner. Not [`NOT_A_MEMBER`], so that such a slot is nowhere [`Topology::is_here`].
const NOBODY: Place = u16::MAX;

/// Where a process is that is no member.
const NOT_A_MEMBER: Place = u16::MAX - 1;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Copies {
    /// Who has a whole one, beside the owner.
    replicas: ArrayVec<Place, MAX_COPIES>,
    syncing: ArrayVec<Place, MAX_COPIES>,
    /// Who is to own the slot if nobody does.
    heir: Option<Place>,
}

impl Topology {
    /// The topology of a node that is alone: it owns every slot.
    pub fn solo(node: Node) -> Topology {
        Topology {
            epoch: 1,
            nodes: vec![node],
            owners: vec![0; usize::from(SLOT_COUNT)].into(),
            here: 0,
            copies: PerSlot::all(Copies::default()),
        }
    }

    /// The topology as of a state, in a process that is the member `here`, or none.
    pub fn of(state: &ClusterState, here: Option<NodeNumber>) -> Topology {
        let nodes: Vec<_> = state.members().map(Node::of).collect();
        let place = |number: NodeNumber| place_of(&nodes, number);
        let copies_of = |(number, slot): (u16, &Slot)| Copies {
            replicas: slot.replicas.iter().copied().filter_map(place).collect(),
            syncing: slot.syncing.iter().copied().filter_map(place).collect(),
            heir: if slot.owner.is_none() { state.target().owner(number).and_then(place) } else { None },
        };
        Topology {
            epoch: state.epoch(),
            owners: state.slots().map(|(_, slot)| slot.owner.and_then(place).unwrap_or(NOBODY)).collect(),
            here: here.and_then(place).unwrap_or(NOT_A_MEMBER),
            copies: PerSlot::collect(state.slots().map(copies_of)),
            nodes,
        }
    }

    /// The version, which rises by one with every change.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// All members, by their numbers.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The member of that number.
    pub fn node(&self, number: NodeNumber) -> Option<&Node> {
        place_of(&self.nodes, number).and_then(|place| self.at(place))
    }

    /// The node that this process is, if it is a member.
    pub fn here(&self) -> Option<&Node> {
        self.at(self.here)
    }

    /// The number of the node that this process is, if it is a member.
    pub fn number_here(&self) -> Option<NodeNumber> {
        self.here().map(|node| node.number)
    }

    /// Whether this process is the only member, so that all there is is here.
    #[inline]
    pub fn is_alone(&self) -> bool {
        self.nodes.len() == 1 && self.here == 0
    }

    /// Whether another member is up, who could take what this process owns.
    pub fn has_heir(&self) -> bool {
        let here = self.number_here();
        self.nodes.iter().any(|node| Some(node.number) != here && node.standing == Standing::Up)
    }

    /// Who serves `slot`; nobody for a short while after its owner went down.
    ///
    /// # Panics
    /// When `slot` is not below [`SLOT_COUNT`], as all that take one.
    pub fn owner_of(&self, slot: u16) -> Option<&Node> {
        self.at(self.owners[usize::from(slot)])
    }

    /// Who serves `slot`, or will probably do so soon: clients are told of no gaps.
    pub fn owner_or_heir_of(&self, slot: u16) -> Option<&Node> {
        self.owner_of(slot).or_else(|| self.replicas(slot).next()).or_else(|| self.at(self.copies.get(slot).heir?))
    }

    /// Who has a whole copy of `slot` beside its owner.
    pub fn replicas(&self, slot: u16) -> impl Iterator<Item = &Node> {
        self.copies.get(slot).replicas.iter().filter_map(|place| self.at(*place))
    }

    /// Who has a whole copy of `slot`: the owner first, if it has one.
    pub fn holders(&self, slot: u16) -> impl Iterator<Item = &Node> {
        self.owner_of(slot).into_iter().chain(self.replicas(slot))
    }

    /// Who is being sent a copy of `slot`.
    pub fn syncing(&self, slot: u16) -> impl Iterator<Item = &Node> {
        self.copies.get(slot).syncing.iter().filter_map(|place| self.at(*place))
    }

    /// Whether this process has a whole copy of `slot`, which another node owns.
    pub fn holds_whole(&self, slot: u16) -> bool {
        self.copies.get(slot).replicas.contains(&self.here)
    }

    /// Whether this process owns `slot`.
    #[inline]
    pub fn is_here(&self, slot: u16) -> bool {
        self.owners[usize::from(slot)] == self.here
    }

    fn at(&self, place: Place) -> Option<&Node> {
        self.nodes.get(usize::from(place))
    }
}

fn place_of(nodes: &[Node], number: NodeNumber) -> Option<Place> {
    let found = nodes.binary_search_by_key(&number, |node| node.number).ok()?;
    Place::try_from(found).ok().filter(|place| *place < NOT_A_MEMBER)
}

impl Node {
    fn of(member: &Member) -> Node {
        let Description { id, host, open_port, direct_port, http_port, peer_port, raft_port, zone, .. } =
            member.description.clone();
        let Member { number, standing, incarnation, .. } = *member;
        let peer_address = address(&host, peer_port);
        Node {
            number,
            id,
            host,
            open_port,
            direct_port,
            http_port,
            peer_port,
            raft_port,
            zone,
            standing,
            peer_address,
            incarnation,
        }
    }
}

/// `host:port`, as it is dialled and written: an IPv6 address stands in brackets.
pub fn address(host: &str, port: u16) -> String {
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
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

impl TryFrom<String> for NodeId {
    type Error = InvalidNodeId;

    fn try_from(text: String) -> Result<NodeId, InvalidNodeId> {
        NodeId::parse(&text)
    }
}

impl From<NodeId> for String {
    fn from(id: NodeId) -> String {
        id.as_str().to_owned()
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
    use crate::state::{Applied, Change, ClusterId};

    fn node() -> Node {
        Node {
            number: NodeNumber(1),
            id: NodeId::from_bytes([7; 20]),
            host: "127.0.0.1".to_owned(),
            open_port: 6379,
            direct_port: 6380,
            http_port: 9999,
            peer_port: 8001,
            raft_port: 7000,
            zone: None,
            standing: Standing::Up,
            peer_address: "127.0.0.1:8001".to_owned(),
            incarnation: Incarnation(1),
        }
    }

    #[test]
    fn a_lone_node_owns_every_slot() {
        let topology = Topology::solo(node());
        assert!((0..SLOT_COUNT).all(|slot| topology.is_here(slot) && topology.owner_of(slot) == topology.here()));
    }

    #[test]
    fn who_is_no_member_owns_nothing_not_even_what_nobody_owns() {
        let mut state = ClusterState::new(ClusterId([1; 16]), 3);
        let topology = Topology::of(&state, None);
        assert!(topology.here().is_none());
        assert!((0..SLOT_COUNT).all(|slot| !topology.is_here(slot) && topology.owner_of(slot).is_none()));

        let numbers: Vec<_> = (1..=3).map(|node| join(&mut state, node)).collect();
        let topology = Topology::of(&state, None);
        assert!((0..SLOT_COUNT).all(|slot| !topology.is_here(slot) && topology.owner_of(slot).is_some()));
        assert_eq!(topology.nodes().iter().map(|node| node.number).collect::<Vec<_>>(), numbers);
    }

    #[test]
    fn it_tells_what_the_state_says() {
        let mut state = ClusterState::new(ClusterId([1; 16]), 2);
        let numbers: Vec<_> = (1..=3).map(|node| join(&mut state, node)).collect();
        let topology = Topology::of(&state, Some(numbers[0]));
        assert_eq!((topology.epoch(), topology.number_here()), (3, Some(numbers[0])));
        for (slot, held) in state.slots() {
            let numbers_of = |nodes: Vec<&Node>| nodes.iter().map(|node| node.number).collect::<Vec<_>>();
            assert_eq!(numbers_of(topology.holders(slot).collect()), held.holders().collect::<Vec<_>>());
            assert_eq!(numbers_of(topology.syncing(slot).collect()), held.syncing.to_vec());
            assert_eq!(topology.is_here(slot), held.owner == Some(numbers[0]));
        }
        assert_eq!(topology.node(numbers[1]).map(|node| node.open_port), Some(6002));
    }

    #[test]
    fn what_has_lost_its_owner_is_told_with_an_heir() {
        let mut state = ClusterState::new(ClusterId([1; 16]), 1);
        let number = join(&mut state, 1);
        state.apply(Change::Down { number, incarnation: Incarnation(1) });
        let topology = Topology::of(&state, None);
        assert_eq!(topology.owner_of(0), None);
        assert_eq!(topology.owner_or_heir_of(0).map(|node| node.number), Some(number));
    }

    /// Who is being drained is not up itself, and has somebody to leave to all the same.
    #[test]
    fn an_heir_is_another_member_that_is_up() {
        let mut state = ClusterState::new(ClusterId([1; 16]), 2);
        let here = join(&mut state, 1);
        assert!(!Topology::of(&state, Some(here)).has_heir());
        let other = join(&mut state, 2);
        assert!(Topology::of(&state, Some(here)).has_heir());
        state.apply(Change::Drain { number: here });
        assert!(Topology::of(&state, Some(here)).has_heir(), "it is being drained");
        assert!(!Topology::of(&state, Some(other)).has_heir());
    }

    fn join(state: &mut ClusterState, node: u8) -> NodeNumber {
        let description = Description {
            id: NodeId::from_bytes([node; 20]),
            host: "127.0.0.1".to_owned(),
            open_port: 6000 + u16::from(node),
            direct_port: 0,
            http_port: 0,
            peer_port: 0,
            raft_port: 0,
            zone: None,
            weight: 1000,
            version: "0.1.0".to_owned(),
        };
        let Applied::Joined { number, .. } = state.apply(Change::Join { description, incarnation: Incarnation(1) })
        else {
            panic!("it may join")
        };
        number
    }

    #[test]
    fn an_ipv6_address_stands_in_brackets() {
        let addresses =
            [("::1", "[::1]:8001"), ("[::1]", "[::1]:8001"), ("10.0.0.7", "10.0.0.7:8001"), ("n1", "n1:8001")];
        for (host, dialled) in addresses {
            assert_eq!(address(host, 8001), dialled);
        }
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
