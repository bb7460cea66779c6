//! From what the origin gave to what the store keeps, and to what one request sees.
//!
//! A load's result reaches the store through the fence that was taken before the load (see `forebay-store`). A request that waited for
//! the load runs again afterwards; should the store not hold the value any more (evicted, absence not remembered, kept out by a fence
//! that closed after the request had joined), the result is *lent* to that one run under its locks and taken back before they open. What a
//! command is to build on that writes is lent only where the store was not to keep it: what it has kept and does not hold any more, and what
//! a fence has kept out, is perhaps not so any more, and the command's result would stay.

use std::sync::Arc;

use bytes::Bytes;
use forebay_origin::Rules as GroupRules;
use forebay_origin::{GroupId, LoadError, Loaded, Refresh, Value};
use forebay_store::{Access, Fence, Fill, FillOutcome, FillValue, Key, Keyspace, Presence, UnixMillis};
use smallvec::SmallVec;

/// What a flight brought for one key.
#[derive(Clone)]
pub struct Landed {
    pub key: Bytes,
    pub outcome: Outcome,
}

/// How a flight ended.
#[derive(Clone)]
pub enum Outcome {
    /// The origin answered.
    Loaded {
        loaded: Arc<Loaded>,
        /// By which group it was asked.
        group: GroupId,
        /// How long it is good for.
        fill: Fill,
        /// The round in which a fence kept it out of the store, if one did.
        voided: Option<u32>,
        /// Whether the store has taken it.
        is_stored: bool,
    },
    /// Nothing to lend: the store had it, or the result must not be used.
    Present,
    /// Nothing to lend: the group was changed or removed meanwhile.
    Replaced,
    Failed(Arc<LoadError>),
}

/// Keys that one run was lent, by their place among the request's keys.
#[derive(Default)]
pub(super) struct Lent<'k> {
    keys: SmallVec<[Key<'k>; 1]>,
}

/// The rules of an entry that is filled at `now`.
pub(crate) fn rules(rules: &GroupRules, loaded: &Loaded, now: UnixMillis) -> Rules {
    let GroupRules { group, definition } = rules;
    let definition = *definition;
    if loaded.value.is_none() {
        let kept = group.absent_ttl.map(|ttl| jittered(ttl.as_millis() as f64, group.ttl_jitter));
        return Rules {
            keep: kept.is_some(),
            fill: Fill { deadline: kept.map(|ttl| now + ttl), filled_at: now, group: definition, ..Fill::default() },
        };
    }
    let ttl = group.ttl.map(|ttl| jittered(ttl.as_millis() as f64, group.ttl_jitter));
    let refresh_at = match (ttl, group.refresh) {
        (Some(ttl), Refresh::Early) => Some(now + ttl - refresh_lead(ttl, loaded.took.as_secs_f64() * 1000.0)),
        _ => None,
    };
    let stale = group.stale_if_error.map_or(0, |stale| u32::try_from(stale.as_millis()).unwrap_or(u32::MAX));
    let deadline = ttl.map(|ttl| now + ttl);
    let fill = Fill { deadline, stale_for_ms: stale, refresh_at, filled_at: now, group: definition };
    Rules { keep: true, fill }
}

/// What becomes of a load's result.
#[derive(Clone, Copy)]
pub(crate) struct Rules {
    /// Whether the store keeps it at all: absence may be told not to be remembered.
    keep: bool,
    pub(super) fill: Fill,
}

impl Rules {
    /// These rules, but that nothing is kept without room for it.
    pub(crate) fn kept_if(self, room: bool) -> Rules {
        Rules { keep: self.keep && room, ..self }
    }

    /// These rules, but for what expires then, if that is said.
    pub(crate) fn until(self, deadline: Option<UnixMillis>) -> Rules {
        match deadline {
            None => self,
            Some(_) => Rules { fill: Fill { deadline, refresh_at: None, ..self.fill }, ..self },
        }
    }

    pub(crate) fn keeps(self) -> bool {
        self.keep
    }
}

/// Puts what was loaded into the store, if the fence still stands.
pub(crate) fn store(
    keyspace: &mut Keyspace<'_>,
    key: &Key<'_>,
    loaded: &Loaded,
    rules: Rules,
    fence: &Fence,
) -> FillOutcome {
    match rules.keep {
        true => with_value(loaded, |value| keyspace.fill(key, value, rules.fill, fence)),
        false => keyspace.end_load(key, fence),
    }
}

