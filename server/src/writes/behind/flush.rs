//! Telling the database what is pending.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::Bytes;
use forebay_origin::{GroupId, Loaded, NewValue, TargetId, Value, Write, WriteError, WriteStrategy, Written};
use forebay_store::{Expiry, FillOutcome, KEPT, Key, Keyspace, SlotCursor};
use tracing::{error, warn};

use super::dead_letters::{self, Letter};
use super::record::{Changes, Record, Version};
use super::{LINGER, REMEMBERED, record};
use crate::engine::fill;
use crate::node::Node;

/// Keys that the database is told of at once.
const MAX_TOGETHER: usize = 2000;

/// How long the database is left alone after it could not take something. It doubles with each failure.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Between two statements for what has become due one after the other.
const BETWEEN: Duration = Duration::from_millis(200);

/// Beyond what the database lets a statement take, until what a former owner has sent is surely over there.
const MARGIN: Duration = Duration::from_secs(1);

/// Entries of a slot that are looked at under one hold of its lock.
const STEP: usize = 256;

/// What the end of a process waits for the database to have.
const END: Duration = Duration::from_secs(3);

/// The primary, which alone is written to.
const PRIMARY: TargetId = TargetId(0);

/// One key's turn.
struct Item {
    key: Bytes,
    /// Who writes it; `None` if the key has no group any more that writes to the origin.
    group: Option<GroupId>,
    /// The group's name, whether or not it writes.
    name: String,
    version: Version,
    changes: Changes,
}

