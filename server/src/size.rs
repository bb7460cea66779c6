//! Sizes in bytes as people write them: `100mb`, `64k`, `1g`.

/// Units, by the factor that they stand for: a bare letter counts in thousands, with a `b` behind it in 1024s.
const UNITS: [(&str, u64); 8] = [
    ("", 1),
    ("b", 1),
    ("k", 1000),
    ("kb", 1 << 10),
    ("m", 1_000_000),
    ("mb", 1 << 20),
    ("g", 1_000_000_000),
    ("gb", 1 << 30),
];

/// The number of bytes that `text` says, in Redis' notation; `None` for anything else, and for more than fits.
pub fn parse_size(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn units_count_in_thousands_or_in_powers_of_two() {
        for (text, bytes) in [
            ("0", 0),
            ("17b", 17),
            ("2k", 2_000),
            ("2kb", 2_048),
            ("3M", 3_000_000),
            ("3Mb", 3 << 20),
            ("1g", 1_000_000_000),
            ("1GB", 1 << 30),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_or_does_not_fit_is_none() {
        for text in ["", "mb", "-1", "1.5gb", "1 gb", "1tb", "18446744073709551616", "99999999999gb"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
