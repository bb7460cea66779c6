//! What has come of a slot that is sent whole to a copy that was whole before.
//!
//! **Invariant.** *A copy holds at no time less than its position says.* The cluster goes on counting it among the replicas while it is sent the
//! slot anew, be it that a digest has found it astray or that its feed was cut: it may become owner at any moment, and so may two of
//! them that are sent the slot at once. So it keeps what it held, entry by entry until that comes anew, and its position; what the owner does not
//! hold goes at the end. In between each entry is as it was at the position or newer, and none is made of both.

use std::collections::HashSet;
use std::hash::BuildHasher;

use forebay_store::{Key, Keyspace, SlotCursor, Store};

/// The entries that have come. In a slot of a million these are some 16 MB for the time of the sending.
#[derive(Default)]
pub(super) struct Renewal {
    hasher: foldhash::quality::RandomState,
    /// Hashes of databases and keys. Of two that are equal one may stay that is to go, once in billions of slots; digests find that, too.
    come: HashSet<u64, foldhash::fast::RandomState>,
}

impl Renewal {
    /// The key's entry is as the owner has it.
    pub(super) fn note(&mut self, key: &Key<'_>) {
        self.come.insert(self.hasher.hash_one((key.db(), key.bytes())));
    }

    /// Whether it is. If not, it comes with all that has been done to it.
    pub(super) fn has(&self, key: &Key<'_>) -> bool {
        self.come.contains(&self.hasher.hash_one((key.db(), key.bytes())))
    }

    /// All has come: takes out what the owner does not hold.
    pub(super) fn end(self, store: &Store, keyspace: &mut Keyspace<'_>, slot: u16) {
        let mut left = Vec::new();
        let _end = keyspace.visit_slot(slot, SlotCursor::default(), &mut |stored| {
            if !self.has(&store.key(stored.db(), slot, stored.key())) {
                left.push((stored.db(), stored.key().to_vec()));
            }
            true
        });
        left.iter().for_each(|(db, key)| keyspace.uninstall(&store.key(*db, slot, key)));
    }
}
