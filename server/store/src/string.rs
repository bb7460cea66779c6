//! Strings: how they are kept, read and changed.

use bytes::Bytes;

use crate::allocation::allocated_size;
use crate::compaction::Visit;
use crate::entry::{Value, ValueView};
use crate::integer::{LONGEST_INTEGER, parse_integer};
use crate::object_type::Encoding;

/// Up to this many bytes a string lies in its entry.
const SHORT_MAX: usize = 1024;
/// Up to this many bytes a string that was set, not changed in place, is called `embstr`, as Redis does.
const EMBSTR_MAX: usize = 44;
/// From this many bytes on a reader shares the string's memory instead of copying it.
const SHARED_MIN: usize = 16 * 1024;
/// Growing a string makes room for as much again, but for no more than this.
const GROWTH_MAX: usize = 1024 * 1024;
/// A compressed string is kept so only if that saves at least this part of it.
const COMPRESSION_MIN_SAVING: usize = 8;

/// A string too long for its entry.
pub(crate) enum BigString {
    /// Owned by the store alone, with room to grow.
    Unique(Vec<u8>),
    /// Perhaps also in the hands of readers.
    Shared(Bytes),
    /// By lz4, without a frame.
    Compressed { packed: Box<[u8]>, len: usize },
}

impl BigString {
    fn len(&self) -> usize {
        match self {
            BigString::Unique(bytes) => bytes.len(),
            BigString::Shared(bytes) => bytes.len(),
            BigString::Compressed { len, .. } => *len,
        }
    }

    fn view(&self) -> StringView<'_> {
        match self {
            BigString::Unique(bytes) => StringView::Bytes(bytes),
            BigString::Shared(bytes) => StringView::Shared(bytes.clone()),
            BigString::Compressed { packed, len } => StringView::Unpacked(decompress(packed, *len)),
        }
    }

    /// The bytes in a buffer of their own. If readers hold them too, this copies.
    pub(crate) fn make_unique(&mut self) -> &mut Vec<u8> {
        let bytes = match self {
            BigString::Unique(bytes) => std::mem::take(bytes),
            BigString::Shared(bytes) => Vec::from(std::mem::take(bytes)),
            BigString::Compressed { packed, len } => decompress(packed, *len),
        };
        *self = BigString::Unique(bytes);
        match self {
            BigString::Unique(bytes) => bytes,
            BigString::Shared(_) | BigString::Compressed { .. } => unreachable!("just made unique"),
        }
    }

    /// Lets readers share a string that is long enough for that.
    pub(crate) fn make_shareable(&mut self) {
        if let BigString::Unique(bytes) = self {
            if bytes.len() >= SHARED_MIN {
                *self = BigString::Shared(Bytes::from(std::mem::take(bytes)));
            }
        }
    }

    pub(crate) fn allocated(&self) -> usize {
        let buffer = match self {
            BigString::Unique(bytes) => bytes.capacity(),
            BigString::Shared(bytes) => bytes.len(),
            BigString::Compressed { packed, .. } => packed.len(),
        };
        allocated_size(size_of::<BigString>()) + allocated_size(buffer)
    }

    /// Moves the bytes if they are to be moved. Those that readers may share stay where they are: they have large pages of their
    /// own.
    pub(crate) fn compact(&mut self, visit: &mut Visit<'_>) {
        match self {
            BigString::Unique(bytes) => {
                if visit.is_to_move(bytes.as_ptr(), allocated_size(bytes.capacity())) {
                    let mut moved = Vec::with_capacity(bytes.capacity());
                    moved.append(bytes);
                    *bytes = moved;
                }
            }
            BigString::Compressed { packed, .. } => {
                if visit.is_to_move(packed.as_ptr(), allocated_size(packed.len())) {
                    *packed = packed.clone();
                }
            }
            BigString::Shared(_) => {}
        }
    }

    pub(crate) fn is_large(&self) -> bool {
        self.len() >= SHARED_MIN
    }

    pub(crate) fn duplicate(&self) -> BigString {
        match self {
            BigString::Unique(bytes) => BigString::from_bytes(bytes),
            BigString::Shared(bytes) => BigString::Shared(bytes.clone()),
            BigString::Compressed { packed, len } => BigString::Compressed { packed: packed.clone(), len: *len },
        }
    }

    fn from_bytes(bytes: &[u8]) -> BigString {
        if bytes.len() >= SHARED_MIN {
            BigString::Shared(Bytes::copy_from_slice(bytes))
        } else {
            BigString::Unique(bytes.to_vec())
        }
    }

    fn compressed(bytes: &[u8]) -> Option<BigString> {
        let packed = lz4_flex::block::compress(bytes);
        let saves = packed.len() <= bytes.len() - bytes.len() / COMPRESSION_MIN_SAVING;
        saves.then(|| BigString::Compressed { packed: packed.into_boxed_slice(), len: bytes.len() })
    }
}

