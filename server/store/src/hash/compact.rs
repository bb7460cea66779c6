//! A small hash: fields and values by turns, in the order of setting, in one sequence.

use crate::compact::{self, Buffer, Items, items, splice_items};
use crate::same_bytes::same_bytes;

/// A small hash, seen.
#[derive(Clone, Copy)]
pub(crate) struct CompactHash<'a> {
    sequence: &'a [u8],
}

impl<'a> CompactHash<'a> {
    #[inline]
    pub(crate) fn new(sequence: &'a [u8]) -> Self {
        CompactHash { sequence }
    }

    /// Its bytes, framed as [`compact`] says.
    pub(crate) fn sequence(self) -> &'a [u8] {
        self.sequence
    }

    #[inline]
    pub(super) fn len(self) -> usize {
        compact::count(self.sequence) / 2
    }

    #[inline]
    pub(super) fn get(self, field: &[u8]) -> Option<&'a [u8]> {
        self.iter().find(|(other, _)| same_bytes(other, field)).map(|(_, value)| value)
    }

    #[inline]
    pub(super) fn iter(self) -> Pairs<'a> {
        Pairs { items: items(self.sequence) }
    }

    pub(super) fn random(self, draw: u64) -> Option<(&'a [u8], &'a [u8])> {
        let pick = draw.checked_rem(self.len() as u64)?;
        self.iter().nth(pick as usize)
    }

    #[inline]
    pub(super) fn locate(self, field: &[u8]) -> Option<PairPlace> {
        let mut items = items(self.sequence);
        loop {
            let from_start = items.left();
            let other = items.next()?;
            let from_value = items.left();
            let value = items.next()?;
            if same_bytes(other, field) {
                let (len, end) = (self.sequence.len(), self.sequence.len() - items.left());
                let (start, value_at) = (len - from_start, len - from_value);
                return Some(PairPlace { start, value_at, text_at: end - value.len(), end });
            }
        }
    }
}

/// Where a pair lies in the sequence.
pub(super) struct PairPlace {
    start: usize,
    /// Where the value's item begins, and where the value itself does.
    value_at: usize,
    text_at: usize,
    end: usize,
}

/// Sets the value of a field that is there.
#[inline]
pub(super) fn replace(buffer: &mut impl Buffer, place: &PairPlace, value: &[u8]) {
    if place.end - place.text_at == value.len() {
        buffer.write(place.text_at, value);
    } else {
        splice_items(buffer, place.value_at..place.end, 1, [value]);
    }
}

/// Adds a field that is not there.
pub(super) fn append(buffer: &mut impl Buffer, field: &[u8], value: &[u8]) {
    compact::append(buffer, [field, value]);
}

/// Removes a field. Returns whether it was there.
pub(super) fn remove(buffer: &mut impl Buffer, field: &[u8]) -> bool {
    let place = CompactHash::new(buffer.bytes()).locate(field);
    if let Some(place) = &place {
        splice_items(buffer, place.start..place.end, 2, []);
    }
    place.is_some()
}

/// Walks the pairs.
#[derive(Clone)]
pub(super) struct Pairs<'a> {
    items: Items<'a>,
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        Some((self.items.next()?, self.items.next()?))
    }
}
