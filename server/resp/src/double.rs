use std::fmt::{self, Write};

/// The most bytes that a [`FormattedDouble`] has: sign, 17 digits, point and a three-digit exponent.
pub const DOUBLE_TEXT_MAX: usize = 24;

/// The text of a double, kept in place.
#[derive(Debug, Clone, Copy)]
pub struct FormattedDouble {
    text: [u8; DOUBLE_TEXT_MAX],
    len: u8,
}

/// How redis-server 7.0.15 writes a double (`ZSCORE`, RESP3's `,`): C's `%.17g`, with `inf`, `-inf` and `nan`.
///
/// Seventeen digits name every double exactly but are seldom the shortest: 0.1 is `0.10000000000000001`.
pub fn format_double(value: f64) -> FormattedDouble {
    let mut formatted = FormattedDouble { text: [0; DOUBLE_TEXT_MAX], len: 0 };
    match value {
        _ if value.is_nan() => formatted.push(b"nan"),
        f64::INFINITY => formatted.push(b"inf"),
        f64::NEG_INFINITY => formatted.push(b"-inf"),
        _ if is_exact_integer(value) => formatted.push(itoa::Buffer::new().format(value as i64).as_bytes()),
        _ => formatted.push_general(value),
    }
    formatted
}

/// Whole numbers of at most 15 digits have one spelling, and it needs no float formatting. Not so `-0`.
fn is_exact_integer(value: f64) -> bool {
    value.abs() < 1e15 && value.trunc() == value && (value != 0.0 || value.is_sign_positive())
}

impl FormattedDouble {
    pub fn as_bytes(&self) -> &[u8] {
        &self.text[..usize::from(self.len)]
    }

    /// `%.17g`: decimal notation for exponents from −4 to 16, scientific beyond, zeros at the end left out.
    fn push_general(&mut self, value: f64) {
        let (digits, exponent) = significant_digits(value);
        let digits = trim_zeros(&digits);
        if value.is_sign_negative() {
            self.push(b"-");
        }
        match exponent {
            -4..=-1 => {
                self.push(b"0.");
                self.push(&b"000"[..exponent.unsigned_abs() as usize - 1]);
                self.push(digits);
            }
            0..PRECISION => self.push_with_point(digits, exponent as usize + 1),
            _ => {
                self.push_with_point(digits, 1);
                self.push_exponent(exponent);
            }
        }
    }

    /// `digits` with a point after the first `whole` of them, zeros standing in where there are fewer.
    fn push_with_point(&mut self, digits: &[u8], whole: usize) {
        if digits.len() > whole {
            self.push(&digits[..whole]);
            self.push(b".");
            self.push(&digits[whole..]);
        } else {
            self.push(digits);
            self.push(&[b'0'; PRECISION as usize][..whole - digits.len()]);
        }
    }

    /// At least two digits, as C has it.
    fn push_exponent(&mut self, exponent: i32) {
        self.push(if exponent < 0 { b"e-" } else { b"e+" });
        if exponent.abs() < 10 {
            self.push(b"0");
        }
        self.push(itoa::Buffer::new().format(exponent.abs()).as_bytes());
    }

