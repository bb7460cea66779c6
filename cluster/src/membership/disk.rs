//! The file in which a node keeps what Raft must never forget: its number, its vote, the log and the last snapshot.
//!
//! Every value is sealed with a checksum, and redb checks its own pages when the file is opened: what was altered is refused, and not
//! taken for something else.

use std::collections::BTreeMap;
use std::path::Path;

use openraft::entry::RaftEntry;
use redb::backends::InMemoryBackend;
use redb::{Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::raft::{Entry, LogId, SnapshotMeta, Vote};
use crate::slots::NodeNumber;
use crate::state::ClusterId;
use crate::topology::NodeId;

/// The file's name in the data directory.
pub(super) const FILE: &str = "raft.redb";

/// Log entries by their index.
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
/// All else, by [`Item::name`].
const ITEMS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("items");
/// The version of this layout.
const LAYOUT: u32 = 1;
/// The whole file is some megabytes, and what is needed of it is in memory.
const PAGE_CACHE: usize = 4 << 20;
/// Bytes of a seal.
const SEAL: usize = size_of::<u64>();

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error("{path} is in use by another Forebay process\n  hint: every node needs a --data-dir of its own")]
    InUse { path: String },
    #[error(
        "{path} is damaged, or is no Raft log of this version of Forebay ({problem})\n  hint: nothing was removed. If other \
         nodes of the cluster run, move it away: this node then joins with an empty log and learns all from them. A copy of an earlier day has \
         forgotten votes and entries that this node has answered for: do not put one in its place"
    )]
    Damaged { path: String, problem: String },
    #[error("{path}: {problem}\n  hint: the data directory must be writable, and its disk must have room")]
    Io { path: String, problem: String },
}

/// Who this node is in its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seat {
    pub(super) cluster: ClusterId,
    pub(super) number: NodeNumber,
    pub(super) id: NodeId,
    /// It formed the cluster, and finishes doing so after a crash: with how many copies.
    pub(super) founder: Option<u8>,
}

/// A snapshot as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct KeptSnapshot {
    pub(super) meta: SnapshotMeta,
    pub(super) state: Vec<u8>,
}

/// What was in the file.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) seat: Option<Seat>,
    pub(super) vote: Option<Vote>,
    pub(super) committed: Option<LogId>,
    /// The last entry that was removed since a snapshot has it.
    pub(super) purged: Option<LogId>,
    pub(super) snapshot: Option<KeptSnapshot>,
    pub(super) entries: BTreeMap<u64, Entry>,
}

/// What there is one of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Item {
    Layout,
    Seat,
    Vote,
    Committed,
    Purged,
    Snapshot,
}

impl Item {
    fn name(self) -> &'static str {
        match self {
            Item::Layout => "layout",
            Item::Seat => "seat",
            Item::Vote => "vote",
            Item::Committed => "committed",
            Item::Purged => "purged",
            Item::Snapshot => "snapshot",
        }
    }
}

/// One change of the file.
#[derive(Debug)]
pub(super) enum Edit {
    Put(Item, Vec<u8>),
    Append(u64, Vec<u8>),
    /// Removes this entry and all later ones.
    CutFrom(u64),
    /// Removes this entry and all earlier ones.
    CutThrough(u64),
}

impl Edit {
    pub(super) fn put(item: Item, value: &impl Serialize) -> Edit {
        Edit::Put(item, seal(value))
    }

    pub(super) fn append(entry: &Entry) -> Edit {
        Edit::Append(entry.log_id().index, seal(entry))
    }
}

/// The open file, or its stand-in in memory.
pub(super) struct Disk {
    /// `None` after [`Disk::close`].
    database: Option<Database>,
    /// What messages call it.
    path: String,
}

impl Disk {
    /// Opens the file in `directory`, or makes it; in memory without a directory. Blocks.
    pub(super) fn open(directory: Option<&Path>) -> Result<(Disk, Contents), DiskError> {
        let path = directory.map(|directory| directory.join(FILE));
        let name = path.as_ref().map_or("the Raft log in memory".to_owned(), |path| path.display().to_string());
        let builder = builder();
        let database = match &path {
            Some(path) => builder.create(path),
            None => builder.create_with_backend(InMemoryBackend::new()),
        };
        let database = database.map_err(|error| why_not_opened(&name, error))?;
        Disk::of(database, name)
    }

