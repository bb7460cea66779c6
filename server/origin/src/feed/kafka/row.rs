//! From a message to keys.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::message::{Columns, Message, Op, Value};
use crate::feed::change::Gathered;
use crate::feed::mapping::{
    BoundRelation, Cell, Column, Facts, Mapped, Mapping, OldRow, Relation, RowChange, Spelling,
};
use crate::feed::tables::{Survey, Table};
use crate::group::{Feed, GroupConfig};
use crate::invalidation::TableName;

/// What Debezium writes in place of a large value that was not touched.
const UNTOUCHED: &str = "__debezium_unavailable_value";

/// The tables that groups name, and what their rows mean.
#[derive(Debug)]
pub(super) struct Tables {
    mapping: Mapping,
    tables: BTreeMap<TableName, Bound>,
}

#[derive(Debug)]
struct Bound {
    columns: Vec<(String, Spelling)>,
    relation: BoundRelation,
}

/// What a message was about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) mapped: Mapped,
    /// No group names the table.
    pub(super) is_unmapped: bool,
}

impl Tables {
    pub(super) fn of(groups: &[GroupConfig], survey: &Survey) -> Tables {
        let mapping = Mapping::of(groups, Feed::Kafka);
        let bound =
            |(name, table): (&TableName, &Table)| (name.clone(), Bound::of(name, table, &mapping, &survey.facts));
        let tables = survey.tables.iter().map(bound).collect();
        Tables { mapping, tables }
    }

    /// Adds the keys that a message tells of.
    pub(super) fn take(&self, message: &Message, into: &mut Gathered) -> Taken {
        let mut taken = Taken { is_unmapped: true, ..Taken::default() };
        let named = TableName { schema: message.schema.clone(), name: message.table.clone() };
        for (_, bound) in self.tables.iter().filter(|(name, _)| named.may_be(name)) {
            taken.is_unmapped = false;
            let mapped = bound.take(message, into);
            taken.mapped.null_keys += mapped.null_keys;
            taken.mapped.untold_keys += mapped.untold_keys;
        }
        taken
    }

    /// Adds every key: nobody knows what has changed.
    pub(super) fn take_poison(&self, into: &mut Gathered) {
        self.mapping.groups().for_each(|group| into.add_all(group));
    }
}

impl Bound {
    fn of(name: &TableName, table: &Table, mapping: &Mapping, facts: &Facts) -> Bound {
        let schema = name.schema.clone().unwrap_or_default();
        let column = |column: &String| Column {
            type_oid: facts.type_of(&schema, &name.name, column),
            in_identity: table.identity.contains(column),
            name: column.clone(),
        };
        let columns = table.columns.iter().map(column).collect();
        let spelling = |column: &String| (column.clone(), facts.spelling_of(&schema, &name.name, column));
        let spellings = table.columns.iter().map(spelling).collect();
        let relation = Relation { schema: schema.clone(), name: name.name.clone(), columns };
        Bound { columns: spellings, relation: mapping.bind(&relation, facts) }
    }

    fn take(&self, message: &Message, into: &mut Gathered) -> Mapped {
        let (before, after) = (message.before.as_ref(), message.after.as_ref());
        let (before, after) = (before.map(|row| self.printed(row)), after.map(|row| self.printed(row)));
        // Debezium's old rows have NULL where the replica identity has nothing.
        let old = before.as_deref().map(|row| OldRow { is_whole: !message.is_debezium, cells: cells(row) });
        let change = match (message.op, old, after.as_deref().map(cells)) {
            (Op::Insert, None, Some(new)) => RowChange::Insert { new },
            (Op::Insert | Op::Update, old, Some(new)) => RowChange::Update { old, new },
            (Op::Delete, Some(old), _) => RowChange::Delete { old },
            (Op::Truncate, ..) => return self.every_key(0, into),
            // The row that it should have is not there.
            _ => return self.every_key(1, into),
        };
        match self.relation.change(&change, into) {
            Ok(mapped) => mapped,
            Err(_) => self.every_key(1, into),
        }
    }

    fn every_key(&self, untold_keys: u64, into: &mut Gathered) -> Mapped {
        self.relation.truncate(into);
        Mapped { untold_keys, ..Mapped::default() }
    }

