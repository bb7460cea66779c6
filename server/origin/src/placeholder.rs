//! Finds and replaces the `$1`, `$2` … of a query, and nothing that only looks like one.
//!
//! String literals, quoted identifiers, dollar quotes and comments are passed over, as PostgreSQL's manual describes
//! them in "Lexical Structure". It errs to the safe side: a query that ends within a quote or a comment is refused.

use std::ops::Range;

/// A query with the places of its placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query {
    /// Without the semicolon, blanks and comments at its end.
    text: String,
    placeholders: Vec<(Range<usize>, usize)>,
}

/// Why a text is no single query.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QueryError {
    #[error("it is empty")]
    Empty,
    #[error("the {what} that begins at column {column} has no end")]
    Unclosed { what: &'static str, column: usize },
    #[error("it is more than one statement")]
    Several,
    #[error("`{0}` is no parameter")]
    BadPlaceholder(String),
}

impl Query {
    /// Reads a query.
    pub(crate) fn parse(text: &str) -> Result<Self, QueryError> {
        let mut scanner = Scanner { text, at: 0 };
        let mut placeholders = Vec::new();
        let mut end = 0;
        let mut ended = false;
        while let Some(piece) = scanner.next_piece()? {
            match piece.kind {
                Kind::Blank => continue,
                Kind::Semicolon => {
                    ended = true;
                    continue;
                }
                _ if ended => return Err(QueryError::Several),
                Kind::Placeholder(number) => placeholders.push((piece.range.clone(), number)),
                Kind::Other => {}
            }
            end = piece.range.end;
        }
        if end == 0 {
            return Err(QueryError::Empty);
        }
        Ok(Query { text: text[..end].to_owned(), placeholders })
    }

    /// The highest placeholder; 0 when there is none.
    pub(crate) fn highest(&self) -> usize {
        self.placeholders.iter().map(|(_, number)| *number).max().unwrap_or(0)
    }

    /// The numbers that occur, ascending, each once.
    pub(crate) fn used(&self) -> Vec<usize> {
        let mut numbers: Vec<usize> = self.placeholders.iter().map(|(_, number)| *number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    /// The query with each placeholder replaced by what `with` gives for its number.
    pub(crate) fn replace(&self, mut with: impl FnMut(usize) -> String) -> String {
        let mut replaced = String::with_capacity(self.text.len() + 16 * self.placeholders.len());
        let mut from = 0;
        for (range, number) in &self.placeholders {
            replaced.push_str(&self.text[from..range.start]);
            replaced.push_str(&with(*number));
            from = range.end;
        }
        replaced.push_str(&self.text[from..]);
        replaced
    }
}

struct Scanner<'t> {
    text: &'t str,
    at: usize,
}

struct Piece {
    range: Range<usize>,
    kind: Kind,
}

enum Kind {
    Blank,
    Semicolon,
    Placeholder(usize),
    Other,
}

impl Scanner<'_> {
    fn next_piece(&mut self) -> Result<Option<Piece>, QueryError> {
        let start = self.at;
        let rest = &self.text[start..];
        let Some(first) = rest.chars().next() else {
            return Ok(None);
        };
        let (length, kind) = match first {
            c if c.is_whitespace() => (c.len_utf8(), Kind::Blank),
            ';' => (1, Kind::Semicolon),
            '-' if rest.starts_with("--") => (rest.find('\n').unwrap_or(rest.len()), Kind::Blank),
            '/' if rest.starts_with("/*") => (self.block_comment()?, Kind::Blank),
            '\'' => (self.quoted('\'', "string", false)?, Kind::Other),
            '"' => (self.quoted('"', "quoted name", false)?, Kind::Other),
            'e' | 'E' if rest[1..].starts_with('\'') => {
                self.at += 1;
                (1 + self.quoted('\'', "string", true)?, Kind::Other)
            }
            '$' => self.dollar()?,
            c if is_name_start(c) => (name_length(rest), Kind::Other),
            c => (c.len_utf8(), Kind::Other),
        };
        self.at = start + length;
        Ok(Some(Piece { range: start..self.at, kind }))
    }

    /// The length of the quoted text that begins here; a doubled quote does not end it, nor, where backslashes
    /// escape, one that a backslash precedes.
    fn quoted(&self, quote: char, what: &'static str, backslashes: bool) -> Result<usize, QueryError> {
        let rest = &self.text[self.at..];
        let mut chars = rest.char_indices().skip(1).peekable();
        while let Some((at, c)) = chars.next() {
            let escaped = backslashes && c == '\\';
            let doubled = c == quote && chars.peek().is_some_and(|(_, next)| *next == quote);
            if escaped || doubled {
                chars.next();
            } else if c == quote {
                return Ok(at + 1);
            }
        }
        Err(self.unclosed(what))
    }

