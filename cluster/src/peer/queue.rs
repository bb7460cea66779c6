//! What waits to be sent on a stream. All that waits is one batch, as long as it fits into a message.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use super::MAX_CONTENT;
use super::batch::{self, HEADER};

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
    /// What is to be sent before `batch`.
    full: VecDeque<Full>,
    /// Bytes of these.
    full_bytes: usize,
    /// The calls that came last. They fit into a message.
    batch: BytesMut,
    /// The number of the last call that came.
    last: u64,
    /// The number of the last call that was taken to be sent, were it only in part.
    last_taken: u64,
    is_closed: bool,
    /// Whether the sender knows that there is something.
    is_announced: bool,
}

/// A batch that takes no more calls: those that fit into a message together, or one that does not fit, which is sent in parts.
struct Full {
    rest: Bytes,
    last: u64,
}

impl Waiting {
    fn len(&self) -> usize {
        self.full_bytes + self.batch.len()
    }

    #[inline]
    fn add(&mut self, number: u64, content: &[u8]) {
        let is_full = self.batch.len() + HEADER + content.len() > MAX_CONTENT;
        if is_full {
            self.set_aside();
        }
        batch::put(&mut self.batch, number, content);
        self.last = number;
        if is_full && self.batch.len() > MAX_CONTENT {
            self.set_aside();
        }
    }

    /// The same without copying the content, which is a batch by itself.
    fn add_shared(&mut self, number: u64, content: Bytes) {
        batch::put_header(&mut self.batch, number, content.len());
        self.last = number;
        self.set_aside();
        self.full_bytes += content.len();
        self.full.push_back(Full { rest: content, last: number });
    }

    #[cold]
    fn set_aside(&mut self) {
        if !self.batch.is_empty() {
            let rest = std::mem::take(&mut self.batch).freeze();
            self.full_bytes += rest.len();
            self.full.push_back(Full { rest, last: self.last });
        }
    }

    /// What goes into the next message.
    #[inline]
    fn take(&mut self) -> Option<Bytes> {
        if !self.full.is_empty() {
            return self.take_full();
        }
        if self.batch.is_empty() {
            return None;
        }
        self.last_taken = self.last;
        let batch = std::mem::take(&mut self.batch);
        self.batch.reserve(batch.len().min(KEPT));
        Some(batch.freeze())
    }

    #[cold]
    fn take_full(&mut self) -> Option<Bytes> {
        let Full { rest, last } = self.full.front_mut()?;
        let content = rest.split_to(rest.len().min(MAX_CONTENT));
        self.last_taken = *last;
        self.full_bytes -= content.len();
        if rest.is_empty() {
            self.full.pop_front();
        }
        Some(content)
    }
}

impl Queue {
    /// Adds a call unless there is no room, or nobody sends any more.
    pub(super) fn push(self: &Arc<Self>, number: u64, content: &[u8]) -> bool {
        self.push_if(|waiting| waiting.len() < MAX_QUEUED, |waiting| waiting.add(number, content))
    }

    /// Adds a call even beyond the limit: for replies, whose requests were limited.
    pub(super) fn push_anyway(self: &Arc<Self>, number: u64, content: &[u8]) -> bool {
        self.push_if(|_| true, |waiting| waiting.add(number, content))
    }

    /// The same for a large one, which is not copied.
    pub(super) fn push_shared(self: &Arc<Self>, number: u64, content: Bytes) -> bool {
        self.push_if(|_| true, |waiting| waiting.add_shared(number, content))
    }

    fn push_if(self: &Arc<Self>, may: impl FnOnce(&Waiting) -> bool, add: impl FnOnce(&mut Waiting)) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.is_closed || !may(&waiting) {
            return false;
        }
        add(&mut waiting);
        // Who sends takes all that there is, so it has to be told once only.
        if waiting.is_announced || waiting.len() < ENOUGH && self.is_gathered() {
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
        if waiting.len() == 0 || std::mem::replace(&mut waiting.is_announced, true) {
            return;
        }
        drop(waiting);
        self.reader.wake();
    }

