//! LCS: the longest common subsequence of two strings.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use forebay_resp::{Args, Reply};
use forebay_store::{Key, Keyspace, StringRef, parse_integer};

use super::call::Call;
use super::error::CommandError;
use super::spec::{Categories, Flags, KeySpec, KeyUse, Load, Spec};

pub(super) static TABLE: &[Spec] = &[Spec::new("lcs", -3, Flags::READONLY, Categories::STRING)
    .keys(&[KeySpec::range(KeyUse::RO.union(KeyUse::ACCESS), 1, 1, 1)])
    .load(Load::OnMiss)
    .on_keys(lcs)
    .docs(
        "string",
        "7.0.0",
        "O(N*M), N and M being the lengths of the strings",
        "Finds the longest common subsequence of two strings.",
        "key1 key2 [LEN] [IDX] [MINMATCHLEN min-match-len] [WITHMATCHLEN]",
    )];

/// What the options ask for.
#[derive(Default)]
struct Options {
    /// The length alone.
    length: bool,
    /// Where the parts of the subsequence stand.
    positions: bool,
    /// Shorter parts are left out.
    shortest_part: usize,
    /// The length of each part.
    part_lengths: bool,
}

impl Options {
    fn parse(args: Args<'_>) -> Result<Options, CommandError> {
        let mut options = Options::default();
        let mut rest = args.skip(3).iter();
        while let Some(word) = rest.next() {
            match word {
                word if word.eq_ignore_ascii_case(b"LEN") => options.length = true,
                word if word.eq_ignore_ascii_case(b"IDX") => options.positions = true,
                word if word.eq_ignore_ascii_case(b"WITHMATCHLEN") => options.part_lengths = true,
                word if word.eq_ignore_ascii_case(b"MINMATCHLEN") => {
                    let least = rest.next().ok_or(CommandError::Syntax)?;
                    let least = parse_integer(least).ok_or(CommandError::NotAnInteger)?;
                    options.shortest_part = usize::try_from(least).unwrap_or(0);
                }
                _ => return Err(CommandError::Syntax),
            }
        }
        match options.length && options.positions {
            true => Err(CommandError::text("ERR If you want both the length and indexes, please just use IDX.")),
            false => Ok(options),
        }
    }
}

fn lcs(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let left = read(keyspace, &call.keys[0]);
    let right = read(keyspace, &call.keys[1]);
    let (Ok(left), Ok(right)) = (left, right) else {
        return Err(CommandError::text("ERR The specified keys must contain string values"));
    };
    let options = Options::parse(call.args)?;
    let most = call.node.settings.proto_max_bulk_len.load(Relaxed);
    let lengths = Lengths::compute(&left, &right, most)?;
    match options {
        Options { positions: true, .. } => answer_positions(call.reply, &lengths, &options),
        Options { length: true, .. } => call.reply.integer(lengths.whole() as i64),
        _ => call.reply.bulk(&lengths.subsequence()),
    }
    Ok(())
}

/// A copy, since only one value of the keyspace can be held at a time. A missing key counts as the empty string.
fn read(keyspace: &mut Keyspace<'_>, key: &Key<'_>) -> Result<Vec<u8>, forebay_store::WrongType> {
    Ok(keyspace.read_string(key)?.map(|value: StringRef<'_>| value.to_vec()).unwrap_or_default())
}

fn answer_positions(reply: &mut Reply, lengths: &Lengths<'_>, options: &Options) {
    let parts: Vec<Part> = lengths.parts().filter(|part| part.len() >= options.shortest_part).collect();
    reply.map(2);
    reply.bulk(b"matches");
    reply.array(parts.len());
    for part in parts {
        reply.array(2 + usize::from(options.part_lengths));
        answer_range(reply, &part.left);
        answer_range(reply, &part.right);
        if options.part_lengths {
            reply.integer(part.len() as i64);
        }
    }
    reply.bulk(b"len");
    reply.integer(lengths.whole() as i64);
}

/// First and last position.
fn answer_range(reply: &mut Reply, range: &Range<usize>) {
    reply.array(2);
    reply.integer(range.start as i64);
    reply.integer(range.end as i64 - 1);
}

/// The textbook's table: how long the longest common subsequence is of each two beginnings of the strings.
struct Lengths<'s> {
    left: &'s [u8],
    right: &'s [u8],
    /// One row for each beginning of `left`, the empty one included, of one number for each beginning of `right`.
    table: Vec<u32>,
}

/// A run of the subsequence that stands in one piece in both strings.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    left: Range<usize>,
    right: Range<usize>,
}

impl Part {
    fn len(&self) -> usize {
        self.left.len()
    }
}

