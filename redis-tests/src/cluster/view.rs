//! What a node says of its cluster, by the commands that everybody has.

use std::collections::{BTreeMap, BTreeSet};

use super::node::Node;
use super::nodes::Cluster;
use crate::connection::Connection;
use crate::reply::Reply;

/// The number of slots.
pub const SLOTS: usize = 16384;

/// CLUSTER SLOTS of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    pub ranges: Vec<Range>,
}

/// Slots that the same nodes hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    pub first: usize,
    pub last: usize,
    /// The hosts of the owner and of the replicas, in this order.
    pub holders: Vec<String>,
}

impl View {
    /// Asks a node; `None` while it does not answer as it should.
    pub fn ask(connection: &mut Connection) -> Option<Self> {
        let raw = connection.call(&["CLUSTER", "SLOTS"]).ok()?;
        let reply = Reply::parse(&raw);
        let ranges: Option<Vec<Range>> = reply.items()?.iter().map(Range::read).collect();
        let mut ranges = ranges?;
        ranges.sort_by_key(|range| range.first);
        Some(Self { ranges })
    }

    /// Whether `members` nodes own slots, and every slot is held by `copies` different ones; if not, why.
    pub fn settled(&self, members: usize, copies: usize) -> Result<(), String> {
        let (mut next, mut lone) = (0, BTreeSet::new());
        for Range { first, last, holders } in &self.ranges {
            if *first != next {
                return Err(format!("slot {next} has no owner"));
            }
            let different: BTreeSet<&String> = holders.iter().collect();
            // A single slot may be listed with its owner alone: some clients take a node's role from its first mention, so that a reply
            // that begins with replicas would make them replicas of everything.
            let is_lone = first == last && holders.len() == 1 && lone.insert(&holders[0]);
            if !is_lone && (different.len(), holders.len()) != (copies, copies) {
                return Err(format!("slots {first} to {last} are held by {holders:?}, not by {copies}"));
            }
            next = last + 1;
        }
        if next != SLOTS {
            return Err(format!("slot {next} has no owner"));
        }
        match self.shares().len() {
            owners if owners == members => Ok(()),
            owners => Err(format!("{owners} nodes own slots, not {members}")),
        }
    }

    /// How many slots each host owns.
    pub fn shares(&self) -> BTreeMap<String, usize> {
        let mut shares = BTreeMap::new();
        for range in &self.ranges {
            if let Some(owner) = range.holders.first() {
                *shares.entry(owner.clone()).or_default() += range.last + 1 - range.first;
            }
        }
        shares
    }

    /// The hosts of a slot's owner and replicas.
    pub fn holders(&self, slot: usize) -> &[String] {
        let range = self.ranges.iter().find(|range| (range.first..=range.last).contains(&slot));
        range.map_or(&[], |range| &range.holders)
    }
}

impl Range {
    fn read(reply: &Reply) -> Option<Self> {
        let [Reply::Integer(first), Reply::Integer(last), nodes @ ..] = reply.items()? else {
            return None;
        };
        let host = |node: &Reply| Some(String::from_utf8_lossy(node.items()?.first()?.text()?).into_owned());
        let holders: Option<Vec<String>> = nodes.iter().map(host).collect();
        Some(Self { first: usize::try_from(*first).ok()?, last: usize::try_from(*last).ok()?, holders: holders? })
    }
}

impl Node {
    /// Its view of the cluster; `None` while it does not answer as it should.
    pub fn view(&self) -> Option<View> {
        View::ask(&mut Connection::open(self.address()).ok()?)
    }

    /// Why its cluster is not settled, as [`View::settled`] has it.
    pub(super) fn unsettled(&self, members: usize, copies: usize) -> Option<String> {
        let settled =
            self.view().ok_or_else(|| "no CLUSTER SLOTS".to_owned()).and_then(|view| view.settled(members, copies));
        let has_moves = || self.info("cluster", "cluster_settled").as_deref() != Some("1");
        let settled = settled.and_then(|()| if has_moves() { Err("slots are to be moved".to_owned()) } else { Ok(()) });
        settled.err().map(|why| format!("{self}: {why}"))
    }

