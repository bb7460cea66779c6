//! Counting and searching the bits of a string. The first bit is the highest of the first byte.

use std::ops::Range;

/// How many bits of the range are one. The range must lie within the bytes.
pub(super) fn count_ones(bytes: &[u8], range: Range<usize>) -> u64 {
    let Some(last) = range.end.checked_sub(1).filter(|last| *last >= range.start) else {
        return 0;
    };
    let (first_byte, last_byte) = (range.start / 8, last / 8);
    let before = bytes[first_byte] & !from_bit_on(range.start);
    let behind = bytes[last_byte] & !up_to_bit(last);
    count_all(&bytes[first_byte..=last_byte]) - u64::from(before.count_ones() + behind.count_ones())
}

/// The first bit of the range that is `wanted`. The range must lie within the bytes.
pub(super) fn first(bytes: &[u8], range: Range<usize>, wanted: bool) -> Option<usize> {
    if range.is_empty() {
        return None;
    }
    let (first_byte, last_byte) = (range.start / 8, (range.end - 1) / 8);
    // What is not wanted, eight times over: a byte differs from it where a wanted bit is.
    let unwanted = if wanted { 0 } else { u8::MAX };
    let position = match (bytes[first_byte] ^ unwanted) & from_bit_on(range.start) {
        0 => {
            let searched = first_byte + 1;
            let found = searched + first_other(&bytes[searched..=last_byte], unwanted)?;
            found * 8 + (bytes[found] ^ unwanted).leading_zeros() as usize
        }
        here => first_byte * 8 + here.leading_zeros() as usize,
    };
    Some(position).filter(|position| *position < range.end)
}

/// The bits of a byte from this one to its end.
fn from_bit_on(bit: usize) -> u8 {
    u8::MAX >> (bit % 8)
}

/// The bits of a byte from its beginning to this one.
fn up_to_bit(bit: usize) -> u8 {
    u8::MAX << (7 - bit % 8)
}

const WORD: usize = size_of::<u64>();

fn count_all(bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(WORD);
    let rest: u32 = words.remainder().iter().map(|byte| byte.count_ones()).sum();
    let whole: u64 = words.map(|word| u64::from(word_of(word).count_ones())).sum();
    whole + u64::from(rest)
}

/// The first byte that is another one than `skipped`.
fn first_other(bytes: &[u8], skipped: u8) -> Option<usize> {
    let skipped_word = u64::from_ne_bytes([skipped; WORD]);
    let words = bytes.chunks_exact(WORD).take_while(|word| word_of(word) == skipped_word).count();
    let searched = words * WORD;
    bytes[searched..].iter().position(|byte| *byte != skipped).map(|at| searched + at)
}

fn word_of(chunk: &[u8]) -> u64 {
    u64::from_ne_bytes(chunk.try_into().expect("chunks are of a word's size"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bit(bytes: &[u8], at: usize) -> bool {
        bytes[at / 8] & (0x80 >> (at % 8)) != 0
    }

    /// Bytes with long runs of equal ones, and a range of their bits.
    fn bytes_and_range() -> impl Strategy<Value = (Vec<u8>, Range<usize>)> {
        let byte = prop_oneof![4 => Just(0u8), 4 => Just(0xff), 1 => any::<u8>()];
        let runs = prop::collection::vec((byte, 1usize..20), 1..8);
        let bytes = runs.prop_map(|runs| runs.into_iter().flat_map(|(byte, len)| vec![byte; len]).collect::<Vec<_>>());
        bytes.prop_flat_map(|bytes| {
            let bits = bytes.len() * 8;
            let range = (0..=bits, 0..=bits).prop_map(|(a, b)| a.min(b)..a.max(b));
            (Just(bytes), range)
        })
    }

    proptest! {
        #[test]
        fn every_bit_of_the_range_is_counted((bytes, range) in bytes_and_range()) {
            let expected = range.clone().filter(|at| bit(&bytes, *at)).count();
            prop_assert_eq!(count_ones(&bytes, range), expected as u64);
        }

        #[test]
        fn the_first_wanted_bit_is_found((bytes, range) in bytes_and_range(), wanted: bool) {
            let expected = range.clone().find(|at| bit(&bytes, *at) == wanted);
            prop_assert_eq!(first(&bytes, range, wanted), expected);
        }
    }
}
