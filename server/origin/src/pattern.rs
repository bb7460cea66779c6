//! Key patterns: which keys a group has, and which parts of a key are its query's parameters.
//!
//! A pattern is literal text with captures in it:
//!
//! - `product:{id}`: a capture takes one or more bytes and ends where the literal after it *first* occurs (or at the
//!   end of the key). It never contains a `:`, so `product:{id}` and `product:{id}:reviews` share no key.
//! - `page:{path*}`: a capture with `*` takes the remainder of the key, one or more bytes whatever they are. It can only
//!   stand last.
//! - `{{` and `}}` stand for the braces themselves, as hash tags need them: `{{{user}}}:cart` has `{ann}:cart`.
//!
//! Matching never goes back: each byte of a key is looked at a bounded number of times, and "first occurrence" is the
//! whole rule. Thus `a{x}bb` does not have the key `acbbb`: `x` ends at the first `bb`, and a `b` remains.

use std::fmt;
use std::ops::Range;

/// The most captures that a pattern can have, so that a match needs no allocation.
pub const MAX_CAPTURES: usize = 8;

/// The byte that separates the segments of a key by custom; only a `{rest*}` capture can contain it.
const SEPARATOR: u8 = b':';

/// A parsed key pattern. `Display` gives the text it was parsed from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPattern {
    text: String,
    /// What every key of the group begins with.
    prefix: Box<[u8]>,
    captures: Vec<Capture>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Capture {
    name: String,
    takes_rest: bool,
    /// The literal after the capture; empty only after the last one.
    until: Vec<u8>,
}

/// Why a text is no key pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("the pattern is empty")]
    Empty,
    #[error("the `{{` at column {0} is never closed")]
    Unclosed(usize),
    #[error("the `}}` at column {0} closes nothing")]
    Unopened(usize),
    #[error("`{{{0}}}` is no capture: a name is letters, digits and `_`, and does not begin with a digit")]
    BadName(String),
    #[error("two captures are called `{0}`")]
    DuplicateName(String),
    #[error("`{{{0}}}` and `{{{1}}}` stand side by side, so nothing says where the first one ends")]
    Adjacent(String, String),
    #[error("`{{{0}*}}` takes the remainder of the key, so it must stand last")]
    RestNotLast(String),
    #[error("there are more than {MAX_CAPTURES} captures")]
    TooMany,
}

impl PatternError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            PatternError::Empty => "write the keys of the group, such as \"product:{id}\"",
            PatternError::Unclosed(_) | PatternError::Unopened(_) => {
                "write {{ or }} where the key itself has a brace, as in \"{{{user}}}:cart\""
            }
            PatternError::BadName(_) => "write {id}, or {rest*} for the remainder of the key",
            PatternError::DuplicateName(_) => "give each capture a name of its own; they are $1, $2 … in order",
            PatternError::Adjacent(..) => "put a literal between them, such as \":\"",
            PatternError::RestNotLast(_) => "move it to the end, or take the `*` away",
            PatternError::TooMany => "split the group, or take the remainder with {rest*} and split it in the query",
        }
    }
}

/// The parts of a key that a pattern captured, as byte ranges of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Captures {
    ends: [(u32, u32); MAX_CAPTURES],
    len: u8,
}

impl Captures {
    /// How many parts there are.
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether the pattern has no captures.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The range of the capture at `index`, from 0.
    pub fn range(&self, index: usize) -> Option<Range<usize>> {
        let (start, end) = *self.ends[..self.len()].get(index)?;
        Some(start as usize..end as usize)
    }

    /// The captured parts of `key`, which must be the key that was matched.
    pub fn of<'k>(&self, key: &'k [u8]) -> impl Iterator<Item = &'k [u8]> + use<'k> {
        let captures = *self;
        (0..captures.len()).filter_map(move |index| key.get(captures.range(index)?))
    }

    fn push(&mut self, start: usize, end: usize) {
        // A key is at most 512 MiB, as the wire has it, so its offsets fit.
        self.ends[self.len()] = (start as u32, end as u32);
        self.len += 1;
    }
}

