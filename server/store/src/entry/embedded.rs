//! A value that lies in its entry as bytes, to be changed there.

use std::ops::Range;

use super::shape::{HEADER, Head, LONG_LENGTH, LONG_VALUE, Shape, fields_len};
use super::{Entry, Kind};
use crate::compact::Buffer;

/// The bytes of such a value. They stay in the entry's allocation, which is replaced only where they come to need one of
/// another size.
pub(crate) struct Embedded<'e> {
    /// Its kind is one of bytes.
    entry: &'e mut Entry,
}

impl<'e> Embedded<'e> {
    #[inline]
    pub(super) fn new(entry: &'e mut Entry) -> Self {
        debug_assert!(matches!(entry.head().kind(), Kind::Embedded | Kind::Raw | Kind::CompactHash));
        Embedded { entry }
    }

    fn splice_in_place(&mut self, old: &Shape, new: &Shape, range: Range<usize>, parts: &[&[u8]]) {
        let value_at = old.value_at();
        let kept = old.value_len - range.end;
        self.entry.shift(value_at + range.end, value_at + new.value_len - kept, kept);
        self.entry.put_parts(value_at + range.start, parts);
        self.entry.put_lengths(new);
    }

    fn splice_moved(&mut self, old: &Shape, new: &Shape, range: Range<usize>, parts: &[&[u8]]) {
        let entry = &*self.entry;
        let mut moved = Entry::allocate(new);
        moved.put_head(entry.access(), entry.head());
        // Key and fields lie alike in both, up to the value's length.
        let shared = old.fields_at() + fields_len(old.flags & !LONG_VALUE);
        moved.put(HEADER, entry.slice(HEADER, shared - HEADER));
        moved.put_lengths(new);
        let (from, to) = (old.value_at(), new.value_at());
        let kept = old.value_len - range.end;
        moved.put(to, entry.slice(from, range.start));
        moved.put_parts(to + range.start, parts);
        moved.put(to + new.value_len - kept, entry.slice(from + range.end, kept));
        *self.entry = moved;
    }
}

impl Buffer for Embedded<'_> {
    #[inline]
    fn bytes(&self) -> &[u8] {
        let head = self.entry.head();
        self.entry.value_bytes(head, self.entry.value_at(head))
    }

    #[inline]
    fn write(&mut self, at: usize, bytes: &[u8]) {
        let head = self.entry.head();
        let value_at = self.entry.value_at(head);
        let len = self.entry.value_len(head, value_at);
        assert!(at <= len && bytes.len() <= len - at, "a write ends within the value");
        self.entry.put(value_at + at, bytes);
    }

    fn splice(&mut self, range: Range<usize>, parts: &[&[u8]]) {
        let old = self.entry.shape();
        assert!(range.start <= range.end && range.end <= old.value_len, "a value has the range that is replaced");
        let inserted: usize = parts.iter().map(|part| part.len()).sum();
        let new = Shape::new(old.flags, old.key_len, old.value_len - range.len() + inserted);
        if new.flags == old.flags && new.allocated() == old.allocated() {
            self.splice_in_place(&old, &new, range, parts);
        } else {
            self.splice_moved(&old, &new, range, parts);
        }
    }
}

impl Entry {
    /// Puts `parts` one after the other.
    #[inline]
    fn put_parts(&mut self, mut at: usize, parts: &[&[u8]]) {
        for part in parts {
            self.put(at, part);
            at += part.len();
        }
    }

    /// Writes the flags and the lengths of key and value, all but a long key's.
    #[inline]
    fn put_lengths(&mut self, shape: &Shape) {
        let (access, kind) = (self.access(), self.head().kind());
        self.put_head(access, Head::new(kind, shape));
        if shape.flags & LONG_VALUE != 0 {
            self.put(shape.value_at() - LONG_LENGTH, &super::long_length(shape.value_len));
        }
    }
}
