//! What a case says of a reply, and whether a reply is that.
//!
//! One expectation serves both versions of the protocol: a map is a flat array in RESP2, a double
//! a bulk string, a boolean an integer, `nil` RESP2's null bulk string. See `README.md` for the
//! notation.

use std::{error, fmt};

use regex::bytes::Regex;

use crate::connection::Protocol;
use crate::reply::Reply;
use crate::text::{self, LineError};

/// What a reply must be.
#[derive(Clone, Debug)]
pub enum Expectation {
    /// Exactly this reply; in RESP2, what this reply of RESP3 becomes there.
    Exactly(Reply),
    /// `[a, b]`, `set[…]`, `push[…]` with matchers inside, or with an open end.
    List { kind: ListKind, items: Vec<Expectation>, open_ended: bool },
    /// `unordered[a, b]`: these items, each once, in any order.
    Unordered(Vec<Expectation>),
    /// `{k: v}` with matchers inside, or with an open end.
    Map { pairs: Vec<(Expectation, Expectation)>, open_ended: bool },
    /// `unordered{k: v}`: these pairs in any order.
    UnorderedMap(Vec<(Expectation, Expectation)>),
    /// `<any>`.
    Any,
    /// `<int>`, or `<int 1..5>` with both ends included.
    Integer { least: i64, most: i64 },
    /// `<bulk>`: any bulk string.
    Bulk,
    /// `</regex/>`: a text, of whatever type, in which the expression is found.
    Text(Regex),
}

/// Which sort of list an expectation wants in RESP3; RESP2 knows arrays alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListKind {
    Array,
    Set,
    Push,
}

impl Expectation {
    /// Reads an expectation.
    pub fn parse(text: &str) -> Result<Self, NotationError> {
        // The text of a status or an error reaches to the end of the line, commas and all.
        if let Some(status) = text.strip_prefix('+') {
            return Ok(Self::Exactly(Reply::Simple(unescape(status)?)));
        }
        if let Some(error) = text.strip_prefix('-') {
            return Ok(Self::Exactly(Reply::Error(unescape(error)?)));
        }
        let mut parser = Parser { rest: text.trim() };
        let expectation = parser.value()?;
        parser.skip_space();
        match parser.rest {
            "" => Ok(expectation),
            rest => Err(NotationError::Unexpected(rest.to_owned())),
        }
    }

    /// Whether `reply`, as `protocol` has it, is what is expected.
    pub fn is_met_by(&self, reply: &Reply, protocol: Protocol) -> bool {
        match self {
            Self::Exactly(expected) => is_exactly(expected, reply, protocol),
            Self::Any => true,
            Self::Integer { least, most } => {
                matches!(reply, Reply::Integer(n) if (*least..=*most).contains(n))
            }
            Self::Bulk => matches!(reply, Reply::Bulk(_)),
            Self::Text(regex) => reply.text().is_some_and(|text| regex.is_match(text)),
            Self::List { kind, items, open_ended } => {
                kind.items_of(reply, protocol).is_some_and(|replies| all_met(items, replies, *open_ended, protocol))
            }
            Self::Unordered(items) => {
                reply.items().is_some_and(|replies| met_in_any_order(items, replies, |e, r| e.is_met_by(r, protocol)))
            }
            Self::Map { pairs, open_ended } => pairs_of(reply, protocol).is_some_and(|replies| {
                (*open_ended || replies.len() == pairs.len())
                    && replies.len() >= pairs.len()
                    && pairs.iter().zip(&replies).all(|(pair, reply)| is_pair_met(pair, reply, protocol))
            }),
            Self::UnorderedMap(pairs) => pairs_of(reply, protocol)
                .is_some_and(|replies| met_in_any_order(pairs, &replies, |e, r| is_pair_met(e, r, protocol))),
        }
    }
}

impl ListKind {
    fn items_of(self, reply: &Reply, protocol: Protocol) -> Option<&[Reply]> {
        match (self, reply) {
            (Self::Array, Reply::Array(items)) | (Self::Set, Reply::Set(items)) | (Self::Push, Reply::Push(items)) => {
                Some(items)
            }
            (_, Reply::Array(items)) if protocol == Protocol::Resp2 => Some(items),
            _ => None,
        }
    }
}

fn is_exactly(expected: &Reply, reply: &Reply, protocol: Protocol) -> bool {
    match protocol {
        Protocol::Resp3 => *reply == in_resp3(expected),
        Protocol::Resp2 => *reply == in_resp2(expected),
    }
}

