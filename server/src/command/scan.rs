//! Walks over what there is: SCAN, KEYS, HSCAN, and each node's part in a scan of all. They speak of the cache alone: what the origin has besides is not listed.

use std::sync::LazyLock;

use forebay_cluster::SLOT_COUNT;
use forebay_resp::Reply;
use forebay_store::{Keyspace, ObjectType};

use super::call::{Call, Flow};
use super::error::CommandError;
use super::glob;
use super::spec::{Categories, Flags, Merge, Spec};

/// Elements that a step looks at unless `COUNT` says otherwise.
const DEFAULT_COUNT: usize = 10;

/// Bits of a [`LIFE`].
pub(crate) const LIFE_BITS: u32 = 10;

/// Of which process a position within a slot is: no other has the keys in the same order. One of a thousand is taken for another.
static LIFE: LazyLock<u16> = LazyLock::new(|| rand::random::<u16>() & ((1 << LIFE_BITS) - 1));

pub(super) const TABLE: &[Spec] = &[
    Spec::new("forebay.scan", -5, Flags::READONLY.union(Flags::INTERNAL), Categories::empty()).on_node(scan_own).docs(
        "generic",
        "7.2.0",
        "O(N) for a call, N being the number of slots and of keys that it comes past",
        "Goes through the keys of the node's own slots: its part in a scan of all nodes.",
        "slot position life share [MATCH pattern] [COUNT count] [TYPE type]",
    ),
    Spec::new("keys", 2, Flags::READONLY, Categories::KEYSPACE.union(Categories::DANGEROUS))
        .on_node(keys)
        .everywhere(Merge::Append)
        .tips(&["request_policy:all_shards", "nondeterministic_output_order"])
        .docs(
            "generic",
            "1.0.0",
            "O(N), N being the number of keys in the database",
            "Lists the keys of the database that a pattern describes.",
            "pattern",
        ),
    Spec::new("scan", -2, Flags::READONLY, Categories::KEYSPACE)
        .on_node(scan)
        .everywhere(Merge::Scan)
        .tips(&["nondeterministic_output", "request_policy:special"])
        .docs(
            "generic",
            "2.8.0",
            "O(1) for a call, O(N) for a scan from beginning to end, N being the number of keys in the database",
            "Goes through the keys of the database, some at a time.",
            "cursor [MATCH pattern] [COUNT count] [TYPE type]",
        ),
];

fn keys(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let pattern = Pattern::new(call.arg(1));
    let mut found = Elements::default();
    call.node.store.for_each_key(call.session.db, call.now, &mut |key, _| {
        if pattern.describes(key) && call.node.lists(key) {
            found.push(key);
        }
    });
    found.answer(call.reply);
    Ok(Flow::Continue)
}

fn scan(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let cursor = parse_cursor(call.arg(1))?;
    let filter = Filter::parse(call, 2, Over::Keys)?;
    let mut found = Elements::default();
    let next = call.node.store.scan(call.session.db, cursor, filter.count, call.now, &mut |key, object_type| {
        if filter.admits_type(object_type) && filter.pattern.describes(key) && call.node.lists(key) {
            found.push(key);
        }
    });
    answer_step(call.reply, next, found);
    Ok(Flow::Continue)
}

/// Lists keys of the slots that are this node's by the topology that it knows, whose epoch it tells: from a slot on, and in that from a position that the
/// process of this life gave. Tells where it has come to, which is at a slot of its own or behind the last; `share` nodes do so at the same time.
fn scan_own(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let (slot, position, life) = (call.integer(1)?, call.integer(2)?, call.integer(3)?);
    let share = usize::try_from(call.integer(4)?).unwrap_or_default().max(1);
    let filter = Filter::parse(call, 5, Over::Keys)?;
    let count = filter.count.div_ceil(share);
    let topology = call.node.topology.load_full();
    let mut slot = u16::try_from(slot).unwrap_or(SLOT_COUNT);
    let mut position = if life == i64::from(*LIFE) { position.unsigned_abs() } else { 0 };
    let mut found = Elements::default();
    let mut seen = 0;
    while slot < SLOT_COUNT {
        if topology.is_here(slot) {
            if seen >= count {
                break;
            }
            let visit = &mut |key: &[u8], object_type| {
                if filter.admits_type(object_type) && filter.pattern.describes(key) {
                    found.push(key);
                }
            };
            position = call.node.store.scan_slot(call.session.db, slot, position, count, &mut seen, call.now, visit);
            if position != 0 {
                break;
            }
        }
        (slot, position) = (slot + 1, 0);
    }
    call.reply.array(5);
    for number in [topology.epoch() as i64, slot.into(), position as i64, i64::from(*LIFE)] {
        call.reply.integer(number);
    }
    found.answer(call.reply);
    Ok(Flow::Continue)
}

