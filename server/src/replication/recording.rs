//! The owner's side of a change: what it is told as, and to whom.
//!
//! Which keys a run has changed is not noted while it runs, which would cost every node, those without copies, too: every key that the
//! command declares to write is told as it is afterwards. For commands of one key that is exact; those of several write nearly all
//! of theirs, and what has not changed is told in vain, but not wrongly.

use std::cell::Cell;
use std::sync::atomic::Ordering::Relaxed;

use forebay_cluster::state::SlotSet;
use forebay_resp::Args;
use forebay_store::{Garbage, Key, Keyspace, Store, UnixMillis, ValueRef, parse_integer};

use super::Replication;
use super::ack::Recorded;
use super::effect::{Effect, LENGTH, MAX_RECORD, Record, Writer};
use super::slot_log::SlotLog;
use crate::command::spec::{KeyUse, Spec};

/// Values from this size on are changed in copies by the same command, if that is shorter; smaller ones are sent whole. In bytes.
const LARGE: usize = 1024;

/// Hashes with more fields than this are large, whatever the fields are.
const MANY_FIELDS: usize = 256;

/// A command is not told as such if its key's deadline is nearer than this, in milliseconds: where a holder's clock is ahead, or the command
/// comes late, the key might be gone there already.
const RUN_MARGIN: UnixMillis = 60_000;

/// A buffer larger than this is not kept for the next record.
const KEPT_SCRATCH: usize = 64 * 1024;

thread_local! {
    /// Where records are put together, so that nothing is allocated for them.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A run that has changed something.
#[derive(Clone, Copy)]
pub struct Write<'w> {
    pub spec: &'static Spec,
    pub args: Args<'w>,
    /// The declared keys, in the order of the arguments.
    pub keys: &'w [Key<'w>],
}

impl Replication {
    /// Tells the holders of the keys' slots what a run has done. To be called under the locks under which it was done, at its very end
    /// (after what it was lent has been taken back), if [`Keyspace::has_changed`] says so. The answer is what to wait for if the
    /// client wants copies to be held.
    pub fn record(&self, keyspace: &mut Keyspace<'_>, write: &Write<'_>) -> Recorded {
        let mut recorded = Recorded::default();
        match write.keys {
            [key] => self.record_key(keyspace, key, Some(write), &mut recorded),
            keys => {
                for key in written(keys, write) {
                    self.record_key(keyspace, key, None, &mut recorded);
                }
            }
        }
        if let (Some(db), Some(key)) = (other_database(write), write.keys.last()) {
            self.record_key(keyspace, &key.in_database(db), None, &mut recorded);
        }
        recorded
    }

    /// Tells the holders of the key's slot what has been filled in for it, under the lock of the fill. One that is far behind is told to
    /// forget the key instead, as all the others are, which is never worse: it can load it as well. Digests would take that for a fault,
    /// and have the slot sent, just when too much is on its way.
    pub fn record_fill(&self, keyspace: &mut Keyspace<'_>, key: &Key<'_>) {
        let mut log = self.log(key.slot()).lock();
        let is_pressed = log.is_pressed();
        if is_pressed {
            log.thin_targets();
        }
        drop(log);
        match is_pressed {
            true => self.record_removal(key.slot(), key.db(), key.bytes()),
            false => self.record_key(keyspace, key, None, &mut Recorded::default()),
        }
    }

    /// Tells the holders of the key's slot what is remembered of it now, be it nothing, under the lock under which that was changed. The answer is
    /// what to wait for, as with [`Self::record`].
    pub fn record_entry(&self, keyspace: &mut Keyspace<'_>, key: &Key<'_>) -> Recorded {
        let mut recorded = Recorded::default();
        self.record_key(keyspace, key, None, &mut recorded);
        recorded
    }

    /// Notes that eviction has removed an entry, under its shard's lock: the other holders of an own slot are told; a copy here is no
    /// longer whole, and not compared by digests from then on.
    pub fn record_eviction(&self, slot: u16, db: u16, key: &[u8]) {
        if self.log(slot).lock().is_owner() {
            return self.record_removal(slot, db, key);
        }
        self.log(slot).lock().is_thinned = true;
    }

    /// Empties a database, or all of them, in those of this node's slots that `serves` says, and tells the holders of copies. `serves` is asked
    /// of every slot, under its shard's lock. The answer has what to wait for, too, as with [`Self::record`].
    pub fn flush(&self, store: &Store, db: Option<u16>, serves: &mut dyn FnMut(u16) -> bool) -> (Garbage, Recorded) {
        let mut flushed = SlotSet::new();
        let garbage = store.flush_slots(db, &mut |slot| {
            let mut log = self.log(slot).lock();
            let is_flushed = serves(slot) && log.is_owner();
            if is_flushed {
                self.grants.changed_slot(slot, db);
                log.send_effect(slot, Effect::Flush { db }, |_, _| ());
                flushed.insert(slot);
            }
            is_flushed
        });
        (garbage, self.seen_in(&flushed))
    }

