//! Writes of keys whose group has a write strategy: what a client writes reaches the database as well.
//!
//! With `through` and `around` the database is written before the client is answered; with `through` the cache then has the new value, with
//! `around` it has none. What must hold, and what holds it:
//!
//! 1. *Writes of one key happen one after the other.* Each has its turn at the key's owner ([`Turns`]) from before it looks at the present value
//!    until the cache has the new one. A slot is handed over only when no write of it is under way ([`Turns::quiet`]).
//! 2. *Nobody sees a value that the database refuses.* The command runs over a copy of the entry ([`scratch`]); what it has changed
//!    ([`change`]) goes to the database, and only then to the cache, under the lock of the key's shard.
//! 3. *What is cached is not older than what the database has.* The write's transaction is remembered, so that no load is stored that has not seen it; loads
//!    under way are void. The entry is stored with what it has seen: a whole value has seen all that the write's statement saw; fields that were changed in a
//!    hash are as old as the rest of that hash, and have besides seen their own transaction ([`store`]). A change by others that comes to be known
//!    takes the entry out as it would a loaded one. If it is known already, or if anything is in doubt, the entry goes.
//! 4. *A client that is gone leaves nothing half done.* From the statement on a write runs by itself, not in its connection.

pub mod behind;
pub mod change;
pub mod scratch;
pub mod store;
mod turns;

use std::sync::atomic::AtomicU64;

pub use behind::Behind;
pub use turns::{Turn, Turns};

/// A node's part in writing to the origin.
pub struct Writes {
    pub turns: Turns,
    pub behind: Behind,
    pub counts: Counts,
}

impl Writes {
    pub fn new(behind: Behind) -> Writes {
        Writes { turns: Turns::default(), behind, counts: Counts::default() }
    }
}

/// What has been written since the start, at this node as the owner of keys.
#[derive(Debug, Default)]
pub struct Counts {
    /// Writes that the database has taken before their clients were answered.
    pub written: AtomicU64,
    /// Writes that the database has refused.
    pub refused: AtomicU64,
    /// Writes that were not made, for the database could not take them.
    pub failed: AtomicU64,
    /// Writes of which it is not known whether they were made.
    pub unsure: AtomicU64,
}
