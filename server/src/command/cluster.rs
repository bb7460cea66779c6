//! CLUSTER and what goes with it: what clients of clusters ask to find each slot's owner themselves.
//!
//! Told are the direct doors, where a key of another node gets `-MOVED`. Every node is a master in these words, since each owns slots and
//! holds copies of others' at the same time. A node that is alone answers as a cluster of one.

mod keys;
mod nodes;
mod ranges;
mod shards;
mod slots;

use forebay_cluster::{Node, SLOT_COUNT, Topology, slot_of};

use super::call::{Call, Flow};
use super::error::CommandError;
use super::help;
use super::spec::{Categories, Flags, Spec};

const STALE: Flags = Flags::STALE;
const ADMIN: Flags = Flags::ADMIN.union(Flags::STALE);
const SWITCH: Flags = Flags::LOADING.union(Flags::STALE).union(Flags::FAST);
const TIPS: &[&str] = &["nondeterministic_output"];

pub(super) const TABLE: &[Spec] = &[
    Spec::new("asking", 1, Flags::FAST, Categories::CONNECTION).on_node(asking).docs(
        "cluster",
        "3.0.0",
        "O(1)",
        "Announces a request that a redirection has led here.",
        "",
    ),
    Spec::new("cluster", -2, Flags::empty(), Categories::empty())
        .subcommands(&[
            Spec::new("count-failure-reports", 3, ADMIN, Categories::empty())
                .on_node(count_failure_reports)
                .tips(TIPS)
                .docs(
                    "cluster",
                    "3.0.0",
                    "O(N) where N is the number of failure reports",
                    "Tells how many nodes take a node for failed.",
                    "node-id",
                ),
            Spec::new("countkeysinslot", 3, STALE, Categories::empty()).on_node(keys::count).docs(
                "cluster",
                "3.0.0",
                "O(N), N being the number of keys in the slot",
                "Tells how many keys a slot has, if this node owns it.",
                "slot",
            ),
            Spec::new("getkeysinslot", 4, STALE, Categories::empty()).on_node(keys::get).tips(TIPS).docs(
                "cluster",
                "3.0.0",
                "O(N) where N is the number of requested keys",
                "Tells keys of a slot, if this node owns it.",
                "slot count",
            ),
            help::row(Categories::empty(), "cluster", "5.0.0"),
            Spec::new("info", 2, STALE, Categories::empty()).on_node(info).tips(TIPS).docs(
                "cluster",
                "3.0.0",
                "O(N), N being the number of slots",
                "Tells how the cluster is.",
                "",
            ),
            Spec::new("keyslot", 3, STALE, Categories::empty()).on_node(keyslot).docs(
                "cluster",
                "3.0.0",
                "O(N) where N is the number of bytes in the key",
                "Tells the slot of a key.",
                "key",
            ),
            Spec::new("links", 2, STALE, Categories::empty()).on_node(links).tips(TIPS).docs(
                "cluster",
                "7.0.0",
                "O(1)",
                "Tells the links of Redis' cluster bus, of which there are none.",
                "",
            ),
            Spec::new("myid", 2, STALE, Categories::empty()).on_node(my_id).docs(
                "cluster",
                "3.0.0",
                "O(1)",
                "Tells the id of the node.",
                "",
            ),
            Spec::new("myshardid", 2, STALE, Categories::empty()).on_node(my_id).tips(TIPS).docs(
                "cluster",
                "7.2.0",
                "O(1)",
                "Tells the id of the node's shard, which is the node's own.",
                "",
            ),
            Spec::new("nodes", 2, STALE, Categories::empty()).on_node(nodes).tips(TIPS).docs(
                "cluster",
                "3.0.0",
                "O(N), N being the number of slots",
                "Tells the nodes and their slots, a line for each node.",
                "",
            ),
            Spec::new("replicas", 3, ADMIN, Categories::empty()).on_node(replicas).tips(TIPS).docs(
                "cluster",
                "5.0.0",
                "O(N), N being the number of nodes",
                "Tells the nodes that do nothing but copy a node, of which there are none.",
                "node-id",
            ),
            Spec::new("shards", 2, STALE, Categories::empty()).on_node(shards).tips(TIPS).docs(
                "cluster",
                "7.0.0",
                "O(N), N being the number of slots",
                "Tells the slots of each owner, and who holds copies of all of them.",
                "",
            ),
            Spec::new("slaves", 3, ADMIN, Categories::empty())
                .on_node(replicas)
                .tips(TIPS)
                .deprecated("5.0.0", "`CLUSTER REPLICAS`")
                .docs(
                    "cluster",
                    "3.0.0",
                    "O(N), N being the number of nodes",
                    "Tells the nodes that do nothing but copy a node, of which there are none.",
                    "node-id",
                ),
            Spec::new("slots", 2, STALE, Categories::empty())
                .on_node(slots)
                .tips(TIPS)
                .deprecated("7.0.0", "`CLUSTER SHARDS`")
                .docs("cluster", "3.0.0", "O(N), N being the number of slots", "Tells who holds which slots.", ""),
        ])
        .docs("cluster", "3.0.0", "Depends on subcommand.", "Tells of the cluster.", ""),
    Spec::new("readonly", 1, SWITCH, Categories::CONNECTION).on_node(readonly).docs(
        "cluster",
        "3.0.0",
        "O(1)",
        "Lets the connection read copies on the direct door.",
        "",
    ),
    Spec::new("readwrite", 1, SWITCH, Categories::CONNECTION).on_node(readwrite).docs(
        "cluster",
        "3.0.0",
        "O(1)",
        "Lets the connection read at the owner alone.",
        "",
    ),
];

