//! CLUSTER SHARDS: the slots of each owner.

use forebay_cluster::{Node, Standing, Topology};
use forebay_resp::Reply;

use super::ranges::ranges;
use super::{client_port, owned};

pub(super) fn write(topology: &Topology, reply: &mut Reply) {
    reply.array(topology.nodes().len());
    for (owner, slots) in topology.nodes().iter().zip(owned(topology)) {
        let copyists = copyists(topology, owner, &slots);
        reply.map(2);
        reply.bulk(b"slots");
        let ranges: Vec<_> = ranges(&slots).collect();
        reply.array(2 * ranges.len());
        for (first, last) in ranges {
            reply.integer(i64::from(first));
            reply.integer(i64::from(last));
        }
        reply.bulk(b"nodes");
        reply.array(1 + copyists.len());
        write_node(owner, "master", reply);
        copyists.iter().for_each(|node| write_node(node, "replica", reply));
    }
}

/// Who has a copy of all these slots, as a replica of Redis' kind has: clients may read any of them there.
fn copyists<'t>(topology: &'t Topology, owner: &Node, slots: &[u16]) -> Vec<&'t Node> {
    let copies_all = |node: &&Node| slots.iter().all(|slot| topology.replicas(*slot).any(|other| other == *node));
    let others = topology.nodes().iter().filter(|node| node.number != owner.number && !slots.is_empty());
    others.filter(copies_all).collect()
}

fn write_node(node: &Node, role: &str, reply: &mut Reply) {
    let health = match node.standing {
        Standing::Down | Standing::Lost => "fail",
        Standing::Up | Standing::Leaving | Standing::Draining | Standing::Drained => "online",
    };
    let text = |reply: &mut Reply, name: &str, value: &str| {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    };
    reply.map(7);
    text(reply, "id", node.id.as_str());
    reply.bulk(b"port");
    reply.integer(i64::from(client_port(node)));
    text(reply, "ip", &node.host);
    text(reply, "endpoint", &node.host);
    text(reply, "role", role);
    reply.bulk(b"replication-offset");
    reply.integer(0);
    text(reply, "health", health);
}
