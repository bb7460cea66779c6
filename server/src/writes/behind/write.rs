//! A write that the database gets later.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use forebay_store::{Expiry, FillOutcome, KEPT, Key};
use smallvec::SmallVec;

use super::record::{Changes, Record, Version};
use super::{LINGER, MAX_KEYS, put_absent, record};
use crate::command::error::CommandError;
use crate::node::Node;
use crate::replication::Recorded;
use crate::writes::store::{Change, Settled};
use crate::writes::{Turn, scratch};

/// Puts a change into the journal, and then into the cache; `_turn` is the key's.
///
/// # Errors
/// When it is not to be; the cache is as before.
pub async fn write(node: &Node, change: Change, _turn: Turn) -> Result<Settled, CommandError> {
    match try_write(node, &change).await {
        Ok(settled) => {
            node.writes.behind.counts.accepted.fetch_add(1, Relaxed);
            Ok(settled)
        }
        Err(error) => {
            node.writes.behind.counts.refused.fetch_add(1, Relaxed);
            let key = key_of(node, &change);
            let _as_before = node.store.lock(key.slot(), node.clock.unix_millis()).end_load(&key, &change.fence);
            Err(error)
        }
    }
}

async fn try_write(node: &Node, change: &Change) -> Result<Settled, CommandError> {
    let behind = &node.writes.behind;
    let key = key_of(node, change);
    check_room(node, change)?;
    let refused = |reason: &str| {
        CommandError::from(format!("ORIGINBEHIND the write is refused, since it cannot be kept: {reason}"))
    };
    let journal = behind.journal().map_err(|error| refused(&error.to_string()))?;
    // From here on others look for records.
    behind.is_used.store(true, Relaxed);
    let next = next_record(node, &key, change);
    let (version, encoded) = (next.version(), next.encode());
    journal.append(change.key.clone(), version, encoded.clone()).await.map_err(|reason| refused(&reason))?;

    let mut keyspace = node.store.lock(key.slot(), node.clock.unix_millis());
    if !node.roles.get(key.slot()).owns() {
        // Nobody was told, and the new owner does not know of it.
        drop(keyspace);
        journal.confirm(change.key.clone(), version).await;
        return Err(CommandError::text("CLUSTERDOWN the key's slot has moved away; nothing was changed"));
    }
    let is_untouched = keyspace.end_load(&key, &change.fence) == FillOutcome::Stored;
    keyspace.void_loads(&key);
    match (&next, is_untouched) {
        (Record::Pending { entry: Some(entry), .. }, true) => {
            let put = keyspace.install(&key, entry);
            debug_assert!(put.is_ok(), "the store reads what it has written");
        }
        (Record::Pending { entry: None, .. }, true) => put_absent(&mut keyspace, &key),
        // It was flushed or invalidated meanwhile; who reads it gets it from the record.
        _ => keyspace.discard(&key),
    }
    let kept = key.in_database(KEPT);
    keyspace.set_string_shared(&kept, &encoded, Expiry::None);
    let mut settled = Settled { rows: 1, recorded: Recorded::default(), take_backs: SmallVec::new(), has_moved: false };
    settled.rows = u64::from(change.existed);
    if let Some(member) = node.member() {
        settled.recorded = member.replication.record_entry(&mut keyspace, &key);
        settled.recorded.absorb(&member.replication.record_entry(&mut keyspace, &kept));
        settled.take_backs.extend(member.hot.grants.under_way(key.slot(), key.db(), key.bytes()));
    }
    behind.schedule.lock().add(change.key.clone(), (encoded.len() + key.bytes().len()) as u64, Instant::now() + LINGER);
    drop(keyspace);
    behind.due.notify_one();
    Ok(settled)
}

/// Refuses what is too much. What is pending already may be changed.
fn check_room(node: &Node, change: &Change) -> Result<(), CommandError> {
    let behind = &node.writes.behind;
    let schedule = behind.schedule.lock();
    let is_full = schedule.len() >= MAX_KEYS || schedule.bytes() >= behind.max_bytes;
    if is_full && !(schedule.contains(&change.key) && schedule.bytes() < behind.max_bytes.saturating_mul(2)) {
        return Err(CommandError::from(format!(
            "ORIGINBEHIND the write is refused: {} keys with {} bytes wait for the origin already",
            schedule.len(),
            schedule.bytes(),
        )));
    }
    Ok(())
}

/// All that is to be written for the key then.
fn next_record(node: &Node, key: &Key<'_>, change: &Change) -> Record {
    let now = node.clock.unix_millis();
    let known = record(&mut node.store.lock(key.slot(), now), key);
    let least = Version { epoch: node.topology.load().epoch(), sequence: now as u64 * 1000 };
    let version = match &known {
        Some(known) if known.version() >= least => {
            Version { sequence: known.version().sequence + 1, ..known.version() }
        }
        _ => least,
    };
    let before = match known {
        Some(Record::Pending { changes, .. }) => changes,
        Some(Record::Done { .. }) | None => Changes::default(),
    };
    let entry = change.after.as_ref().map(|value| scratch::encode(value, change.deadline));
    Record::Pending { version, changes: before.and(change.change.clone()), entry }
}

/// Groups apply to database 0 alone.
fn key_of<'c>(node: &Node, change: &'c Change) -> Key<'c> {
    node.store.key(0, forebay_cluster::slot_of(&change.key), &change.key)
}
