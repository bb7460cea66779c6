use proptest::prelude::*;

use super::*;

fn sum(left: &str, right: &str) -> Option<String> {
    let parse = |text: &str| LongDouble::parse(text.as_bytes());
    Some(parse(left)?.checked_add(parse(right)?)?.to_string())
}

/// The right-hand side is what a C program printed on x86-64, compiled by gcc 12 with glibc 2.36: the sum by `%.17Lf`,
/// without the zeros at its end.
#[test]
fn sums_are_those_of_the_hardware() {
    let cases = [
        ("0", "0", "0"),
        ("1", "0.25", "1.25"),
        ("10.5", "0.1", "10.6"),
        ("3.0e3", "0", "3000"),
        ("1.23", "0", "1.23"),
        ("5.0e3", "2.0e2", "5200"),
        ("17179869184", "1.5", "17179869185.5"),
        ("1", "-1.1", "-0.1"),
        ("0.1", "0.2", "0.3"),
        ("0.024390243902439025", "-0.024390243902439025", "0"),
        ("1e-17", "0", "0.00000000000000001"),
        ("5e-18", "0", "0"),
        ("1.5e-17", "0", "0.00000000000000002"),
        ("2.5e-17", "0", "0.00000000000000002"),
        ("-1e-18", "0", "0"),
        ("-3.14159265358979323846", "0", "-3.14159265358979324"),
        ("2.71828182845904523536", "3.14159265358979323846", "5.85987448204883847"),
        ("9223372036854775807", "1", "9223372036854775808"),
        ("18446744073709551615", "0", "18446744073709551615"),
        ("18446744073709551615", "1", "18446744073709551616"),
        ("18446744073709551615", "0.5", "18446744073709551616"),
        ("18446744073709551616", "1", "18446744073709551616"),
        ("9007199254740993", "0.1", "9007199254740993.099609375"),
        ("123456789012345678", "0.1", "123456789012345678.1015625"),
        ("1e18", "0.123456789", "1000000000000000000.125"),
        ("1e20", "-1e20", "0"),
        ("1e22", "1e3", "10000000000000000001024"),
        ("1e30", "1", "1000000000000000000024696061952"),
        ("99999999999999999999", "1", "100000000000000000000"),
        ("1e19", "0.5", "10000000000000000000"),
        ("0.99999999999999999", "0.00000000000000001", "1"),
        ("1e-4932", "0", "0"),
        ("3.6e-4951", "0", "0"),
        ("0x1.8p1", "0", "3"),
        ("0x.8", "0x10", "16.5"),
        ("-0x1P-3", "0", "-0.125"),
        (".5", "5.", "5.5"),
        ("+7", "-0", "7"),
        ("1e0", "1E+1", "11"),
        ("100000000000000000000000000000", "0.00000000000000001", "99999999999999999997315645440"),
        ("0.3333333333333333333333", "0.6666666666666666666667", "1"),
        (
            "1e100",
            "1e80",
            "9999999999999999999669353532207342619498699019828496079271391541752018669482644324418977840117055488",
        ),
    ];
    for (left, right, expected) in cases {
        assert_eq!(sum(left, right).as_deref(), Some(expected), "{left} + {right}");
    }
}

#[test]
fn what_is_no_number_is_refused() {
    let texts = [
        "",
        " 1",
        "1 ",
        "+",
        "-",
        ".",
        "1e",
        "1e+",
        "e1",
        "--1",
        "1.2.3",
        "0x",
        "0x.",
        "0xg",
        "0x1p",
        "nan",
        "infin",
        "1_0",
        "1e5000",
        "-1e5000",
        "1e-5000",
        "1e99999999999999999999",
        "1e-99999999999999999999",
        "0x1p16384",
        "0x1p-16447",
        "1\0",
    ];
    for text in texts {
        assert_eq!(LongDouble::parse(text.as_bytes()), None, "{text:?}");
    }
    assert_eq!(LongDouble::parse(&[b'1'; 5 * 1024]), None);
}

