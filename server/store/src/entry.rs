//! A key's record: one allocation, behind one pointer.
//!
//! ```text
//! offset 0  access         u32   what the eviction policy remembers
//!        4  kind           u8    what the value is, see `Kind`
//!        5  flags          u8    which optional fields there are
//!        6  key length     u8
//!        7  value length   u8
//!        8  key length     u32, if LONG_KEY: it does not fit above
//!           key            bytes
//!           deadline       i64, if DEADLINE
//!           filled at      48 bits, and group u16, if FILLED
//!           stale for      u32, if STALE
//!           refresh after  u32, if REFRESH
//!           value length   u32, if LONG_VALUE: it does not fit above
//!           value          bytes, or an i64, or a pointer to the object
//! ```
//!
//! All numbers are little endian; those behind the key are unaligned. A lookup finds the key at a fixed place, a read
//! finds the value by one table of the flags, and a write leaves the key where it is. The size of the allocation
//! follows from these fields, rounded up to the allocator's bin, so an entry changes where it lies for as long as
//! the bin stays the same.

mod compaction;
mod embedded;
mod shape;
mod value;

use std::alloc::{alloc, dealloc, handle_alloc_error};
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use crate::UnixMillis;
use crate::hash::CompactHash;
use crate::prefetch::fetch_line;
use crate::same_bytes::same_bytes;
pub(crate) use embedded::Embedded;
use shape::{
    DEADLINE, FILLED, HEADER, Head, LONG_KEY, LONG_LENGTH, LONG_VALUE, REFRESH, REFRESH_TOLD, SHORT_LENGTH, STALE,
    Shape, fields_len, flags_for, refresh_after,
};
use value::Kind;
pub(crate) use value::{Value, ValueMut, ValueView};

const HEAD_AT: usize = 4;
/// Bytes.
const CACHE_LINE: usize = 64;

/// What an entry carries beside its key and value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) access: u32,
    pub(crate) deadline: Option<UnixMillis>,
    pub(crate) fill: Option<FillInfo>,
}

/// Where a filled entry came from, and how long it is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FillInfo {
    /// When the origin was read. Kept in 48 bits, which last until the year 10889.
    pub filled_at: UnixMillis,
    /// What tells the definition that it was loaded by from others.
    pub group: u16,
    /// For how long after its deadline it may be served when the origin fails, in milliseconds.
    pub stale_for_ms: u32,
    /// When it is to be read again ahead of its deadline, at most 2³² ms (49 days) after `filled_at`: a later time is
    /// kept as that one.
    pub refresh_at: Option<UnixMillis>,
}

/// An owned entry. The size of a pointer.
pub(crate) struct Entry {
    start: NonNull<u8>,
}

// SAFETY: an entry owns its allocation and its object, and all that they can hold may be sent.
unsafe impl Send for Entry {}
// SAFETY: through a shared reference an entry can only be read.
unsafe impl Sync for Entry {}

impl Entry {
    pub(crate) fn new(key: &[u8], meta: &Meta, value: Value<'_>) -> Self {
        let shape = Shape::new(flags_for(meta), key.len(), value.len());
        let mut entry = Entry::allocate(&shape);
        entry.put_head(meta.access, Head::new(value.kind(), &shape));
        entry.put_key(&shape, key);
        entry.put_fields(&shape, meta);
        entry.put_value(&shape, value);
        entry
    }

    /// Replaces all but the key, in the same allocation if it has the right size. The old object, if any, is dropped.
    #[inline]
    pub(crate) fn overwrite(&mut self, meta: &Meta, value: Value<'_>) {
        let (old, kind) = (self.shape(), self.head().kind());
        let new = Shape::new(flags_for(meta), old.key_len, value.len());
        if new.end() != old.end() && new.allocated() != old.allocated() {
            *self = Entry::new(self.key(), meta, value);
            return;
        }
        if kind.is_object() {
            // SAFETY: the value is about to be overwritten, so the object is not seen again.
            drop(unsafe { self.take_object() });
        }
        self.put_head(meta.access, Head::new(value.kind(), &new));
        self.put_fields(&new, meta);
        self.put_value(&new, value);
    }

