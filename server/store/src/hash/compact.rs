//! A small hash in one buffer: length, field, length, value, and so on in the order of setting.

use crate::allocation::allocated_size;
use crate::varint::{decode_varint, push_varint};

/// Looked up by walking, so it is meant for a hundred fields or so.
#[derive(Clone)]
pub(crate) struct CompactHash {
    /// For each field: its length as a varint, its bytes, its value's length as a varint, the value's bytes.
    pairs: Vec<u8>,
    len: usize,
}

impl CompactHash {
    pub(super) fn new() -> Self {
        CompactHash { pairs: Vec::new(), len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, field: &[u8]) -> Option<&[u8]> {
        self.iter().find(|(other, _)| *other == field).map(|(_, value)| value)
    }

    pub(super) fn insert(&mut self, field: &[u8], value: &[u8]) -> bool {
        match self.locate(field) {
            Some(place) if place.value_len == value.len() => {
                self.pairs[place.end - value.len()..place.end].copy_from_slice(value);
                false
            }
            Some(place) => {
                let mut replaced = Vec::with_capacity(crate::varint::MAX_VARINT + value.len());
                push_text(&mut replaced, value);
                self.make_room((self.pairs.len() + replaced.len()).saturating_sub(place.end - place.value_at));
                self.pairs.splice(place.value_at..place.end, replaced);
                false
            }
            None => {
                self.make_room(self.pairs.len() + text_len(field) + text_len(value));
                push_text(&mut self.pairs, field);
                push_text(&mut self.pairs, value);
                self.len += 1;
                true
            }
        }
    }

    pub(super) fn remove(&mut self, field: &[u8]) -> bool {
        let Some(place) = self.locate(field) else {
            return false;
        };
        self.pairs.drain(place.start..place.end);
        self.pairs.shrink_to(allocated_size(self.pairs.len()));
        self.len -= 1;
        true
    }

    pub(super) fn iter(&self) -> Pairs<'_> {
        Pairs { rest: &self.pairs }
    }

    pub(super) fn random(&self, draw: u64) -> Option<(&[u8], &[u8])> {
        let pick = draw.checked_rem(self.len as u64)?;
        self.iter().nth(pick as usize)
    }

    pub(super) fn allocated(&self) -> usize {
        allocated_size(self.pairs.capacity())
    }

    fn locate(&self, field: &[u8]) -> Option<PairPlace> {
        let mut pairs = self.iter();
        loop {
            let start = self.pairs.len() - pairs.rest.len();
            let (other, value) = pairs.next()?;
            if other == field {
                let end = self.pairs.len() - pairs.rest.len();
                return Some(PairPlace { start, value_at: start + text_len(field), end, value_len: value.len() });
            }
        }
    }

    /// Grows to the allocator's next bin and no further.
    fn make_room(&mut self, len: usize) {
        if len > self.pairs.capacity() {
            self.pairs.reserve_exact(allocated_size(len) - self.pairs.len());
        }
    }
}

/// Where a pair lies in the buffer.
struct PairPlace {
    start: usize,
    /// Where the value's length begins.
    value_at: usize,
    end: usize,
    value_len: usize,
}

/// Walks the buffer.
#[derive(Clone)]
pub(super) struct Pairs<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        Some((self.take_text(), self.take_text()))
    }
}

impl<'a> Pairs<'a> {
    fn take_text(&mut self) -> &'a [u8] {
        let (len, taken) = decode_varint(|at| self.rest[at]);
        let (text, rest) = self.rest[taken..].split_at(len as usize);
        self.rest = rest;
        text
    }
}

fn push_text(out: &mut Vec<u8>, text: &[u8]) {
    push_varint(out, text.len() as u32);
    out.extend_from_slice(text);
}

fn text_len(text: &[u8]) -> usize {
    crate::varint::varint_len(text.len() as u32) + text.len()
}