#[test]
fn zero_has_any_exponent() {
    for text in ["0", "-0", "0e99999999999999999999", "0.0e-9999", "0x0p99999", "0000.000"] {
        assert_eq!(sum(text, "0").as_deref(), Some("0"), "{text}");
    }
}

#[test]
fn infinities_are_read_but_not_added() {
    for text in ["inf", "+inf", "-INF", "Infinity", "-infinity"] {
        let infinity = LongDouble::parse(text.as_bytes()).unwrap();
        assert!(!infinity.is_finite());
        assert_eq!(infinity.checked_add(LongDouble::ZERO), None);
        assert_eq!(LongDouble::ZERO.checked_add(infinity), None);
    }
    assert_eq!(LongDouble::parse(b"-inf").unwrap().to_string(), "-inf");
}

#[test]
fn the_largest_and_the_smallest_numbers_are_numbers() {
    let largest = LongDouble::parse(b"1.18973149535723176502e+4932").unwrap();
    assert!(largest.to_string().starts_with("118973149535723176502126385303"));
    assert_eq!(largest.to_string().len(), 4933);
    assert_eq!(largest.checked_add(largest), None);
    assert_eq!(LongDouble::parse(b"0x1p-16445"), LongDouble::parse(b"3.6e-4951"));
    assert_eq!(LongDouble::parse(b"0x1.ffffffffffffffffp16383"), None, "rounds up to more than there is");
}

proptest! {
    #[test]
    fn integers_are_exact(left in i64::MIN / 2..i64::MAX / 2, right in i64::MIN / 2..i64::MAX / 2) {
        prop_assert_eq!(LongDouble::from(left), LongDouble::parse(left.to_string().as_bytes()).unwrap());
        let sum = LongDouble::from(left).checked_add(LongDouble::from(right)).unwrap();
        prop_assert_eq!(sum, LongDouble::from(left + right));
        prop_assert_eq!(sum.to_string(), (left + right).to_string());
    }

    /// 64 bits are enough for 17 digits behind the point as long as there are at most six bits before it.
    #[test]
    fn short_decimals_are_written_as_they_are_read(whole in 0u8..64, fraction in 1u64..100_000_000_000_000_000) {
        let digits = format!("{fraction:017}");
        let text = format!("{whole}.{}", digits.trim_end_matches('0'));
        prop_assert_eq!(LongDouble::parse(text.as_bytes()).unwrap().to_string(), text);
    }

    /// The exact sum is read from its digits, and that rounds it too.
    #[test]
    fn sums_are_rounded_once(left: i64, right: i64, shift in 0u32..64) {
        let shifted = i128::from(right) << shift;
        let read = |number: i128| LongDouble::parse(number.to_string().as_bytes()).unwrap();
        let sum = LongDouble::from(left).checked_add(read(shifted));
        prop_assert_eq!(sum, Some(read(i128::from(left) + shifted)));
        prop_assert_eq!(sum, read(shifted).checked_add(LongDouble::from(left)));
    }

    #[test]
    fn hexadecimals_say_the_same_as_decimals(mantissa: u32, places in 0u32..40) {
        let hexadecimal = format!("0x{mantissa:x}p-{places}");
        let decimal = format!("{:e}", f64::from(mantissa) / 2f64.powi(places as i32));
        let exact = format!("{:.60}", f64::from(mantissa) / 2f64.powi(places as i32));
        prop_assert_eq!(LongDouble::parse(hexadecimal.as_bytes()), LongDouble::parse(exact.as_bytes()));
        prop_assert!(LongDouble::parse(decimal.as_bytes()).is_some());
    }

    #[test]
    fn no_text_makes_it_panic(text in "[-+]?(0x)?[0-9a-fA-F.]{0,40}([eEpP][-+]?[0-9]{0,12})?") {
        if let Some(number) = LongDouble::parse(text.as_bytes()) {
            let shown = number.to_string();
            prop_assert!(LongDouble::parse(shown.as_bytes()).is_some(), "{}", shown);
        }
    }
}
