//! The HTTP doors: the API, health, and the metrics.
//!
//! They have a thread of their own: its requests are few beside RESP's, and being one thread it is the one writer of its statistics
//! lane. It ends after the RESP doors, so that `/health` tells of a drain while it lasts.

mod answer;
mod api;
mod console;
mod health;
mod password;
mod serve;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::engine::Engine;
use crate::telemetry;
use crate::tls::TlsAcceptor;

/// The thread behind the HTTP doors.
pub struct Thread {
    stop: CancellationToken,
    thread: JoinHandle<()>,
}

impl Thread {
    /// Starts serving the doors that there are. Must be called within a tokio runtime, the one that the listeners were opened in.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start(
        engine: &Arc<Engine>,
        http: Option<TcpListener>,
        metrics: Option<TcpListener>,
        tls: Option<TlsAcceptor>,
    ) -> io::Result<Thread> {
        let http = http.map(TcpListener::into_std).transpose()?;
        let metrics = metrics.map(TcpListener::into_std).transpose()?;
        let stop = CancellationToken::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let doors = serve_all(http, metrics, tls, Arc::clone(engine), stop.clone());
        let thread = std::thread::Builder::new().name("http".to_owned()).spawn(move || {
            if let Err(error) = runtime.block_on(doors) {
                error!(%error, "HTTP is not served");
            }
        })?;
        Ok(Thread { stop, thread })
    }

    /// Answers the requests under way, then ends.
    pub async fn stop(self) {
        self.stop.cancel();
        let ended = tokio::task::spawn_blocking(move || self.thread.join()).await;
        if !matches!(ended, Ok(Ok(()))) {
            error!("the HTTP thread ended by a panic");
        }
    }
}

async fn serve_all(
    http: Option<std::net::TcpListener>,
    metrics: Option<std::net::TcpListener>,
    tls: Option<TlsAcceptor>,
    engine: Arc<Engine>,
    stop: CancellationToken,
) -> io::Result<()> {
    let http = http.map(TcpListener::from_std).transpose()?;
    let metrics = metrics.map(TcpListener::from_std).transpose()?;
    tokio::join!(
        serve::serve(http, api_router(&engine), tls, stop.clone()),
        serve::serve(metrics, metrics_router(&engine), None, stop),
    );
    Ok(())
}

/// What needs the password, if there is one, and what a load balancer must see without.
fn api_router(engine: &Arc<Engine>) -> Router {
    let guarded = Router::new()
        .route("/", get(console::page))
        .route("/api", get(api::get).put(api::put).delete(api::delete))
        .route_layer(from_fn_with_state(Arc::clone(engine), password::require));
    health_router().merge(guarded).with_state(Arc::clone(engine))
}

/// Always without TLS: it tells no keys or values, and health checks have no certificates.
fn metrics_router(engine: &Arc<Engine>) -> Router {
    health_router().route("/metrics", get(scrape)).with_state(Arc::clone(engine))
}

fn health_router() -> Router<Arc<Engine>> {
    Router::new().route("/health", get(health::health)).route("/ready", get(health::ready))
}

async fn scrape(State(engine): State<Arc<Engine>>) -> Response {
    match telemetry::metrics::render(engine.node()) {
        Ok(text) => ([(header::CONTENT_TYPE, telemetry::metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
