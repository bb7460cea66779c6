//! CLUSTER NODES and CLUSTER INFO: lines of text.

use std::fmt::Write as _;

use forebay_cluster::{Node, SLOT_COUNT, Standing, Topology};

use super::ranges::ranges;
use super::{client_port, owned};

/// A line for each node: id, address, flags, its master, when it was pinged and answered, epoch, link, slots.
pub(super) fn list(topology: &Topology) -> String {
    let mut text = String::new();
    for (node, slots) in topology.nodes().iter().zip(owned(topology)) {
        let (flags, link) = (flags(topology, node), link(node));
        let (id, host, epoch) = (&node.id, &node.host, topology.epoch());
        let address = format!("{host}:{}@{}", client_port(node), node.peer_port);
        text += &format!("{id} {address} {flags} - 0 0 {epoch} {link}");
        for (first, last) in ranges(&slots) {
            // A string takes whatever is written.
            let _written = if first == last { write!(text, " {first}") } else { write!(text, " {first}-{last}") };
        }
        text.push('\n');
    }
    text
}

fn flags(topology: &Topology, node: &Node) -> String {
    let myself = if topology.number_here() == Some(node.number) { "myself," } else { "" };
    let health = match node.standing {
        Standing::Down => ",fail?",
        Standing::Lost => ",fail",
        Standing::Up | Standing::Leaving | Standing::Draining | Standing::Drained => "",
    };
    format!("{myself}master{health}")
}

fn link(node: &Node) -> &'static str {
    match node.standing {
        Standing::Down | Standing::Lost => "disconnected",
        Standing::Up | Standing::Leaving | Standing::Draining | Standing::Drained => "connected",
    }
}

/// How the cluster is. A slot without an owner is failing: its requests wait until it has one.
pub(super) fn info(topology: &Topology) -> String {
    let owners = (0..SLOT_COUNT).map(|slot| topology.owner_of(slot));
    let served = owners.filter(Option::is_some).count();
    let told = owned(topology);
    let assigned: usize = told.iter().map(Vec::len).sum();
    let state = if served == usize::from(SLOT_COUNT) { "ok" } else { "fail" };
    let (size, epoch) = (told.iter().filter(|slots| !slots.is_empty()).count(), topology.epoch());
    let mut text = format!("cluster_state:{state}\r\n");
    for (name, value) in [
        ("cluster_slots_assigned", assigned as u64),
        ("cluster_slots_ok", served as u64),
        ("cluster_slots_pfail", (assigned - served) as u64),
        ("cluster_slots_fail", 0),
        ("cluster_known_nodes", topology.nodes().len() as u64),
        ("cluster_size", size as u64),
        ("cluster_current_epoch", epoch),
        ("cluster_my_epoch", epoch),
        ("cluster_stats_messages_sent", 0),
        ("cluster_stats_messages_received", 0),
        ("total_cluster_links_buffer_limit_exceeded", 0),
    ] {
        text += &format!("{name}:{value}\r\n");
    }
    text
}
