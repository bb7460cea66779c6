//! The ports that other nodes call: connections are accepted, by TLS if nodes have certificates, and who is turned away is told of.

use std::collections::HashMap;
use std::error::Error;
use std::future::{Future, ready};
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::{Router, TcpIncoming};

use crate::peer::lane::LaneExecutor;
use crate::peer::{Lane, LaneStream, WINDOW};
use crate::refusal;
use crate::tls::PeerTls;

/// How long a caller may take to agree on a connection.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Callers with whom a connection is being agreed on at the same time; the others wait.
const MAX_HANDSHAKES: usize = 64;
/// A caller that is turned away again and again for the same reason is told of this often.
const REMIND: Duration = Duration::from_secs(60);
/// How many callers are remembered for that.
const MAX_REFUSED: usize = 256;
/// A caller that is silent for the first time is asked whether it is there, and its connection is closed after the second without an answer: who
/// vanishes says no farewell, and its connections would stay for ever. Callers ask more often themselves.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves what `router` has, until `end`.
///
/// # Errors
/// When the port cannot be served any more.
pub async fn serve(
    router: Router,
    listener: TcpListener,
    tls: Option<&PeerTls>,
    end: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    // Or an answer that takes several packets waits for the caller's delayed acknowledgement, 40 ms. tonic's own setting is for ports that
    // it has opened itself.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    match tls {
        None => router.serve_with_incoming_shutdown(incoming, end).await,
        Some(tls) => router.serve_with_incoming_shutdown(secured(incoming, tls), end).await,
    }
}

/// A server that gives up callers that have vanished.
pub(crate) fn server() -> Server {
    Server::builder().http2_keepalive_interval(Some(KEEP_ALIVE)).http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
}

/// The door of a node's peer port: its connections are served by the threads that serve clients.
pub struct PeerPort {
    routes: Routes,
    acceptor: Option<TlsAcceptor>,
    handshakes: Semaphore,
    refused: Refused,
}

impl PeerPort {
    /// A door to the services that `routes` has.
    pub fn new(routes: Routes, tls: Option<&PeerTls>) -> PeerPort {
        PeerPort {
            routes: routes.prepare(),
            acceptor: tls.map(|tls| TlsAcceptor::from(tls.server())),
            handshakes: Semaphore::new(MAX_HANDSHAKES),
            refused: Refused::default(),
        }
    }

    /// Serves a connection on this thread's lane until it ends.
    pub async fn serve(&self, lane: Rc<dyn Lane>, stream: std::net::TcpStream) {
        let Ok(caller) = stream.peer_addr() else { return };
        let served = match (lane.take_up(stream), &self.acceptor) {
            (Err(error), _) => Err(error.into()),
            (Ok(stream), None) => self.converse(lane, stream).await,
            (Ok(stream), Some(acceptor)) => {
                // It is never closed.
                let place = self.handshakes.acquire().await;
                let agreed = agree(stream, caller.ip(), acceptor, &self.refused).await;
                drop(place);
                match agreed {
                    Some(stream) => self.converse(lane, stream).await,
                    None => Ok(()),
                }
            }
        };
        if let Err(error) = served {
            tracing::debug!(%error, %caller, "a peer's connection has ended");
        }
    }

    async fn converse(
        &self,
        lane: Rc<dyn Lane>,
        stream: impl LaneStream + 'static,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let service = TowerToHyperService::new(self.routes.clone());
        let connection = http2::Builder::new(LaneExecutor(lane))
            .timer(TokioTimer::new())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(4 * WINDOW)
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        Ok(connection.await?)
    }
}

fn secured(incoming: TcpIncoming, tls: &PeerTls) -> impl Stream<Item = io::Result<TlsStream<TcpStream>>> {
    let acceptor = TlsAcceptor::from(tls.server());
    let refused = Arc::new(Refused::default());
    let agreeing = incoming.map(move |accepted| {
        let (acceptor, refused) = (acceptor.clone(), Arc::clone(&refused));
        async move {
            match accepted {
                Ok(stream) => {
                    let caller = stream.peer_addr().ok()?.ip();
                    agree(stream, caller, &acceptor, &refused).await.map(Ok)
                }
                Err(error) => Some(Err(error)),
            }
        }
    });
    agreeing.buffer_unordered(MAX_HANDSHAKES).filter_map(ready)
}

async fn agree<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    caller: IpAddr,
    acceptor: &TlsAcceptor,
    refused: &Refused,
) -> Option<TlsStream<S>> {
    let why = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => return Some(stream),
        // Whoever looks whether the port is open goes away like this.
        Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return None,
        Ok(Err(error)) => refusal::in_words(&error),
        Err(_) => format!("it does not agree on a connection within {HANDSHAKE:?}"),
    };
    if refused.is_news(caller, &why) {
        tracing::warn!("cluster: a connection from {caller} is refused: {why}");
    }
    None
}

/// Who was turned away, and why, and when that was told.
#[derive(Default)]
struct Refused(Mutex<HashMap<IpAddr, (String, Instant)>>);

impl Refused {
    fn is_news(&self, caller: IpAddr, why: &str) -> bool {
        let mut refused = self.0.lock();
        let is_known = refused.get(&caller).is_some_and(|(told, at)| told == why && at.elapsed() < REMIND);
        if is_known {
            return false;
        }
        if refused.len() >= MAX_REFUSED {
            refused.clear();
        }
        refused.insert(caller, (why.to_owned(), Instant::now()));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_refusal_is_told_once() {
        let refused = Refused::default();
        let caller = |last| IpAddr::from([10, 0, 0, last]);
        assert!(refused.is_news(caller(1), "no certificate"));
        assert!(!refused.is_news(caller(1), "no certificate"));
        assert!(refused.is_news(caller(1), "another authority"));
        assert!(refused.is_news(caller(2), "no certificate"));
    }

    #[test]
    fn few_callers_are_remembered() {
        let refused = Refused::default();
        for n in 0..2_000_u32 {
            assert!(refused.is_news(IpAddr::from(n.to_be_bytes()), "no certificate"));
            assert!(refused.0.lock().len() <= MAX_REFUSED);
        }
    }
}
