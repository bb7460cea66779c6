//! Giving memory back on a thread of its own, so that whoever removes a lot does not wait until it is free (UNLINK, FLUSHALL ASYNC).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{Builder, JoinHandle};

use forebay_store::Garbage;

/// Removals that may wait for the thread. With more, those who remove free the memory themselves, and are slowed down by it.
const MAX_WAITING: usize = 1024;

/// The thread and the way to it. Dropping it waits until all is free.
pub struct Reclaimer {
    /// None only while this is being dropped.
    queue: Option<SyncSender<Garbage>>,
    thread: Option<JoinHandle<()>>,
    tally: Arc<Tally>,
}

/// Counts of values.
#[derive(Default)]
struct Tally {
    pending: AtomicU64,
    reclaimed: AtomicU64,
}

impl Reclaimer {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start() -> io::Result<Reclaimer> {
        let (queue, waiting) = sync_channel(MAX_WAITING);
        let tally = Arc::new(Tally::default());
        let counted = Arc::clone(&tally);
        let thread = Builder::new().name("forebay-reclaim".into()).spawn(move || reclaim(&waiting, &counted))?;
        Ok(Reclaimer { queue: Some(queue), thread: Some(thread), tally })
    }

    /// Takes what is to be freed, unless too much is waiting: then it stays with the caller, who frees it by dropping it.
    pub fn take_over(&self, garbage: &mut Garbage) {
        let Some(queue) = self.queue.as_ref().filter(|_| !garbage.is_empty()) else {
            return;
        };
        let values = garbage.len() as u64;
        self.tally.pending.fetch_add(values, Relaxed);
        if let Err(TrySendError::Full(back) | TrySendError::Disconnected(back)) =
            queue.try_send(std::mem::take(garbage))
        {
            self.tally.pending.fetch_sub(values, Relaxed);
            *garbage = back;
        }
    }

    /// Values that are yet to be freed.
    pub fn pending(&self) -> u64 {
        self.tally.pending.load(Relaxed)
    }

    /// Values freed since the start or [`Self::reset`].
    pub fn reclaimed(&self) -> u64 {
        self.tally.reclaimed.load(Relaxed)
    }

    /// Starts counting [`Self::reclaimed`] anew.
    pub fn reset(&self) {
        self.tally.reclaimed.store(0, Relaxed);
    }
}

impl Drop for Reclaimer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // It fails only if freeing panicked, which the panic hook has told by now.
            let _ended = thread.join();
        }
    }
}

fn reclaim(waiting: &Receiver<Garbage>, tally: &Tally) {
    for garbage in waiting {
        let values = garbage.len() as u64;
        drop(garbage);
        tally.reclaimed.fetch_add(values, Relaxed);
        tally.pending.fetch_sub(values, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use forebay_store::{Expiry, Store, StoreConfig};

    use super::*;

    #[test]
    fn what_it_takes_over_is_freed_and_counted() {
        let store = Store::new(StoreConfig::default());
        let key = store.key(0, 1, b"key");
        store.lock(1, 0).set_string(&key, b"value", Expiry::None);
        let reclaimer = Reclaimer::start().unwrap();
        let tally = Arc::clone(&reclaimer.tally);

        let mut garbage = store.flush(None);
        reclaimer.take_over(&mut garbage);
        assert!(garbage.is_empty());
        drop(reclaimer);
        assert_eq!(tally.reclaimed.load(Relaxed), 1);
        assert_eq!(tally.pending.load(Relaxed), 0);
    }

    #[test]
    fn nothing_is_no_work() {
        let reclaimer = Reclaimer::start().unwrap();
        reclaimer.take_over(&mut Garbage::default());
        assert_eq!(reclaimer.pending() + reclaimer.reclaimed(), 0);
    }
}
