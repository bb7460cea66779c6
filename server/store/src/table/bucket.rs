//! One cache line of the table: up to seven records and what tells them apart.

use std::mem::{ManuallyDrop, size_of};

use crate::compaction::Visit;

/// Records in a bucket that has no overflow; one less where a link to the next bucket takes the last place.
pub(super) const BUCKET_RECORDS: usize = 7;
const LINK_PLACE: usize = BUCKET_RECORDS - 1;
/// The bit of `occupied` that says that the last place is a link.
const LINKED: u8 = 1 << 7;

/// Seven places of 8 bytes, a tag byte for each, and a byte that says which places are taken. Buckets that hold
/// more are chained.
#[repr(C, align(64))]
pub(super) struct Bucket<R> {
    places: [Place<R>; BUCKET_RECORDS],
    /// Eight bits of each record's hash: a lookup follows only the pointers whose tag matches.
    tags: [u8; BUCKET_RECORDS],
    /// Bit `i` is set where place `i` holds a record; see also [`LINKED`]. Behind the tags, to be read with them.
    occupied: u8,
}

/// What came off the end of a chain.
pub(super) struct Tail<R> {
    /// `None` if the last bucket was empty already.
    pub(super) record: Option<(u8, R)>,
    /// Whether its bucket is gone.
    pub(super) freed: bool,
}

/// Eight bytes; which of the three it is, `Bucket::occupied` says.
union Place<R> {
    vacant: (),
    record: ManuallyDrop<R>,
    link: ManuallyDrop<Box<Bucket<R>>>,
}

impl<R> Bucket<R> {
    const FITS_A_CACHE_LINE: () = assert!(size_of::<R>() == 8 && size_of::<Bucket<R>>() == 64);

    pub(super) fn new() -> Self {
        let () = Self::FITS_A_CACHE_LINE;
        Bucket { places: [const { Place { vacant: () } }; BUCKET_RECORDS], tags: [0; BUCKET_RECORDS], occupied: 0 }
    }

    #[inline]
    pub(super) fn record(&self, place: usize) -> Option<&R> {
        if self.records_mask() & (1 << place) == 0 {
            return None;
        }
        // SAFETY: the place's bit is set and it is not the link, so it holds a record.
        Some(unsafe { &self.places[place].record })
    }

    #[inline]
    pub(super) fn record_mut(&mut self, place: usize) -> Option<&mut R> {
        if self.records_mask() & (1 << place) == 0 {
            return None;
        }
        // SAFETY: as in `record`.
        Some(unsafe { &mut self.places[place].record })
    }

    pub(super) fn records(&self) -> impl Iterator<Item = &R> {
        ones(self.records_mask()).filter_map(|place| self.record(place))
    }

    /// Visits this bucket's records, its overflow's not.
    pub(super) fn for_each_mut(&mut self, mut visit: impl FnMut(&mut R)) {
        for place in ones(self.records_mask()) {
            // SAFETY: as in `record`.
            visit(unsafe { &mut self.places[place].record });
        }
    }

    /// How many records this bucket holds, its overflow not counted.
    pub(super) fn len(&self) -> usize {
        self.records_mask().count_ones() as usize
    }

    /// The next bucket of the chain.
    #[inline]
    pub(super) fn link(&self) -> Option<&Bucket<R>> {
        if self.occupied & LINKED == 0 {
            return None;
        }
        // SAFETY: `LINKED` says that the last place holds a link.
        Some(unsafe { &self.places[LINK_PLACE].link })
    }

    #[inline]
    pub(super) fn link_mut(&mut self) -> Option<&mut Bucket<R>> {
        if self.occupied & LINKED == 0 {
            return None;
        }
        // SAFETY: as in `link`.
        Some(unsafe { &mut self.places[LINK_PLACE].link })
    }

    /// The records with this tag, among them perhaps some of another hash, each with its place.
    #[inline]
    pub(super) fn candidates(&self, tag: u8) -> impl Iterator<Item = (usize, &R)> {
        // SAFETY: only places that hold records have their bit set.
        ones(self.tagged(tag)).map(|place| (place, unsafe { &*self.places.get_unchecked(place).record }))
    }

