//! Taking part in a cluster: from the configuration to the tasks that keep the node one of several.

use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_cluster::PeerTls;
use forebay_cluster::discovery::Seeds;
use forebay_cluster::door::PeerPort;
use forebay_cluster::membership::{Membership, MembershipConfig, Timing};
use forebay_cluster::peer::{Hello, PeerService, Peers};
use forebay_cluster::state::{Description, Incarnation};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tonic::service::Routes;
use tracing::info;

use super::copies::{self, CopyHost, FeedOpener};
use super::{Cluster, Member, Part, PeerThread, duties, follow};
use crate::app::{Ports, StartError};
use crate::config::{ClusterConfig, Config};
use crate::engine::Engine;
use crate::engine::peers::PeerDoor;
use crate::groups::GroupsDesk;
use crate::hot::{self, Hot};
use crate::listeners::{ClusterListeners, port_of};
use crate::node::Node;
use crate::replication::{Host, Replication};
use crate::who::Who;

/// How long a lone node's start waits until it is a cluster of one. It is told at most this late that it is not.
const FORMED: Duration = Duration::from_secs(10);

/// Between two looks at whether it is.
const LOOK: Duration = Duration::from_millis(2);

/// What is there before the node is.
pub struct Met {
    membership: Arc<Membership>,
    peer: TcpListener,
    tls: Option<PeerTls>,
    /// Whether nobody else is waited for.
    is_alone: bool,
}

/// Begins to look for the other nodes.
///
/// # Errors
/// When what was kept of a cluster cannot be read, or a certificate is bad.
pub async fn meet(
    config: &Config,
    cluster: &ClusterConfig,
    who: &Who,
    ports: Ports,
    doors: ClusterListeners,
) -> Result<(Met, Cluster), StartError> {
    let tls = config.peer_tls.as_ref().map(PeerTls::read).transpose()?;
    let peer_port = port_of(&doors.peer);
    let seeds = Seeds::new(cluster.join.clone(), cluster.discover.as_ref(), peer_port, cluster.dns_server)?;
    let is_alone = seeds.is_none();
    let me = Description {
        id: who.id.clone(),
        host: who.host.clone(),
        open_port: ports.open,
        direct_port: ports.direct.unwrap_or_default(),
        http_port: ports.http.unwrap_or_default(),
        peer_port,
        raft_port: port_of(&doors.raft),
        zone: who.zone.clone(),
        weight: cluster.weight,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let membership = MembershipConfig {
        data_dir: config.identity.data_dir.clone(),
        me,
        incarnation: Incarnation(rand::random()),
        seeds,
        bootstrap_expect: cluster.bootstrap_expect,
        copies: cluster.copies,
        tls: tls.clone(),
        timing: Timing::default(),
    };
    let membership = Arc::new(Membership::start(membership, doors.raft).await?);
    let hot = Hot::default();
    let member = Member {
        replication: Arc::new(Replication::new(Arc::clone(&hot.grants))),
        hot,
        lease: membership.lease(),
        membership: Arc::clone(&membership),
        min_acks: cluster.min_acks,
    };
    let (thread, lease) = (PeerThread::start()?, membership.lease());
    let has_lease = move || lease.holds(Instant::now());
    let parts = Cluster {
        part: Part::Member(member),
        peers: Peers::new(thread.handle().clone(), config.threads, tls.clone(), has_lease),
        thread,
        forwarded: Default::default(),
    };
    Ok((Met { membership, peer: doors.peer, tls, is_alone }, parts))
}

impl Met {
    /// Opens the door for other nodes, where connections are taken by `accept`, and begins to follow what is agreed on. What runs ends with
    /// `tasks`.
    pub async fn take_part<F: Future<Output = ()> + Send + 'static>(
        self,
        engine: &Arc<Engine>,
        accept: impl FnOnce(TcpListener, PeerPort) -> F,
        tasks: &mut JoinSet<()>,
        background: &Handle,
    ) {
        let Met { membership, peer, tls, is_alone } = self;
        let node = engine.node();
        let service = PeerService::new(Arc::new(PeerDoor::new(Arc::clone(engine), background.clone())));
        let introduction = service.introduction();
        let routes = Routes::new(service.into_server())
            .add_service(membership.service(Some(Arc::new(GroupsDesk::new(Arc::clone(node))))));
        tasks.spawn_on(accept(peer, PeerPort::new(routes, tls.as_ref())), background);
        tasks.spawn_on(introduce(Arc::clone(engine), Arc::clone(&membership), introduction), background);
        keep_up(node, &membership, tasks, background);
        if is_alone {
            let _late = tokio::time::timeout(FORMED, taking_part(node, &membership)).await;
        }
    }
}

/// Waits until the node takes part, or never will. Its lease comes behind the topology by which it serves, and is told to nobody.
async fn taking_part(node: &Node, membership: &Membership) {
    let (mut looks, failure) = (tokio::time::interval(LOOK), membership.failure());
    while !node.is_taking_part() && failure.borrow().is_none() {
        looks.tick().await;
    }
}

/// What a member does all the time.
fn keep_up(node: &Arc<Node>, membership: &Arc<Membership>, tasks: &mut JoinSet<()>, background: &Handle) {
    let Some(member) = node.member() else { return };
    let (node, membership, replication) =
        (|| Arc::clone(node), || Arc::clone(membership), || Arc::clone(&member.replication));
    let (following, handing, reporting) = (
        follow(node(), membership(), replication()),
        duties::hand_over(node(), membership()),
        duties::report(node(), membership()),
    );
    tasks.spawn_on(async move { match following.await {} }, background);
    tasks.spawn_on(async move { match handing.await {} }, background);
    tasks.spawn_on(async move { match reporting.await {} }, background);
    let telling = copies::tell_of_copies(replication(), membership());
    tasks.spawn_on(async move { match telling.await {} }, background);
    let host = Arc::new(CopyHost::new(node()));
    let feeding = replication().keep_feeds(Arc::clone(&host) as Arc<dyn Host>, Arc::new(FeedOpener::new(node())));
    tasks.spawn_on(feeding, background);
    let taking_back = hot::take_back(node());
    tasks.spawn_on(async move { match taking_back.await {} }, background);
    let audited = replication();
    tasks.spawn_on(async move { audited.audit(&*host).await }, background);
}

/// Says who this node is, to those whom it calls and who call it, as soon as it is a member.
async fn introduce(engine: Arc<Engine>, membership: Arc<Membership>, introduction: impl Fn(Hello) + Send) {
    let Some(cluster) = &engine.node().cluster else { return };
    let mut numbers = membership.number();
    loop {
        if let Some(number) = *numbers.borrow_and_update() {
            let state = Arc::clone(&membership.state().borrow());
            let (cluster_id, incarnation) = (state.cluster(), membership.incarnation());
            let hello = Hello { cluster: cluster_id, number: Some(number), incarnation, epoch: state.epoch() };
            cluster.peers.introduce(hello);
            introduction(hello);
            info!(cluster = %hello.cluster, %number, "this node is a member");
        }
        if numbers.changed().await.is_err() {
            return;
        }
    }
}
