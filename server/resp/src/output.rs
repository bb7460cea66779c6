//! Bytes that wait to be written: what was put together here, with large shared values linked in between.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

/// Shared values of at least this many bytes are linked into the output; smaller ones are cheaper to copy than to
/// keep alive and to write as a slice of their own.
pub const LINK_MIN: usize = 16 * 1024;

/// Written bytes that stay in front of the rest before the rest is moved.
const COMPACT_MIN: usize = 64 * 1024;

#[derive(Debug, Default)]
pub(crate) struct Output {
    text: Vec<u8>,
    /// Bytes at the front of `text` that have been written out.
    written: usize,
    links: VecDeque<Link>,
    /// Bytes left in `links`.
    linked: usize,
    /// Bytes that were in `text` once, and are no more: so a mark keeps its meaning when the front is dropped.
    dropped_text: u64,
    /// Likewise of `links`.
    dropped_links: u64,
}

/// A shared value that stands where `text` has reached offset `at`.
#[derive(Debug)]
struct Link {
    at: usize,
    value: Bytes,
}

/// A place in a [`Reply`](crate::Reply) to go back to with [`rewind`](crate::Reply::rewind).
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    text: u64,
    links: u64,
}

impl Output {
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.text.len() - self.written + self.linked
    }

    /// What is appended here goes behind everything that is waiting. Nothing must be taken away by it.
    #[inline]
    pub(crate) fn text(&mut self) -> &mut Vec<u8> {
        &mut self.text
    }

    /// Appends `value`, copied or linked as its size suggests.
    #[inline]
    pub(crate) fn link(&mut self, value: Bytes) {
        if value.len() < LINK_MIN {
            return self.text.extend_from_slice(&value);
        }
        self.linked += value.len();
        self.links.push_back(Link { at: self.text.len(), value });
    }

    pub(crate) fn clear(&mut self) {
        self.dropped_text += self.text.len() as u64;
        self.dropped_links += self.links.len() as u64;
        self.text.clear();
        self.written = 0;
        self.links.clear();
        self.linked = 0;
    }

    #[inline]
    pub(crate) fn mark(&self) -> Mark {
        Mark { text: self.dropped_text + self.text.len() as u64, links: self.dropped_links + self.links.len() as u64 }
    }

    pub(crate) fn rewind(&mut self, mark: Mark) {
        let links = mark.links.saturating_sub(self.dropped_links) as usize;
        for link in self.links.drain(links.min(self.links.len())..) {
            self.linked -= link.value.len();
        }
        let text = mark.text.saturating_sub(self.dropped_text) as usize;
        self.text.truncate(text.max(self.written));
    }

    /// What is waiting, in order, in pieces that are not empty.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(self.written).chain(self.links.iter().map(|link| link.at));
        let ends = self.links.iter().map(|link| link.at).chain(std::iter::once(self.text.len()));
        let values = self.links.iter().map(|link| &link.value[..]).chain(std::iter::once(&[][..]));
        starts
            .zip(ends)
            .zip(values)
            .flat_map(|((start, end), value)| [&self.text[start..end], value])
            .filter(|chunk| !chunk.is_empty())
    }

    pub(crate) fn shrink_to(&mut self, capacity: usize) {
        self.drop_written();
        self.text.shrink_to(capacity);
        self.links.shrink_to(0);
    }

    pub(crate) fn allocated(&self) -> usize {
        self.text.capacity() + self.links.capacity() * size_of::<Link>()
    }

    /// Moves what waits in `text` to its front.
    fn drop_written(&mut self) {
        self.dropped_text += self.written as u64;
        self.text.drain(..self.written);
        for link in &mut self.links {
            link.at -= self.written;
        }
        self.written = 0;
    }

    /// A client that reads slowly never lets the output run empty. Moving the rest costs no more than writing what
    /// is dropped has cost.
    fn drop_written_if_worthwhile(&mut self) {
        if self.len() == 0 {
            self.clear();
        } else if self.written >= COMPACT_MIN && self.written >= self.text.len() / 2 {
            self.drop_written();
        }
    }
}

impl Buf for Output {
    fn remaining(&self) -> usize {
        self.len()
    }

