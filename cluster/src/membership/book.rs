//! Where the nodes are. Raft's own list of addresses is as old as a node's first joining; a node that comes back elsewhere says so when it
//! greets others, and by its `Join`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::RwLock;

use crate::slots::NodeNumber;
use crate::state::{ClusterState, Description, Standing};

/// The last known addresses, as `host:port`.
#[derive(Default)]
pub(super) struct Book {
    places: RwLock<HashMap<NodeNumber, Place>>,
    /// What was last entered from the state, so that an old state does not overwrite what a node has said since.
    state: RwLock<Option<Arc<ClusterState>>>,
}

#[derive(Clone)]
struct Place {
    raft: String,
    peer: String,
}

impl Book {
    /// Enters what a node says of itself.
    pub(super) fn enter(&self, number: NodeNumber, description: &Description) {
        let place = Place { raft: description.raft_address(), peer: description.peer_address() };
        self.places.write().insert(number, place);
    }

    /// Enters those members whose description has changed in the state.
    pub(super) fn follow(&self, state: &Arc<ClusterState>) {
        let mut last = self.state.write();
        for member in state.members() {
            let before = last.as_ref().and_then(|last| last.member(member.number));
            if before.is_none_or(|before| before.description != member.description) {
                self.enter(member.number, &member.description);
            }
        }
        self.places.write().retain(|number, _| state.member(*number).is_some() || state.epoch() == 0);
        *last = Some(Arc::clone(state));
    }

    pub(super) fn raft(&self, number: NodeNumber) -> Option<String> {
        self.places.read().get(&number).map(|place| place.raft.clone())
    }

    pub(super) fn peer(&self, number: NodeNumber) -> Option<String> {
        self.places.read().get(&number).map(|place| place.peer.clone())
    }

    /// How the member stands.
    pub(super) fn standing(&self, number: NodeNumber) -> Option<Standing> {
        let state = self.state.read();
        state.as_ref().and_then(|state| state.member(number)).map(|member| member.standing)
    }

    /// Both ports of all nodes that are known.
    pub(super) fn addresses(&self) -> HashSet<String> {
        self.places.read().values().flat_map(|place| [place.raft.clone(), place.peer.clone()]).collect()
    }

    /// The peer ports of all nodes that are known.
    pub(super) fn peers(&self) -> Vec<String> {
        self.places.read().values().map(|place| place.peer.clone()).collect()
    }
}
