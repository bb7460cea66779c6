//! Assembly: from a configuration to a running node, and back down in order.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::clients::Ask;
use crate::engine::Engine;
use crate::front::{http, resp};
use crate::housekeeping;
use crate::node::Node;

/// The sockets of a node. Bound before anything is built, so that a port in use is the first thing to be told.
pub struct Listeners {
    pub open: TcpListener,
    pub direct: Option<TcpListener>,
    pub http: Option<TcpListener>,
    pub metrics: Option<TcpListener>,
}

/// A node that serves.
pub struct App {
    engine: Arc<Engine>,
    doors: JoinSet<()>,
    housekeeping: JoinSet<()>,
    threads: resp::Threads,
}

impl App {
    /// Builds the node's moving parts and opens its doors. `background` runs loads, HTTP and housekeeping.
    ///
    /// # Errors
    /// When the system has no threads or sockets to give.
    pub fn start(node: Arc<Node>, listeners: Listeners, background: Handle) -> io::Result<App> {
        let worker_threads = node.identity.worker_threads;
        let engine = Arc::new(Engine::new(Arc::clone(&node), background.clone()));
        let (workers, threads) = resp::Workers::start(worker_threads, &engine)?;
        let workers = Arc::new(workers);
        let mut doors = JoinSet::new();
        for listener in std::iter::once(listeners.open).chain(listeners.direct) {
            doors.spawn_on(resp::accept(listener, Arc::clone(&engine), Arc::clone(&workers)), &background);
        }
        if let Some(listener) = listeners.http {
            doors.spawn_on(http::serve(listener, Arc::clone(&engine)), &background);
        }
        if let Some(listener) = listeners.metrics {
            doors.spawn_on(http::serve_metrics(listener, Arc::clone(&engine)), &background);
        }
        let housekeeping = housekeeping::start(&node, &background);
        Ok(App { engine, doors, housekeeping, threads })
    }

    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Shuts down: no new connections, what has been asked is answered, then the connections close in order. After `grace`, or when
    /// `hurry` completes, those that are left are cut.
    pub async fn drain(mut self, grace: Duration, hurry: impl Future<Output = ()>) {
        let node = Arc::clone(self.engine.node());
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
        all_gone(&node).await;
        self.housekeeping.shutdown().await;
        self.engine.close().await;
        let threads = self.threads;
        if tokio::task::spawn_blocking(move || threads.join()).await.is_err() {
            warn!("the worker threads could not be waited for");
        }
    }
}

/// Addresses that listeners are bound to, for messages.
pub fn address_of(listener: &TcpListener) -> Option<SocketAddr> {
    listener.local_addr().ok()
}

fn ask_all(node: &Node, ask: Ask) {
    for client in node.clients.all() {
        client.ask(ask);
    }
}

/// How often the end of the last connection is looked for; nothing else waits for it.
const GONE_POLL: Duration = Duration::from_millis(5);

async fn all_gone(node: &Node) {
    while !node.clients.is_empty() {
        tokio::time::sleep(GONE_POLL).await;
    }
}
