//! Assembly: from a configuration to a running node.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arc_swap::ArcSwap;
use forebay_cluster::discovery::DiscoveryError;
use forebay_cluster::membership::MembershipError;
use forebay_cluster::state::Incarnation;
use forebay_cluster::topology::address;
use forebay_cluster::{NodeId, NodeNumber, PeerTlsError, Standing, Topology};
use forebay_origin::{Fault, Origin};
use forebay_store::{Store, StoreConfig};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::cluster::{Cluster, Met, look_on, meet, outside};
use crate::command::table::Table;
use crate::config::{Config, Part};
use crate::data_dir::DataDirError;
use crate::descriptors;
use crate::engine::Engine;
use crate::freshness;
use crate::front::{http, peer, resp};
use crate::housekeeping;
use crate::identity::Identity;
use crate::listeners::{ClusterListeners, Listeners, port_of};
use crate::node::Node;
use crate::reclaim::Reclaimer;
use crate::roles::{Role, Roles};
use crate::session::Door;
use crate::settings::Settings;
use crate::telemetry::Telemetry;
use crate::tls::{self, TlsAcceptor};
use crate::tracking;
use crate::who::Who;
use crate::writes::{Behind, Writes, behind};

/// A node that serves. [`App::drain`] is its end.
pub struct App {
    pub(crate) engine: Arc<Engine>,
    pub(crate) doors: JoinSet<()>,
    /// Ends the doors.
    pub(crate) closing: CancellationToken,
    pub(crate) http: http::Thread,
    pub(crate) housekeeping: JoinSet<()>,
    pub(crate) threads: resp::Threads,
    bind: IpAddr,
    ports: Ports,
}

