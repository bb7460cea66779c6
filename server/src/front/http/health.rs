//! Whether this node should be sent requests.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;

use crate::engine::Engine;

/// 200 while the node serves, 503 while it drains; while it starts nobody listens. An ill origin changes neither: hot keys are answered
/// without it, and the other nodes have the same origin.
pub(super) async fn health(State(engine): State<Arc<Engine>>) -> (StatusCode, &'static str) {
    match engine.node().gates.is_draining() {
        false => (StatusCode::OK, "serving\n"),
        true => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
    }
}
