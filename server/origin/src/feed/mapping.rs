//! From a changed row to the keys that it invalidates.
//!
//! Where a row does not tell the key for sure, every key of the group is meant: that costs loads, and leaves nothing stale.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::change::Gathered;
use crate::group::{Feed, GroupConfig};
use crate::invalidation::TableName;
use crate::pattern::KeyPattern;

/// A table as a feed describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Relation {
    pub(crate) schema: String,
    pub(crate) name: String,
    pub(crate) columns: Vec<Column>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) type_oid: u32,
    /// Whether old rows have it: it is part of the replica identity.
    pub(crate) in_identity: bool,
}

/// A value of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cell<'r> {
    Null,
    /// A large value that was not touched, and so is not sent.
    Unchanged,
    /// In the form in which Postgres prints it.
    Text(&'r [u8]),
    /// In a form that was not asked for.
    Binary,
}

impl fmt::Display for Relation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.schema, self.name)
    }
}

/// What happened to one row; the cells are in the order of the relation's columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RowChange<'r> {
    Insert {
        new: Vec<Cell<'r>>,
    },
    /// Without an old row, the replica identity has not changed.
    Update {
        old: Option<OldRow<'r>>,
        new: Vec<Cell<'r>>,
    },
    Delete {
        old: OldRow<'r>,
    },
}

/// A row as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OldRow<'r> {
    /// All columns are there, and not only those of the replica identity.
    pub(crate) is_whole: bool,
    pub(crate) cells: Vec<Cell<'r>>,
}

/// How the printed form of a column's values stands in a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spelling {
    /// As it is.
    Printed,
    /// As it is, and it is a whole number.
    Whole,
    /// As it is, and it is a UUID.
    Uuid,
    /// As it is, and it is a day.
    Date,
    /// `t` and `f` are `true` and `false`.
    Bool,
    /// Hexadecimal digits after `\x` are bytes.
    Bytes,
    /// A value can stand in keys in more than one way, such as 1.5 and 1.50.
    Many,
}

/// What is known of the tables' columns besides what the feed says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    by_column: HashMap<(String, String, String), ColumnFact>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ColumnFact {
    pub(crate) type_oid: u32,
    pub(crate) spelling: Spelling,
}

/// Which tables invalidate what.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mapping {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
struct Rule {
    table: TableName,
    columns: Vec<String>,
    group: Arc<str>,
    pattern: KeyPattern,
}

/// The rules for one relation.
#[derive(Debug)]
pub(crate) struct BoundRelation {
    rules: Vec<BoundRule>,
    columns: usize,
}

#[derive(Debug)]
struct BoundRule {
    group: Arc<str>,
    pattern: KeyPattern,
    /// `None`: any change means every key.
    captures: Option<Vec<BoundColumn>>,
}

#[derive(Debug, Clone, Copy)]
struct BoundColumn {
    index: usize,
    in_identity: bool,
    spelling: Spelling,
}

/// What came of a row change, for the counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Mapped {
    /// Keys that do not exist since a column is NULL.
    pub(crate) null_keys: u64,
    /// Times that every key of a group was meant since the row does not tell which one.
    pub(crate) untold_keys: u64,
}

/// The row does not have the columns of its relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a row of {found} columns, where its table has {expected}")]
pub(crate) struct WrongWidth {
    found: usize,
    expected: usize,
}

/// What is known of a value that is to be a capture.
enum Known<'r> {
    Value(Cow<'r, [u8]>),
    Null,
    Nothing,
}

impl Facts {
    pub(crate) fn insert(&mut self, schema: &str, table: &str, column: &str, fact: ColumnFact) {
        self.by_column.insert((schema.to_owned(), table.to_owned(), column.to_owned()), fact);
    }

    /// The type of a column; 0, which is none, where nothing is known of it.
    pub(crate) fn type_of(&self, schema: &str, table: &str, column: &str) -> u32 {
        let place = (schema.to_owned(), table.to_owned(), column.to_owned());
        self.by_column.get(&place).map_or(0, |fact| fact.type_oid)
    }

