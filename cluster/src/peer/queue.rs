//! What waits to be sent on a stream. All that waits is one batch.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::batch;

/// Bytes that may wait. Who finds more has to wait or to give up.
pub(super) const MAX_QUEUED: usize = 64 << 20;

/// A batch's memory that is kept for the next one.
const KEPT: usize = 64 << 10;

/// The sending end. Any thread may add to it.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    reader: AtomicWaker,
    taken: Notify,
}

#[derive(Default)]
struct Waiting {
    batch: BytesMut,
    /// The number of the last call that was taken to be sent.
    last: u64,
    last_taken: u64,
    is_closed: bool,
}

impl Queue {
    /// Adds a call unless there is no room, or nobody sends any more.
    pub(super) fn push(&self, number: u64, content: &[u8]) -> bool {
        self.push_if(number, content, |waiting| waiting.batch.len() < MAX_QUEUED)
    }

    /// Adds a call even beyond the limit: for replies, whose requests were limited.
    pub(super) fn push_anyway(&self, number: u64, content: &[u8]) -> bool {
        self.push_if(number, content, |_| true)
    }

    fn push_if(&self, number: u64, content: &[u8], may: impl FnOnce(&Waiting) -> bool) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.is_closed || !may(&waiting) {
            return false;
        }
        let was_empty = waiting.batch.is_empty();
        batch::put(&mut waiting.batch, number, content);
        waiting.last = number;
        drop(waiting);
        // Who sends takes all at once, so only the first has to wake it.
        if was_empty {
            self.reader.wake();
        }
        true
    }

    /// Waits until there is room again.
    pub(super) async fn room(&self) {
        loop {
            let taken = self.taken.notified();
            {
                let waiting = self.waiting.lock();
                if waiting.is_closed || waiting.batch.len() < MAX_QUEUED {
                    return;
                }
            }
            taken.await;
        }
    }

    /// Ends the stream; what waits is dropped.
    pub(super) fn close(&self) {
        let mut waiting = self.waiting.lock();
        *waiting = Waiting { is_closed: true, last_taken: waiting.last_taken, ..Waiting::default() };
        drop(waiting);
        self.reader.wake();
        self.taken.notify_waiters();
    }

    /// The number of the last call that may have been sent.
    pub(super) fn last_taken(&self) -> u64 {
        self.waiting.lock().last_taken
    }

    fn poll_batch(&self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        // Registered before the look, or a call that comes in between would wake nobody.
        self.reader.register(context.waker());
        let mut waiting = self.waiting.lock();
        if waiting.is_closed {
            return Poll::Ready(None);
        }
        if waiting.batch.is_empty() {
            return Poll::Pending;
        }
        waiting.last_taken = waiting.last;
        let batch = std::mem::take(&mut waiting.batch);
        waiting.batch.reserve(batch.len().min(KEPT));
        drop(waiting);
        self.taken.notify_waiters();
        Poll::Ready(Some(batch.freeze()))
    }
}

/// The batches of a queue, made into messages.
pub(super) struct Batches<M> {
    queue: Arc<Queue>,
    message: M,
}

impl<M> Batches<M> {
    pub(super) fn new(queue: Arc<Queue>, message: M) -> Self {
        Batches { queue, message }
    }
}

impl<T, M: FnMut(Bytes) -> T + Unpin> Stream for Batches<M> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let batch = std::task::ready!(self.queue.poll_batch(context));
        Poll::Ready(batch.map(|batch| (self.message)(batch)))
    }
}

impl<M> Drop for Batches<M> {
    fn drop(&mut self) {
        self.queue.close();
    }
}