/// Tells the database what is pending, for ever.
pub async fn flush(node: Arc<Node>) -> Infallible {
    let behind = &node.writes.behind;
    let mut pause = FIRST_PAUSE;
    loop {
        let next = behind.schedule.lock().next();
        let is_due = async {
            match next {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = behind.due.notified() => {}
            () = is_due => {}
        }
        look_through_inherited(&node).await;
        match round(&node, pause).await {
            Round::Idle => {}
            Round::Done => {
                pause = FIRST_PAUSE;
                // What comes meanwhile goes together.
                tokio::time::sleep(BETWEEN).await;
            }
            Round::Failed => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// Has the database told of all that is pending, as far as it comes within a while.
pub async fn flush_before_the_end(node: &Node) {
    let behind = &node.writes.behind;
    let all = async {
        loop {
            behind.schedule.lock().hurry();
            if behind.schedule.lock().len() == 0 || round(node, FIRST_PAUSE).await != Round::Done {
                return;
            }
        }
    };
    if tokio::time::timeout(END, all).await.is_err() {
        warn!("the database does not take what is pending in time; it stays in the journal");
    }
}

/// What came of what was due.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Round {
    /// Nothing was, or nothing could be tried.
    Idle,
    Done,
    /// The database could not take something.
    Failed,
}

/// Writes what is due.
async fn round(node: &Node, pause: Duration) -> Round {
    let behind = &node.writes.behind;
    let due = behind.schedule.lock().take_due(Instant::now(), MAX_TOGETHER);
    let mut by_group: HashMap<Option<GroupId>, Vec<Item>> = HashMap::new();
    for key in due {
        match item(node, &key) {
            Ok(Some(item)) => by_group.entry(item.group).or_default().push(item),
            // Somebody else's, or done.
            Ok(None) => behind.schedule.lock().done(&key),
            Err(()) => {
                behind.schedule.lock().again(key, Instant::now() + LONGEST_PAUSE);
            }
        }
    }
    if by_group.is_empty() {
        return Round::Idle;
    }
    let groups = by_group.into_iter().map(|(group, items)| async move {
        match group {
            Some(group) => write_group(node, group, items, pause).await,
            None => give_all_up(node, items).await,
        }
    });
    match futures_util::future::join_all(groups).await.into_iter().all(|is_over| is_over) {
        true => Round::Done,
        false => Round::Failed,
    }
}

/// What is pending for a key that is this node's. An error if it cannot be written now: its slot may be changing hands, or the groups that were
/// agreed on are not used here.
fn item(node: &Node, key: &Bytes) -> Result<Option<Item>, ()> {
    let place = place(node, key);
    let mut keyspace = node.store.lock(place.slot(), node.clock.unix_millis());
    let role = node.roles.get(place.slot());
    if role.owns() && !(role.serves() && node.has_lease()) {
        // It may be this node's again in a moment.
        return Err(());
    }
    if !role.owns() {
        return Ok(None);
    }
    let Some(Record::Pending { version, changes, .. }) = record(&mut keyspace, &place) else { return Ok(None) };
    let origin = node.origin.as_ref().ok_or(())?;
    let item = |group, name| Ok(Some(Item { key: key.clone(), group, name, version, changes }));
    if let Some((group, rules)) = origin.writes_of(key) {
        return item(Some(group), rules.group.name.clone());
    }
    let groups = origin.groups();
    match groups.version() == node.groups.told().version {
        true => item(None, groups.rules_of(key).map(|rules| rules.group.name.clone()).unwrap_or_default()),
        false => Err(()),
    }
}

/// Tells whether the database has taken or refused all of it.
async fn write_group(node: &Node, group: GroupId, items: Vec<Item>, pause: Duration) -> bool {
    let Some(origin) = &node.origin else { unreachable!("groups belong to an origin") };
    let began = Instant::now();
    let writes: Vec<Write> = items.iter().flat_map(|item| item.changes.writes(&item.key)).collect();
    let mut outcomes = origin.write_all(group, writes).await.into_iter();
    let mut all_over = true;
    let mut told = false;
    for item in items {
        let steps = usize::from(item.changes.removes) + usize::from(item.changes.saves.is_some());
        let outcome = outcomes.by_ref().take(steps).reduce(|first, second| first.and(second));
        let outcome = outcome.unwrap_or(Err(WriteError::NoStatement));
        let is_over = match outcome {
            Ok(written) => {
                node.writes.behind.counts.flushed.fetch_add(1, Relaxed);
                end(node, &item, Some((&written, began))).await;
                true
            }
            Err(refused @ WriteError::Refused { .. }) => give_up(node, &item, &refused.to_string()).await,
            // Unless the group was replaced meanwhile.
            Err(WriteError::NoStatement) if origin.rules(group, &item.key).is_some() => {
                give_up(node, &item, "the group has no statement for it any more").await
            }
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    warn!(group = %item.name, "pending writes are tried again in {pause:?}: {error}");
                }
                false
            }
        };
        if !is_over {
            all_over = false;
            node.writes.behind.counts.retried.fetch_add(1, Relaxed);
            node.writes.behind.schedule.lock().again(item.key, Instant::now());
        }
    }
    all_over
}

/// Writes down what nobody writes to the database any more: it would be answered to every read for ever. Tells whether that was possible.
async fn give_all_up(node: &Node, items: Vec<Item>) -> bool {
    let mut all_over = true;
    for item in items {
        if !give_up(node, &item, "the key has no group any more that is written to the origin").await {
            all_over = false;
            node.writes.behind.schedule.lock().again(item.key, Instant::now());
        }
    }
    all_over
}

/// Writes a change down that the database will not have. Tells whether that was possible.
async fn give_up(node: &Node, item: &Item, error: &str) -> bool {
    let behind = &node.writes.behind;
    let Some(directory) = behind.directory.clone() else { return false };
    let (at, key, changes) = (node.clock.unix_millis(), item.key.clone(), item.changes.clone());
    let (group, words) = (item.name.clone(), error.to_owned());
    let written = tokio::task::spawn_blocking(move || {
        dead_letters::add(&directory, &[Letter { at, group: &group, key: &key, changes: &changes, error: &words }])
    });
    match written.await {
        Ok(Ok(())) => {
            warn!(group = %item.name, key = %String::from_utf8_lossy(&item.key), "a pending write is a dead letter: {error}");
            behind.counts.dead_letters.fetch_add(1, Relaxed);
            end(node, item, None).await;
            true
        }
        Ok(Err(error)) => {
            error!("a dead letter cannot be written down, and is tried again: {error}");
            false
        }
        Err(_) => false,
    }
}

/// The database has what was pending, or will never have it (`None`).
async fn end(node: &Node, item: &Item, written: Option<(&Written, Instant)>) {
    let behind = &node.writes.behind;
    let place = place(node, &item.key);
    let is_latest = {
        let mut keyspace = node.store.lock(place.slot(), node.clock.unix_millis());
        if let Some(xid) = written.and_then(|(written, _)| written.xid) {
            node.freshness.memory.wrote(place.slot(), place.bytes(), xid, Instant::now());
        }
        let is_latest = record(&mut keyspace, &place).is_none_or(|record| record.version() <= item.version);
        if is_latest && node.roles.get(place.slot()).serves() {
            settle(node, &mut keyspace, &place, item, written);
        }
        is_latest
    };
    if let (Ok(journal), true) = (behind.journal(), is_latest) {
        journal.confirm(item.key.clone(), item.version).await;
    }
    let mut schedule = behind.schedule.lock();
    match is_latest {
        true => schedule.done(&item.key),
        false => schedule.again(item.key.clone(), Instant::now() + LINGER),
    }
}

/// Nothing is pending any more: the record says so, and the entry is from now on as good as a loaded one, or goes.
fn settle(node: &Node, keyspace: &mut Keyspace<'_>, key: &Key<'_>, item: &Item, written: Option<(&Written, Instant)>) {
    let kept = key.in_database(KEPT);
    let done = Record::Done { version: item.version }.encode();
    let until = keyspace.now() + REMEMBERED;
    keyspace.set_string_shared(&kept, &done, Expiry::At(until));
    keyspace.void_loads(key);
    let is_kept = written.is_some_and(|written| keep(node, keyspace, key, item, written));
    if !is_kept {
        keyspace.discard(key);
    }
    if let Some(member) = node.member() {
        member.replication.record_entry(keyspace, key);
        member.replication.record_entry(keyspace, &kept);
    }
}

/// Stores a whole value that the database has since a statement that began then, if it is not known to have been changed since, by the rules that
/// the key has now.
fn keep(
    node: &Node,
    keyspace: &mut Keyspace<'_>,
    key: &Key<'_>,
    item: &Item,
    (written, began): (&Written, Instant),
) -> bool {
    let Some(NewValue::Whole(value)) = &item.changes.saves else { return false };
    let rules_now = node.origin.as_ref().zip(item.group).and_then(|(origin, group)| origin.rules(group, key.bytes()));
    let Some(rules_now) = rules_now.filter(|rules| rules.group.write == WriteStrategy::Behind) else { return false };
    let deadline = keyspace.deadline(key);
    let has_seen_all = rules_now.group.invalidated_by.is_empty()
        || written.snapshot.as_ref().is_some_and(|snapshot| {
            node.freshness.memory.admits_written(key.slot(), key.bytes(), snapshot, began, Instant::now())
        });
    // It may have been taken out since the feed has told of this very write. Nothing newer can have been loaded before this.
    let has_it = written.rows > 0;
    if !has_it || !has_seen_all {
        return false;
    }
    let value = Some(Value::String(value.clone()));
    let snapshot = written.snapshot.clone();
    let loaded = Loaded { value, took: Duration::ZERO, target: Some(PRIMARY), snapshot };
    let rules = fill::rules(&rules_now, &loaded, keyspace.now()).until(deadline.flatten());
    let fence = keyspace.begin_load(key);
    fill::store(keyspace, key, &loaded, rules, &fence) == FillOutcome::Stored
}

/// When surely nothing is on its way to the database any more that a former owner of a slot has sent, which this node has from now on.
pub(super) fn predecessor_is_over(node: &Node) -> Instant {
    let limit = node.origin.as_ref().map(|origin| origin.load_timeout()).unwrap_or_default();
    Instant::now() + limit + MARGIN
}

/// Looks for what is pending in slots that have come to this node, and keeps it in the journal here.
async fn look_through_inherited(node: &Node) {
    let behind = &node.writes.behind;
    let slots = std::mem::take(&mut *behind.inherited.lock());
    if slots.is_empty() {
        return;
    }
    let at = predecessor_is_over(node);
    let mut found = Vec::new();
    for slot in slots {
        find_pending(node, slot, &mut found);
    }
    for (key, version, record) in found {
        let bytes = (key.len() + record.len()) as u64;
        if let Ok(journal) = behind.journal() {
            // If it cannot be kept here, the journals of others have it still.
            let _kept = journal.append(key.clone(), version, record).await;
        }
        behind.schedule.lock().add(key, bytes, at);
    }
}

fn find_pending(node: &Node, slot: u16, found: &mut Vec<(Bytes, Version, Bytes)>) {
    let mut cursor = Some(SlotCursor::kept());
    while let Some(from) = cursor {
        let mut names: Vec<Bytes> = Vec::new();
        let mut seen = 0;
        let mut keyspace = node.store.lock(slot, node.clock.unix_millis());
        cursor = keyspace.visit_slot(slot, from, &mut |stored| {
            seen += 1;
            if stored.db() == KEPT {
                names.push(Bytes::copy_from_slice(stored.key()));
            }
            seen < STEP
        });
        for name in names {
            let key = place(node, &name);
            if let Some(record @ Record::Pending { .. }) = record(&mut keyspace, &key) {
                let (version, encoded) = (record.version(), record.encode());
                found.push((name, version, encoded));
            }
        }
    }
}

/// Groups apply to database 0 alone.
fn place<'k>(node: &Node, key: &'k [u8]) -> Key<'k> {
    node.store.key(0, forebay_cluster::slot_of(key), key)
}
