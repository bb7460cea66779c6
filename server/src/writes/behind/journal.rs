//! The journal: what was acknowledged and is not in the database yet, on disk.
//!
//! ```text
//! u32   length of the rest, little endian
//! u32   CRC-32C of the rest
//! u8    1: a record; 2: the database has it
//! u64   epoch, u64 sequence
//! u32   length of the key; the key; the record
//! ```
//!
//! A thread writes: what has gathered while it waited for the disk is written and synced together. Each record of a key stands for all before it. If
//! a write fails, the file is cut where it was good, and who waited is told. At a start a torn end is cut off; damage before the end is passed over
//! and told of. When little of a long file is needed any more, it is written anew.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::{Buf, BufMut, Bytes};
use crc::{CRC_32_ISCSI, Crc, Table};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tracing::{error, warn};

use super::record::Version;

/// Its name within the data directory.
pub const FILE: &str = "pending-writes";

/// Messages that may wait for the disk.
const MAX_WAITING: usize = 4096;

/// Messages that are written together at most.
const MAX_TOGETHER: usize = 1024;

/// A file is not written anew below this length, and not while more than one in so many bytes is needed.
const REWRITE_FROM: u64 = 8 << 20;
const REWRITE_SHARE: u64 = 4;

/// A record is not longer than this, keys and values included; a length above it is damage.
const MAX_LENGTH: usize = 1 << 30;

const HEAD: usize = 8;
const APPENDED: u8 = 1;
const CONFIRMED: u8 = 2;

static CRC: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

/// What is needed of the file, by key.
pub type Live = HashMap<Bytes, (Version, Bytes)>;

/// The way to the journal.
pub struct Journal {
    messages: Mutex<Option<mpsc::Sender<Message>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

enum Message {
    Append { key: Bytes, version: Version, record: Bytes, answer: oneshot::Sender<Result<(), Arc<str>>> },
    Confirm { key: Bytes, version: Version },
}

impl Journal {
    /// Opens the journal in a directory, and reads what is there.
    ///
    /// # Errors
    /// When that cannot be done.
    pub fn open(directory: &Path) -> io::Result<(Journal, Live)> {
        let pages = Pages::open(directory.join(FILE))?;
        let live = pages.live.clone();
        let (messages, inbox) = mpsc::channel(MAX_WAITING);
        let thread = std::thread::Builder::new().name("journal".to_owned()).spawn(move || write(pages, inbox))?;
        Ok((Journal { messages: Mutex::new(Some(messages)), thread: Mutex::new(Some(thread)) }, live))
    }

    /// Returns when the record is on disk.
    ///
    /// # Errors
    /// When it is not; then it never will be.
    pub async fn append(&self, key: Bytes, version: Version, record: Bytes) -> Result<(), Arc<str>> {
        let (answer, told) = oneshot::channel();
        let gone = || Arc::from("the journal is closed");
        let messages = self.messages.lock().clone().ok_or_else(gone)?;
        messages.send(Message::Append { key, version, record, answer }).await.map_err(|_| gone())?;
        told.await.unwrap_or_else(|_| Err(gone()))
    }

    /// The database has the key's value of that version, and all before it.
    pub async fn confirm(&self, key: Bytes, version: Version) {
        let messages = self.messages.lock().clone();
        if let Some(messages) = messages {
            // Who is closed is told at the next start, by the database's having it already.
            let _closed = messages.send(Message::Confirm { key, version }).await;
        }
    }

    /// Waits until all is written.
    pub fn close(&self) {
        drop(self.messages.lock().take());
        if let Some(thread) = self.thread.lock().take() {
            let _ended = thread.join();
        }
    }
}

fn write(mut pages: Pages, mut inbox: mpsc::Receiver<Message>) {
    let mut together = Vec::new();
    while inbox.blocking_recv_many(&mut together, MAX_TOGETHER) > 0 {
        pages.write(std::mem::take(&mut together));
    }
}

/// The file, and what is needed of it.
struct Pages {
    path: PathBuf,
    file: File,
    /// Up to here all is well.
    length: u64,
    live: Live,
    live_bytes: u64,
    /// The file could not be cut where it was good: it is to be written anew before anything else.
    is_bad: bool,
}

impl Pages {
    fn open(path: PathBuf) -> io::Result<Pages> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        let mut content = Vec::new();
        file.read_to_end(&mut content)?;
        let content = Bytes::from(content);
        let mut pages = Pages { path, file, length: 0, live: HashMap::new(), live_bytes: 0, is_bad: false };
        let mut at = 0;
        while at < content.len() {
            match parse(&content.slice(at..)) {
                Some((length, line)) => {
                    pages.note(line);
                    at += length;
                    pages.length = at as u64;
                }
                None => match (at + 1..content.len()).find(|at| parse(&content.slice(*at..)).is_some()) {
                    Some(next) => {
                        error!(path = %pages.path.display(), at, bytes = next - at, "the journal is damaged: a part of it cannot be read");
                        at = next;
                    }
                    None => {
                        warn!(path = %pages.path.display(), at, bytes = content.len() - at, "the journal's end was not written whole and is cut off");
                        break;
                    }
                },
            }
        }
        pages.cut()?;
        Ok(pages)
    }

