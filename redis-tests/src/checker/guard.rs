//! What keeps old values out, taken away at all nodes of a cluster.

use super::faults::Fault;
use crate::cluster::nodes::Cluster;
use crate::connection::Connection;

/// One thing that is taken away, and what must then come to light.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mutation {
    /// The name that `DEBUG GUARD` has for it.
    pub guard: &'static str,
    /// What is made to happen, so that it is needed.
    pub faults: &'static [Fault],
}

/// All of them.
pub const MUTATIONS: &[Mutation] = &[
    Mutation { guard: "drop", faults: &[Fault::Calm] },
    Mutation { guard: "changes", faults: &[Fault::Pressure, Fault::LateReplica] },
    Mutation { guard: "loads", faults: &[Fault::Detour] },
    Mutation { guard: "floor", faults: &[Fault::LateMove] },
    Mutation { guard: "copies", faults: &[Fault::CutAndKill] },
    Mutation { guard: "take-backs", faults: &[Fault::Calm] },
    Mutation { guard: "retell", faults: &[Fault::Cut] },
    Mutation { guard: "gaps", faults: &[Fault::DropSlot, Fault::CutListener] },
    Mutation { guard: "lease", faults: &[Fault::Pause] },
];

impl Mutation {
    /// Takes it away at all nodes that answer.
    pub fn take_away(self, cluster: &Cluster) {
        for node in cluster.running() {
            if let Ok(mut connection) = Connection::open(node.address()) {
                let _ = connection.call(&["DEBUG", "GUARD", self.guard, "0"]);
            }
        }
    }
}
