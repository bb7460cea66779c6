//! What a node does by itself: removing what has expired, keeping memory below its limit, closing idle connections.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::clients::Ask;
use crate::memory;
use crate::node::Node;

/// Time between two looks at what has expired.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(50);

/// Entries looked at between two yields; a step holds a lock for well under a millisecond.
const EXPIRY_STEP: usize = 256;

/// Steps in one interval at most, so that an avalanche of deadlines leaves time for requests.
const EXPIRY_STEPS: usize = 64;

/// Entries evicted between two yields.
const EVICTION_STEP: usize = 64;

/// Time between two looks at memory and idle connections.
const SLOW_INTERVAL: Duration = Duration::from_millis(100);

/// Starts the housekeeping tasks; they end when the returned set is shut down.
pub fn start(node: &Arc<Node>, background: &Handle) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn_on(expire(Arc::clone(node)), background);
    tasks.spawn_on(tend(Arc::clone(node)), background);
    tasks
}

async fn expire(node: Arc<Node>) {
    let mut interval = tokio::time::interval(EXPIRY_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        if !node.settings.active_expire.load(Relaxed) || rests(&node) {
            continue;
        }
        expire_round(&node).await;
    }
}

/// The time of a round is that of its steps: between them requests run.
async fn expire_round(node: &Node) {
    let mut took = Duration::ZERO;
    for _ in 0..EXPIRY_STEPS {
        let started = node.clock.instant();
        let more = node.store.expire_step(node.clock.unix_millis(), EXPIRY_STEP).more;
        took += node.clock.between(started, node.clock.instant());
        if !more {
            break;
        }
        tokio::task::yield_now().await;
    }
    node.note_latency("expire-cycle", took, node.clock.unix_millis());
}

/// Whether nothing may change by itself: while clients are paused, and when a test wants it so.
fn rests(node: &Node) -> bool {
    !node.settings.housekeeping.load(Relaxed) || node.gates.paused(node.clock.unix_millis()).is_some()
}

async fn tend(node: Arc<Node>) {
    let mut interval = tokio::time::interval(SLOW_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        if !rests(&node) {
            evict(&node).await;
            close_idle(&node);
            close_stalled(&node);
        }
        node.telemetry.sample_rates(node.clock.unix_millis());
    }
}

async fn evict(node: &Node) {
    loop {
        let limit = node.settings.maxmemory.load(Relaxed);
        if limit == 0 || memory::used() <= limit {
            return;
        }
        let step = node.store.evict_step(node.clock.unix_millis(), EVICTION_STEP, &mut rand::random::<u64>);
        if step.evicted == 0 {
            return;
        }
        tokio::task::yield_now().await;
    }
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
