//! Integers of 1 to 64 bits that stand anywhere in a string, highest bit first: what BITFIELD works on.

use forebay_store::parse_integer;

/// `i1` to `i64` or `u1` to `u63`, which replies can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IntegerType {
    signed: bool,
    bits: u32,
}

/// What becomes of a value that does not fit its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overflow {
    /// Its lowest bits stay.
    Wrap,
    /// It becomes the nearest that fits.
    Saturate,
    /// It is not stored.
    Fail,
}

/// The most bytes that an integer touches.
const LONGEST_SPAN: usize = 9;

impl IntegerType {
    /// Reads a type's name; the letter is in lower case.
    pub(super) fn parse(name: &[u8]) -> Option<IntegerType> {
        let (signed, digits, most) = match name {
            [b'i', digits @ ..] => (true, digits, 64),
            [b'u', digits @ ..] => (false, digits, 63),
            _ => return None,
        };
        let bits = parse_integer(digits).filter(|bits| (1..=most).contains(bits))?;
        Some(IntegerType { signed, bits: bits as u32 })
    }

    /// Bits that an integer of the type takes.
    pub(super) fn width(self) -> u32 {
        self.bits
    }

    /// The integer at a bit of `bytes`, behind whose end there are zeros.
    pub(super) fn read(self, bytes: &[u8], at: usize) -> i64 {
        let window = self.window(bytes, at);
        let unsigned = (window << (at % 8)) >> (u128::BITS - self.bits);
        self.of_low_bits(unsigned)
    }

    /// Puts the lowest bits of `value` at a bit of `bytes`, which must reach that far.
    pub(super) fn write(self, bytes: &mut [u8], at: usize, value: i64) {
        let room = u128::BITS - self.bits - (at % 8) as u32;
        let mask = (u128::MAX >> (u128::BITS - self.bits)) << room;
        let window = (self.window(bytes, at) & !mask) | ((value as u128) << room & mask);
        let span = self.span(at);
        bytes[at / 8..][..span].copy_from_slice(&window.to_be_bytes()[..span]);
    }

    /// What is stored when `value` is set; `None` if it does not fit and must not be changed. An unsigned type takes a
    /// negative value for the large one of 64 bits that looks like it. (Where a signed type saturates, redis-server 7.0
    /// takes values close to the least of 64 bits for too large, by an overflow of its own; here they are too small.)
    pub(super) fn fit(self, value: i64, overflow: Overflow) -> Option<i64> {
        let value = if self.signed { i128::from(value) } else { i128::from(value as u64) };
        self.fit_wide(value, overflow)
    }

    /// What is stored when `increment` is added to `old`; `None` if that does not fit and must not be changed.
    pub(super) fn add(self, old: i64, increment: i64, overflow: Overflow) -> Option<i64> {
        self.fit_wide(i128::from(old) + i128::from(increment), overflow)
    }

    fn fit_wide(self, value: i128, overflow: Overflow) -> Option<i64> {
        let (least, most) = self.limits();
        match overflow {
            _ if (least..=most).contains(&value) => Some(value as i64),
            Overflow::Wrap => Some(self.of_low_bits(value as u128)),
            Overflow::Saturate => Some(value.clamp(least, most) as i64),
            Overflow::Fail => None,
        }
    }

