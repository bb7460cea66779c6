//! Keys, placed and hashed once per command.

use std::hash::{BuildHasher, Hasher};

use foldhash::quality::FixedState;

/// A key together with where it lives, made by [`Store::key`](crate::Store::key).
#[derive(Clone, Copy, Debug)]
pub struct Key<'k> {
    db: u16,
    slot: u16,
    hash: u64,
    bytes: &'k [u8],
}

impl<'k> Key<'k> {
    pub(crate) fn new(db: u16, slot: u16, bytes: &'k [u8], seed: HashSeed) -> Self {
        Key { db, slot, hash: seed.hash(bytes), bytes }
    }

    /// The number of its database.
    pub fn db(&self) -> u16 {
        self.db
    }

    /// Its slot, as the caller computed it.
    pub fn slot(&self) -> u16 {
        self.slot
    }

    /// Its name.
    pub fn bytes(&self) -> &'k [u8] {
        self.bytes
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }
}

/// The secret that keeps strangers from choosing keys or fields that collide.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HashSeed(u64);

impl HashSeed {
    pub(crate) fn new(seed: u64) -> Self {
        HashSeed(seed)
    }

    pub(crate) fn hash(self, bytes: &[u8]) -> u64 {
        let mut hasher = FixedState::with_seed(self.0).build_hasher();
        hasher.write(bytes);
        hasher.finish()
    }
}
