//! A growable array of buckets that never moves much at once.

use std::num::NonZero;

use super::bucket::Bucket;
use crate::allocation::allocated_size;
use crate::compaction::Visit;

/// Buckets in a segment, which is 8 KiB.
const SEGMENT: usize = 128;

/// Up to one segment lies in one allocation that grows with its table. Larger arrays are lists of segments, so that
/// growing copies only the last one or the list.
pub(super) enum Buckets<R> {
    Small(Segment<R>),
    Segmented(Box<Segments<R>>),
}

/// At least two segments, all full but the last.
pub(super) struct Segments<R> {
    list: Vec<Segment<R>>,
    /// Buckets in all of them.
    len: usize,
}

type Segment<R> = Vec<Bucket<R>>;

impl<R> Buckets<R> {
    pub(super) const fn new() -> Self {
        Buckets::Small(Vec::new())
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        match self {
            Buckets::Small(segment) => segment.len(),
            Buckets::Segmented(segments) => segments.len,
        }
    }

    #[inline]
    pub(super) fn get(&self, index: usize) -> &Bucket<R> {
        match self {
            Buckets::Small(segment) => &segment[index],
            Buckets::Segmented(segments) => segments.get(index),
        }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, index: usize) -> &mut Bucket<R> {
        match self {
            Buckets::Small(segment) => &mut segment[index],
            Buckets::Segmented(segments) => segments.get_mut(index),
        }
    }

    /// The bucket that a hash addresses, and its number; `None` if there are no buckets.
    #[inline]
    pub(super) fn addressed(&self, hash: u64) -> Option<(usize, &Bucket<R>)> {
        match self {
            Buckets::Small(segment) => {
                let number = address(hash, NonZero::new(segment.len())?);
                Some((number, &segment[number]))
            }
            Buckets::Segmented(segments) => {
                let number = address(hash, NonZero::new(segments.len)?);
                Some((number, segments.get(number)))
            }
        }
    }

    /// As [`Self::addressed`], without the number.
    #[inline]
    pub(super) fn addressed_mut(&mut self, hash: u64) -> Option<&mut Bucket<R>> {
        match self {
            Buckets::Small(segment) => {
                let number = address(hash, NonZero::new(segment.len())?);
                Some(&mut segment[number])
            }
            Buckets::Segmented(segments) => {
                let number = address(hash, NonZero::new(segments.len)?);
                Some(segments.get_mut(number))
            }
        }
    }

    /// Adds an empty bucket at the end.
    pub(super) fn push(&mut self) {
        match self {
            Buckets::Small(segment) if segment.len() < SEGMENT => push_to(segment),
            Buckets::Small(segment) => *self = Buckets::Segmented(Box::new(Segments::of(std::mem::take(segment)))),
            Buckets::Segmented(segments) => segments.push(),
        }
    }

    /// Takes the last bucket away.
    pub(super) fn pop(&mut self) -> Option<Bucket<R>> {
        match self {
            Buckets::Small(segment) => pop_from(segment),
            Buckets::Segmented(segments) => {
                let last = segments.pop();
                if let [only] = &mut segments.list[..] {
                    *self = Buckets::Small(std::mem::take(only));
                }
                last
            }
        }
    }

    /// Moves the segment to another block of memory if the bucket is its first and it is to be moved.
    pub(super) fn compact_segment_that_begins_with(&mut self, bucket: usize, visit: &mut Visit<'_>) {
        if !bucket.is_multiple_of(SEGMENT) {
            return;
        }
        let segment = match self {
            Buckets::Small(segment) => segment,
            Buckets::Segmented(segments) => &mut segments.list[bucket / SEGMENT],
        };
        if visit.is_to_move(segment.as_ptr().cast(), segment_size(segment)) {
            let mut moved = Vec::with_capacity(segment.capacity());
            moved.append(segment);
            *segment = moved;
        }
    }

    pub(super) fn allocated(&self) -> usize {
        match self {
            Buckets::Small(segment) => segment_size(segment),
            Buckets::Segmented(segments) => {
                let head = allocated_size(size_of::<Segments<R>>());
                let list = allocated_size(segments.list.capacity() * size_of::<Segment<R>>());
                head + list + segments.list.iter().map(segment_size).sum::<usize>()
            }
        }
    }
}

impl<R> Segments<R> {
    /// The segment, which is full, and an empty bucket behind it.
    fn of(first: Segment<R>) -> Self {
        let mut segments = Segments { len: first.len(), list: vec![first] };
        segments.push();
        segments
    }

    fn get(&self, index: usize) -> &Bucket<R> {
        &self.list[index / SEGMENT][index % SEGMENT]
    }

    fn get_mut(&mut self, index: usize) -> &mut Bucket<R> {
        &mut self.list[index / SEGMENT][index % SEGMENT]
    }

    fn push(&mut self) {
        if self.len.is_multiple_of(SEGMENT) {
            self.list.push(Vec::new());
        }
        push_to(&mut self.list[self.len / SEGMENT]);
        self.len += 1;
    }

    fn pop(&mut self) -> Option<Bucket<R>> {
        self.len -= 1;
        let last = pop_from(&mut self.list[self.len / SEGMENT]);
        if self.len.is_multiple_of(SEGMENT) {
            self.list.pop();
            if self.list.len() < self.list.capacity() / 4 {
                self.list.shrink_to(self.list.len() * 2);
            }
        }
        last
    }
}

/// The number of the bucket that a hash addresses: the hash's low bits, as many as there are buckets for.
#[inline]
pub(super) fn address(hash: u64, buckets: NonZero<usize>) -> usize {
    let mask = (2 << buckets.ilog2()) - 1;
    let number = hash as usize & mask;
    if number < buckets.get() { number } else { number & (mask >> 1) }
}

fn segment_size<R>(segment: &Segment<R>) -> usize {
    array_size::<R>(segment.capacity())
}

fn push_to<R>(segment: &mut Segment<R>) {
    let room = fitting_capacity::<R>(segment.len() + 1) - segment.len();
    segment.reserve_exact(room);
    segment.push(Bucket::new());
}

fn pop_from<R>(segment: &mut Segment<R>) -> Option<Bucket<R>> {
    let last = segment.pop();
    segment.shrink_to(fitting_capacity::<R>(segment.len()));
    last
}

/// As many buckets as the allocation for `needed` of them has room for.
fn fitting_capacity<R>(needed: usize) -> usize {
    array_size::<R>(needed) / size_of::<Bucket<R>>()
}

/// The allocator's blocks are aligned as buckets are, without spending more for it.
fn array_size<R>(buckets: usize) -> usize {
    allocated_size(buckets * size_of::<Bucket<R>>())
}
