//! Where a request runs.

use forebay_cluster::Topology;
use forebay_store::Key;

/// The place of a request's keys.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// This node owns them all.
    Here,
    /// Another node owns this slot.
    Away { slot: u16, owner: String },
}

/// Places `keys` by one topology, so that a request sees one epoch from beginning to end.
#[inline]
pub(super) fn place(topology: &Topology, keys: &[Key<'_>]) -> Place {
    match keys.iter().find(|key| !topology.is_here(key.slot())) {
        None => Place::Here,
        Some(key) => {
            let owner = topology.owner_or_heir_of(key.slot());
            let address = owner.map(|owner| format!("{}:{}", owner.host, owner.peer_port));
            Place::Away { slot: key.slot(), owner: address.unwrap_or_default() }
        }
    }
}
