//! What a node does by itself: keeping memory below its limit, closing idle connections.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::clients::Ask;
use crate::node::Node;
use crate::tracking::hearing;
use crate::{compaction, memory};

/// Time between two looks at memory and idle connections.
const SLOW_INTERVAL: Duration = Duration::from_millis(100);

/// Starts the housekeeping tasks; they end when the returned set is shut down.
pub fn start(node: &Arc<Node>, background: &Handle) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn_on(tend(Arc::clone(node)), background);
    let listening = hearing::listen(Arc::clone(node));
    tasks.spawn_on(async move { match listening.await {} }, background);
    tasks
}

async fn tend(node: Arc<Node>) {
    let mut interval = tokio::time::interval(SLOW_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        if !node.rests(node.clock.unix_millis()) {
            let resident = memory::resident();
            withhold(&node, resident);
            let wasted = compaction::goal(&node, resident);
            node.compactions.follow(wasted);
            if wasted > 0 {
                memory::give_back();
            }
            node.shortage.follow(&node);
            close_idle(&node);
            close_stalled(&node);
        }
        node.telemetry.sample_rates(node.clock.unix_millis());
    }
}

/// Keeps resident memory near `maxmemory`, too.
fn withhold(node: &Node, resident: u64) {
    let (limit, before) = (node.settings.maxmemory.load(Relaxed), node.settings.withheld.load(Relaxed));
    let withheld = match limit {
        0 => 0,
        limit => memory::withheld(limit, resident, before),
    };
    node.settings.withheld.store(withheld, Relaxed);
}

fn close_idle(node: &Node) {
    let timeout = node.settings.timeout.load(Relaxed) as i64 * 1000;
    if timeout == 0 {
        return;
    }
    let now = node.clock.unix_millis();
    for client in node.clients.all() {
        if now - client.last_request_at.load(Relaxed) > timeout {
            client.ask(Ask::Kill);
        }
    }
}

/// Closes connections that have left too many replies untaken for too long.
fn close_stalled(node: &Node) {
    let now = node.clock.unix_millis();
    let limits = &node.settings.output_limits;
    if limits.all()[0][1] == 0 {
        return;
    }
    for client in node.clients.all().iter().filter(|client| limits.are_outlasted_by(&client.unsent, now)) {
        client.ask(Ask::Kill);
    }
}