    /// The same value under another key.
    pub(crate) fn renamed(self, key: &[u8]) -> Entry {
        let old = self.shape();
        let new = Shape::new(old.flags, key.len(), old.value_len);
        let mut renamed = Entry::allocate(&new);
        renamed.put_head(self.access(), Head::new(self.head().kind(), &new));
        renamed.put_key(&new, key);
        renamed.put(new.fields_at(), self.slice(old.fields_at(), old.end() - old.fields_at()));
        // The object has moved with the value.
        self.free_shell();
        renamed
    }

    /// Whether the entry is the key's.
    #[inline]
    pub(crate) fn is_of(&self, key: &[u8]) -> bool {
        if key.len() <= SHORT_LENGTH {
            self.head().has_short_key_of(key.len()) && same_bytes(self.slice(HEADER, key.len()), key)
        } else {
            self.key() == key
        }
    }

    #[inline]
    pub(crate) fn key(&self) -> &[u8] {
        let (at, len) = self.key_place(self.head());
        self.slice(at, len)
    }

    /// Asks for the cache line that begins it, where eviction finds what it weighs most entries by.
    #[inline]
    pub(crate) fn prefetch_head(&self) {
        fetch_line(self.start.as_ptr());
    }

    /// Asks for the cache lines in which most entries lie whole.
    #[inline]
    pub(crate) fn prefetch(&self) {
        fetch_line(self.start.as_ptr());
        fetch_line(self.start.as_ptr().wrapping_add(CACHE_LINE));
    }

