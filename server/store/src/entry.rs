//! A key's record: one allocation, behind one pointer.
//!
//! ```text
//! offset 0  access   u32   what the eviction policy remembers
//!        4  kind     u8    what the value is, see `Kind`
//!        5  flags    u8    which optional fields follow
//!        6  key length     varint
//!           value length   varint, only where the value itself lies here as bytes
//!           deadline       i64, if DEADLINE
//!           filled at      48 bits, and group u16, if FILLED
//!           stale for      u32, if STALE
//!           refresh after  u32, if REFRESH
//!           key            bytes
//!           value          bytes, or an i64, or a pointer to the object
//! ```
//!
//! All numbers are little endian and unaligned. The size of the allocation follows from these fields, rounded up to
//! the allocator's bin, so a value may be overwritten where it lies as long as the bin stays the same.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use crate::UnixMillis;
use crate::allocation::allocated_size;
use crate::hash::Hash;
use crate::prefetch::fetch_line;
use crate::string::BigString;
use crate::varint::{decode_varint, encode_varint, varint_len};

const KIND_AT: usize = 4;
const FLAGS_AT: usize = 5;
const KEY_LEN_AT: usize = 6;
/// The size of a number or pointer in the value's place.
const WORD: usize = 8;
/// Bytes.
const CACHE_LINE: usize = 64;

/// The entry has a deadline.
const DEADLINE: u8 = 1 << 0;
/// The entry came from the origin.
const FILLED: u8 = 1 << 1;
/// It may be served for some time after its deadline.
const STALE: u8 = 1 << 2;
/// It is due for an early refresh at some time.
const REFRESH: u8 = 1 << 3;
/// Somebody has been told that the refresh is due.
const REFRESH_TOLD: u8 = 1 << 4;

/// What lies in the value's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Absent = 0,
    Integer = 1,
    /// A string's bytes, set as they are.
    Embedded = 2,
    /// A string's bytes, changed in place before.
    Raw = 3,
    Big = 4,
    Hash = 5,
}

/// A value to store.
pub(crate) enum Value<'v> {
    /// Known not to exist at the origin.
    Absent,
    Integer(i64),
    /// A short string that lies in the entry; `raw` if it was changed in place rather than set.
    Short {
        bytes: &'v [u8],
        raw: bool,
    },
    Big(Box<BigString>),
    Hash(Box<Hash>),
}

