//! The end of a node, in order: no new connections, what has been asked is answered, then everything closes.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use crate::app::App;
use crate::clients::Ask;
use crate::node::Node;

/// How often the end of the last connection is looked for; nothing else waits for it.
const GONE_POLL: Duration = Duration::from_millis(5);

/// How long connections may take to see that they were killed. They look whenever they wait for anything.
const KILLED: Duration = Duration::from_secs(5);

/// How long the loads that are under way may hold up the end after the last connection has gone.
const LOADS_END: Duration = Duration::from_secs(1);

impl App {
    /// Shuts down. Connections that have not ended by themselves are cut after `grace`, or when `hurry` completes. `/health` answers 503
    /// meanwhile, and HTTP is served until the last RESP connection has gone.
    pub async fn drain(mut self, grace: Duration, hurry: impl Future<Output = ()>) {
        let node = Arc::clone(self.node());
        node.gates.drain();
        self.doors.shutdown().await;
        info!(connections = node.clients.len(), ?grace, "draining");
        ask_all(&node, Ask::Drain);
        tokio::select! {
            () = all_gone(&node) => {}
            () = tokio::time::sleep(grace) => warn!(connections = node.clients.len(), "the grace period is over"),
            () = hurry => warn!(connections = node.clients.len(), "asked to hurry"),
        }
        ask_all(&node, Ask::Kill);
        if tokio::time::timeout(KILLED, all_gone(&node)).await.is_err() {
            // Their threads would never end either.
            return warn!(connections = node.clients.len(), "connections do not end");
        }
        self.http.stop().await;
        self.housekeeping.shutdown().await;
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
