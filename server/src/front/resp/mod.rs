//! The RESP door: accepted sockets are handed to worker threads, each of which serves its connections to their end.

mod bench;
mod connection;
mod scheduler;
mod shared_socket;
mod socket;
mod workers;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::clients::Client;
use crate::engine::Engine;
use crate::node::Node;
use crate::session::Door;
pub use workers::{Threads, Workers};

/// How long accepting rests after the system had no descriptor or memory for a connection, so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// What a client over the limit is told (Redis' words).
const TOO_MANY_CLIENTS: &[u8] = b"-ERR max number of clients reached\r\n";

/// Accepts connections until `closing` is cancelled, and then those that the system has taken already: it would reset them.
pub async fn accept(
    listener: TcpListener,
    door: Door,
    engine: Arc<Engine>,
    workers: Arc<Workers>,
    closing: CancellationToken,
) {
    while let Some(accepted) = closing.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => admit(&engine, &workers, door, stream, peer).await,
            Err(error) => {
                warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Asked directly, for the runtime may not have heard of them yet.
    let Ok(listener) = listener.into_std() else { return };
    while let Ok((stream, peer)) = listener.accept() {
        if stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = TcpStream::from_std(stream)
        {
            admit(&engine, &workers, door, stream, peer).await;
        }
    }
}

/// Registers a connection and hands it to a worker, or tells it that there are too many.
async fn admit(engine: &Arc<Engine>, workers: &Workers, door: Door, stream: TcpStream, peer: SocketAddr) {
    let node = engine.node();
    let limit = node.settings.maxclients.load(Relaxed);
    let now = node.clock.unix_millis();
    let Ok(local) = stream.local_addr() else {
        return;
    };
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(&stream);
    match node.clients.admit(limit, peer, local, descriptor, now) {
        None => {
            // The socket is new and its send buffer empty: this fits, or the peer is gone. Tokio's own `try_write` would not even try
            // before the poller has told it of the socket.
            let _sent = SockRef::from(&stream).send(TOO_MANY_CLIENTS);
        }
        Some(client) => {
            if let Err(error) = prepare(&stream, node.settings.tcp_keepalive.load(Relaxed)) {
                warn!(%error, %peer, "socket options could not be set");
            }
            workers.serve(stream, Listed { node: Arc::clone(node), client, door }).await;
        }
    }
}

/// A connection's place in the list of clients. It is given up whatever becomes of the connection: served to its end, never taken up
/// because the node shut down, or ended by a panic. A drain counts on that.
struct Listed {
    node: Arc<Node>,
    client: Arc<Client>,
    door: Door,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.node.clients.leave(self.client.id);
        self.node.channels.leave(&self.client);
        self.node.tracking.end(&self.node, &self.client);
    }
}

/// No delay, since every reply is written whole, and keep-alive probes, which find dead peers.
fn prepare(stream: &TcpStream, keepalive_seconds: u64) -> io::Result<()> {
    stream.set_nodelay(true)?;
    if keepalive_seconds > 0 {
        let time = Duration::from_secs(keepalive_seconds);
        let keepalive = TcpKeepalive::new().with_time(time).with_interval(time / 3).with_retries(3);
        SockRef::from(stream).set_tcp_keepalive(&keepalive)?;
    }
    Ok(())
}
