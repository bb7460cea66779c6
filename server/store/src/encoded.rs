//! An entry on its way to another node: what is remembered under a key, without the key.
//!
//! ```text
//! offset 0  version        u8    1
//!        1  kind           u8    see `Kind`
//!        2  fields         u8    which optional fields there are
//!        3  access         u32   what the eviction policy remembers
//!           deadline       i64, if DEADLINE
//!           filled at      i64, group u16 and stale for u32, if FILLED
//!           refresh at     i64, if REFRESH
//!           value          to the end: an i64, a string's bytes, or a hash
//! ```
//!
//! All numbers are little endian. A hash is the number of its fields, then each field and its value, all lengths as varints. Strings
//! travel as they are read, whatever form they are kept in: every node compresses by its own settings.

use crate::UnixMillis;
use crate::entry::{Entry, FillInfo, Meta, Value, ValueView};
use crate::hash::{CompactLimits, HashRef, NewHash, hash_of};
use crate::key::HashSeed;
use crate::settings::Settings;
use crate::string::{StringRef, changed_value, text_value};
use crate::varint::{checked_varint, encode_varint};

const VERSION: u8 = 1;

const DEADLINE: u8 = 1 << 0;
const FILLED: u8 = 1 << 1;
const REFRESH: u8 = 1 << 2;
const FIELDS: u8 = DEADLINE | FILLED | REFRESH;

/// What a value is, for the reader of an encoded entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Absent = 0,
    Integer = 1,
    /// A string that was set as a whole.
    Text = 2,
    /// A string that was changed in place.
    Changed = 3,
    Hash = 4,
}

/// Bytes that are no encoded entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("these bytes are no encoded entry")
    }
}

impl std::error::Error for Malformed {}

/// Adds the entry's encoded form to `out`.
pub(crate) fn encode(entry: &Entry, out: &mut Vec<u8>) {
    let (value, meta) = (entry.value(), entry.meta());
    let refresh_at = meta.fill.and_then(|fill| fill.refresh_at);
    let flag = |is_there: bool, flag: u8| if is_there { flag } else { 0 };
    let fields = flag(meta.deadline.is_some(), DEADLINE)
        | flag(meta.fill.is_some(), FILLED)
        | flag(refresh_at.is_some(), REFRESH);
    out.extend_from_slice(&[VERSION, kind_of(value) as u8, fields]);
    out.extend_from_slice(&meta.access.to_le_bytes());
    if let Some(deadline) = meta.deadline {
        out.extend_from_slice(&deadline.to_le_bytes());
    }
    if let Some(fill) = meta.fill {
        out.extend_from_slice(&fill.filled_at.to_le_bytes());
        out.extend_from_slice(&fill.group.to_le_bytes());
        out.extend_from_slice(&fill.stale_for_ms.to_le_bytes());
    }
    if let Some(refresh_at) = refresh_at {
        out.extend_from_slice(&refresh_at.to_le_bytes());
    }
    encode_value(value, out);
}

fn kind_of(value: ValueView<'_>) -> Kind {
    match value {
        ValueView::Absent => Kind::Absent,
        ValueView::Integer(_) => Kind::Integer,
        ValueView::Short { raw: true, .. } => Kind::Changed,
        ValueView::Short { .. } | ValueView::Big(_) => Kind::Text,
        ValueView::CompactHash(_) | ValueView::HashTable(_) => Kind::Hash,
    }
}

fn encode_value(value: ValueView<'_>, out: &mut Vec<u8>) {
    if let ValueView::Integer(number) = value {
        out.extend_from_slice(&number.to_le_bytes());
    } else if let Some(string) = StringRef::of(value) {
        string.append_to(out);
    } else if let Some(hash) = HashRef::of(value) {
        encode_length(hash.len(), out);
        for item in hash.iter().flat_map(|(field, value)| [field, value]) {
            encode_length(item.len(), out);
            out.extend_from_slice(item);
        }
    }
}

fn encode_length(length: usize, out: &mut Vec<u8>) {
    let (bytes, len) = encode_varint(u32::try_from(length).expect("no collection, field or value is that long"));
    out.extend_from_slice(&bytes[..len]);
}

