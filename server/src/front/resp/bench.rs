//! Workbenches: the buffers that a connection needs while it has something in work, kept per thread for whoever comes next.
//!
//! So ten thousand idle connections own no buffers, and the few that are busy find warm ones.

use std::cell::RefCell;

use bytes::BytesMut;
use forebay_resp::{Frame, Reply};

/// Bytes that one read may bring at first; larger requests make their bench's buffer grow.
pub(super) const READ_BYTES: usize = 16 * 1024;

/// Benches that a thread keeps.
const KEPT: usize = 16;

/// Capacities above which a buffer is given back to the allocator instead of being kept.
const LARGEST_KEPT_INPUT: usize = 64 * 1024;
const LARGEST_KEPT_REPLY: usize = 64 * 1024;
const LARGEST_KEPT_FRAME: usize = 1024;

/// Buffers for one connection.
pub(super) struct Bench {
    pub(super) input: BytesMut,
    pub(super) frame: Frame,
    pub(super) reply: Reply,
}

thread_local! {
    static BENCHES: RefCell<Vec<Bench>> = const { RefCell::new(Vec::new()) };
}

impl Bench {
    /// A bench with nothing on it but `input`.
    pub(super) fn take_with(input: Vec<u8>) -> Bench {
        let mut bench = Bench::take();
        bench.input.extend_from_slice(&input);
        bench
    }

    /// A clean bench.
    fn take() -> Bench {
        BENCHES.with_borrow_mut(Vec::pop).unwrap_or_else(|| Bench {
            input: BytesMut::with_capacity(READ_BYTES),
            frame: Frame::new(),
            reply: Reply::new(),
        })
    }

    /// Leaves the bench to the next connection of this thread.
    pub(super) fn leave(mut self) {
        self.input.clear();
        self.reply.clear();
        self.frame.shrink_to(LARGEST_KEPT_FRAME);
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
