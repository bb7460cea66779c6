//! Strings as arrays of bits.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use forebay_store::{Expiry, Keyspace, parse_integer};

use super::bits;
use super::call::Call;
use super::error::CommandError;
use super::index_range::IndexRange;
use super::spec::{Categories, Flags, KeySpec, KeyUse, Load, Spec};
use crate::node::Node;

const READ: &[KeySpec] = &[KeySpec::one(KeyUse::RO.union(KeyUse::ACCESS))];
const GROW: Flags = Flags::WRITE.union(Flags::DENYOOM);

pub(super) static TABLE: &[Spec] = &[
    Spec::new("bitcount", -2, Flags::READONLY, Categories::BITMAP)
        .keys(READ)
        .load(Load::OnMiss)
        .on_keys(bitcount)
        .docs(
            "bitmap",
            "2.6.0",
            "O(N), N being the length of the string, or of the range",
            "Counts the bits that are one in a string.",
            "key [start end [BYTE | BIT]]",
        ),
    // Sources that are missing have to be loaded before the destination is written, so not on a miss.
    Spec::new("bitop", -4, GROW, Categories::BITMAP)
        .keys(&[
            KeySpec::range(KeyUse::OW.union(KeyUse::UPDATE), 2, 0, 1),
            KeySpec::range(KeyUse::RO.union(KeyUse::ACCESS), 3, -1, 1),
        ])
        .load(Load::AllBefore)
        .on_keys(bitop)
        .docs(
            "bitmap",
            "2.6.0",
            "O(N), N being the length of the longest string, times the number of strings",
            "Combines the bits of strings and stores the result.",
            "<AND | OR | XOR | NOT> destkey key [key ...]",
        ),
    Spec::new("bitpos", -3, Flags::READONLY, Categories::BITMAP).keys(READ).load(Load::OnMiss).on_keys(bitpos).docs(
        "bitmap",
        "2.8.7",
        "O(N), N being the length of the string, or of the range",
        "Finds the first bit that is one, or zero, in a string.",
        "key bit [start [end [BYTE | BIT]]]",
    ),
    Spec::new("getbit", 3, Flags::READONLY.union(Flags::FAST), Categories::BITMAP)
        .keys(READ)
        .load(Load::OnMiss)
        .on_keys(getbit)
        .docs("bitmap", "2.2.0", "O(1)", "Tells a bit of a string.", "key offset"),
    Spec::new("setbit", 4, GROW, Categories::BITMAP)
        .keys(&[KeySpec::one(KeyUse::RW.union(KeyUse::ACCESS).union(KeyUse::UPDATE))])
        .load(Load::Before)
        .on_keys(setbit)
        .docs(
            "bitmap",
            "2.2.0",
            "O(1), or O(N) where the string grows to the length N",
            "Sets a bit of a string, which grows as needed, and tells what it was.",
            "key offset value",
        ),
];

fn setbit(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let offset = bit_offset(call.node, call.arg(2))?;
    let on = match parse_integer(call.arg(3)) {
        Some(bit @ (0 | 1)) => bit == 1,
        _ => return Err(CommandError::text("ERR bit is not an integer or out of range")),
    };
    let (byte, mask) = place_of(offset);
    let was = keyspace.update_string(&call.keys[0], true, |string| {
        if string.len() <= byte {
            string.resize(byte + 1);
        }
        let was = string.as_slice()[byte] & mask != 0;
        if was != on {
            string.as_mut_slice()[byte] ^= mask;
        }
        was
    })?;
    call.reply.integer(i64::from(was == Some(true)));
    Ok(())
}

fn getbit(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let (byte, mask) = place_of(bit_offset(call.node, call.arg(2))?);
    let is_set = keyspace.read_string(&call.keys[0])?.is_some_and(|string| {
        let mut scratch = Vec::new();
        string.as_bytes(&mut scratch).get(byte).is_some_and(|bits| bits & mask != 0)
    });
    call.reply.integer(i64::from(is_set));
    Ok(())
}

