//! Whether this node should be sent requests.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use forebay_cluster::SLOT_COUNT;

use crate::cluster::{Member, Part};
use crate::engine::Engine;
use crate::node::Node;

/// 200 while the node serves, 503 while it drains; while it starts nobody listens. An ill origin changes neither: hot keys are answered
/// without it, and the other nodes have the same origin.
pub(super) async fn health(State(engine): State<Arc<Engine>>) -> (StatusCode, &'static str) {
    match engine.node().gates.is_draining() {
        false => (StatusCode::OK, "serving\n"),
        true => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
    }
}

/// As `/health`, and 503 also until this node is a member of a formed cluster, by whose latest known state it answers. Of a frontend: until
/// it knows owners, and whenever no node tells it of the cluster.
pub(super) async fn ready(State(engine): State<Arc<Engine>>) -> (StatusCode, String) {
    let node = engine.node();
    let is_ready = match node.is_frontend() {
        true => node.is_in_touch() && has_owners(node),
        false => node.is_taking_part(),
    };
    match (node.gates.is_draining(), is_ready) {
        (false, true) => (StatusCode::OK, "ready\n".to_owned()),
        (false, false) => (StatusCode::SERVICE_UNAVAILABLE, not_ready(node)),
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned()),
    }
}

fn not_ready(node: &Node) -> String {
    let membership = match node.cluster.as_ref().map(|cluster| &cluster.part) {
        Some(Part::Member(Member { membership, .. })) => membership,
        Some(Part::Frontend(watcher)) => {
            let problem = watcher.problem().map(|problem| format!(": {problem}")).unwrap_or_default();
            return format!("no node tells of the cluster{problem}\n");
        }
        // It is ready.
        None => return String::new(),
    };
    let is_member = membership.number().borrow().is_some();
    let without = if is_member { " without the right to serve, which its leader grants" } else { "" };
    format!("{}{without}\n", *membership.phase().borrow())
}

fn has_owners(node: &Node) -> bool {
    let topology = node.topology.load();
    (0..SLOT_COUNT).any(|slot| topology.owner_of(slot).is_some())
}
