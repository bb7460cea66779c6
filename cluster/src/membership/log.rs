//! Raft's log. It is short, since snapshots replace it: all of it is in memory, and readers never wait for the disk.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::Arc;

use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{OptionalSend, alias};
use parking_lot::Mutex;

use super::disk::{Contents, Edit, Item};
use super::raft::{Entry, LogId, Types, Vote};
use super::writer::Writer;

/// The log store that openraft is given; its clones read.
#[derive(Clone)]
pub(super) struct Log {
    kept: Arc<Mutex<Kept>>,
    writer: Writer,
}

/// What is on the disk, or on the way to it.
struct Kept {
    entries: BTreeMap<u64, Entry>,
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
}

impl Log {
    pub(super) fn new(contents: &mut Contents, writer: Writer) -> Log {
        let kept = Kept {
            entries: std::mem::take(&mut contents.entries),
            vote: contents.vote,
            committed: contents.committed,
            purged: contents.purged,
        };
        Log { kept: Arc::new(Mutex::new(kept)), writer }
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        Ok(self.kept.lock().entries.range(range).map(|(_, entry)| entry.clone()).collect())
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.kept.lock().vote)
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Log;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let kept = self.kept.lock();
        let last = kept.entries.last_key_value().map(|(_, entry)| entry.log_id()).or(kept.purged);
        Ok(LogState { last_purged_log_id: kept.purged, last_log_id: last })
    }

    async fn get_log_reader(&mut self) -> Log {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.writer.write(vec![Edit::put(Item::Vote, vote)]).await?;
        self.kept.lock().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.kept.lock().committed = committed;
        // An earlier one after a crash is no harm: the leader tells it again, and what is applied is in memory only.
        if let Some(committed) = committed {
            self.writer.write_casually(Edit::put(Item::Committed, &committed));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.kept.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut edits = Vec::new();
        {
            let mut kept = self.kept.lock();
            for entry in entries {
                edits.push(Edit::append(&entry));
                kept.entries.insert(entry.index(), entry);
            }
        }
        self.writer.write_then(edits, move |result| callback.io_completed(result));
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<alias::LogIdOf<Types>>) -> io::Result<()> {
        let first = last_log_id.map_or(0, |last| last.index + 1);
        self.kept.lock().entries.split_off(&first);
        self.writer.write(vec![Edit::CutFrom(first)]).await
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        {
            let mut kept = self.kept.lock();
            kept.purged = Some(log_id);
            kept.entries = kept.entries.split_off(&(log_id.index + 1));
        }
        self.writer.write(vec![Edit::put(Item::Purged, &log_id), Edit::CutThrough(log_id.index)]).await
    }
}
