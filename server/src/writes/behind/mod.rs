//! Write-behind: a write is answered when it is in the journal, in the cache and in its copies; the database gets it later.
//!
//! Beside each key with such a write there is a *record* ([`record`]), in a database of the store that no client reaches ([`KEPT`]). It has all that
//! the database is to be told of the key, as one change, and the entry that reads are to see. It is an entry as any other: it is told to the holders of
//! copies, moves with its slot, and comes to whoever becomes owner; but it is neither evicted nor flushed.
//!
//! # What must hold
//!
//! 1. *What was acknowledged is in the database in the end.* Before the answer the record is in the owner's journal, synced ([`journal`]), and in every copy
//!    that the cluster counts on. A record is pending until the database has what it says, or has refused it, which is written down ([`dead_letters`]).
//!    Only then it is *done*, and leaves the journal. So it outlives the owner (its heir has the record), all nodes (their journals have it), and the
//!    database.
//! 2. *In order.* Writes of one key have their turns, as with `through`. A record says all that is not written yet, so that a later one takes the
//!    place of an earlier one, and writing one twice does no harm. Its version, of the owner's epoch and a number that rises, is what decides: a
//!    record is done only if it is still the one that was written, and what comes from a journal is no news if the owner knows of a later version. That
//!    is why a record that is done stays for a while ([`REMEMBERED`]). An heir waits before it writes anything of
//!    a slot, be it inherited or new, until what its predecessor has sent to the database is over there.
//! 3. *A read sees the pending value.* As long as a record is pending nothing is loaded for its key: who misses it gets the entry of the record
//!    ([`Behind::recall`]), whether it was evicted, has expired or was taken out since the database has changed.
//! 4. *It has limits.* Beyond [`MAX_KEYS`] keys, or the bytes that were configured, writes are refused, as they are when the journal cannot be written.
//!
//! When the database has a value, a string may stay in the cache as if it had been loaded then; a hash goes, since others may have
//! changed the rest of its row.

pub mod dead_letters;
mod flush;
pub mod journal;
pub mod record;
mod replay;
mod schedule;
mod write;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use forebay_store::{Fill, KEPT, Key, Keyspace, Presence, UnixMillis};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::scratch;
use journal::{Journal, Live};
use record::Record;
use schedule::Schedule;

pub use flush::{flush, flush_before_the_end};
use replay::LeftOver;
pub use replay::{inherit, put_back, replay, take_from_a_journal};
pub use write::write;

/// Keys that may be pending at one owner.
pub const MAX_KEYS: usize = 1_000_000;

/// How long it is remembered of a key that the database has what was written: for as long a journal that comes back is known to be old.
const REMEMBERED: UnixMillis = 3_600_000;

/// How long a removed key is known to be absent, while that is pending, before it is asked again.
const ABSENT: UnixMillis = 1_000;

/// How long the first write of a key waits for others that go with it.
const LINGER: Duration = Duration::from_millis(300);

/// A node's part in writing behind.
pub struct Behind {
    directory: Option<PathBuf>,
    journal: Mutex<Option<Arc<Journal>>>,
    /// What the journal had at the start, and the database is not known to have.
    left_over: Mutex<LeftOver>,
    schedule: Mutex<Schedule>,
    due: Notify,
    /// Whether there may be records: until the first, nobody looks for any.
    is_used: AtomicBool,
    /// Slots that have come to this node, and are to be looked through for what is pending.
    inherited: Mutex<Vec<u16>>,
    max_bytes: u64,
    pub counts: Counts,
}

/// What write-behind has done since the start.
#[derive(Debug, Default)]
pub struct Counts {
    /// Writes that were acknowledged.
    pub accepted: AtomicU64,
    /// Writes that were refused since too much was pending, or the journal could not be written.
    pub refused: AtomicU64,
    /// Records that the database has got.
    pub flushed: AtomicU64,
    /// Attempts that failed and were repeated.
    pub retried: AtomicU64,
    pub dead_letters: AtomicU64,
}

