//! Hashes, as commands use them.

use super::{Keyspace, WrongType};
use crate::entry::{Entry, ObjectMut, Value};
use crate::entry_ref::ValueRef;
use crate::hash::{CompactLimits, Hash, HashMut, HashRef};
use crate::key::Key;
use crate::shard::Found;
use crate::table::Place;

impl Keyspace<'_> {
    /// As [`Keyspace::read`], for a key that must hold a hash.
    pub fn read_hash(&mut self, key: &Key<'_>) -> Result<Option<HashRef<'_>>, WrongType> {
        match self.read(key) {
            None => Ok(None),
            Some(ValueRef::Hash(hash)) => Ok(Some(hash)),
            Some(ValueRef::String(_)) => Err(WrongType),
        }
    }

    /// Changes the hash under the key. A missing key is an empty hash if `create`; otherwise `change` is not called and
    /// the answer is `None`. A hash that is empty in the end is removed.
    pub fn update_hash<R>(
        &mut self,
        key: &Key<'_>,
        create: bool,
        change: impl FnOnce(&mut HashMut<'_>) -> R,
    ) -> Result<Option<R>, WrongType> {
        match self.lookup(key) {
            Found::Live(place) => self.change_hash(key, place, change).map(Some),
            _ if !create => Ok(None),
            found => Ok(Some(self.create_hash(key, found, change))),
        }
    }

    fn change_hash<R>(
        &mut self,
        key: &Key<'_>,
        place: Place,
        change: impl FnOnce(&mut HashMut<'_>) -> R,
    ) -> Result<R, WrongType> {
        let (limits, seed) = (CompactLimits::from_settings(self.settings()), self.shard(key).seed());
        let entry = self.entry_mut(key, place);
        let Some(ObjectMut::Hash(hash)) = entry.object_mut() else {
            return Err(WrongType);
        };
        let mut hash = HashMut::new(hash, limits, seed);
        let result = change(&mut hash);
        let (changed, emptied) = (hash.is_changed(), hash.is_empty());
        if emptied {
            let removed = self.shard_mut(key).remove(key, place);
            self.garbage.add(removed);
        } else if changed {
            self.shard_mut(key).change(key, place, Entry::clear_fill);
            self.record_use(key, place);
        }
        if changed {
            self.changed(key, 1);
        }
        Ok(result)
    }

    fn create_hash<R>(&mut self, key: &Key<'_>, found: Found, change: impl FnOnce(&mut HashMut<'_>) -> R) -> R {
        let (limits, seed) = (CompactLimits::from_settings(self.settings()), self.shard(key).seed());
        let mut hash = Hash::new();
        let result = change(&mut HashMut::new(&mut hash, limits, seed));
        if hash.len() > 0 {
            self.store_value(key, found, None, None, Value::Hash(Box::new(hash)));
            self.changed(key, 1);
        }
        result
    }
}