fn decompress(packed: &[u8], len: usize) -> Vec<u8> {
    lz4_flex::block::decompress(packed, len).expect("what the store has compressed decompresses")
}

/// The smallest form of a string that was set as a whole.
pub(crate) fn compact_value(bytes: &[u8], compress_over: Option<usize>) -> Value<'_> {
    match parse_integer(bytes) {
        Some(number) => Value::Integer(number),
        None => text_value(bytes, compress_over),
    }
}

/// As [`compact_value`], but a number stays its text.
pub(crate) fn text_value(bytes: &[u8], compress_over: Option<usize>) -> Value<'_> {
    if bytes.len() <= SHORT_MAX {
        return Value::Short { bytes, raw: false };
    }
    let packed = compress_over.filter(|over| bytes.len() > *over).and_then(|_| BigString::compressed(bytes));
    Value::Big(Box::new(packed.unwrap_or_else(|| BigString::from_bytes(bytes))))
}

/// As [`compact_value`], but takes the caller's buffer over where that saves a copy.
pub(crate) fn compact_shared(bytes: &Bytes, compress_over: Option<usize>) -> Value<'_> {
    if bytes.len() < SHARED_MIN || compress_over.is_some_and(|over| bytes.len() > over) {
        return compact_value(bytes, compress_over);
    }
    Value::Big(Box::new(BigString::Shared(bytes.clone())))
}

/// The form of a string that has been changed in place.
pub(crate) fn changed_value(bytes: &mut Vec<u8>) -> Value<'_> {
    if bytes.len() <= SHORT_MAX {
        Value::Short { bytes, raw: true }
    } else {
        Value::Big(Box::new(BigString::Unique(std::mem::take(bytes))))
    }
}

/// A string in the store.
#[derive(Clone, Copy)]
pub struct StringRef<'a> {
    form: Form<'a>,
}

/// What a string is kept as, for those who send it.
#[derive(Clone, Debug)]
pub enum StringView<'a> {
    /// A number, whose text is the string.
    Integer(i64),
    /// Bytes in the store's memory.
    Bytes(&'a [u8]),
    /// The memory of a string of 16 KiB or more, held by counting: to be sent without copying it. It stays what it is when
    /// the key is changed.
    Shared(Bytes),
    /// What a compressed string was unpacked to, in memory of its own.
    Unpacked(Vec<u8>),
}

