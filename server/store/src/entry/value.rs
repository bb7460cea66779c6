//! What an entry can hold, given, seen and to be changed.

use super::Embedded;
use crate::hash::{CompactHash, FieldTable};
use crate::string::BigString;

/// The size of a number or pointer in the value's place.
const WORD: usize = 8;

/// What lies in the value's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Absent = 0,
    Integer = 1,
    /// A string's bytes, set as they are.
    Embedded = 2,
    /// A string's bytes, changed in place before.
    Raw = 3,
    Big = 4,
    /// A sequence of fields and values.
    CompactHash = 5,
    HashTable = 6,
}

impl Kind {
    #[inline]
    pub(super) fn from_number(number: u8) -> Kind {
        match number {
            1 => Kind::Integer,
            2 => Kind::Embedded,
            3 => Kind::Raw,
            4 => Kind::Big,
            5 => Kind::CompactHash,
            6 => Kind::HashTable,
            _ => Kind::Absent,
        }
    }

    /// Whether the value is a pointer to an object that the entry owns.
    #[inline]
    pub(super) fn is_object(self) -> bool {
        matches!(self, Kind::Big | Kind::HashTable)
    }
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
    /// The sequence of a small hash.
    CompactHash(&'v [u8]),
    HashTable(Box<FieldTable>),
}

/// A stored value, seen.
#[derive(Clone, Copy)]
pub(crate) enum ValueView<'e> {
    Absent,
    Integer(i64),
    Short { bytes: &'e [u8], raw: bool },
    Big(&'e BigString),
    CompactHash(CompactHash<'e>),
    HashTable(&'e FieldTable),
}

/// A stored value, to be changed where it is.
pub(crate) enum ValueMut<'e> {
    /// Nothing, a number or a short string, which are replaced instead.
    Plain,
    Big(&'e mut BigString),
    CompactHash(Embedded<'e>),
    HashTable(&'e mut FieldTable),
}

impl Value<'_> {
    #[inline]
    pub(super) fn kind(&self) -> Kind {
        match self {
            Value::Absent => Kind::Absent,
            Value::Integer(_) => Kind::Integer,
            Value::Short { raw: false, .. } => Kind::Embedded,
            Value::Short { raw: true, .. } => Kind::Raw,
            Value::Big(_) => Kind::Big,
            Value::CompactHash(_) => Kind::CompactHash,
            Value::HashTable(_) => Kind::HashTable,
        }
    }

    /// The bytes that it takes in the entry.
    #[inline]
    pub(super) fn len(&self) -> usize {
        match self {
            Value::Absent => 0,
            Value::Integer(_) | Value::Big(_) | Value::HashTable(_) => WORD,
            Value::Short { bytes, .. } | Value::CompactHash(bytes) => bytes.len(),
        }
    }
}
