//! Dropping what was loaded by definitions that are no more.

use std::convert::Infallible;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use forebay_cluster::SLOT_COUNT;
use forebay_origin::{Groups, Rules};
use forebay_store::{Key, Keyspace, SlotCursor};

use crate::node::Node;
use crate::turns::{FIRST_LANE, Rests, TURN};

/// Entries looked at under one hold of a shard's lock.
const STEP: usize = 256;

/// Slots that are passed over between two looks at the clock, if they are not suspect.
const STRIDE: u16 = 512;

/// Time until the next look, while nothing may change by itself.
const LATER: Duration = Duration::from_millis(100);

/// Drops of a request's keys in suspect slots what was not loaded by their present groups. Called with their shards locked.
#[inline]
pub fn look_through_keys(node: &Node, keyspace: &mut Keyspace<'_>, keys: &[Key<'_>]) {
    if keys.iter().any(|key| node.roles.is_suspect(key.slot())) {
        drop_former(node, keyspace, keys);
    }
}

/// Whether a copy of any of the keys may be of what was called in: the owner, who looks through the slot, is to be asked.
pub fn may_be_former(node: &Node, keyspace: &mut Keyspace<'_>, keys: &[Key<'_>]) -> bool {
    let suspects = || keys.iter().filter(|key| node.roles.is_suspect(key.slot()));
    if suspects().next().is_none() {
        return false;
    }
    let Some(origin) = &node.origin else { return false };
    let groups = origin.groups();
    suspects().any(|key| is_there_and_former(node, &groups, keyspace, key))
}

#[cold]
fn drop_former(node: &Node, keyspace: &mut Keyspace<'_>, keys: &[Key<'_>]) {
    let Some(origin) = &node.origin else { return };
    let groups = origin.groups();
    for key in keys {
        // A copy is its owner's to tidy up.
        let is_own = node.roles.is_suspect(key.slot()) && node.roles.get(key.slot()).serves();
        if is_own && is_there_and_former(node, &groups, keyspace, key) {
            drop_entry(node, keyspace, key);
        }
    }
}

fn is_there_and_former(node: &Node, groups: &Groups, keyspace: &mut Keyspace<'_>, key: &Key<'_>) -> bool {
    let filled_by = keyspace.filled_by(key);
    let is_there = filled_by.is_some() || keyspace.peek(key).is_some();
    is_there
        && is_former(node, groups, key.slot(), (key.db(), key.bytes()), filled_by)
        && !is_awaited(node, keyspace, key)
}

/// Whether the database is yet to be told of what is there: then that is newer than what the database has, and would be recalled again and again.
fn is_awaited(node: &Node, keyspace: &mut Keyspace<'_>, key: &Key<'_>) -> bool {
    keyspace.filled_by(key).is_none() && node.writes.behind.is_pending(keyspace, key)
}

/// Whether an entry was loaded by a definition that is not its key's, or touched by a client before its group was called in.
fn is_former(node: &Node, groups: &Groups, slot: u16, (db, key): (u16, &[u8]), filled_by: Option<u16>) -> bool {
    match (groups.rules_of(key), filled_by) {
        (rules, Some(definition)) => rules.is_none_or(|rules| rules.definition != definition),
        // Groups apply to database 0 alone; what is kept of pending writes is in another.
        (Some(Rules { group, .. }), None) if db == 0 => {
            !group.invalidated_by.is_empty() && node.groups.called_in.concerns(slot, &group.name)
        }
        (_, None) => false,
    }
}

fn drop_entry(node: &Node, keyspace: &mut Keyspace<'_>, key: &Key<'_>) {
    keyspace.discard(key);
    if let Some(member) = node.member() {
        member.replication.record_eviction(key.slot(), key.db(), key.bytes());
    }
    node.groups.dropped.fetch_add(1, Relaxed);
}

/// Looks through suspect slots whenever there are some, for ever.
pub async fn look_through(node: &Node) -> Infallible {
    let mut rests = Rests::new(node, FIRST_LANE);
    loop {
        node.groups.suspected.notified().await;
        let mut search = Search::default();
        while search.turn(node) {
            match node.rests(node.clock.unix_millis()) {
                true => tokio::time::sleep(LATER).await,
                false => rests.rest().await,
            }
        }
    }
}

/// One way through all slots.
#[derive(Default)]
struct Search {
    slot: u16,
    walk: Option<Walk>,
}

/// A walk through a slot.
#[derive(Clone, Copy)]
struct Walk {
    cursor: SlotCursor,
    /// How many suspicions there had been when it began, and how often groups had been called in.
    suspicions: u64,
    called_in: u64,
}

impl Walk {
    fn begin(node: &Node) -> Walk {
        let (suspicions, called_in) = (node.roles.suspicions(), node.groups.called_in.last());
        Walk { cursor: SlotCursor::default(), suspicions, called_in }
    }
}

impl Search {
    /// Searches for a while. Tells whether there is more to do.
    fn turn(&mut self, node: &Node) -> bool {
        if node.rests(node.clock.unix_millis()) {
            return self.slot < SLOT_COUNT;
        }
        let began = node.clock.instant();
        while self.slot < SLOT_COUNT {
            self.step(node);
            if node.clock.between(began, node.clock.instant()) >= TURN {
                return true;
            }
        }
        false
    }

    /// Looks at a part of a suspect slot, or passes over some that are not suspect. Slots of others stay suspect until they are this node's.
    fn step(&mut self, node: &Node) {
        let is_due = |slot: u16| node.roles.is_suspect(slot) && node.roles.get(slot).serves();
        if self.walk.is_none() {
            let end = self.slot.saturating_add(STRIDE).min(SLOT_COUNT);
            self.slot = (self.slot..end).find(|slot| is_due(*slot)).unwrap_or(end);
        }
        if self.slot >= SLOT_COUNT || !is_due(self.slot) {
            self.walk = None;
            return;
        }
        let slot = self.slot;
        let mut keyspace = node.store.lock(slot, node.clock.unix_millis());
        let walk = self.walk.unwrap_or_else(|| Walk::begin(node));
        let next = look_at_some(node, &mut keyspace, slot, walk.cursor);
        self.walk = next.map(|cursor| Walk { cursor, ..walk });
        // If there was another suspicion meanwhile, it may have been this slot's, and what was passed already is not known to be good.
        if next.is_none() && node.roles.suspicions() == walk.suspicions {
            node.groups.called_in.looked_through(&mut keyspace, slot, walk.called_in);
            node.roles.clear(&mut keyspace, slot);
            self.slot += 1;
        }
        let mut garbage = std::mem::take(keyspace.garbage());
        drop(keyspace);
        node.reclaimer.take_over(&mut garbage);
    }
}

/// Drops what is to be dropped among the next entries of a slot. Says where to go on; `None` at the end.
fn look_at_some(node: &Node, keyspace: &mut Keyspace<'_>, slot: u16, cursor: SlotCursor) -> Option<SlotCursor> {
    let groups = node.origin.as_ref()?.groups();
    let mut former: Vec<(u16, Box<[u8]>)> = Vec::new();
    let mut seen = 0;
    let next = keyspace.visit_slot(slot, cursor, &mut |stored| {
        seen += 1;
        if is_former(node, &groups, slot, (stored.db(), stored.key()), stored.filled_by()) {
            former.push((stored.db(), stored.key().into()));
        }
        seen < STEP
    });
    for (db, name) in &former {
        let key = node.store.key(*db, slot, name);
        if !is_awaited(node, keyspace, &key) {
            drop_entry(node, keyspace, &key);
        }
    }
    next
}
