//! Integers as Redis writes them.

/// The longest canonical form: `-9223372036854775808`.
pub const LONGEST_INTEGER: usize = 20;
/// This many digits are an `i64` whatever they are.
const NEVER_TOO_LARGE: usize = 18;

/// Reads `text` as an integer if, and only if, it is the canonical decimal form of one: no sign but a leading `-`, no
/// leading zeros, no `-0`, no spaces, within `i64`. So formatting the result gives `text` back, byte for byte, and
/// the store may keep the number in its place.
pub fn parse_integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [] => None,
        [b'0'] => (!negative).then_some(0),
        [b'0', ..] => None,
        _ if digits.len() <= NEVER_TOO_LARGE => {
            let number = accumulate_few(digits)?;
            Some(if negative { -number } else { number })
        }
        _ if text.len() > LONGEST_INTEGER => None,
        _ => accumulate_many(digits, negative),
    }
}

/// Of no more than [`NEVER_TOO_LARGE`] digits.
#[inline]
fn accumulate_few(digits: &[u8]) -> Option<i64> {
    let mut sum = 0;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        sum = sum * 10 + i64::from(digit);
    }
    Some(sum)
}

/// Counts downwards for negative numbers, since `i64::MIN` has no positive twin.
#[cold]
fn accumulate_many(digits: &[u8], negative: bool) -> Option<i64> {
    digits.iter().try_fold(0i64, |sum, byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        let shifted = sum.checked_mul(10)?;
        if negative { shifted.checked_sub(i64::from(digit)) } else { shifted.checked_add(i64::from(digit)) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_canonical_form_is_an_integer() {
        for text in ["0", "7", "-1", "9223372036854775807", "-9223372036854775808"] {
            assert_eq!(parse_integer(text.as_bytes()), Some(text.parse().unwrap()), "{text}");
        }
        for text in [
            "",
            "-",
            "-0",
            "00",
            "01",
            "-01",
            "+1",
            " 1",
            "1 ",
            "1.0",
            "1e3",
            "9223372036854775808",
            "0x1",
            "99999999999999999999999",
        ] {
            assert_eq!(parse_integer(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_number_round_trips(number: i64, bits in 0..64u32) {
            let number = number >> bits;
            prop_assert_eq!(parse_integer(number.to_string().as_bytes()), Some(number));
        }

        #[test]
        fn what_is_accepted_formats_to_itself(text in "-?[0-9]{0,21}") {
            if let Some(number) = parse_integer(text.as_bytes()) {
                prop_assert_eq!(number.to_string(), text);
            }
        }
    }
}
