//! BITFIELD: strings as arrays of integers of any width.

use forebay_resp::{Args, Reply};
use forebay_store::{Key, Keyspace, StringMut, parse_integer};
use smallvec::SmallVec;

use super::bitmaps::{bit_offset, checked_bit_offset};
use super::call::Call;
use super::error::CommandError;
use super::packed_integer::{IntegerType, Overflow};
use super::spec::{Categories, Flags, KeySpec, KeyUse, Load, Spec};
use crate::node::Node;

const COMPLEXITY: &str = "O(1) for each operation";

pub(super) static TABLE: &[Spec] = &[
    Spec::new("bitfield", -2, Flags::WRITE.union(Flags::DENYOOM), Categories::BITMAP)
        .keys(&[KeySpec::one(KeyUse::RW.union(KeyUse::UPDATE).union(KeyUse::ACCESS).union(KeyUse::VARIABLE_FLAGS))
            .noted("This command allows both access and modification of the key")])
        .variable_use(use_of_bitfield)
        .load(Load::Before)
        .on_keys(bitfield)
        .docs(
            "bitmap",
            "3.2.0",
            COMPLEXITY,
            "Reads and changes integers of any width in a string.",
            "key [GET encoding offset | [OVERFLOW <WRAP | SAT | FAIL>] \
             <SET encoding offset value | INCRBY encoding offset increment> ...]",
        ),
    Spec::new("bitfield_ro", -2, Flags::READONLY.union(Flags::FAST), Categories::BITMAP)
        .keys(&[KeySpec::one(KeyUse::RO.union(KeyUse::ACCESS))])
        .load(Load::OnMiss)
        .on_keys(bitfield_ro)
        .docs(
            "bitmap",
            "6.0.0",
            COMPLEXITY,
            "Reads integers of any width in a string.",
            "key [GET encoding offset [GET encoding offset ...]]",
        ),
];

/// With `GET` alone nothing is changed; what cannot be read might change anything.
fn use_of_bitfield(args: Args<'_>) -> KeyUse {
    let mut rest = args.skip(2);
    while let Some(word) = rest.get(0) {
        let taken = match word {
            word if word.eq_ignore_ascii_case(b"GET") => 3,
            word if word.eq_ignore_ascii_case(b"OVERFLOW") => 2,
            _ => usize::MAX,
        };
        if rest.len() < taken {
            return KeyUse::RW | KeyUse::ACCESS | KeyUse::UPDATE;
        }
        rest = rest.skip(taken);
    }
    KeyUse::RO | KeyUse::ACCESS
}

/// One operation of a request.
#[derive(Debug, Clone, Copy)]
struct Operation {
    integer_type: IntegerType,
    /// Where the integer begins, in bits.
    at: usize,
    action: Action,
}

#[derive(Debug, Clone, Copy)]
enum Action {
    Get,
    Set { value: i64, overflow: Overflow },
    Add { increment: i64, overflow: Overflow },
}

type Operations = SmallVec<[Operation; 4]>;

/// Reads the operations one after another.
struct Parser<'c> {
    node: &'c Node,
    args: Args<'c>,
    next: usize,
    /// What OVERFLOW has said last.
    overflow: Overflow,
}

