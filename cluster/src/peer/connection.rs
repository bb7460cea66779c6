//! A lane's own connection to a peer.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tonic::body::Body;
use tonic::codegen::{Service, http};

use super::WINDOW;
use super::lane::{Lane, LaneExecutor, LaneStream};
use super::link::{CONNECT, KEEP_ALIVE, KEEP_ALIVE_TIMEOUT};
use crate::tls::PeerTls;

/// What gRPC calls are made on. The connection ends with the last of them after this is dropped.
pub(super) struct Connection(SendRequest<Body>);

/// Why there is no connection.
type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Connection {
    /// Connects to `address`, a host and a port.
    ///
    /// # Errors
    /// When nobody answers there, or not as a node does.
    pub(super) async fn open(lane: Rc<dyn Lane>, address: &str, tls: Option<&PeerTls>) -> Result<Connection, Failure> {
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {CONNECT:?}"));
        let stream = tokio::time::timeout(CONNECT, TcpStream::connect(address)).await.map_err(late)??;
        stream.set_nodelay(true)?;
        let stream = lane.take_up(stream.into_std()?)?;
        let stream = match tls {
            None => stream,
            Some(tls) => {
                let agreed = tokio::time::timeout(CONNECT, secure(stream, address, tls));
                agreed.await.map_err(late)??
            }
        };
        let (requests, connection) = http2::Builder::new(LaneExecutor(Rc::clone(&lane)))
            .timer(TokioTimer::new())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(4 * WINDOW)
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .handshake(TokioIo::new(stream))
            .await?;
        lane.spawn(Box::pin(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to a peer has ended");
            }
        }));
        Ok(Connection(requests))
    }
}

async fn secure(stream: Box<dyn LaneStream>, address: &str, tls: &PeerTls) -> Result<Box<dyn LaneStream>, Failure> {
    Ok(Box::new(tls.connector().connect(tls.name_of(address)?, stream).await?))
}

impl Service<http::Request<Body>> for Connection {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