    /// Whether so little waits that more may be asked for.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.lock().len() < MAX_QUEUED
    }

    /// Ends the stream; what waits is dropped.
    pub(super) fn close(&self) {
        let mut waiting = self.waiting.lock();
        *waiting = Waiting { is_closed: true, last_taken: waiting.last_taken, ..Waiting::default() };
        drop(waiting);
        self.reader.wake();
    }

    /// The number of the last call that may have been sent, at least in part.
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
        let Some(batch) = waiting.take() else {
            return Poll::Pending;
        };
        // Who was given a batch asks for another one without being told.
        waiting.is_announced = waiting.len() > 0;
        drop(waiting);
        Poll::Ready(Some(batch))
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

    /// The calls of a batch that ends with one.
    fn numbers(mut batch: Bytes) -> Vec<u64> {
        let mut calls = batch::Calls::default();
        std::iter::from_fn(|| calls.next(&mut batch).expect("calls")).map(|(number, _)| number).collect()
    }

    #[test]
    fn what_fits_into_no_message_is_sent_in_parts_and_what_fits_whole() {
        let queue = Arc::new(Queue::default());
        let sizes = [10, MAX_CONTENT - HEADER, MAX_CONTENT / 2, MAX_CONTENT / 2, 10, 2 * MAX_CONTENT, 10, 10];
        let pushed: Vec<Vec<u8>> = (1..).zip(sizes).map(|(number, size)| vec![number; size]).collect();
        for (number, content) in (1..).zip(&pushed) {
            assert!(queue.push(number, content));
        }
        let mut batches = Batches::new(Arc::clone(&queue), |batch| batch);
        let (mut calls, mut found, mut ends) = (batch::Calls::default(), Vec::new(), Vec::new());
        while let Some(mut batch) = next(&mut batches) {
            assert!(batch.len() <= MAX_CONTENT);
            let is_right = |waiting: &Waiting| waiting.is_announced == (waiting.len() > 0);
            assert!(is_right(&queue.waiting.lock()));
            while let Some((number, content)) = calls.next(&mut batch).expect("calls") {
                assert_eq!(number as usize, found.len() + 1);
                found.push(content.to_vec());
            }
            ends.push((found.len(), queue.last_taken()));
        }
        assert!(found == pushed);
        // After each message: how many calls are there whole, and the last of which there is anything.
        assert_eq!(ends, [(1, 1), (2, 2), (3, 3), (5, 5), (5, 6), (5, 6), (6, 6), (8, 8)]);
        assert!(queue.has_room() && queue.waiting.lock().full_bytes == 0);
    }

    #[test]
    fn what_is_large_is_sent_from_where_it_lies() {
        let queue = Arc::new(Queue::default());
        let large = Bytes::from(vec![2; MAX_CONTENT + 1]);
        assert!(queue.push(1, b"one") && queue.push_shared(2, large.clone()) && queue.push(3, b"three"));
        let mut batches = Batches::new(Arc::clone(&queue), |batch| batch);
        let (mut calls, mut found) = (batch::Calls::default(), Vec::new());
        while let Some(mut batch) = next(&mut batches) {
            assert!(batch.len() < MAX_CONTENT || batch.as_ptr() == large.as_ptr());
            while let Some(call) = calls.next(&mut batch).expect("calls") {
                found.push(call);
            }
        }
        assert!(found == [(1, Bytes::from_static(b"one")), (2, large), (3, Bytes::from_static(b"three"))]);
    }

    #[test]
    fn what_waits_has_a_limit_however_it_is_cut() {
        let queue = Arc::new(Queue::default());
        let taken = (1..).take_while(|number| queue.push(*number, &[0; MAX_CONTENT / 2])).count();
        assert_eq!(taken, (MAX_QUEUED).div_ceil(HEADER + MAX_CONTENT / 2));
        assert!(!queue.has_room());
        assert!(queue.push_anyway(taken as u64 + 1, b"a reply"));
        let mut batches = Batches::new(Arc::clone(&queue), |batch| batch);
        assert!(next(&mut batches).is_some_and(|batch| numbers(batch) == [1]));
        assert_eq!(queue.last_taken(), 1);
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
        assert_eq!(next(&mut batches).map(numbers), Some(vec![1, 2]));
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
