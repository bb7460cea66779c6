//! A node among others: what it knows of them, and what it does when that changes.
//!
//! Raft agrees on a [`ClusterState`](forebay_cluster::ClusterState). [`follow`] makes the node what each new state says that it is; the
//! tasks in [`duties`] do what the state waits for from this node: handing slots over, telling how far its copies have come.

pub mod copies;
pub mod duties;
mod follow;
mod start;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use forebay_cluster::membership::{Lease, Membership};
use forebay_cluster::peer::Peers;

use crate::replication::Replication;

pub use follow::follow;
pub use start::{Met, meet};

/// What a node has that can be one of several.
pub struct Cluster {
    pub membership: Arc<Membership>,
    pub peers: Peers,
    pub replication: Arc<Replication>,
    /// How long this node may serve what it owns.
    pub lease: Arc<Lease>,
    /// `--min-acks`
    pub min_acks: u8,
    /// Requests that were sent to other nodes.
    pub forwarded: AtomicU64,
}

impl Cluster {
    /// Whether this process is a member of a cluster that has been formed, and may serve.
    pub fn is_ready(&self) -> bool {
        self.membership.number().borrow().is_some() && self.lease.holds(std::time::Instant::now())
    }
}
