//! A reply as a value that keeps exactly what the wire said: order, spelling of numbers, types.
//!
//! redis-protocol finds where a reply ends; its frames put maps into hash maps and doubles into
//! floats, which a byte-exact comparison cannot use, so the tree is read here.

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
    /// Reads one whole reply.
    ///
    /// # Panics
    /// When `raw` is not exactly one reply; the connection has framed it before.
    pub fn parse(raw: &[u8]) -> Self {
        let mut reader = Reader { rest: raw };
        let reply = reader.reply();
        assert!(reader.rest.is_empty(), "bytes after the reply: {}", text::escape(reader.rest));
        reply
    }

    /// The text of a reply that is text: simple, error, bulk, or verbatim without its format.
    pub fn text(&self) -> Option<&[u8]> {
        match self {
            Self::Simple(text) | Self::Error(text) | Self::Bulk(text) | Self::Double(text) => Some(text),
            Self::Verbatim(text) => text.get(4..),
            _ => None,
        }
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

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn reply(&mut self) -> Reply {
        let line = self.line();
        let (kind, body) = line.split_first().expect("a type byte");
        match kind {
            b'+' => Reply::Simple(body.to_vec()),
            b'-' => Reply::Error(body.to_vec()),
            b':' => Reply::Integer(number(body)),
            b'$' if body == b"-1" => Reply::NilBulk,
            b'$' => Reply::Bulk(self.blob(body)),
            b'!' => Reply::Error(self.blob(body)),
            b'=' => Reply::Verbatim(self.blob(body)),
            b'_' => Reply::Null,
            b'#' => Reply::Boolean(body == b"t"),
            b',' => Reply::Double(body.to_vec()),
            b'(' => Reply::BigNumber(body.to_vec()),
            b'*' if body == b"-1" => Reply::NilArray,
            b'*' => Reply::Array(self.replies(body)),
            b'~' => Reply::Set(self.replies(body)),
            b'>' => Reply::Push(self.replies(body)),
            b'%' => Reply::Map((0..count(body)).map(|_| (self.reply(), self.reply())).collect()),
            other => panic!("a reply of an unknown type: {}", text::escape(&[*other])),
        }
    }

    fn replies(&mut self, length: &[u8]) -> Vec<Reply> {
        (0..count(length)).map(|_| self.reply()).collect()
    }

    fn blob(&mut self, length: &[u8]) -> Vec<u8> {
        let (blob, rest) = self.rest.split_at(count(length));
        self.rest = rest.strip_prefix(b"\r\n").expect("a line end after a bulk string");
        blob.to_vec()
    }

    fn line(&mut self) -> &'a [u8] {
        let end = self.rest.windows(2).position(|pair| pair == b"\r\n").expect("a line end");
        let (line, rest) = self.rest.split_at(end);
        self.rest = &rest[2..];
        line
    }
}

/// Numbers have one spelling only, so that equal replies are equal bytes.
fn number(digits: &[u8]) -> i64 {
    let spelt = std::str::from_utf8(digits).expect("digits");
    let number: i64 = spelt.parse().expect("a number");
    assert_eq!(number.to_string(), spelt, "a number in an unusual spelling");
    number
}

fn count(digits: &[u8]) -> usize {
    usize::try_from(number(digits)).expect("a length")
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

/// Statuses and errors stand without quotes, so the quotes in them need no escape.
fn bare(bytes: &[u8]) -> String {
    text::escape(bytes).replace("\\\"", "\"")
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
    #[should_panic(expected = "unusual spelling")]
    fn an_unusual_spelling_of_a_number_is_a_fault() {
        Reply::parse(b":007\r\n");
    }
}
