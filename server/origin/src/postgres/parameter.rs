//! Which texts can be a parameter of which Postgres type.
//!
//! Every parameter travels as text (`bytea` as bytes) and is cast by the database, many keys' at once. A text that the
//! cast refuses would fail the whole batch, so a text is taken only if the cast surely succeeds; any other key is
//! absent without a query.
//!
//! Integers and UUIDs are taken in the one spelling in which Postgres itself prints them, since a key is the name of a
//! row: were `product:007` the row 7 as well, nobody who changes the row 7 could know that this entry exists.

use sqlx::TypeInfo;
use sqlx::postgres::{PgTypeInfo, PgTypeKind};

/// The longest text that is taken for a number, a date or a time.
const LONGEST_NUMBER: usize = 200;

/// The bytes that a `name` holds; the cast would cut a longer text and find another row.
const LONGEST_NAME: usize = 63;

/// The type of a query's parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ParameterType {
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Numeric,
    Bool,
    Uuid,
    Text,
    Varchar,
    Bpchar,
    Name,
    Bytea,
    Date,
    Timestamp,
    Timestamptz,
    /// An enum by its SQL name, quoted where it must be.
    Enum(String),
}

impl ParameterType {
    /// The type as sqlx names it, or `None` if no capture can be one.
    pub(super) fn of(info: &PgTypeInfo) -> Option<Self> {
        if let PgTypeKind::Enum(_) = info.kind() {
            return Some(ParameterType::Enum(info.name().to_owned()));
        }
        Some(match info.name() {
            "INT2" => ParameterType::Int2,
            "INT4" => ParameterType::Int4,
            "INT8" => ParameterType::Int8,
            "FLOAT4" => ParameterType::Float4,
            "FLOAT8" => ParameterType::Float8,
            "NUMERIC" => ParameterType::Numeric,
            "BOOL" => ParameterType::Bool,
            "UUID" => ParameterType::Uuid,
            "TEXT" => ParameterType::Text,
            "VARCHAR" => ParameterType::Varchar,
            "CHAR" => ParameterType::Bpchar,
            "NAME" => ParameterType::Name,
            "BYTEA" => ParameterType::Bytea,
            "DATE" => ParameterType::Date,
            "TIMESTAMP" => ParameterType::Timestamp,
            "TIMESTAMPTZ" => ParameterType::Timestamptz,
            _ => return None,
        })
    }

    /// The SQL that turns the placeholder `$number`, an array of texts or bytes, into an array of this type.
    pub(super) fn array(&self, number: usize) -> String {
        match self {
            ParameterType::Bytea => format!("${number}::bytea[]"),
            // A text that is none of the labels becomes NULL, and NULL equals no row. The labels are looked up at
            // every query, so that a label that was just added works.
            ParameterType::Enum(_) => format!(
                "ARRAY(SELECT {} FROM unnest(${number}::text[]) WITH ORDINALITY AS __forebay_t(label, n) ORDER BY n)",
                self.label("__forebay_t.label")
            ),
            _ => format!("${number}::text[]::{}[]", self.sql()),
        }
    }

    /// The SQL that turns the placeholder `$number`, one text or bytes, into this type.
    pub(super) fn scalar(&self, number: usize) -> String {
        match self {
            ParameterType::Bytea => format!("(${number}::bytea)"),
            ParameterType::Enum(_) => self.label(&format!("${number}::text")),
            _ => format!("(${number}::text::{})", self.sql()),
        }
    }

    /// Whether `text` can be a value of the type.
    pub(super) fn accepts(&self, text: &[u8]) -> bool {
        if *self == ParameterType::Bytea {
            return true;
        }
        let Ok(text) = std::str::from_utf8(text) else {
            return false;
        };
        match self {
            ParameterType::Int2 => is_canonical::<i16>(text),
            ParameterType::Int4 => is_canonical::<i32>(text),
            ParameterType::Int8 => is_canonical::<i64>(text),
            ParameterType::Float4 => is_float(text, |text| text.parse::<f32>().is_ok_and(is_held_f32)),
            ParameterType::Float8 => is_float(text, |text| text.parse::<f64>().is_ok_and(is_held_f64)),
            ParameterType::Numeric => is_decimal(text),
            ParameterType::Bool => matches!(text, "true" | "false"),
            ParameterType::Uuid => is_uuid(text),
            ParameterType::Name => is_text(text) && text.len() <= LONGEST_NAME,
            ParameterType::Date => split_date(text).is_some_and(|(is_date, rest)| is_date && rest.is_empty()),
            ParameterType::Timestamp => is_timestamp(text, |zone| zone.is_empty()),
            ParameterType::Timestamptz => is_timestamp(text, is_zone),
            _ => is_text(text),
        }
    }

