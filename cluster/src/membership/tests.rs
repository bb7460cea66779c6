//! Several nodes in one process, on the loopback device. They wait for conditions: how fast things go is printed, and not judged.

mod failure;
mod formation;
mod identity;
mod joining;
mod watching;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use forebay_proto::PEER_PROTOCOL;
use forebay_proto::membership::Request;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

use super::{Membership, MembershipConfig, MembershipError, Timing};
use crate::slots::NodeNumber;
use crate::state::{ClusterState, Description, Incarnation, Standing};
use crate::topology::NodeId;

/// What any condition may take on a busy machine.
pub(super) const DEADLINE: Duration = Duration::from_secs(60);

/// Node `node` as it describes itself, at an address that is not there.
pub(super) fn description(node: u8) -> Description {
    Description {
        id: NodeId::from_bytes([node; 20]),
        host: format!("node-{node}"),
        open_port: 6379,
        direct_port: 6380,
        http_port: 0,
        peer_port: 8000 + u16::from(node),
        raft_port: 7000 + u16::from(node),
        zone: None,
        weight: 1000,
        version: "test".to_owned(),
    }
}

/// What anybody may ask a node.
pub(super) fn question() -> Request {
    Request { protocol: PEER_PROTOCOL, cluster: Vec::new().into(), content: Vec::new().into() }
}

/// A place for a node: its ports are bound, so that others can be told of them.
struct Place {
    description: Description,
    peer: TcpListener,
    raft: TcpListener,
    data_dir: Option<PathBuf>,
    timing: Timing,
}

impl Place {
    async fn new(node: u8) -> Place {
        let listen = || TcpListener::bind("127.0.0.1:0");
        let (peer, raft) = (listen().await.expect("a port"), listen().await.expect("a port"));
        let port = |listener: &TcpListener| listener.local_addr().expect("it is bound").port();
        let description = Description {
            host: "127.0.0.1".to_owned(),
            peer_port: port(&peer),
            raft_port: port(&raft),
            ..description(node)
        };
        Place { description, peer, raft, data_dir: None, timing: Timing::default() }
    }

    fn on_disk(mut self, directory: &tempfile::TempDir) -> Place {
        self.data_dir = Some(directory.path().to_owned());
        self
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.description.peer_port)
    }

    async fn start(self, seeds: &[String], expect: usize) -> Running {
        self.try_start(seeds, expect).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Joins the cluster of a node.
    async fn join_through(self, node: &Running) -> Running {
        self.start(std::slice::from_ref(&node.address), 1).await
    }

    async fn try_start(self, seeds: &[String], expect: usize) -> Result<Running, MembershipError> {
        let address = self.address();
        let config = MembershipConfig {
            data_dir: self.data_dir,
            me: self.description,
            incarnation: Incarnation(rand::random()),
            seeds: seeds.to_vec().into(),
            bootstrap_expect: expect,
            copies: 2,
            tls: None,
            timing: self.timing,
        };
        let membership = Membership::start(config, self.raft).await?;
        let router = Server::builder().add_service(membership.service(None));
        let peer_port = tokio::spawn(async move {
            router.serve_with_incoming(TcpListenerStream::new(self.peer)).await.expect("it serves");
        });
        let follows = follow(&membership);
        Ok(Running { membership, peer_port, follows, address })
    }
}

/// What the rest of a node does with each state.
fn follow(membership: &Membership) -> JoinHandle<()> {
    let (node, mut states) = (Arc::clone(&membership.node), membership.state());
    tokio::spawn(async move {
        loop {
            node.serves_by.store(states.borrow_and_update().epoch(), Ordering::Release);
            tokio::select! {
                _ = states.changed() => {}
                () = node.closing.cancelled() => return,
            }
        }
    })
}

/// A node that runs.
struct Running {
    membership: Membership,
    peer_port: JoinHandle<()>,
    /// Serves by each state that comes.
    follows: JoinHandle<()>,
    address: String,
}