    fn push(&mut self, bytes: &[u8]) {
        let start = usize::from(self.len);
        self.text[start..start + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len() as u8;
    }
}

impl AsRef<[u8]> for FormattedDouble {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// Significant digits of `%.17g`.
const PRECISION: i32 = 17;

/// The first 17 digits of a finite number, correctly rounded, and the decimal exponent of the first of them.
fn significant_digits(value: f64) -> ([u8; PRECISION as usize], i32) {
    let mut scientific = Scientific::default();
    // Writing into a `Scientific` cannot fail.
    let _ = write!(scientific, "{:.16e}", value.abs());
    let exponent = if scientific.negative_exponent { -scientific.exponent } else { scientific.exponent };
    (scientific.digits, exponent)
}

/// Takes `d.dddde-xx` apart as it is being written.
struct Scientific {
    digits: [u8; PRECISION as usize],
    seen: usize,
    in_exponent: bool,
    negative_exponent: bool,
    exponent: i32,
}

impl Default for Scientific {
    fn default() -> Self {
        Self { digits: [b'0'; PRECISION as usize], seen: 0, in_exponent: false, negative_exponent: false, exponent: 0 }
    }
}

impl Write for Scientific {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            match byte {
                b'e' => self.in_exponent = true,
                b'-' => self.negative_exponent = true,
                b'0'..=b'9' if self.in_exponent => self.exponent = self.exponent * 10 + i32::from(byte - b'0'),
                b'0'..=b'9' if self.seen < self.digits.len() => {
                    self.digits[self.seen] = byte;
                    self.seen += 1;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// At least one digit stays.
fn trim_zeros(digits: &[u8]) -> &[u8] {
    let end = digits.iter().rposition(|&digit| digit != b'0').map_or(1, |last| last + 1);
    &digits[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: f64) -> String {
        String::from_utf8(format_double(value).as_bytes().to_vec()).unwrap()
    }

    /// The right-hand side is what C's `printf("%.17g")` gave.
    #[test]
    fn as_c_prints_them() {
        let cases = [
            (0.0, "0"),
            (-0.0, "-0"),
            (0.1, "0.10000000000000001"),
            (-0.1, "-0.10000000000000001"),
            (0.5, "0.5"),
            (1.0, "1"),
            (-1.0, "-1"),
            (3.5, "3.5"),
            (100.0, "100"),
            (100000000000000.0, "100000000000000"),
            (999999999999999.0, "999999999999999"),
            (-999999999999999.0, "-999999999999999"),
            (1000000000000000.0, "1000000000000000"),
            (1e+16, "10000000000000000"),
            (1e+17, "1e+17"),
            (1.5e+17, "1.5e+17"),
            (-1e+17, "-1e+17"),
            (1.2345678901234568e+17, "1.2345678901234568e+17"),
            (9007199254740992.0, "9007199254740992"),
            (1e+22, "1e+22"),
            (1e+100, "1e+100"),
            (0.0001, "0.0001"),
            (1e-05, "1.0000000000000001e-05"),
            (5e-05, "5.0000000000000002e-05"),
            (0.00012345, "0.00012344999999999999"),
            (-0.00012345, "-0.00012344999999999999"),
            (1.7976931348623157e+308, "1.7976931348623157e+308"),
            (-1.7976931348623157e+308, "-1.7976931348623157e+308"),
            (5e-324, "4.9406564584124654e-324"),
            (2.2250738585072014e-308, "2.2250738585072014e-308"),
            (0.30000000000000004, "0.30000000000000004"),
            (0.6666666666666666, "0.66666666666666663"),
            (33.333333333333336, "33.333333333333336"),
            (9.5367431640625e-07, "9.5367431640625e-07"),
            (1.152921504606847e+18, "1.152921504606847e+18"),
            (1.0000000000000002, "1.0000000000000002"),
            (4.35, "4.3499999999999996"),
            (3.0000000000000004, "3.0000000000000004"),
            (1125899906842623.9, "1125899906842623.9"),
            (1125899906842623.6, "1125899906842623.6"),
            (281474976710655.9, "281474976710655.91"),
            (1.8014398509481988e+16, "18014398509481988"),
            (3.602879701896397e+16, "36028797018963968"),
            (-1.989032661366619e+244, "-1.989032661366619e+244"),
            (3.980498358697587e-249, "3.980498358697587e-249"),
        ];
        for (value, expected) in cases {
            assert_eq!(text(value), expected);
        }
    }

    #[test]
    fn what_is_no_number() {
        assert_eq!(text(f64::INFINITY), "inf");
        assert_eq!(text(f64::NEG_INFINITY), "-inf");
        assert_eq!(text(f64::NAN), "nan");
        assert_eq!(text(-f64::NAN), "nan");
    }

    proptest::proptest! {
        #[test]
        fn every_double_is_read_back(bits: u64) {
            let value = f64::from_bits(bits);
            let shown = text(value);
            proptest::prop_assert!(shown.len() <= DOUBLE_TEXT_MAX);
            if !value.is_nan() {
                proptest::prop_assert_eq!(shown.parse::<f64>().unwrap().to_bits(), bits);
            }
        }

        #[test]
        fn whole_numbers_are_plain(value in -(1i64 << 53)..1 << 53) {
            let shown = text(value as f64);
            proptest::prop_assert_eq!(shown, value.to_string());
        }
    }
}
