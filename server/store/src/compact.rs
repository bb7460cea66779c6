//! The frame of small collections: a sequence of byte strings in one buffer.
//!
//! ```text
//! offset 0  count   u16, little endian
//!        2  items   for each: its length as a varint, its bytes
//! ```
//!
//! A collection says what its items mean: a hash has fields and values by turns. It is searched by walking, so it is
//! meant for a hundred items or so. The buffer is most often an entry's own allocation: see [`Buffer`].

use std::ops::Range;

use crate::varint::{decode_varint, encode_varint};

/// A sequence without items.
pub(crate) const EMPTY: [u8; COUNT_LEN] = [0; COUNT_LEN];
/// The most items that can be counted.
pub(crate) const MAX_ITEMS: usize = u16::MAX as usize;

const COUNT_LEN: usize = 2;

/// Bytes of which a part can be replaced by a longer or shorter one.
pub(crate) trait Buffer {
    fn bytes(&self) -> &[u8];

    /// Writes over what is there, which must reach to the end of `bytes`.
    fn write(&mut self, at: usize, bytes: &[u8]);

    /// Puts `parts`, one after the other, in the place of a range.
    fn splice(&mut self, range: Range<usize>, parts: &[&[u8]]);
}

impl Buffer for Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        self[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn splice(&mut self, range: Range<usize>, parts: &[&[u8]]) {
        if range.start == self.len() {
            parts.iter().for_each(|part| self.extend_from_slice(part));
        } else {
            Vec::splice(self, range, parts.concat());
        }
    }
}

/// How many items the sequence has.
#[inline]
pub(crate) fn count(bytes: &[u8]) -> usize {
    bytes.first_chunk().map_or(0, |count| usize::from(u16::from_le_bytes(*count)))
}

/// The sequence's items, in order.
#[inline]
pub(crate) fn items(bytes: &[u8]) -> Items<'_> {
    Items { rest: &bytes[COUNT_LEN..] }
}

/// Walks a sequence.
#[derive(Clone)]
pub(crate) struct Items<'a> {
    rest: &'a [u8],
}

impl<'a> Items<'a> {
    /// How many bytes are yet to be walked: from the buffer's end the place of the next item.
    #[inline]
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let (first, behind) = self.rest.split_first()?;
        let cut = if *first < 0x80 { behind.split_at_checked(usize::from(*first)) } else { cut_long(self.rest) };
        debug_assert!(cut.is_some(), "a sequence has all of its items");
        let (item, rest) = cut?;
        self.rest = rest;
        Some(item)
    }
}

/// Cuts an item off whose length takes several bytes: apart, so that the walk over short ones is a few instructions.
#[cold]
fn cut_long(items: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, taken) = decode_varint(|at| items[at]);
    items[taken..].split_at_checked(len as usize)
}

/// Puts items at the end. There must be no more than [`MAX_ITEMS`] then.
pub(crate) fn append<const N: usize>(buffer: &mut impl Buffer, items: [&[u8]; N]) {
    let end = buffer.bytes().len();
    splice_items(buffer, end..end, 0, items);
}

/// Puts items in the place of some that lie in a range.
pub(crate) fn splice_items<const N: usize>(
    buffer: &mut impl Buffer,
    range: Range<usize>,
    replaced: usize,
    items: [&[u8]; N],
) {
    let count = count(buffer.bytes()) + N - replaced;
    let heads = items.map(|item| encode_varint(length(item)));
    let mut parts = [[&[][..]; 2]; N];
    for (part, ((head, head_len), item)) in parts.iter_mut().zip(heads.iter().zip(items)) {
        *part = [&head[..*head_len], item];
    }
    buffer.splice(range, parts.as_flattened());
    if N != replaced {
        let count = u16::try_from(count).expect("a sequence does not outgrow its count");
        buffer.write(0, &count.to_le_bytes());
    }
}

fn length(item: &[u8]) -> u32 {
    u32::try_from(item.len()).expect("an item is far shorter than 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn item_len(item: &[u8]) -> usize {
        encode_varint(length(item)).1 + item.len()
    }

    fn check(buffer: &[u8], model: &[Vec<u8>]) {
        assert_eq!(count(buffer), model.len());
        assert!(items(buffer).eq(model.iter().map(Vec::as_slice)));
        let bytes: usize = model.iter().map(|item| item_len(item)).sum();
        assert_eq!(buffer.len(), COUNT_LEN + bytes);
    }

    fn texts() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![prop::collection::vec(any::<u8>(), 0..10), prop::collection::vec(any::<u8>(), 120..300)]
    }

    proptest! {
        #[test]
        fn agrees_with_a_list(edits in prop::collection::vec((any::<prop::sample::Index>(), 0..3u8, texts(), texts()), 0..40)) {
            let (mut buffer, mut model) = (EMPTY.to_vec(), Vec::<Vec<u8>>::new());
            for (at, edit, first, second) in edits {
                if edit == 0 || model.is_empty() {
                    append(&mut buffer, [&first, &second]);
                    model.extend([first, second]);
                } else {
                    let at = at.index(model.len());
                    let mut walk = items(&buffer);
                    walk.by_ref().take(at).for_each(drop);
                    let start = buffer.len() - walk.left();
                    let end = start + item_len(&model[at]);
                    if edit == 1 {
                        splice_items(&mut buffer, start..end, 1, []);
                        model.remove(at);
                    } else {
                        splice_items(&mut buffer, start..end, 1, [&first, &second]);
                        model.splice(at..=at, [first, second]);
                    }
                }
                check(&buffer, &model);
            }
        }
    }
}