    /// The place of the record with this tag that is equal to what is looked for.
    #[inline]
    pub(super) fn find(&self, tag: u8, mut equal: impl FnMut(&R) -> bool) -> Option<usize> {
        self.candidates(tag).find(|(_, record)| equal(record)).map(|(place, _)| place)
    }

    /// One bit for each place that holds a record with this tag.
    #[inline]
    fn tagged(&self, tag: u8) -> u8 {
        let [a, b, c, d, e, f, g] = self.tags;
        let tags = u64::from_le_bytes([a, b, c, d, e, f, g, self.occupied]);
        equal_bytes(tags, tag) & self.records_mask()
    }

    /// Puts a record in a free place of this bucket or its chain, which grows if it must. Says how many buckets were
    /// added.
    pub(super) fn push(&mut self, tag: u8, record: R) -> u32 {
        let mut bucket = self;
        let mut added = 0;
        loop {
            if let Some(place) = bucket.free_place() {
                bucket.put(place, tag, record);
                return added;
            }
            if bucket.occupied & LINKED == 0 {
                bucket.grow_link();
                added += 1;
            }
            bucket = bucket.link_mut().expect("a full bucket has just been linked");
        }
    }

    /// Takes a record out of this bucket, not of its chain.
    pub(super) fn take(&mut self, place: usize) -> Option<(u8, R)> {
        if self.records_mask() & (1 << place) == 0 {
            return None;
        }
        self.occupied &= !(1 << place);
        // SAFETY: the place held a record, and its bit is now clear, so nobody takes it again.
        Some((self.tags[place], unsafe { ManuallyDrop::take(&mut self.places[place].record) }))
    }

    /// Takes any record out of this bucket, not of its chain.
    pub(super) fn take_any(&mut self) -> Option<(u8, R)> {
        let place = ones(self.records_mask()).next()?;
        self.take(place)
    }

    /// Takes the chain off this bucket.
    pub(super) fn unlink(&mut self) -> Option<Box<Bucket<R>>> {
        if self.occupied & LINKED == 0 {
            return None;
        }
        self.occupied &= !LINKED;
        // SAFETY: the last place held a link, and `LINKED` is now clear, so nobody takes it again.
        Some(unsafe { ManuallyDrop::take(&mut self.places[LINK_PLACE].link) })
    }

    /// Takes a record out of the last bucket of the chain, and that bucket too if it is empty then. `None` if there is
    /// no chain.
    pub(super) fn shorten(&mut self) -> Option<Tail<R>> {
        let mut parent = self;
        while parent.link()?.link().is_some() {
            parent = parent.link_mut()?;
        }
        let mut last = parent.unlink()?;
        let record = last.take_any();
        let freed = last.len() == 0;
        if !freed {
            parent.set_link(last);
        }
        Some(Tail { record, freed })
    }

    fn set_link(&mut self, next: Box<Bucket<R>>) {
        debug_assert!(self.occupied & (LINKED | 1 << LINK_PLACE) == 0, "the last place must be free for a link");
        self.places[LINK_PLACE].link = ManuallyDrop::new(next);
        self.occupied |= LINKED;
    }

    /// Moves the next bucket of the chain to another block of memory if it is to be moved.
    pub(super) fn compact_link(&mut self, visit: &mut Visit<'_>) {
        let is_to_move = |next: &Bucket<R>| visit.is_to_move(std::ptr::from_ref(next).cast(), size_of::<Bucket<R>>());
        if self.link().is_some_and(is_to_move) {
            if let Some(next) = self.unlink() {
                self.set_link(Box::new(*next));
            }
        }
    }

    /// Moves the record in the last place to a new bucket, whose link takes that place.
    fn grow_link(&mut self) {
        let mut next = Box::new(Bucket::new());
        if let Some((tag, record)) = self.take(LINK_PLACE) {
            next.put(0, tag, record);
        }
        self.set_link(next);
    }