/// A stored value, seen.
#[derive(Clone, Copy)]
pub(crate) enum ValueView<'e> {
    Absent,
    Integer(i64),
    Short { bytes: &'e [u8], raw: bool },
    Big(&'e BigString),
    Hash(&'e Hash),
}

/// A stored object, to be changed where it is. Short values are replaced instead.
pub(crate) enum ObjectMut<'e> {
    Big(&'e mut BigString),
    Hash(&'e mut Hash),
}

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
    /// The number of its group.
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
        let geometry = Geometry::of_new(key, meta, &value);
        let start = allocate(geometry.layout());
        let mut entry = Entry { start };
        // SAFETY: the allocation is of that geometry's layout.
        unsafe { entry.write(&geometry, key, meta, value) };
        entry
    }

    /// Replaces all but the key, which is given again, in the same allocation if it has the right size. The old object,
    /// if any, is dropped.
    pub(crate) fn overwrite(&mut self, key: &[u8], meta: &Meta, value: Value<'_>) {
        debug_assert_eq!(self.key(), key);
        let geometry = Geometry::of_new(key, meta, &value);
        if geometry.layout() != self.geometry().layout() {
            *self = Entry::new(key, meta, value);
            return;
        }
        // SAFETY: all fields are about to be overwritten, so the object is not seen again.
        drop(unsafe { self.take_object() });
        // SAFETY: the allocation is of that geometry's layout.
        unsafe { self.write(&geometry, key, meta, value) };
    }

    /// The same value under another key.
    pub(crate) fn renamed(self, key: &[u8]) -> Entry {
        // SAFETY: `self`, which still points to the object, frees only its own allocation below.
        let value = unsafe { self.value_moved() };
        let renamed = Entry::new(key, &self.meta(), value);
        self.free_shell();
        renamed
    }

    #[inline]
    pub(crate) fn key(&self) -> &[u8] {
        let geometry = self.geometry();
        self.slice(geometry.key_at, geometry.key_len)
    }

    /// Asks for the cache lines in which most entries lie whole.
    #[inline]
    pub(crate) fn prefetch(&self) {
        fetch_line(self.start.as_ptr());
        fetch_line(self.start.as_ptr().wrapping_add(CACHE_LINE));
    }

    pub(crate) fn value(&self) -> ValueView<'_> {
        let geometry = self.geometry();
        let bytes = self.slice(geometry.value_at, geometry.value_len);
        match self.kind() {
            Kind::Absent => ValueView::Absent,
            Kind::Integer => ValueView::Integer(i64::from_le_bytes(self.array(geometry.value_at))),
            Kind::Embedded => ValueView::Short { bytes, raw: false },
            Kind::Raw => ValueView::Short { bytes, raw: true },
            // SAFETY: the kind says what the pointer points to.
            Kind::Big => ValueView::Big(unsafe { self.object(geometry.value_at) }),
            // SAFETY: as above.
            Kind::Hash => ValueView::Hash(unsafe { self.object(geometry.value_at) }),
        }
    }

    pub(crate) fn object_mut(&mut self) -> Option<ObjectMut<'_>> {
        let value_at = self.geometry().value_at;
        match self.kind() {
            Kind::Absent | Kind::Integer | Kind::Embedded | Kind::Raw => None,
            // SAFETY: the kind says what the pointer points to.
            Kind::Big => Some(ObjectMut::Big(unsafe { self.object_at_mut(value_at) })),
            // SAFETY: as above.
            Kind::Hash => Some(ObjectMut::Hash(unsafe { self.object_at_mut(value_at) })),
        }
    }

    /// Lets readers share the memory of a long string that was changed in place.
    #[inline]
    pub(crate) fn make_shareable(&mut self) {
        if self.kind() == Kind::Big {
            if let Some(ObjectMut::Big(string)) = self.object_mut() {
                string.make_shareable();
            }
        }
    }

    #[inline]
    pub(crate) fn is_absent(&self) -> bool {
        self.kind() == Kind::Absent
    }

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
        let at = self.optional_at(DEADLINE)?;
        Some(i64::from_le_bytes(self.array(at)))
    }

    pub(crate) fn set_deadline(&mut self, deadline: Option<UnixMillis>) {
        match (self.optional_at(DEADLINE), deadline) {
            (None, None) => {}
            (Some(at), Some(deadline)) => self.put(at, &deadline.to_le_bytes()),
            _ => self.rebuild(&Meta { deadline, ..self.meta() }),
        }
    }

    pub(crate) fn fill(&self) -> Option<FillInfo> {
        let at = self.optional_at(FILLED)?;
        let [a, b, c, d, e, f, group @ ..] = self.array::<8>(at);
        let filled_at = i64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
        let group = u16::from_le_bytes(group);
        let refresh_at = self.optional_at(REFRESH).map(|at| filled_at + i64::from(self.u32_at(at)));
        Some(FillInfo { filled_at, group, stale_for_ms: self.stale_for_ms(), refresh_at })
    }

    /// Forgets where the value came from, since it is no longer what the origin gave.
    pub(crate) fn clear_fill(&mut self) {
        if self.flags() & FILLED != 0 {
            self.rebuild(&Meta { fill: None, ..self.meta() });
        }
    }

    /// From when on the entry is of no use to anybody: its deadline, or the end of its time as a stale one.
    #[inline]
    pub(crate) fn dead_at(&self) -> Option<UnixMillis> {
        let deadline = self.deadline()?;
        Some(deadline.saturating_add(i64::from(self.stale_for_ms())))
    }

    /// Whether the entry is due for a refresh that nobody has been told of. From then on somebody has.
    pub(crate) fn tell_refresh_due(&mut self, now: UnixMillis) -> bool {
        if self.flags() & (REFRESH | REFRESH_TOLD) != REFRESH {
            return false;
        }
        let due = self.fill().and_then(|fill| fill.refresh_at).is_some_and(|at| at <= now);
        if due {
            self.put(FLAGS_AT, &[self.flags() | REFRESH_TOLD]);
        }
        due
    }

    /// The bytes that the entry and its object take; `samples` as for [`Hash::allocated`].
    pub(crate) fn allocated(&self, samples: Option<usize>) -> usize {
        let object = match self.value() {
            ValueView::Absent | ValueView::Integer(_) | ValueView::Short { .. } => 0,
            ValueView::Big(string) => string.allocated(),
            ValueView::Hash(hash) => hash.allocated(samples),
        };
        self.geometry().layout().size() + object
    }

    /// Whether freeing it may take long.
    pub(crate) fn is_large(&self) -> bool {
        match self.value() {
            ValueView::Absent | ValueView::Integer(_) | ValueView::Short { .. } => false,
            ValueView::Big(string) => string.is_large(),
            ValueView::Hash(hash) => hash.is_large(),
        }
    }

    /// A copy with an object of its own, under the same key.
    pub(crate) fn duplicate(&self, meta: &Meta) -> Entry {
        let value = match self.value() {
            ValueView::Absent => Value::Absent,
            ValueView::Integer(number) => Value::Integer(number),
            ValueView::Short { bytes, raw } => Value::Short { bytes, raw },
            ValueView::Big(string) => Value::Big(Box::new(string.duplicate())),
            ValueView::Hash(hash) => Value::Hash(Box::new(hash.duplicate())),
        };
        Entry::new(self.key(), meta, value)
    }

    #[inline]
    fn stale_for_ms(&self) -> u32 {
        self.optional_at(STALE).map_or(0, |at| self.u32_at(at))
    }

    fn rebuild(&mut self, meta: &Meta) {
        // SAFETY: `self`, which still points to the object, frees only its own allocation below.
        let value = unsafe { self.value_moved() };
        let rebuilt = Entry::new(self.key(), meta, value);
        std::mem::replace(self, rebuilt).free_shell();
    }

    #[inline]
    fn kind(&self) -> Kind {
        match self.byte(KIND_AT) {
            1 => Kind::Integer,
            2 => Kind::Embedded,
            3 => Kind::Raw,
            4 => Kind::Big,
            5 => Kind::Hash,
            _ => Kind::Absent,
        }
    }

    #[inline]
    fn flags(&self) -> u8 {
        self.byte(FLAGS_AT)
    }

    #[inline]
    fn geometry(&self) -> Geometry {
        let (key_len, taken) = decode_varint(|at| self.byte(KEY_LEN_AT + at));
        let after_key_len = KEY_LEN_AT + taken;
        let kind = self.kind();
        let (value_len, optional_at) = match kind {
            Kind::Absent => (0, after_key_len),
            Kind::Integer | Kind::Big | Kind::Hash => (WORD, after_key_len),
            Kind::Embedded | Kind::Raw => {
                let (len, taken) = decode_varint(|at| self.byte(after_key_len + at));
                (len as usize, after_key_len + taken)
            }
        };
        Geometry::from_parts(optional_at, self.flags(), key_len as usize, value_len)
    }

    /// Where an optional field lies, if the entry has it.
    #[inline]
    fn optional_at(&self, field: u8) -> Option<usize> {
        let flags = self.flags();
        if flags & field == 0 {
            return None;
        }
        Some(self.geometry().optional_at + optional_len(flags & (field - 1)))
    }

    /// # Safety
    /// The entry must be allocated with that geometry's layout, and an object that it owned must have been taken.
    unsafe fn write(&mut self, geometry: &Geometry, key: &[u8], meta: &Meta, value: Value<'_>) {
        let flags = flags_for(meta);
        self.put(0, &meta.access.to_le_bytes());
        self.put(KIND_AT, &[value.kind() as u8, flags]);
        let (key_len, taken) = encode_varint(key.len() as u32);
        self.put(KEY_LEN_AT, &key_len[..taken]);
        if let Value::Short { bytes, .. } = &value {
            let (value_len, len_taken) = encode_varint(bytes.len() as u32);
            self.put(KEY_LEN_AT + taken, &value_len[..len_taken]);
        }
        self.write_optional(geometry.optional_at, meta);
        self.put(geometry.key_at, key);
        match value {
            Value::Absent => {}
            Value::Integer(number) => self.put(geometry.value_at, &number.to_le_bytes()),
            Value::Short { bytes, .. } => self.put(geometry.value_at, bytes),
            Value::Big(string) => self.put_object(geometry.value_at, string),
            Value::Hash(hash) => self.put_object(geometry.value_at, hash),
        }
    }

    fn write_optional(&mut self, mut at: usize, meta: &Meta) {
        let mut append = |entry: &mut Self, bytes: &[u8]| {
            entry.put(at, bytes);
            at += bytes.len();
        };
        if let Some(deadline) = meta.deadline {
            append(self, &deadline.to_le_bytes());
        }
        let Some(fill) = meta.fill else { return };
        append(self, &fill.filled_at.to_le_bytes()[..6]);
        append(self, &fill.group.to_le_bytes());
        if fill.stale_for_ms > 0 {
            append(self, &fill.stale_for_ms.to_le_bytes());
        }
        if let Some(refresh_at) = fill.refresh_at {
            let after = refresh_at.saturating_sub(fill.filled_at).clamp(0, i64::from(u32::MAX));
            append(self, &(after as u32).to_le_bytes());
        }
    }

    /// The value, to be moved to another entry.
    ///
    /// # Safety
    /// It owns the object, so this entry must be freed by `free_shell` and not by dropping it.
    unsafe fn value_moved(&self) -> Value<'_> {
        // SAFETY: the caller's promise.
        if let Some(object) = unsafe { self.take_object() } {
            return object;
        }
        match self.value() {
            ValueView::Integer(number) => Value::Integer(number),
            ValueView::Short { bytes, raw } => Value::Short { bytes, raw },
            ValueView::Absent | ValueView::Big(_) | ValueView::Hash(_) => Value::Absent,
        }
    }

    /// # Safety
    /// The object must not be reached through this entry any more.
    unsafe fn take_object(&self) -> Option<Value<'static>> {
        let value_at = self.geometry().value_at;
        match self.kind() {
            Kind::Absent | Kind::Integer | Kind::Embedded | Kind::Raw => None,
            // SAFETY: the kind says which box the pointer came from; the caller sees that it is not used again.
            Kind::Big => Some(Value::Big(unsafe { self.boxed(value_at) })),
            // SAFETY: as above.
            Kind::Hash => Some(Value::Hash(unsafe { self.boxed(value_at) })),
        }
    }

    /// Frees the allocation but not the object, which has been moved away.
    fn free_shell(self) {
        let layout = self.geometry().layout();
        let start = std::mem::ManuallyDrop::new(self).start;
        // SAFETY: `start` was allocated with this layout, and the entry is gone.
        unsafe { dealloc(start.as_ptr(), layout) };
    }

    #[inline]
    fn byte(&self, at: usize) -> u8 {
        // SAFETY: callers stay within the entry's geometry.
        unsafe { self.start.add(at).read() }
    }

    #[inline]
    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        // SAFETY: callers stay within the entry's geometry; byte arrays need no alignment.
        unsafe { self.start.add(at).cast().read() }
    }

    #[inline]
    fn u32_at(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    #[inline]
    fn slice(&self, at: usize, len: usize) -> &[u8] {
        // SAFETY: callers stay within the entry's geometry, all of which has been written.
        unsafe { std::slice::from_raw_parts(self.start.add(at).as_ptr(), len) }
    }

    #[inline]
    fn put(&mut self, at: usize, bytes: &[u8]) {
        // SAFETY: callers stay within the entry's geometry; `bytes` is borrowed from elsewhere, as `self` is unique.
        unsafe { self.start.add(at).copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
    }

    /// # Safety
    /// A pointer to a `T` that the entry owns must lie there.
    unsafe fn object<T>(&self, at: usize) -> &T {
        // SAFETY: the caller's promise.
        unsafe { self.start.add(at).cast::<NonNull<T>>().read_unaligned().as_ref() }
    }

    /// # Safety
    /// As for `object`.
    unsafe fn object_at_mut<T>(&mut self, at: usize) -> &mut T {
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
        // SAFETY: callers stay within the entry's geometry.
        unsafe { self.start.add(at).cast().write_unaligned(Box::into_raw(object)) };
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // SAFETY: the entry is not used after this.
        drop(unsafe { self.take_object() });
        let layout = self.geometry().layout();
        // SAFETY: `start` was allocated with this layout.
        unsafe { dealloc(self.start.as_ptr(), layout) };
    }
}

impl Value<'_> {
    fn kind(&self) -> Kind {
        match self {
            Value::Absent => Kind::Absent,
            Value::Integer(_) => Kind::Integer,
            Value::Short { raw: false, .. } => Kind::Embedded,
            Value::Short { raw: true, .. } => Kind::Raw,
            Value::Big(_) => Kind::Big,
            Value::Hash(_) => Kind::Hash,
        }
    }
}

