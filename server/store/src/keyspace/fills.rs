//! Loads and fills; the fence is in [`crate::loads`].

use bytes::Bytes;

use super::Keyspace;
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
    /// The number of the key's group.
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

    /// Takes out what was filled for one run alone. Unlike a client's delete it voids no load and counts as no change.
    pub fn discard(&mut self, key: &Key<'_>) {
        if let Some(place) = self.lookup(key).place() {
            let removed = self.shard_mut(key).remove(key, place);
            self.garbage.add(removed);
        }
    }

    /// Ends a load and stores what it brought, `None` for absent, if no client has changed the key since it began.
    pub fn fill(&mut self, key: &Key<'_>, value: Option<FillValue<'_>>, fill: Fill, fence: &Fence) -> FillOutcome {
        let shard = self.shard_mut(key);
        if !shard.loads.finish(key, fence) {
            shard.counters.fenced_fills += 1;
            return FillOutcome::Fenced;
        }
        shard.counters.fills += 1;
        let value = value.map_or(Value::Absent, |value| self.value_to_fill(key, value));
        let Fill { deadline, stale_for_ms, refresh_at, filled_at, group } = fill;
        let info = FillInfo { filled_at, group, stale_for_ms, refresh_at };
        let found = self.lookup(key);
        self.store_value(key, found, deadline, Some(info), value);
        FillOutcome::Stored
    }

    fn value_to_fill<'v>(&self, key: &Key<'_>, value: FillValue<'v>) -> Value<'v> {
        let settings = self.settings();
        match value {
            FillValue::String(bytes) => compact_value(bytes, settings.compress_over()),
            FillValue::SharedString(bytes) => compact_shared(bytes, settings.compress_over()),
            FillValue::Hash(pairs) => {
                let hash = hash_of(pairs, CompactLimits::from_settings(settings), self.shard(key).seed());
                if hash.len() == 0 { Value::Absent } else { Value::Hash(Box::new(hash)) }
            }
        }
    }
}
