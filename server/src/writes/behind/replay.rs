//! What a journal had left at a start goes to whoever owns the keys now.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::Bytes;
use forebay_resp::{Args, Reply};
use forebay_store::{Expiry, KEPT, Key, Keyspace};
use tracing::{info, warn};

use super::journal::Live;
use super::record::{Changes, Record, Version};
use super::{LINGER, flush, record};
use crate::clients::Client;
use crate::engine::Engine;
use crate::node::Node;
use crate::session::{Door, Session};
use forebay_origin::NewValue;

/// Between two questions whether the database has what was left.
const AGAIN: Duration = Duration::from_millis(500);

/// What the owner answers.
const TAKEN: i64 = 1;
const DONE: i64 = 2;

/// What a journal had at a start, by slot.
#[derive(Default)]
pub(super) struct LeftOver(HashMap<u16, Live>);

impl LeftOver {
    pub(super) fn of(live: Live) -> LeftOver {
        let mut by_slot = HashMap::<u16, Live>::new();
        for (key, what) in live {
            by_slot.entry(forebay_cluster::slot_of(&key)).or_default().insert(key, what);
        }
        LeftOver(by_slot)
    }

    fn of_slot(&self, slot: u16) -> Vec<(Bytes, Bytes)> {
        let live = self.0.get(&slot);
        live.into_iter().flatten().map(|(key, (_, record))| (key.clone(), record.clone())).collect()
    }

    fn all(&self) -> Vec<(Bytes, Version, Bytes)> {
        let all = self.0.values().flatten();
        all.map(|(key, (version, record))| (key.clone(), *version, record.clone())).collect()
    }

    fn done(&mut self, key: &Bytes) {
        if let Some(live) = self.0.get_mut(&forebay_cluster::slot_of(key)) {
            live.remove(key);
        }
    }
}

/// A slot has come to this node: what its journal has of it must be known before anybody asks. Called with the slot's shard locked.
pub fn inherit(node: &Node, keyspace: &mut Keyspace<'_>, slot: u16) {
    let behind = &node.writes.behind;
    let left = behind.left_over.lock().of_slot(slot);
    for (name, record) in left {
        let key = node.store.key(0, slot, &name);
        take(node, keyspace, &key, &record);
    }
    // Before anybody writes here: what is written then must not be ahead of what the former owner has sent.
    behind.schedule.lock().hold_back(slot, flush::predecessor_is_over(node));
    behind.inherited.lock().push(slot);
    behind.is_used.store(true, Relaxed);
    behind.due.notify_one();
}

/// Puts what was left into the store of a node that is alone, before anybody can ask for it.
pub fn put_back(node: &Node) {
    let left = node.writes.behind.left_over.lock().all();
    if !left.is_empty() {
        info!(keys = left.len(), "writes were left in the journal, and are made now");
    }
    for (name, _, bytes) in left {
        let key = node.store.key(0, forebay_cluster::slot_of(&name), &name);
        let mut keyspace = node.store.lock(key.slot(), node.clock.unix_millis());
        take(node, &mut keyspace, &key, &bytes);
    }
}

/// Gives what was left to the owners of the keys, until the database has all of it.
pub async fn replay(engine: Arc<Engine>) {
    let node = engine.node();
    let behind = &node.writes.behind;
    let mut left = behind.left_over.lock().all();
    if left.is_empty() {
        return;
    }
    info!(keys = left.len(), "writes were left in the journal, and go to the owners of their keys");
    let client = Arc::new(Client::of_peers(node.clock.unix_millis()));
    while !left.is_empty() {
        let mut still = Vec::new();
        for (key, version, record) in left {
            match offer(&engine, &client, &key, &record).await {
                Ok(DONE) => {
                    behind.left_over.lock().done(&key);
                    if let Ok(journal) = behind.journal() {
                        journal.confirm(key, version).await;
                    }
                }
                Ok(_) => still.push((key, version, record)),
                Err(reason) => {
                    warn!(key = %String::from_utf8_lossy(&key), "a write that was left cannot be given to its owner yet: {reason}");
                    still.push((key, version, record));
                }
            }
        }
        left = still;
        tokio::time::sleep(AGAIN).await;
    }
    info!("the database has all that was left in the journal");
}

