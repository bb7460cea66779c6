//! What waits to be sent on a stream. All that waits is one batch.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use super::batch;

/// Bytes that may wait. Who finds more has to wait or to give up.
pub(super) const MAX_QUEUED: usize = 64 << 20;

/// A batch's memory that is kept for the next one.
const KEPT: usize = 64 << 10;

/// Bytes that are sent even though their thread's round has not ended: the peer may begin with them.
const ENOUGH: usize = 16 << 10;

thread_local! {
    /// What this thread has added to since the last [`send_gathered`]; `None` if all is sent at once.
    static GATHERED: RefCell<Option<Vec<Arc<Queue>>>> = const { RefCell::new(None) };
}

/// From now on, what this thread sends to peers waits until it calls [`send_gathered`], as it has to in each of its rounds. So what it has
/// for a peer is one batch, for which the sender is roused once.
pub fn gather_on_this_thread() {
    GATHERED.set(Some(Vec::new()));
}

/// Sends what this thread has gathered.
#[inline]
pub fn send_gathered() {
    GATHERED.with_borrow_mut(|gathered| {
        if let Some(queues) = gathered {
            queues.drain(..).for_each(|queue| queue.announce());
        }
    });
}

/// The sending end. Any thread may add to it.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    reader: AtomicWaker,
}

#[derive(Default)]
struct Waiting {
    batch: BytesMut,
    /// The number of the last call that was taken to be sent.
    last: u64,
    last_taken: u64,
    is_closed: bool,
    /// Whether the sender knows that there is something.
    is_announced: bool,
}

impl Queue {
    /// Adds a call unless there is no room, or nobody sends any more.
    pub(super) fn push(self: &Arc<Self>, number: u64, content: &[u8]) -> bool {
        self.push_if(number, content, |waiting| waiting.batch.len() < MAX_QUEUED)
    }

    /// Adds a call even beyond the limit: for replies, whose requests were limited.
    pub(super) fn push_anyway(self: &Arc<Self>, number: u64, content: &[u8]) -> bool {
        self.push_if(number, content, |_| true)
    }

    fn push_if(self: &Arc<Self>, number: u64, content: &[u8], may: impl FnOnce(&Waiting) -> bool) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.is_closed || !may(&waiting) {
            return false;
        }
        batch::put(&mut waiting.batch, number, content);
        waiting.last = number;
        // Who sends takes all at once, so it has to be told once only.
        if waiting.is_announced || waiting.batch.len() < ENOUGH && self.is_gathered() {
            return true;
        }
        waiting.is_announced = true;
        drop(waiting);
        self.reader.wake();
        true
    }

    /// Has it announced at the end of the thread's round, if the thread has such. Whoever else adds to it meanwhile does likewise, so
    /// nobody depends on another thread's round.
    fn is_gathered(self: &Arc<Self>) -> bool {
        GATHERED.with_borrow_mut(|gathered| {
            let Some(queues) = gathered else { return false };
            if !queues.iter().any(|queue| Arc::ptr_eq(queue, self)) {
                queues.push(Arc::clone(self));
            }
            true
        })
    }

    /// Tells the sender what it has not been told.
    fn announce(&self) {
        let mut waiting = self.waiting.lock();
        if waiting.batch.is_empty() || std::mem::replace(&mut waiting.is_announced, true) {
            return;
        }
        drop(waiting);
        self.reader.wake();
    }

    /// Whether so little waits that more may be asked for.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.lock().batch.len() < MAX_QUEUED
    }

    /// Ends the stream; what waits is dropped.
    pub(super) fn close(&self) {
        let mut waiting = self.waiting.lock();
        *waiting = Waiting { is_closed: true, last_taken: waiting.last_taken, ..Waiting::default() };
        drop(waiting);
        self.reader.wake();
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
        waiting.is_announced = false;
        let batch = std::mem::take(&mut waiting.batch);
        waiting.batch.reserve(batch.len().min(KEPT));
        drop(waiting);
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

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use futures_util::StreamExt;

    fn next(batches: &mut Batches<impl FnMut(Bytes) -> Bytes + Unpin>) -> Option<Bytes> {
        batches.next().now_or_never().flatten()
    }

    #[test]
    fn what_a_thread_gathers_is_announced_at_the_end_of_its_round() {
        let queue = Arc::new(Queue::default());
        let announced = |queue: &Arc<Queue>| queue.waiting.lock().is_announced;
        std::thread::scope(|scope| {
            let gathering = || {
                gather_on_this_thread();
                assert!(queue.push(1, b"one") && queue.push(2, b"two"));
                assert!(!announced(&queue));
                send_gathered();
                assert!(announced(&queue));
            };
            scope.spawn(gathering).join().expect("no panic");
        });
        let mut batches = Batches::new(Arc::clone(&queue), |batch| batch);
        assert!(next(&mut batches).is_some_and(|batch| batch::Calls(batch).count() == 2));
        assert!(!announced(&queue));
        assert!(queue.push(3, b"three"));
        assert!(announced(&queue), "a thread without rounds announces at once");
    }

    #[test]
    fn much_does_not_wait_for_the_end_of_a_round() {
        let queue = Arc::new(Queue::default());
        std::thread::scope(|scope| {
            let gathering = || {
                gather_on_this_thread();
                assert!(queue.push(1, &[0; ENOUGH]));
                assert!(queue.waiting.lock().is_announced);
            };
            scope.spawn(gathering).join().expect("no panic");
        });
    }
}