    fn of(database: Database, path: String) -> Result<(Disk, Contents), DiskError> {
        let mut disk = Disk { database: Some(database), path };
        let contents = disk.load()?;
        Ok((disk, contents))
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Makes all changes at once, and returns when they are on the disk. Blocks.
    pub(super) fn write(&mut self, edits: impl IntoIterator<Item = Edit>) -> Result<(), DiskError> {
        let database = self.database.as_ref().ok_or_else(|| self.failure("it is closed"))?;
        let written = (|| -> Result<(), redb::Error> {
            let transaction = database.begin_write()?;
            {
                let mut log = transaction.open_table(LOG)?;
                let mut items = transaction.open_table(ITEMS)?;
                for edit in edits {
                    match edit {
                        Edit::Put(item, value) => drop(items.insert(item.name(), value.as_slice())?),
                        Edit::Append(index, value) => drop(log.insert(index, value.as_slice())?),
                        Edit::CutFrom(first) => log.retain_in(first.., |_, _| false)?,
                        Edit::CutThrough(last) => log.retain_in(..=last, |_, _| false)?,
                    }
                }
            }
            transaction.commit()?;
            Ok(())
        })();
        written.map_err(|error| self.failure(error))
    }

    /// Gives the file up, so that it can be opened again.
    pub(super) fn close(&mut self) {
        self.database = None;
    }

    fn load(&mut self) -> Result<Contents, DiskError> {
        // What makes a new file one of ours.
        let is_new = {
            let database = self.database.as_ref().ok_or_else(|| self.failure("it is closed"))?;
            let transaction = database.begin_read().map_err(|error| self.damage(error))?;
            let tables = transaction.list_tables().map_err(|error| self.damage(error))?;
            tables.count() == 0
        };
        if is_new {
            self.write([Edit::put(Item::Layout, &LAYOUT)])?;
        }
        let database = self.database.as_ref().ok_or_else(|| self.failure("it is closed"))?;
        self.read(database).map_err(|problem| self.damage(problem))
    }

    fn read(&self, database: &Database) -> Result<Contents, String> {
        let transaction = database.begin_read().map_err(text)?;
        let items = transaction.open_table(ITEMS).map_err(text)?;
        let layout: Option<u32> = item(&items, Item::Layout)?;
        if layout != Some(LAYOUT) {
            return Err(format!("its layout is {layout:?}, and not {LAYOUT}"));
        }
        let log = transaction.open_table(LOG).map_err(text)?;
        let mut entries: BTreeMap<u64, Entry> = BTreeMap::new();
        for pair in log.iter().map_err(text)? {
            let (index, value) = pair.map_err(text)?;
            let index = index.value();
            let entry: Entry = unseal(value.value()).map_err(|problem| format!("entry {index}: {problem}"))?;
            if entry.index() != index || entries.last_key_value().is_some_and(|(last, _)| last + 1 != index) {
                return Err(format!("entry {index} is not where it belongs"));
            }
            entries.insert(index, entry);
        }
        Ok(Contents {
            seat: item(&items, Item::Seat)?,
            vote: item(&items, Item::Vote)?,
            committed: item(&items, Item::Committed)?,
            purged: item(&items, Item::Purged)?,
            snapshot: item(&items, Item::Snapshot)?,
            entries,
        })
    }

    fn damage(&self, problem: impl ToString) -> DiskError {
        DiskError::Damaged { path: self.path.clone(), problem: problem.to_string() }
    }

    fn failure(&self, problem: impl ToString) -> DiskError {
        DiskError::Io { path: self.path.clone(), problem: problem.to_string() }
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(PAGE_CACHE).set_check_integrity_on_open(true);
    builder
}

fn why_not_opened(path: &str, error: DatabaseError) -> DiskError {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen => DiskError::InUse { path },
        // A file without redb's magic number is invalid data to it.
        DatabaseError::Storage(StorageError::Io(error)) if error.kind() != std::io::ErrorKind::InvalidData => {
            DiskError::Io { path, problem: error.to_string() }
        }
        error => DiskError::Damaged { path, problem: error.to_string() },
    }
}

fn item<T: DeserializeOwned>(
    items: &impl ReadableTable<&'static str, &'static [u8]>,
    item: Item,
) -> Result<Option<T>, String> {
    let value = items.get(item.name()).map_err(text)?;
    value.map(|value| unseal(value.value()).map_err(|problem| format!("{}: {problem}", item.name()))).transpose()
}

fn seal(value: &impl Serialize) -> Vec<u8> {
    let encoded = super::wire::encode(value);
    let mut sealed = Vec::with_capacity(SEAL + encoded.len());
    sealed.extend_from_slice(&xxh3_64(&encoded).to_le_bytes());
    sealed.extend_from_slice(&encoded);
    sealed
}

fn unseal<T: DeserializeOwned>(sealed: &[u8]) -> Result<T, String> {
    let (checksum, encoded) = sealed.split_first_chunk::<SEAL>().ok_or("it is too short")?;
    if u64::from_le_bytes(*checksum) != xxh3_64(encoded) {
        return Err("its checksum is wrong".to_owned());
    }
    postcard::from_bytes(encoded).map_err(text)
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::fs;
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// A disk that has no room any more from some time on.
    #[derive(Debug)]
    struct Filling {
        kept: InMemoryBackend,
        is_full: Arc<AtomicBool>,
    }

    impl Filling {
        fn check(&self) -> io::Result<()> {
            match self.is_full.load(Ordering::Relaxed) {
                true => Err(io::ErrorKind::StorageFull.into()),
                false => Ok(()),
            }
        }
    }

    impl redb::StorageBackend for Filling {
        fn len(&self) -> io::Result<u64> {
            self.kept.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.kept.read(offset, out)
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.check()?;
            self.kept.set_len(len)
        }

        fn sync_data(&self) -> io::Result<()> {
            self.check()
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.check()?;
            self.kept.write(offset, data)
        }
    }

    /// A disk, and the switch that fills it up.
    pub(in super::super) fn filling() -> (Disk, Arc<AtomicBool>) {
        let is_full = Arc::new(AtomicBool::new(false));
        let backend = Filling { kept: InMemoryBackend::new(), is_full: Arc::clone(&is_full) };
        let database = builder().create_with_backend(backend).expect("there is room");
        (Disk::of(database, "/data/raft.redb".to_owned()).expect("a new one").0, is_full)
    }

    fn seat() -> Seat {
        Seat { cluster: ClusterId([7; 16]), number: NodeNumber(3), id: NodeId::from_bytes([1; 20]), founder: None }
    }

    #[test]
    fn what_was_written_is_there_when_it_is_opened_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut disk, empty) = Disk::open(Some(directory.path())).expect("a new file");
        assert!(empty.seat.is_none() && empty.entries.is_empty());
        disk.write([Edit::put(Item::Seat, &seat())]).expect("room");
        drop(disk);
        let (_, contents) = Disk::open(Some(directory.path())).expect("our file");
        assert_eq!(contents.seat, Some(seat()));
    }

    #[test]
    fn a_file_that_is_open_already_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let (_first, _) = Disk::open(Some(directory.path())).expect("a new file");
        let refused = Disk::open(Some(directory.path())).err().expect("it is in use");
        assert!(matches!(refused, DiskError::InUse { .. }), "{refused}");
    }

    #[test]
    fn a_strangers_file_is_refused_by_name_and_left_as_it_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(FILE);
        let content = b"This is no database, but somebody may need it. ".repeat(300);
        fs::write(&path, &content).expect("a file");
        let refused = Disk::open(Some(directory.path())).err().expect("no database");
        assert!(matches!(refused, DiskError::Damaged { .. }), "{refused}");
        assert!(refused.to_string().contains(path.to_str().expect("a plain path")), "{refused}");
        assert_eq!(fs::read(&path).expect("still there"), content);
    }

    #[test]
    fn altered_content_is_noticed_wherever_it_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut disk, _) = Disk::open(Some(directory.path())).expect("a new file");
        disk.write([Edit::put(Item::Seat, &seat())]).expect("room");
        drop(disk);
        let path = directory.path().join(FILE);
        let whole = fs::read(&path).expect("the file");
        let id = seat().id.as_str().as_bytes().to_vec();
        let at = whole.windows(id.len()).position(|window| window == id).expect("the id stands in the file as it is");
        let mut altered = whole;
        altered[at] ^= 1;
        fs::write(&path, altered).expect("a file");
        let refused = Disk::open(Some(directory.path())).err().expect("damaged");
        assert!(matches!(refused, DiskError::Damaged { .. }), "{refused}");
    }

    #[test]
    fn a_seal_that_does_not_fit_is_refused() {
        let mut sealed = seal(&seat());
        assert_eq!(unseal::<Seat>(&sealed), Ok(seat()));
        *sealed.last_mut().expect("not empty") ^= 1;
        assert!(unseal::<Seat>(&sealed).is_err());
        assert!(unseal::<Seat>(&sealed[..3]).is_err());
    }
}
