//! What all parts of a node's membership share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use forebay_proto::PEER_PROTOCOL;
use openraft::async_runtime::WatchReceiver;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::book::Book;
use super::channels::Channels;
use super::disk::Seat;
use super::forming::{Candidates, Greeting};
use super::grants::{Grants, Leadership};
use super::lease::Lease;
use super::raft::{Metrics, Raft, number_of};
use super::timing::Timing;
use super::writer::Writer;
use crate::discovery::Seeds;
use crate::slots::NodeNumber;
use crate::state::{ClusterId, ClusterState, Description, Incarnation};

/// A node on its way into a cluster, and in it.
pub(super) struct Node {
    pub(super) timing: Timing,
    pub(super) me: Description,
    pub(super) seeds: Seeds,
    pub(super) copies: u8,
    pub(super) channels: Arc<Channels>,
    pub(super) book: Arc<Book>,
    pub(super) lease: Arc<Lease>,
    pub(super) writer: Writer,
    pub(super) candidates: Mutex<Candidates>,
    pub(super) incarnation: Mutex<Incarnation>,
    /// Once the node has a number, and its Raft runs.
    pub(super) seated: OnceLock<Seated>,
    /// What is applied here.
    pub(super) state: watch::Sender<Arc<ClusterState>>,
    /// The epoch of the state by which this process serves. What is applied may be newer: see [`lease`](super::lease).
    pub(super) serves_by: AtomicU64,
    /// The number under which the present incarnation has joined.
    pub(super) number: watch::Sender<Option<NodeNumber>>,
    /// What the node is about, in words.
    pub(super) phase: watch::Sender<String>,
    /// Why it cannot be a member, which does not pass by itself.
    pub(super) failure: watch::Sender<Option<String>>,
    pub(super) closing: CancellationToken,
}

/// A node's part in Raft.
pub(super) struct Seated {
    pub(super) seat: Seat,
    pub(super) raft: Raft,
    pub(super) grants: Mutex<Grants>,
}

impl Node {
    /// Serves nothing any more, and has its tasks end.
    pub(super) fn end(&self) {
        self.closing.cancel();
        self.lease.end();
    }

    pub(super) fn state(&self) -> Arc<ClusterState> {
        Arc::clone(&self.state.borrow())
    }

    /// The epoch that a renewal tells.
    pub(super) fn served_epoch(&self) -> u64 {
        self.serves_by.load(Ordering::Acquire)
    }

    pub(super) fn cluster(&self) -> Option<ClusterId> {
        self.seated.get().map(|seated| seated.seat.cluster)
    }

    pub(super) fn incarnation(&self) -> Incarnation {
        *self.incarnation.lock()
    }

    /// The node's part in Raft.
    ///
    /// # Errors
    /// When it has none yet.
    pub(super) fn seated(&self) -> Result<&Seated, Status> {
        self.seated
            .get()
            .ok_or_else(|| Status::unavailable(format!("this node is in no cluster yet: {}", *self.phase.borrow())))
    }

    /// Whether the present incarnation is a member by the state that is applied here.
    pub(super) fn is_member_by(&self, state: &ClusterState) -> bool {
        let member = self.seated.get().and_then(|seated| state.member(seated.seat.number));
        member.is_some_and(|member| member.incarnation == self.incarnation())
    }

    pub(super) fn greeting(&self) -> Greeting {
        let seat = self.seated.get().map(|seated| (seated.seat.cluster, seated.seat.number));
        self.candidates.lock().greeting(self.incarnation(), seat)
    }

    /// Says what the node is about, once for each change.
    pub(super) fn set_phase(&self, phase: impl Into<String>) {
        let phase = phase.into();
        let has_changed = self.phase.send_if_modified(|before| {
            let differs = *before != phase;
            before.clone_from(&phase);
            differs
        });
        if has_changed {
            tracing::info!("cluster: {phase}");
        }
    }

    /// The node cannot be a member, and serves nothing.
    pub(super) fn fail(&self, why: String) {
        self.lease.end();
        tracing::error!("cluster: {why}");
        self.phase.send_replace(why.clone());
        self.failure.send_replace(Some(why));
    }

    /// Whether a call from another node, or to this one, may be answered.
    ///
    /// # Errors
    /// When it is meant for another version or another cluster.
    pub(super) fn check_caller(&self, protocol: u32, cluster: &[u8]) -> Result<(), Status> {
        self.channels.check()?;
        if self.closing.is_cancelled() {
            return Err(Status::unavailable("this node is ending"));
        }
        if protocol != PEER_PROTOCOL {
            return Err(Status::failed_precondition(format!(
                "this node speaks version {PEER_PROTOCOL} of the conversation between nodes, and the caller version {protocol}"
            )));
        }
        match self.cluster() {
            Some(ours) if !cluster.is_empty() && ours.0 != *cluster => {
                let theirs = <[u8; 16]>::try_from(cluster).map_or("none".to_owned(), |id| ClusterId(id).to_string());
                Err(Status::failed_precondition(format!(
                    "this node is in cluster {ours}, and the call is meant for cluster {theirs}"
                )))
            }
            _ => Ok(()),
        }
    }
}

impl Seated {
    pub(super) fn metrics(&self) -> Metrics {
        self.raft.metrics().borrow_watched().clone()
    }

    pub(super) fn leadership(&self, timing: &Timing) -> Leadership {
        Leadership::of(&self.raft.metrics().borrow_watched(), timing)
    }

    pub(super) fn leader(&self) -> Option<NodeNumber> {
        self.raft.metrics().borrow_watched().current_leader.map(number_of)
    }
}