    /// How a column's values stand in keys.
    pub(crate) fn spelling_of(&self, schema: &str, table: &str, column: &str) -> Spelling {
        let place = (schema.to_owned(), table.to_owned(), column.to_owned());
        self.by_column.get(&place).map_or(Spelling::Many, |fact| fact.spelling)
    }

    /// A type that is not the one that was looked up is none that is known.
    fn spelling(&self, relation: &Relation, column: &Column) -> Spelling {
        let place = (relation.schema.clone(), relation.name.clone(), column.name.clone());
        match self.by_column.get(&place) {
            Some(fact) if fact.type_oid == column.type_oid => fact.spelling,
            _ => Spelling::Many,
        }
    }
}

impl Spelling {
    /// Of a type by its name in `pg_type`, without domains around it. `is_enum` says what only the database knows.
    pub(crate) fn of(type_name: &str, is_enum: bool) -> Spelling {
        match type_name {
            _ if is_enum => Spelling::Printed,
            "text" | "varchar" | "name" => Spelling::Printed,
            "int2" | "int4" | "int8" => Spelling::Whole,
            "uuid" => Spelling::Uuid,
            "date" => Spelling::Date,
            "bool" => Spelling::Bool,
            "bytea" => Spelling::Bytes,
            _ => Spelling::Many,
        }
    }

    fn written<'r>(self, printed: &'r [u8]) -> Option<Cow<'r, [u8]>> {
        match self {
            Spelling::Printed | Spelling::Whole | Spelling::Uuid | Spelling::Date => Some(printed.into()),
            Spelling::Bool => match printed {
                b"t" => Some(b"true".into()),
                b"f" => Some(b"false".into()),
                _ => None,
            },
            Spelling::Bytes => unhex(printed.strip_prefix(b"\\x")?).map(Cow::Owned),
            Spelling::Many => None,
        }
    }
}

fn unhex(digits: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    digits
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some((digit(*high)? << 4 | digit(*low)?) as u8),
            _ => None,
        })
        .collect()
}

impl Mapping {
    /// Of the groups that learn of changes by `feed`.
    pub(crate) fn of<'g>(groups: impl IntoIterator<Item = &'g GroupConfig>, feed: Feed) -> Self {
        let mut rules = Vec::new();
        for group in groups.into_iter().filter(|group| group.change_feed() == Some(feed)) {
            let name: Arc<str> = group.name.as_str().into();
            rules.extend(group.invalidated_by.iter().map(|invalidation| Rule {
                table: invalidation.table.clone(),
                columns: invalidation.columns.clone(),
                group: Arc::clone(&name),
                pattern: group.key.clone(),
            }));
        }
        Mapping { rules }
    }

    /// The groups, each as often as it names a table.
    pub(crate) fn groups(&self) -> impl Iterator<Item = &Arc<str>> {
        self.rules.iter().map(|rule| &rule.group)
    }

    /// The rules that name `relation`; a table without its schema is any schema's.
    fn rules_of<'m>(&'m self, relation: &'m Relation) -> impl Iterator<Item = &'m Rule> {
        self.rules.iter().filter(|rule| {
            let schema = rule.table.schema.as_ref();
            rule.table.name == relation.name && schema.is_none_or(|schema| *schema == relation.schema)
        })
    }

    /// What changes of `relation` mean.
    pub(crate) fn bind(&self, relation: &Relation, facts: &Facts) -> BoundRelation {
        let bound = |name: &String| {
            let index = relation.columns.iter().position(|column| column.name == *name)?;
            let column = &relation.columns[index];
            let spelling = facts.spelling(relation, column);
            (spelling != Spelling::Many).then_some(BoundColumn { index, in_identity: column.in_identity, spelling })
        };
        let rules = self.rules_of(relation).map(|rule| BoundRule {
            group: Arc::clone(&rule.group),
            pattern: rule.pattern.clone(),
            captures: match rule.columns.is_empty() {
                true => None,
                false => rule.columns.iter().map(bound).collect(),
            },
        });
        BoundRelation { rules: rules.collect(), columns: relation.columns.len() }
    }
}