    /// What SQL calls it.
    pub(super) fn sql(&self) -> &str {
        match self {
            ParameterType::Int2 => "int2",
            ParameterType::Int4 => "int4",
            ParameterType::Int8 => "int8",
            ParameterType::Float4 => "float4",
            ParameterType::Float8 => "float8",
            ParameterType::Numeric => "numeric",
            ParameterType::Bool => "bool",
            ParameterType::Uuid => "uuid",
            ParameterType::Text => "text",
            ParameterType::Varchar => "varchar",
            ParameterType::Bpchar => "bpchar",
            ParameterType::Name => "name",
            ParameterType::Bytea => "bytea",
            ParameterType::Date => "date",
            ParameterType::Timestamp => "timestamp",
            ParameterType::Timestamptz => "timestamptz",
            ParameterType::Enum(name) => name,
        }
    }

    /// The SQL that finds the enum's value whose label is the text `label`.
    fn label(&self, label: &str) -> String {
        let name = self.sql();
        format!(
            "(SELECT __forebay_e FROM unnest(enum_range(NULL::{name})) AS __forebay_e \
             WHERE __forebay_e::text = {label})"
        )
    }
}

/// The captures that are accepted for each type, in words, for hints.
pub(super) const ACCEPTED: &str = "integers, numeric, floats, text, uuid, bool, date, timestamps, bytea and enums are; cast another type in the \
     query, as in $1::text::inet";

fn is_text(text: &str) -> bool {
    !text.contains('\0')
}

fn is_canonical<N: std::str::FromStr + ToString>(text: &str) -> bool {
    text.len() <= 20 && text.parse::<N>().is_ok_and(|number| number.to_string() == text)
}

/// Digits, with a sign before them and a fraction after them if need be.
fn is_decimal(text: &str) -> bool {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
    text.len() <= LONGEST_NUMBER && is_digits(whole) && is_digits(fraction)
}

/// A decimal number with an exponent if need be, that the type can hold.
fn is_float(text: &str, is_held: impl Fn(&str) -> bool) -> bool {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
    let is_zero = mantissa.bytes().all(|byte| matches!(byte, b'0' | b'.' | b'-'));
    is_decimal(mantissa) && is_digits(exponent) && text.len() <= LONGEST_NUMBER && (is_zero || is_held(text))
}

/// Postgres refuses numbers that would become infinite or, without being zero, less than the type's least; the
/// subnormal numbers between depend on the platform.
fn is_held_f64(number: f64) -> bool {
    number.is_normal()
}

fn is_held_f32(number: f32) -> bool {
    number.is_normal()
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        })
}

/// Whether `text` begins with a date of the years 1 to 9999, and what follows it.
fn split_date(text: &str) -> Option<(bool, &str)> {
    let (date, rest) = text.split_at_checked(10)?;
    let year = number(date.get(0..4)?)?;
    let month = number(date.get(5..7)?)?;
    let day = number(date.get(8..10)?)?;
    let hyphens = date.as_bytes()[4] == b'-' && date.as_bytes()[7] == b'-';
    let fits = (1..=9999).contains(&year) && (1..=12).contains(&month) && day >= 1 && day <= days(year, month);
    Some((hyphens && fits, rest))
}