    fn free_place(&self) -> Option<usize> {
        let capacity = if self.occupied & LINKED == 0 { BUCKET_RECORDS } else { LINK_PLACE };
        let place = self.records_mask().trailing_ones() as usize;
        (place < capacity).then_some(place)
    }

    fn put(&mut self, place: usize, tag: u8, record: R) {
        debug_assert!(self.occupied & (1 << place) == 0);
        self.places[place].record = ManuallyDrop::new(record);
        self.tags[place] = tag;
        self.occupied |= 1 << place;
    }

    /// One bit for each place that holds a record.
    fn records_mask(&self) -> u8 {
        self.occupied & !LINKED
    }
}

impl<R> Drop for Bucket<R> {
    fn drop(&mut self) {
        while self.take_any().is_some() {}
        // A loop and not recursion: one bucket may have a long chain where many hashes agree.
        let mut next = self.unlink();
        while let Some(mut bucket) = next {
            next = bucket.unlink();
        }
    }
}

/// One bit for each byte of `word` that equals `byte`. Exact: no byte is taken for its neighbour.
#[inline]
fn equal_bytes(word: u64, byte: u8) -> u8 {
    #[cfg(target_arch = "x86_64")]
    {
        equal_bytes_by_vector(word, byte)
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        equal_bytes_by_word(word, byte)
    }
}

/// With what every x86-64 processor has.
#[cfg(target_arch = "x86_64")]
#[inline]
fn equal_bytes_by_vector(word: u64, byte: u8) -> u8 {
    use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_cvtsi64_si128, _mm_movemask_epi8};
    // SAFETY: SSE2 is a part of x86-64.
    let equal = unsafe {
        let (bytes, wanted) = (_mm_cvtsi64_si128(word as i64), _mm_cvtsi64_si128(repeated(byte) as i64));
        _mm_movemask_epi8(_mm_cmpeq_epi8(bytes, wanted))
    };
    // The upper half of both vectors is zero, and equal; it is cut off.
    equal as u8
}

#[cfg(any(test, not(target_arch = "x86_64")))]
#[inline]
fn equal_bytes_by_word(word: u64, byte: u8) -> u8 {
    const LOW_BITS: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    // Gathers the lowest bit of each byte in the topmost byte.
    const GATHER: u64 = 0x0102_0408_1020_4080;
    let difference = word ^ repeated(byte);
    let zero_bytes = !(((difference & LOW_BITS) + LOW_BITS) | difference | LOW_BITS);
    ((zero_bytes >> 7).wrapping_mul(GATHER) >> 56) as u8
}

/// The byte, eight times.
#[inline]
fn repeated(byte: u8) -> u64 {
    u64::from(byte) * 0x0101_0101_0101_0101
}

#[inline]
fn ones(mut mask: u8) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        (mask != 0).then(|| {
            let place = mask.trailing_zeros() as usize;
            mask &= mask - 1;
            place
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn equal_bytes_finds_exactly_the_equal_ones(bytes: [u8; 8], byte in 0u8..4) {
            let bytes = bytes.map(|byte| byte % 4);
            let word = u64::from_le_bytes(bytes);
            let found = equal_bytes(word, byte);
            prop_assert_eq!(found, equal_bytes_by_word(word, byte));
            for (i, other) in bytes.into_iter().enumerate() {
                prop_assert_eq!(found & (1 << i) != 0, other == byte, "byte {} of {:?}", i, bytes);
            }
        }
    }

    #[test]
    fn a_chain_gives_back_what_was_put_in() {
        let mut bucket = Bucket::<Box<u32>>::new();
        let added: u32 = (0..20).map(|n| bucket.push(n as u8, Box::new(n))).sum();
        assert_eq!(added, 3);
        let mut seen = Vec::new();
        let mut next = Some(&bucket);
        while let Some(bucket) = next {
            seen.extend(bucket.records().map(|record| **record));
            next = bucket.link();
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..20).collect::<Vec<_>>());
    }
}
