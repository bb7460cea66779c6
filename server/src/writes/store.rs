//! From what the database has taken to what the cache has.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use bytes::Bytes;
use forebay_origin::{
    GroupId, Loaded, NewValue, Rules, Snapshot, TargetId, Value, Write, WriteChange, WriteError, WriteStrategy, Written,
};
use forebay_store::{Fence, FillOutcome, Key, Keyspace, Presence, UnixMillis};
use smallvec::SmallVec;

use super::Turn;
use crate::command::error::CommandError;
use crate::engine::fill;
use crate::engine::gates;
use crate::hot::TakeBack;
use crate::node::Node;
use crate::replication::Recorded;

/// The primary, which alone is written to.
const PRIMARY: TargetId = TargetId(0);

/// A change that is to be made at the origin, and then here.
pub struct Change {
    pub key: Bytes,
    pub group: GroupId,
    pub rules: Rules,
    pub change: WriteChange,
    /// Whether there was a value before.
    pub existed: bool,
    /// The value that the key has then.
    pub after: Option<Value>,
    /// When it expires, if the client has said so, or what was there before did.
    pub deadline: Option<UnixMillis>,
    /// What the entry had seen on which the change builds.
    pub base: Option<Arc<Snapshot>>,
    /// Taken when that entry was looked at.
    pub fence: Fence,
    pub began: Instant,
}

/// What came of a change that the database has taken.
pub struct Settled {
    /// Rows that were changed.
    pub rows: u64,
    /// What copies have been told.
    pub recorded: Recorded,
    /// Copies of the hot key that are not gone yet.
    pub take_backs: SmallVec<[Arc<TakeBack>; 1]>,
    /// The slot has moved away meanwhile: the cache of its new owner is to forget the key.
    pub has_moved: bool,
}

/// Makes the change at the origin and then in the cache; `_turn` is the key's.
///
/// # Errors
/// When it is not known to be made; the cache is as before, or has forgotten the key.
pub async fn settle(node: &Node, change: Change, _turn: Turn) -> Result<Settled, CommandError> {
    let Some(origin) = &node.origin else { unreachable!("groups belong to an origin") };
    let counts = &node.writes.counts;
    let write = Write { key: change.key.clone(), change: change.change.clone() };
    let written = origin.write_all(change.group, vec![write]).await.pop();
    match written.unwrap_or(Err(WriteError::NoStatement)) {
        Ok(written) => {
            counts.written.fetch_add(1, Relaxed);
            Ok(store(node, &change, &written).await)
        }
        Err(error) => {
            let (count, word) = match &error {
                WriteError::Refused { .. } => (&counts.refused, "ORIGINERR"),
                WriteError::NoStatement => (&counts.failed, "ORIGINERR"),
                WriteError::TryAgain { .. } => (&counts.failed, "ORIGINDOWN"),
                WriteError::Unknown { .. } => (&counts.unsure, "ORIGINUNSURE"),
            };
            count.fetch_add(1, Relaxed);
            give_up(node, &change, matches!(error, WriteError::Unknown { .. }));
            Err(CommandError::from(format!("{word} {error}").replace(['\r', '\n'], " ")))
        }
    }
}

/// Nothing was written, or nobody knows.
fn give_up(node: &Node, change: &Change, forgets: bool) {
    let key = key_of(node, change);
    let mut keyspace = node.store.lock(key.slot(), node.clock.unix_millis());
    let _as_before = keyspace.end_load(&key, &change.fence);
    if forgets && node.roles.get(key.slot()).owns() {
        keyspace.void_loads(&key);
        keyspace.discard(&key);
        if let Some(member) = node.member() {
            member.replication.record_entry(&mut keyspace, &key);
        }
    }
}

/// How a key stands when the database has its new value.
enum Standing {
    /// The slot is another node's.
    Moved,
    Owned {
        /// What the holders of copies are to have dealt with before anybody sees the new value.
        told: Recorded,
        /// `None` if the cache was changed meanwhile: the new value is not stored.
        fence: Option<Fence>,
        /// Whoever keeps a reply that was made of the old value is to forget it before anybody is told of the new one, stored or not.
        take_backs: SmallVec<[Arc<TakeBack>; 1]>,
    },
}

