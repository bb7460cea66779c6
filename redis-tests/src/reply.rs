//! A reply as a value that keeps exactly what the wire said: order, spelling of numbers, types.
//!
//! The redis-protocol crate reads replies elsewhere in the project; here it would lose what is
//! compared: it puts maps into hash maps and doubles into floats, and it refuses a set of maps, which
//! `COMMAND INFO` replies with in RESP3.

use std::fmt;

use crate::text;

/// A reply of RESP2 or RESP3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Simple(Vec<u8>),
    Error(Vec<u8>),
    Integer(i64),
    Bulk(Vec<u8>),
    /// RESP2's `$-1`.
    NilBulk,
    /// RESP2's `*-1`.
    NilArray,
    /// RESP3's `_`.
    Null,
    Boolean(bool),
    /// The number as it was spelt.
    Double(Vec<u8>),
    BigNumber(Vec<u8>),
    /// The three-letter format, a colon and the text.
    Verbatim(Vec<u8>),
    Array(Vec<Reply>),
    Set(Vec<Reply>),
    Push(Vec<Reply>),
    Map(Vec<(Reply, Reply)>),
}

impl Reply {
    /// `+OK`
    pub fn ok() -> Self {
        Self::Simple(b"OK".to_vec())
    }

    /// A bulk string.
    pub fn bulk(text: &str) -> Self {
        Self::Bulk(text.as_bytes().to_vec())
    }

    /// Reads the reply at the front of `bytes`: the reply and its length, or nothing while it is
    /// not whole yet.
    pub fn read(bytes: &[u8]) -> Result<Option<(Self, usize)>, Malformed> {
        let mut reader = Reader { rest: bytes };
        match reader.reply(0) {
            Ok(reply) => Ok(Some((reply, bytes.len() - reader.rest.len()))),
            Err(ReadError::Incomplete) => Ok(None),
            Err(ReadError::Malformed(fault)) => Err(fault),
        }
    }

    /// Reads bytes that are exactly one reply.
    ///
    /// # Panics
    /// When they are anything else; a connection hands out whole replies only.
    pub fn parse(raw: &[u8]) -> Self {
        match Self::read(raw) {
            Ok(Some((reply, length))) if length == raw.len() => reply,
            other => panic!("not exactly one reply ({other:?}): {}", text::escape(raw)),
        }
    }

    /// The text of a reply that is text: simple, error, bulk, or verbatim without its format.
    pub fn text(&self) -> Option<&[u8]> {
        match self {
            Self::Simple(text) | Self::Error(text) | Self::Bulk(text) | Self::Double(text) => Some(text),
            Self::Verbatim(text) => text.get(4..),
            _ => None,
        }
    }

    /// The same as a string.
    ///
    /// # Panics
    /// When it is no text.
    pub fn words(&self) -> String {
        String::from_utf8_lossy(self.text().unwrap_or_else(|| panic!("no text: {self}"))).into_owned()
    }

    /// Whether it is an error that begins with `code`.
    pub fn is_error(&self, code: &str) -> bool {
        matches!(self, Self::Error(words) if words.starts_with(code.as_bytes()))
    }

    /// The parts of an array, set or push.
    pub fn items(&self) -> Option<&[Reply]> {
        match self {
            Self::Array(items) | Self::Set(items) | Self::Push(items) => Some(items),
            _ => None,
        }
    }

    /// Whether it is any of the ways to say "nothing".
    pub fn is_nil(&self) -> bool {
        matches!(self, Self::NilBulk | Self::NilArray | Self::Null)
    }
}

/// Bytes that are no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// No type begins with this byte.
    UnknownType(u8),
    /// A number that is none, or that is spelt in an unusual way: equal replies must be equal bytes.
    Number,
    /// A line or a bulk string that does not end as it should.
    LineEnd,
    /// Nested deeper than any reply of a Redis command.
    TooDeep,
}

/// No command replies with more levels of nesting.
const DEPTH_LIMIT: usize = 32;

struct Reader<'a> {
    rest: &'a [u8],
}

