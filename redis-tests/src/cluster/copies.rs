//! Are all copies of a slot equal? Asked in two ways: by the digests that the nodes keep, and by reading at every holder.

use std::collections::BTreeMap;
use std::time::Duration;

use super::node::Node;
use super::nodes::Cluster;
use super::view::View;
use crate::connection::Connection;
use crate::process::eventually;
use crate::reply::Reply;

impl Cluster {
    /// Waits until every slot has the same digest, and each of `keys` the same value, at all holders.
    ///
    /// # Panics
    /// When they differ still after `limit`: the message tells where.
    pub fn await_equal_copies(&self, keys: &[String], limit: Duration) {
        let mut differences = Vec::new();
        let are_equal = eventually(limit, || {
            differences = self.differing_digests();
            differences.extend(keys.iter().filter_map(|key| self.difference_at(key)));
            differences.is_empty()
        });
        assert!(are_equal, "copies differ at {} places, first: {}", differences.len(), differences[0]);
    }

    fn differing_digests(&self) -> Vec<String> {
        let view = self.any_view();
        let digests: BTreeMap<String, BTreeMap<usize, String>> =
            self.running().map(|node| (node.host().to_string(), node.digests())).collect();
        let differs = |first: usize, holders: &[String]| {
            let told: Vec<Option<&String>> = holders.iter().map(|host| digests.get(host)?.get(&first)).collect();
            let is_equal = told.windows(2).all(|pair| pair[0] == pair[1]);
            (!is_equal).then(|| format!("slot {first} at {holders:?}: {told:?}"))
        };
        let slots = view.ranges.iter().flat_map(|range| (range.first..=range.last).map(|slot| (slot, &range.holders)));
        slots.filter_map(|(slot, holders)| differs(slot, holders)).collect()
    }

    fn difference_at(&self, key: &str) -> Option<String> {
        let slot = self.running().next()?.slot_of(key);
        let view = self.any_view();
        let holders = view.holders(slot);
        let nodes = self.running().filter(|node| holders.contains(&node.host().to_string()));
        let values: Vec<(String, Reply)> = nodes.map(|node| (node.host().to_string(), node.own_value(key))).collect();
        let is_equal = values.windows(2).all(|pair| pair[0].1 == pair[1].1);
        (!is_equal).then(|| format!("{key} in slot {slot}: {values:?}"))
    }

    fn any_view(&self) -> View {
        self.running().find_map(Node::view).expect("a node tells its view")
    }
}

impl Node {
    /// What the node itself has for a key, as owner or as replica.
    fn own_value(&self, key: &str) -> Reply {
        let mut direct = Connection::open(self.direct()).unwrap_or_else(|error| panic!("{self}: {error}"));
        assert_eq!(direct.command("READONLY"), Reply::Simple(b"OK".to_vec()));
        direct.command(&format!("GET {key}"))
    }

    /// The digests of all slots that it holds and that are not empty.
    fn digests(&self) -> BTreeMap<usize, String> {
        let reply = self.connect().command("FOREBAY.DIGEST");
        let told = reply.items().unwrap_or_else(|| panic!("FOREBAY.DIGEST at {self}: {reply}"));
        told.iter()
            .map(|slot| slot_digest(slot).unwrap_or_else(|| panic!("FOREBAY.DIGEST at {self}: {slot}")))
            .collect()
    }
}

fn slot_digest(reply: &Reply) -> Option<(usize, String)> {
    let [Reply::Integer(slot), digest, ..] = reply.items()? else {
        return None;
    };
    Some((usize::try_from(*slot).ok()?, String::from_utf8_lossy(digest.text()?).into_owned()))
}