    fn printed<'m>(&self, row: &'m Columns) -> Vec<Printed<'m>> {
        self.columns.iter().map(|(name, spelling)| Printed::of(row.get(name), *spelling)).collect()
    }
}

/// A value as Postgres would print it.
#[derive(Debug, PartialEq, Eq)]
enum Printed<'m> {
    Null,
    /// As it was before.
    Untouched,
    Unknown,
    Text(Cow<'m, str>),
}

impl<'m> Printed<'m> {
    /// Where there is a doubt, it is unknown.
    fn of(value: Option<&'m Value>, spelling: Spelling) -> Self {
        let text = match (value, spelling) {
            (Some(Value::Null), _) => return Printed::Null,
            (Some(Value::Text(text)), _) if text == UNTOUCHED => return Printed::Untouched,
            (Some(Value::Whole(number)), Spelling::Whole) => Some(number.to_string().into()),
            (Some(Value::Text(text)), Spelling::Whole) => {
                text.parse::<i64>().ok().map(|number| number.to_string().into())
            }
            (Some(Value::Text(text)), Spelling::Uuid) => canonical_uuid(text),
            (Some(Value::Text(text)), Spelling::Date) => is_date(text).then_some(Cow::Borrowed(text.as_str())),
            (Some(Value::Text(text)), Spelling::Printed) => Some(Cow::Borrowed(text.as_str())),
            (Some(Value::Bool(value)), Spelling::Bool) => Some(if *value { "t" } else { "f" }.into()),
            (Some(Value::Text(text)), Spelling::Bool) => match text.as_str() {
                "t" | "true" => Some("t".into()),
                "f" | "false" => Some("f".into()),
                _ => None,
            },
            (Some(Value::Text(text)), Spelling::Bytes) if text.starts_with("\\x") => Some(Cow::Borrowed(text.as_str())),
            _ => None,
        };
        text.map_or(Printed::Unknown, Printed::Text)
    }
}

