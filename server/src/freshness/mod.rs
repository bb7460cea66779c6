//! What the database has replaced is not served.
//!
//! One node, the *keeper*, follows what is committed in the database ([`keeper`]) and tells the owner of each key that a transaction has
//! touched (`FOREBAY.CHANGED`). The owner takes the entry out, has the holders of copies do so, too, and answers when they have. Only when that is so
//! for all keys of a transaction is the database told that the change need not be kept for us any more; a keeper that dies is followed by
//! another, who is told of all that was not confirmed again.
//!
//! # Why nothing old is stored afterwards
//!
//! A load may have read its row before a commit and come back after the entry was taken out. So each load also reads its statement's
//! snapshot, and the owner remembers for each key which transactions have changed it ([`memory`]):
//!
//! 1. *A fill must see what is remembered.* Under the lock of the key's shard a fill is stored only if its snapshot sees every transaction that
//!    is remembered for the key; otherwise the load is repeated, at the primary if a replica was late. A change that comes later finds the
//!    entry and takes it out. The lock orders the two.
//! 2. *What is forgotten was seen by whoever began later.* What is remembered has limits. When something is forgotten, the slot has a *floor*: a
//!    fill must have been read at the primary by a load that began afterwards, or by a snapshot below which every forgotten transaction had
//!    ended. A node that becomes owner of a slot remembers nothing of it, which is the same, so nothing of this has to travel with slots.
//! 3. *What the feed did not tell of is called in.* After a gap, and when a whole group is concerned, the cluster agrees on a new generation of the
//!    group (`Change::CallIn`): with it no entry from before is of the group's definition any more ([`crate::groups`]). Before, each slot gets a floor: a
//!    replica may not have seen yet what calls for that.
//! 4. *A change without a transaction's id* (a message of Kafka that names none) voids the loads under way, as a client's write does.
//!
//! An entry survives a change that its own load has seen already: then a change that is told of twice, or just after the load, costs no
//! second load.

mod changed;
mod delays;
mod guards;
mod keeper;
mod memory;
pub mod meter;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use forebay_origin::{Feed, FeedStatus, FeedView};
use parking_lot::Mutex;

pub use changed::{Told, apply};
pub use delays::Delays;
pub use guards::{Guard, Guards};
pub use keeper::keep;
pub use memory::{Load, Memory, Recollection};

/// A node's part in keeping what it serves fresh.
#[derive(Default)]
pub struct Freshness {
    pub memory: Memory,
    pub counts: Counts,
    /// From the commits of changes to when they came here, by the clocks of the database and of this node.
    pub delays: Delays,
    /// All there, but in tests.
    pub guards: Guards,
    /// Whether all that holds, measured.
    pub meter: meter::Meter,
    /// The feeds that this node follows as the keeper.
    followed: Mutex<Vec<(Feed, FeedView)>>,
}

/// What has been done about changes since the start, at this node as the owner of keys.
#[derive(Debug, Default)]
pub struct Counts {
    /// Keys that were told of.
    pub changed: AtomicU64,
    /// Entries that were taken out.
    pub dropped: AtomicU64,
    /// Entries that had been loaded after the change.
    pub survived: AtomicU64,
    /// Loads that had not seen a change, and were repeated.
    pub late: AtomicU64,
}

impl Freshness {
    /// The feeds that this node follows, if it is the keeper.
    pub fn feeds(&self) -> Vec<(Feed, FeedStatus)> {
        self.followed.lock().iter().map(|(feed, view)| (*feed, view.status())).collect()
    }

    fn follows(&self, feed: Feed, view: Option<FeedView>) {
        let mut followed = self.followed.lock();
        followed.retain(|(known, _)| *known != feed);
        followed.extend(view.map(|view| (feed, view)));
    }

    /// How long the oldest change has waited that not everybody has dealt with, in milliseconds; 0 at nodes that are not the keeper.
    pub fn lag_ms(&self) -> u64 {
        self.feeds().iter().map(|(_, status)| status.unconfirmed_for.as_millis() as u64).max().unwrap_or_default()
    }

    fn count(&self, counter: impl FnOnce(&Counts) -> &AtomicU64) {
        counter(&self.counts).fetch_add(1, Relaxed);
    }
}