impl Behind {
    /// What was left in the journal in this directory is read; with none, nothing can be written behind.
    ///
    /// # Errors
    /// When there is a journal that cannot be read.
    pub fn open(directory: Option<&Path>, max_bytes: u64) -> io::Result<Behind> {
        let mut behind = Behind {
            directory: directory.map(Path::to_owned),
            journal: Mutex::default(),
            left_over: Mutex::default(),
            schedule: Mutex::default(),
            due: Notify::new(),
            is_used: AtomicBool::new(false),
            inherited: Mutex::default(),
            max_bytes,
            counts: Counts::default(),
        };
        if directory.is_some_and(|directory| directory.join(journal::FILE).exists()) {
            behind.left_over = Mutex::new(LeftOver::of(behind.begin()?.1));
        }
        Ok(behind)
    }

    fn begin(&self) -> io::Result<(Arc<Journal>, Live)> {
        let mut journal = self.journal.lock();
        if let Some(journal) = &*journal {
            return Ok((Arc::clone(journal), Live::new()));
        }
        let Some(directory) = &self.directory else {
            return Err(io::Error::other("there is no --data-dir to keep writes in"));
        };
        let (opened, live) = Journal::open(directory)?;
        let opened = Arc::new(opened);
        *journal = Some(Arc::clone(&opened));
        Ok((opened, live))
    }

    /// The journal, which is made with the first write.
    fn journal(&self) -> io::Result<Arc<Journal>> {
        self.begin().map(|(journal, _)| journal)
    }

    /// Closes the journal when all is written.
    pub fn close(&self) {
        if let Some(journal) = self.journal.lock().take() {
            journal.close();
        }
    }

    /// Keys that are pending here, their bytes, and how long the oldest has waited.
    pub fn pending(&self) -> (usize, u64, Duration) {
        let schedule = self.schedule.lock();
        (schedule.len(), schedule.bytes(), schedule.oldest())
    }

    /// Whether nothing may be loaded for the key, since what the database has is out of date; then what is pending is there to be read. Called
    /// with the key's shard locked.
    pub fn recall(&self, keyspace: &mut Keyspace<'_>, key: &Key<'_>) -> bool {
        let Some(Record::Pending { changes, entry, .. }) = self.record(keyspace, key) else { return false };
        if keyspace.presence(key) != Presence::Missing {
            return true;
        }
        match entry {
            Some(entry) => {
                let put = keyspace.install(key, &entry);
                debug_assert!(put.is_ok(), "the store reads what it has written");
                if keyspace.presence(key) == Presence::Missing {
                    // It has expired, but not before the database has it.
                    let entry = scratch::until(&entry, keyspace.now() + ABSENT);
                    let _put = keyspace.install(key, &entry);
                }
            }
            None => {
                debug_assert!(changes.removes, "what is not removed has a value");
                put_absent(keyspace, key);
            }
        }
        true
    }

    /// Whether something is pending for the key. Called with its shard locked.
    pub fn is_pending(&self, keyspace: &mut Keyspace<'_>, key: &Key<'_>) -> bool {
        matches!(self.record(keyspace, key), Some(Record::Pending { .. }))
    }

    fn record(&self, keyspace: &mut Keyspace<'_>, key: &Key<'_>) -> Option<Record> {
        // Groups apply to database 0 alone.
        if key.db() != 0 || !self.is_used.load(Relaxed) {
            return None;
        }
        record(keyspace, key)
    }
}

/// Known to be absent for a moment.
fn put_absent(keyspace: &mut Keyspace<'_>, key: &Key<'_>) {
    let fence = keyspace.begin_load(key);
    let now = keyspace.now();
    keyspace.fill(key, None, Fill { deadline: Some(now + ABSENT), filled_at: now, ..Fill::default() }, &fence);
}

/// What is kept of the key.
fn record(keyspace: &mut Keyspace<'_>, key: &Key<'_>) -> Option<Record> {
    let entry = keyspace.peek(&key.in_database(KEPT))?;
    let forebay_store::ValueRef::String(text) = entry.value() else { return None };
    Record::decode(Bytes::from(text.to_vec()))
}
