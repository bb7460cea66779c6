//! A message about a changed row, in one of two forms. Ours:
//!
//! ```json
//! {"schema": "public", "table": "prices", "op": "update", "before": {"product_id": 7}, "after": {"product_id": 8}, "txid": 743, "ts_ms": 1}
//! ```
//!
//! and Debezium's, with its schema around it or without:
//!
//! ```json
//! {"op": "u", "before": null, "after": {"id": 7}, "source": {"schema": "public", "table": "products", "txId": 743, "ts_ms": 1}}
//! ```

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The largest message that is read, in bytes. One that is larger counts as one that cannot be read.
pub(super) const LARGEST_MESSAGE: usize = 16 << 20;

/// The year 10000, in milliseconds of Unix' time. What is told of as later was not committed then.
const LATEST: u64 = 253_402_300_800_000;

/// A changed row, or a table that was emptied.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Message {
    /// Without it, any table of that name may be meant.
    pub(super) schema: Option<String>,
    pub(super) table: String,
    pub(super) op: Op,
    pub(super) before: Option<Columns>,
    pub(super) after: Option<Columns>,
    pub(super) is_debezium: bool,
    pub(super) xid: Option<ToldXid>,
    pub(super) committed_at: Option<SystemTime>,
}

/// What became of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Insert,
    Update,
    Delete,
    Truncate,
}

/// A transaction's id as a message has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ToldXid {
    /// Of this origin, with its epoch.
    Whole(u64),
    /// Its lower half, and perhaps of another database.
    Low(u32),
}

/// Values by column.
pub(super) type Columns = HashMap<String, Value>;

/// One value of a row.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Whole(i64),
    Text(String),
    /// A list, an object, or a number that is not whole.
    Other,
}

/// Why a message says nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Poison {
    #[error("it is larger than {LARGEST_MESSAGE} bytes")]
    TooLarge,
    #[error("it is no such JSON object: {0}")]
    NoJson(String),
    #[error("it names no table")]
    NoTable,
    #[error("its `op` is none")]
    NoOp,
}

/// All that is looked at in either form.
#[derive(Debug, Default, Deserialize)]
struct Envelope {
    #[serde(default)]
    schema: Option<Value>,
    #[serde(default)]
    payload: Option<Box<Envelope>>,
    #[serde(default)]
    table: Option<String>,
    #[serde(default)]
    op: Option<String>,
    #[serde(default)]
    before: Option<Columns>,
    #[serde(default)]
    after: Option<Columns>,
    #[serde(default)]
    txid: Option<Value>,
    #[serde(default)]
    ts_ms: Option<Value>,
    #[serde(default)]
    source: Option<Source>,
}

/// Where Debezium has a change from.
#[derive(Debug, Deserialize)]
struct Source {
    #[serde(default)]
    schema: Option<String>,
    #[serde(default)]
    table: Option<String>,
    #[serde(default, rename = "txId")]
    tx_id: Option<Value>,
    #[serde(default)]
    ts_ms: Option<Value>,
}

impl Message {
    /// Reads a message's value; `None` if it is about no row.
    pub(super) fn read(text: &[u8]) -> Result<Option<Message>, Poison> {
        if text.len() > LARGEST_MESSAGE {
            return Err(Poison::TooLarge);
        }
        let read: Envelope = serde_json::from_slice(text).map_err(|error| Poison::NoJson(kind_of(&error)))?;
        let envelope = match read.payload {
            Some(payload) => *payload,
            None => read,
        };
        match envelope.source {
            Some(_) => envelope.debezium(),
            None => envelope.own().map(Some),
        }
    }
}

/// Without the place, so that the same is the same in every message.
fn kind_of(error: &serde_json::Error) -> String {
    match error.classify() {
        serde_json::error::Category::Eof => "it ends too early".to_owned(),
        serde_json::error::Category::Syntax => "it is no JSON".to_owned(),
        _ => "a field is not of its kind".to_owned(),
    }
}

impl Envelope {
    fn debezium(self) -> Result<Option<Message>, Poison> {
        let source = self.source.ok_or(Poison::NoTable)?;
        let op = match self.op.as_deref() {
            Some("c" | "r") => Op::Insert,
            Some("u") => Op::Update,
            Some("d") => Op::Delete,
            Some("t") => Op::Truncate,
            // What an application has written into the log by pg_logical_emit_message.
            Some("m") => return Ok(None),
            _ => return Err(Poison::NoOp),
        };
        let low = source.tx_id.and_then(|id| id.whole()).map(|id| ToldXid::Low(id as u32));
        Ok(Some(Message {
            schema: source.schema,
            table: source.table.ok_or(Poison::NoTable)?,
            op,
            before: self.before,
            after: self.after,
            is_debezium: true,
            xid: low,
            committed_at: source.ts_ms.and_then(Value::time),
        }))
    }

    fn own(self) -> Result<Message, Poison> {
        let op = match self.op.as_deref() {
            Some("insert") => Op::Insert,
            Some("update") => Op::Update,
            Some("delete") => Op::Delete,
            Some("truncate") => Op::Truncate,
            _ => return Err(Poison::NoOp),
        };
        let schema = match self.schema {
            Some(Value::Text(schema)) => Some(schema),
            _ => None,
        };
        Ok(Message {
            schema,
            table: self.table.ok_or(Poison::NoTable)?,
            op,
            before: self.before,
            after: self.after,
            is_debezium: false,
            xid: self.txid.and_then(|id| id.whole()).map(ToldXid::Whole),
            committed_at: self.ts_ms.and_then(Value::time),
        })
    }
}

