//! The numbers of INCRBYFLOAT and HINCRBYFLOAT: C's `long double` as x86-64 has it, since its roundings show in replies.
//!
//! A number has 64 bits of mantissa and 15 of exponent (the "double extended" format of IEEE 754, as Intel's manual
//! describes it), reading and adding round to the nearest, ties to even, and the text has 17 digits behind the point,
//! less the zeros at its end. Rust has no such type, so this is integer arithmetic.

mod natural;
mod text;

use std::fmt;

use natural::Natural;

/// Bits of the mantissa.
const PRECISION: i32 = 64;

/// The exponent of the last mantissa bit of the smallest numbers, which have fewer bits than [`PRECISION`].
const MIN_EXPONENT: i32 = -16_445;

/// The exponent of the last mantissa bit of the largest numbers.
const MAX_EXPONENT: i32 = 16_320;

/// Digits behind the point in the text of a number.
const DECIMALS: usize = 17;

/// A number, or an infinity. There is no NaN: what would be one is no number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LongDouble {
    negative: bool,
    magnitude: Magnitude,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Magnitude {
    /// `mantissa` × 2^`exponent`. The highest bit of the mantissa is set, unless the exponent is the least.
    Finite {
        mantissa: u64,
        exponent: i32,
    },
    Infinite,
}

impl LongDouble {
    pub(super) const ZERO: LongDouble = LongDouble { negative: false, magnitude: Magnitude::ZERO };

    /// Reads a decimal or hexadecimal number or an infinity, as C's `strtold` does, but for NaN, white space, and what
    /// is too large or too small to be a number other than zero.
    pub(super) fn parse(text: &[u8]) -> Option<LongDouble> {
        text::parse(text)
    }

    pub(super) fn is_finite(self) -> bool {
        self.magnitude != Magnitude::Infinite
    }

    /// The sum, rounded; `None` if it is not a finite number.
    pub(super) fn checked_add(self, other: LongDouble) -> Option<LongDouble> {
        let sum = self.finite()?.plus(other.finite()?);
        sum.is_finite().then_some(sum)
    }

    fn finite(self) -> Option<Finite> {
        match self.magnitude {
            Magnitude::Finite { mantissa, exponent } => Some(Finite { negative: self.negative, mantissa, exponent }),
            Magnitude::Infinite => None,
        }
    }
}

impl From<i64> for LongDouble {
    fn from(number: i64) -> LongDouble {
        let magnitude = Magnitude::rounded(u128::from(number.unsigned_abs()), 0, false);
        LongDouble { negative: number < 0, magnitude }
    }
}

/// Rounded to 17 digits behind the point, without the zeros at the end: `3`, `-0.1`, `1.25`.
impl fmt::Display for LongDouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.finite() {
            Some(finite) => finite.fmt(f),
            None => f.write_str(if self.negative { "-inf" } else { "inf" }),
        }
    }
}

impl Magnitude {
    const ZERO: Magnitude = Magnitude::Finite { mantissa: 0, exponent: MIN_EXPONENT };

    /// `bits` × 2^`exponent`, rounded to what a mantissa holds. With `more`, the value lies above that by less than one
    /// of its last bits; then there must be more bits than a mantissa has.
    fn rounded(bits: u128, exponent: i32, more: bool) -> Magnitude {
        if bits == 0 {
            return Magnitude::ZERO;
        }
        let width = (u128::BITS - bits.leading_zeros()) as i32;
        let least = (exponent + width - PRECISION).max(MIN_EXPONENT);
        let mantissa = match u32::try_from(least - exponent) {
            Ok(surplus) => shifted_to_even(bits, surplus, more),
            Err(_) => bits << (exponent - least),
        };
        match u64::try_from(mantissa) {
            Ok(mantissa) if least <= MAX_EXPONENT => Magnitude::Finite { mantissa, exponent: least },
            Err(_) if least < MAX_EXPONENT => Magnitude::Finite { mantissa: 1 << (PRECISION - 1), exponent: least + 1 },
            _ => Magnitude::Infinite,
        }
    }
}

/// `bits` / 2^`by`, rounded to the nearest integer, a tie to the even one. With `more`, the value to be divided lies
/// above `bits` by less than one.
fn shifted_to_even(bits: u128, by: u32, more: bool) -> u128 {
    if by == 0 || by > u128::BITS {
        return if by == 0 { bits } else { 0 };
    }
    let kept = bits.checked_shr(by).unwrap_or(0);
    let half = 1 << (by - 1);
    let cut = bits & (half | (half - 1));
    let up = cut > half || (cut == half && (more || kept & 1 == 1));
    kept + u128::from(up)
}

/// A number that is no infinity.
#[derive(Clone, Copy)]
struct Finite {
    negative: bool,
    mantissa: u64,
    exponent: i32,
}

impl Finite {
    /// Bits behind the mantissa in a sum: all that a `u128` has room for, less one for the carry.
    const GUARD: u32 = 63;

    fn plus(self, other: Finite) -> LongDouble {
        let (high, low) = if self.exponent >= other.exponent { (self, other) } else { (other, self) };
        let left = u128::from(high.mantissa) << Finite::GUARD;
        let distance = (high.exponent - low.exponent) as u32;
        let unshifted = u128::from(low.mantissa) << Finite::GUARD;
        let right = unshifted.checked_shr(distance).unwrap_or(0);
        let cut = right.checked_shl(distance) != Some(unshifted) && unshifted != 0;
        let (bits, negative) = match (high.negative == low.negative, left >= right) {
            (true, _) => (left + right, high.negative),
            // What was cut off is missing from the subtrahend, so the difference lies a little below this one.
            (false, true) => (left - right - u128::from(cut), high.negative && left > right),
            (false, false) => (right - left, low.negative),
        };
        let magnitude = Magnitude::rounded(bits, high.exponent - Finite::GUARD as i32, cut);
        LongDouble { negative, magnitude }
    }

    fn fmt(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match u32::try_from(-self.exponent) {
            Ok(places) => self.fmt_with_fraction(places, f),
            Err(_) => {
                let sign = if self.negative { "-" } else { "" };
                write!(f, "{sign}{}", Natural::from(self.mantissa).shifted_left(self.exponent as usize))
            }
        }
    }

    /// Writes a number whose last `places` bits are behind the point.
    fn fmt_with_fraction(self, places: u32, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SCALE: u128 = 10u128.pow(DECIMALS as u32);
        let scaled = shifted_to_even(u128::from(self.mantissa) * SCALE, places, false);
        if self.negative && scaled != 0 {
            f.write_str("-")?;
        }
        let (whole, fraction) = (scaled / SCALE, scaled % SCALE);
        write!(f, "{whole}")?;
        if fraction == 0 {
            return Ok(());
        }
        let digits = format!("{fraction:0DECIMALS$}");
        write!(f, ".{}", digits.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests;
