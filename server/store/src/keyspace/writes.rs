//! How a value comes into its place.

use super::{Expiry, Keyspace, locked};
use crate::entry::{Entry, FillInfo, Meta, Value};
use crate::eviction::Moment;
use crate::key::Key;
use crate::shard::Found;

impl Keyspace<'_> {
    /// Replaces whatever the key holds, for a client.
    pub(super) fn write(&mut self, key: &Key<'_>, value: Value<'_>, expiry: Expiry) {
        if let Some(value) = self.overwrite_plain(key, value, expiry) {
            let found = self.lookup(key);
            self.store_value(key, found, expiry, None, value);
        }
        self.changed(key, 1);
    }

    /// The shortest way of nearly all overwriting: neither what is there nor what takes its place has a deadline, and
    /// nothing else changes. Gives the value back where that is not so.
    #[inline]
    fn overwrite_plain<'v>(&mut self, key: &Key<'_>, value: Value<'v>, expiry: Expiry) -> Option<Value<'v>> {
        if matches!(expiry, Expiry::At(_)) {
            return Some(value);
        }
        let Keyspace { store, shards, now, .. } = self;
        let shard = locked(shards, store, key);
        let settings = store.settings();
        let moment = Moment { now: *now, settings, number: shard.counters.changes };
        let Some(entry) = shard.live_entry(key, *now).filter(|entry| entry.is_plain()) else {
            return Some(value);
        };
        let access = settings.policy().touched(entry.access(), &moment);
        entry.overwrite(&Meta { access, deadline: None, fill: None }, value);
        None
    }

    /// Puts a value under the key, in place of what was found there. A value that replaces another inherits its past.
    pub(super) fn store_value(
        &mut self,
        key: &Key<'_>,
        found: Found,
        expiry: Expiry,
        fill: Option<FillInfo>,
        value: Value<'_>,
    ) {
        let Keyspace { store, shards, garbage, now, .. } = self;
        let shard = locked(shards, store, key);
        let settings = store.settings();
        let (policy, moment) = (settings.policy(), Moment { now: *now, settings, number: shard.counters.changes });
        let Some(place) = found.place() else {
            let meta = Meta { access: shard.admit(key, &moment), deadline: expiry.deadline(|| None), fill };
            shard.insert(key, Entry::new(key.bytes(), &meta, value));
            return shard.welcome(key, &moment);
        };
        let is_live = matches!(found, Found::Live(_));
        shard.change(key, place, |entry| {
            let access =
                if entry.is_absent() { policy.admitted(&moment) } else { policy.touched(entry.access(), &moment) };
            let deadline = expiry.deadline(|| entry.deadline().filter(|_| is_live));
            let meta = Meta { access, deadline, fill };
            if entry.is_large() {
                garbage.add(std::mem::replace(entry, Entry::new(key.bytes(), &meta, value)));
            } else {
                entry.overwrite(&meta, value);
            }
        });
    }

    /// Changes the key's live entry in place for a client, in its value alone, if `change` says that it did: then where it
    /// came from is forgotten, and it has been used. Gives `given` back where there is no live entry.
    #[inline]
    pub(super) fn edit_live<G, R>(
        &mut self,
        key: &Key<'_>,
        given: G,
        change: impl FnOnce(&mut Entry, G) -> Edited<R>,
    ) -> Result<R, G> {
        let Keyspace { store, shards, now, changes, .. } = self;
        let shard = locked(shards, store, key);
        let settings = store.settings();
        let moment = Moment { now: *now, settings, number: shard.counters.changes };
        let edited = shard.edit_live(key, *now, given, |entry, given| {
            let edited = change(entry, given);
            if edited.changed {
                entry.clear_fill();
                entry.set_access(settings.policy().touched(entry.access(), &moment));
            }
            edited
        })?;
        if edited.changed {
            *changes += 1;
            shard.changed(key, 1);
        }
        Ok(edited.result)
    }
}

/// What came of an edit.
pub(super) struct Edited<R> {
    pub(super) changed: bool,
    pub(super) result: R,
}

impl<R> Edited<R> {
    #[inline]
    pub(super) fn map<S>(self, map: impl FnOnce(R) -> S) -> Edited<S> {
        Edited { changed: self.changed, result: map(self.result) }
    }
}

impl Expiry {
    /// The new deadline; `kept` tells the old one.
    #[inline]
    fn deadline(self, kept: impl FnOnce() -> Option<crate::UnixMillis>) -> Option<crate::UnixMillis> {
        match self {
            Expiry::Keep => kept(),
            Expiry::None => None,
            Expiry::At(deadline) => Some(deadline),
        }
    }
}