/// RESP3 has one null.
fn in_resp3(reply: &Reply) -> Reply {
    let all = |items: &[Reply]| items.iter().map(in_resp3).collect();
    match reply {
        Reply::NilBulk | Reply::NilArray => Reply::Null,
        Reply::Array(items) => Reply::Array(all(items)),
        Reply::Set(items) => Reply::Set(all(items)),
        Reply::Push(items) => Reply::Push(all(items)),
        Reply::Map(pairs) => Reply::Map(pairs.iter().map(|(k, v)| (in_resp3(k), in_resp3(v))).collect()),
        other => other.clone(),
    }
}

/// What a reply of RESP3 becomes for a client that speaks RESP2.
fn in_resp2(reply: &Reply) -> Reply {
    match reply {
        Reply::Null => Reply::NilBulk,
        Reply::Boolean(truth) => Reply::Integer(i64::from(*truth)),
        Reply::Double(text) | Reply::BigNumber(text) => Reply::Bulk(text.clone()),
        Reply::Verbatim(text) => Reply::Bulk(text.get(4..).unwrap_or_default().to_vec()),
        Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => {
            Reply::Array(items.iter().map(in_resp2).collect())
        }
        Reply::Map(pairs) => Reply::Array(pairs.iter().flat_map(|(k, v)| [in_resp2(k), in_resp2(v)]).collect()),
        other => other.clone(),
    }
}

fn all_met(items: &[Expectation], replies: &[Reply], open_ended: bool, protocol: Protocol) -> bool {
    let fits = if open_ended { replies.len() >= items.len() } else { replies.len() == items.len() };
    fits && items.iter().zip(replies).all(|(item, reply)| item.is_met_by(reply, protocol))
}

/// Gives each expectation the first reply that meets it and is still free.
fn met_in_any_order<E, R>(expected: &[E], replies: &[R], is_met: impl Fn(&E, &R) -> bool) -> bool {
    let mut free: Vec<&R> = replies.iter().collect();
    expected.len() == replies.len()
        && expected.iter().all(|expectation| {
            let found = free.iter().position(|reply| is_met(expectation, reply));
            found.map(|at| free.swap_remove(at)).is_some()
        })
}

fn pairs_of(reply: &Reply, protocol: Protocol) -> Option<Vec<(Reply, Reply)>> {
    match reply {
        Reply::Map(pairs) => Some(pairs.clone()),
        Reply::Array(items) if protocol == Protocol::Resp2 && items.len() % 2 == 0 => {
            Some(items.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect())
        }
        _ => None,
    }
}

fn is_pair_met(pair: &(Expectation, Expectation), reply: &(Reply, Reply), protocol: Protocol) -> bool {
    pair.0.is_met_by(&reply.0, protocol) && pair.1.is_met_by(&reply.1, protocol)
}

/// What is wrong with an expectation's text.
#[derive(Clone, Debug)]
pub enum NotationError {
    /// The notation does not know what begins here.
    Unexpected(String),
    /// The text ends where more must follow.
    Incomplete,
    /// A number that is none.
    BadNumber(String),
    Quoting(LineError),
    Regex(regex::Error),
}

struct Parser<'a> {
    rest: &'a str,
}

type Read<P> = fn(&mut P) -> Result<Expectation, NotationError>;

