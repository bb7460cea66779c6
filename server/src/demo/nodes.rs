//! The demo's nodes: several in one process, which are a cluster by themselves.
//!
//! What the process has once they share: memory is counted, and limited by `--maxmemory`, for all of them together; so are open files,
//! the log, and signals. Everything else (sockets, threads, store, settings, figures) is each node's own.

use std::time::Duration;

use forebay_cluster::topology::address;
use forebay_origin::Fault;
use futures_util::future::{join_all, select_all};
use tokio::runtime::Handle;

use crate::app::{App, Ports, StartError};
use crate::config::{ClusterConfig, Config, Doors, IdentityConfig, Part};
use crate::node::Node;
use crate::telemetry::figures::Figures;

/// How many there are.
const NODES: usize = 3;

/// How long they may take to share the slots out before the demo goes on: requests are answered meanwhile, too.
const SHARED_OUT: Duration = Duration::from_secs(3);

/// The nodes, the one with the known ports first.
pub(super) struct Nodes(Vec<App>);

impl Nodes {
    /// Starts them: the first as it is configured, the others on free ports. With `--peer-port off` there is one node only.
    ///
    /// # Errors
    /// When a node does not start.
    pub(super) async fn start(config: &Config, background: &Handle) -> Result<Nodes, StartError> {
        refuse(config).map_err(StartError::Faults)?;
        let mut apps = vec![App::start(&config_of(config, 0, None), background).await?];
        if let Some(peer_port) = apps[0].ports().peer {
            let host = config.identity.advertise.clone().unwrap_or_else(|| config.doors.bind.to_string());
            let first = address(&host, peer_port);
            for number in 1..NODES {
                apps.push(App::start(&config_of(config, number, Some(&first)), background).await?);
            }
        }
        let nodes = Nodes(apps);
        let _late = tokio::time::timeout(SHARED_OUT, nodes.shared_out()).await;
        Ok(nodes)
    }

    /// Waits until each node is one of all, and every slot has its owner and its copies.
    async fn shared_out(&self) {
        for node in self.nodes() {
            let Some(member) = node.member() else { continue };
            let mut changes = node.changes.subscribe();
            let is_settled = |_: &u64| {
                let topology = node.topology.load();
                member.is_ready() && topology.nodes().len() == self.0.len() && {
                    let state = member.membership.state();
                    let state = state.borrow();
                    state.is_settled()
                }
            };
            let _ended = changes.wait_for(is_settled).await;
        }
    }

    fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.0.iter().map(|app| &**app.node())
    }

    /// Where each listens.
    pub(super) fn ports(&self) -> Vec<Ports> {
        self.0.iter().map(App::ports).collect()
    }

    /// The address of all.
    pub(super) fn bind(&self) -> std::net::IpAddr {
        self.0[0].bind()
    }

    /// What all of them have done together.
    pub(super) fn figures(&self) -> Figures {
        self.nodes().map(Figures::of).sum()
    }

    /// Waits until a client calls SHUTDOWN at any of them.
    pub(super) async fn shutdown_requested(&self) {
        select_all(self.nodes().map(|node| Box::pin(node.gates.shutdown_requested()))).await;
    }

    /// Ends all at once, so that none has anybody to give anything to.
    pub(super) async fn end(self, grace: Duration, hurry: impl Future<Output = ()>) {
        let (hurried, told) = tokio::sync::watch::channel(false);
        let ends = self.0.into_iter().map(|app| {
            let mut told = told.clone();
            app.end(grace, async move {
                // Without a sender nobody can hurry it any more.
                if told.wait_for(|is_hurried| *is_hurried).await.is_err() {
                    std::future::pending().await
                }
            })
        });
        let hurrying = async {
            hurry.await;
            hurried.send_replace(true);
            std::future::pending().await
        };
        tokio::select! {
            _ended = join_all(ends) => {}
            () = hurrying => {}
        }
    }
}

/// What the demo brings itself.
fn refuse(config: &Config) -> Result<(), Vec<Fault>> {
    let joins = config.part.member().is_some_and(|cluster| !cluster.join.is_empty() || cluster.discover.is_some());
    match joins {
        true => Err(vec![Fault::unplaced(
            "--join, --discover",
            "the demo's nodes are a cluster by themselves",
            "run `forebay node` to join another",
        )]),
        false => Ok(()),
    }
}

/// The configuration of one of them. `first` is who the others join.
fn config_of(config: &Config, number: usize, first: Option<&String>) -> Config {
    let free = |port: Option<u16>| port.map(|_| 0);
    // A task is one node, and these are several.
    let config = &Config { ecs_metadata: None, ..config.clone() };
    let Config { doors, identity, part, .. } = config.clone();
    let identity = IdentityConfig {
        data_dir: identity.data_dir.map(|directory| directory.join(format!("node-{}", number + 1))),
        node_id: identity.node_id.filter(|_| number == 0),
        ..identity
    };
    // Their workers would only take turns on the same cores.
    let threads = (config.threads / NODES).max(1);
    let part = match (part, first) {
        (Part::Member(cluster), None) => Part::Member(ClusterConfig { bootstrap_expect: 1, ..cluster }),
        (Part::Member(cluster), Some(first)) => {
            let join = vec![first.clone()];
            Part::Member(ClusterConfig { peer_port: 0, raft_port: 0, bootstrap_expect: 1, join, ..cluster })
        }
        (alone, _) => alone,
    };
    match first {
        None => Config { identity, part, threads, ..config.clone() },
        Some(_) => Config {
            doors: Doors {
                port: 0,
                direct_port: free(doors.direct_port),
                http_port: free(doors.http_port),
                metrics_port: free(doors.metrics_port),
                ..doors
            },
            identity,
            part,
            threads,
            ..config.clone()
        },
    }
}
