//! Who is in the cluster, agreed on by Raft. This module alone knows openraft.
//!
//! A node that starts finds its cluster (`greeting`, `forming`) or goes on where its disk says (`disk`), runs Raft (`log`, `machine`,
//! `network`, `raft_server`), joins, and renews the lease by which it may serve (`life`, [`lease`]). Whoever leads declares silent members
//! down and gives votes out (`leading`, `grants`, `voters`). Changes of the state go to the leader from anywhere (`proposing`).

pub mod admin;
mod book;
mod channels;
mod disk;
mod forming;
mod grants;
mod greeting;
pub mod groups;
mod leading;
pub mod lease;
mod life;
mod log;
mod machine;
mod network;
mod node;
mod proposing;
mod raft;
mod raft_server;
mod service;
#[cfg(test)]
mod tests;
mod timing;
mod voters;
mod watching;
mod wire;
mod writer;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use forebay_proto::membership::membership_server::MembershipServer;
use openraft::async_runtime::WatchReceiver;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::book::Book;
use self::channels::Channels;
use self::disk::Disk;
use self::forming::Candidates;
use self::groups::GroupsHandler;
use self::node::{Node, Seated};
use self::proposing::Proposal;
use self::writer::Writer;
use crate::discovery::Seeds;
use crate::door;
use crate::slots::NodeNumber;
use crate::state::{Applied, Change, ClusterId, ClusterState, Description, Incarnation};
use crate::tls::PeerTls;

pub use self::disk::DiskError;
pub use self::lease::Lease;
pub use self::proposing::ProposeError;
pub use self::service::{Desk, Status};
pub use self::timing::Timing;
pub use self::watching::Watcher;

/// What a node must know to be a member.
#[derive(Debug)]
pub struct MembershipConfig {
    /// Where its log is kept; in memory only with `None`.
    pub data_dir: Option<PathBuf>,
    pub me: Description,
    /// Drawn at random for this process.
    pub incarnation: Incarnation,
    /// Nodes that may know the cluster, or want to form it.
    pub seeds: Seeds,
    /// How many nodes form a cluster. With 1 and seeds, only an existing one is joined.
    pub bootstrap_expect: usize,
    /// Copies of each slot in a cluster that this node forms.
    pub copies: u8,
    pub tls: Option<PeerTls>,
    pub timing: Timing,
}

/// Why a node cannot start. What goes wrong later is told by [`Membership::failure`].
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(
        "{path} belongs to node {theirs}, and this is node {ours}\n  hint: every node needs a --data-dir of its own"
    )]
    AnotherNodes { path: String, theirs: String, ours: String },
    #[error("the times of the cluster do not fit: {0}")]
    Timing(String),
    #[error("a thread could not be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// How a node stands in Raft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Leader,
    /// It votes.
    Follower,
    /// It has the log, and no vote.
    Learner,
    /// It is in no cluster yet.
    None,
}

impl Role {
    /// The word for it in INFO (`raft_role`).
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Leader => "leader",
            Role::Follower => "follower",
            Role::Learner => "learner",
            Role::None => "none",
        }
    }
}

/// A node's membership: everything about the cluster that is not data.
///
/// Dropping it ends it without a farewell.
pub struct Membership {
    node: Arc<Node>,
    tasks: Vec<JoinHandle<()>>,
}

/// How long `leave` waits for others to take the lead and the vote.
const FAREWELL: Duration = Duration::from_secs(3);
/// How long an open connection may delay the end.
const PORT_ENDS_WITHIN: Duration = Duration::from_millis(200);

