//! Workbenches: the buffers that a connection needs while it has something in work, kept per thread for whoever comes next.
//!
//! So ten thousand idle connections own no buffers, and the few that are busy find warm ones.

use std::cell::RefCell;
use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};
use forebay_resp::{Args, Decoded, Decoder, Frame, Limits, ProtocolError, Reply};

/// Bytes that one read may bring at first; larger requests make their bench's buffer grow.
pub(super) const READ_BYTES: usize = 16 * 1024;

/// The input grows to so many times what has come, if a request claims to be that large. A claim is cheap and memory is not; but each
/// time it grows, what has come is copied, during which nobody else is served.
const GROWTH: usize = 8;

/// Requests of this many bytes hold a value that is worth keeping as it came: copying it takes longer than making a new input.
const LARGE_REQUEST: usize = 64 * 1024;

/// Benches that a thread keeps.
const KEPT: usize = 16;

/// Capacities above which a buffer is given back to the allocator instead of being kept.
const LARGEST_KEPT_INPUT: usize = 64 * 1024;
const LARGEST_KEPT_REPLY: usize = 64 * 1024;
const LARGEST_KEPT_FRAME: usize = 8 * 1024;

/// Buffers for one connection.
pub(super) struct Bench {
    pub(super) input: BytesMut,
    pub(super) received: Received,
    pub(super) reply: Reply,
}

/// The requests at the front of the input that have been decoded, and which of them is next.
#[derive(Default)]
pub(super) struct Received {
    /// Used again and again: only the first `decoded` hold a request.
    requests: Vec<Undone>,
    decoded: usize,
    next: usize,
}

/// A decoded request: where its bytes lie in the input, and its arguments within them.
#[derive(Default)]
struct Undone {
    bytes: Range<usize>,
    frame: Frame,
}

impl Received {
    /// Decodes what `input` begins with, `most` requests at most. What was decoded before must be done. If there is no whole request,
    /// answers how many bytes are missing, as [`Decoded::Incomplete`] has it.
    ///
    /// # Errors
    /// When the first request breaks the protocol. One behind whole requests is found again once they are done.
    #[inline]
    pub(super) fn decode(
        &mut self,
        decoder: &mut Decoder,
        input: &mut BytesMut,
        limits: &Limits,
        most: usize,
    ) -> Result<Option<usize>, ProtocolError> {
        debug_assert!(self.is_done(), "requests would be lost");
        let mut at = 0;
        while self.decoded < most {
            if self.requests.len() == self.decoded {
                self.requests.push(Undone::default());
            }
            let Undone { bytes, frame } = &mut self.requests[self.decoded];
            let ended = match decoder.decode(&input[at..], limits, frame) {
                Ok(Decoded::Request { consumed }) => {
                    *bytes = at..at + consumed;
                    self.decoded += 1;
                    at += consumed;
                    continue;
                }
                Ok(Decoded::Nothing { consumed }) => {
                    at += consumed;
                    continue;
                }
                Ok(Decoded::Incomplete { missing }) => Ok(Some(missing)),
                Err(error) => Err(error),
            };
            if self.decoded == 0 {
                input.advance(at);
                return ended;
            }
            // It will look for the beginning of this request in the first frame, which is another's now.
            *decoder = Decoder::new();
            break;
        }
        Ok(None)
    }

    /// The requests that are not done, in order.
    #[inline]
    pub(super) fn undone<'r>(&'r self, input: &'r [u8]) -> impl Iterator<Item = Args<'r>> {
        self.requests[self.next..self.decoded].iter().map(|request| request.frame.args(&input[request.bytes.clone()]))
    }

    /// Takes the input's memory, if it holds a large request and nothing else, for the store to keep a value in it.
    pub(super) fn take_large(&self, input: &mut BytesMut) -> Option<Bytes> {
        let is_large = self.decoded == 1 && self.next == 0 && input.len() >= LARGE_REQUEST;
        // What lies unused beside the request would be kept with it.
        let fits = || self.requests[0].bytes == (0..input.len()) && input.capacity() - input.len() <= input.len() / 8;
        (is_large && fits()).then(|| std::mem::take(input).freeze())
    }

    /// The request that [`take_large`](Self::take_large) has taken is done.
    pub(super) fn done_large(&mut self, input: &mut BytesMut) {
        self.clear();
        input.reserve(READ_BYTES);
    }

