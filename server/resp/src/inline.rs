//! Requests that are a line of text, as typed into telnet: words between blanks, with quotes and escapes.

use crate::ProtocolError;
use crate::frame::Frame;

/// Splits `line` (without its line end, and without NUL bytes) into the arguments of `frame`, which must be empty.
///
/// * `"…"` knows `\xHH`, `\n`, `\r`, `\t`, `\b` and `\a`; a backslash before anything else stands for that byte.
/// * `'…'` knows `\'` alone.
/// * A quote may begin inside a word, and its end is the word's end: a blank or nothing has to follow.
pub(crate) fn split(line: &[u8], frame: &mut Frame) -> Result<(), ProtocolError> {
    let mut rest = line;
    while let Some(word) = rest.iter().position(|&byte| !is_blank(byte)) {
        frame.begin_inline_argument();
        rest = take_word(&rest[word..], frame)?;
    }
    Ok(())
}

/// Takes one word off the front of `text` and returns what is behind it.
fn take_word<'a>(text: &'a [u8], frame: &mut Frame) -> Result<&'a [u8], ProtocolError> {
    for (index, &byte) in text.iter().enumerate() {
        let behind = &text[index + 1..];
        match byte {
            b'"' => return take_double_quoted(behind, frame),
            b'\'' => return take_single_quoted(behind, frame),
            // Vertical tab and form feed part words only in front of one: that is Redis' rule.
            b' ' | b'\n' | b'\r' | b'\t' => return Ok(behind),
            _ => frame.push_inline_byte(byte),
        }
    }
    Ok(&[])
}

fn take_double_quoted<'a>(mut text: &'a [u8], frame: &mut Frame) -> Result<&'a [u8], ProtocolError> {
    loop {
        let (byte, behind) = match *text {
            [b'"', ref behind @ ..] => return after_closing_quote(behind),
            [b'\\', b'x', high, low, ref behind @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                (hex_digit(high) << 4 | hex_digit(low), behind)
            }
            [b'\\', escaped, ref behind @ ..] => (unescape(escaped), behind),
            [byte, ref behind @ ..] => (byte, behind),
            [] => return Err(ProtocolError::UnbalancedQuotes),
        };
        frame.push_inline_byte(byte);
        text = behind;
    }
}

fn take_single_quoted<'a>(mut text: &'a [u8], frame: &mut Frame) -> Result<&'a [u8], ProtocolError> {
    loop {
        let (byte, behind) = match *text {
            [b'\'', ref behind @ ..] => return after_closing_quote(behind),
            [b'\\', b'\'', ref behind @ ..] => (b'\'', behind),
            [byte, ref behind @ ..] => (byte, behind),
            [] => return Err(ProtocolError::UnbalancedQuotes),
        };
        frame.push_inline_byte(byte);
        text = behind;
    }
}

fn after_closing_quote(behind: &[u8]) -> Result<&[u8], ProtocolError> {
    match behind.first() {
        Some(&byte) if !is_blank(byte) => Err(ProtocolError::UnbalancedQuotes),
        _ => Ok(behind),
    }
}

fn unescape(escaped: u8) -> u8 {
    match escaped {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

/// The value of a byte that is a hexadecimal digit.
fn hex_digit(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        _ => (byte | 0x20) - b'a' + 10,
    }
}

/// What C's `isspace` holds for blank.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}