pub(super) fn hscan(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let cursor = parse_cursor(call.arg(2))?;
    let mut found = Elements::default();
    let mut next = 0;
    if let Some(hash) = keyspace.read_hash(&call.keys[0])? {
        // Where there is no hash, nobody looks at the options.
        let filter = Filter::parse(call, 3, Over::Fields)?;
        next = hash.scan(cursor, filter.count, &mut |field, value| {
            if filter.pattern.describes(field) {
                found.push(field);
                found.push(value);
            }
        });
    }
    answer_step(call.reply, next, found);
    Ok(())
}

/// What is gone through.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Over {
    Keys,
    Fields,
}

/// The options of a scan.
struct Filter<'c> {
    pattern: Pattern<'c>,
    count: usize,
    /// A name that need not be any type's.
    type_name: Option<&'c [u8]>,
}

impl<'c> Filter<'c> {
    /// Reads the arguments from `at` on; of options given twice the last one counts.
    fn parse(call: &Call<'c>, at: usize, over: Over) -> Result<Filter<'c>, CommandError> {
        let mut filter = Filter { pattern: Pattern::All, count: DEFAULT_COUNT, type_name: None };
        for at in (at..call.args.len()).step_by(2) {
            let value = call.args.get(at + 1).ok_or(CommandError::Syntax)?;
            if call.is(at, "COUNT") {
                filter.count = parse_count(call.integer(at + 1)?)?;
            } else if call.is(at, "MATCH") {
                filter.pattern = Pattern::new(value);
            } else if call.is(at, "TYPE") && over == Over::Keys {
                filter.type_name = Some(value);
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(filter)
    }

    fn admits_type(&self, object_type: ObjectType) -> bool {
        self.type_name.is_none_or(|name| name.eq_ignore_ascii_case(object_type.as_str().as_bytes()))
    }
}

/// Which names are wanted.
enum Pattern<'c> {
    /// `*`, which unlike other patterns of stars describes the empty name, too.
    All,
    Glob(&'c [u8]),
}

impl<'c> Pattern<'c> {
    fn new(pattern: &'c [u8]) -> Pattern<'c> {
        match pattern {
            b"*" => Pattern::All,
            glob => Pattern::Glob(glob),
        }
    }

    fn describes(&self, name: &[u8]) -> bool {
        match self {
            Pattern::All => true,
            Pattern::Glob(glob) => glob::matches(glob, name),
        }
    }
}

/// Bulk strings of which only the last tells how many they are.
#[derive(Default)]
struct Elements {
    count: usize,
    written: Reply,
}

impl Elements {
    fn push(&mut self, element: &[u8]) {
        self.count += 1;
        self.written.bulk(element);
    }

    fn answer(self, reply: &mut Reply) {
        reply.array(self.count);
        self.written.chunks().for_each(|chunk| reply.raw(chunk));
    }
}

/// The reply to one step of a scan.
fn answer_step(reply: &mut Reply, next: u64, found: Elements) {
    reply.array(2);
    reply.bulk_text(format_args!("{next}"));
    found.answer(reply);
}

fn parse_count(count: i64) -> Result<usize, CommandError> {
    usize::try_from(count).ok().filter(|&count| count > 0).ok_or(CommandError::Syntax)
}

/// A cursor as C's `strtoul` reads it, since that is what clients may send: empty is 0, a sign is allowed and a negative number wraps.
pub(crate) fn parse_cursor(text: &[u8]) -> Result<u64, CommandError> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] | digits => (false, digits),
    };
    let is_number = digits.iter().all(u8::is_ascii_digit) && (!digits.is_empty() || text.is_empty());
    let magnitude = digits
        .iter()
        .try_fold(0u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit.wrapping_sub(b'0'))));
    match magnitude {
        Some(magnitude) if is_number && negative => Ok(magnitude.wrapping_neg()),
        Some(magnitude) if is_number => Ok(magnitude),
        _ => Err(CommandError::text("ERR invalid cursor")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What redis-server 7.0.15 takes.
    #[test]
    fn cursors() {
        for (text, cursor) in [
            ("", Some(0)),
            ("0", Some(0)),
            ("007", Some(7)),
            ("+7", Some(7)),
            ("-0", Some(0)),
            ("-1", Some(u64::MAX)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("-18446744073709551615", Some(1)),
            ("-18446744073709551616", None),
            ("-", None),
            ("+", None),
            ("+-1", None),
            (" 1", None),
            ("1 ", None),
            ("1.0", None),
            ("0x1", None),
            ("abc", None),
        ] {
            assert_eq!(parse_cursor(text.as_bytes()).ok(), cursor, "{text:?}");
        }
    }
}