async fn offer(engine: &Engine, client: &Arc<Client>, key: &[u8], record: &[u8]) -> Result<i64, String> {
    let node = engine.node();
    let mut session = Session::new(Arc::clone(client), node.http_lane(), true, Door::Open);
    session.is_internal = true;
    session.now = node.clock.unix_millis();
    let (args, mut reply) = ([&b"FOREBAY.PENDING"[..], key, record], Reply::new());
    let _step = engine.execute(&mut session, Args::from(&args[..]), &mut reply).await;
    while let Some(told) = session.take_unacknowledged() {
        if !engine.acknowledged(&told).await {
            return Err("the holders of copies do not answer".to_owned());
        }
    }
    if !engine.still_owns(&mut session) {
        return Err("this node has lost its lease".to_owned());
    }
    let reply: Vec<u8> = reply.chunks().flatten().copied().collect();
    let text = String::from_utf8_lossy(&reply).trim_end().to_owned();
    match text.strip_prefix(':').and_then(|digits| digits.parse().ok()) {
        Some(answer) => Ok(answer),
        None => Err(text),
    }
}

/// What the owner does with what another's journal had left. Called with the key's shard locked.
pub fn take_from_a_journal(node: &Node, keyspace: &mut Keyspace<'_>, key: &Key<'_>, bytes: &[u8]) -> i64 {
    node.writes.behind.is_used.store(true, Relaxed);
    take(node, keyspace, key, bytes)
}

fn take(node: &Node, keyspace: &mut Keyspace<'_>, key: &Key<'_>, bytes: &[u8]) -> i64 {
    let next = match news(keyspace, key, bytes) {
        Ok(answer) => return answer,
        Err(next) => next,
    };
    put(node, keyspace, key, &next);
    if let Some(member) = node.member() {
        member.replication.record_entry(keyspace, key);
        member.replication.record_entry(keyspace, &key.in_database(KEPT));
    }
    TAKEN
}

/// The answer to a record that is no news; else what is to be kept from now on.
fn news(keyspace: &mut Keyspace<'_>, key: &Key<'_>, bytes: &[u8]) -> Result<i64, Record> {
    let Some(offered @ Record::Pending { .. }) = Record::decode(Bytes::copy_from_slice(bytes)) else { return Ok(DONE) };
    match record(keyspace, key) {
        Some(Record::Done { version }) if version >= offered.version() => Ok(DONE),
        Some(known) if known.version() == offered.version() => Ok(TAKEN),
        Some(known) if known.version() > offered.version() => under(offered, known).map_or(Ok(TAKEN), Err),
        _ => Err(offered),
    }
}

/// From now on this is pending.
fn put(node: &Node, keyspace: &mut Keyspace<'_>, key: &Key<'_>, next: &Record) {
    let behind = &node.writes.behind;
    behind.is_used.store(true, Relaxed);
    let encoded = next.encode();
    keyspace.void_loads(key);
    keyspace.discard(key);
    let kept = key.in_database(KEPT);
    keyspace.set_string_shared(&kept, &encoded, Expiry::None);
    let bytes = (key.bytes().len() + encoded.len()) as u64;
    behind.schedule.lock().add(Bytes::copy_from_slice(key.bytes()), bytes, Instant::now() + LINGER);
    behind.due.notify_one();
}

/// Fields that an earlier record has and a later, pending one does not say anything about are still to be written. `None` if there are none.
fn under(earlier: Record, later: Record) -> Option<Record> {
    let (Record::Pending { changes: first, .. }, Record::Pending { version, changes: second, entry }) =
        (earlier, later)
    else {
        return None;
    };
    let (Some(NewValue::Fields(first)), Some(NewValue::Fields(second)), false) =
        (first.saves, second.saves, first.removes || second.removes)
    else {
        return None;
    };
    let is_new = |(field, _): &(Bytes, Option<Bytes>)| !second.iter().any(|(known, _)| known == field);
    let more: Vec<_> = first.iter().filter(|field| is_new(field)).cloned().collect();
    if more.is_empty() {
        return None;
    }
    let saves = Some(NewValue::Fields(more.into_iter().chain(second.iter().cloned()).collect()));
    Some(Record::Pending { version, changes: Changes { removes: false, saves }, entry })
}
