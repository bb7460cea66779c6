//! The index: linear hashing over cache-line buckets.
//!
//! Linear hashing (W. Litwin, "Linear Hashing: A New Tool for File and Table Addressing", VLDB 1980) grows and
//! shrinks one bucket at a time, so there is never a pause to rehash, and it addresses buckets by the low bits of the
//! hash, so each bucket covers one interval of *bit-reversed* hashes. A scan walks those intervals in order:
//! splitting a bucket cuts its interval in two and merging joins two, but neither moves a record across the place
//! where a scan stands. Hence the guarantee that SCAN needs: a record that is there from the start of a scan to its
//! end is visited at least once.

mod bucket;
mod buckets;

use std::num::NonZero;

use bucket::Bucket;
use buckets::{Buckets, address};

use crate::compaction::Visit;
use crate::prefetch::fetch_line;
use crate::random::Random;

/// Bits of a scan's position: enough for 2^29 buckets, 32 GiB of them. The rest of 53 is left for whoever must say which table a cursor belongs
/// to: a larger cursor would not survive a client that keeps numbers as IEEE 754 doubles, as JavaScript's do.
pub const CURSOR_BITS: u32 = 29;

/// Records per two buckets, on average, above which a bucket is split. High, because memory is what an index costs: the
/// buckets that are yet to be split overflow often and the split ones hardly ever, which comes to 12 to 14.5 bytes a
/// record, and no other choice between 6 and 7 a bucket is better for all sizes.
const SPLIT_ABOVE_FOR_TWO: usize = 13;
/// Records per bucket, on average, below which two buckets are merged; well apart from the other limit, so that adding
/// and removing one record does not split and merge by turns.
const MERGE_BELOW: usize = 4;

/// The longest chain whose records are picked at random as often as those of others. Twice the load of the buckets that
/// are yet to be split, so that hardly any is longer.
const LONG_CHAIN: usize = 24;

/// A set of records found by hash. `R` is 8 bytes: a pointer, an index or a number. Equality and hashes are the
/// caller's, who must give a record the same hash each time.
pub(crate) struct Table<R> {
    buckets: Buckets<R>,
    len: u32,
    /// Buckets in chains behind the addressed ones.
    overflow: u32,
}

/// Where a record was found. Good until the table is changed; used after that, it finds another record or none, but
/// does no harm.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    bucket: u32,
    /// How many links to follow from the addressed bucket.
    depth: u32,
    index: u32,
}

impl<R> Table<R> {
    pub(crate) const fn new() -> Self {
        Table { buckets: Buckets::new(), len: 0, overflow: 0 }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What the index itself has allocated, in bytes; the records' own memory is not in it.
    pub(crate) fn allocated(&self) -> usize {
        self.buckets.allocated() + self.overflow as usize * size_of::<Bucket<R>>()
    }

    #[inline]
    pub(crate) fn find(&self, hash: u64, mut equal: impl FnMut(&R) -> bool) -> Option<Place> {
        let (number, first) = self.buckets.addressed(hash)?;
        (0..).zip(chain(first)).find_map(|(depth, bucket)| {
            let index = bucket.find(tag(hash), &mut equal)?;
            Some(Place { bucket: number as u32, depth, index: index as u32 })
        })
    }

    /// The record that [`Self::find`] finds the place of: the shorter way where no place is needed.
    #[inline]
    pub(crate) fn get_mut(&mut self, hash: u64, mut equal: impl FnMut(&R) -> bool) -> Option<&mut R> {
        let mut bucket = self.buckets.addressed_mut(hash)?;
        loop {
            // Written out, for calls of `equal` that the compiler sees through.
            let found = bucket.candidates(tag(hash)).find(|(_, record)| equal(record)).map(|(index, _)| index);
            match found {
                Some(index) => return bucket.record_mut(index),
                None => bucket = bucket.link_mut()?,
            }
        }
    }

    /// The first step of a lookup: asks for the cache line that it will read first. `None` if the table is empty.
    #[inline]
    pub(crate) fn approach(&self, hash: u64) -> Option<Approach<'_, R>> {
        let (_, bucket) = self.buckets.addressed(hash)?;
        fetch_line(bucket);
        Some(Approach { bucket, tag: tag(hash) })
    }

