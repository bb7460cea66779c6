//! How bytes and command lines are written: the quoting that redis-cli users know.
//!
//! A double-quoted word knows `\n \r \t \a \b \\ \" \xHH`, a single-quoted one only `\'`. Beyond
//! redis-cli, `"ab"*3` stands for `"ababab"`, so that long values stay readable.

use std::{error, fmt};

/// What is wrong with a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineError {
    /// A quoted word that does not end.
    Unterminated,
    /// A closing quote with a word stuck to it.
    GluedQuote,
    /// A `*` after a quoted word without a count.
    BadRepeat,
}

/// Cuts a line into its arguments.
pub fn split_arguments(line: &str) -> Result<Vec<Vec<u8>>, LineError> {
    let mut rest = line.trim_start();
    let mut args = Vec::new();
    while !rest.is_empty() {
        let (arg, after) = take_argument(rest)?;
        args.push(arg);
        if !after.is_empty() && !after.starts_with(char::is_whitespace) {
            return Err(LineError::GluedQuote);
        }
        rest = after.trim_start();
    }
    Ok(args)
}

fn take_argument(line: &str) -> Result<(Vec<u8>, &str), LineError> {
    if line.starts_with(['"', '\'']) {
        return take_quoted(line);
    }
    let end = line.find(char::is_whitespace).unwrap_or(line.len());
    Ok((line.as_bytes()[..end].to_vec(), &line[end..]))
}

/// Takes a quoted word, with its repetition, from the front of `text`.
pub fn take_quoted(text: &str) -> Result<(Vec<u8>, &str), LineError> {
    let (word, rest) = match text.as_bytes().first() {
        Some(b'"') => take_double_quoted(&text[1..])?,
        _ => take_single_quoted(&text[1..])?,
    };
    let Some(counted) = rest.strip_prefix('*') else {
        return Ok((word, rest));
    };
    let digits = counted.find(|c: char| !c.is_ascii_digit()).unwrap_or(counted.len());
    let count: usize = counted[..digits].parse().map_err(|_| LineError::BadRepeat)?;
    Ok((word.repeat(count), &counted[digits..]))
}

fn take_double_quoted(text: &str) -> Result<(Vec<u8>, &str), LineError> {
    let mut word = Vec::new();
    let mut rest = text.as_bytes();
    loop {
        let taken = match rest {
            [] => return Err(LineError::Unterminated),
            [b'"', ..] => return Ok((word, &text[text.len() - rest.len() + 1..])),
            [b'\\', b'x', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                word.push(hex_digit(*high) << 4 | hex_digit(*low));
                4
            }
            [b'\\', escaped, ..] => {
                word.push(unescape(*escaped));
                2
            }
            [plain, ..] => {
                word.push(*plain);
                1
            }
        };
        rest = &rest[taken..];
    }
}

fn take_single_quoted(text: &str) -> Result<(Vec<u8>, &str), LineError> {
    let mut word = Vec::new();
    let mut rest = text.as_bytes();
    loop {
        let (byte, taken) = match rest {
            [] => return Err(LineError::Unterminated),
            [b'\'', ..] => return Ok((word, &text[text.len() - rest.len() + 1..])),
            [b'\\', b'\'', ..] => (b'\'', 2),
            [plain, ..] => (*plain, 1),
        };
        word.push(byte);
        rest = &rest[taken..];
    }
}

fn unescape(escaped: u8) -> u8 {
    match escaped {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'a' => 7,
        b'b' => 8,
        other => other,
    }
}

fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

/// Writes bytes so that a double-quoted word of [`split_arguments`] reads them back.
pub fn escape(bytes: &[u8]) -> String {
    let mut escaped = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'\n' => escaped.push_str("\\n"),
            b'\r' => escaped.push_str("\\r"),
            b'\t' => escaped.push_str("\\t"),
            b'"' => escaped.push_str("\\\""),
            b'\\' => escaped.push_str("\\\\"),
            b' '..=b'~' => escaped.push(char::from(*byte)),
            other => escaped.push_str(&format!("\\x{other:02x}")),
        }
    }
    escaped
}

/// A bulk string as a quoted word; a long run of one byte is folded into a repetition.
pub fn quote(bytes: &[u8]) -> String {
    /// Shorter words read better in full.
    const FOLD_FROM: usize = 24;
    match bytes {
        [first, ..] if bytes.len() >= FOLD_FROM && bytes.iter().all(|byte| byte == first) => {
            format!("\"{}\"*{}", escape(&[*first]), bytes.len())
        }
        _ => format!("\"{}\"", escape(bytes)),
    }
}

/// A command as a line that [`split_arguments`] reads back.
pub fn command_line(args: &[impl AsRef<[u8]>]) -> String {
    let words: Vec<String> = args.iter().map(|arg| argument(arg.as_ref())).collect();
    words.join(" ")
}

fn argument(arg: &[u8]) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'\\');
    if !arg.is_empty() && arg.len() < 24 && arg.iter().all(is_plain) {
        return String::from_utf8_lossy(arg).into_owned();
    }
    quote(arg)
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unterminated => "a quoted word does not end",
            Self::GluedQuote => "a closing quote must be followed by a space",
            Self::BadRepeat => "a `*` after a quoted word wants a count, as in \"ab\"*3",
        })
    }
}

impl error::Error for LineError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn arguments_are_cut_as_redis_cli_cuts_them() {
        let args = split_arguments(r#"  SET "a b\x00\n" 'it\'s' "" "ab"*2 x"#).unwrap();
        assert_eq!(args, [&b"SET"[..], b"a b\0\n", b"it's", b"", b"abab", b"x"]);
    }

    #[test]
    fn faulty_lines_name_their_fault() {
        assert_eq!(split_arguments("\"ab"), Err(LineError::Unterminated));
        assert_eq!(split_arguments("'ab"), Err(LineError::Unterminated));
        assert_eq!(split_arguments("\"ab\"c"), Err(LineError::GluedQuote));
        assert_eq!(split_arguments("\"ab\"*c"), Err(LineError::BadRepeat));
    }

    proptest! {
        #[test]
        fn a_printed_command_reads_back(args in proptest::collection::vec(any::<Vec<u8>>(), 1..5)) {
            prop_assert_eq!(split_arguments(&command_line(&args)).unwrap(), args);
        }
    }
}