    fn note(&mut self, line: Line) {
        match line {
            Line::Append(key, version, record) => self.add(key, version, record),
            Line::Confirm(key, version) => self.remove(&key, version),
        }
    }

    fn add(&mut self, key: Bytes, version: Version, record: Bytes) {
        if self.live.get(&key).is_some_and(|(known, _)| *known > version) {
            return;
        }
        self.live_bytes += (key.len() + record.len()) as u64;
        if let Some((_, former)) = self.live.insert(key.clone(), (version, record)) {
            self.live_bytes -= (key.len() + former.len()) as u64;
        }
    }

    fn remove(&mut self, key: &Bytes, version: Version) {
        if self.live.get(key).is_some_and(|(known, _)| *known <= version) {
            let removed = self.live.remove(key);
            self.live_bytes -= removed.map_or(0, |(_, record)| (key.len() + record.len()) as u64);
        }
    }

    /// Writes what has gathered, and answers.
    fn write(&mut self, messages: Vec<Message>) {
        let mut out = Vec::new();
        let mut waits = false;
        for message in &messages {
            match message {
                Message::Append { key, version, record, .. } => {
                    waits = true;
                    line(&mut out, APPENDED, key, *version, record);
                }
                Message::Confirm { key, version } => line(&mut out, CONFIRMED, key, *version, &[]),
            }
        }
        let written = self.put(&out, waits);
        if let Err(reason) = &written {
            error!(path = %self.path.display(), "the journal cannot be written: {reason}");
        }
        for message in messages {
            match message {
                Message::Append { key, version, record, answer } => {
                    if written.is_ok() {
                        self.add(key, version, record);
                    }
                    let _gone = answer.send(written.as_ref().copied().map_err(Arc::clone));
                }
                // That the database has it is true even if it is not written down.
                Message::Confirm { key, version } => self.remove(&key, version),
            }
        }
        if self.length > REWRITE_FROM && self.length > REWRITE_SHARE * self.live_bytes {
            if let Err(error) = self.rewrite() {
                warn!(path = %self.path.display(), "the journal could not be written anew and grows on: {error}");
            }
        }
    }

    fn put(&mut self, out: &[u8], syncs: bool) -> Result<(), Arc<str>> {
        let in_words = |error: io::Error| Arc::from(error.to_string());
        if self.is_bad {
            self.rewrite().map_err(in_words)?;
        }
        let done = self.file.write_all(out).and_then(|()| if syncs { self.file.sync_data() } else { Ok(()) });
        match done {
            Ok(()) => {
                self.length += out.len() as u64;
                Ok(())
            }
            Err(error) => {
                // What could not be synced may or may not be there; it must not come back at a start.
                self.is_bad = self.cut().is_err();
                Err(in_words(error))
            }
        }
    }

    /// Cuts off what is behind the good part.
    fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(self.length)?;
        self.file.seek(SeekFrom::Start(self.length))?;
        self.file.sync_data()
    }

    /// Writes what is needed into a new file, which takes the place of this one.
    fn rewrite(&mut self) -> io::Result<()> {
        let aside = self.path.with_extension("new");
        let mut out = Vec::new();
        for (key, (version, record)) in &self.live {
            line(&mut out, APPENDED, key, *version, record);
        }
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&aside)?;
        file.write_all(&out)?;
        file.sync_all()?;
        fs::rename(&aside, &self.path)?;
        if let Some(directory) = self.path.parent() {
            File::open(directory)?.sync_all()?;
        }
        self.file = file;
        self.length = out.len() as u64;
        self.is_bad = false;
        Ok(())
    }
}

enum Line {
    Append(Bytes, Version, Bytes),
    Confirm(Bytes, Version),
}

fn line(out: &mut Vec<u8>, kind: u8, key: &[u8], version: Version, record: &[u8]) {
    let start = out.len();
    out.put_u64_le(0);
    out.put_u8(kind);
    out.put_u64_le(version.epoch);
    out.put_u64_le(version.sequence);
    out.put_u32_le(key.len() as u32);
    out.put_slice(key);
    out.put_slice(record);
    let content = start + HEAD;
    let (length, sum) = ((out.len() - content) as u32, CRC.checksum(&out[content..]));
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 4..content].copy_from_slice(&sum.to_le_bytes());
}

/// The line that the bytes begin with, and its length.
fn parse(bytes: &Bytes) -> Option<(usize, Line)> {
    let mut rest = bytes.clone();
    let (length, sum) = (rest.try_get_u32_le().ok()? as usize, rest.try_get_u32_le().ok()?);
    if length > MAX_LENGTH || length > rest.len() {
        return None;
    }
    rest.truncate(length);
    if CRC.checksum(&rest) != sum {
        return None;
    }
    let kind = rest.try_get_u8().ok()?;
    let version = Version { epoch: rest.try_get_u64_le().ok()?, sequence: rest.try_get_u64_le().ok()? };
    let key_length = rest.try_get_u32_le().ok()? as usize;
    if key_length > rest.len() {
        return None;
    }
    let key = rest.split_to(key_length);
    let line = match kind {
        APPENDED => Line::Append(key, version, rest),
        CONFIRMED => Line::Confirm(key, version),
        _ => return None,
    };
    Some((HEAD + length, line))
}

#[cfg(test)]
mod tests;