/// Where the parts of an entry lie, as offsets and lengths in bytes.
#[derive(Clone, Copy, Debug)]
struct Geometry {
    optional_at: usize,
    key_at: usize,
    key_len: usize,
    value_at: usize,
    value_len: usize,
}

impl Geometry {
    fn of_new(key: &[u8], meta: &Meta, value: &Value<'_>) -> Self {
        let key_len = u32::try_from(key.len()).expect("a key is far shorter than 4 GiB");
        let after_key_len = KEY_LEN_AT + varint_len(key_len);
        let (value_len, optional_at) = match value {
            Value::Absent => (0, after_key_len),
            Value::Integer(_) | Value::Big(_) | Value::Hash(_) => (WORD, after_key_len),
            Value::Short { bytes, .. } => (bytes.len(), after_key_len + varint_len(bytes.len() as u32)),
        };
        Geometry::from_parts(optional_at, flags_for(meta), key.len(), value_len)
    }

    #[inline]
    fn from_parts(optional_at: usize, flags: u8, key_len: usize, value_len: usize) -> Self {
        let key_at = optional_at + optional_len(flags);
        Geometry { optional_at, key_at, key_len, value_at: key_at + key_len, value_len }
    }

    fn layout(&self) -> Layout {
        let size = allocated_size(self.value_at + self.value_len);
        Layout::from_size_align(size, WORD).expect("an entry is far smaller than the address space")
    }
}

fn flags_for(meta: &Meta) -> u8 {
    let mut flags = if meta.deadline.is_some() { DEADLINE } else { 0 };
    if let Some(fill) = meta.fill {
        flags |= FILLED;
        flags |= if fill.stale_for_ms > 0 { STALE } else { 0 };
        flags |= if fill.refresh_at.is_some() { REFRESH } else { 0 };
    }
    flags
}

/// The bytes that the optional fields take.
#[inline]
fn optional_len(flags: u8) -> usize {
    let taken = |flag: u8, bytes: usize| if flags & flag != 0 { bytes } else { 0 };
    taken(DEADLINE, 8) + taken(FILLED, 8) + taken(STALE, 4) + taken(REFRESH, 4)
}

fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: an entry has a header, so its size is not zero.
    let start = unsafe { alloc(layout) };
    NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout))
}

#[cfg(test)]
mod tests;
