//! Changes that build on what a key holds, where that may have to be loaded first.
//!
//! A change finds its key as if nothing were ever loaded; only where it finds no value does it ask whether that is known. So what is
//! there is looked up once, and nothing has been changed yet when the answer is that the key is to be loaded.

use super::{Keyspace, Unknown};
use crate::key::Key;
use crate::shard::Found;

/// Tells of a key whether it can be loaded.
pub(super) type Loadable<'l> = dyn Fn(&Key<'_>) -> bool + 'l;

impl<'s> Keyspace<'s> {
    /// From now on the updates ([`Self::add`], [`Self::update_string`], [`Self::update_hash`]) and [`Self::expect_known`] refuse to take a
    /// key for missing of which nothing is known ([`Presence::Missing`](super::Presence::Missing)), if this says that it can be loaded.
    #[inline]
    pub fn load_first(&mut self, is_loadable: &'s Loadable<'s>) {
        self.is_loadable = Some(is_loadable);
    }

    /// To be asked where a key was found to have no value, before a change that builds on that.
    ///
    /// # Errors
    /// When the key is to be loaded first; then it has been [missed](Self::missed), too.
    #[inline]
    pub fn expect_known(&mut self, key: &Key<'_>) -> Result<(), Unknown> {
        match self.is_loadable {
            None => Ok(()),
            Some(_) => self.find_to_create(key).map(|_| ()),
        }
    }

    /// What is remembered about a key without a live value, to which a client is about to give one.
    pub(super) fn find_to_create(&mut self, key: &Key<'_>) -> Result<Found, Unknown> {
        let found = self.lookup(key);
        let is_known = matches!(found, Found::Live(_) | Found::Absent(_));
        if !is_known && self.is_loadable.is_some_and(|is_loadable| is_loadable(key)) {
            self.missed = true;
            return Err(Unknown);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use crate::keyspace::{Fill, FillOutcome, FillValue, Presence, UpdateError};
    use crate::{AddError, Expiry, Key, Keyspace, Store, StoreConfig, Unknown};

    const NOW: i64 = 1_000_000;
    const SLOT: u16 = 5;

    /// Whether it was refused; what else an update may answer is not looked at.
    type Change = fn(&mut Keyspace<'_>, &Key<'_>) -> bool;

    const CHANGES: [Change; 6] = [
        |keyspace, key| keyspace.expect_known(key) == Err(Unknown),
        |keyspace, key| keyspace.add(key, 1) == Err(AddError::Unknown),
        |keyspace, key| keyspace.update_string(key, true, |string| string.append(b"1")) == Err(UpdateError::Unknown),
        |keyspace, key| keyspace.update_string(key, false, |string| string.append(b"1")) == Err(UpdateError::Unknown),
        |keyspace, key| keyspace.update_hash(key, true, |hash| hash.insert(b"f", b"1")) == Err(UpdateError::Unknown),
        |keyspace, key| keyspace.update_hash(key, false, |hash| hash.insert(b"f", b"1")) == Err(UpdateError::Unknown),
    ];

    /// Fills the key at [`NOW`].
    fn fill(store: &Store, key: &Key<'_>, value: Option<&[u8]>, stale_for_ms: u32) {
        let mut keyspace = store.lock(SLOT, NOW);
        let fence = keyspace.begin_load(key);
        let fill = Fill { deadline: Some(NOW + 10), stale_for_ms, filled_at: NOW, ..Fill::default() };
        keyspace.fill(key, value.map(FillValue::String), fill, &fence);
    }

    /// Whether each change of a key of a fresh store is refused `at` a time, after `prepare`.
    fn refused(at: i64, prepare: fn(&Store, &Key<'_>)) -> [bool; CHANGES.len()] {
        CHANGES.map(|change| {
            let store = Store::new(StoreConfig::default());
            let key = store.key(0, SLOT, b"k");
            prepare(&store, &key);
            let mut keyspace = store.lock(SLOT, at);
            keyspace.load_first(&|_| true);
            let refused = change(&mut keyspace, &key);
            assert_eq!(keyspace.missed(), refused);
            assert!(!refused || keyspace.changes() == 0, "what was refused has changed nothing");
            refused
        })
    }

    #[test]
    fn what_is_unknown_or_stale_is_refused_and_what_is_there_or_absent_is_not() {
        assert_eq!(refused(NOW, |_, _| {}), [true; 6], "nothing is known");
        assert_eq!(refused(NOW + 20, |store, key| fill(store, key, Some(b"7"), 50)), [true; 6], "stale");
        assert_eq!(refused(NOW + 20, |store, key| fill(store, key, Some(b"7"), 0)), [true; 6], "expired");
        assert_eq!(refused(NOW + 20, |store, key| fill(store, key, None, 50)), [true; 6], "absent until then");
        assert_eq!(refused(NOW, |store, key| fill(store, key, Some(b"7"), 0)), [false; 6], "filled");
        assert_eq!(refused(NOW, |store, key| fill(store, key, None, 0)), [false; 6], "absent");
        let set: fn(&Store, &Key<'_>) = |store, key| store.lock(SLOT, NOW).set_integer(key, 7, Expiry::None);
        assert_eq!(refused(NOW, set), [false; 6], "set");
    }

    #[test]
    fn only_what_can_be_loaded_is_refused() {
        let store = Store::new(StoreConfig::default());
        let [loadable, other] = [b"l", b"o"].map(|name| store.key(0, SLOT, name));
        let is_loadable = |key: &Key<'_>| key.bytes() == b"l";
        let mut keyspace = store.lock(SLOT, NOW);
        keyspace.load_first(&is_loadable);
        assert_eq!((keyspace.add(&other, 1), keyspace.missed()), (Ok(1), false));
        assert_eq!((keyspace.add(&loadable, 1), keyspace.missed()), (Err(AddError::Unknown), true));
        drop(keyspace);
        assert_eq!(store.lock(SLOT, NOW).add(&loadable, 1), Ok(1), "a view of its own asks nobody");
    }

    #[test]
    fn a_refused_change_closes_no_fence() {
        for change in CHANGES {
            let store = Store::new(StoreConfig::default());
            let key = store.key(0, SLOT, b"k");
            let mut keyspace = store.lock(SLOT, NOW);
            keyspace.load_first(&|_| true);
            let fence = keyspace.begin_load(&key);
            assert!(change(&mut keyspace, &key));
            assert_eq!(keyspace.presence(&key), Presence::Missing);
            let filled = keyspace.fill(&key, Some(FillValue::String(b"7")), Fill::default(), &fence);
            assert_eq!(filled, FillOutcome::Stored);
        }
    }
}