/// A new value is not seen while a copy that may become the owner's has the old one: so the copies let go of that first.
async fn store(node: &Node, change: &Change, written: &Written) -> Settled {
    let rows = written.rows;
    let (mut told, fence, mut take_backs) = match let_go(node, change, written) {
        Standing::Moved => {
            return Settled { rows, recorded: Recorded::default(), take_backs: SmallVec::new(), has_moved: true };
        }
        Standing::Owned { told, fence, take_backs } => (told, fence, take_backs),
    };
    let Some(fence) = fence else { return Settled { rows, recorded: told, take_backs, has_moved: false } };
    if let (Some(member), false) = (node.member(), told.is_empty()) {
        let limit = node.origin.as_ref().map(|origin| origin.load_timeout()).unwrap_or_default();
        let gone = tokio::time::timeout(limit, member.replication.held_by_all(&told)).await;
        if gone != Ok(true) {
            let key = key_of(node, change);
            let _not_stored = node.store.lock(key.slot(), node.clock.unix_millis()).end_load(&key, &fence);
            // Who has lost the slot has it forgotten by the new owner; a holder that is late is waited for with the reply.
            return Settled { rows, recorded: told, take_backs, has_moved: gone == Ok(false) };
        }
    }
    let (key, now) = (key_of(node, change), node.clock.unix_millis());
    let room = gates::make_room(node, now);
    let mut keyspace = node.store.lock(key.slot(), now);
    let is_untouched = keyspace.end_load(&key, &fence) == FillOutcome::Stored;
    if !node.roles.get(key.slot()).owns() {
        return Settled { rows, recorded: told, take_backs, has_moved: true };
    }
    // What a load has brought meanwhile is as new or newer.
    let is_missing = keyspace.presence(&key) == Presence::Missing;
    let is_stored = is_untouched && is_missing && keep(node, &mut keyspace, &key, change, written, room);
    if let Some(member) = node.member() {
        if is_stored {
            told.absorb(&member.replication.record_entry(&mut keyspace, &key));
        }
        take_backs.extend(member.hot.grants.under_way(key.slot(), key.db(), key.bytes()));
    }
    let mut garbage = std::mem::take(keyspace.garbage());
    drop(keyspace);
    node.reclaimer.take_over(&mut garbage);
    Settled { rows, recorded: told, take_backs, has_moved: false }
}

/// Has loads and copies let go of the value that the database does not have any more.
fn let_go(node: &Node, change: &Change, written: &Written) -> Standing {
    let key = key_of(node, change);
    let mut keyspace = node.store.lock(key.slot(), node.clock.unix_millis());
    let is_untouched = keyspace.end_load(&key, &change.fence) == FillOutcome::Stored;
    // A slot that is frozen is not handed over before this is over.
    if !node.roles.get(key.slot()).owns() {
        return Standing::Moved;
    }
    if let Some(xid) = written.xid {
        node.freshness.memory.wrote(key.slot(), key.bytes(), xid, Instant::now());
    }
    keyspace.void_loads(&key);
    keyspace.discard(&key);
    let told = node.member().map(|member| member.replication.record_entry(&mut keyspace, &key)).unwrap_or_default();
    let grants = node.member().map(|member| &member.hot.grants);
    let take_backs =
        grants.and_then(|grants| grants.under_way(key.slot(), key.db(), key.bytes())).into_iter().collect();
    // A load since then may have brought, and somebody seen, what others have committed behind this.
    let loaded = node.freshness.memory.seen_by_entry(key.slot(), key.bytes());
    let is_latest = match (&change.base, &loaded) {
        (Some(base), Some(loaded)) => Arc::ptr_eq(base, loaded),
        (base, loaded) => base.is_none() && loaded.is_none(),
    };
    Standing::Owned { told, fence: (is_untouched && is_latest).then(|| keyspace.begin_load(&key)), take_backs }
}

/// Stores what was written, if it is as good as what a load would bring. Tells whether it is.
fn keep(
    node: &Node,
    keyspace: &mut Keyspace<'_>,
    key: &Key<'_>,
    change: &Change,
    written: &Written,
    room: bool,
) -> bool {
    let rules_now = node.origin.as_ref().and_then(|origin| origin.rules(change.group, key.bytes()));
    let Some(rules_now) = rules_now.filter(|rules| rules.group.write == WriteStrategy::Through) else { return false };
    let has_seen_all = rules_now.group.invalidated_by.is_empty()
        || has_seen(change, written).is_some_and(|snapshot| {
            node.freshness.memory.admits_written(key.slot(), key.bytes(), &snapshot, change.began, Instant::now())
        });
    // A row that the change has made has whatever the database gives it besides.
    let is_whole = change.existed || !matches!(change.change, WriteChange::Save(NewValue::Fields(_)));
    if written.rows == 0 || !has_seen_all || !is_whole {
        return false;
    }
    let loaded = Loaded {
        value: change.after.clone(),
        took: change.began.elapsed(),
        target: Some(PRIMARY),
        snapshot: written.snapshot.clone(),
    };
    let rules = fill::rules(&rules_now, &loaded, keyspace.now()).kept_if(room).until(change.deadline);
    let fence = keyspace.begin_load(key);
    rules.keeps() && fill::store(keyspace, key, &loaded, rules, &fence) == FillOutcome::Stored
}

/// What an entry with the new value has seen, if that is known.
fn has_seen(change: &Change, written: &Written) -> Option<Arc<Snapshot>> {
    match (&change.change, written.xid) {
        (WriteChange::Save(NewValue::Fields(_)), Some(xid)) => {
            Some(Arc::new(Snapshot::clone(change.base.as_deref()?).and(xid)))
        }
        (WriteChange::Save(NewValue::Fields(_)), None) => None,
        _ => written.snapshot.clone(),
    }
}

/// Groups apply to database 0 alone.
fn key_of<'c>(node: &Node, change: &'c Change) -> Key<'c> {
    node.store.key(0, forebay_cluster::slot_of(&change.key), &change.key)
}