impl Parser<'_> {
    fn value(&mut self) -> Result<Expectation, NotationError> {
        self.skip_space();
        for (opening, read) in Self::OPENINGS {
            if let Some(rest) = self.rest.strip_prefix(opening) {
                self.rest = rest;
                return read(self);
            }
        }
        match self.rest.chars().next() {
            None => Err(NotationError::Incomplete),
            Some('"') => Ok(Expectation::Exactly(Reply::Bulk(self.quoted()?))),
            Some('<') => self.matcher(),
            Some(_) => self.verbatim(),
        }
    }

    /// What a value can begin with; the first that fits is taken.
    const OPENINGS: [(&'static str, Read<Self>); 15] = [
        ("unordered[", |parser| Ok(Expectation::Unordered(parser.items()?.0))),
        ("unordered{", |parser| Ok(Expectation::UnorderedMap(parser.pairs()?.0))),
        ("set[", |parser| parser.list(ListKind::Set)),
        ("push[", |parser| parser.list(ListKind::Push)),
        ("[", |parser| parser.list(ListKind::Array)),
        ("{", Self::map),
        ("nil-array", |_| Ok(Expectation::Exactly(Reply::NilArray))),
        ("nil", |_| Ok(Expectation::Exactly(Reply::Null))),
        ("#t", |_| Ok(Expectation::Exactly(Reply::Boolean(true)))),
        ("#f", |_| Ok(Expectation::Exactly(Reply::Boolean(false)))),
        ("+", |parser| Ok(Expectation::Exactly(Reply::Simple(unescape(parser.word())?)))),
        ("-", |parser| Ok(Expectation::Exactly(Reply::Error(unescape(parser.word())?)))),
        (",", |parser| Ok(Expectation::Exactly(Reply::Double(parser.word().into())))),
        ("(", |parser| Ok(Expectation::Exactly(Reply::BigNumber(parser.word().into())))),
        (":", |parser| Ok(Expectation::Exactly(Reply::Integer(integer(parser.word())?)))),
    ];

    fn list(&mut self, kind: ListKind) -> Result<Expectation, NotationError> {
        let (items, open_ended) = self.items()?;
        Ok(Expectation::List { kind, items, open_ended })
    }

    fn map(&mut self) -> Result<Expectation, NotationError> {
        let (pairs, open_ended) = self.pairs()?;
        Ok(Expectation::Map { pairs, open_ended })
    }

    /// The items up to `]`, and whether `...` leaves the end open.
    fn items(&mut self) -> Result<(Vec<Expectation>, bool), NotationError> {
        self.separated("]", Self::value)
    }

    fn pairs(&mut self) -> Result<(Vec<(Expectation, Expectation)>, bool), NotationError> {
        self.separated("}", |parser| {
            let key = parser.value()?;
            parser.expect(":")?;
            Ok((key, parser.value()?))
        })
    }

    fn separated<T>(
        &mut self,
        close: &str,
        read: impl Fn(&mut Self) -> Result<T, NotationError>,
    ) -> Result<(Vec<T>, bool), NotationError> {
        let mut parts = Vec::new();
        loop {
            if self.take(close) {
                return Ok((parts, false));
            }
            if self.take("...") {
                self.expect(close)?;
                return Ok((parts, true));
            }
            parts.push(read(self)?);
            if !self.take(",") && !self.rest.starts_with(close) {
                return Err(self.unexpected());
            }
        }
    }

    fn matcher(&mut self) -> Result<Expectation, NotationError> {
        if let Some(rest) = self.rest.strip_prefix("</") {
            let end = rest.find("/>").ok_or(NotationError::Incomplete)?;
            self.rest = &rest[end + 2..];
            return Regex::new(&rest[..end]).map(Expectation::Text).map_err(NotationError::Regex);
        }
        let end = self.rest.find('>').ok_or(NotationError::Incomplete)?;
        let (name, rest) = (&self.rest[1..end], &self.rest[end + 1..]);
        let matcher = named_matcher(name)?;
        self.rest = rest;
        Ok(matcher)
    }

    /// `txt"…"`: three letters and a quoted word.
    fn verbatim(&mut self) -> Result<Expectation, NotationError> {
        let Some((format, rest)) = self.rest.split_at_checked(3).filter(|(_, rest)| rest.starts_with('"')) else {
            return Err(self.unexpected());
        };
        self.rest = rest;
        let text = [format.as_bytes(), b":", &self.quoted()?].concat();
        Ok(Expectation::Exactly(Reply::Verbatim(text)))
    }

    fn quoted(&mut self) -> Result<Vec<u8>, NotationError> {
        let (word, rest) = text::take_quoted(self.rest).map_err(NotationError::Quoting)?;
        self.rest = rest;
        Ok(word)
    }

    /// The text up to what separates parts of a list or map.
    fn word(&mut self) -> &str {
        let end = self.rest.find([',', ']', '}', ':']).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.trim_end()
    }

    fn take(&mut self, token: &str) -> bool {
        self.skip_space();
        self.rest.strip_prefix(token).map(|rest| self.rest = rest).is_some()
    }

    fn expect(&mut self, token: &str) -> Result<(), NotationError> {
        if self.take(token) { Ok(()) } else { Err(self.unexpected()) }
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn unexpected(&self) -> NotationError {
        match self.rest {
            "" => NotationError::Incomplete,
            rest => NotationError::Unexpected(rest.to_owned()),
        }
    }
}

fn named_matcher(name: &str) -> Result<Expectation, NotationError> {
    match name {
        "any" => Ok(Expectation::Any),
        "bulk" => Ok(Expectation::Bulk),
        "int" => Ok(Expectation::Integer { least: i64::MIN, most: i64::MAX }),
        _ => match name.strip_prefix("int ").and_then(|range| range.split_once("..")) {
            Some((least, most)) => Ok(Expectation::Integer { least: integer(least)?, most: integer(most)? }),
            None => Err(NotationError::Unexpected(format!("<{name}>"))),
        },
    }
}

fn integer(digits: &str) -> Result<i64, NotationError> {
    digits.trim().parse().map_err(|_| NotationError::BadNumber(digits.to_owned()))
}

/// Statuses and errors are written bare, with the escapes of a quoted word, but for the quotes.
fn unescape(bare: &str) -> Result<Vec<u8>, NotationError> {
    let quoted = format!("\"{}\"", bare.replace('"', "\\\""));
    text::take_quoted(&quoted).map(|(word, _)| word).map_err(NotationError::Quoting)
}

impl fmt::Display for NotationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unexpected(rest) => {
                write!(f, "the notation does not know what begins at `{rest}`")
            }
            Self::Incomplete => f.write_str("the expectation ends too early"),
            Self::BadNumber(digits) => write!(f, "`{digits}` is no number"),
            Self::Quoting(error) => error.fmt(f),
            Self::Regex(error) => error.fmt(f),
        }
    }
}

