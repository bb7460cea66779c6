//! Hashes, as commands use them.

use super::writes::Edited;
use super::{Expiry, Keyspace, Unknown, UpdateError, WrongType};
use crate::entry_ref::ValueRef;
use crate::hash::{CompactLimits, HashMut, HashRef, NewHash};
use crate::key::Key;

impl Keyspace<'_> {
    /// As [`Keyspace::read`], for a key that must hold a hash.
    #[inline]
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
    ) -> Result<Option<R>, UpdateError> {
        let (limits, seed) = (CompactLimits::from_settings(self.settings()), self.store.seed());
        let mut emptied = false;
        let edited = self.edit_live(key, change, |entry, change| {
            let Some(mut hash) = HashMut::of_entry(entry, limits, seed) else {
                return Edited { changed: false, result: Err(UpdateError::WrongType) };
            };
            let result = Ok(Some(change(&mut hash)));
            emptied = hash.is_emptied();
            Edited { changed: hash.is_changed(), result }
        });
        if emptied {
            self.take_away(key);
        }
        match edited {
            Ok(result) => result,
            Err(_) if !create => self.expect_known(key).map(|()| None).map_err(UpdateError::from),
            Err(change) => self.create_hash(key, change).map(Some).map_err(UpdateError::from),
        }
    }

    /// Where there is no live entry.
    fn create_hash<R>(&mut self, key: &Key<'_>, change: impl FnOnce(&mut HashMut<'_>) -> R) -> Result<R, Unknown> {
        let found = self.find_to_create(key)?;
        let (limits, seed) = (CompactLimits::from_settings(self.settings()), self.store.seed());
        let mut hash = NewHash::new(std::mem::take(&mut self.shard_mut(key).scratch));
        let result = change(&mut HashMut::of_new(&mut hash, limits, seed));
        let exists = !hash.is_empty();
        let ((), scratch) = hash.with_value(|value| {
            if exists {
                self.store_value(key, found, Expiry::None, None, value);
            }
        });
        self.shard_mut(key).scratch = scratch;
        if exists {
            self.changed(key, 1);
        }
        Ok(result)
    }
}
