//! Where a request runs.

use forebay_cluster::{Node as Member, Topology};
use forebay_store::Key;

use super::forward;
use crate::command::error::CommandError;
use crate::command::spec::{Flags, Merge};
use crate::command::table::Command;
use crate::node::Node;
use crate::roles::Role;
use crate::session::{Door, Session};

/// What becomes of a request whose keys are not all served here.
#[derive(Debug)]
pub(super) enum Route<'t> {
    /// They are, for this request.
    Here,
    /// It is to be placed again when the topology is of this epoch, or a little later in any case: a slot has no owner just now, or is
    /// changing hands.
    Unsettled {
        epoch: u64,
    },
    /// This node owns all of them.
    To(&'t Member),
    /// This node was asked as their owner, and is not.
    Misplaced {
        epoch: u64,
    },
    /// Several nodes own some of them each.
    Split(Merge),
    Refused(CommandError),
}

/// Places a request by the roles of this node, and by one topology for the rest; by copies if the client is content with them and they will do.
pub(super) fn place<'t>(
    node: &Node,
    topology: &'t Topology,
    session: &Session,
    command: &Command,
    keys: &[Key<'_>],
    by_copies: bool,
) -> Route<'t> {
    let serves = |key: &Key<'_>| node.roles.get(key.slot()).serves();
    if keys.iter().all(serves) {
        // What runs with others is answered with them, and whether the lease still held is asked again before that (`Engine::still_owns`).
        return match session.by_lease || node.has_lease() {
            true => Route::Here,
            false => Route::Unsettled { epoch: topology.epoch() + 1 },
        };
    }
    if by_copies && has_copies(node, topology, command, keys) {
        return Route::Here;
    }
    let is_settled = |key: &Key<'_>| match node.roles.get(key.slot()) {
        Role::Owned | Role::Shared => topology.is_here(key.slot()),
        Role::Frozen => false,
        // The topology may be older or newer than the roles, for a moment.
        Role::Replica | Role::Away => topology.owner_of(key.slot()).is_some() && !topology.is_here(key.slot()),
    };
    if !keys.iter().all(is_settled) {
        return Route::Unsettled { epoch: topology.epoch() + 1 };
    }
    match (session.door, forward::owner(topology, keys)) {
        (Door::Peer, _) => Route::Misplaced { epoch: topology.epoch() },
        (Door::Open, Some(owner)) => Route::To(owner),
        (Door::Direct, Some(owner)) => Route::Refused(moved(keys, owner)),
        (Door::Open, None) if command.spec.split.is_some() => command.spec.split.map_or(Route::Here, Route::Split),
        (Door::Open | Door::Direct, None) => Route::Refused(CommandError::CrossSlot),
    }
}

/// Whether there are whole copies here of all that is read.
fn has_copies(node: &Node, topology: &Topology, command: &Command, keys: &[Key<'_>]) -> bool {
    // What the cluster counts among the replicas may have lost what it held since.
    let is_whole = |slot| node.member().is_some_and(|member| member.replication.has_whole_copy(slot));
    let is_copy = |key: &Key<'_>| {
        let role = node.roles.get(key.slot());
        role.serves() || (role == Role::Replica && topology.holds_whole(key.slot()) && is_whole(key.slot()))
    };
    command.spec.flags.contains(Flags::READONLY) && node.has_lease() && keys.iter().all(is_copy)
}

/// Tells a client of the direct door where to go.
fn moved(keys: &[Key<'_>], owner: &Member) -> CommandError {
    let slot = keys.first().map_or(0, Key::slot);
    let port = if owner.direct_port == 0 { owner.open_port } else { owner.direct_port };
    CommandError::from(format!("MOVED {slot} {}:{port}", owner.host))
}
