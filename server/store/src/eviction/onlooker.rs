//! Those who are told of evictions.

/// Told of evictions as they happen, under the lock of the shard: so it knows an entry's end before anybody can write its key again.
pub trait Onlooker {
    /// Whether entries of the slot may go. A node that holds copies spares those: the slot's owner says what goes, or the copy would differ
    /// from it, and it is the owner whose entries show their use, since reads do not reach copies. Where no other slot has
    /// anything that the policy may take, entries of these go all the same, for memory must not run out.
    ///
    /// It is asked once for each bucket that is looked at, and once for each entry that was chosen.
    fn yields(&self, slot: u16) -> bool;

    /// The key's entry has been evicted.
    fn evicted(&mut self, slot: u16, db: u16, key: &[u8]);
}

/// Nobody.
impl Onlooker for () {
    #[inline]
    fn yields(&self, _slot: u16) -> bool {
        true
    }

    #[inline]
    fn evicted(&mut self, _slot: u16, _db: u16, _key: &[u8]) {}
}