    /// The length of the comment that begins here; comments nest.
    fn block_comment(&self) -> Result<usize, QueryError> {
        let bytes = &self.text.as_bytes()[self.at..];
        let mut depth = 0_usize;
        let mut at = 0;
        while at < bytes.len() {
            if bytes[at..].starts_with(b"/*") {
                depth += 1;
                at += 2;
            } else if bytes[at..].starts_with(b"*/") {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return Ok(at);
                }
            } else {
                at += 1;
            }
        }
        Err(self.unclosed("comment"))
    }

    /// What a dollar sign begins: a placeholder, or a dollar-quoted string.
    fn dollar(&self) -> Result<(usize, Kind), QueryError> {
        let rest = &self.text[self.at..];
        let digits = rest[1..].bytes().take_while(u8::is_ascii_digit).count();
        if digits > 0 {
            let text = &rest[..=digits];
            return match text[1..].parse::<usize>() {
                Ok(number @ 1..=999) => Ok((text.len(), Kind::Placeholder(number))),
                _ => Err(QueryError::BadPlaceholder(text.to_owned())),
            };
        }
        let tag = rest[1..].find('$').map(|end| &rest[..end + 2]);
        match tag.filter(|tag| is_tag(&tag[1..tag.len() - 1])) {
            None => Ok((1, Kind::Other)),
            Some(tag) => match rest[tag.len()..].find(tag) {
                Some(end) => Ok((end + 2 * tag.len(), Kind::Other)),
                None => Err(self.unclosed("dollar-quoted string")),
            },
        }
    }

    fn unclosed(&self, what: &'static str) -> QueryError {
        QueryError::Unclosed { what, column: self.text[..self.at].chars().count() + 1 }
    }
}

fn is_tag(tag: &str) -> bool {
    tag.is_empty() || tag.starts_with(is_name_start) && name_length(tag) == tag.len() && !tag.contains('$')
}

fn is_name_start(c: char) -> bool {
    c.is_alphabetic() || c == '_'
}

/// The length of the name that `text` begins with. A `$` within a name belongs to it, so `a$1` is no placeholder.
fn name_length(text: &str) -> usize {
    text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(text: &str) -> String {
        Query::parse(text).unwrap().replace(|number| format!("<{number}>"))
    }

    #[test]
    fn placeholders_are_replaced() {
        assert_eq!(
            numbered("SELECT * FROM p WHERE id = $1 AND x=$2::int"),
            "SELECT * FROM p WHERE id = <1> AND x=<2>::int"
        );
        assert_eq!(numbered("SELECT $10,$1"), "SELECT <10>,<1>");
        assert_eq!(numbered("SELECT ($1)[$2]"), "SELECT (<1>)[<2>]");
    }

    #[test]
    fn what_only_looks_like_a_placeholder_stays() {
        for text in [
            "SELECT '$1'",
            "SELECT 'it''s $1'",
            r"SELECT E'\'$1'",
            r"SELECT e'\\\'$1'",
            "SELECT \"$1\"",
            "SELECT \"a\"\"$1\"",
            "SELECT $$ $1 $$",
            "SELECT $tag$ $1 $$ $1 $tag$",
            "SELECT $é$ $1 $é$",
            "SELECT a$1 FROM t",
            "SELECT 1 -- $1\n, 2",
            "SELECT /* $1 /* $2 */ $1 */ 1",
        ] {
            assert_eq!(numbered(text), text);
        }
    }

    #[test]
    fn a_plain_string_ends_at_its_quote_whatever_backslashes_precede() {
        assert_eq!(numbered(r"SELECT '\' || $1"), r"SELECT '\' || <1>");
        assert_eq!(numbered(r"SELECT nameE'\' || $1"), r"SELECT nameE'\' || <1>");
        assert_eq!(numbered("SELECT $a$ $1 $a$ || $1"), "SELECT $a$ $1 $a$ || <1>");
    }

    #[test]
    fn the_end_is_trimmed() {
        assert_eq!(numbered("SELECT $1 ; \n"), "SELECT <1>");
        assert_eq!(numbered("SELECT $1 -- the key\n"), "SELECT <1>");
        assert_eq!(numbered("SELECT $1; /* bye */ ;"), "SELECT <1>");
    }

    #[test]
    fn what_is_no_single_query_is_refused() {
        assert_eq!(Query::parse(" -- nothing"), Err(QueryError::Empty));
        assert_eq!(Query::parse("SELECT 1; SELECT 2"), Err(QueryError::Several));
        assert_eq!(Query::parse("SELECT 'a"), Err(QueryError::Unclosed { what: "string", column: 8 }));
        assert_eq!(Query::parse("SELECT /* /* */"), Err(QueryError::Unclosed { what: "comment", column: 8 }));
        assert_eq!(Query::parse("SELECT \"a"), Err(QueryError::Unclosed { what: "quoted name", column: 8 }));
        assert_eq!(
            Query::parse("SELECT $x$ $1 $y$"),
            Err(QueryError::Unclosed { what: "dollar-quoted string", column: 8 })
        );
        assert_eq!(Query::parse("SELECT $0"), Err(QueryError::BadPlaceholder("$0".into())));
    }

    #[test]
    fn numbers_are_counted() {
        let query = Query::parse("SELECT $3, $1, $3").unwrap();
        assert_eq!((query.highest(), query.used()), (3, vec![1, 3]));
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[ -~é$'\"*/\n-]{0,40}") {
            if let Ok(query) = Query::parse(&text) {
                let same = query.replace(|number| format!("${number}"));
                proptest::prop_assert!(text.starts_with(&same) || same.contains('$'));
            }
        }
    }
}
