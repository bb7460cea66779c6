//! A locked view of some keys: what a command works on.

mod copies;
mod errors;
mod fills;
mod hashes;
mod load_first;
mod slots;
mod strings;
mod transfer;
mod writes;

use std::ptr::NonNull;

use crate::UnixMillis;
use crate::entry::Entry;
use crate::entry_ref::{EntryRef, ValueRef};
use crate::eviction::Moment;
use crate::garbage::Garbage;
use crate::key::Key;
use crate::locking::LockedShards;
use crate::settings::Settings;
use crate::shard::{Found, Shard};
use crate::store::Store;
use crate::table::Place;

pub use errors::{AddError, Unknown, UpdateError, WrongType};
pub use fills::{Fill, FillOutcome, FillValue};
use load_first::Loadable;
pub use slots::{SlotCursor, Stamp, Stored};
pub use transfer::OwnedEntry;

/// The shards of one or more slots, locked, at one moment in time. Made by [`Store::lock`] and [`Store::lock_slots`].
///
/// A key of a slot that was not locked is a mistake in the caller, and panics.
pub struct Keyspace<'s> {
    store: &'s Store,
    /// Released before `garbage` is dropped, as fields drop in order.
    shards: LockedShards<'s>,
    garbage: Garbage,
    now: UnixMillis,
    access: Access,
    /// See [`Self::load_first`].
    is_loadable: Option<&'s Loadable<'s>>,
    changes: u64,
    forgot: bool,
    missed: bool,
    refresh_due: bool,
}

/// How reads behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Reads leave no trace in what eviction goes by.
    pub no_touch: bool,
    /// Values past their deadline are served within their time as stale ones.
    pub allow_stale: bool,
    /// Reads count as hits and misses.
    pub count: bool,
}

impl Default for Access {
    fn default() -> Self {
        Access { no_touch: false, allow_stale: false, count: true }
    }
}

/// Whether a key exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It has a value.
    Present,
    /// It is known not to exist at the origin.
    Absent,
    /// Nothing is known about it.
    Missing,
}

/// What becomes of a key's deadline when its value is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// It stays.
    Keep,
    /// It is taken away.
    None,
    /// It is set.
    At(UnixMillis),
}

impl<'s> Keyspace<'s> {
    #[inline]
    pub(crate) fn new(store: &'s Store, shards: LockedShards<'s>, now: UnixMillis) -> Self {
        Keyspace {
            store,
            shards,
            garbage: Garbage::default(),
            now,
            access: Access::default(),
            is_loadable: None,
            changes: 0,
            forgot: false,
            missed: false,
            refresh_due: false,
        }
    }

    /// The time of this view.
    pub fn now(&self) -> UnixMillis {
        self.now
    }

    /// How reads through this view behave.
    pub fn access(&self) -> Access {
        self.access
    }

    /// Sets [`Self::access`].
    pub fn set_access(&mut self, access: Access) {
        self.access = access;
    }

    /// What has been removed through this view and is freed when it is dropped, after the locks; unless it is taken out
    /// here.
    pub fn garbage(&mut self) -> &mut Garbage {
        &mut self.garbage
    }

    /// How many keys clients have changed through this view.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Whether what is remembered of keys has been changed through this view for clients: what [`Self::changes`] counts, and
    /// besides that a client has removed a key that was known to be absent, or was past its deadline.
    #[inline]
    pub fn has_changed(&self) -> bool {
        self.changes > 0 || self.forgot
    }

    /// Whether a read met a key of which nothing is known, or a change was refused as [`Unknown`], since the view was made or
    /// [`Self::clear_missed`].
    pub fn missed(&self) -> bool {
        self.missed
    }

    /// Forgets [`Self::missed`].
    pub fn clear_missed(&mut self) {
        self.missed = false;
    }

    /// Whether a read met an entry that is due for a refresh, since this was last asked. Each refresh is told to one
    /// reader only.
    pub fn refresh_due(&mut self) -> bool {
        std::mem::take(&mut self.refresh_due)
    }

