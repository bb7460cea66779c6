//! Hot keys: what many ask for through other nodes is copied to these for a short time.
//!
//! A node that forwards much for one key is, with its answer, given leave to keep it: a *grant*, for a fraction of a second
//! ([`LONGEST`]). Until that ends it answers the same request by itself, without a word to the owner ([`copies`]). The owner counts
//! what is forwarded ([`sketch`]), and knows for each key which nodes hold copies and until when ([`grants`]).
//!
//! # Why no copy is read that is older than an acknowledged write
//!
//! 1. *The owner waits.* A change of a key is noted in [`Grants`] under the lock of the key's shard, where grants are given, too. From
//!    then on there is no new grant, and whoever writes or reads the key at the owner has to wait, before its reply is sent, until all
//!    copies are gone: until each of their holders has said that it has thrown its copy away, or its time is surely over
//!    ([`TakeBack`]). So nobody knows of the new value while somebody may still be answered the old one.
//! 2. *A grant on its way counts for nothing.* A holder that is asked to give a key back may have yet to receive the answer that
//!    carries the grant. It notes when it was asked, and afterwards keeps nothing of the key that it had asked for before: what it asks
//!    for later is answered after the change. Only its own clock is compared with itself, so take-backs need no numbers that would have to
//!    outlive restarts and changes of owners, and what is remembered has a fixed size ([`copies`]).
//! 3. *Time is measured on the safe side.* A holder counts from when it *sent* its request, less what two clocks may differ by; the
//!    owner from when it answered, which is later.
//! 4. *No grant outlives the owner's right to be it.* It ends before the owner's lease and before the key's own deadline. So nothing has to
//!    be done when an owner dies or is cut off: nobody takes its place before its lease is over.
//! 5. *A slot is handed over without copies.* Its owner freezes it, takes all of its keys back, and only then proposes the change
//!    (`cluster/duties.rs`).
//! 6. *A client's own requests stay in their order.* A copy answers a request of a pipeline only when nothing about the key is on its way to
//!    the owner for the same client (`engine/batch.rs`).
//!
//! What is about all keys at once (DBSIZE, SCAN, RANDOMKEY) does not wait for copies to be gone. SWAPDB, which exchanges keys without
//! a change of each, is refused where there are other nodes.
//!
//! Locks: the shard's, then that of [`Grants`]; never the other way round.

mod copies;
mod grants;
mod message;
mod sketch;
mod taking_back;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

pub use copies::{Copies, CopiesAge, Found, Wanted};
pub use grants::{Asker, Grants, TakeBack};
pub use message::{TAKE_BACK, give_back};
pub use taking_back::take_back;

/// How long a copy may be kept at most. Shorter than a lease, or none would be as long as this; and what a writer waits for at most,
/// should a holder not answer.
pub const LONGEST: Duration = Duration::from_millis(400);

/// What ends sooner is not worth the trouble.
const SHORTEST: Duration = Duration::from_millis(20);

/// A holder's clock may be slow by one part in so many; see `Timing` in the cluster's crate.
const DRIFT: u32 = 20;

/// How long a key is left alone after it was taken back. One that is written more often than that is not copied: its writers would
/// wait each time, for little.
const REST: Duration = Duration::from_millis(20);

/// Keys that are out on grants at the same time, and keys of which copies are held here.
const MAX_KEYS: usize = 1024;

/// A longer reply is not copied, in bytes.
pub const MAX_REPLY: usize = 64 << 10;

/// Copies of replies to different requests for one key.
const MAX_COPIES_OF_KEY: usize = 8;

/// Bytes of all copies.
const MAX_BYTES: usize = 16 << 20;

/// A node's part in hot keys: of its own at others, and of others' here.
#[derive(Default)]
pub struct Hot {
    pub grants: std::sync::Arc<Grants>,
    pub copies: Copies,
}

/// Leave to keep the answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// When the request was sent, by the holder's clock.
    pub sent: Instant,
    /// How long it lasts from then, by the owner's clock.
    pub lasts: Duration,
}

impl Grant {
    /// When it ends, by the holder's clock.
    fn end(&self) -> Instant {
        self.sent + self.lasts - self.lasts / DRIFT
    }
}
