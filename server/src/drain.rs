//! The end of a node, in order: no new connections, what has been asked is answered, then everything closes.

use std::sync::Arc;
use std::time::Duration;

use forebay_cluster::{SLOT_COUNT, Standing};
use tracing::{info, warn};

use crate::app::App;
use crate::clients::Ask;
use crate::node::Node;

/// How often the end of the last connection is looked for; nothing else waits for it.
const GONE_POLL: Duration = Duration::from_millis(5);

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
        self.doors.shutdown().await;
        info!(connections = node.clients.len(), ?grace, "draining");
        ask_all(&node, Ask::Drain);
        tokio::select! {
            () = all_gone(&node) => {}
            () = tokio::time::sleep(grace) => warn!(connections = node.clients.len(), "the grace period is over"),
            () = &mut hurry => warn!(connections = node.clients.len(), "asked to hurry"),
        }
        ask_all(&node, Ask::Kill);
        if tokio::time::timeout(KILLED, all_gone(&node)).await.is_err() {
            // Their threads would never end either.
            return warn!(connections = node.clients.len(), "connections do not end");
        }
        self.http.stop().await;
        self.housekeeping.shutdown().await;
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
    let is_alone = node.topology.load().nodes().iter().filter(|node| node.standing == Standing::Up).count() < 2;
    if is_alone {
        return;
    }
    let mut changes = node.changes.subscribe();
    let left = async {
        member.membership.leave().await;
        let owns_nothing = |_: &u64| (0..SLOT_COUNT).all(|slot| !node.topology.load().is_here(slot));
        let _gone = changes.wait_for(owns_nothing).await;
    };
    match tokio::time::timeout(LEAVE, left).await {
        Ok(()) => info!("what this node owned is others' now"),
        Err(_) => warn!("not all that this node owned could be given to others in time"),
    }
}

fn ask_all(node: &Node, ask: Ask) {
    for client in node.clients.all() {
        client.ask(ask);
    }
}

async fn all_gone(node: &Node) {
    while !node.clients.is_empty() {
        tokio::time::sleep(GONE_POLL).await;
    }
}
