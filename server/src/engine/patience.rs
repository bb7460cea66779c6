//! How long a request waits for the cluster to be of one mind.

use std::time::Duration;

use tokio::time::Instant;

use super::{Engine, MAX_RUNS};

/// How long a request waits for its keys to have an owner that can be reached, before it is refused. Longer than a failed owner takes to
/// be replaced.
const SETTLE: Duration = Duration::from_secs(4);

/// The same where this node itself has lost touch with the cluster: longer than a new leader takes to be found, and then it is more probably
/// cut off, and its clients had better ask another node.
const SETTLE_ALONE: Duration = Duration::from_millis(1_500);

/// How long a request waits for a change of the topology before it is placed again in any case: a node that could not be reached may
/// be there again.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// What is left of a request's chances.
pub(super) struct Patience {
    runs: usize,
    /// The first time that it had to wait for the cluster.
    since: Option<Instant>,
}

impl Patience {
    pub(super) fn new() -> Patience {
        Patience { runs: 1, since: None }
    }

    /// Whether it may run again after loads.
    pub(super) fn another_run(&mut self) -> bool {
        self.runs += 1;
        self.runs <= MAX_RUNS
    }
}

impl Engine {
    /// Waits until the topology is of `epoch` or later, or for a while. False once the request has waited for long enough.
    pub(super) async fn settled(&self, epoch: u64, patience: &mut Patience) -> bool {
        let since = *patience.since.get_or_insert_with(Instant::now);
        let deadline = since + if self.node.is_in_touch() { SETTLE } else { SETTLE_ALONE };
        if Instant::now() >= deadline {
            return false;
        }
        let mut changes = self.node.changes.subscribe();
        let until = (Instant::now() + LOOK_AGAIN).min(deadline);
        let _either = tokio::time::timeout_at(until, changes.wait_for(|current| *current >= epoch)).await;
        true
    }
}