    #[inline]
    fn chunk(&self) -> &[u8] {
        match self.links.is_empty() {
            true => &self.text[self.written..],
            false => self.chunks().next().unwrap_or_default(),
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slice, chunk) in slices.iter_mut().zip(self.chunks()) {
            *slice = IoSlice::new(chunk);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, count: usize) {
        assert!(count <= self.len(), "advanced by {count} bytes where {} are waiting", self.len());
        let mut left = count;
        while let Some(link) = self.links.front_mut() {
            let text = left.min(link.at - self.written);
            self.written += text;
            left -= text;
            let value = left.min(link.value.len());
            link.value.advance(value);
            self.linked -= value;
            left -= value;
            if !link.value.is_empty() {
                break;
            }
            self.links.pop_front();
            self.dropped_links += 1;
        }
        self.written += left;
        self.drop_written_if_worthwhile();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a connection does to its output, on a model that is plain bytes.
    #[derive(Debug, Clone)]
    enum Step {
        Append(usize),
        Link(usize),
        /// Out of 256 of what is waiting.
        Advance(u8),
        Mark,
        Rewind,
        Shrink,
        Clear,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0usize..40_000).prop_map(Step::Append),
            2 => (LINK_MIN - 2..LINK_MIN + 2).prop_map(Step::Link),
            4 => any::<u8>().prop_map(Step::Advance),
            2 => Just(Step::Mark),
            2 => Just(Step::Rewind),
            1 => Just(Step::Shrink),
            1 => Just(Step::Clear),
        ]
    }

    /// Bytes that differ from place to place, so that a wrong order shows.
    fn pattern(len: usize, seed: usize) -> Vec<u8> {
        (0..len).map(|index| (index * 7 + index / 251 + seed) as u8).collect()
    }

    /// The model: every byte ever appended and not taken back, and how many of them are gone.
    #[derive(Default)]
    struct Model {
        all: Vec<u8>,
        gone: usize,
        mark: Option<(Mark, usize)>,
    }

    fn apply(step: &Step, seed: usize, output: &mut Output, model: &mut Model) {
        match *step {
            Step::Append(len) => {
                output.text().extend_from_slice(&pattern(len, seed));
                model.all.extend(pattern(len, seed));
            }
            Step::Link(len) => {
                output.link(pattern(len, seed).into());
                model.all.extend(pattern(len, seed));
            }
            Step::Advance(share) => {
                let count = output.len() * usize::from(share) / 255;
                output.advance(count);
                model.gone += count;
            }
            Step::Mark => model.mark = Some((output.mark(), model.all.len())),
            Step::Rewind => {
                if let Some((mark, len)) = model.mark.take() {
                    output.rewind(mark);
                    model.all.truncate(len.max(model.gone));
                }
            }
            Step::Shrink => output.shrink_to(0),
            Step::Clear => {
                output.clear();
                model.gone = model.all.len();
            }
        }
    }

    proptest! {
        #[test]
        fn output_is_what_was_appended(steps in prop::collection::vec(step(), 0..40)) {
            let (mut output, mut model) = (Output::default(), Model::default());
            for (seed, step) in steps.iter().enumerate() {
                apply(step, seed, &mut output, &mut model);
                let waiting: Vec<u8> = output.chunks().flatten().copied().collect();
                prop_assert!(waiting == model.all[model.gone..], "after step {seed}, {step:?}");
                prop_assert_eq!(output.len(), waiting.len());
                prop_assert!(output.has_remaining() != output.chunk().is_empty());
            }
        }
    }

    #[test]
    fn a_slow_reader_does_not_make_written_bytes_pile_up() {
        let mut output = Output::default();
        for round in 0..10_000 {
            output.text().extend_from_slice(&[0; 1024]);
            output.advance(if round == 0 { 1 } else { 1024 });
        }
        assert_eq!(output.len(), 1023);
        assert!(output.allocated() <= 4 * COMPACT_MIN, "{}", output.allocated());
    }

    #[test]
    fn large_values_are_linked_and_not_copied() {
        let value = Bytes::from(vec![b'x'; LINK_MIN]);
        let mut output = Output::default();
        output.text().extend_from_slice(b"head");
        output.link(value.clone());
        output.text().extend_from_slice(b"tail");
        let mut slices = [IoSlice::new(&[]); 8];
        assert_eq!(output.chunks_vectored(&mut slices), 3);
        assert_eq!(&*slices[0], b"head");
        assert_eq!(slices[1].as_ptr(), value.as_ptr());
        assert_eq!(&*slices[2], b"tail");
        assert!(output.allocated() < LINK_MIN);
    }

    #[test]
    fn as_many_slices_as_there_is_room_for() {
        let mut output = Output::default();
        output.link(vec![1; LINK_MIN].into());
        output.link(vec![2; LINK_MIN].into());
        let mut slices = [IoSlice::new(&[])];
        assert_eq!(output.chunks_vectored(&mut slices), 1);
        assert_eq!(slices[0][0], 1);
    }
}
