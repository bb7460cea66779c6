//! The numbers of headers, which Redis reads more strictly than most parsers do.

/// A number that stands at the start of `line` and is ended by `\r` and any one byte: its value, and the offset of
/// what follows. `None` means only that the short way does not apply: the line may be incomplete, malformed, or a
/// number of a size that no ordinary header has.
#[inline]
pub(crate) fn ordinary(line: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (index, &byte) in line.iter().take(ORDINARY_DIGITS + 1).enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            let canonical = index == 1 || (index > 1 && line[0] != b'0');
            let complete = byte == b'\r' && line.len() > index + 1;
            return (canonical && complete).then_some((value, index + 2));
        }
        value = value * 10 + usize::from(digit);
    }
    None
}

/// Nine digits fit any `usize`, and no header of an ordinary request has more.
const ORDINARY_DIGITS: usize = 9;

/// A whole number of 64 bits in its one canonical spelling: no sign but `-`, no leading zero, not `-0`.
pub(crate) fn canonical(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let is_canonical = match digits {
        [b'0'] => text.len() == 1,
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if !is_canonical {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_spellings_only() {
        for (text, value) in [
            ("0", Some(0)),
            ("7", Some(7)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-9223372036854775809", None),
            ("99999999999999999999999", None),
            ("", None),
            ("-", None),
            ("-0", None),
            ("00", None),
            ("01", None),
            ("+1", None),
            (" 1", None),
            ("1 ", None),
            ("1x", None),
        ] {
            assert_eq!(canonical(text.as_bytes()), value, "{text:?}");
        }
    }

    #[test]
    fn the_short_way_agrees_with_the_long_one() {
        for text in ["0", "9", "10", "999999999", "00", "01", "", "-1", "1x", "1234567890"] {
            let line = format!("{text}\r\nrest");
            if let Some((value, next)) = ordinary(line.as_bytes()) {
                assert_eq!(canonical(text.as_bytes()), Some(value as i64), "{text:?}");
                assert_eq!(&line[next..], "rest");
            } else {
                assert!(!matches!(text, "0" | "9" | "10" | "999999999"), "{text:?}");
            }
        }
        for unfinished in ["", "1", "1\r"] {
            assert_eq!(ordinary(unfinished.as_bytes()), None);
        }
    }
}