impl Running {
    fn state(&self) -> Arc<ClusterState> {
        self.membership.node.state()
    }

    /// The state, as soon as it is as it should be.
    async fn until(&self, what: &str, is_so: impl Fn(&ClusterState) -> bool) -> Arc<ClusterState> {
        let mut states = self.membership.state();
        let found = tokio::time::timeout(DEADLINE, states.wait_for(|state| is_so(state))).await;
        match found {
            Ok(Ok(state)) => Arc::clone(&state),
            _ => panic!("not within {DEADLINE:?}: {what}. {:#?}", self.describe()),
        }
    }

    async fn joined(&self) -> NodeNumber {
        let mut number = self.membership.number();
        let joined = tokio::time::timeout(DEADLINE, number.wait_for(Option::is_some)).await;
        let joined = joined.unwrap_or_else(|_| panic!("not joined within {DEADLINE:?}: {:#?}", self.describe()));
        joined.expect("it lives").expect("it is one")
    }

    fn number(&self) -> NodeNumber {
        self.membership.status().number.expect("it has one")
    }

    fn describe(&self) -> String {
        let status = self.membership.status();
        let members: Vec<_> = status.state.members().map(|member| (member.number, member.standing)).collect();
        format!("{} leader {:?} voters {:?} {members:?}", status.phase, status.leader, status.voters)
    }

    fn voters(&self) -> BTreeSet<NodeNumber> {
        self.membership.status().voters.into_iter().collect()
    }

    /// Old and new voters must agree, so that a single old one that ended then would take the cluster with it.
    fn votes_are_changing(&self) -> bool {
        let seated = self.membership.node.seated.get().expect("it has joined");
        seated.metrics().membership_config.get_joint_config().len() > 1
    }

    fn cut(&self, is_cut: bool) {
        self.membership.node.channels.cut.store(is_cut, Ordering::Relaxed);
    }

    fn has_lease(&self) -> bool {
        self.membership.lease().holds(Instant::now())
    }

    /// Ends without a farewell.
    async fn crash(self) {
        self.peer_port.abort();
        self.membership.shutdown().await;
    }
}

/// Waits for what no channel tells of.
async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < end, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn stands(state: &ClusterState, number: NodeNumber, standing: Standing) -> bool {
    state.member(number).is_some_and(|member| member.standing == standing)
}

fn up(state: &ClusterState) -> usize {
    state.members().filter(|member| member.standing == Standing::Up).count()
}

/// A cluster of `count` nodes that found each other, with all votes given out.
async fn cluster(count: u8) -> Vec<Running> {
    let mut places = Vec::new();
    for node in 1..=count {
        places.push(Place::new(node).await);
    }
    form(places).await
}

async fn form(places: Vec<Place>) -> Vec<Running> {
    let count = places.len();
    let seeds: Vec<String> = places.iter().map(Place::address).collect();
    let mut nodes = Vec::new();
    for place in places {
        nodes.push(place.start(&seeds, count).await);
    }
    settle(&nodes).await;
    nodes
}

/// All are members, and there is a leader that has given the votes out.
async fn settle(nodes: &[Running]) {
    for node in nodes {
        node.joined().await;
        node.until("all are up", |state| up(state) == nodes.len()).await;
    }
    let votes = if nodes.len() < 3 { 1 } else { nodes.len().min(5) - (nodes.len().min(5) + 1) % 2 };
    eventually("the votes are given out, and all have a lease", || {
        nodes.iter().all(|node| {
            node.voters().len() == votes
                && !node.votes_are_changing()
                && node.has_lease()
                && node.membership.leader().is_some()
        })
    })
    .await;
}

fn leader(nodes: &[Running]) -> usize {
    let leader = nodes[0].membership.leader().expect("there is one");
    nodes.iter().position(|node| node.number() == leader).expect("it is one of them")
}
