//! A growable array of buckets that never moves much at once.

use super::bucket::Bucket;
use crate::allocation::allocated_size;

/// Buckets in a segment, which is 4 KiB.
const SEGMENT: usize = 64;

/// Up to one segment lies in one allocation that grows with its table; larger arrays are lists of segments, so that
/// growing copies only the list.
pub(super) enum Buckets<R> {
    Small(Vec<Bucket<R>>),
    Segmented {
        segments: Vec<Box<[Bucket<R>]>>,
        len: usize,
    },
}

impl<R> Buckets<R> {
    pub(super) const fn new() -> Self {
        Buckets::Small(Vec::new())
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        match self {
            Buckets::Small(buckets) => buckets.len(),
            Buckets::Segmented { len, .. } => *len,
        }
    }

    #[inline]
    pub(super) fn get(&self, index: usize) -> &Bucket<R> {
        match self {
            Buckets::Small(buckets) => &buckets[index],
            Buckets::Segmented { segments, .. } => &segments[index / SEGMENT][index % SEGMENT],
        }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, index: usize) -> &mut Bucket<R> {
        match self {
            Buckets::Small(buckets) => &mut buckets[index],
            Buckets::Segmented { segments, .. } => &mut segments[index / SEGMENT][index % SEGMENT],
        }
    }

    /// Adds an empty bucket at the end.
    pub(super) fn push(&mut self) {
        if self.len() == SEGMENT {
            self.become_segmented();
        }
        match self {
            Buckets::Small(buckets) => {
                let room = fitting_capacity(buckets.len() + 1) - buckets.len();
                buckets.reserve_exact(room);
                buckets.push(Bucket::new());
            }
            Buckets::Segmented { segments, len } => {
                if *len == segments.len() * SEGMENT {
                    segments.push(empty_segment());
                }
                *len += 1;
            }
        }
    }

    /// Takes the last bucket away.
    pub(super) fn pop(&mut self) -> Option<Bucket<R>> {
        let last = match self {
            Buckets::Small(buckets) => {
                let last = buckets.pop();
                buckets.shrink_to(fitting_capacity(buckets.len()));
                last
            }
            Buckets::Segmented { segments, len } => {
                *len -= 1;
                let last =
                    std::mem::replace(&mut segments[*len / SEGMENT][*len % SEGMENT], Bucket::new());
                segments.truncate(len.div_ceil(SEGMENT));
                if segments.len() < segments.capacity() / 4 {
                    segments.shrink_to(segments.len() * 2);
                }
                Some(last)
            }
        };
        if self.len() == SEGMENT {
            self.become_small();
        }
        last
    }

    pub(super) fn allocated(&self) -> usize {
        match self {
            Buckets::Small(buckets) => allocated_size(buckets.capacity() * size_of::<Bucket<R>>()),
            Buckets::Segmented { segments, .. } => {
                let list = allocated_size(segments.capacity() * size_of::<Box<[Bucket<R>]>>());
                list + segments.len() * SEGMENT * size_of::<Bucket<R>>()
            }
        }
    }

    fn become_segmented(&mut self) {
        if let Buckets::Small(buckets) = self {
            let segment = std::mem::take(buckets).into_boxed_slice();
            *self = Buckets::Segmented {
                segments: vec![segment],
                len: SEGMENT,
            };
        }
    }

    fn become_small(&mut self) {
        if let Buckets::Segmented { segments, .. } = self {
            if let Some(segment) = segments.pop() {
                *self = Buckets::Small(segment.into_vec());
            }
        }
    }
}

fn empty_segment<R>() -> Box<[Bucket<R>]> {
    (0..SEGMENT).map(|_| Bucket::new()).collect()
}

/// As many buckets as the allocation for `needed` of them has room for.
fn fitting_capacity(needed: usize) -> usize {
    allocated_size(needed * size_of::<Bucket<[u8; 8]>>()) / size_of::<Bucket<[u8; 8]>>()
}
