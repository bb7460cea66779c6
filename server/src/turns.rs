//! Work that a worker does by turns with its requests.
//!
//! A thread of its own would compete with the workers for their processors, and one that is put to sleep by the scheduler with a
//! shard's lock in its hands holds up every request for that shard for as long as others run. A worker is awake as long as it
//! holds a lock, for it is the one who answers.

use std::time::Duration;

use crate::node::Node;

/// The worker that does what one alone is to do.
pub const FIRST_LANE: usize = 0;

/// How long a worker works at a stretch before it looks after its connections.
pub const TURN: Duration = Duration::from_micros(500);

/// How long a worker that has requests to answer leaves the work alone between two turns. The timer's milliseconds make it up to
/// twice that, so one kind of work takes a quarter to a third of the worker's time at the most.
const REST: Duration = Duration::from_millis(1);

/// The time between two turns.
pub struct Rests<'n> {
    node: &'n Node,
    lane: usize,
    /// How often the worker had read from its connections before the last turn.
    reads: u64,
}

impl<'n> Rests<'n> {
    pub fn new(node: &'n Node, lane: usize) -> Self {
        Rests { node, lane, reads: 0 }
    }

    /// Lets the worker answer what has come; for longer if something has come since the last turn.
    pub async fn rest(&mut self) {
        let reads = self.node.telemetry.lanes.lane(self.lane).reads();
        if std::mem::replace(&mut self.reads, reads) == reads {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(REST).await;
        }
    }
}