impl BoundRelation {
    /// Whether no group names the table.
    pub(crate) fn is_unmapped(&self) -> bool {
        self.rules.is_empty()
    }

    /// The groups that name the table.
    #[cfg(test)]
    fn groups(&self) -> Vec<&str> {
        self.rules.iter().map(|rule| &*rule.group).collect()
    }

    /// Every key of the groups that name the table.
    pub(crate) fn truncate(&self, into: &mut Gathered) {
        self.rules.iter().for_each(|rule| into.add_all(&rule.group));
    }

    /// The keys that a changed row invalidates: of the row as it was, and as it is.
    pub(crate) fn change(&self, row: &RowChange<'_>, into: &mut Gathered) -> Result<Mapped, WrongWidth> {
        let (old, new) = match row {
            RowChange::Insert { new } => (None, Some(new)),
            RowChange::Update { old, new } => (old.as_ref(), Some(new)),
            RowChange::Delete { old } => (Some(old), None),
        };
        for cells in new.into_iter().chain(old.map(|old| &old.cells)) {
            if cells.len() != self.columns {
                return Err(WrongWidth { found: cells.len(), expected: self.columns });
            }
        }
        let mut mapped = Mapped::default();
        for rule in &self.rules {
            let Some(captures) = &rule.captures else {
                into.add_all(&rule.group);
                continue;
            };
            if let Some(new) = new {
                let known = captures.iter().map(|column| now(*column, new, old));
                rule.gather(known.collect(), into, &mut mapped);
            }
            if !matches!(row, RowChange::Insert { .. }) {
                let known = captures.iter().map(|column| before(*column, old, new.map(Vec::as_slice)));
                rule.gather(known.collect(), into, &mut mapped);
            }
        }
        Ok(mapped)
    }
}

impl BoundRule {
    fn gather(&self, known: Vec<Known<'_>>, into: &mut Gathered, mapped: &mut Mapped) {
        if known.iter().any(|known| matches!(known, Known::Null)) {
            mapped.null_keys += 1;
            return;
        }
        let values = known.iter().map(|known| match known {
            Known::Value(value) => Some(&**value),
            Known::Null | Known::Nothing => None,
        });
        match values.collect::<Option<Vec<&[u8]>>>() {
            // Values that no key of the pattern has are of no entry.
            Some(values) => self.pattern.key(&values).into_iter().for_each(|key| into.add(&self.group, key)),
            None => {
                mapped.untold_keys += 1;
                into.add_all(&self.group);
            }
        }
    }
}

/// A column of the row as it is.
fn now<'r>(column: BoundColumn, new: &[Cell<'r>], old: Option<&OldRow<'r>>) -> Known<'r> {
    match (new[column.index], old) {
        (Cell::Unchanged, Some(old)) => column.known(old.told(column)),
        (cell, _) => column.known(cell),
    }
}

/// A column of the row as it was. If no old row was sent, the replica identity is as it was.
fn before<'r>(column: BoundColumn, old: Option<&OldRow<'r>>, new: Option<&[Cell<'r>]>) -> Known<'r> {
    match (old, new) {
        (Some(old), _) => column.known(old.told(column)),
        (None, Some(new)) if column.in_identity => column.known(new[column.index]),
        _ => Known::Nothing,
    }
}

impl<'r> OldRow<'r> {
    /// Only the replica identity is sent of an old row that is not whole; the rest stands there as NULL.
    fn told(&self, column: BoundColumn) -> Cell<'r> {
        if self.is_whole || column.in_identity { self.cells[column.index] } else { Cell::Unchanged }
    }
}

impl BoundColumn {
    fn known<'r>(self, cell: Cell<'r>) -> Known<'r> {
        match cell {
            Cell::Null => Known::Null,
            Cell::Unchanged | Cell::Binary => Known::Nothing,
            Cell::Text(text) => self.spelling.written(text).map_or(Known::Nothing, Known::Value),
        }
    }
}

#[cfg(test)]
mod tests;
