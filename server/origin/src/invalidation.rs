//! The tables whose row changes invalidate keys of a group: `products(id)`, `shop.prices(product_id)`, or `scores` alone.
//!
//! Names are SQL's: lower case unless they stand in double quotes, `"Order items"("Id")`.

use std::fmt;
use std::iter::Peekable;
use std::str::{CharIndices, FromStr};

/// A table whose row changes invalidate keys of a group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Invalidation {
    /// The table.
    pub table: TableName,
    /// The columns that are the captures, in their order; empty: any change of the table invalidates every key of the group.
    pub columns: Vec<String>,
}

/// A table's name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName {
    /// The schema; `None`: where the database's search path finds the table.
    pub schema: Option<String>,
    /// The name within the schema.
    pub name: String,
}

impl TableName {
    /// Whether it names `full`, which has a schema; without one of its own it may be any schema's.
    pub(crate) fn may_be(&self, full: &TableName) -> bool {
        self.name == full.name && (self.schema.is_none() || self.schema == full.schema)
    }
}

/// Why a text names no table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidationError {
    #[error("it names no table")]
    NoTable,
    #[error("the parenthesis is never closed")]
    Unclosed,
    #[error("the double quote is never closed")]
    UnclosedQuote,
    #[error("`{0}` names no column")]
    NoColumns(String),
    #[error("two columns are called `{0}`")]
    DuplicateColumn(String),
    #[error("`{0}` cannot stand at column {1}")]
    Unexpected(char, usize),
}

impl InvalidationError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            InvalidationError::UnclosedQuote | InvalidationError::Unexpected(..) => {
                "names with other signs than letters, digits, `_` and `$` stand in double quotes: '\"Order items\"(\"Id\")'"
            }
            InvalidationError::NoColumns(_) => {
                "leave the parentheses out if any change shall invalidate every key of the group"
            }
            _ => "write \"products(id)\", the columns in the order of the captures, or the table alone",
        }
    }
}

impl FromStr for Invalidation {
    type Err = InvalidationError;

    fn from_str(text: &str) -> Result<Self, InvalidationError> {
        let mut reader = Reader { text, rest: text.char_indices().peekable() };
        let first = reader.name()?.ok_or_else(|| reader.unexpected_or(InvalidationError::NoTable))?;
        let table = match reader.takes('.') {
            false => TableName { schema: None, name: first },
            true => {
                let name = reader.name()?.ok_or_else(|| reader.unexpected_or(InvalidationError::NoTable))?;
                TableName { schema: Some(first), name }
            }
        };
        let columns = if reader.takes('(') { reader.columns(text)? } else { Vec::new() };
        match reader.next_sign() {
            Some((at, sign)) => Err(reader.unexpected(at, sign)),
            None => Ok(Invalidation { table, columns }),
        }
    }
}

struct Reader<'t> {
    text: &'t str,
    rest: Peekable<CharIndices<'t>>,
}

impl Reader<'_> {
    /// The columns and the parenthesis after them.
    fn columns(&mut self, text: &str) -> Result<Vec<String>, InvalidationError> {
        let mut columns = Vec::new();
        loop {
            match self.name()? {
                Some(column) if columns.contains(&column) => return Err(InvalidationError::DuplicateColumn(column)),
                Some(column) => columns.push(column),
                None if self.takes(')') => return Err(InvalidationError::NoColumns(text.to_owned())),
                None => return Err(self.unexpected_or(InvalidationError::Unclosed)),
            }
            if self.takes(')') {
                return Ok(columns);
            }
            if !self.takes(',') {
                return Err(self.unexpected_or(InvalidationError::Unclosed));
            }
        }
    }

    /// A name, if one comes next.
    fn name(&mut self) -> Result<Option<String>, InvalidationError> {
        match self.next_sign() {
            Some((_, '"')) => self.quoted().map(Some),
            Some((_, sign)) if begins_name(sign) => Ok(Some(self.plain())),
            _ => Ok(None),
        }
    }

    fn plain(&mut self) -> String {
        let mut name = String::new();
        while let Some((_, sign)) =
            self.rest.next_if(|(_, sign)| begins_name(*sign) || sign.is_ascii_digit() || *sign == '$')
        {
            // As Postgres folds names: of the letters beyond ASCII it leaves the case alone, too.
            name.push(sign.to_ascii_lowercase());
        }
        name
    }

    fn quoted(&mut self) -> Result<String, InvalidationError> {
        let mut name = String::new();
        self.rest.next();
        loop {
            match self.rest.next() {
                None => return Err(InvalidationError::UnclosedQuote),
                Some((_, '"')) if self.rest.next_if(|(_, sign)| *sign == '"').is_none() => return Ok(name),
                Some((_, sign)) => name.push(sign),
            }
        }
    }

    fn takes(&mut self, wanted: char) -> bool {
        let is_next = self.next_sign().is_some_and(|(_, sign)| sign == wanted);
        if is_next {
            self.rest.next();
        }
        is_next
    }

    /// What comes next after blanks.
    fn next_sign(&mut self) -> Option<(usize, char)> {
        while self.rest.next_if(|(_, sign)| sign.is_whitespace()).is_some() {}
        self.rest.peek().copied()
    }

    fn unexpected_or(&mut self, at_the_end: InvalidationError) -> InvalidationError {
        self.next_sign().map_or(at_the_end, |(at, sign)| self.unexpected(at, sign))
    }

    fn unexpected(&self, at: usize, sign: char) -> InvalidationError {
        InvalidationError::Unexpected(sign, self.text[..at].chars().count() + 1)
    }
}

