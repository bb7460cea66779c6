//! HTTP/1.1 connections, within limits.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::tls::{HANDSHAKE, TlsAcceptor};

/// Connections of one door at the same time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 1024;

/// Bytes of a request's head, and of what is buffered of its body.
const MAX_BUFFER: usize = 64 * 1024;

/// How long a client may take for a request's head, and keep a connection without a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How long requests under way may take once the door is to close.
const FINISH: Duration = Duration::from_secs(5);

/// How long accepting rests after the system had no descriptor or memory for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// The client's address and ours, as handlers see them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
}

/// Serves `router` until `stop`, then ends the connections in order. Does nothing without a listener.
pub(super) async fn serve(
    listener: Option<TcpListener>,
    router: Router,
    tls: Option<TlsAcceptor>,
    stop: CancellationToken,
) {
    let Some(listener) = listener else {
        return;
    };
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = TaskTracker::new();
    while let Some(stream) = stop.run_until_cancelled(accept(&listener, &permits)).await {
        if let Some((stream, permit)) = stream {
            let (router, tls, stop) = (router.clone(), tls.clone(), stop.clone());
            connections.spawn(async move {
                take_up(stream, router, tls, stop).await;
                drop(permit);
            });
        }
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(FINISH, connections.wait()).await.is_err() {
        warn!(connections = connections.len(), "HTTP connections are cut");
    }
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, permit)),
        Err(error) => {
            warn!(%error, "an HTTP connection could not be accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn take_up(stream: TcpStream, router: Router, tls: Option<TlsAcceptor>, stop: CancellationToken) {
    let (Ok(peer), Ok(local), Ok(())) = (stream.peer_addr(), stream.local_addr(), stream.set_nodelay(true)) else {
        return;
    };
    let router = router.layer(Extension(Ends { peer, local }));
    match tls {
        None => converse(stream, router, stop).await,
        Some(tls) => match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
            Ok(Ok(stream)) => converse(stream, router, stop).await,
            Ok(Err(error)) => debug!(%error, %peer, "no TLS was agreed on"),
            Err(_) => debug!(%peer, "a TLS handshake takes too long"),
        },
    }
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, router: Router, stop: CancellationToken) {
    let service = TowerToHyperService::new(router);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = match stop.run_until_cancelled(connection.as_mut()).await {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "an HTTP connection has failed");
    }
}
