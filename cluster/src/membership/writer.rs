//! The one thread that writes to the disk. What is handed to it while it writes goes into its next transaction together, so that many
//! entries cost one sync, and no task of the runtime ever waits for a disk.

use std::io;
use std::sync::mpsc::{self, TrySendError};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use super::disk::{Disk, Edit};

/// Writes that go into one transaction at most.
const BATCH: usize = 256;

/// Writes that wait for the disk at most. Raft waits for what it has written before it writes much more, so there are a few of them as long as
/// the disk answers at all.
const MAX_WAITING: usize = 4096;

/// How long the end waits for room among them, again and again.
const UNTIL_ROOM: Duration = Duration::from_millis(10);

/// What is called when a write is on the disk, or has failed.
type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

enum Job {
    Write(Vec<Edit>, Done),
    /// What may be lost in a crash: it goes along with the next write, or with the end.
    Casual(Edit),
    Close(oneshot::Sender<()>),
}

/// A handle on the thread.
#[derive(Clone)]
pub(super) struct Writer {
    jobs: mpsc::SyncSender<Job>,
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(disk: Disk) -> io::Result<Writer> {
        let (jobs, queue) = mpsc::sync_channel(MAX_WAITING);
        thread::Builder::new().name("raft-log".to_owned()).spawn(move || run(disk, &queue))?;
        Ok(Writer { jobs })
    }

    /// Writes after all that was handed in before, and calls `done` when it is on the disk.
    pub(super) fn write_then(&self, edits: Vec<Edit>, done: impl FnOnce(io::Result<()>) + Send + 'static) {
        match self.jobs.try_send(Job::Write(edits, Box::new(done))) {
            Err(TrySendError::Full(Job::Write(_, done))) => done(Err(full())),
            Err(TrySendError::Disconnected(Job::Write(_, done))) => done(Err(closed())),
            Ok(()) | Err(_) => {}
        }
    }

    /// Writes, and returns when it is on the disk.
    pub(super) async fn write(&self, edits: Vec<Edit>) -> io::Result<()> {
        let (sender, written) = oneshot::channel();
        self.write_then(edits, move |result| drop(sender.send(result)));
        written.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Leaves something to be written sometime.
    pub(super) fn write_casually(&self, edit: Edit) {
        // A closed file takes nothing any more, nor does a disk that does not keep up, and what is lost here is made up for.
        let _lost = self.jobs.try_send(Job::Casual(edit));
    }

    /// Writes what is left and closes the file.
    pub(super) async fn close(&self) {
        let (sender, closed) = oneshot::channel();
        let mut job = Job::Close(sender);
        while let Err(TrySendError::Full(refused)) = self.jobs.try_send(job) {
            job = refused;
            tokio::time::sleep(UNTIL_ROOM).await;
        }
        let _ended = closed.await;
    }
}

fn full() -> io::Error {
    io::Error::other(format!("{MAX_WAITING} writes of the Raft log wait for the disk, which does not keep up"))
}

fn closed() -> io::Error {
    io::Error::other("the Raft log is closed")
}

fn run(mut disk: Disk, queue: &mpsc::Receiver<Job>) {
    // After a failed write nobody can tell what is on the disk: all further ones fail likewise, until the node is started again.
    let mut failure: Option<String> = None;
    let mut edits = Vec::new();
    while let Ok(first) = queue.recv() {
        let mut waiting: Vec<Done> = Vec::new();
        let mut close = None;
        for job in std::iter::once(first).chain(queue.try_iter()).take(BATCH) {
            match job {
                Job::Write(more, done) => {
                    edits.extend(more);
                    waiting.push(done);
                }
                Job::Casual(edit) => edits.push(edit),
                Job::Close(sender) => {
                    close = Some(sender);
                    break;
                }
            }
        }
        if waiting.is_empty() && close.is_none() {
            continue;
        }
        if failure.is_none() && !edits.is_empty() {
            failure = disk.write(edits.drain(..)).err().map(|error| error.to_string());
            if let Some(problem) = &failure {
                tracing::error!("this node takes no part in the cluster any more: {problem}");
            }
        }
        edits.clear();
        for done in waiting {
            done(failure.clone().map_or(Ok(()), |problem| Err(io::Error::other(problem))));
        }
        if let Some(sender) = close {
            disk.close();
            let _gone = sender.send(());
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::disk::Item;
    use super::*;

    #[tokio::test]
    async fn what_is_casual_goes_along_and_is_there_after_the_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let (disk, _) = Disk::open(Some(directory.path())).expect("a new file");
        let writer = Writer::start(disk).expect("a thread");
        let vote = super::super::raft::Vote::new(3, 2);
        writer.write_casually(Edit::put(Item::Vote, &vote));
        writer.close().await;
        let (_disk, contents) = Disk::open(Some(directory.path())).expect("it was closed");
        assert_eq!(contents.vote, Some(vote));
    }

    #[tokio::test]
    async fn a_full_disk_refuses_this_write_and_all_later_ones_by_name() {
        let (disk, is_full) = super::super::disk::tests::filling();
        let writer = Writer::start(disk).expect("a thread");
        let vote = super::super::raft::Vote::new(3, 2);
        writer.write(vec![Edit::put(Item::Vote, &vote)]).await.expect("there is room");
        is_full.store(true, std::sync::atomic::Ordering::Relaxed);
        let refused = writer.write(vec![Edit::put(Item::Vote, &vote)]).await.expect_err("no room");
        assert!(refused.to_string().contains("/data/raft.redb") && refused.to_string().contains("hint:"), "{refused}");
        is_full.store(false, std::sync::atomic::Ordering::Relaxed);
        writer.write(vec![Edit::put(Item::Vote, &vote)]).await.expect_err("what is on the disk is not known");
        writer.close().await;
    }

    #[tokio::test]
    async fn a_closed_file_refuses() {
        let (disk, _) = Disk::open(None).expect("memory");
        let writer = Writer::start(disk).expect("a thread");
        writer.close().await;
        assert!(writer.write(vec![Edit::CutFrom(0)]).await.is_err());
    }
}
