//! Entries on their way from one node to another.

use super::Keyspace;
use crate::encoded::{self, Decoded, Malformed};
use crate::entry::Entry;
use crate::key::Key;

impl Keyspace<'_> {
    /// Adds to `out` all that is remembered under the key: its value, or that it is absent, with deadline, origin and uses. `false` if
    /// there is nothing.
    pub fn encode(&mut self, key: &Key<'_>, out: &mut Vec<u8>) -> bool {
        let Some(place) = self.lookup(key).place() else {
            return false;
        };
        encoded::encode(self.shard(key).entry(key, place), out);
        true
    }

    /// Puts an encoded entry under the key, in place of whatever is there. This is how a copy follows its owner, and no client's change: it
    /// is not counted as one and voids no load.
    ///
    /// # Errors
    /// When the bytes are no encoded entry; then nothing has changed.
    pub fn install(&mut self, key: &Key<'_>, bytes: &[u8]) -> Result<(), Malformed> {
        let mut decoded = Decoded::of(bytes)?;
        let found = self.lookup(key).place();
        self.announce(key);
        let (settings, seed) = (self.settings(), self.store.seed());
        decoded.meta.access = settings.policy().settled(decoded.meta.access);
        decoded.with_value(settings, seed, |value| {
            let meta = &decoded.meta;
            let Some(place) = found else {
                return self.shard_mut(key).insert(key, Entry::new(key.bytes(), meta, value));
            };
            let mut replaced = None;
            self.shard_mut(key).change(key, place, |entry| match entry.is_large() {
                true => replaced = Some(std::mem::replace(entry, Entry::new(key.bytes(), meta, value))),
                false => entry.overwrite(meta, value),
            });
            replaced.into_iter().for_each(|entry| self.garbage.add(entry));
        });
        Ok(())
    }

    /// As [`Keyspace::remove`], for a copy that follows its owner.
    pub fn uninstall(&mut self, key: &Key<'_>) {
        if self.take_away(key).place().is_some() {
            self.announce(key);
        }
    }
}

#[cfg(test)]
mod tests;
