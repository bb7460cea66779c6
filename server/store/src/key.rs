//! Keys, placed and hashed once per command.

use std::hash::{BuildHasher, Hasher};

use foldhash::SharedSeed;
use foldhash::quality::{FixedState, FoldHasher};

/// A key together with where it lives, made by [`Store::key`](crate::Store::key).
#[derive(Clone, Copy, Debug)]
pub struct Key<'k> {
    db: u16,
    slot: u16,
    hash: u64,
    bytes: &'k [u8],
}

impl<'k> Key<'k> {
    #[inline]
    pub(crate) fn new(db: u16, slot: u16, bytes: &'k [u8], seed: HashSeed) -> Self {
        Key { db, slot, hash: seed.hash(bytes), bytes }
    }

    /// The number of its database.
    #[inline]
    pub fn db(&self) -> u16 {
        self.db
    }

    /// Its slot, as the caller computed it.
    #[inline]
    pub fn slot(&self) -> u16 {
        self.slot
    }

    /// Its name.
    #[inline]
    pub fn bytes(&self) -> &'k [u8] {
        self.bytes
    }

    /// The key of that name in another database.
    pub fn in_database(self, db: u16) -> Key<'k> {
        Key { db, ..self }
    }

    #[inline]
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }
}

/// The secret that keeps strangers from choosing keys or fields that collide.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HashSeed(u64);

impl HashSeed {
    /// Seeds that differ little give hashes that have nothing in common.
    pub(crate) fn new(seed: u64) -> Self {
        HashSeed(FixedState::with_seed(seed).hash_one(seed))
    }

    #[inline]
    pub(crate) fn hash(self, bytes: &[u8]) -> u64 {
        let mut hasher = FoldHasher::with_seed(self.0, SharedSeed::global_fixed());
        hasher.write(bytes);
        hasher.finish()
    }
}