    #[inline]
    pub(crate) fn at(&self, place: Place) -> Option<&R> {
        let mut bucket = self.buckets.get(place.bucket as usize);
        for _ in 0..place.depth {
            bucket = bucket.link()?;
        }
        bucket.record(place.index as usize)
    }

    #[inline(always)]
    pub(crate) fn at_mut(&mut self, place: Place) -> Option<&mut R> {
        let mut bucket = self.buckets.get_mut(place.bucket as usize);
        for _ in 0..place.depth {
            bucket = bucket.link_mut()?;
        }
        bucket.record_mut(place.index as usize)
    }

    /// Adds a record that is not in the table yet. `rehash` gives the hash of a record that is.
    pub(crate) fn insert(&mut self, hash: u64, record: R, rehash: impl Fn(&R) -> u64) {
        if self.len() * 2 >= self.buckets.len() * SPLIT_ABOVE_FOR_TWO {
            self.split(rehash);
        }
        let bucket = self.bucket_of(hash);
        self.overflow += self.buckets.get_mut(bucket).push(tag(hash), record);
        self.len = self.len.checked_add(1).expect("a table has fewer than 2^32 records");
    }

    pub(crate) fn remove(&mut self, place: Place) -> Option<R> {
        let record = self.take_from_chain(place)?;
        self.len -= 1;
        let buckets = self.buckets.len();
        if self.len == 0 || (buckets > 1 && self.len() < buckets * MERGE_BELOW) {
            self.merge();
        }
        Some(record)
    }

    /// Visits the records of one bucket and says where to go on; 0 when the scan is done. A scan starts at 0.
    pub(crate) fn scan(&self, cursor: u64, visit: impl FnMut(&R)) -> u64 {
        let Some((bucket, next)) = self.scanned(cursor) else { return 0 };
        chain(self.buckets.get(bucket)).flat_map(Bucket::records).for_each(visit);
        next
    }

    /// A step of a scan that visits nothing, but asks for the cache line that a visit will read first.
    pub(crate) fn approach_scan(&self, cursor: u64) -> u64 {
        let Some((bucket, next)) = self.scanned(cursor) else { return 0 };
        fetch_line(self.buckets.get(bucket));
        next
    }