impl Value {
    /// A whole number that is not negative, also as a text.
    fn whole(&self) -> Option<u64> {
        match self {
            Value::Whole(number) => u64::try_from(*number).ok(),
            Value::Text(text) => text.parse().ok(),
            _ => None,
        }
    }

    fn time(self) -> Option<SystemTime> {
        let millis = self.whole().filter(|millis| (1..LATEST).contains(millis))?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis))
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Whole(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(i64::try_from(number).map_or(Value::Other, Value::Whole))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Value, A::Error> {
        while all.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut all: A) -> Result<Value, A::Error> {
        while all.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn columns(all: &[(&str, Value)]) -> Option<Columns> {
        Some(all.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
    }

    fn read(text: &str) -> Message {
        Message::read(text.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn our_own_form_is_read() {
        let message = read(
            r#"{"schema": "shop", "table": "t", "op": "update", "before": {"id": 1, "big": [1, {"a": 2}]},
                "after": {"id": null, "on": true, "name": "a", "share": 0.5}, "txid": "4294967297", "ts_ms": 1000, "more": {}}"#,
        );
        assert_eq!((message.schema.as_deref(), message.table.as_str(), message.op), (Some("shop"), "t", Op::Update));
        assert_eq!(message.before, columns(&[("id", Value::Whole(1)), ("big", Value::Other)]));
        let (name, share) = (Value::Text("a".into()), Value::Other);
        assert_eq!(
            message.after,
            columns(&[("id", Value::Null), ("on", Value::Bool(true)), ("name", name), ("share", share)])
        );
        assert_eq!((message.xid, message.is_debezium), (Some(ToldXid::Whole(4_294_967_297)), false));
        assert_eq!(message.committed_at, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1)));
        let least = read(r#"{"table": "t", "op": "truncate"}"#);
        assert_eq!((least.schema, least.op, least.xid, least.before), (None, Op::Truncate, None, None));
        for never in ["0", "-1", "9223372036854775807", "\"soon\""] {
            assert_eq!(read(&format!(r#"{{"table": "t", "op": "truncate", "ts_ms": {never}}}"#)).committed_at, None);
        }
    }

    #[test]
    fn debezium_is_read_with_its_schema_and_without() {
        let plain = r#"{"before": null, "after": {"id": 7}, "op": "c", "ts_ms": 9,
            "source": {"connector": "postgresql", "schema": "public", "table": "t", "txId": 743, "lsn": 5, "ts_ms": 2000}}"#;
        let wrapped = format!(r#"{{"schema": {{"type": "struct", "fields": []}}, "payload": {plain}}}"#);
        let message = read(plain);
        assert_eq!(message, read(&wrapped));
        assert_eq!((message.schema.as_deref(), message.table.as_str(), message.op), (Some("public"), "t", Op::Insert));
        assert_eq!((message.before, message.xid), (None, Some(ToldXid::Low(743))));
        assert_eq!(message.committed_at, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(2)));
        let of = |op: &str| Message::read(plain.replace("\"c\"", op).as_bytes()).map(|read| read.map(|read| read.op));
        assert_eq!(of("\"r\""), Ok(Some(Op::Insert)));
        assert_eq!(of("\"u\""), Ok(Some(Op::Update)));
        assert_eq!(of("\"d\""), Ok(Some(Op::Delete)));
        assert_eq!(of("\"t\""), Ok(Some(Op::Truncate)));
        assert_eq!(of("\"m\""), Ok(None));
        assert_eq!(of("\"x\""), Err(Poison::NoOp));
    }

    #[test]
    fn poison_is_told_by_its_kind() {
        let no_json = |text: &str| Poison::NoJson(text.to_owned());
        for (text, poison) in [
            ("", no_json("it ends too early")),
            ("{", no_json("it ends too early")),
            ("\u{1}", no_json("it is no JSON")),
            ("{} {}", no_json("it is no JSON")),
            ("7", no_json("a field is not of its kind")),
            (r#"{"table": "t", "op": "insert", "after": 5}"#, no_json("a field is not of its kind")),
            (r#"{"table": "t", "table": "u", "op": "insert"}"#, no_json("a field is not of its kind")),
            ("{}", Poison::NoOp),
            (r#"{"op": "insert"}"#, Poison::NoTable),
            (r#"{"op": "c", "source": {}}"#, Poison::NoTable),
            (r#"{"table": "t", "op": "upsert"}"#, Poison::NoOp),
        ] {
            assert_eq!(Message::read(text.as_bytes()), Err(poison), "{text}");
        }
        assert_eq!(Message::read(&vec![b' '; LARGEST_MESSAGE + 1]), Err(Poison::TooLarge));
        let deep = [vec![b'['; 1 << 20], vec![b']'; 1 << 20]].concat();
        assert!(Message::read(&deep).is_err());
        let deep = format!(r#"{{"table": "t", "op": "insert", "after": {{"a": {}"#, "[".repeat(1 << 20));
        assert!(Message::read(deep.as_bytes()).is_err());
        let deep = r#"{"payload":"#.repeat(100_000);
        assert!(Message::read(deep.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Message::read(&bytes);
        }

        #[test]
        fn any_text_of_the_like_is_read_or_refused(
            text in r#"(\{|\}|\[|\]|,|:|null|1|-7|0\.5|"(op|u|c|d|t|table|source|after|before|payload|schema|txId|txid)"){0,30}"#
        ) {
            let _ = Message::read(text.as_bytes());
        }
    }
}
