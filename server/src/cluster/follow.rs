//! Making the node what the agreed state says that it is.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use forebay_cluster::membership::Membership;
use forebay_cluster::state::{ClusterState, Slot};
use forebay_cluster::{NodeNumber, SLOT_COUNT, Topology};
use forebay_store::Keyspace;
use tracing::debug;

use super::copies::CopyHost;
use crate::groups::{self, Follower};
use crate::node::Node;
use crate::replication::{Duty, Host, Replication};
use crate::roles::Role;
use crate::writes::behind;

/// Follows the agreed states for ever.
pub async fn follow(node: Arc<Node>, membership: Arc<Membership>, replication: Arc<Replication>) -> Infallible {
    let (mut states, mut numbers) = (membership.state(), membership.number());
    let host = CopyHost::new(Arc::clone(&node));
    let mut groups = Follower::new(Arc::clone(&node));
    // What the node was made last.
    let mut before: Option<(NodeNumber, Arc<ClusterState>)> = None;
    loop {
        let state = Arc::clone(&states.borrow_and_update());
        let number = *numbers.borrow_and_update();
        // Before the roles: whatever is served in this state is served by its groups.
        groups.take(&state).await;
        match number {
            Some(number) => {
                let old = before.as_ref().filter(|(known, _)| *known == number).map(|(_, state)| &**state);
                become_what(&node, &host, &replication, old, &state, number);
                before = Some((number, Arc::clone(&state)));
            }
            None => {
                become_nothing(&node);
                before = None;
            }
        }
        // Behind the last role: with this epoch it may get a lease, by which it would serve what it still took for its own.
        membership.serves_by(state.epoch());
        tell(&node, Topology::of(&state, number));
        // Both senders live in `membership`, which this holds.
        tokio::select! {
            _ = states.changed() => {}
            _ = numbers.changed() => {}
            // Its findings are noted and logged.
            () = groups.checked() => {}
        }
    }
}

/// Takes each slot's role together with the duty of telling others.
fn become_what(
    node: &Node,
    host: &CopyHost,
    replication: &Replication,
    old: Option<&ClusterState>,
    state: &ClusterState,
    number: NodeNumber,
) {
    let is_alone = is_alone(state);
    // Under the lock of the slot's shard.
    let mut take = |keyspace: &mut Keyspace<'_>, slot, duty| {
        let role = match duty {
            Duty::Owner { .. } if is_alone => Role::Owned,
            Duty::Owner { .. } => Role::Shared,
            Duty::Holder { .. } => Role::Replica,
            Duty::Away => Role::Away,
        };
        // Who has frozen it will thaw it, or has it taken away here.
        let before = node.roles.get(slot);
        if before != Role::Frozen || !role.serves() {
            node.roles.set(keyspace, slot, role);
        }
        if role.serves() && !before.owns() {
            // Its former owner may have had other groups.
            groups::suspect(node, keyspace, slot);
            node.freshness.memory.forget(slot, Instant::now());
            behind::inherit(node, keyspace, slot);
        }
    };
    if old.is_some_and(|old| self::is_alone(old) != is_alone) {
        for slot in (0..SLOT_COUNT).filter(|slot| node.roles.get(*slot).serves()) {
            let mut keyspace = node.store.lock(slot, host.now());
            let (duty, _) = replication.standing(slot);
            take(&mut keyspace, slot, duty);
        }
    }
    replication.reconcile(host, number, old, state, &mut take);
}

/// Whether there is nobody who could become the owner of anything.
fn is_alone(state: &ClusterState) -> bool {
    state.members().nth(1).is_none()
}

/// While this process is no member, it is nothing to any slot.
fn become_nothing(node: &Node) {
    for slot in 0..SLOT_COUNT {
        if node.roles.get(slot) != Role::Away {
            let mut keyspace = node.store.lock(slot, node.clock.unix_millis());
            node.roles.set(&mut keyspace, slot, Role::Away);
        }
    }
}

/// Tells those who wait for it.
pub(super) fn tell(node: &Node, topology: Topology) {
    let (epoch, before) = (topology.epoch(), node.topology.load().epoch());
    if epoch != before {
        let owned = (0..SLOT_COUNT).filter(|slot| topology.is_here(*slot)).count();
        debug!(epoch, nodes = topology.nodes().len(), owned, "the topology has changed");
    }
    if let Some(cluster) = &node.cluster {
        cluster.peers.keep(topology.nodes().iter().map(|node| node.peer_address.as_str()));
    }
    let former = node.topology.swap(Arc::new(topology));
    node.tracking.moved(node, &former);
    node.changes.send_replace(epoch);
}

/// What the member `number`, who has or had a slot to give away, is to it.
pub(super) fn role(slot: &Slot, number: NodeNumber) -> Role {
    match slot.owner {
        Some(owner) if owner == number => Role::Shared,
        _ if slot.replicas.contains(&number) || slot.syncing.contains(&number) => Role::Replica,
        _ => Role::Away,
    }
}
