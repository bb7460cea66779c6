//! Active expiry. Each worker removes what has expired in a share of the store, between the requests that it answers.

use std::convert::Infallible;
use std::time::Duration;

use forebay_store::{ExpiryShare, Garbage, UnixMillis};

use crate::clock::Instant;
use crate::node::Node;
use crate::turns::{Rests, TURN};

/// Entries looked at between two looks at the clock.
const STEP: usize = 128;

/// The shortest and the longest time until the next look at what has expired.
const SOONEST: UnixMillis = 5;
const LATEST: UnixMillis = 100;

/// Expires a worker's share for ever. `lane` is the worker's number and its statistics'.
pub async fn expire(node: &Node, lane: usize) -> Infallible {
    let mut work =
        Work { node, share: ExpiryShare::new(lane, node.identity.worker_threads), garbage: Garbage::default() };
    let mut rests = Rests::new(node, lane);
    loop {
        match work.turn() {
            true => rests.rest().await,
            false => tokio::time::sleep(work.pause()).await,
        }
    }
}

struct Work<'n> {
    node: &'n Node,
    share: ExpiryShare,
    garbage: Garbage,
}

impl Work<'_> {
    /// Expires for a while. Tells whether there is more to do.
    fn turn(&mut self) -> bool {
        let Work { node, share, garbage } = self;
        let now = node.clock.unix_millis();
        if node.expires_nothing(now) || node.store.next_death(share) > now {
            return false;
        }
        let began = node.clock.instant();
        loop {
            let step = node.store.expire_step(share, now, STEP, garbage);
            node.reclaimer.take_over(garbage);
            // What the reclaimer has no room for is freed here.
            *garbage = Garbage::default();
            let took = since(node, began);
            if !step.more || took >= TURN {
                node.note_latency("expire-cycle", took, now);
                return step.more;
            }
        }
    }

    /// Until the next turn, when there is nothing to do now.
    fn pause(&self) -> Duration {
        let left = self.node.store.next_death(&self.share).saturating_sub(self.node.clock.unix_millis());
        Duration::from_millis(left.clamp(SOONEST, LATEST) as u64)
    }
}

fn since(node: &Node, began: Instant) -> Duration {
    node.clock.between(began, node.clock.instant())
}
