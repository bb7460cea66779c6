//! Eviction that no request asks for: after the limit was lowered, or a part of it withheld.
//!
//! The housekeeping sees when that is so; the first worker does it, between the requests that it answers. Requests that need memory
//! evict for themselves (`engine/gates.rs`).

use std::convert::Infallible;

use tokio::sync::Notify;

use crate::memory;
use crate::node::Node;
use crate::turns::{FIRST_LANE, Rests, TURN};

/// Entries evicted between two looks at the clock.
const STEP: usize = 16;

/// How the first worker is told that more is allocated than may be.
#[derive(Default)]
pub struct Shortage(Notify);

impl Shortage {
    /// Has the worker evict if more is allocated than may be.
    pub fn follow(&self, node: &Node) {
        if is_short(node) {
            self.0.notify_one();
        }
    }
}

/// Evicts whenever it is needed, for ever.
pub async fn evict(node: &Node) -> Infallible {
    let mut rests = Rests::new(node, FIRST_LANE);
    loop {
        node.shortage.0.notified().await;
        while turn(node) {
            rests.rest().await;
        }
    }
}

/// Tells whether there is more to do.
fn turn(node: &Node) -> bool {
    let now = node.clock.unix_millis();
    if node.rests(now) {
        return false;
    }
    let began = node.clock.instant();
    while is_short(node) {
        let step = node.evict_step(now, STEP);
        if step.evicted == 0 {
            return false;
        }
        if node.clock.between(began, node.clock.instant()) >= TURN {
            return true;
        }
    }
    false
}

fn is_short(node: &Node) -> bool {
    node.settings.memory_budget().is_some_and(|budget| memory::used() > budget)
}
