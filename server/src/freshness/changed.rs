//! What the owner of a key does when the database has changed it.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use forebay_origin::Xid;
use forebay_store::{Key, Keyspace, Presence};

use super::Guard;
use crate::node::Node;

/// What is told of a change, beside its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// The transaction, if it is known.
    pub xid: Option<Xid>,
    /// When it was committed, by the database's clock, in microseconds of Unix' time.
    pub committed_at: Option<i64>,
}

/// Takes out what the store has of the key, unless that was loaded after the change; called under the lock of the key's shard. Tells whether something was.
///
/// What a client has written goes, too: a key of which rows tell is the database's.
pub fn apply(node: &Node, keyspace: &mut Keyspace<'_>, key: &Key<'_>, told: Told) -> bool {
    let freshness = &node.freshness;
    freshness.count(|counts| &counts.changed);
    if let Some(committed_at) = told.committed_at {
        freshness.delays.add(u64::try_from(unix_micros() - committed_at).unwrap_or_default());
    }
    let now = Instant::now();
    let (survives, loads_are_void) = match told.xid {
        Some(xid) => (freshness.memory.changed(key.slot(), key.bytes(), xid, now), false),
        None => {
            freshness.memory.changed_somehow(key.slot(), now);
            (false, true)
        }
    };
    let is_there = keyspace.presence(key) != Presence::Missing || keyspace.filled_by(key).is_some();
    if (survives || !freshness.guards.has(Guard::Drop)) && is_there {
        freshness.count(|counts| &counts.survived);
        return false;
    }
    if loads_are_void {
        keyspace.remove(key);
    }
    if is_there {
        keyspace.discard(key);
        if let Some(member) = node.member() {
            member.replication.record_eviction(key.slot(), key.db(), key.bytes());
        }
        freshness.count(|counts| &counts.dropped);
    } else {
        // Whoever has read it although nothing of it is here.
        keyspace.announce(key);
    }
    is_there
}

fn unix_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