    /// A field of INFO.
    ///
    /// # Panics
    /// When the node does not answer.
    pub fn info(&self, section: &str, field: &str) -> Option<String> {
        self.connect().info(section, field)
    }

    /// A number in `INFO forebay`.
    ///
    /// # Panics
    /// When there is none of that name.
    pub fn counter(&self, field: &str) -> u64 {
        let value = self.info("forebay", field).unwrap_or_else(|| panic!("{self} has no {field} in INFO forebay"));
        value.parse().unwrap_or_else(|_| panic!("{field} is {value}"))
    }

    /// The slot of a key.
    ///
    /// # Panics
    /// When the node does not tell.
    pub fn slot_of(&self, key: &str) -> usize {
        match self.connect().command(&format!("CLUSTER KEYSLOT {key}")) {
            Reply::Integer(slot) => usize::try_from(slot).expect("a slot is a small number"),
            other => panic!("CLUSTER KEYSLOT {key}: {other}"),
        }
    }
}

impl Cluster {
    /// The places of those names that the node owns.
    ///
    /// # Panics
    /// When the node does not tell.
    pub fn owned_of(&self, owner: usize, names: &[String]) -> Vec<usize> {
        let node = &self.nodes[owner];
        let view = node.view().expect("a view");
        let host = node.host().to_string();
        let is_owned = |name: &String| view.holders(node.slot_of(name)).first() == Some(&host);
        names.iter().enumerate().filter(|(_, name)| is_owned(name)).map(|(place, _)| place).collect()
    }

    /// The node that owns a key.
    ///
    /// # Panics
    /// When none says that it does.
    pub fn owner_of(&self, name: &str) -> usize {
        let owns = |node: &usize| !self.owned_of(*node, &[name.to_owned()]).is_empty();
        (0..self.nodes.len()).find(owns).unwrap_or_else(|| panic!("{name} has no owner"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: usize, last: usize, holders: &[&str]) -> Range {
        Range { first, last, holders: holders.iter().map(|host| (*host).to_owned()).collect() }
    }

    #[test]
    fn a_view_is_settled_when_every_slot_has_its_copies() {
        let two = |ranges: Vec<Range>| View { ranges }.settled(2, 2);
        assert_eq!(two(vec![range(0, 8000, &["a", "b"]), range(8001, 16383, &["b", "a"])]), Ok(()));
        assert!(two(vec![range(0, 8000, &["a", "b"]), range(8002, 16383, &["b", "a"])]).is_err(), "a gap");
        assert!(two(vec![range(0, 8000, &["a", "b"]), range(8001, 16382, &["b", "a"])]).is_err(), "the end is missing");
        assert!(two(vec![range(0, 8000, &["a", "b"]), range(8001, 16383, &["b"])]).is_err(), "a copy is missing");
        assert!(two(vec![range(0, 8000, &["a", "b"]), range(8001, 16383, &["b", "b"])]).is_err(), "twice the same");
        assert!(two(vec![range(0, 16383, &["a", "b"])]).is_err(), "one owns nothing");
        let b = || range(2, 16383, &["b", "a"]);
        assert_eq!(two(vec![range(0, 0, &["a"]), range(1, 1, &["a", "b"]), b()]), Ok(()), "one slot alone");
        assert!(two(vec![range(0, 0, &["a"]), range(1, 1, &["a"]), b()]).is_err(), "two slots alone");
    }

    #[test]
    fn cluster_slots_is_read() {
        let raw = b"*1\r\n*4\r\n:0\r\n:16383\r\n*4\r\n$1\r\na\r\n:6380\r\n$2\r\nid\r\n*0\r\n*3\r\n$1\r\nb\r\n:6380\r\n$2\r\nid\r\n";
        let Reply::Array(items) = Reply::parse(raw) else { panic!("an array") };
        assert_eq!(Range::read(&items[0]), Some(range(0, 16383, &["a", "b"])));
        assert_eq!(Range::read(&Reply::Integer(1)), None);
    }
}
