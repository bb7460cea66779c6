//! A node among others: what it knows of them, and what it does when that changes.
//!
//! Raft agrees on a [`ClusterState`](forebay_cluster::ClusterState). [`follow`] makes the node what each new state says that it is; the
//! tasks in [`duties`] do what the state waits for from this node: handing slots over, telling how far its copies have come.

pub mod copies;
pub mod duties;
mod follow;
mod frontend;
mod start;
mod thread;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use forebay_cluster::ClusterState;
use forebay_cluster::membership::{Lease, Membership, Watcher};
use forebay_cluster::peer::Peers;
use tokio::sync::watch;

use crate::hot::Hot;
use crate::replication::Replication;

pub use follow::follow;
pub use frontend::{look_on, outside};
pub use start::{Met, meet};
pub use thread::PeerThread;

/// What a process has that is not alone.
pub struct Cluster {
    pub part: Part,
    pub peers: Peers,
    /// On which the connections to other nodes are that are no worker's.
    pub thread: PeerThread,
    /// Requests that were sent to other nodes.
    pub forwarded: AtomicU64,
}

/// What a process is to its cluster.
pub enum Part {
    Member(Member),
    /// It owns nothing and has no vote: it follows what is agreed on from outside, and hands requests on.
    Frontend(Arc<Watcher>),
}

/// What a node has that can be one of several.
pub struct Member {
    pub membership: Arc<Membership>,
    pub replication: Arc<Replication>,
    pub hot: Hot,
    /// How long this node may serve what it owns.
    pub lease: Arc<Lease>,
    /// `--min-acks`
    pub min_acks: u8,
}

impl Cluster {
    /// What only a node with data has; `None` at a frontend.
    pub fn member(&self) -> Option<&Member> {
        match &self.part {
            Part::Member(member) => Some(member),
            Part::Frontend(_) => None,
        }
    }

    /// The state that is known here, which may be an old one.
    pub fn state(&self) -> watch::Receiver<Arc<ClusterState>> {
        match &self.part {
            Part::Member(member) => member.membership.state(),
            Part::Frontend(watcher) => watcher.state(),
        }
    }

    /// Why this process cannot go on as what it is to its cluster, if that does not pass by itself: it should end.
    pub fn failure(&self) -> watch::Receiver<Option<String>> {
        match &self.part {
            Part::Member(member) => member.membership.failure(),
            Part::Frontend(watcher) => watcher.failure(),
        }
    }

    /// Whether what is agreed on comes to this process.
    pub fn is_in_touch(&self) -> bool {
        match &self.part {
            Part::Member(member) => member.has_lease(),
            Part::Frontend(watcher) => watcher.is_in_touch(),
        }
    }
}

impl Member {
    /// Whether this node may serve what it owns.
    #[inline]
    pub fn has_lease(&self) -> bool {
        self.lease.holds(Instant::now())
    }

    /// Whether this process is a member of a cluster that has been formed, and may serve.
    pub fn is_ready(&self) -> bool {
        self.membership.number().borrow().is_some() && self.has_lease()
    }
}
