//! Natural numbers of any size, as far as reading and writing decimals needs them.

use std::fmt;

use smallvec::SmallVec;

/// A number in digits of 32 bits, the least first, the last not zero.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Natural {
    digits: SmallVec<[u32; 16]>,
}

impl From<u64> for Natural {
    fn from(number: u64) -> Natural {
        let mut natural = Natural { digits: SmallVec::from_slice(&[number as u32, (number >> 32) as u32]) };
        natural.trim();
        natural
    }
}

impl Natural {
    pub(super) fn is_zero(&self) -> bool {
        self.digits.is_empty()
    }

    /// Multiplies by `factor` and adds `summand`.
    pub(super) fn multiply_add(&mut self, factor: u32, summand: u32) {
        let mut carry = u64::from(summand);
        for digit in &mut self.digits {
            let product = u64::from(*digit) * u64::from(factor) + carry;
            *digit = product as u32;
            carry = product >> 32;
        }
        if carry > 0 {
            self.digits.push(carry as u32);
        }
    }

    /// Divides, rounding down, and answers the remainder.
    pub(super) fn divide(&mut self, divisor: u32) -> u32 {
        let mut remainder = 0;
        for digit in self.digits.iter_mut().rev() {
            let dividend = remainder << 32 | u64::from(*digit);
            *digit = (dividend / u64::from(divisor)) as u32;
            remainder = dividend % u64::from(divisor);
        }
        self.trim();
        remainder as u32
    }

    /// Times 2^`by`.
    pub(super) fn shifted_left(&self, by: usize) -> Natural {
        let (whole, part) = (by / 32, by % 32);
        let mut digits = SmallVec::from_elem(0, whole);
        digits.extend_from_slice(&self.digits);
        let mut shifted = Natural { digits };
        shifted.multiply_add(1 << part, 0);
        shifted.trim();
        shifted
    }

    /// The highest bits, as many as fit; how many more there are, and whether one of those is set.
    pub(super) fn highest_bits(&self) -> (u128, usize, bool) {
        let (low, high) = self.digits.split_at(self.digits.len().saturating_sub(4));
        let bits = high.iter().rev().fold(0u128, |bits, digit| bits << 32 | u128::from(*digit));
        (bits, low.len() * 32, low.iter().any(|digit| *digit != 0))
    }

    fn trim(&mut self) {
        let len = self.digits.iter().rposition(|digit| *digit != 0).map_or(0, |last| last + 1);
        self.digits.truncate(len);
    }
}

impl fmt::Display for Natural {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const GROUP: usize = 9;
        let mut left = self.clone();
        let mut groups = Vec::new();
        while !left.is_zero() {
            groups.push(left.divide(10u32.pow(GROUP as u32)));
        }
        write!(f, "{}", groups.pop().unwrap_or(0))?;
        groups.iter().rev().try_for_each(|group| write!(f, "{group:0GROUP$}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn natural(number: u128) -> Natural {
        let mut natural = Natural::from((number >> 64) as u64).shifted_left(64);
        let mut low = Natural::from(number as u64).digits;
        low.resize(2, 0);
        natural.digits.resize(natural.digits.len().max(2), 0);
        natural.digits[..2].copy_from_slice(&low);
        natural.trim();
        natural
    }

    proptest! {
        #[test]
        fn arithmetic_is_that_of_integers(number: u128, factor in 1u32.., summand: u32, shift in 0usize..100) {
            prop_assert_eq!(natural(number).to_string(), number.to_string());
            let mut quotient = natural(number);
            let remainder = quotient.divide(factor);
            prop_assert_eq!(quotient.to_string(), (number / u128::from(factor)).to_string());
            prop_assert_eq!(u128::from(remainder), number % u128::from(factor));
            quotient.multiply_add(factor, remainder);
            prop_assert_eq!(&quotient, &natural(number));
            let small = number >> 100;
            prop_assert_eq!(natural(small).shifted_left(shift).to_string(), (small << shift).to_string());
            let mut sum = natural(number >> 33);
            sum.multiply_add(factor, summand);
            prop_assert_eq!(sum.to_string(), ((number >> 33) * u128::from(factor) + u128::from(summand)).to_string());
        }

        #[test]
        fn the_highest_bits_are_told_apart_from_the_rest(number in 1u128.., shift in 0usize..300) {
            let shifted = natural(number).shifted_left(shift);
            let (bits, dropped, more) = shifted.highest_bits();
            let exact = natural(bits).shifted_left(dropped);
            prop_assert_eq!(exact == shifted, !more);
            prop_assert!(dropped == 0 || bits >> 96 > 0, "at least 97 bits where there are more");
        }
    }
}
