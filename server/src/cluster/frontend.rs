//! A frontend: a door of a cluster of which it is no member.
//!
//! It follows the agreed states from outside ([`Watcher`]) and hands every request on, as a node does with those for keys of others.
//!
//! **Invariant.** *Nothing is ever written to a frontend's store.* It is [`Away`](crate::roles::Role::Away) to every slot, and stays so:
//! roles are set by what members do alone ([`follow`](super::follow), [`duties`](super::duties)). Commands on keys run under the locks of
//! slots that the node serves, so that none runs here; there is no origin, thus no fill; no other node can send copies, since there is no
//! door for them; and DEBUG, which may write beside all that, is shut.

use std::convert::Infallible;
use std::sync::Arc;

use forebay_cluster::discovery::Seeds;
use forebay_cluster::membership::Watcher;
use forebay_cluster::peer::{Hello, Peers};
use forebay_cluster::state::Incarnation;
use forebay_cluster::{PeerTls, PeerTlsFiles, Topology};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::follow::tell;
use super::{Cluster, Part, PeerThread};
use crate::app::StartError;
use crate::config::FrontendConfig;
use crate::node::Node;

/// What a frontend with so many worker threads has of its cluster before it has found it.
///
/// # Errors
/// When a certificate is bad, the source of nodes can never be asked, or the system has no thread to give.
pub fn outside(config: &FrontendConfig, lanes: usize, tls: Option<&PeerTlsFiles>) -> Result<Cluster, StartError> {
    let FrontendConfig { join, discover, peer_port, dns_server } = config;
    let tls = tls.map(PeerTls::read).transpose()?;
    let seeds = Seeds::new(join.clone(), discover.as_ref(), *peer_port, *dns_server)?;
    let thread = PeerThread::start()?;
    let watcher = Arc::new(Watcher::new(seeds, tls.clone()));
    let watched = Arc::clone(&watcher);
    let peers = Peers::new(thread.handle().clone(), lanes, tls, move || watched.is_in_touch());
    Ok(Cluster { part: Part::Frontend(watcher), peers, thread, forwarded: Default::default() })
}

/// Begins to follow the cluster. What runs ends with `tasks`.
pub fn look_on(node: &Arc<Node>, tasks: &mut JoinSet<()>, background: &Handle) {
    let Some(Part::Frontend(watcher)) = node.cluster.as_ref().map(|cluster| &cluster.part) else { return };
    let (watching, following) = (Arc::clone(watcher), follow(Arc::clone(node), Arc::clone(watcher)));
    tasks.spawn_on(async move { match watching.watch().await {} }, background);
    tasks.spawn_on(async move { match following.await {} }, background);
}

/// Routes by each new state, for ever.
async fn follow(node: Arc<Node>, watcher: Arc<Watcher>) -> Infallible {
    let mut states = watcher.state();
    let incarnation = Incarnation(rand::random());
    loop {
        let state = Arc::clone(&states.borrow_and_update());
        if let Some(cluster) = node.cluster.as_ref().filter(|_| state.epoch() > 0) {
            let hello = Hello { cluster: state.cluster(), number: None, incarnation, epoch: state.epoch() };
            cluster.peers.introduce(hello);
            tell(&node, Topology::of(&state, None));
        }
        // The sender lives in `watcher`, which this holds.
        let _changed = states.changed().await;
    }
}
