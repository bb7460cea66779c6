//! Workbenches: the buffers that a connection needs while it has something in work, kept per thread for whoever comes next.
//!
//! So ten thousand idle connections own no buffers, and the few that are busy find warm ones.

use std::cell::RefCell;
use std::ops::Range;

use bytes::{Buf, BytesMut};
use forebay_resp::{Args, Decoded, Decoder, Frame, Limits, ProtocolError, Reply};

/// Bytes that one read may bring at first; larger requests make their bench's buffer grow.
pub(super) const READ_BYTES: usize = 16 * 1024;

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

    /// Forgets all requests, and gives back what large ones have left behind.
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