    fn limits(self) -> (i128, i128) {
        match self.signed {
            true => (-(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1),
            false => (0, (1 << self.bits) - 1),
        }
    }

    /// The integer that the lowest bits are.
    fn of_low_bits(self, bits: u128) -> i64 {
        let aligned = (bits << (u128::BITS - self.bits)) as i128;
        match self.signed {
            true => (aligned >> (u128::BITS - self.bits)) as i64,
            false => (aligned as u128 >> (u128::BITS - self.bits)) as i64,
        }
    }

    /// The bytes from the one on that the integer begins in, as the highest of a number.
    fn window(self, bytes: &[u8], at: usize) -> u128 {
        let mut window = [0; size_of::<u128>()];
        let touched = bytes.get(at / 8..).unwrap_or_default();
        let len = touched.len().min(LONGEST_SPAN);
        window[..len].copy_from_slice(&touched[..len]);
        u128::from_be_bytes(window)
    }

    /// How many bytes an integer touches.
    fn span(self, at: usize) -> usize {
        (at % 8 + self.bits as usize).div_ceil(8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_type() -> impl Strategy<Value = IntegerType> {
        prop_oneof![
            (1u32..=64).prop_map(|bits| IntegerType { signed: true, bits }),
            (1u32..=63).prop_map(|bits| IntegerType { signed: false, bits }),
        ]
    }

    fn bits_of(bytes: &[u8]) -> Vec<bool> {
        (0..bytes.len() * 8).map(|at| bytes[at / 8] & (0x80 >> (at % 8)) != 0).collect()
    }

    #[test]
    fn names() {
        assert_eq!(IntegerType::parse(b"i64"), Some(IntegerType { signed: true, bits: 64 }));
        assert_eq!(IntegerType::parse(b"u1"), Some(IntegerType { signed: false, bits: 1 }));
        for name in
            ["", "i", "u", "i0", "u0", "i65", "u64", "I8", "x8", "8", "i08", "i-1", "i 8", "u99999999999999999999"]
        {
            assert_eq!(IntegerType::parse(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn values_that_do_not_fit() {
        let (i8, u8) = (IntegerType::parse(b"i8").unwrap(), IntegerType::parse(b"u8").unwrap());
        let i64 = IntegerType::parse(b"i64").unwrap();
        assert_eq!(u8.add(250, 10, Overflow::Wrap), Some(4));
        assert_eq!(u8.add(250, 10, Overflow::Saturate), Some(255));
        assert_eq!(u8.add(5, -10, Overflow::Saturate), Some(0));
        assert_eq!(u8.add(250, 10, Overflow::Fail), None);
        assert_eq!(u8.fit(-1, Overflow::Saturate), Some(255), "minus one looks like 2^64 - 1");
        assert_eq!(u8.fit(257, Overflow::Wrap), Some(1));
        assert_eq!(i8.add(127, 1, Overflow::Wrap), Some(-128));
        assert_eq!(i8.add(-100, -100, Overflow::Saturate), Some(-128));
        assert_eq!(i8.fit(-129, Overflow::Fail), None);
        assert_eq!(i64.add(i64::MAX, 1, Overflow::Wrap), Some(i64::MIN));
        assert_eq!(i64.add(i64::MIN, i64::MIN, Overflow::Saturate), Some(i64::MIN));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_nothing_else_changes(
            integer_type in any_type(),
            at in 0usize..200,
            value: i64,
            before in prop::collection::vec(any::<u8>(), 34),
        ) {
            let stored = integer_type.fit(value, Overflow::Wrap).unwrap();
            let mut after = before.clone();
            integer_type.write(&mut after, at, stored);
            prop_assert_eq!(integer_type.read(&after, at), stored);
            let (before, after) = (bits_of(&before), bits_of(&after));
            let end = at + integer_type.width() as usize;
            prop_assert_eq!(&before[..at], &after[..at]);
            prop_assert_eq!(&before[end..], &after[end..]);
            let expected = (at..end).map(|n| stored >> (end - 1 - n) & 1 == 1).collect::<Vec<_>>();
            prop_assert_eq!(&after[at..end], &expected[..]);
        }

        #[test]
        fn behind_the_end_are_zeros(integer_type in any_type(), at in 0usize..100, bytes in prop::collection::vec(any::<u8>(), 0..8)) {
            let mut longer = bytes.clone();
            longer.resize(32, 0);
            prop_assert_eq!(integer_type.read(&bytes, at), integer_type.read(&longer, at));
        }

        #[test]
        fn what_fits_is_not_changed(integer_type in any_type(), old: i64, increment in -1000i64..1000) {
            let old = integer_type.fit(old, Overflow::Wrap).unwrap();
            let sum = integer_type.add(old, increment, Overflow::Fail);
            prop_assert!(sum.is_none_or(|sum| Some(sum) == old.checked_add(increment)));
            let saturated = integer_type.add(old, increment, Overflow::Saturate).unwrap();
            prop_assert_eq!(saturated.cmp(&old).is_lt(), increment < 0 && saturated != old);
        }
    }
}