fn days(year: u32, month: u32) -> u32 {
    let leaps = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 if leaps => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// A date, a `T` or a blank, hours, minutes and seconds, a fraction if need be, and then a zone if the type has one.
fn is_timestamp(text: &str, is_zone: impl Fn(&str) -> bool) -> bool {
    let Some((true, rest)) = split_date(text) else {
        return false;
    };
    let Some(rest) = rest.strip_prefix(['T', ' ']) else {
        return false;
    };
    let Some((time, rest)) = rest.split_at_checked(8) else {
        return false;
    };
    let parts: Vec<Option<u32>> = time.split(':').map(|part| number(part).filter(|_| part.len() == 2)).collect();
    let [Some(0..=23), Some(0..=59), Some(0..=59)] = parts.as_slice() else {
        return false;
    };
    is_zone(match rest.strip_prefix('.') {
        None => rest,
        Some(fraction) => match fraction.bytes().take_while(u8::is_ascii_digit).count() {
            digits @ 1..=6 => &fraction[digits..],
            _ => return false,
        },
    })
}

/// Nothing, `Z`, or an offset of whole hours or hours and minutes.
fn is_zone(text: &str) -> bool {
    if matches!(text, "" | "Z") {
        return true;
    }
    let Some(offset) = text.strip_prefix(['+', '-']) else {
        return false;
    };
    let (hours, minutes) = offset.split_once(':').unwrap_or((offset, "00"));
    let in_range = number(hours).is_some_and(|hours| hours <= 14) && number(minutes).is_some_and(|m| m <= 59);
    hours.len() == 2 && minutes.len() == 2 && in_range
}

fn number(digits: &str) -> Option<u32> {
    if is_digits(digits) { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(of: ParameterType, accepted: &[&str], refused: &[&str]) {
        for text in accepted {
            assert!(of.accepts(text.as_bytes()), "{of:?} refuses {text}");
        }
        for text in refused {
            assert!(!of.accepts(text.as_bytes()), "{of:?} accepts {text}");
        }
    }

    #[test]
    fn integers_are_canonical_and_in_range() {
        check(ParameterType::Int2, &["0", "-1", "32767"], &["32768", "007", "+1", "-0", "", "abc", " 1", "1.0"]);
        check(ParameterType::Int4, &["2147483647"], &["2147483648"]);
        check(ParameterType::Int8, &["-9223372036854775808"], &["9223372036854775808", "99999999999999999999999"]);
    }

    #[test]
    fn numbers_have_digits_on_both_sides_of_the_point() {
        check(
            ParameterType::Numeric,
            &["1", "-1.50", "123456789012345678901234567890.1"],
            &["1.", ".5", "1e3", "NaN", "--1"],
        );
        check(
            ParameterType::Float8,
            &["1", "1.5e300", "-2E-5", "0", "0e9999", "-0.0"],
            &["1e400", "1e-400", "nan", "inf", "e5", "1e"],
        );
        check(ParameterType::Float4, &["1e38"], &["1e39", "1e-50"]);
    }

    #[test]
    fn dates_are_of_the_calendar() {
        check(
            ParameterType::Date,
            &["2024-02-29", "0001-01-01", "9999-12-31"],
            &["2023-02-29", "2023-13-01", "2023-00-01", "2023-1-1", "0000-01-01", "2023-01-01 ", "20230101é"],
        );
        check(
            ParameterType::Timestamp,
            &["2024-01-01 00:00:00", "2024-01-01T23:59:59.123456"],
            &[
                "2024-01-01",
                "2024-01-01 24:00:00",
                "2024-01-01 00:00:60",
                "2024-01-01 00:00:00Z",
                "2024-01-01 00:00:00.",
            ],
        );
        check(
            ParameterType::Timestamptz,
            &["2024-01-01 00:00:00", "2024-01-01T00:00:00Z", "2024-01-01 00:00:00+02", "2024-01-01 00:00:00.5-05:30"],
            &["2024-01-01 00:00:00+99", "2024-01-01 00:00:00 Mars/Olympus", "2024-01-01 00:00:00+2"],
        );
    }

    #[test]
    fn the_rest_is_what_postgres_prints() {
        check(
            ParameterType::Uuid,
            &["123e4567-e89b-12d3-a456-426614174000"],
            &["123E4567-e89b-12d3-a456-426614174000", "123e4567e89b12d3a456426614174000", "x"],
        );
        check(ParameterType::Bool, &["true", "false"], &["t", "1", "TRUE", ""]);
        check(ParameterType::Text, &["", "é", "any: thing"], &["a\0b"]);
        check(ParameterType::Name, &["pg_class"], &[&"x".repeat(64)]);
        assert!(!ParameterType::Text.accepts(b"\xff") && ParameterType::Bytea.accepts(b"\xff\0"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,30}", dated in "[0-9]{4}-[0-9]{2}-[0-9]{2}[T ]?[0-9:.+Zé-]{0,20}") {
            for of in [ParameterType::Date, ParameterType::Timestamptz, ParameterType::Float8, ParameterType::Numeric, ParameterType::Uuid] {
                of.accepts(text.as_bytes());
                of.accepts(dated.as_bytes());
            }
        }
    }
}
