//! Entries on their way from one key to another: RENAME, MOVE, COPY.

use super::Keyspace;
use crate::UnixMillis;
use crate::entry::{Entry, Meta};
use crate::entry_ref::ValueRef;
use crate::key::Key;
use crate::object_type::ObjectType;

/// A value with its deadline, out of the store.
#[must_use = "it is lost unless it is put back"]
pub struct OwnedEntry {
    entry: Entry,
}

impl OwnedEntry {
    /// When it expires.
    pub fn deadline(&self) -> Option<UnixMillis> {
        self.entry.deadline()
    }

    /// Its type.
    pub fn object_type(&self) -> ObjectType {
        self.value().object_type()
    }

    /// Its value.
    pub fn value(&self) -> ValueRef<'_> {
        ValueRef::of(self.entry.value()).expect("only what exists is taken out")
    }
}

impl Keyspace<'_> {
    /// Takes the key out for a client. The value is no longer what the origin gave under another key, so where it came
    /// from is forgotten.
    pub fn take(&mut self, key: &Key<'_>) -> Option<OwnedEntry> {
        let place = self.find_live(key)?;
        let mut entry = self.shard_mut(key).remove(key, place);
        entry.clear_fill();
        self.changed(key, 1);
        Some(OwnedEntry { entry })
    }

    /// Puts an entry under a key for a client, in place of what was there.
    pub fn put(&mut self, key: &Key<'_>, owned: OwnedEntry) {
        let found = self.lookup(key);
        if let Some(place) = found.place() {
            let replaced = self.shard_mut(key).remove(key, place);
            self.garbage.add(replaced);
        }
        let mut entry = owned.entry.renamed(key.bytes());
        entry.set_access(self.settings().policy().settled(entry.access()));
        self.shard_mut(key).insert(key, entry);
        self.changed(key, 1);
    }

    /// A copy of the key's value, with its deadline.
    pub fn copy_of(&mut self, key: &Key<'_>) -> Option<OwnedEntry> {
        let place = self.find_live(key)?;
        let entry = self.shard(key).entry(key, place);
        let meta = Meta { fill: None, ..entry.meta() };
        Some(OwnedEntry { entry: entry.duplicate(&meta) })
    }
}