    fn record_removal(&self, slot: u16, db: u16, key: &[u8]) {
        self.grants.changed(slot, db, key);
        self.log(slot).lock().send_effect(slot, Effect::Remove { db, key }, |_, _| ());
    }

    fn record_key(
        &self,
        keyspace: &mut Keyspace<'_>,
        key: &Key<'_>,
        write: Option<&Write<'_>>,
        recorded: &mut Recorded,
    ) {
        let mut log = self.log(key.slot()).lock();
        if !log.is_owner() {
            return;
        }
        self.grants.changed(key.slot(), key.db(), key.bytes());
        let sequence = log.next_sequence();
        if log.targets.is_empty() {
            return;
        }
        self.counts.recorded.fetch_add(1, Relaxed);
        with_scratch(|record| {
            write_effect(keyspace, key, write, sequence, record);
            send(&log, key.slot(), record, recorded);
        });
    }
}

fn send(log: &SlotLog, slot: u16, record: &mut Vec<u8>, recorded: &mut Recorded) {
    let Some(tenure) = log.tenure() else { return };
    let mut copies = 0;
    log.send(record, |target, ticket| {
        if target.must_hold() {
            copies += usize::from(target.in_sync);
            recorded.note((slot, tenure), target.counted(), ticket);
        }
    });
    recorded.note_copies(copies);
}

fn write_effect(
    keyspace: &mut Keyspace<'_>,
    key: &Key<'_>,
    write: Option<&Write<'_>>,
    sequence: u64,
    record: &mut Vec<u8>,
) {
    let (slot, db, name) = (key.slot(), key.db(), key.bytes());
    if let Some(effect) = write.and_then(|write| as_run(keyspace, key, write)) {
        return Record::Effect { slot, sequence, effect }.write(record);
    }
    let is_there = Writer::put(record, (slot, sequence), (db, name), |out| keyspace.encode(key, out));
    if !is_there || record.len() > LENGTH + MAX_RECORD {
        record.clear();
        Record::Effect { slot, sequence, effect: Effect::Remove { db, key: name } }.write(record);
    }
}

/// The command itself, where it is shorter than what it has left.
fn as_run<'w>(keyspace: &mut Keyspace<'_>, key: &Key<'_>, write: &Write<'w>) -> Option<Effect<'w>> {
    let now = keyspace.now();
    let entry = keyspace.peek(key)?;
    let lasts = entry.deadline().is_none_or(|deadline| deadline > now + RUN_MARGIN);
    let said = write.args.iter().map(<[u8]>::len).sum::<usize>();
    if !lasts || !is_larger_than(entry.value(), LARGE.max(2 * said)) {
        return None;
    }
    let size = size_of(entry.value());
    let key_at = u64::from(*write.spec.key_positions(write.args).ok()?.first()?);
    Some(Effect::Run { db: key.db(), now, key_at, size, args: write.args.iter().collect() })
}

/// How many bytes a string or fields a hash has: by this a holder sees whether a command has done the same there.
pub(super) fn size_of(value: ValueRef<'_>) -> u64 {
    match value {
        ValueRef::String(string) => string.len() as u64,
        ValueRef::Hash(hash) => hash.len() as u64,
    }
}

/// Whether the value is larger than `limit` bytes. Looks at no more than that, nor at more than a few hundred fields.
fn is_larger_than(value: ValueRef<'_>, limit: usize) -> bool {
    let hash = match value {
        ValueRef::String(string) => return string.len() > limit,
        ValueRef::Hash(hash) => hash,
    };
    if hash.len() > MANY_FIELDS.max(limit) {
        return true;
    }
    let mut left = limit;
    let mut pairs = hash.iter().take(MANY_FIELDS);
    !pairs.all(|(field, value)| left.checked_sub(field.len() + value.len()).map(|rest| left = rest).is_some())
}

/// The keys that the command may have written, in any way.
fn written<'w>(keys: &'w [Key<'w>], write: &Write<'w>) -> impl Iterator<Item = &'w Key<'w>> {
    const WRITTEN: KeyUse = KeyUse::RW.union(KeyUse::OW).union(KeyUse::RM);
    let uses = write.spec.key_uses(write.args).unwrap_or_default();
    keys.iter().enumerate().filter_map(move |(at, key)| {
        let is_written = uses.get(at).is_none_or(|(_, uses)| uses.intersects(WRITTEN));
        is_written.then_some(key)
    })
}

/// The database besides the session's that the last key has been written in: MOVE and COPY alone do that.
fn other_database(write: &Write<'_>) -> Option<u16> {
    let args = write.args;
    let number = match write.spec.name {
        "move" => args.get(2)?,
        "copy" => {
            let at = (3..args.len()).find(|at| args[*at].eq_ignore_ascii_case(b"DB"))?;
            args.get(at + 1)?
        }
        _ => return None,
    };
    u16::try_from(parse_integer(number)?).ok()
}

fn with_scratch<R>(act: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    let mut scratch = SCRATCH.take();
    scratch.clear();
    let result = act(&mut scratch);
    if scratch.capacity() <= KEPT_SCRATCH {
        SCRATCH.set(scratch);
    }
    result
}
