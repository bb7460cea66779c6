//! Digests of what a slot holds, by which two nodes see whether they hold the same.
//!
//! A digest is of keys, types, contents and deadlines. Neither the order of entries or fields nor the form in which a value is kept is in
//! it, nor what eviction and refreshing go by. It is the sum of its entries' hashes, each of which is a chain of xxh3.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::UnixMillis;
use crate::entry::{Entry, ValueView};
use crate::hash::HashRef;
use crate::string::StringRef;

/// The most that a digest may take, since all of it happens under one lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DigestLimits {
    /// Entries, and fields of hashes.
    pub items: usize,
    /// Bytes of values.
    pub bytes: usize,
}

impl DigestLimits {
    /// None, for where nobody else waits for the lock.
    pub const NONE: DigestLimits = DigestLimits { items: usize::MAX, bytes: usize::MAX };
}

/// A digest being computed.
pub(crate) struct Digest {
    sum: u64,
    left: DigestLimits,
    /// What is dead by then is left out.
    horizon: UnixMillis,
    scratch: Vec<u8>,
}

impl Digest {
    pub(crate) fn new(limits: DigestLimits, horizon: UnixMillis) -> Self {
        Digest { sum: 0, left: limits, horizon, scratch: Vec::new() }
    }

    pub(crate) fn sum(&self) -> u64 {
        self.sum
    }

    /// Adds an entry. `None` if that is more than the limits allow.
    pub(crate) fn add(&mut self, db: u16, entry: &Entry) -> Option<()> {
        self.spend(1, 0)?;
        if entry.is_late(self.horizon) {
            return Some(());
        }
        let place = chain(u64::from(db), entry.key());
        let deadline = entry.deadline().map_or([0; 8], i64::to_le_bytes);
        let start = chain(place ^ u64::from(entry.deadline().is_some()), &deadline);
        self.sum = self.sum.wrapping_add(self.value(start, entry.value())?);
        Some(())
    }

    fn value(&mut self, start: u64, value: ValueView<'_>) -> Option<u64> {
        if let Some(hash) = HashRef::of(value) {
            return self.hash(start, hash);
        }
        match StringRef::of(value) {
            Some(string) => {
                self.spend(0, string.len())?;
                Some(chain(start ^ STRING, string.as_bytes(&mut self.scratch)))
            }
            None => Some(chain(start ^ ABSENT, &[])),
        }
    }

    fn hash(&mut self, start: u64, hash: HashRef<'_>) -> Option<u64> {
        self.spend(hash.len(), 0)?;
        let mut sum = 0u64;
        for (field, value) in hash.iter() {
            self.spend(0, field.len() + value.len())?;
            sum = sum.wrapping_add(chain(chain(start ^ HASH, field), value));
        }
        Some(chain(start ^ HASH, &sum.to_le_bytes()))
    }

    fn spend(&mut self, items: usize, bytes: usize) -> Option<()> {
        self.left.items = self.left.items.checked_sub(items)?;
        self.left.bytes = self.left.bytes.checked_sub(bytes)?;
        Some(())
    }
}

// What tells the types apart.
const ABSENT: u64 = 0;
const STRING: u64 = 1 << 32;
const HASH: u64 = 2 << 32;

fn chain(before: u64, bytes: &[u8]) -> u64 {
    xxh3_64_with_seed(bytes, before)
}
