//! Loads and fills; the fence is in [`crate::loads`].

use bytes::Bytes;

use super::{Expiry, Keyspace};
use crate::UnixMillis;
use crate::entry::{FillInfo, Value};
use crate::hash::{CompactLimits, hash_of};
use crate::key::Key;
use crate::loads::Fence;
use crate::string::{compact_shared, compact_value};

/// What a load brought from the origin.
pub enum FillValue<'v> {
    /// A string.
    String(&'v [u8]),
    /// A string whose memory may be kept.
    SharedString(&'v Bytes),
    /// A hash's fields with their values. Without any it is as good as absent.
    Hash(&'v mut dyn Iterator<Item = (&'v [u8], &'v [u8])>),
}

/// How long what was loaded is good for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fill {
    /// When it expires; never, if `None`.
    pub deadline: Option<UnixMillis>,
    /// For how long after that it may be served when the origin fails, in milliseconds.
    pub stale_for_ms: u32,
    /// From when on a reader is told to refresh it.
    pub refresh_at: Option<UnixMillis>,
    /// When the origin was read.
    pub filled_at: UnixMillis,
    /// What tells the load's definition from others.
    pub group: u16,
}

/// What became of a fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FillOutcome {
    /// It is in the store.
    Stored,
    /// The key has changed since the load began, so it is not.
    Fenced,
}

impl Keyspace<'_> {
    /// Registers a load of the key. It must be ended by [`Self::fill`] or [`Self::end_load`].
    pub fn begin_load(&mut self, key: &Key<'_>) -> Fence {
        let shard = self.shard_mut(key);
        let seed = shard.seed();
        shard.loads.begin(key, seed)
    }

    /// Ends a load whose result is not stored, because it failed or is not to be kept. Tells whether it could have been.
    pub fn end_load(&mut self, key: &Key<'_>, fence: &Fence) -> FillOutcome {
        match self.shard_mut(key).loads.finish(key, fence) {
            true => FillOutcome::Stored,
            false => FillOutcome::Fenced,
        }
    }

    /// Nothing that is being loaded for the key may be stored any more, as if a client had changed it.
    pub fn void_loads(&mut self, key: &Key<'_>) {
        self.shard_mut(key).loads.void(key);
    }

    /// Takes out what was filled for one run alone. Unlike a client's delete it voids no load and counts as no change.
    pub fn discard(&mut self, key: &Key<'_>) {
        if self.take_away(key).place().is_some() {
            self.announce(key);
        }
    }

    /// By which definition of a load that was brought which is remembered about the key, be it its absence, or a value past its deadline.
    /// `None` if that was no load, or nothing is remembered.
    pub fn filled_by(&mut self, key: &Key<'_>) -> Option<u16> {
        let place = self.lookup(key).place()?;
        self.shard(key).entry(key, place).fill().map(|fill| fill.group)
    }

    /// Ends a load and stores what it brought, `None` for absent, if no client has changed the key since it began.
    pub fn fill(&mut self, key: &Key<'_>, value: Option<FillValue<'_>>, fill: Fill, fence: &Fence) -> FillOutcome {
        let shard = self.shard_mut(key);
        if !shard.loads.finish(key, fence) {
            shard.counters.fenced_fills += 1;
            return FillOutcome::Fenced;
        }
        shard.counters.fills += 1;
        let compress_over = self.settings().compress_over();
        match value {
            None => self.store_filled(key, Value::Absent, fill),
            Some(FillValue::String(bytes)) => self.store_filled(key, compact_value(bytes, compress_over), fill),
            Some(FillValue::SharedString(bytes)) => self.store_filled(key, compact_shared(bytes, compress_over), fill),
            Some(FillValue::Hash(pairs)) => self.fill_hash(key, pairs, fill),
        }
        FillOutcome::Stored
    }

    fn fill_hash<'v>(&mut self, key: &Key<'_>, pairs: impl Iterator<Item = (&'v [u8], &'v [u8])>, fill: Fill) {
        let hash = hash_of(pairs, CompactLimits::from_settings(self.settings()), self.store.seed());
        if hash.is_empty() {
            self.store_filled(key, Value::Absent, fill);
        } else {
            hash.with_value(|value| self.store_filled(key, value, fill));
        }
    }

    fn store_filled(&mut self, key: &Key<'_>, value: Value<'_>, fill: Fill) {
        let Fill { deadline, stale_for_ms, refresh_at, filled_at, group } = fill;
        let info = FillInfo { filled_at, group, stale_for_ms, refresh_at };
        let found = self.lookup(key);
        if found.place().is_some() {
            self.announce(key);
        }
        self.store_value(key, found, deadline.map_or(Expiry::None, Expiry::At), Some(info), value);
    }
}
