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
    let mut formatted = FormattedDouble {
        text: [0; DOUBLE_TEXT_MAX],
        len: 0,
    };
    match value {
        _ if value.is_nan() => formatted.push(b"nan"),
        f64::INFINITY => formatted.push(b"inf"),
        f64::NEG_INFINITY => formatted.push(b"-inf"),
        _ if is_exact_integer(value) => {
            formatted.push(itoa::Buffer::new().format(value as i64).as_bytes())
        }
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
    let exponent = if scientific.negative_exponent {
        -scientific.exponent
    } else {
        scientific.exponent
    };
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
        Self {
            digits: [b'0'; PRECISION as usize],
            seen: 0,
            in_exponent: false,
            negative_exponent: false,
            exponent: 0,
        }
    }
}

impl Write for Scientific {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            match byte {
                b'e' => self.in_exponent = true,
                b'-' => self.negative_exponent = true,
                b'0'..=b'9' if self.in_exponent => {
                    self.exponent = self.exponent * 10 + i32::from(byte - b'0')
                }
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
    let end = digits
        .iter()
        .rposition(|&digit| digit != b'0')
        .map_or(1, |last| last + 1);
    &digits[..end]
}
