//! A growable array of buckets that never moves much at once.

use super::bucket::Bucket;
use crate::allocation::allocated_size;

/// Buckets in a segment, which is 4 KiB.
const SEGMENT: usize = 64;

/// Up to one segment lies in one allocation that grows with its table. Larger arrays are lists of segments, all full
/// but the last, so that growing copies only that one or the list.
pub(super) enum Buckets<R> {
    Small(Segment<R>),
    /// At least two segments, and how many buckets they have.
    Segmented(Vec<Segment<R>>, usize),
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
            Buckets::Segmented(_, len) => *len,
        }
    }

    #[inline]
    pub(super) fn get(&self, index: usize) -> &Bucket<R> {
        match self {
            Buckets::Small(segment) => &segment[index],
            Buckets::Segmented(segments, _) => &segments[index / SEGMENT][index % SEGMENT],
        }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, index: usize) -> &mut Bucket<R> {
        match self {
            Buckets::Small(segment) => &mut segment[index],
            Buckets::Segmented(segments, _) => &mut segments[index / SEGMENT][index % SEGMENT],
        }
    }

    /// Adds an empty bucket at the end.
    pub(super) fn push(&mut self) {
        match self {
            Buckets::Small(segment) if segment.len() < SEGMENT => push_to(segment),
            Buckets::Small(segment) => {
                let (first, mut second) = (std::mem::take(segment), Vec::new());
                push_to(&mut second);
                *self = Buckets::Segmented(vec![first, second], SEGMENT + 1);
            }
            Buckets::Segmented(segments, len) => {
                if *len % SEGMENT == 0 {
                    segments.push(Vec::new());
                }
                push_to(&mut segments[*len / SEGMENT]);
                *len += 1;
            }
        }
    }

    /// Takes the last bucket away.
    pub(super) fn pop(&mut self) -> Option<Bucket<R>> {
        match self {
            Buckets::Small(segment) => pop_from(segment),
            Buckets::Segmented(segments, len) => {
                *len -= 1;
                let last = pop_from(&mut segments[*len / SEGMENT]);
                if *len % SEGMENT == 0 {
                    self.drop_empty_segment();
                }
                last
            }
        }
    }

    pub(super) fn allocated(&self) -> usize {
        let segment_size = |segment: &Segment<R>| allocated_size(segment.capacity() * size_of::<Bucket<R>>());
        match self {
            Buckets::Small(segment) => segment_size(segment),
            Buckets::Segmented(segments, _) => {
                let list = allocated_size(segments.capacity() * size_of::<Segment<R>>());
                list + segments.iter().map(segment_size).sum::<usize>()
            }
        }
    }

    fn drop_empty_segment(&mut self) {
        let Buckets::Segmented(segments, _) = self else { return };
        segments.pop();
        if segments.len() == 1 {
            *self = Buckets::Small(std::mem::take(&mut segments[0]));
        } else if segments.len() < segments.capacity() / 4 {
            segments.shrink_to(segments.len() * 2);
        }
    }
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
    allocated_size(needed * size_of::<Bucket<R>>()) / size_of::<Bucket<R>>()
}