/// The byte that a bit is in, and the bit's mask there.
fn place_of(bit: usize) -> (usize, u8) {
    (bit / 8, 0x80 >> (bit % 8))
}

/// Reads the offset of a bit of a string that one request could set.
///
/// # Errors
/// When it is none, negative or too large.
pub(super) fn bit_offset(node: &Node, text: &[u8]) -> Result<usize, CommandError> {
    checked_bit_offset(node, parse_integer(text))
}

/// As [`bit_offset`], from the number that was read, if one was.
pub(super) fn checked_bit_offset(node: &Node, offset: Option<i64>) -> Result<usize, CommandError> {
    let most_bytes = node.settings.proto_max_bulk_len.load(Relaxed);
    offset
        .and_then(|offset| usize::try_from(offset).ok())
        .filter(|offset| offset / 8 < most_bytes)
        .ok_or(CommandError::text("ERR bit offset is not an integer or out of range"))
}

/// What the positions of a range count.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Byte,
    Bit,
}

impl Unit {
    /// Reads the argument `at`; bytes if there is none.
    fn parse(call: &Call<'_>, at: usize) -> Result<Unit, CommandError> {
        match call.args.get(at) {
            None => Ok(Unit::Byte),
            Some(word) if word.eq_ignore_ascii_case(b"BYTE") => Ok(Unit::Byte),
            Some(word) if word.eq_ignore_ascii_case(b"BIT") => Ok(Unit::Bit),
            Some(_) => Err(CommandError::Syntax),
        }
    }

    /// The bits that the range covers of `len` bytes.
    fn bits_within(self, range: IndexRange, len: usize) -> Range<usize> {
        match self {
            Unit::Bit => range.within(len * 8).unwrap_or_default(),
            Unit::Byte => range.within(len).map_or(0..0, |bytes| bytes.start * 8..bytes.end * 8),
        }
    }
}

const WHOLE: IndexRange = IndexRange { start: 0, end: -1 };

fn bitcount(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let (range, unit) = match call.args.len() {
        2 => (WHOLE, Unit::Byte),
        4 | 5 => (IndexRange::parse(call, 2)?, Unit::parse(call, 4)?),
        _ => return Err(CommandError::Syntax),
    };
    let count = match keyspace.read_string(&call.keys[0])? {
        Some(string) if !range.is_reversed_from_the_end() => {
            let mut scratch = Vec::new();
            let bytes = string.as_bytes(&mut scratch);
            bits::count_ones(bytes, unit.bits_within(range, bytes.len()))
        }
        _ => 0,
    };
    call.reply.integer(count as i64);
    Ok(())
}

/// What BITPOS looks for, and where.
struct Search {
    wanted: bool,
    range: IndexRange,
    unit: Unit,
    /// Without an end the string is taken to go on with zeros for ever.
    ends: bool,
}

impl Search {
    fn parse(call: &Call<'_>) -> Result<Search, CommandError> {
        let wanted = match call.integer(2)? {
            bit @ (0 | 1) => bit == 1,
            _ => return Err(CommandError::text("ERR The bit argument must be 1 or 0.")),
        };
        let (range, unit) = match call.args.len() {
            3 => (WHOLE, Unit::Byte),
            4 => (IndexRange { start: call.integer(3)?, ..WHOLE }, Unit::Byte),
            5 | 6 => {
                let start = call.integer(3)?;
                let unit = Unit::parse(call, 5)?;
                (IndexRange { start, end: call.integer(4)? }, unit)
            }
            _ => return Err(CommandError::Syntax),
        };
        Ok(Search { wanted, range, unit, ends: call.args.len() > 4 })
    }

    fn run(&self, bytes: &[u8]) -> Option<usize> {
        let range = self.unit.bits_within(self.range, bytes.len());
        let behind = (!range.is_empty() && !self.wanted && !self.ends).then_some(range.end);
        bits::first(bytes, range, self.wanted).or(behind)
    }
}