fn begins_name(sign: char) -> bool {
    sign.is_ascii_alphabetic() || sign == '_' || !sign.is_ascii()
}

impl fmt::Display for Invalidation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.table.fmt(out)?;
        for (place, column) in self.columns.iter().enumerate() {
            write!(out, "{}{}", if place > 0 { ", " } else { "(" }, Name(column))?;
        }
        out.write_str(if self.columns.is_empty() { "" } else { ")" })
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.schema {
            Some(schema) => write!(out, "{}.{}", Name(schema), Name(&self.name)),
            None => Name(&self.name).fmt(out),
        }
    }
}

/// A name as SQL has it, in quotes where it needs them.
pub(crate) struct Name<'n>(pub(crate) &'n str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let begins = |sign: char| sign.is_ascii_lowercase() || sign == '_';
        let is_plain = self.0.starts_with(begins) && self.0.chars().all(|sign| begins(sign) || sign.is_ascii_digit());
        match is_plain {
            true => out.write_str(self.0),
            false => write!(out, "\"{}\"", self.0.replace('"', "\"\"")),
        }
    }
}

/// A text as SQL writes it.
pub(crate) fn literal(text: &str) -> String {
    let escaped = text.replace('\'', "''");
    if escaped.contains('\\') { format!("E'{}'", escaped.replace('\\', "\\\\")) } else { format!("'{escaped}'") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Invalidation {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn tables_and_columns_are_read_as_sql_has_them() {
        let read = parsed(" Shop.Prices ( Product_ID, \"Region \"\"EU\"\"\" ) ");
        assert_eq!(read.table, TableName { schema: Some("shop".into()), name: "prices".into() });
        assert_eq!(read.columns, ["product_id", "Region \"EU\""]);
        assert_eq!(read.to_string(), "shop.prices(product_id, \"Region \"\"EU\"\"\")");
        assert_eq!(parsed("scores").to_string(), "scores");
        assert_eq!(parsed("Größen(a$1)").to_string(), "\"größen\"(\"a$1\")");
    }

    #[test]
    fn what_names_no_table_is_refused() {
        use InvalidationError::*;
        for (text, error) in [
            ("", NoTable),
            ("  ", NoTable),
            ("shop.", NoTable),
            ("(id)", Unexpected('(', 1)),
            ("products(id", Unclosed),
            ("products(", Unclosed),
            ("products(id,", Unclosed),
            ("products()", NoColumns("products()".into())),
            ("products(id,)", NoColumns("products(id,)".into())),
            ("products(id, ID)", DuplicateColumn("id".into())),
            ("products(id) x", Unexpected('x', 14)),
            ("products id", Unexpected('i', 10)),
            ("é products", Unexpected('p', 3)),
            ("1products", Unexpected('1', 1)),
            ("order-items", Unexpected('-', 6)),
            ("\"products", UnclosedQuote),
            ("a.b.c", Unexpected('.', 4)),
        ] {
            assert_eq!(text.parse::<Invalidation>(), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn it_is_read_back_as_it_was(
            schema in prop::option::of("\\PC{1,5}"),
            name in "\\PC{1,5}",
            columns in prop::collection::btree_set("\\PC{1,5}", 0..4),
        ) {
            let invalidation = Invalidation { table: TableName { schema, name }, columns: columns.into_iter().collect() };
            prop_assert_eq!(invalidation.to_string().parse(), Ok(invalidation));
        }

        #[test]
        fn no_text_panics(text in "[a.\"(), é-]{0,12}") {
            let _read = text.parse::<Invalidation>();
        }
    }
}