/// Lends a run what was brought for its keys and is not in the store. A read of a key whose load failed may be answered from an entry
/// past its deadline, if its group allows that; a write must not build on one. `is_served` tells whether a key is still the group's: what
/// was loaded by another definition is lent to nobody. `is_latest` tells whether no change is known that the load has not seen.
#[inline]
pub(super) fn lend<'k>(
    keyspace: &mut Keyspace<'_>,
    keys: &[Key<'k>],
    brought: &[Landed],
    reads: bool,
    is_served: impl Fn(&Key<'_>, GroupId) -> bool,
    is_latest: impl Fn(&Key<'_>, &Loaded) -> bool,
) -> Lent<'k> {
    let mut lent = Lent::default();
    for landed in brought {
        for key in keys.iter().filter(|key| key.bytes() == landed.key) {
            match &landed.outcome {
                Outcome::Loaded { loaded, group, fill, voided, is_stored }
                    if keyspace.presence(key) == Presence::Missing
                        && is_served(key, *group)
                        && (reads || voided.is_none() && !is_stored && is_latest(key, loaded)) =>
                {
                    let fence = keyspace.begin_load(key);
                    with_value(loaded, |value| keyspace.fill(key, value, *fill, &fence));
                    lent.keys.push(*key);
                }
                Outcome::Failed(error) if reads && error.is_origin_ill() => allow_stale(keyspace),
                Outcome::Loaded { .. } | Outcome::Present | Outcome::Replaced | Outcome::Failed(_) => {}
            }
        }
    }
    lent
}

fn allow_stale(keyspace: &mut Keyspace<'_>) {
    keyspace.set_access(Access { allow_stale: true, ..keyspace.access() });
}

/// The error that the load of `key` ended with, if it did.
pub(super) fn failure<'b>(key: &Key<'_>, brought: &'b [Landed]) -> Option<&'b LoadError> {
    brought.iter().find_map(|landed| match &landed.outcome {
        Outcome::Failed(error) if landed.key == key.bytes() => Some(&**error),
        _ => None,
    })
}

impl Lent<'_> {
    /// Takes back what the run has not made its own: a value that a client has changed is no longer the origin's.
    #[inline]
    pub(super) fn take_back(self, keyspace: &mut Keyspace<'_>) {
        for key in &self.keys {
            let is_clients = keyspace.peek(key).is_some_and(|entry| entry.fill().is_none());
            if !is_clients {
                keyspace.discard(key);
            }
        }
    }
}

fn with_value<R>(loaded: &Loaded, put: impl FnOnce(Option<FillValue<'_>>) -> R) -> R {
    match &loaded.value {
        None => put(None),
        Some(Value::String(bytes)) => put(Some(FillValue::SharedString(bytes))),
        Some(Value::Hash(pairs)) => {
            let mut pairs = pairs.iter().map(|(field, value)| (&field[..], &value[..]));
            put(Some(FillValue::Hash(&mut pairs)))
        }
    }
}

/// `ttl` milliseconds, more or less by up to `share` of it, and at least one.
fn jittered(ttl: f64, share: f64) -> UnixMillis {
    let factor = 1.0 + share * (rand::random::<f64>() * 2.0 - 1.0);
    ((ttl * factor) as UnixMillis).max(1)
}

/// How long before the deadline an entry is to be loaded again, in milliseconds: the longer the load takes the earlier, and never the
/// same for all (XFetch: Vattani, Chierichetti, Lowenstein, "Optimal Probabilistic Cache Stampede Prevention", VLDB 2015, with β = 1).
/// The draw is made once, when the entry is filled, since one flight serves all readers of a key anyway. At most half of the ttl.
fn refresh_lead(ttl: UnixMillis, load: f64) -> UnixMillis {
    let draw = -(1.0 - rand::random::<f64>()).ln();
    let lead = (load * draw).max(1.0) as UnixMillis;
    lead.min(ttl / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_its_share_and_spreads() {
        let drawn: Vec<_> = (0..1000).map(|_| jittered(10_000.0, 0.1)).collect();
        assert!(drawn.iter().all(|ttl| (9_000..=11_000).contains(ttl)));
        assert!(drawn.iter().any(|ttl| *ttl < 9_500) && drawn.iter().any(|ttl| *ttl > 10_500));
    }

    #[test]
    fn a_refresh_is_due_within_the_second_half_of_the_ttl() {
        for load in [0.0, 1.0, 1_000.0, 1e9] {
            let lead = refresh_lead(60_000, load);
            assert!((1..=30_000).contains(&lead), "{lead} ms for a load of {load} ms");
        }
    }
}