fn cells<'m>(row: &'m [Printed<'m>]) -> Vec<Cell<'m>> {
    let cell = |printed: &'m Printed<'m>| match printed {
        Printed::Null => Cell::Null,
        Printed::Untouched => Cell::Unchanged,
        Printed::Unknown => Cell::Binary,
        Printed::Text(text) => Cell::Text(text.as_bytes()),
    };
    row.iter().map(cell).collect()
}

fn canonical_uuid(text: &str) -> Option<Cow<'static, str>> {
    let fits = |(place, byte): (usize, u8)| match place {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    (text.len() == 36 && text.bytes().enumerate().all(fits)).then(|| text.to_ascii_lowercase().into())
}

/// Years of four digits only: others are printed in more than one way.
fn is_date(text: &str) -> bool {
    let fits = |(place, byte): (usize, u8)| match place {
        4 | 7 => byte == b'-',
        _ => byte.is_ascii_digit(),
    };
    text.len() == 10 && text.bytes().enumerate().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::change::AffectedKeys;
    use crate::feed::mapping::ColumnFact;
    use crate::group::Shape;
    use crate::pattern::KeyPattern;

    /// The keys that a message tells of, or `*`, by group: prices by their product, which is not in the replica identity, and by their own id.
    fn told(message: &str) -> (Vec<String>, Taken) {
        let groups = [("of:{product}", "prices(product_id)"), ("price:{id}", "prices(id)")].map(|(pattern, table)| {
            let key = KeyPattern::parse(pattern).unwrap();
            let mut group = GroupConfig::new(pattern, key, "SELECT 1", Shape::String);
            (group.feed, group.invalidated_by) = (Some(Feed::Kafka), vec![table.parse().unwrap()]);
            group
        });
        let mut survey = Survey::default();
        for column in ["id", "product_id"] {
            survey.facts.insert("public", "prices", column, ColumnFact { type_oid: 20, spelling: Spelling::Whole });
        }
        let columns = ["id", "product_id"].map(str::to_owned).into();
        let table = Table { columns, identity: ["id".to_owned()].into(), ..Table::default() };
        survey.tables.insert(TableName { schema: Some("public".into()), name: "prices".into() }, table);
        let mut gathered = Gathered::default();
        let message = Message::read(message.as_bytes()).unwrap().unwrap();
        let taken = Tables::of(&groups, &survey).take(&message, &mut gathered);
        let in_words = gathered.take().into_iter().flat_map(|affected| match affected.keys {
            AffectedKeys::All => vec![format!("{} *", affected.group)],
            AffectedKeys::These(keys) => keys.iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect(),
        });
        (in_words.collect(), taken)
    }

    #[test]
    fn what_a_message_does_not_tell_for_sure_is_every_key() {
        let debezium = |op: &str, before: &str, after: &str| {
            format!(
                r#"{{"op": "{op}", "before": {before}, "after": {after}, "source": {{"schema": "public", "table": "prices"}}}}"#
            )
        };
        let own = |op: &str, rest: &str| format!(r#"{{"table": "prices", "op": "{op}"{rest}}}"#);
        for (message, keys) in [
            (debezium("c", "null", r#"{"id": 1, "product_id": 7}"#), &["of:7", "price:1"][..]),
            // The identity alone is told of old rows, with NULL beside it.
            (debezium("d", r#"{"id": 1, "product_id": null}"#, "null"), &["of:{product} *", "price:1"]),
            (debezium("u", "null", r#"{"id": 1, "product_id": 8}"#), &["of:{product} *", "price:1"]),
            (debezium("t", "null", "null"), &["of:{product} *", "price:{id} *"]),
            (debezium("c", "null", "null"), &["of:{product} *", "price:{id} *"]),
            (
                own("update", r#", "before": {"id": 1, "product_id": 7}, "after": {"id": 1, "product_id": 8}"#),
                &["of:8", "of:7", "price:1"],
            ),
            (own("delete", r#", "before": {"id": 1, "product_id": null}"#), &["price:1"]),
            (own("delete", r#", "before": {"id": 1}"#), &["of:{product} *", "price:1"]),
            (own("delete", r#", "after": {"id": 1}"#), &["of:{product} *", "price:{id} *"]),
            (
                own("update", r#", "before": {"id": 1, "product_id": 7}, "after": {"id": 2.5}"#),
                &["of:{product} *", "price:{id} *"],
            ),
        ] {
            let (told, taken) = told(&message);
            assert_eq!(told, keys, "{message}: {taken:?}");
            assert!(!taken.is_unmapped);
        }
        let other = r#"{"schema": "archive", "table": "prices", "op": "truncate"}"#;
        assert_eq!(told(other), (Vec::new(), Taken { is_unmapped: true, ..Taken::default() }));
    }

    #[test]
    fn values_are_printed_as_postgres_would_or_not_at_all() {
        let text = |text: &str| Value::Text(text.to_owned());
        for (value, spelling, printed) in [
            (Value::Whole(-7), Spelling::Whole, Some("-7")),
            (text("007"), Spelling::Whole, Some("7")),
            (text("7.0"), Spelling::Whole, None),
            (Value::Other, Spelling::Whole, None),
            (Value::Whole(7), Spelling::Printed, None),
            (text(" a"), Spelling::Printed, Some(" a")),
            (Value::Bool(true), Spelling::Printed, None),
            (Value::Bool(true), Spelling::Bool, Some("t")),
            (text("false"), Spelling::Bool, Some("f")),
            (text("no"), Spelling::Bool, None),
            (
                text("A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"),
                Spelling::Uuid,
                Some("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
            ),
            (text("{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1}"), Spelling::Uuid, None),
            (text("2026-11-22"), Spelling::Date, Some("2026-11-22")),
            (Value::Whole(20_000), Spelling::Date, None),
            (text("22.11.2026"), Spelling::Date, None),
            (text("\\x6162"), Spelling::Bytes, Some("\\x6162")),
            (text("YWI="), Spelling::Bytes, None),
            (Value::Whole(1), Spelling::Many, None),
            (text("1.5"), Spelling::Many, None),
        ] {
            let expected = printed.map_or(Printed::Unknown, |text| Printed::Text(text.into()));
            assert_eq!(Printed::of(Some(&value), spelling), expected, "{value:?} as {spelling:?}");
        }
        assert_eq!(Printed::of(Some(&Value::Null), Spelling::Many), Printed::Null);
        assert_eq!(Printed::of(Some(&text(UNTOUCHED)), Spelling::Whole), Printed::Untouched);
        assert_eq!(Printed::of(None, Spelling::Whole), Printed::Unknown);
    }
}