fn bitpos(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let search = Search::parse(call)?;
    let position = match keyspace.read_string(&call.keys[0])? {
        Some(string) => search.run(string.as_bytes(&mut Vec::new())),
        // A missing key is nothing but zeros, whatever the range.
        None => (!search.wanted).then_some(0),
    };
    call.reply.integer(position.map_or(-1, |position| position as i64));
    Ok(())
}

/// How BITOP combines strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    And,
    Or,
    Xor,
    Not,
}

impl Operation {
    fn named(word: &[u8]) -> Option<Operation> {
        match word {
            word if word.eq_ignore_ascii_case(b"AND") => Some(Operation::And),
            word if word.eq_ignore_ascii_case(b"OR") => Some(Operation::Or),
            word if word.eq_ignore_ascii_case(b"XOR") => Some(Operation::Xor),
            word if word.eq_ignore_ascii_case(b"NOT") => Some(Operation::Not),
            _ => None,
        }
    }

    /// Combines what there is with one more string. The shorter of them goes on with zeros.
    fn combine(self, combined: &mut Vec<u8>, string: &[u8]) {
        if combined.len() < string.len() {
            combined.resize(string.len(), 0);
        }
        let (shared, beyond) = combined.split_at_mut(string.len());
        let pairs = shared.iter_mut().zip(string);
        match self {
            Operation::And => {
                pairs.for_each(|(combined, byte)| *combined &= byte);
                beyond.fill(0);
            }
            Operation::Or => pairs.for_each(|(combined, byte)| *combined |= byte),
            Operation::Xor => pairs.for_each(|(combined, byte)| *combined ^= byte),
            Operation::Not => pairs.for_each(|(combined, byte)| *combined = !byte),
        }
    }
}

fn bitop(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let operation = Operation::named(call.arg(1)).ok_or(CommandError::Syntax)?;
    let (destination, sources) = (&call.keys[0], &call.keys[1..]);
    if operation == Operation::Not && sources.len() != 1 {
        return Err(CommandError::text("ERR BITOP NOT must be called with a single source key."));
    }
    let mut combined = Vec::new();
    let mut scratch = Vec::new();
    for (nth, source) in sources.iter().enumerate() {
        let string = keyspace.read_string(source)?;
        let bytes = string.as_ref().map_or(&[][..], |string| string.as_bytes(&mut scratch));
        match (nth, operation) {
            (0, Operation::And | Operation::Or | Operation::Xor) => combined.extend_from_slice(bytes),
            _ => operation.combine(&mut combined, bytes),
        }
    }
    let length = combined.len();
    if length == 0 {
        keyspace.remove(destination);
    } else {
        keyspace.set_built(destination, combined, Expiry::None);
    }
    call.reply.integer(length as i64);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shorter_string_goes_on_with_zeros() {
        let combine = |operation: Operation, strings: [&[u8]; 2]| {
            let mut combined = strings[0].to_vec();
            operation.combine(&mut combined, strings[1]);
            combined
        };
        let (long, short): (&[u8], &[u8]) = (&[0xff, 0xf0, 0x0f], &[0x3c]);
        for strings in [[long, short], [short, long]] {
            assert_eq!(combine(Operation::And, strings), [0x3c, 0, 0]);
            assert_eq!(combine(Operation::Or, strings), [0xff, 0xf0, 0x0f]);
            assert_eq!(combine(Operation::Xor, strings), [0xc3, 0xf0, 0x0f]);
        }
        assert_eq!(combine(Operation::Not, [&[], long]), [0, 0x0f, 0xf0]);
    }

    #[test]
    fn a_search_without_an_end_finds_the_zero_behind_the_string() {
        let search = |wanted, ends| Search { wanted, range: WHOLE, unit: Unit::Byte, ends };
        assert_eq!(search(false, false).run(&[0xff; 3]), Some(24));
        assert_eq!(search(false, true).run(&[0xff; 3]), None);
        assert_eq!(search(true, false).run(&[0; 3]), None);
        assert_eq!(search(false, false).run(&[]), None);
    }
}