fn slots(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    slots::write(&call.node.topology.load(), call.reply);
    Ok(Flow::Continue)
}

fn shards(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    shards::write(&call.node.topology.load(), call.reply);
    Ok(Flow::Continue)
}

fn nodes(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let text = nodes::list(&call.node.topology.load());
    call.reply.verbatim("txt", text.as_bytes());
    Ok(Flow::Continue)
}

fn info(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let text = nodes::info(&call.node.topology.load());
    call.reply.verbatim("txt", text.as_bytes());
    Ok(Flow::Continue)
}

fn my_id(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    if call.node.is_frontend() {
        return Err(CommandError::text("ERR This is a frontend, which is not a node of the cluster"));
    }
    let topology = call.node.topology.load();
    let here = topology.here().ok_or(CommandError::text("CLUSTERDOWN This process is not a member of the cluster"))?;
    call.reply.bulk(here.id.as_str().as_bytes());
    Ok(Flow::Continue)
}

fn keyslot(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    call.reply.integer(i64::from(slot_of(call.arg(2))));
    Ok(Flow::Continue)
}

fn replicas(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    expect_node(call)?;
    call.reply.array(0);
    Ok(Flow::Continue)
}

/// Nodes do not vote on failures here: the leader's word is enough.
fn count_failure_reports(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    expect_node(call)?;
    call.reply.integer(0);
    Ok(Flow::Continue)
}

/// That argument 2 is a node's id.
fn expect_node(call: &Call<'_>) -> Result<(), CommandError> {
    let topology = call.node.topology.load();
    match topology.nodes().iter().any(|node| node.id.as_str().as_bytes() == call.arg(2)) {
        true => Ok(()),
        false => Err(CommandError::from(format!("ERR Unknown node {}", call.text(2)))),
    }
}

fn links(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    call.reply.array(0);
    Ok(Flow::Continue)
}

/// A slot that has moved is here already when clients are told so: there is no half-way at which they would have to ask.
fn asking(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    call.reply.ok();
    Ok(Flow::Continue)
}

fn readonly(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    call.session.readonly = true;
    call.reply.ok();
    Ok(Flow::Continue)
}

fn readwrite(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    call.session.readonly = false;
    call.reply.ok();
    Ok(Flow::Continue)
}

/// Where clients of clusters reach the node: at the open door if it has no other.
fn client_port(node: &Node) -> u16 {
    if node.direct_port == 0 { node.open_port } else { node.direct_port }
}

/// The slots that each node is told as the owner of, in the topology's order of nodes.
fn owned(topology: &Topology) -> Vec<Vec<u16>> {
    let mut owned = vec![Vec::new(); topology.nodes().len()];
    for slot in 0..SLOT_COUNT {
        let owner = topology.owner_or_heir_of(slot).map(|owner| owner.number);
        let place = owner.and_then(|owner| topology.nodes().iter().position(|node| node.number == owner));
        if let Some(place) = place {
            owned[place].push(slot);
        }
    }
    owned
}

#[cfg(test)]
mod tests;