enum ReadError {
    Incomplete,
    Malformed(Malformed),
}

impl<'a> Reader<'a> {
    fn reply(&mut self, depth: usize) -> Result<Reply, ReadError> {
        if depth > DEPTH_LIMIT {
            return Err(ReadError::Malformed(Malformed::TooDeep));
        }
        let (kind, body) = self.line()?;
        Ok(match kind {
            b'+' => Reply::Simple(body.to_vec()),
            b'-' => Reply::Error(body.to_vec()),
            b':' => Reply::Integer(number(body)?),
            b'$' if body == b"-1" => Reply::NilBulk,
            b'$' => Reply::Bulk(self.blob(body)?),
            b'!' => Reply::Error(self.blob(body)?),
            b'=' => Reply::Verbatim(self.blob(body)?),
            b'_' => Reply::Null,
            b'#' => Reply::Boolean(body == b"t"),
            b',' => Reply::Double(body.to_vec()),
            b'(' => Reply::BigNumber(body.to_vec()),
            b'*' if body == b"-1" => Reply::NilArray,
            b'*' => Reply::Array(self.replies(body, depth)?),
            b'~' => Reply::Set(self.replies(body, depth)?),
            b'>' => Reply::Push(self.replies(body, depth)?),
            b'%' => Reply::Map(self.pairs(body, depth)?),
            other => return Err(ReadError::Malformed(Malformed::UnknownType(other))),
        })
    }

    fn replies(&mut self, length: &[u8], depth: usize) -> Result<Vec<Reply>, ReadError> {
        (0..count(length)?).map(|_| self.reply(depth + 1)).collect()
    }

    fn pairs(&mut self, length: &[u8], depth: usize) -> Result<Vec<(Reply, Reply)>, ReadError> {
        (0..count(length)?).map(|_| Ok((self.reply(depth + 1)?, self.reply(depth + 1)?))).collect()
    }

    fn blob(&mut self, length: &[u8]) -> Result<Vec<u8>, ReadError> {
        let (blob, rest) = self.rest.split_at_checked(count(length)?).ok_or(ReadError::Incomplete)?;
        let end = rest.get(..2).ok_or(ReadError::Incomplete)?;
        if end != b"\r\n" {
            return Err(ReadError::Malformed(Malformed::LineEnd));
        }
        self.rest = &rest[2..];
        Ok(blob.to_vec())
    }

    /// The type byte of a line and what follows it.
    fn line(&mut self) -> Result<(u8, &'a [u8]), ReadError> {
        let end = self.rest.iter().position(|byte| *byte == b'\n').ok_or(ReadError::Incomplete)?;
        let line = self.rest[..end].strip_suffix(b"\r").ok_or(ReadError::Malformed(Malformed::LineEnd))?;
        self.rest = &self.rest[end + 1..];
        let (kind, body) = line.split_first().ok_or(ReadError::Malformed(Malformed::LineEnd))?;
        Ok((*kind, body))
    }
}

fn number(digits: &[u8]) -> Result<i64, ReadError> {
    let spelt = std::str::from_utf8(digits).unwrap_or_default();
    match spelt.parse::<i64>() {
        Ok(number) if number.to_string() == spelt => Ok(number),
        _ => Err(ReadError::Malformed(Malformed::Number)),
    }
}

fn count(digits: &[u8]) -> Result<usize, ReadError> {
    usize::try_from(number(digits)?).map_err(|_| ReadError::Malformed(Malformed::Number))
}

