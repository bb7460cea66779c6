//! CLUSTER SLOTS: who holds which slots, the owner first.

use forebay_cluster::{Node, SLOT_COUNT, Topology};
use forebay_resp::Reply;

use super::client_port;

/// Slots in a row that the same nodes hold.
struct Range<'t> {
    first: u16,
    last: u16,
    /// The owner, then its replicas that are in sync. Never empty.
    holders: Vec<&'t Node>,
}

pub(super) fn write(topology: &Topology, reply: &mut Reply) {
    let (introductions, ranges) = ranges(topology);
    reply.array(introductions.len() + ranges.len());
    introductions.iter().chain(&ranges).for_each(|range| range.write(reply));
}

/// All slots: first one slot of each owner, told without its replicas, then all others.
///
/// redis-py's `RedisCluster` takes a node for a primary or a replica by the first range that names it, and sends FLUSHALL, DBSIZE or SCAN to
/// primaries alone. Here everybody is both, so everybody is introduced as an owner.
fn ranges(topology: &Topology) -> (Vec<Range<'_>>, Vec<Range<'_>>) {
    let (mut introductions, mut ranges) = (Vec::<Range<'_>>::new(), Vec::<Range<'_>>::new());
    for slot in 0..SLOT_COUNT {
        let Some(owner) = topology.owner_or_heir_of(slot) else { continue };
        if !introductions.iter().any(|range| range.holders[0].number == owner.number) {
            introductions.push(Range { first: slot, last: slot, holders: vec![owner] });
            continue;
        }
        let replicas = topology.replicas(slot).filter(|replica| replica.number != owner.number);
        let holders: Vec<_> = std::iter::once(owner).chain(replicas).collect();
        match ranges.last_mut() {
            Some(range) if range.goes_on(slot, &holders) => range.last = slot,
            _ => ranges.push(Range { first: slot, last: slot, holders }),
        }
    }
    (introductions, ranges)
}

impl Range<'_> {
    fn goes_on(&self, slot: u16, holders: &[&Node]) -> bool {
        self.last + 1 == slot && self.holders.iter().map(|node| node.number).eq(holders.iter().map(|node| node.number))
    }

    fn write(&self, reply: &mut Reply) {
        reply.array(2 + self.holders.len());
        reply.integer(i64::from(self.first));
        reply.integer(i64::from(self.last));
        for node in &self.holders {
            reply.array(4);
            reply.bulk(node.host.as_bytes());
            reply.integer(i64::from(client_port(node)));
            reply.bulk(node.id.as_str().as_bytes());
            // Further addresses: there are none.
            reply.map(0);
        }
    }
}