impl KeyPattern {
    /// Parses a pattern.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        let mut prefix = Vec::new();
        let mut captures: Vec<Capture> = Vec::new();
        for token in tokens(text)? {
            match token {
                Token::Literal(byte) => match captures.last_mut() {
                    None => prefix.push(byte),
                    Some(capture) => capture.until.push(byte),
                },
                Token::Capture { name, takes_rest } => {
                    refuse_misplaced(&captures, name)?;
                    captures.push(Capture { name: name.to_owned(), takes_rest, until: Vec::new() });
                }
            }
        }
        match captures.iter().find(|capture| capture.takes_rest && !capture.until.is_empty()) {
            Some(capture) => Err(PatternError::RestNotLast(capture.name.clone())),
            None => Ok(KeyPattern { text: text.to_owned(), prefix: prefix.into(), captures }),
        }
    }

    /// The literal that every matching key begins with.
    pub fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// The names of the captures, in order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.captures.iter().map(|capture| capture.name.as_str())
    }

    /// The captures of `key`, or `None` when the pattern does not have it. Allocates nothing.
    pub fn matches(&self, key: &[u8]) -> Option<Captures> {
        if !key.starts_with(&self.prefix) || u32::try_from(key.len()).is_err() {
            return None;
        }
        let mut found = Captures::default();
        let mut at = self.prefix.len();
        for capture in &self.captures {
            let length = capture.length_in(&key[at..])?;
            found.push(at, at + length);
            at += length + capture.until.len();
        }
        (at == key.len()).then_some(found)
    }

    /// Whether every key of `other` is a key of `self`, as far as that is plain to see.
    ///
    /// It tries a key of `other` whose captures hold a byte that no pattern mentions: what `self` does with that key, it
    /// does with all of them, except with keys whose captures happen to hold one of `self`'s literals.
    pub(crate) fn covers(&self, other: &KeyPattern) -> bool {
        self.matches(&other.sample(b"\x01")).is_some()
            && self.matches(&other.sample(b"\x01\x01")).is_some()
            && (!other.takes_rest() || self.matches(&other.sample(b"\x01:\x01")).is_some())
    }

    /// Whether the pattern ends in a capture that takes the remainder of the key.
    fn takes_rest(&self) -> bool {
        self.captures.last().is_some_and(|capture| capture.takes_rest)
    }

    /// A key of this pattern: a `{rest*}` holds `filler`, any other capture the filler's first byte.
    fn sample(&self, filler: &[u8]) -> Vec<u8> {
        let mut key = self.prefix.to_vec();
        for capture in &self.captures {
            key.extend_from_slice(if capture.takes_rest { filler } else { &filler[..1] });
            key.extend_from_slice(&capture.until);
        }
        key
    }
}

impl fmt::Display for KeyPattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

impl Capture {
    /// How many bytes at the beginning of `rest` the capture takes, if it can be there.
    fn length_in(&self, rest: &[u8]) -> Option<usize> {
        if self.takes_rest {
            return (!rest.is_empty()).then_some(rest.len());
        }
        let length = match self.until.as_slice() {
            [] => rest.len(),
            [byte] => rest.iter().position(|b| b == byte)?,
            until => rest.windows(until.len()).position(|window| window == until)?,
        };
        (length > 0 && !rest[..length].contains(&SEPARATOR)).then_some(length)
    }
}

enum Token<'t> {
    Literal(u8),
    Capture { name: &'t str, takes_rest: bool },
}

fn tokens(text: &str) -> Result<Vec<Token<'_>>, PatternError> {
    let bytes = text.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let twice = bytes.get(at + 1) == Some(&bytes[at]);
        match bytes[at] {
            brace @ (b'{' | b'}') if twice => {
                tokens.push(Token::Literal(brace));
                at += 2;
            }
            b'{' => {
                let length = text[at..].find('}').ok_or(PatternError::Unclosed(at + 1))?;
                tokens.push(capture(&text[at + 1..at + length])?);
                at += length + 1;
            }
            b'}' => return Err(PatternError::Unopened(at + 1)),
            byte => {
                tokens.push(Token::Literal(byte));
                at += 1;
            }
        }
    }
    Ok(tokens)
}

fn capture(inner: &str) -> Result<Token<'_>, PatternError> {
    let (name, takes_rest) = match inner.strip_suffix('*') {
        Some(name) => (name, true),
        None => (inner, false),
    };
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !starts_well || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(PatternError::BadName(inner.to_owned()));
    }
    Ok(Token::Capture { name, takes_rest })
}

/// Refuses a further capture `name` that cannot stand after `captures`.
fn refuse_misplaced(captures: &[Capture], name: &str) -> Result<(), PatternError> {
    if captures.len() == MAX_CAPTURES {
        return Err(PatternError::TooMany);
    }
    if captures.iter().any(|capture| capture.name == name) {
        return Err(PatternError::DuplicateName(name.to_owned()));
    }
    match captures.last() {
        Some(before) if before.takes_rest => Err(PatternError::RestNotLast(before.name.clone())),
        Some(before) if before.until.is_empty() => Err(PatternError::Adjacent(before.name.clone(), name.to_owned())),
        _ => Ok(()),
    }
}
