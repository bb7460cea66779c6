//! The end of a node, in order: no new connections, what has been asked is answered, then everything closes.
//!
//! No request is lost on the way. A connection ends directly behind an answer, so that its client, who has been waiting for that, hears of
//! the end before it sends anything more; or when nothing has come for a while. A request that crosses the end even so is not run, and the
//! client sees that the connection was closed in order without a byte of a reply: it may ask another node. Whatever was run is answered; a
//! connection that must be cut before is reset.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use forebay_cluster::SLOT_COUNT;
use tracing::{info, warn};

use crate::app::App;
use crate::clients::Ask;
use crate::node::Node;
use crate::writes::behind;

/// How often the end of the last connection is looked for; nothing else waits for it.
const GONE_POLL: Duration = Duration::from_millis(5);

/// A connection from which nothing has come for so long is not waited for to ask something.
const SILENCE: Duration = Duration::from_millis(250);

/// How often silent connections are looked for.
const SILENCE_POLL: Duration = Duration::from_millis(50);

/// How long other nodes may take to hear that this one owns nothing any more: they learn with a heartbeat of the Raft leader what has been
/// agreed on. Until then, some forward requests to this node, which answers where to send them.
const HEARD: Duration = Duration::from_millis(250);

/// How long connections may take to see that they were killed. They look whenever they wait for anything.
const KILLED: Duration = Duration::from_secs(5);

/// How long others may take to own what this node did.
const LEAVE: Duration = Duration::from_secs(8);

/// How long the loads that are under way may hold up the end after the last connection has gone.
const LOADS_END: Duration = Duration::from_secs(1);

impl App {
    /// Shuts down. Connections that have not ended by themselves are cut after `grace`, or when `hurry` completes. `/health` answers 503
    /// meanwhile, and HTTP is served until the last RESP connection has gone.
    pub async fn drain(self, grace: Duration, hurry: impl Future<Output = ()>) {
        let node = Arc::clone(self.node());
        node.gates.drain();
        let mut hurry = std::pin::pin!(hurry);
        tokio::select! {
            () = leave(&node) => {}
            () = &mut hurry => {}
        }
        self.end(grace, hurry).await;
    }

    /// The same, but that the node gives nothing to others: for a whole cluster that ends.
    pub async fn end(mut self, grace: Duration, hurry: impl Future<Output = ()>) {
        let node = Arc::clone(self.node());
        node.gates.drain();
        let mut hurry = std::pin::pin!(hurry);
        self.closing.cancel();
        while self.doors.join_next().await.is_some() {}
        info!(connections = node.clients.len(), ?grace, "draining");
        tokio::select! {
            () = see_off(&node) => {}
            () = tokio::time::sleep(grace) => warn!(connections = node.clients.len(), "the grace period is over"),
            () = &mut hurry => warn!(connections = node.clients.len(), "asked to hurry"),
        }
        node.clients.ask(Ask::Kill, |_| true);
        if tokio::time::timeout(KILLED, all_gone(&node)).await.is_err() {
            // Their threads would never end either.
            return warn!(connections = node.clients.len(), "connections do not end");
        }
        self.http.stop().await;
        behind::flush_before_the_end(&node).await;
        self.housekeeping.shutdown().await;
        node.writes.behind.close();
        if let Some(cluster) = &node.cluster {
            cluster.thread.stop();
        }
        if let Some(member) = node.member() {
            // A node that is started in this one's place needs the log.
            let _late = tokio::time::timeout(LOADS_END, member.membership.close()).await;
        }
        if tokio::time::timeout(LOADS_END, self.engine.close()).await.is_err() {
            warn!("loads under way are given up: nobody waits for them any more");
        }
        let threads = self.threads;
        if tokio::task::spawn_blocking(move || threads.join()).await.is_err() {
            warn!("the worker threads could not be waited for");
        }
        info!("ended");
    }
}

/// Gives what this node owns to those who hold copies, so that nobody need miss it.
async fn leave(node: &Node) {
    let Some(member) = node.member() else { return };
    if !node.topology.load().has_heir() {
        return;
    }
    let mut changes = node.changes.subscribe();
    let left = async {
        member.membership.leave().await;
        let owns_nothing = |_: &u64| (0..SLOT_COUNT).all(|slot| !node.topology.load().is_here(slot));
        let _gone = changes.wait_for(owns_nothing).await;
    };
    match tokio::time::timeout(LEAVE, left).await {
        Ok(()) => {
            info!("what this node owned is others' now");
            tokio::time::sleep(HEARD).await;
        }
        Err(_) => warn!("not all that this node owned could be given to others in time"),
    }
}

/// Has each connection end when its client expects nothing of it, until the last one has.
async fn see_off(node: &Node) {
    let began = Instant::now();
    node.clients.ask(Ask::Leave, |_| true);
    while tokio::time::timeout(SILENCE_POLL, all_gone(node)).await.is_err() {
        if began.elapsed() >= SILENCE {
            let before = node.clock.unix_millis() - SILENCE.as_millis() as i64;
            node.clients.ask(Ask::Drain, |client| client.last_request_at.load(Relaxed) <= before);
        }
    }
}

async fn all_gone(node: &Node) {
    while !node.clients.is_empty() {
        tokio::time::sleep(GONE_POLL).await;
    }
}