    /// Visits one bucket as [`Self::scan`] does, and moves those of its blocks of memory that are to be moved. `compact` does so with
    /// what belongs to a record.
    pub(crate) fn compact(
        &mut self,
        cursor: u64,
        visit: &mut Visit<'_>,
        mut compact: impl FnMut(&mut R, &mut Visit<'_>),
    ) -> u64 {
        let Some((bucket, next)) = self.scanned(cursor) else { return 0 };
        self.buckets.compact_segment_that_begins_with(bucket, visit);
        let mut in_chain = Some(self.buckets.get_mut(bucket));
        while let Some(bucket) = in_chain {
            bucket.for_each_mut(|record| compact(record, visit));
            bucket.compact_link(visit);
            in_chain = bucket.link_mut();
        }
        next
    }

    /// The bucket where a scan stands, and where it goes on; `None` if there are no buckets.
    fn scanned(&self, cursor: u64) -> Option<(usize, u64)> {
        if self.buckets.len() == 0 {
            return None;
        }
        let reversed = cursor << (64 - CURSOR_BITS);
        let bucket = self.bucket_of(reversed.reverse_bits());
        // The next interval starts one step of this bucket's depth further on.
        let interval = 64 - self.depth_of(bucket);
        let next = reversed.checked_shr(interval).unwrap_or(0) + 1;
        Some((bucket, next.checked_shl(interval).unwrap_or(0) >> (64 - CURSOR_BITS)))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &R> {
        (0..self.buckets.len()).flat_map(|bucket| chain(self.buckets.get(bucket)).flat_map(Bucket::records))
    }

    /// All the records, out of the table.
    pub(crate) fn into_records(mut self) -> Vec<R> {
        let mut records = Vec::with_capacity(self.len());
        while let Some(mut bucket) = self.buckets.pop() {
            loop {
                records.extend(std::iter::from_fn(|| bucket.take_any().map(|(_, record)| record)));
                match bucket.unlink() {
                    Some(next) => bucket = *next,
                    None => break,
                }
            }
        }
        records
    }

    /// A record picked by `draw`, 64 random bits, each as likely as any other; only the records of chains beyond
    /// [`LONG_CHAIN`] are a little less so.
    pub(crate) fn random(&self, draw: u64) -> Option<&R> {
        if self.len == 0 {
            return None;
        }
        let mut random = Random::new(draw);
        let places = self.len().min(LONG_CHAIN);
        // Picks a bucket and a place in its chain until a record is there, so a chain is picked as often as it is long.
        loop {
            let first = self.buckets.get(random.next() as usize % self.buckets.len());
            let records = chain(first).map(Bucket::len).sum::<usize>();
            let pick = random.next() as usize % places.max(records);
            if let Some(record) = chain(first).flat_map(Bucket::records).nth(pick) {
                return Some(record);
            }
        }
    }

    /// The number of the bucket that a hash addresses, of which there is one at least.
    fn bucket_of(&self, hash: u64) -> usize {
        NonZero::new(self.buckets.len()).map_or(0, |buckets| address(hash, buckets))
    }

    /// How many bits of the hash the bucket's records share.
    fn depth_of(&self, bucket: usize) -> u32 {
        let level = self.buckets.len().ilog2();
        let round = 1 << level;
        let split = bucket >= round || bucket + round < self.buckets.len();
        level + u32::from(split)
    }

    /// Adds a bucket and deals it its share of the records of the one that it is split from.
    fn split(&mut self, rehash: impl Fn(&R) -> u64) {
        let added = self.buckets.len();
        self.buckets.push();
        if added == 0 {
            return;
        }
        let source = added - (1 << added.ilog2());
        let old = std::mem::replace(self.buckets.get_mut(source), Bucket::new());
        self.deal(old, |table, record| table.bucket_of(rehash(record)));
    }

    /// Gives the last bucket's records back to the one that it was split from.
    fn merge(&mut self) {
        let Some(last) = self.buckets.pop() else {
            return;
        };
        let removed = self.buckets.len();
        if removed > 0 {
            let target = removed - (1 << removed.ilog2());
            self.deal(last, |_, _| target);
        }
    }

    /// Puts the records of a chain that was taken out into the buckets that `place` says.
    fn deal(&mut self, chain: Bucket<R>, place: impl Fn(&Self, &R) -> usize) {
        let mut next = Some(Box::new(chain));
        let mut removed = 0;
        while let Some(mut bucket) = next {
            while let Some((tag, record)) = bucket.take_any() {
                let target = place(self, &record);
                self.overflow += self.buckets.get_mut(target).push(tag, record);
            }
            next = bucket.unlink();
            removed += u32::from(next.is_some());
        }
        self.overflow -= removed;
    }

    /// Takes a record out and closes the gap from the end of the chain, so that chains stay as short as they can be
    /// and no bucket behind the first one is ever empty.
    fn take_from_chain(&mut self, place: Place) -> Option<R> {
        let first = self.buckets.get_mut(place.bucket as usize);
        let mut bucket = &mut *first;
        for _ in 0..place.depth {
            bucket = bucket.link_mut()?;
        }
        let (_, record) = bucket.take(place.index as usize)?;
        if let Some(tail) = first.shorten() {
            self.overflow -= u32::from(tail.freed);
            if let Some((tag, moved)) = tail.record {
                self.overflow += first.push(tag, moved);
            }
        }
        Some(record)
    }
}

/// A lookup under way whose first bucket is on its way into the cache.
pub(crate) struct Approach<'t, R> {
    bucket: &'t Bucket<R>,
    tag: u8,
}

impl<R> Approach<'_, R> {
    /// Visits the records that are probably looked for. If there are none in the first bucket, asks for the one behind it.
    /// Tells whether there are any.
    #[inline]
    pub(crate) fn visit_likely(&self, mut visit: impl FnMut(&R)) -> bool {
        let mut any = false;
        for (_, record) in self.bucket.candidates(self.tag) {
            any = true;
            visit(record);
        }
        if !any {
            self.bucket.link().into_iter().for_each(|next| fetch_line(next));
        }
        any
    }
}

/// Tags come from the top of the hash, which no table is large enough to use for addresses.
#[inline]
fn tag(hash: u64) -> u8 {
    (hash >> 56) as u8
}

fn chain<R>(first: &Bucket<R>) -> impl Iterator<Item = &Bucket<R>> {
    std::iter::successors(Some(first), |bucket| bucket.link())
}

#[cfg(test)]
mod tests;
