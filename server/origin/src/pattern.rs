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

    /// The key whose captures are `parts`, or `None` if no key has them: a capture is never empty, and ends where the literal after it
    /// first occurs.
    pub fn key(&self, parts: &[&[u8]]) -> Option<Vec<u8>> {
        if parts.len() != self.captures.len() {
            return None;
        }
        let mut key = self.prefix.to_vec();
        for (capture, part) in self.captures.iter().zip(parts) {
            key.extend_from_slice(part);
            key.extend_from_slice(&capture.until);
        }
        let captures = self.matches(&key)?;
        captures.of(&key).eq(parts.iter().copied()).then_some(key)
    }

    /// Whether every key of `other` is a key of `self`, as far as that is plain to see.
    ///
    /// It tries a key of `other` whose captures hold a byte that no pattern mentions: what `self` does with that key, it
    /// does with all of them, except with keys whose captures happen to hold one of `self`'s literals.
    pub fn covers(&self, other: &KeyPattern) -> bool {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn captured(pattern: &str, key: &str) -> Option<Vec<String>> {
        let captures = KeyPattern::parse(pattern).unwrap().matches(key.as_bytes())?;
        Some(captures.of(key.as_bytes()).map(|part| String::from_utf8_lossy(part).into_owned()).collect())
    }

    fn parts<const N: usize>(parts: [&str; N]) -> Option<Vec<String>> {
        Some(parts.map(str::to_owned).to_vec())
    }

    #[test]
    fn captures_take_what_lies_between_the_literals() {
        assert_eq!(captured("product:{id}", "product:42"), parts(["42"]));
        assert_eq!(captured("a:{x}:{y}", "a:1:2"), parts(["1", "2"]));
        assert_eq!(captured("{a}-{b}.json", "x-y-z.json"), parts(["x", "y-z"]));
        assert_eq!(captured("all", "all"), parts([]));
        assert_eq!(captured("page:{path*}", "page:a:b/c"), parts(["a:b/c"]));
        assert_eq!(captured("{{{user}}}:cart", "{ann}:cart"), parts(["ann"]));
        assert_eq!(captured("a{x}bb", "acbbb"), None, "the first occurrence ends a capture");
    }

    #[test]
    fn keys_that_only_resemble_are_not_matched() {
        for (pattern, key) in [
            ("product:{id}", "product:"),
            ("product:{id}", "product"),
            ("product:{id}", "product:1:reviews"),
            ("product:{id}:reviews", "product:1"),
            ("a:{x}:{y}", "a::2"),
            ("page:{path*}", "page:"),
            ("all", "all!"),
        ] {
            assert_eq!(captured(pattern, key), None, "{pattern} {key}");
        }
    }

    #[test]
    fn a_capture_is_bytes_of_any_kind() {
        let pattern = KeyPattern::parse("b:{x}").unwrap();
        let captures = pattern.matches(b"b:\xff\x00").unwrap();
        assert_eq!(captures.range(0), Some(2..4));
        assert_eq!((captures.range(1), captures.len()), (None, 1));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for (text, error) in [
            ("", PatternError::Empty),
            ("a:{id", PatternError::Unclosed(3)),
            ("a:}", PatternError::Unopened(3)),
            ("a:{}", PatternError::BadName("".into())),
            ("a:{1d}", PatternError::BadName("1d".into())),
            ("{a}:{a}", PatternError::DuplicateName("a".into())),
            ("{a}{b}", PatternError::Adjacent("a".into(), "b".into())),
            ("{a*}:x", PatternError::RestNotLast("a".into())),
            ("{a*}{b}", PatternError::RestNotLast("a".into())),
            ("{a}:{b}:{c}:{d}:{e}:{f}:{g}:{h}:{i}", PatternError::TooMany),
        ] {
            assert_eq!(KeyPattern::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn a_pattern_that_leaves_another_no_keys_is_found() {
        for (first, second, covers) in [
            ("product:{id}", "product:{sku}", true),
            ("product:{rest*}", "product:{id}", true),
            ("product:{rest*}", "product:{id}:reviews", true),
            ("product:{id}", "product:{rest*}", false),
            ("product:{id}", "product:{id}:reviews", false),
            ("product:{id}:reviews", "product:{id}", false),
            ("{any}", "all", true),
        ] {
            let [first, second] = [first, second].map(|text| KeyPattern::parse(text).unwrap());
            assert_eq!(first.covers(&second), covers, "{first} {second}");
        }
    }

    /// Captures by trying every way to split the key, as the module's rules say them.
    fn naive(pieces: &[Piece], key: &[u8]) -> Option<Vec<Vec<u8>>> {
        let Some((piece, rest)) = pieces.split_first() else {
            return key.is_empty().then(Vec::new);
        };
        match piece {
            Piece::Literal(text) => naive(rest, key.strip_prefix(text.as_bytes())?),
            Piece::Capture => (1..=key.len()).find_map(|length| {
                let (part, tail) = key.split_at(length);
                let ends_here = match rest.first() {
                    Some(Piece::Literal(text)) => first_occurrence(key, text.as_bytes()) == Some(length),
                    _ => tail.is_empty(),
                };
                if !ends_here || part.contains(&b':') {
                    return None;
                }
                let mut parts = naive(rest, tail)?;
                parts.insert(0, part.to_vec());
                Some(parts)
            }),
        }
    }

    fn first_occurrence(text: &[u8], part: &[u8]) -> Option<usize> {
        (0..text.len()).find(|at| text[*at..].starts_with(part))
    }

    #[derive(Debug, Clone)]
    enum Piece {
        Literal(String),
        Capture,
    }

    fn pieces() -> impl Strategy<Value = Vec<Piece>> {
        ("[ab:]{0,2}", proptest::collection::vec("[ab:]{1,2}", 0..4), any::<bool>()).prop_map(
            |(head, between, open)| {
                let mut pieces = vec![Piece::Literal(head)];
                for literal in between {
                    pieces.extend([Piece::Capture, Piece::Literal(literal)]);
                }
                pieces.extend(open.then_some(Piece::Capture));
                pieces
            },
        )
    }

    fn written(pieces: &[Piece]) -> String {
        let name = |(index, piece): (usize, &Piece)| match piece {
            Piece::Literal(text) => text.clone(),
            Piece::Capture => format!("{{c{index}}}"),
        };
        pieces.iter().enumerate().map(name).collect()
    }

    proptest! {
        #[test]
        fn it_matches_as_the_rules_say(pieces in pieces(), key in "[ab:]{0,10}") {
            let text = written(&pieces);
            prop_assume!(!text.is_empty());
            let pattern = KeyPattern::parse(&text).unwrap();
            let captures = pattern.matches(key.as_bytes());
            let parts = captures.map(|captures| captures.of(key.as_bytes()).map(<[u8]>::to_vec).collect::<Vec<_>>());
            prop_assert_eq!(parts, naive(&pieces, key.as_bytes()), "{}", text);
        }

        #[test]
        fn a_key_is_made_of_its_captures_and_of_no_others(
            pieces in pieces(), key in "[ab:]{0,10}", parts in prop::collection::vec("[ab:]{0,3}", 0..4)
        ) {
            let text = written(&pieces);
            prop_assume!(!text.is_empty());
            let pattern = KeyPattern::parse(&text).unwrap();
            if let Some(captures) = pattern.matches(key.as_bytes()) {
                let parts: Vec<&[u8]> = captures.of(key.as_bytes()).collect();
                prop_assert_eq!(pattern.key(&parts), Some(key.as_bytes().to_vec()), "{}", text);
            }
            let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
            if let Some(key) = pattern.key(&parts) {
                let captures = pattern.matches(&key).unwrap();
                prop_assert_eq!(captures.of(&key).collect::<Vec<_>>(), parts);
            }
        }

        #[test]
        fn no_text_and_no_key_panics(text in "[a{}*:é]{0,12}", key in proptest::collection::vec(any::<u8>(), 0..12)) {
            if let Ok(pattern) = KeyPattern::parse(&text) {
                pattern.matches(&key);
            }
        }
    }
}
