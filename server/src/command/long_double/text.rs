//! Reading numbers: decimals (`-1.5e3`), hexadecimals (`0x1.8p1`), infinities.

use super::natural::Natural;
use super::{LongDouble, Magnitude};

/// The longest text that is read (Redis' limit); also bounds the time that reading takes.
const LONGEST_TEXT: usize = 5 * 1024 - 1;

/// Numbers whose first digit stands for 10^this or more are too large, whatever the other digits are.
const TOO_LARGE: i64 = 4_940;

/// Numbers whose first digit stands for 10^this or less are too small.
const TOO_SMALL: i64 = -4_960;

/// An exponent beyond this says no more than this one does, and cannot overflow with the digits counted in.
const FARTHEST_EXPONENT: i64 = 1_000_000;

pub(super) fn parse(text: &[u8]) -> Option<LongDouble> {
    if text.len() > LONGEST_TEXT {
        return None;
    }
    let (negative, unsigned) = match text {
        [b'-', unsigned @ ..] => (true, unsigned),
        [b'+', unsigned @ ..] => (false, unsigned),
        unsigned => (false, unsigned),
    };
    let magnitude = match unsigned {
        [b'0', b'x' | b'X', digits @ ..] => hexadecimal(digits)?,
        word if is_infinity(word) => Magnitude::Infinite,
        digits => decimal(digits)?,
    };
    Some(LongDouble { negative, magnitude })
}

fn is_infinity(word: &[u8]) -> bool {
    word.eq_ignore_ascii_case(b"inf") || word.eq_ignore_ascii_case(b"infinity")
}

fn decimal(text: &[u8]) -> Option<Magnitude> {
    let (digits, exponent) = split_exponent(text, b'e')?;
    let (whole, fraction) = split_point(digits);
    let significant = Significant::read(whole, fraction, 10)?;
    if significant.natural.is_zero() {
        return Some(Magnitude::ZERO);
    }
    let exponent = exponent - fraction.len() as i64;
    let first = exponent + significant.len as i64 - 1;
    if first >= TOO_LARGE || first <= TOO_SMALL {
        return None;
    }
    scaled(significant.natural, exponent as i32).other_than_zero()
}

/// `digits` × 10^`exponent`, rounded.
fn scaled(digits: Natural, exponent: i32) -> Magnitude {
    let power = exponent.unsigned_abs();
    if exponent >= 0 {
        let mut product = digits;
        powers_of_five(power).for_each(|factor| product.multiply_add(factor, 0));
        return rounded(&product, exponent, false);
    }
    // Three bits a power are more than log2(5), so that the quotient has the bits to be rounded, and to spare.
    let shift = u128::BITS + 3 * power;
    let mut quotient = digits.shifted_left(shift as usize);
    let mut more = false;
    for divisor in powers_of_five(power) {
        more |= quotient.divide(divisor) != 0;
    }
    rounded(&quotient, exponent - shift as i32, more)
}

/// Factors that fit 32 bits and multiply to 5^`power`.
fn powers_of_five(power: u32) -> impl Iterator<Item = u32> {
    const LARGEST: u32 = 13;
    let whole = std::iter::repeat_n(5u32.pow(LARGEST), (power / LARGEST) as usize);
    whole.chain(std::iter::once(5u32.pow(power % LARGEST)))
}

fn rounded(natural: &Natural, exponent: i32, more: bool) -> Magnitude {
    let (bits, dropped, more_dropped) = natural.highest_bits();
    Magnitude::rounded(bits, exponent + dropped as i32, more || more_dropped)
}

fn hexadecimal(text: &[u8]) -> Option<Magnitude> {
    let (digits, exponent) = split_exponent(text, b'p')?;
    let (whole, fraction) = split_point(digits);
    let significant = Significant::read(whole, fraction, 16)?;
    if significant.natural.is_zero() {
        return Some(Magnitude::ZERO);
    }
    let exponent = exponent - 4 * fraction.len() as i64;
    rounded(&significant.natural, exponent as i32, false).other_than_zero()
}

/// The digits around a point, as one number.
struct Significant {
    natural: Natural,
    /// Digits from the first that is not zero on.
    len: usize,
}

impl Significant {
    /// `None` if there is no digit, or something else.
    fn read(whole: &[u8], fraction: &[u8], base: u32) -> Option<Significant> {
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let mut significant = Significant { natural: Natural::default(), len: 0 };
        for byte in whole.iter().chain(fraction) {
            let digit = char::from(*byte).to_digit(base)?;
            significant.natural.multiply_add(base, digit);
            significant.len += usize::from(!significant.natural.is_zero());
        }
        Some(significant)
    }
}

impl Magnitude {
    /// What a text other than zero became too small or too large to be is a fault of the text.
    fn other_than_zero(self) -> Option<Magnitude> {
        match self {
            Magnitude::ZERO | Magnitude::Infinite => None,
            other => Some(other),
        }
    }
}

/// Cuts an exponent off, as `mark` (in either case) and an integer. Without one it is 0.
fn split_exponent(text: &[u8], mark: u8) -> Option<(&[u8], i64)> {
    let Some(at) = text.iter().position(|byte| byte.eq_ignore_ascii_case(&mark)) else {
        return Some((text, 0));
    };
    let (negative, digits) = match &text[at + 1..] {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return None;
    }
    let amount = digits.iter().try_fold(0i64, |amount, byte| {
        let digit = char::from(*byte).to_digit(10)?;
        Some((amount * 10 + i64::from(digit)).min(FARTHEST_EXPONENT))
    })?;
    Some((&text[..at], if negative { -amount } else { amount }))
}

fn split_point(digits: &[u8]) -> (&[u8], &[u8]) {
    match digits.iter().position(|byte| *byte == b'.') {
        Some(at) => (&digits[..at], &digits[at + 1..]),
        None => (digits, &[]),
    }
}