impl error::Error for NotationError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_met(expectation: &str, raw: &str, protocol: Protocol) -> bool {
        Expectation::parse(expectation).unwrap().is_met_by(&Reply::parse(raw.as_bytes()), protocol)
    }

    #[test]
    fn one_expectation_serves_both_protocols() {
        for (expectation, resp2, resp3) in [
            ("nil", "$-1\r\n", "_\r\n"),
            ("nil-array", "*-1\r\n", "_\r\n"),
            ("{\"a\": :1}", "*2\r\n$1\r\na\r\n:1\r\n", "%1\r\n$1\r\na\r\n:1\r\n"),
            ("set[+x, nil]", "*2\r\n+x\r\n$-1\r\n", "~2\r\n+x\r\n_\r\n"),
            (",1.5", "$3\r\n1.5\r\n", ",1.5\r\n"),
            ("#t", ":1\r\n", "#t\r\n"),
            ("txt\"ab\"", "$2\r\nab\r\n", "=6\r\ntxt:ab\r\n"),
            (
                "unordered{\"b\": <int>, \"a\": <any>}",
                "*4\r\n$1\r\na\r\n+x\r\n$1\r\nb\r\n:1\r\n",
                "%2\r\n$1\r\na\r\n+x\r\n$1\r\nb\r\n:1\r\n",
            ),
        ] {
            assert!(is_met(expectation, resp2, Protocol::Resp2), "{expectation} in RESP2");
            assert!(is_met(expectation, resp3, Protocol::Resp3), "{expectation} in RESP3");
            assert!(resp2 == resp3 || !is_met(expectation, resp2, Protocol::Resp3), "{expectation} confuses them");
        }
    }

    #[test]
    fn matchers_accept_what_they_name_and_nothing_else() {
        let accepts = |expectation: &str, raw: &str| is_met(expectation, raw, Protocol::Resp2);
        assert!(accepts("<int 1..3>", ":3\r\n") && !accepts("<int 1..3>", ":4\r\n"));
        assert!(accepts("</^a.c$/>", "$3\r\nabc\r\n") && !accepts("</^a.c$/>", "$4\r\nabcd\r\n"));
        assert!(accepts("[:1, ...]", "*2\r\n:1\r\n:2\r\n") && !accepts("[:2, ...]", "*2\r\n:1\r\n:2\r\n"));
        assert!(
            accepts("unordered[:1, :2]", "*2\r\n:2\r\n:1\r\n") && !accepts("unordered[:1, :1]", "*2\r\n:2\r\n:1\r\n")
        );
        assert!(!accepts("+OK", "$2\r\nOK\r\n"));
    }

    #[test]
    fn errors_reach_to_the_end_of_their_line() {
        assert!(is_met("-ERR a, \"b\" [c]: d", "-ERR a, \"b\" [c]: d\r\n", Protocol::Resp2));
    }

    #[test]
    fn faults_of_notation_are_named() {
        for (faulty, part) in [("[1]", "`1]`"), ("[:1", "too early"), (":x", "no number"), ("<odd>", "<odd>")] {
            let message = Expectation::parse(faulty).unwrap_err().to_string();
            assert!(message.contains(part), "{faulty}: {message}");
        }
    }
}
