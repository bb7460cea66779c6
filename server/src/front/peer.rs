//! The door of the other nodes: accepted connections are handed to the worker threads, as clients' are.

use std::sync::Arc;
use std::time::Duration;

use forebay_cluster::door::PeerPort;
use tokio::net::TcpListener;
use tracing::warn;

use super::resp::Workers;

/// How long accepting rests after the system had no descriptor or memory for a connection, so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Accepts connections until the future is dropped.
pub async fn accept(listener: TcpListener, port: PeerPort, workers: Arc<Workers>) {
    let port = Arc::new(port);
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Or an answer that takes several packets waits for the caller's delayed acknowledgement, 40 ms.
                if let Err(error) = stream.set_nodelay(true) {
                    warn!(%error, %peer, "socket options could not be set");
                }
                workers.serve_peer(stream, &port).await;
            }
            Err(error) => {
                warn!(%error, "another node's connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