impl<'s> Lengths<'s> {
    /// # Errors
    /// When a string is longer than the table's numbers can tell, the table would take more than `most` bytes, or the machine does not have them.
    fn compute(left: &'s [u8], right: &'s [u8], most: usize) -> Result<Lengths<'s>, CommandError> {
        if left.len().max(right.len()) >= LONGEST {
            return Err(CommandError::text("ERR String too long for LCS"));
        }
        let (rows, width) = (left.len() + 1, right.len() + 1);
        let mut table = empty_table(rows, width, most)?;
        table.resize(rows * width, 0);
        for (row, byte) in left.iter().enumerate() {
            let (above, below) = table[row * width..].split_at_mut(width);
            for (column, other) in right.iter().enumerate() {
                below[column + 1] = match byte == other {
                    true => above[column] + 1,
                    false => above[column + 1].max(below[column]),
                };
            }
        }
        Ok(Lengths { left, right, table })
    }

    /// The length of the subsequence.
    fn whole(&self) -> u32 {
        self.of(self.left.len(), self.right.len())
    }

    fn of(&self, left: usize, right: usize) -> u32 {
        self.table[left * (self.right.len() + 1) + right]
    }

    /// The pieces, from the last to the first.
    fn parts(&self) -> impl Iterator<Item = Part> {
        let (mut left, mut right) = (self.left.len(), self.right.len());
        std::iter::from_fn(move || {
            (left, right) = self.end_of_part(left, right)?;
            let length = self.common_suffix(left, right);
            let part = Part { left: left - length..left, right: right - length..right };
            (left, right) = (part.left.start, part.right.start);
            Some(part)
        })
    }

    /// Where the last piece ends that lies before these positions.
    fn end_of_part(&self, mut left: usize, mut right: usize) -> Option<(usize, usize)> {
        while left > 0 && right > 0 {
            if self.left[left - 1] == self.right[right - 1] {
                return Some((left, right));
            }
            match self.of(left - 1, right) > self.of(left, right - 1) {
                true => left -= 1,
                false => right -= 1,
            }
        }
        None
    }

    fn common_suffix(&self, left: usize, right: usize) -> usize {
        let backwards = self.left[..left].iter().rev().zip(self.right[..right].iter().rev());
        backwards.take_while(|(left, right)| left == right).count()
    }

    fn subsequence(&self) -> Vec<u8> {
        let mut parts: Vec<Part> = self.parts().collect();
        parts.reverse();
        parts.into_iter().flat_map(|part| &self.left[part.left]).copied().collect()
    }
}

/// Strings of this length are refused; shorter ones have subsequences whose lengths 32 bits can tell (Redis' limit).
const LONGEST: usize = u32::MAX as usize - 1;

/// An empty vector with room for the table.
fn empty_table(rows: usize, width: usize, most: usize) -> Result<Vec<u32>, CommandError> {
    const TOO_LARGE: CommandError =
        CommandError::text("ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len");
    const NOT_THERE: CommandError =
        CommandError::text("ERR Insufficient memory, failed allocating transient memory for LCS");
    let cells = rows.checked_mul(width).ok_or(TOO_LARGE)?;
    if cells.checked_mul(size_of::<u32>()).is_none_or(|bytes| bytes > most) {
        return Err(TOO_LARGE);
    }
    let mut table = Vec::new();
    table.try_reserve_exact(cells).map_err(|_| NOT_THERE)?;
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lengths<'s>(left: &'s [u8], right: &'s [u8]) -> Lengths<'s> {
        Lengths::compute(left, right, usize::MAX).unwrap()
    }

    fn is_subsequence(part: &[u8], whole: &[u8]) -> bool {
        let mut rest = whole.iter();
        part.iter().all(|byte| rest.any(|other| other == byte))
    }

    #[test]
    fn parts_come_from_the_end() {
        let lengths = lengths(b"ohmytext", b"mynewtext");
        assert_eq!(lengths.subsequence(), b"mytext");
        let parts: Vec<_> = lengths.parts().collect();
        assert_eq!(parts, [Part { left: 4..8, right: 5..9 }, Part { left: 2..4, right: 0..2 }]);
    }

    #[test]
    fn a_table_has_a_limit() {
        assert!(Lengths::compute(b"abc", b"abc", 64).is_ok());
        assert!(Lengths::compute(b"abc", b"abc", 63).is_err());
    }

    proptest! {
        #[test]
        fn the_subsequence_is_common_and_as_long_as_told(left in "[abc]{0,12}", right in "[abc]{0,12}") {
            let (left, right) = (left.as_bytes(), right.as_bytes());
            let lengths = lengths(left, right);
            let common = lengths.subsequence();
            prop_assert_eq!(common.len(), lengths.whole() as usize);
            prop_assert!(is_subsequence(&common, left) && is_subsequence(&common, right));
            let longest = (0u32..1 << left.len())
                .map(|chosen| (0..left.len()).filter(|at| chosen >> at & 1 == 1).map(|at| left[at]).collect::<Vec<_>>())
                .filter(|chosen| is_subsequence(chosen, right))
                .map(|chosen| chosen.len())
                .max();
            prop_assert_eq!(longest, Some(common.len()));
        }
    }
}