impl<'c> Parser<'c> {
    fn parse(call: &Call<'c>) -> Result<Operations, CommandError> {
        let mut parser = Parser { node: call.node, args: call.args, next: 2, overflow: Overflow::Wrap };
        let mut operations = Operations::new();
        while let Some(word) = parser.args.get(parser.next) {
            parser.next += 1;
            let left = parser.args.len() - parser.next;
            if word.eq_ignore_ascii_case(b"GET") && left >= 2 {
                operations.push(parser.operation(|_| Ok(Action::Get))?);
            } else if word.eq_ignore_ascii_case(b"SET") && left >= 3 {
                operations.push(parser.operation(Parser::set)?);
            } else if word.eq_ignore_ascii_case(b"INCRBY") && left >= 3 {
                operations.push(parser.operation(Parser::add)?);
            } else if word.eq_ignore_ascii_case(b"OVERFLOW") && left >= 1 {
                parser.overflow = parser.overflow()?;
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(operations)
    }

    fn operation(
        &mut self,
        action: fn(&mut Parser<'c>) -> Result<Action, CommandError>,
    ) -> Result<Operation, CommandError> {
        let integer_type = IntegerType::parse(self.take()).ok_or(CommandError::text(
            "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.",
        ))?;
        let at = self.offset(integer_type)?;
        Ok(Operation { integer_type, at, action: action(self)? })
    }

    /// With a `#` before it, an offset counts integers of the type.
    fn offset(&mut self, integer_type: IntegerType) -> Result<usize, CommandError> {
        match self.take() {
            [b'#', index @ ..] => {
                let width = i64::from(integer_type.width());
                checked_bit_offset(self.node, parse_integer(index).and_then(|index| index.checked_mul(width)))
            }
            offset => bit_offset(self.node, offset),
        }
    }

    fn set(&mut self) -> Result<Action, CommandError> {
        Ok(Action::Set { value: self.integer()?, overflow: self.overflow })
    }

    fn add(&mut self) -> Result<Action, CommandError> {
        Ok(Action::Add { increment: self.integer()?, overflow: self.overflow })
    }

    fn integer(&mut self) -> Result<i64, CommandError> {
        parse_integer(self.take()).ok_or(CommandError::NotAnInteger)
    }

    fn overflow(&mut self) -> Result<Overflow, CommandError> {
        match self.take() {
            word if word.eq_ignore_ascii_case(b"WRAP") => Ok(Overflow::Wrap),
            word if word.eq_ignore_ascii_case(b"SAT") => Ok(Overflow::Saturate),
            word if word.eq_ignore_ascii_case(b"FAIL") => Ok(Overflow::Fail),
            _ => Err(CommandError::text("ERR Invalid OVERFLOW type specified")),
        }
    }

    /// The next argument, of those that were counted before.
    fn take(&mut self) -> &'c [u8] {
        let arg = self.args.get(self.next).unwrap_or_default();
        self.next += 1;
        arg
    }
}

fn bitfield(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let operations = Parser::parse(call)?;
    let key = &call.keys[0];
    match bytes_to_write(&operations) {
        None => read_all(call.reply, keyspace, key, &operations),
        Some(bytes) => {
            keyspace.update_string(key, true, |string| {
                if string.len() < bytes {
                    string.resize(bytes);
                }
                call.reply.array(operations.len());
                operations.iter().for_each(|operation| operation.run(string, call.reply));
            })?;
            Ok(())
        }
    }
}

fn bitfield_ro(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let operations = Parser::parse(call)?;
    match bytes_to_write(&operations) {
        None => read_all(call.reply, keyspace, &call.keys[0], &operations),
        Some(_) => Err(CommandError::text("ERR BITFIELD_RO only supports the GET subcommand")),
    }
}

/// How long the string has to be for all that writes; `None` if nothing does.
fn bytes_to_write(operations: &[Operation]) -> Option<usize> {
    let writing = operations.iter().filter(|operation| !matches!(operation.action, Action::Get));
    writing.map(|operation| (operation.at + operation.integer_type.width() as usize).div_ceil(8)).max()
}

fn read_all(
    reply: &mut Reply,
    keyspace: &mut Keyspace<'_>,
    key: &Key<'_>,
    operations: &[Operation],
) -> Result<(), CommandError> {
    let string = keyspace.read_string(key)?;
    let mut scratch = Vec::new();
    let bytes = string.as_ref().map_or(&[][..], |string| string.as_bytes(&mut scratch));
    reply.array(operations.len());
    for operation in operations {
        reply.integer(operation.integer_type.read(bytes, operation.at));
    }
    Ok(())
}

impl Operation {
    /// Does it to a string that is long enough, and answers.
    fn run(&self, string: &mut StringMut<'_>, reply: &mut Reply) {
        let old = self.integer_type.read(string.as_slice(), self.at);
        let (new, answer) = match self.action {
            Action::Get => (Some(old), Some(old)),
            Action::Set { value, overflow } => {
                let new = self.integer_type.fit(value, overflow);
                (new, new.map(|_| old))
            }
            Action::Add { increment, overflow } => {
                let sum = self.integer_type.add(old, increment, overflow);
                (sum, sum)
            }
        };
        if let Some(new) = new.filter(|new| *new != old) {
            self.integer_type.write(string.as_mut_slice(), self.at, new);
        }
        match answer {
            Some(answer) => reply.integer(answer),
            None => reply.null(),
        }
    }
}