    /// The key's value, as a client reads it: counted as a hit or a miss, and recorded as a use.
    #[inline]
    pub fn read(&mut self, key: &Key<'_>) -> Option<ValueRef<'_>> {
        ValueRef::of(self.find_to_read(key)?.value())
    }

    /// The key's entry, looked at without being used or counted.
    pub fn peek(&mut self, key: &Key<'_>) -> Option<EntryRef<'_>> {
        let place = match self.lookup(key) {
            Found::Live(place) => place,
            Found::Stale(place) if self.access.allow_stale => place,
            Found::Stale(_) | Found::Absent(_) | Found::Nothing => return None,
        };
        let (settings, now) = (self.store.settings(), self.now);
        let shard = self.shard(key);
        Some(EntryRef::new(shard.entry(key, place), shard.index_share(key), settings, now))
    }

    /// Whether the key exists; neither a use nor counted.
    pub fn presence(&mut self, key: &Key<'_>) -> Presence {
        match self.lookup(key) {
            Found::Live(_) => Presence::Present,
            Found::Stale(_) if self.access.allow_stale => Presence::Present,
            Found::Absent(_) => Presence::Absent,
            Found::Stale(_) | Found::Nothing => Presence::Missing,
        }
    }

    /// When what is known of the key ends by itself, be it that it does not exist at the origin. `None` if it does not, and where nothing is
    /// known.
    pub fn known_until(&mut self, key: &Key<'_>) -> Option<UnixMillis> {
        let (Found::Live(place) | Found::Absent(place)) = self.lookup(key) else { return None };
        self.shard(key).entry(key, place).deadline()
    }

    /// Records a use of the key, whatever [`Access::no_touch`] says. Returns whether it exists.
    pub fn touch(&mut self, key: &Key<'_>) -> bool {
        let found = self.find_live(key);
        if let Some(place) = found {
            self.record_use(key, place);
        }
        found.is_some()
    }

    /// Removes the key for a client. Returns whether it existed; what was remembered about it is gone in any case.
    pub fn remove(&mut self, key: &Key<'_>) -> bool {
        let found = self.take_away(key);
        let existed = matches!(found, Found::Live(_));
        let forgot = !existed && !matches!(found, Found::Nothing);
        self.forgot |= forgot;
        self.changed(key, u64::from(existed));
        if forgot {
            self.announce(key);
        }
        existed
    }

    /// The key's deadline: `None` if there is no such key, `Some(None)` if it has none.
    pub fn deadline(&mut self, key: &Key<'_>) -> Option<Option<UnixMillis>> {
        self.peek(key).map(|entry| entry.deadline())
    }

    /// Sets or takes away the key's deadline for a client. Returns whether the key exists.
    pub fn set_deadline(&mut self, key: &Key<'_>, deadline: Option<UnixMillis>) -> bool {
        let Some(place) = self.find_live(key) else {
            return false;
        };
        self.shard_mut(key).change(key, place, |entry| entry.set_deadline(deadline));
        self.changed(key, 1);
        true
    }

    /// Looks the key up as a read: counts, notes what is missing and what is due, records the use.
    fn find_to_read(&mut self, key: &Key<'_>) -> Option<&Entry> {
        let Keyspace { store, shards, now, access, refresh_due, .. } = self;
        let shard = locked(shards, store, key);
        let moment = Moment { now: *now, settings: store.settings(), number: shard.counters.hits };
        if !access.no_touch {
            shard.observe_read(key, &moment);
        }
        let Some(mut entry) = shard.live_entry(key, *now).map(NonNull::from) else {
            return self.find_stale_to_read(key);
        };
        shard.counters.hits += u64::from(access.count);
        // SAFETY: the shard lent the entry uniquely, for as long as the view is borrowed, and only its counters have been
        // changed since. The borrow is made anew because the compiler takes the one above to last in the other branch too.
        let entry = unsafe { entry.as_mut() };
        *refresh_due |= note_read(entry, *access, &moment);
        Some(entry)
    }

    /// As [`Self::find_to_read`], where there is no live entry.
    #[cold]
    fn find_stale_to_read(&mut self, key: &Key<'_>) -> Option<&Entry> {
        let Keyspace { store, shards, garbage, now, access, missed, refresh_due, .. } = self;
        let shard = locked(shards, store, key);
        let counted = u64::from(access.count);
        match shard.lookup(key, *now, garbage) {
            Found::Stale(place) if access.allow_stale => {
                shard.counters.hits += counted;
                shard.counters.stale_served += counted;
                let moment = Moment { now: *now, settings: store.settings(), number: shard.counters.hits };
                let entry = shard.entry_mut(key, place);
                *refresh_due |= note_read(entry, *access, &moment);
                return Some(entry);
            }
            Found::Absent(_) => shard.counters.absent_hits += counted,
            // Live ones have been looked for before.
            Found::Live(_) | Found::Stale(_) | Found::Nothing => {
                shard.counters.misses += counted;
                *missed = true;
            }
        }
        None
    }

    /// The place of a key that a client may change: one that exists and is not past its deadline.
    fn find_live(&mut self, key: &Key<'_>) -> Option<Place> {
        match self.lookup(key) {
            Found::Live(place) => Some(place),
            Found::Stale(_) | Found::Absent(_) | Found::Nothing => None,
        }
    }

    /// Takes away whatever is remembered about the key, which was this.
    fn take_away(&mut self, key: &Key<'_>) -> Found {
        let found = self.lookup(key);
        if let Some(place) = found.place() {
            let removed = self.shard_mut(key).remove(key, place);
            self.garbage.add(removed);
        }
        found
    }

    #[inline(never)]
    fn lookup(&mut self, key: &Key<'_>) -> Found {
        let Keyspace { store, shards, garbage, now, .. } = self;
        locked(shards, store, key).lookup(key, *now, garbage)
    }

    fn record_use(&mut self, key: &Key<'_>, place: Place) {
        let (settings, now) = (self.store.settings(), self.now);
        let shard = self.shard_mut(key);
        let moment = Moment { now, settings, number: shard.counters.hits };
        let entry = shard.entry_mut(key, place);
        entry.set_access(settings.policy().touched(entry.access(), &moment));
    }

    /// Tells who watches that the key is not what it was.
    pub fn announce(&self, key: &Key<'_>) {
        self.shard(key).watch.changed(key.slot(), key.bytes());
    }

    /// Notes a client's change of the key, here and in its shard.
    fn changed(&mut self, key: &Key<'_>, changes: u64) {
        self.changes += changes;
        self.shard_mut(key).changed(key, changes);
    }

    fn settings(&self) -> &'s Settings {
        self.store.settings()
    }

    #[inline]
    pub(crate) fn shard(&self, key: &Key<'_>) -> &Shard {
        let number = self.store.placement().shard(key.slot());
        self.shards.get(number).unwrap_or_else(|| not_locked(key))
    }

    #[inline]
    fn shard_mut(&mut self, key: &Key<'_>) -> &mut Shard {
        locked(&mut self.shards, self.store, key)
    }
}

/// Records a read in the entry. Returns whether somebody is to be told that a refresh is due.
#[inline(always)]
fn note_read(entry: &mut Entry, access: Access, moment: &Moment<'_>) -> bool {
    entry.make_shareable();
    if !access.no_touch {
        entry.set_access(moment.settings.policy().touched(entry.access(), moment));
    }
    entry.tell_refresh_due(moment.now)
}

/// The shard of a key; apart from the view, whose other parts may be in use.
#[inline]
fn locked<'k>(shards: &'k mut LockedShards<'_>, store: &Store, key: &Key<'_>) -> &'k mut Shard {
    let number = store.placement().shard(key.slot());
    shards.get_mut(number).unwrap_or_else(|| not_locked(key))
}

#[cold]
fn not_locked(key: &Key<'_>) -> ! {
    not_locked_slot(key.slot())
}

fn not_locked_slot(slot: u16) -> ! {
    panic!("slot {slot} has not been locked")
}

#[cfg(test)]
mod tests;