    /// Gives back what [`take_large`](Self::take_large) has taken, as if the request had not been looked at.
    pub(super) fn put_back(request: Bytes, input: &mut BytesMut) {
        *input = request.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&*shared));
    }

    /// As [`undone`](Self::undone), of a large request that was taken.
    pub(super) fn large<'r>(&'r self, request: &'r Bytes) -> Args<'r> {
        self.requests[self.next].frame.shared_args(request)
    }

    /// The next request, and where its bytes end.
    pub(super) fn next<'r>(&'r self, input: &'r [u8]) -> Option<(Args<'r>, usize)> {
        let request = self.requests[..self.decoded].get(self.next)?;
        Some((request.frame.args(&input[request.bytes.clone()]), request.bytes.end))
    }

    /// `count` more requests are done. When all are, they are taken off the input.
    #[inline]
    pub(super) fn done(&mut self, count: usize, input: &mut BytesMut) {
        self.next += count;
        debug_assert!(self.next <= self.decoded);
        if self.is_done() {
            self.finish(input);
        }
    }

    #[inline]
    pub(super) fn is_done(&self) -> bool {
        self.next == self.decoded
    }

    fn finish(&mut self, input: &mut BytesMut) {
        if let Some(last) = self.requests[..self.decoded].last() {
            input.advance(last.bytes.end);
        }
        self.clear();
    }

    /// Forgets all requests, which are not in the input any more, and gives back what large ones have left behind.
    fn clear(&mut self) {
        let used = self.requests.len().min(self.decoded + 1);
        for request in &mut self.requests[..used] {
            if request.frame.allocated() > LARGEST_KEPT_FRAME {
                request.frame = Frame::new();
            }
        }
        (self.next, self.decoded) = (0, 0);
    }
}

/// In boxes, since a bench goes from hand to hand with every read and is too large to be moved.
type Benches = Vec<Box<Bench>>;

thread_local! {
    static BENCHES: RefCell<Benches> = const { RefCell::new(Vec::new()) };
}

impl Bench {
    /// A bench with nothing on it but `input`.
    #[inline]
    pub(super) fn take_with(input: &[u8]) -> Box<Bench> {
        let mut bench = BENCHES.with_borrow_mut(Vec::pop).unwrap_or_else(Bench::make);
        bench.input.extend_from_slice(input);
        bench
    }

    fn make() -> Box<Bench> {
        let input = BytesMut::with_capacity(READ_BYTES);
        Box::new(Bench { input, received: Received::default(), reply: Reply::new() })
    }

    /// Makes room for the `missing` bytes of a request, or as many of them as what has come of it warrants.
    pub(super) fn make_room(&mut self, missing: usize) {
        let len = self.input.len();
        let room = missing.max(READ_BYTES).min(len.saturating_mul(GROWTH - 1).max(READ_BYTES));
        if room <= self.input.capacity() - len {
            return;
        }
        if len + room <= LARGE_REQUEST {
            return self.input.reserve(room);
        }
        // `reserve` would round up; like this, what is the last of a request is also the last of its memory.
        let mut grown = BytesMut::with_capacity(len + room);
        grown.extend_from_slice(&self.input);
        self.input = grown;
    }

    /// Leaves the bench to the next connection of this thread.
    pub(super) fn leave(mut self: Box<Bench>) {
        self.input.clear();
        self.received.clear();
        self.reply.clear();
        self.reply.shrink_to(LARGEST_KEPT_REPLY);
        // `reserve` after `clear` takes the buffer's whole allocation back, what was consumed of it included.
        self.input.reserve(READ_BYTES);
        if self.input.capacity() > LARGEST_KEPT_INPUT {
            self.input = BytesMut::with_capacity(READ_BYTES);
        }
        BENCHES.with_borrow_mut(|benches| {
            if benches.len() < KEPT {
                benches.push(self);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrive(bench: &mut Bench, mut request: &[u8]) -> usize {
        let (mut decoder, limits, mut most) = (Decoder::new(), Limits::default(), 0);
        loop {
            let missing = bench.received.decode(&mut decoder, &mut bench.input, &limits, 1).expect("no violation");
            let Some(missing) = missing else { return most };
            bench.make_room(missing);
            most = most.max(bench.input.capacity() / bench.input.len().max(READ_BYTES));
            let (now, later) = request.split_at(request.len().min(bench.input.capacity() - bench.input.len()));
            assert!(!now.is_empty(), "there is no room");
            bench.input.extend_from_slice(now);
            request = later;
        }
    }

    #[test]
    fn a_large_request_ends_where_its_memory_ends_and_is_not_copied() {
        for size in [LARGE_REQUEST, 1_000_000, 5_000_000] {
            let head = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${size}\r\n");
            let request = [head.as_bytes(), &vec![b'x'; size], b"\r\n"].concat();
            let mut bench = Bench::make();
            let most = arrive(&mut bench, &request);
            assert!(most <= GROWTH, "{most} times what had come");
            let at = bench.input.as_ptr();
            let taken = bench.received.take_large(&mut bench.input).expect("it is large");
            let value = bench.received.large(&taken).shared(2).expect("it can be shared");
            assert_eq!(value.as_ptr(), at.wrapping_add(head.len()));
            assert_eq!(value.len(), size);
            drop(value);
            Received::put_back(taken, &mut bench.input);
            assert_eq!(bench.input.as_ptr(), at);
        }
    }

    #[test]
    fn a_request_that_is_not_alone_is_not_taken() {
        let mut bench = Bench::make();
        let request = [b"*2\r\n$3\r\nGET\r\n$70000\r\n", &[b'x'; 70_000][..], b"\r\n"].concat();
        bench.input.extend_from_slice(&[&request[..], b"PING\r\n"].concat());
        arrive(&mut bench, b"");
        assert!(bench.received.take_large(&mut bench.input).is_none());
    }
}