/// An encoded entry that has been checked.
pub(crate) struct Decoded<'b> {
    pub(crate) meta: Meta,
    kind: Kind,
    value: &'b [u8],
}

impl<'b> Decoded<'b> {
    pub(crate) fn of(bytes: &'b [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader { rest: bytes };
        let [version, kind, fields] = reader.array()?;
        if version != VERSION || fields & !FIELDS != 0 || (fields & REFRESH != 0 && fields & FILLED == 0) {
            return Err(Malformed);
        }
        let kind = Kind::from_number(kind)?;
        let access = u32::from_le_bytes(reader.array()?);
        let deadline = (fields & DEADLINE != 0).then(|| reader.number()).transpose()?;
        let fill = (fields & FILLED != 0).then(|| reader.fill(fields & REFRESH != 0)).transpose()?;
        let decoded = Decoded { meta: Meta { access, deadline, fill }, kind, value: reader.rest };
        decoded.check_value()?;
        Ok(decoded)
    }

    fn check_value(&self) -> Result<(), Malformed> {
        let is_good = match self.kind {
            Kind::Absent => self.value.is_empty(),
            Kind::Integer => self.value.len() == size_of::<i64>(),
            Kind::Text | Kind::Changed => u32::try_from(self.value.len()).is_ok(),
            Kind::Hash => return check_hash(self.value),
        };
        if is_good { Ok(()) } else { Err(Malformed) }
    }

    /// Gives the value to who puts it into an entry.
    pub(crate) fn with_value(&self, settings: &Settings, seed: HashSeed, put: impl FnOnce(Value<'_>)) {
        match self.kind {
            Kind::Absent => put(Value::Absent),
            Kind::Integer => {
                let mut reader = Reader { rest: self.value };
                put(Value::Integer(reader.number().expect("the value has been checked")));
            }
            Kind::Text => put(text_value(self.value, settings.compress_over())),
            Kind::Changed => put(changed_value(&mut self.value.to_vec())),
            Kind::Hash => self.hash(settings, seed).with_value(put).0,
        }
    }

    fn hash(&self, settings: &Settings, seed: HashSeed) -> NewHash {
        let mut reader = Reader { rest: self.value };
        let fields = reader.length().expect("the value has been checked");
        let pairs = (0..fields).map_while(|_| reader.pair().ok());
        hash_of(pairs, CompactLimits::from_settings(settings), seed)
    }
}

/// A hash in the store has a field at least.
fn check_hash(bytes: &[u8]) -> Result<(), Malformed> {
    let mut reader = Reader { rest: bytes };
    let fields = reader.length()?;
    for _ in 0..fields {
        reader.pair()?;
    }
    if fields > 0 && reader.rest.is_empty() { Ok(()) } else { Err(Malformed) }
}

impl Kind {
    fn from_number(number: u8) -> Result<Kind, Malformed> {
        [Kind::Absent, Kind::Integer, Kind::Text, Kind::Changed, Kind::Hash]
            .into_iter()
            .find(|kind| *kind as u8 == number)
            .ok_or(Malformed)
    }
}

struct Reader<'b> {
    rest: &'b [u8],
}

impl<'b> Reader<'b> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*array)
    }

    fn number(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_le_bytes)
    }

    fn fill(&mut self, has_refresh: bool) -> Result<FillInfo, Malformed> {
        let filled_at: UnixMillis = self.number()?;
        let group = u16::from_le_bytes(self.array()?);
        let stale_for_ms = u32::from_le_bytes(self.array()?);
        let refresh_at = has_refresh.then(|| self.number()).transpose()?;
        Ok(FillInfo { filled_at, group, stale_for_ms, refresh_at })
    }

    fn length(&mut self) -> Result<usize, Malformed> {
        let (length, taken) = checked_varint(self.rest).ok_or(Malformed)?;
        self.rest = &self.rest[taken..];
        Ok(length as usize)
    }

    fn item(&mut self) -> Result<&'b [u8], Malformed> {
        let length = self.length()?;
        let (item, rest) = self.rest.split_at_checked(length).ok_or(Malformed)?;
        self.rest = rest;
        Ok(item)
    }

    fn pair(&mut self) -> Result<(&'b [u8], &'b [u8]), Malformed> {
        Ok((self.item()?, self.item()?))
    }
}
