//! The HTTP door.

use std::sync::Arc;

use tokio::net::TcpListener;

use crate::engine::Engine;

/// Serves the API until the future is dropped.
pub async fn serve(listener: TcpListener, engine: Arc<Engine>) {
    let _ = (listener, engine);
    std::future::pending::<()>().await;
}

/// Serves `/metrics` until the future is dropped.
pub async fn serve_metrics(listener: TcpListener, engine: Arc<Engine>) {
    let _ = (listener, engine);
    std::future::pending::<()>().await;
}
