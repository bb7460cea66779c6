//! Where the parts of an entry lie.

use std::alloc::Layout;

use super::{FillInfo, Kind, Meta};
use crate::UnixMillis;
use crate::allocation::allocated_size;

/// The size of the fixed header, and so the place of a key of up to [`SHORT_LENGTH`] bytes.
pub(super) const HEADER: usize = 8;
/// The longest key or value whose length fits in the header.
pub(super) const SHORT_LENGTH: usize = u8::MAX as usize;
/// The size of a length that does not.
pub(super) const LONG_LENGTH: usize = 4;
/// Allocations begin at a multiple of this.
const ALIGNMENT: usize = 8;

/// The entry has a deadline.
pub(super) const DEADLINE: u8 = 1 << 0;
/// The entry came from the origin.
pub(super) const FILLED: u8 = 1 << 1;
/// It may be served for some time after its deadline.
pub(super) const STALE: u8 = 1 << 2;
/// It is due for an early refresh at some time.
pub(super) const REFRESH: u8 = 1 << 3;
/// The value's length does not fit in the header and stands before the value.
pub(super) const LONG_VALUE: u8 = 1 << 4;
/// Somebody has been told that the refresh is due.
pub(super) const REFRESH_TOLD: u8 = 1 << 5;
/// The key's length does not fit in the header and stands before the key.
pub(super) const LONG_KEY: u8 = 1 << 6;

/// The flags that stand for a field between key and value, in the fields' order.
const FIELDS: u8 = DEADLINE | FILLED | STALE | REFRESH | LONG_VALUE;
/// The flags that [`Meta`] decides.
const OF_META: u8 = DEADLINE | FILLED | STALE | REFRESH | REFRESH_TOLD;

/// The bytes that the fields between key and value take, by their flags.
static FIELD_BYTES: [u8; FIELDS as usize + 1] = field_bytes();

const fn field_bytes() -> [u8; FIELDS as usize + 1] {
    const SIZES: [(u8, u8); 5] =
        [(DEADLINE, 8), (FILLED, 8), (STALE, 4), (REFRESH, 4), (LONG_VALUE, LONG_LENGTH as u8)];
    let mut bytes = [0; FIELDS as usize + 1];
    let mut flags = 0;
    while flags < bytes.len() {
        let mut field = 0;
        while field < SIZES.len() {
            let (flag, size) = SIZES[field];
            bytes[flags] += if flags as u8 & flag == 0 { 0 } else { size };
            field += 1;
        }
        flags += 1;
    }
    bytes
}

/// The bytes that those of the fields between key and value take that these flags stand for.
#[inline]
pub(super) fn fields_len(flags: u8) -> usize {
    usize::from(FIELD_BYTES[usize::from(flags & FIELDS)])
}

/// The header's second half, read at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head(pub(super) u32);

impl Head {
    const FLAGS_SHIFT: u32 = 8;
    const KEY_LEN_SHIFT: u32 = 16;
    const VALUE_LEN_SHIFT: u32 = 24;
    /// What must agree for two short keys to be as long as each other.
    const KEY_LENGTH: u32 = (u8::MAX as u32) << Self::KEY_LEN_SHIFT | (LONG_KEY as u32) << Self::FLAGS_SHIFT;

    /// Lengths that do not fit are cut off here; the shape's flags say so.
    #[inline]
    pub(super) fn new(kind: Kind, shape: &Shape) -> Self {
        let short = |length: usize, long: u8| if shape.flags & long == 0 { length as u8 } else { 0 };
        let (key_len, value_len) = (short(shape.key_len, LONG_KEY), short(shape.value_len, LONG_VALUE));
        Head(u32::from_le_bytes([kind as u8, shape.flags, key_len, value_len]))
    }

    #[inline]
    pub(super) fn kind(self) -> Kind {
        Kind::from_number(self.0 as u8)
    }

    #[inline]
    pub(super) fn flags(self) -> u8 {
        (self.0 >> Self::FLAGS_SHIFT) as u8
    }

    #[inline]
    pub(super) fn has(self, flag: u8) -> bool {
        self.0 & u32::from(flag) << Self::FLAGS_SHIFT != 0
    }

    #[inline]
    pub(super) fn with_flag(self, flag: u8) -> Self {
        Head(self.0 | u32::from(flag) << Self::FLAGS_SHIFT)
    }

    #[inline]
    pub(super) fn short_key_len(self) -> usize {
        (self.0 >> Self::KEY_LEN_SHIFT) as usize & SHORT_LENGTH
    }

    #[inline]
    pub(super) fn short_value_len(self) -> usize {
        (self.0 >> Self::VALUE_LEN_SHIFT) as usize
    }

    /// Whether the key is one of `len` bytes, up to [`SHORT_LENGTH`].
    #[inline]
    pub(super) fn has_short_key_of(self, len: usize) -> bool {
        self.0 & Self::KEY_LENGTH == (len as u32) << Self::KEY_LEN_SHIFT
    }
}

/// What decides where the parts of an entry lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) flags: u8,
    pub(super) key_len: usize,
    pub(super) value_len: usize,
}

impl Shape {
    /// `meta_flags` as from [`flags_for`].
    #[inline]
    pub(super) fn new(meta_flags: u8, key_len: usize, value_len: usize) -> Self {
        let flags = meta_flags & OF_META | long_flag(key_len, LONG_KEY) | long_flag(value_len, LONG_VALUE);
        Shape { flags, key_len, value_len }
    }

    #[inline]
    pub(super) fn key_at(&self) -> usize {
        if self.flags & LONG_KEY == 0 { HEADER } else { HEADER + LONG_LENGTH }
    }

    /// Where the fields between key and value begin.
    #[inline]
    pub(super) fn fields_at(&self) -> usize {
        self.key_at() + self.key_len
    }

    #[inline]
    pub(super) fn value_at(&self) -> usize {
        self.fields_at() + fields_len(self.flags)
    }

    /// The bytes that are written; the allocation may have more.
    #[inline]
    pub(super) fn end(&self) -> usize {
        self.value_at() + self.value_len
    }

    #[inline]
    pub(super) fn allocated(&self) -> usize {
        allocated_size(self.end())
    }

    #[inline]
    pub(super) fn layout(&self) -> Layout {
        Layout::from_size_align(self.allocated(), ALIGNMENT).expect("an entry is far smaller than the address space")
    }
}

/// `flag` for a length that does not fit in the header.
#[inline]
fn long_flag(len: usize, flag: u8) -> u8 {
    if len <= SHORT_LENGTH {
        return 0;
    }
    assert!(u32::try_from(len).is_ok(), "a key or short value is far shorter than 4 GiB");
    flag
}

/// The flags of what an entry carries beside its key and value.
#[inline]
pub(super) fn flags_for(meta: &Meta) -> u8 {
    let deadline = if meta.deadline.is_some() { DEADLINE } else { 0 };
    match &meta.fill {
        None => deadline,
        Some(fill) => deadline | flags_for_fill(fill),
    }
}

fn flags_for_fill(fill: &FillInfo) -> u8 {
    let stale = if fill.stale_for_ms > 0 { STALE } else { 0 };
    let refresh = if fill.refresh_at.is_some() { REFRESH } else { 0 };
    FILLED | stale | refresh
}

/// How long after the fill the refresh is due, as far as 32 bits of milliseconds reach.
pub(super) fn refresh_after(filled_at: UnixMillis, refresh_at: UnixMillis) -> u32 {
    refresh_at.saturating_sub(filled_at).clamp(0, i64::from(u32::MAX)) as u32
}
