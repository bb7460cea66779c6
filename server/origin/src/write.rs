//! What a write is, and what comes of it.

use std::sync::Arc;

use bytes::Bytes;

use crate::snapshot::{Snapshot, Xid};

/// A change of one key that is to be made in the primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The key, which is one of the group's.
    pub key: Bytes,
    /// What becomes of it.
    pub change: WriteChange,
}

/// What becomes of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteChange {
    /// `save`, with the value as its last parameter.
    Save(NewValue),
    /// `remove`.
    Remove,
}

/// What is saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewValue {
    /// The value as a whole: a string, or a JSON document.
    Whole(Bytes),
    /// The fields of a hash that have changed, in order; one without a value is gone. `save` gets them as a JSON object of texts and nulls.
    Fields(Vec<(Bytes, Option<Bytes>)>),
}

/// A write that is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The transaction, by which the change feed will tell of it; `None` if it changed nothing, and from SQLite.
    pub xid: Option<Xid>,
    /// What was visible before, and `xid`: an entry with the written value and this snapshot is as good as one that was loaded. `None`
    /// from SQLite.
    pub snapshot: Option<Arc<Snapshot>>,
    /// The rows that the statement says it has changed: with none, the database does not have the value.
    pub rows: u64,
}

/// Why a write is not known to be committed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The database refuses it, and will refuse it again: a constraint, a value that is none of the column's type, an error that a trigger
    /// raised. Nothing was written.
    #[error("the origin refuses it: {message}")]
    Refused {
        /// SQLSTATE, or SQLite's number; empty if it was refused before the database was asked.
        code: Arc<str>,
        /// In words.
        message: Arc<str>,
    },
    /// Nothing was written, and it can be tried again: no connection, a deadlock, a table that is not there now.
    #[error("the origin cannot take it now: {reason}")]
    TryAgain {
        /// In words.
        reason: Arc<str>,
    },
    /// The connection was lost after the write was sent: it may have been committed or not. It can be repeated if doing it twice does no
    /// harm, as with an upsert of a whole value.
    #[error("it is not known whether the origin has taken it: {reason}")]
    Unknown {
        /// In words.
        reason: Arc<str>,
    },
    /// The group has no such statement, or is not served any more.
    #[error("the group has no such statement")]
    NoStatement,
}

impl WriteError {
    pub(crate) fn refused(code: &str, message: impl Into<Arc<str>>) -> Self {
        WriteError::Refused { code: code.into(), message: message.into() }
    }

    pub(crate) fn try_again(reason: impl Into<Arc<str>>) -> Self {
        WriteError::TryAgain { reason: reason.into() }
    }
}

impl NewValue {
    /// The parameter of `save`.
    pub(crate) fn into_parameter(self) -> Result<Bytes, WriteError> {
        match self {
            NewValue::Whole(bytes) => Ok(bytes),
            NewValue::Fields(fields) => object(&fields),
        }
    }
}

/// Written field by field, since a map would sort them.
fn object(fields: &[(Bytes, Option<Bytes>)]) -> Result<Bytes, WriteError> {
    let text = |bytes: &Bytes| {
        let text = std::str::from_utf8(bytes);
        text.map(serde_json::Value::from).map_err(|_| WriteError::refused("", "a field is no UTF-8, which JSON is"))
    };
    let mut object = String::from("{");
    for (name, value) in fields {
        let comma = if object.len() > 1 { "," } else { "" };
        let value = value.as_ref().map(text).transpose()?.unwrap_or_default();
        object.push_str(&format!("{comma}{}:{value}", text(name)?));
    }
    object.push('}');
    Ok(object.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_fields_are_an_object() {
        let field = |name: &'static str, value: Option<&'static str>| (name.into(), value.map(Bytes::from));
        let fields = NewValue::Fields(vec![field("z", Some("1")), field("a\"", Some("é\n")), field("gone", None)]);
        assert_eq!(fields.into_parameter().unwrap(), r#"{"z":"1","a\"":"é\n","gone":null}"#);
        assert_eq!(NewValue::Fields(Vec::new()).into_parameter().unwrap(), "{}");
        let binary = vec![("f".into(), Some(Bytes::from_static(b"\xff")))];
        assert!(matches!(NewValue::Fields(binary).into_parameter(), Err(WriteError::Refused { .. })));
    }
}