/// The notation of the case files.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Simple(text) => write!(f, "+{}", bare(text)),
            Self::Error(text) => write!(f, "-{}", bare(text)),
            Self::Integer(number) => write!(f, ":{number}"),
            Self::Bulk(bytes) => f.write_str(&text::quote(bytes)),
            Self::NilBulk | Self::Null => f.write_str("nil"),
            Self::NilArray => f.write_str("nil-array"),
            Self::Boolean(true) => f.write_str("#t"),
            Self::Boolean(false) => f.write_str("#f"),
            Self::Double(spelt) => write!(f, ",{}", text::escape(spelt)),
            Self::BigNumber(digits) => write!(f, "({}", text::escape(digits)),
            Self::Verbatim(text) => {
                let (format, text) = text.split_at_checked(4).unwrap_or((b"???:", text));
                write!(f, "{}{}", text::escape(&format[..3]), text::quote(text))
            }
            Self::Array(items) => write_list(f, "[", items, "]"),
            Self::Set(items) => write_list(f, "set[", items, "]"),
            Self::Push(items) => write_list(f, "push[", items, "]"),
            Self::Map(pairs) => write_map(f, pairs),
        }
    }
}

/// Statuses and errors stand without quotes, so the quotes in them need no escape; a blank at the
/// end does, or an editor would drop it.
fn bare(bytes: &[u8]) -> String {
    let escaped = text::escape(bytes).replace("\\\"", "\"");
    match escaped.strip_suffix(' ') {
        Some(front) => format!("{front}\\x20"),
        None => escaped,
    }
}

fn write_list(f: &mut fmt::Formatter<'_>, open: &str, items: &[Reply], close: &str) -> fmt::Result {
    f.write_str(open)?;
    for (n, item) in items.iter().enumerate() {
        write!(f, "{}{item}", if n == 0 { "" } else { ", " })?;
    }
    f.write_str(close)
}

fn write_map(f: &mut fmt::Formatter<'_>, pairs: &[(Reply, Reply)]) -> fmt::Result {
    f.write_str("{")?;
    for (n, (key, value)) in pairs.iter().enumerate() {
        write!(f, "{}{key}: {value}", if n == 0 { "" } else { ", " })?;
    }
    f.write_str("}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(raw: &str) -> String {
        Reply::parse(raw.as_bytes()).to_string()
    }

    #[test]
    fn every_type_has_its_notation() {
        assert_eq!(printed("+OK\r\n"), "+OK");
        assert_eq!(printed("-ERR no\r\n"), "-ERR no");
        assert_eq!(printed(":-7\r\n"), ":-7");
        assert_eq!(printed("$3\r\na\r\n\r\n"), "\"a\\r\\n\"");
        assert_eq!(printed("*3\r\n$-1\r\n*-1\r\n_\r\n"), "[nil, nil-array, nil]");
        assert_eq!(printed("%1\r\n+k\r\n,1.50\r\n"), "{+k: ,1.50}");
        assert_eq!(printed("~1\r\n#t\r\n"), "set[#t]");
        assert_eq!(printed("=6\r\ntxt:ab\r\n"), "txt\"ab\"");
        assert_eq!(printed(">1\r\n(12\r\n"), "push[(12]");
    }

    #[test]
    fn the_order_of_a_map_is_kept() {
        assert_eq!(printed("%2\r\n+b\r\n:1\r\n+a\r\n:2\r\n"), "{+b: :1, +a: :2}");
    }

    #[test]
    fn what_is_no_reply_is_told() {
        for (raw, fault) in [
            (":007\r\n", Malformed::Number),
            ("$-2\r\n", Malformed::Number),
            ("?\r\n", Malformed::UnknownType(b'?')),
            ("+OK\n", Malformed::LineEnd),
            ("$1\r\nabc", Malformed::LineEnd),
        ] {
            assert_eq!(Reply::read(raw.as_bytes()), Err(fault), "{raw:?}");
        }
        assert_eq!(Reply::read(&b"*1\r\n".repeat(100)), Err(Malformed::TooDeep));
    }

    #[test]
    fn a_part_of_a_reply_is_no_reply_yet() {
        let whole = b"*3\r\n$2\r\nab\r\n%1\r\n+k\r\n:1\r\n~1\r\n%1\r\n+k\r\n_\r\n";
        for end in 0..whole.len() {
            assert_eq!(Reply::read(&whole[..end]), Ok(None), "after {end} bytes");
        }
        let (_, length) = Reply::read(&[&whole[..], b"+next\r\n"].concat()).unwrap().unwrap();
        assert_eq!(length, whole.len());
    }
}