/// Where the node listens, as the system gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    pub open: u16,
    pub direct: Option<u16>,
    pub http: Option<u16>,
    pub metrics: Option<u16>,
    /// For other nodes.
    pub peer: Option<u16>,
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{}", lines(.0))]
    Faults(Vec<Fault>),
    #[error("error: {0}")]
    DataDir(#[from] DataDirError),
    #[error("error: {0}")]
    Membership(#[from] MembershipError),
    #[error("error: {0}")]
    PeerTls(#[from] PeerTlsError),
    #[error("error: {0}")]
    Discovery(#[from] DiscoveryError),
    #[error("error: the system gives no thread or socket: {0}")]
    System(#[from] io::Error),
}

impl App {
    /// Binds the sockets, builds the node and opens its doors. `background` runs loads and housekeeping.
    ///
    /// # Errors
    /// When a port is taken, the data directory or the origin's configuration is bad, or the system has no threads to give.
    pub async fn start(config: &Config, background: &Handle) -> Result<App, StartError> {
        let mut listeners = Listeners::bind(&config.doors, config.part.member()).map_err(StartError::Faults)?;
        if let Some(doors) = listeners.cluster.as_ref().filter(|_| config.trusts_strangers()) {
            warn_of_strangers(config.doors.bind, doors);
        }
        let who = Who::find(config).await?;
        let ports = Ports::of(&listeners);
        let tls = config.tls.as_ref().map(tls::acceptor).transpose().map_err(StartError::Faults)?;
        let origin = start_origin(config).await.map_err(StartError::Faults)?;
        let (met, cluster) = match (&config.part, listeners.cluster.take()) {
            (Part::Member(cluster), Some(doors)) => {
                let (met, cluster) = meet(config, cluster, &who, ports, doors).await?;
                (Some(met), Some(cluster))
            }
            (Part::Frontend(frontend), _) => (None, Some(outside(frontend, config.threads, config.peer_tls.as_ref())?)),
            (Part::Alone | Part::Member(_), _) => (None, None),
        };
        let node = Arc::new(build(config, who, ports, origin, cluster)?);
        tracking::watch(&node);
        let app = App::open(node, listeners, (config.doors.bind, ports), tls, met, background).await?;
        app.announce();
        Ok(app)
    }

    async fn open(
        node: Arc<Node>,
        listeners: Listeners,
        (bind, ports): (IpAddr, Ports),
        tls: Option<TlsAcceptor>,
        met: Option<Met>,
        background: &Handle,
    ) -> Result<App, StartError> {
        let engine = Arc::new(Engine::new(Arc::clone(&node), background.clone()));
        let mut housekeeping = housekeeping::start(&node, background);
        let (workers, threads) = resp::Workers::start(node.identity.worker_threads, &engine, tls.as_ref(), background)?;
        let workers = Arc::new(workers);
        if let Some(met) = met {
            let accept = |listener, port| peer::accept(listener, port, Arc::clone(&workers));
            met.take_part(&engine, accept, &mut housekeeping, background).await;
        }
        look_on(&node, &mut housekeeping, background);
        if node.origin.is_some() {
            let (engine, node) = (Arc::clone(&engine), Arc::clone(&node));
            match node.cluster {
                // Nobody else can have the keys.
                None => behind::put_back(&node),
                Some(_) => drop(housekeeping.spawn_on(behind::replay(Arc::clone(&engine)), background)),
            }
            housekeeping.spawn_on(async move { match behind::flush(node).await {} }, background);
            housekeeping.spawn_on(async move { match freshness::keep(engine).await {} }, background);
        }
        let (mut doors, closing) = (JoinSet::new(), CancellationToken::new());
        let direct = listeners.direct.map(|listener| (listener, Door::Direct));
        for (listener, door) in std::iter::once((listeners.open, Door::Open)).chain(direct) {
            let (engine, workers) = (Arc::clone(&engine), Arc::clone(&workers));
            doors.spawn_on(resp::accept(listener, door, engine, workers, closing.clone()), background);
        }
        let http = http::Thread::start(&engine, listeners.http, listeners.metrics, tls)?;
        Ok(App { engine, doors, closing, http, housekeeping, threads, bind, ports })
    }

    /// What runs requests.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// What the parts of the process share.
    pub fn node(&self) -> &Arc<Node> {
        self.engine.node()
    }

    /// The address of all doors.
    pub fn bind(&self) -> IpAddr {
        self.bind
    }

    /// The ports that the doors have got.
    pub fn ports(&self) -> Ports {
        self.ports
    }

    fn announce(&self) {
        let Node { identity, origin, .. } = &**self.node();
        info!(
            version = env!("CARGO_PKG_VERSION"),
            node = %identity.node_id,
            bind = identity.bind,
            port = self.ports.open,
            direct_port = self.ports.direct,
            http_port = self.ports.http,
            metrics_port = self.ports.metrics,
            threads = identity.worker_threads,
            groups = origin.as_ref().map(|origin| origin.groups().len()),
            "the doors are open"
        );
    }
}

impl Ports {
    fn of(listeners: &Listeners) -> Ports {
        Ports {
            open: port_of(&listeners.open),
            direct: listeners.direct.as_ref().map(port_of),
            http: listeners.http.as_ref().map(port_of),
            metrics: listeners.metrics.as_ref().map(port_of),
            peer: listeners.cluster.as_ref().map(|doors| port_of(&doors.peer)),
        }
    }
}

/// Those who are kept out elsewhere by a password.
fn warn_of_strangers(bind: IpAddr, doors: &ClusterListeners) {
    let (peer, raft) = (port_of(&doors.peer), port_of(&doors.raft));
    warn!(
        "whoever can reach {bind} at port {peer} (nodes) or {raft} (Raft) can read and write every key without a password, and remove nodes: give \
         --peer-tls-cert, --peer-tls-key and --peer-tls-ca, or let nobody but nodes and frontends reach these ports (a firewall, a security \
         group). --insecure says that this is so"
    );
}

async fn start_origin(config: &Config) -> Result<Option<Arc<Origin>>, Vec<Fault>> {
    match &config.origin {
        None => Ok(None),
        Some(origin) => Origin::start(origin.clone(), config.groups.clone()).await.map(|origin| Some(Arc::new(origin))),
    }
}

fn build(
    config: &Config,
    who: Who,
    ports: Ports,
    origin: Option<Arc<Origin>>,
    cluster: Option<Cluster>,
) -> io::Result<Node> {
    let clock = Clock::new();
    let store = Store::new(StoreConfig { databases: config.databases, seed: rand::random(), ..StoreConfig::default() });
    store.settings().set_policy(config.maxmemory_policy);
    let identity = Identity {
        node_id: who.id.clone(),
        run_id: NodeId::from_bytes(rand::random()).to_string(),
        started_at: clock.unix_millis(),
        worker_threads: config.threads,
        port: ports.open,
        bind: config.doors.bind.to_string(),
        databases: config.databases,
        executable: std::env::current_exe().unwrap_or_default(),
        config_file: config.file.clone(),
        zone: who.zone.clone(),
        debug_commands: config.debug_commands,
    };
    let (topology, roles) = match &cluster {
        Some(cluster) => (Topology::of(&cluster.state().borrow(), None), Roles::all(Role::Away)),
        None => (Topology::solo(alone(who, ports)), Roles::all(Role::Owned)),
    };
    Ok(Node {
        reclaimer: Reclaimer::start()?,
        // Each worker has a lane, and HTTP's thread the one after them (`Node::http_lane`).
        telemetry: Telemetry::new(config.threads + 1, Table::get().size()),
        settings: settings(config),
        identity,
        clock,
        store,
        origin,
        groups: Default::default(),
        freshness: Default::default(),
        writes: Writes::new(Behind::open(config.identity.data_dir.as_deref(), config.write_behind_max)?),
        topology: ArcSwap::from_pointee(topology),
        roles,
        cluster,
        changes: watch::Sender::new(0),
        clients: Default::default(),
        channels: Default::default(),
        compactions: Default::default(),
        shortage: Default::default(),
        gates: Default::default(),
        tracking: Default::default(),
    })
}

/// The one node of a cluster that nobody else can join.
fn alone(who: Who, ports: Ports) -> forebay_cluster::Node {
    let Who { id, host, zone } = who;
    forebay_cluster::Node {
        number: NodeNumber(1),
        id,
        peer_address: address(&host, 0),
        host,
        open_port: ports.open,
        direct_port: ports.direct.unwrap_or_default(),
        http_port: ports.http.unwrap_or_default(),
        peer_port: 0,
        raft_port: 0,
        zone,
        standing: Standing::Up,
        incarnation: Incarnation(0),
    }
}

fn settings(config: &Config) -> Settings {
    let settings = Settings::default();
    settings.maxmemory.store(config.maxmemory, Relaxed);
    settings.hot_key_reads.store(config.part.member().map_or(0, |member| member.hot_key_reads), Relaxed);
    settings.freshness_samples.store(config.freshness_samples, Relaxed);
    settings.maxclients.store(descriptors::provide_for(config.maxclients), Relaxed);
    settings.requirepass.store(config.requirepass.as_ref().map(|password| Arc::new(password.clone().into_bytes())));
    settings
}

fn lines(faults: &[Fault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
