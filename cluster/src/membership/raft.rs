//! What openraft is told of our types and times.

use std::fmt;
use std::sync::Arc;

use openraft::{Config, SnapshotPolicy};
use serde::{Deserialize, Serialize};

use super::timing::Timing;
use crate::slots::NodeNumber;
use crate::state::{Applied, Change, ClusterId};

openraft::declare_raft_types!(
    /// One leader per term, as in the paper: leases count on it.
    pub(super) Types:
        D = Command,
        R = Applied,
        NodeId = u64,
        Node = openraft::BasicNode,
        LeaderId = openraft::impls::leader_id_std::LeaderId<Self::Term, Self::NodeId>,
        AsyncRuntime = openraft::TokioRuntime,
);

pub(super) type Raft = openraft::Raft<Types, super::machine::Machine>;
pub(super) type Entry = openraft::alias::EntryOf<Types>;
pub(super) type LogId = openraft::alias::LogIdOf<Types>;
pub(super) type Vote = openraft::alias::VoteOf<Types>;
pub(super) type StoredMembership = openraft::alias::StoredMembershipOf<Types>;
pub(super) type SnapshotMeta = openraft::alias::SnapshotMetaOf<Types>;
/// A state in postcard's encoding.
pub(super) type Snapshot = openraft::alias::SnapshotOf<Types, Vec<u8>>;
pub(super) type Metrics = openraft::RaftMetrics<Types>;

/// What stands in the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Command {
    /// The first of all.
    Form { cluster: ClusterId, copies: u8 },
    /// A change. `id` was drawn for it: if it comes twice, since its proposer did not learn what came of it and tried again, it is made
    /// once, and both get the same answer.
    Change { id: u64, change: Change },
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::Form { cluster, .. } => write!(f, "form {cluster}"),
            Command::Change { id, change } => write!(f, "{id:x}: {change:?}"),
        }
    }
}

/// Applied entries after which a snapshot is made; a state is at most some 100 KiB, and as many entries are read at a start.
const SNAPSHOT_EVERY: u64 = 1_000;
/// Entries that are kept behind a snapshot, for followers that are a little late.
const KEPT_BEHIND_SNAPSHOT: u64 = 200;
/// Places in openraft's channels. Its default of 65,536 takes 28 MB.
const CHANNEL: u64 = 1_000;
/// A snapshot is one message, and may take this long on a poor line.
const SNAPSHOT_TIMEOUT_MS: u64 = 10_000;

pub(super) fn config(timing: &Timing) -> Result<Arc<Config>, String> {
    let milliseconds = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let config = Config {
        cluster_name: "forebay".to_owned(),
        heartbeat_interval: milliseconds(timing.heartbeat),
        election_timeout_min: milliseconds(timing.election_min),
        election_timeout_max: milliseconds(timing.election_max),
        enable_pre_vote: Some(true),
        // A term is led by one process only. One that went on leading in the term of its earlier life could take what is applied for all
        // that it had written, and write anew at a place of the log of which a follower has more than its disk had.
        enable_leader_restore: Some(false),
        install_snapshot_timeout: SNAPSHOT_TIMEOUT_MS,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_EVERY),
        max_in_snapshot_log_to_keep: KEPT_BEHIND_SNAPSHOT,
        api_channel_size: Some(CHANNEL),
        notification_channel_size: Some(CHANNEL),
        state_machine_channel_size: Some(CHANNEL),
        ..Config::default()
    };
    config.validate().map(Arc::new).map_err(|error| error.to_string())
}

/// A node's number as openraft has it.
pub(super) fn raft_id(number: NodeNumber) -> u64 {
    u64::from(number.0)
}

/// And back. Ids come from numbers only.
pub(super) fn number_of(id: u64) -> NodeNumber {
    NodeNumber(u32::try_from(id).unwrap_or(u32::MAX))
}