impl Membership {
    /// Starts. What follows (finding the others, forming or joining) is told by [`Membership::state`] and [`Membership::phase`].
    ///
    /// # Errors
    /// When the log of an earlier start cannot be used, or the configuration is impossible.
    pub async fn start(config: MembershipConfig, raft_listener: TcpListener) -> Result<Membership, MembershipError> {
        config.timing.check().map_err(MembershipError::Timing)?;
        let directory = config.data_dir.clone();
        let opened = tokio::task::spawn_blocking(move || Disk::open(directory.as_deref())).await;
        let (disk, contents) = opened.map_err(std::io::Error::other)??;
        if let Some(seat) = contents.seat.as_ref().filter(|seat| seat.id != config.me.id) {
            let (theirs, ours) = (seat.id.to_string(), config.me.id.to_string());
            return Err(MembershipError::AnotherNodes { path: disk.path().to_owned(), theirs, ours });
        }
        let node = Arc::new(node(config, Writer::start(disk)?));
        let port = serve(&node, raft_listener);
        let life = tokio::spawn(Arc::clone(&node).live(contents));
        Ok(Membership { node, tasks: vec![port, life] })
    }

    /// What other nodes, frontends and the command line ask: to be added to the peer port's server.
    /// Without `groups` it does not answer what is asked about groups.
    pub fn service(&self, groups: Option<Arc<dyn GroupsHandler>>) -> MembershipServer<Desk> {
        service::service(&self.node, groups)
    }

    /// The state that is applied here. Until there is a cluster, an empty one of epoch 0.
    pub fn state(&self) -> watch::Receiver<Arc<ClusterState>> {
        self.node.state.subscribe()
    }

    /// Tells that from now on this process serves by the state of `epoch`, or serves nothing. It gets no lease before this is as far as the
    /// change by which it stands as it does, so it is to be told of each state, behind all that is made of it.
    pub fn serves_by(&self, epoch: u64) {
        self.node.serves_by.store(epoch, Ordering::Release);
    }

    /// This node's number, while the present incarnation is a member.
    pub fn number(&self) -> watch::Receiver<Option<NodeNumber>> {
        self.node.number.subscribe()
    }

    /// The present incarnation. A node that was declared down joins with a new one.
    pub fn incarnation(&self) -> Incarnation {
        self.node.incarnation()
    }

    /// The right to serve.
    pub fn lease(&self) -> Arc<Lease> {
        Arc::clone(&self.node.lease)
    }

    /// What the node is about, in words.
    pub fn phase(&self) -> watch::Receiver<String> {
        self.node.phase.subscribe()
    }

    /// Why the node cannot be a member, if that does not pass by itself: the process should end.
    pub fn failure(&self) -> watch::Receiver<Option<String>> {
        self.node.failure.subscribe()
    }

    /// What this node knows of the cluster and of itself.
    pub fn status(&self) -> Status {
        self.node.status()
    }

    /// Has a change made by the leader, wherever it is. It is tried again until it is done or some seconds have passed, and is made once.
    ///
    /// # Errors
    /// When it was not made, or when that is not known. A refusal by the state is an answer.
    pub async fn propose(&self, change: Change) -> Result<Applied, ProposeError> {
        let deadline = Instant::now() + self.node.timing.proposal;
        self.node.propose(&Proposal::new(change), &[], deadline).await
    }

    /// As [`Self::propose`], for as long as it takes to know what came of it. All the time it is one proposal: what was believed lost, and
    /// comes late, is not made once more.
    pub async fn see_through(&self, change: Change) -> Applied {
        let proposal = Proposal::new(change);
        loop {
            let deadline = Instant::now() + self.node.timing.proposal;
            match self.node.propose(&proposal, &[], deadline).await {
                Ok(applied) => return applied,
                Err(error) => {
                    tracing::warn!(
                        "cluster: what came of a change is not known yet, and it is proposed again: {error}"
                    );
                    tokio::time::sleep(self.node.timing.renewal).await;
                }
            }
        }
    }