    #[inline]
    pub(crate) fn value(&self) -> ValueView<'_> {
        let head = self.head();
        let at = self.value_at(head);
        match head.kind() {
            Kind::Absent => ValueView::Absent,
            Kind::Integer => ValueView::Integer(i64::from_le_bytes(self.array(at))),
            Kind::Embedded => ValueView::Short { bytes: self.value_bytes(head, at), raw: false },
            Kind::Raw => ValueView::Short { bytes: self.value_bytes(head, at), raw: true },
            // SAFETY: the kind says what the pointer points to.
            Kind::Big => ValueView::Big(unsafe { self.object(at) }),
            Kind::CompactHash => ValueView::CompactHash(CompactHash::new(self.value_bytes(head, at))),
            // SAFETY: as above.
            Kind::HashTable => ValueView::HashTable(unsafe { self.object(at) }),
        }
    }

    #[inline]
    pub(crate) fn value_mut(&mut self) -> ValueMut<'_> {
        let head = self.head();
        let at = self.value_at(head);
        match head.kind() {
            Kind::Absent | Kind::Integer | Kind::Embedded | Kind::Raw => ValueMut::Plain,
            // SAFETY: the kind says what the pointer points to.
            Kind::Big => ValueMut::Big(unsafe { self.object_mut_at(at) }),
            Kind::CompactHash => ValueMut::CompactHash(Embedded::new(self)),
            // SAFETY: as above.
            Kind::HashTable => ValueMut::HashTable(unsafe { self.object_mut_at(at) }),
        }
    }

    /// Replaces the value by a number.
    #[inline]
    pub(crate) fn set_integer(&mut self, number: i64) {
        let head = self.head();
        if head.kind() == Kind::Integer {
            self.put(self.value_at(head), &number.to_le_bytes());
        } else {
            self.overwrite(&self.meta(), Value::Integer(number));
        }
    }

    /// Lets readers share the memory of a long string that was changed in place.
    #[inline]
    pub(crate) fn make_shareable(&mut self) {
        if self.head().kind() == Kind::Big {
            if let ValueMut::Big(string) = self.value_mut() {
                string.make_shareable();
            }
        }
    }

    /// Whether its deadline has passed.
    #[inline]
    pub(crate) fn is_late(&self, now: UnixMillis) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= now)
    }

    #[inline]
    pub(crate) fn is_absent(&self) -> bool {
        self.head().kind() == Kind::Absent
    }

    #[inline]
    pub(crate) fn is_hash(&self) -> bool {
        matches!(self.head().kind(), Kind::CompactHash | Kind::HashTable)
    }

    #[inline]
    pub(crate) fn meta(&self) -> Meta {
        Meta { access: self.access(), deadline: self.deadline(), fill: self.fill() }
    }

    #[inline]
    pub(crate) fn access(&self) -> u32 {
        u32::from_le_bytes(self.array(0))
    }

    #[inline]
    pub(crate) fn set_access(&mut self, access: u32) {
        self.put(0, &access.to_le_bytes());
    }

    #[inline]
    pub(crate) fn deadline(&self) -> Option<UnixMillis> {
        let head = self.head();
        // The deadline is the first of the optional fields.
        head.has(DEADLINE).then(|| i64::from_le_bytes(self.array(self.fields_at(head))))
    }

    pub(crate) fn set_deadline(&mut self, deadline: Option<UnixMillis>) {
        match (self.optional_at(DEADLINE), deadline) {
            (None, None) => {}
            (Some(at), Some(deadline)) => self.put(at, &deadline.to_le_bytes()),
            _ => self.set_meta(&Meta { deadline, ..self.meta() }),
        }
    }

    #[inline]
    pub(crate) fn fill(&self) -> Option<FillInfo> {
        self.optional_at(FILLED).map(|at| self.fill_at(at))
    }

    /// Forgets where the value came from, since it is no longer what the origin gave.
    #[inline]
    pub(crate) fn clear_fill(&mut self) {
        if self.head().has(FILLED) {
            self.set_meta(&Meta { fill: None, ..self.meta() });
        }
    }

    /// From when on the entry is of no use to anybody: its deadline, or the end of its time as a stale one.
    #[inline]
    pub(crate) fn dead_at(&self) -> Option<UnixMillis> {
        let deadline = self.deadline()?;
        Some(deadline.saturating_add(i64::from(self.stale_for_ms())))
    }

    /// Whether the entry is due for a refresh that nobody has been told of. From then on somebody has.
    #[inline]
    pub(crate) fn tell_refresh_due(&mut self, now: UnixMillis) -> bool {
        let head = self.head();
        if !head.has(REFRESH) || head.has(REFRESH_TOLD) {
            return false;
        }
        let due = self.fill().and_then(|fill| fill.refresh_at).is_some_and(|at| at <= now);
        if due {
            self.put(HEAD_AT, &head.with_flag(REFRESH_TOLD).0.to_le_bytes());
        }
        due
    }

    /// The bytes that the entry and its object take; `samples` as for [`FieldTable::allocated`].
    pub(crate) fn allocated(&self, samples: Option<usize>) -> usize {
        let object = match self.value() {
            ValueView::Absent | ValueView::Integer(_) | ValueView::Short { .. } | ValueView::CompactHash(_) => 0,
            ValueView::Big(string) => string.allocated(),
            ValueView::HashTable(table) => table.allocated(samples),
        };
        self.shape().allocated() + object
    }

    /// Whether it is key and value alone: without deadline, origin and object.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        let head = self.head();
        !head.has(DEADLINE | FILLED) && !head.kind().is_object()
    }

    /// Whether freeing it may take long.
    #[inline]
    pub(crate) fn is_large(&self) -> bool {
        self.head().kind().is_object() && self.has_large_object()
    }

    /// A copy with an object of its own, under the same key.
    pub(crate) fn duplicate(&self, meta: &Meta) -> Entry {
        let value = match self.value() {
            ValueView::Absent => Value::Absent,
            ValueView::Integer(number) => Value::Integer(number),
            ValueView::Short { bytes, raw } => Value::Short { bytes, raw },
            ValueView::Big(string) => Value::Big(Box::new(string.duplicate())),
            ValueView::CompactHash(hash) => Value::CompactHash(hash.sequence()),
            ValueView::HashTable(table) => Value::HashTable(Box::new(table.duplicate())),
        };
        Entry::new(self.key(), meta, value)
    }

    fn has_large_object(&self) -> bool {
        match self.value() {
            ValueView::Absent | ValueView::Integer(_) | ValueView::Short { .. } | ValueView::CompactHash(_) => false,
            ValueView::Big(string) => string.is_large(),
            ValueView::HashTable(_) => true,
        }
    }

    #[inline]
    fn stale_for_ms(&self) -> u32 {
        self.optional_at(STALE).map_or(0, |at| self.u32_at(at))
    }

    fn fill_at(&self, at: usize) -> FillInfo {
        let [a, b, c, d, e, f, group @ ..] = self.array::<8>(at);
        let filled_at = i64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
        let group = u16::from_le_bytes(group);
        let refresh_at = self.optional_at(REFRESH).map(|at| filled_at + i64::from(self.u32_at(at)));
        FillInfo { filled_at, group, stale_for_ms: self.stale_for_ms(), refresh_at }
    }

    /// Gives the entry other optional fields; the value moves to where it then belongs.
    fn set_meta(&mut self, meta: &Meta) {
        let (old, kind) = (self.shape(), self.head().kind());
        let new = Shape::new(flags_for(meta), old.key_len, old.value_len);
        if new.allocated() == old.allocated() {
            self.shift(old.value_at(), new.value_at(), old.value_len);
            self.put_head(meta.access, Head::new(kind, &new));
            self.put_fields(&new, meta);
            return;
        }
        let mut moved = Entry::allocate(&new);
        moved.put_head(meta.access, Head::new(kind, &new));
        moved.put_key(&new, self.key());
        moved.put_fields(&new, meta);
        moved.put(new.value_at(), self.slice(old.value_at(), old.value_len));
        // The object has moved with the value.
        std::mem::replace(self, moved).free_shell();
    }

    #[inline]
    fn head(&self) -> Head {
        Head(u32::from_le_bytes(self.array(HEAD_AT)))
    }

    #[inline]
    fn shape(&self) -> Shape {
        let head = self.head();
        let (_, key_len) = self.key_place(head);
        Shape { flags: head.flags(), key_len, value_len: self.value_len(head, self.value_at(head)) }
    }

    /// Where the key lies and how long it is.
    #[inline]
    fn key_place(&self, head: Head) -> (usize, usize) {
        match head.has(LONG_KEY) {
            false => (HEADER, head.short_key_len()),
            true => (HEADER + LONG_LENGTH, self.u32_at(HEADER) as usize),
        }
    }

    #[inline]
    fn fields_at(&self, head: Head) -> usize {
        let (key_at, key_len) = self.key_place(head);
        key_at + key_len
    }

    /// Where an optional field lies, if the entry has it.
    #[inline]
    fn optional_at(&self, field: u8) -> Option<usize> {
        let head = self.head();
        head.has(field).then(|| self.fields_at(head) + fields_len(head.flags() & (field - 1)))
    }

    #[inline]
    fn value_at(&self, head: Head) -> usize {
        self.fields_at(head) + fields_len(head.flags())
    }

    #[inline]
    fn value_len(&self, head: Head, value_at: usize) -> usize {
        match head.has(LONG_VALUE) {
            false => head.short_value_len(),
            true => self.u32_at(value_at - LONG_LENGTH) as usize,
        }
    }

    #[inline]
    fn value_bytes(&self, head: Head, at: usize) -> &[u8] {
        self.slice(at, self.value_len(head, at))
    }

    #[inline]
    fn put_head(&mut self, access: u32, head: Head) {
        self.put(0, &(u64::from(head.0) << u32::BITS | u64::from(access)).to_le_bytes());
    }

    #[inline]
    fn put_key(&mut self, shape: &Shape, key: &[u8]) {
        if shape.flags & LONG_KEY != 0 {
            self.put(HEADER, &long_length(key.len()));
        }
        self.put(shape.key_at(), key);
    }

    /// Writes what lies between key and value.
    #[inline]
    fn put_fields(&mut self, shape: &Shape, meta: &Meta) {
        let mut at = shape.fields_at();
        if let Some(deadline) = meta.deadline {
            self.put(at, &deadline.to_le_bytes());
            at += size_of_val(&deadline);
        }
        if let Some(fill) = &meta.fill {
            at = self.put_fill(at, fill);
        }
        if shape.flags & LONG_VALUE != 0 {
            self.put(at, &long_length(shape.value_len));
        }
    }

    /// Returns where the next field begins.
    fn put_fill(&mut self, at: usize, fill: &FillInfo) -> usize {
        let mut fields = [0; 16];
        fields[..6].copy_from_slice(&fill.filled_at.to_le_bytes()[..6]);
        fields[6..8].copy_from_slice(&fill.group.to_le_bytes());
        let mut len = 8;
        let mut append = |number: u32| {
            fields[len..len + 4].copy_from_slice(&number.to_le_bytes());
            len += 4;
        };
        if fill.stale_for_ms > 0 {
            append(fill.stale_for_ms);
        }
        if let Some(refresh_at) = fill.refresh_at {
            append(refresh_after(fill.filled_at, refresh_at));
        }
        self.put(at, &fields[..len]);
        at + len
    }

    #[inline]
    fn put_value(&mut self, shape: &Shape, value: Value<'_>) {
        let at = shape.value_at();
        match value {
            Value::Absent => {}
            Value::Integer(number) => self.put(at, &number.to_le_bytes()),
            Value::Short { bytes, .. } | Value::CompactHash(bytes) => self.put(at, bytes),
            Value::Big(string) => self.put_object(at, string),
            Value::HashTable(table) => self.put_object(at, table),
        }
    }

    /// # Safety
    /// The object must not be reached through this entry any more.
    unsafe fn take_object(&self) -> Option<Value<'static>> {
        let head = self.head();
        let at = self.value_at(head);
        match head.kind() {
            Kind::Absent | Kind::Integer | Kind::Embedded | Kind::Raw | Kind::CompactHash => None,
            // SAFETY: the kind says which box the pointer came from; the caller sees that it is not used again.
            Kind::Big => Some(Value::Big(unsafe { self.boxed(at) })),
            // SAFETY: as above.
            Kind::HashTable => Some(Value::HashTable(unsafe { self.boxed(at) })),
        }
    }

    /// An entry of which nothing is written yet: the caller writes all of the shape before anything else.
    fn allocate(shape: &Shape) -> Entry {
        let layout = shape.layout();
        // SAFETY: an entry has a header, so its size is not zero.
        let start = unsafe { alloc(layout) };
        Entry { start: NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout)) }
    }

    /// Frees the allocation but not the object, which has been moved away.
    fn free_shell(self) {
        let layout = self.shape().layout();
        let start = ManuallyDrop::new(self).start;
        // SAFETY: `start` was allocated with this layout, and the entry is gone.
        unsafe { dealloc(start.as_ptr(), layout) };
    }

    #[inline]
    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        // SAFETY: callers stay within the entry's shape; byte arrays need no alignment.
        unsafe { self.start.add(at).cast().read() }
    }

    #[inline]
    fn u32_at(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    #[inline]
    fn slice(&self, at: usize, len: usize) -> &[u8] {
        // SAFETY: callers stay within the entry's shape, all of which has been written.
        unsafe { std::slice::from_raw_parts(self.start.add(at).as_ptr(), len) }
    }

    #[inline]
    fn put(&mut self, at: usize, bytes: &[u8]) {
        // SAFETY: callers stay within the entry's shape; `bytes` is borrowed from elsewhere, as `self` is unique.
        unsafe { self.start.add(at).copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
    }

    /// Moves bytes within the entry.
    #[inline]
    fn shift(&mut self, from: usize, to: usize, len: usize) {
        // SAFETY: callers stay within the entry's allocation on both sides, and what is at `from` has been written.
        unsafe { self.start.add(to).copy_from(self.start.add(from), len) };
    }

    /// # Safety
    /// A pointer to a `T` that the entry owns must lie there.
    unsafe fn object<T>(&self, at: usize) -> &T {
        // SAFETY: the caller's promise.
        unsafe { self.start.add(at).cast::<NonNull<T>>().read_unaligned().as_ref() }
    }

    /// # Safety
    /// As for `object`.
    unsafe fn object_mut_at<T>(&mut self, at: usize) -> &mut T {
        // SAFETY: the caller's promise; the entry is borrowed uniquely.
        unsafe { self.start.add(at).cast::<NonNull<T>>().read_unaligned().as_mut() }
    }

    /// # Safety
    /// As for `object`, and the pointer must not be used again.
    unsafe fn boxed<T>(&self, at: usize) -> Box<T> {
        // SAFETY: the caller's promise; objects come from boxes.
        unsafe { Box::from_raw(self.start.add(at).cast::<*mut T>().read_unaligned()) }
    }

    fn put_object<T>(&mut self, at: usize, object: Box<T>) {
        // SAFETY: callers stay within the entry's shape.
        unsafe { self.start.add(at).cast().write_unaligned(Box::into_raw(object)) };
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.head().kind().is_object() {
            // SAFETY: the entry is not used after this.
            drop(unsafe { self.take_object() });
        }
        let layout = self.shape().layout();
        // SAFETY: `start` was allocated with this layout.
        unsafe { dealloc(self.start.as_ptr(), layout) };
    }
}

/// The shape has seen that it fits.
fn long_length(len: usize) -> [u8; LONG_LENGTH] {
    (len as u32).to_le_bytes()
}

#[cfg(test)]
mod tests;