#[derive(Clone, Copy)]
enum Form<'a> {
    Integer(i64),
    Short { bytes: &'a [u8], raw: bool },
    Big(&'a BigString),
}

impl<'a> StringRef<'a> {
    /// `None` if it is no string.
    #[inline]
    pub(crate) fn of(value: ValueView<'a>) -> Option<Self> {
        let form = match value {
            ValueView::Integer(number) => Form::Integer(number),
            ValueView::Short { bytes, raw } => Form::Short { bytes, raw },
            ValueView::Big(string) => Form::Big(string),
            ValueView::Absent | ValueView::CompactHash(_) | ValueView::HashTable(_) => return None,
        };
        Some(StringRef { form })
    }

    /// What it is kept as.
    #[inline]
    pub fn view(&self) -> StringView<'a> {
        match self.form {
            Form::Integer(number) => StringView::Integer(number),
            Form::Short { bytes, .. } => StringView::Bytes(bytes),
            Form::Big(string) => string.view(),
        }
    }

    /// Its length in bytes. A string is never decompressed for it.
    pub fn len(&self) -> usize {
        match self.form {
            Form::Integer(number) => itoa::Buffer::new().format(number).len(),
            Form::Short { bytes, .. } => bytes.len(),
            Form::Big(string) => string.len(),
        }
    }

    /// Whether it is the empty string.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number, if it is kept as one. A string that was changed in place may look like a number and not be kept so:
    /// [`parse_integer`] tells.
    pub fn is_integer(&self) -> Option<i64> {
        match self.form {
            Form::Integer(number) => Some(number),
            Form::Short { .. } | Form::Big(_) => None,
        }
    }

    /// Its bytes. Numbers and compressed strings are written to `scratch`, which is cleared first.
    #[inline]
    pub fn as_bytes<'s>(&self, scratch: &'s mut Vec<u8>) -> &'s [u8]
    where
        'a: 's,
    {
        match self.form {
            Form::Short { bytes, .. } => bytes,
            Form::Integer(number) => {
                scratch.clear();
                scratch.reserve(LONGEST_INTEGER);
                scratch.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
                scratch
            }
            Form::Big(BigString::Unique(bytes)) => bytes,
            Form::Big(BigString::Shared(bytes)) => bytes,
            Form::Big(BigString::Compressed { packed, len }) => {
                *scratch = decompress(packed, *len);
                scratch
            }
        }
    }

    /// A copy of its own.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut copy = Vec::new();
        self.append_to(&mut copy);
        copy
    }

    /// Adds its bytes to the end of `out`.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        match self.form {
            Form::Integer(number) => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
            Form::Short { bytes, .. } => out.extend_from_slice(bytes),
            Form::Big(BigString::Unique(bytes)) => out.extend_from_slice(bytes),
            Form::Big(BigString::Shared(bytes)) => out.extend_from_slice(bytes),
            Form::Big(BigString::Compressed { packed, len }) => out.extend_from_slice(&decompress(packed, *len)),
        }
    }

    /// What `OBJECT ENCODING` says.
    pub fn encoding(&self) -> Encoding {
        match self.form {
            Form::Integer(_) => Encoding::Int,
            Form::Short { bytes, raw: false } if bytes.len() <= EMBSTR_MAX => Encoding::EmbStr,
            Form::Short { .. } | Form::Big(_) => Encoding::Raw,
        }
    }
}

/// A string being changed in place, by [`Keyspace::update_string`](crate::Keyspace::update_string).
pub struct StringMut<'a> {
    bytes: &'a mut Vec<u8>,
    changed: bool,
}

impl<'a> StringMut<'a> {
    pub(crate) fn new(bytes: &'a mut Vec<u8>) -> Self {
        StringMut { bytes, changed: false }
    }

    /// Whether it was changed, or at least asked to be.
    pub(crate) fn is_changed(&self) -> bool {
        self.changed
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it is the empty string.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Its bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.bytes
    }

    /// Its bytes, to be changed: the key counts as changed by this call.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        self.changed = true;
        self.bytes
    }

    /// Adds bytes at the end. A missing key comes into being even if there are none.
    pub fn append(&mut self, bytes: &[u8]) {
        self.changed = true;
        self.make_room(self.bytes.len() + bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    /// Writes bytes from `offset` on, over what is there, filling a gap with zeros. Without bytes nothing happens.
    pub fn write_at(&mut self, offset: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len();
        if end > self.bytes.len() {
            self.resize(end);
        }
        self.as_mut_slice()[offset..end].copy_from_slice(bytes);
    }

    /// Cuts it off or extends it by zeros.
    pub fn resize(&mut self, len: usize) {
        self.changed = true;
        self.make_room(len);
        self.bytes.resize(len, 0);
    }

    fn make_room(&mut self, len: usize) {
        if len > self.bytes.capacity() {
            self.bytes.reserve_exact(len - self.bytes.len() + len.min(GROWTH_MAX));
        }
    }
}

#[cfg(test)]
mod tests;
