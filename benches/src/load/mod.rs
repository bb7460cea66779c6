//! The load driver: one thread, many connections, a closed loop.
//!
//! It has to be much cheaper than the server it loads. So requests are written ahead, on a [`Tape`](tape::Tape), replies are
//! skipped without being kept ([`Replies`](replies::Replies)), and a batch costs one write and one read.

pub(crate) mod driver;
pub(crate) mod keys;
pub(crate) mod replies;
pub(crate) mod tape;
pub(crate) mod workload;