    /// The cluster, if the node has one.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.node.cluster()
    }

    /// Who leads, as far as is known here.
    pub fn leader(&self) -> Option<NodeNumber> {
        self.node.seated.get().and_then(Seated::leader)
    }

    /// The term in which this node leads, if it does as far as it knows.
    pub fn leads(&self) -> Option<u64> {
        let metrics = self.node.seated.get()?.metrics();
        (metrics.state.is_leader() && metrics.current_leader == Some(metrics.id)).then_some(metrics.current_term)
    }

    /// How the node stands in Raft.
    pub fn role(&self) -> Role {
        let Some(seated) = self.node.seated.get() else { return Role::None };
        let metrics = seated.metrics();
        match (metrics.current_leader == Some(metrics.id), grants::is_voter(&metrics, seated.seat.number)) {
            (true, _) => Role::Leader,
            (false, true) => Role::Follower,
            (false, false) => Role::Learner,
        }
    }

    /// Says farewell: the cluster gives this node's slots to others, which takes its time and is seen in the state; lead and vote are
    /// handed on here.
    pub async fn leave(&self) {
        let Some(seated) = self.node.seated.get() else { return };
        let deadline = Instant::now() + FAREWELL;
        let change = Change::Leave { number: seated.seat.number, incarnation: self.node.incarnation() };
        if let Err(error) = self.node.propose(&Proposal::new(change), &[], deadline).await {
            tracing::warn!("cluster: the others could not be told that this node leaves: {error}");
            return;
        }
        let mut metrics = seated.raft.metrics();
        while Instant::now() < deadline && metrics.borrow_and_update().state.is_leader() && self.has_others() {
            seated.hand_lead_over(&self.node.state()).await;
            let _in_time = tokio::time::timeout(
                self.node.timing.election_min,
                metrics.wait_until(|metrics| !metrics.state.is_leader()),
            )
            .await;
        }
    }

    /// Ends. To the others it looks like a crash, unless the node has left before.
    pub async fn shutdown(mut self) {
        self.end_raft().await;
        for mut task in self.tasks.drain(..) {
            if tokio::time::timeout(PORT_ENDS_WITHIN, &mut task).await.is_err() {
                task.abort();
            }
        }
        self.node.writer.close().await;
    }

    /// As [`Membership::shutdown`], where others still look at it. What is left of it ends with the last of them.
    pub async fn close(&self) {
        self.end_raft().await;
        self.node.writer.close().await;
    }

    async fn end_raft(&self) {
        self.node.end();
        end_raft(&self.node).await;
    }

    fn has_others(&self) -> bool {
        let state = self.node.state();
        state.members().any(|member| member.standing == crate::state::Standing::Up)
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.node.end();
        let (node, runtime) = (Arc::clone(&self.node), tokio::runtime::Handle::try_current());
        if let (Some(_), Ok(runtime)) = (node.seated.get(), runtime) {
            // Without a port it must not go on leading.
            runtime.spawn(async move { end_raft(&node).await });
        }
    }
}

/// Ends a node's part in Raft, if it has one.
async fn end_raft(node: &Node) {
    if let Some(seated) = node.seated.get() {
        // Whatever it says, it has ended.
        let _ended = seated.raft.shutdown().await;
    }
}

fn node(config: MembershipConfig, writer: Writer) -> Node {
    let empty = ClusterState::new(ClusterId([0; 16]), config.copies);
    Node {
        candidates: Mutex::new(Candidates::new(config.me.clone(), config.bootstrap_expect, !config.seeds.is_none())),
        timing: config.timing,
        me: config.me,
        seeds: config.seeds,
        copies: config.copies,
        channels: Arc::new(Channels::new(config.tls)),
        book: Arc::new(Book::default()),
        lease: Arc::new(Lease::none()),
        writer,
        incarnation: Mutex::new(config.incarnation),
        seated: OnceLock::new(),
        state: watch::Sender::new(Arc::new(empty)),
        serves_by: AtomicU64::new(0),
        number: watch::Sender::new(None),
        phase: watch::Sender::new("starting".to_owned()),
        failure: watch::Sender::new(None),
        closing: CancellationToken::new(),
    }
}

/// Serves the raft port until the node ends.
fn serve(node: &Arc<Node>, listener: TcpListener) -> JoinHandle<()> {
    let router = door::server().add_service(raft_server::service(node));
    let node = Arc::clone(node);
    tokio::spawn(async move {
        let closing = node.closing.clone();
        let served = door::serve(router, listener, node.channels.tls(), closing.cancelled_owned()).await;
        if let Err(error) = served {
            node.fail(format!("the raft port: {error}"));
        }
    })
}
