//! What a load gives: a value, absence, or the reason for neither.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::snapshot::Snapshot;

/// A target's place: 0 is the primary, 1 the first replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetId(pub u16);

/// The answer of the origin for one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The value, or `None` when the key is absent.
    pub value: Option<Value>,
    /// How long the query took, connecting and waiting left out; zero when no query was needed.
    pub took: Duration,
    /// Who answered; `None` when no query was needed, since the key cannot be there.
    pub target: Option<TargetId>,
    /// What the query could see, also where it found nothing; `None` when no query was needed, and from SQLite.
    pub snapshot: Option<Arc<Snapshot>>,
}

impl Loaded {
    /// The key cannot be there, which needed no query.
    pub(crate) fn absent_unasked() -> Self {
        Loaded { value: None, took: Duration::ZERO, target: None, snapshot: None }
    }
}

/// A loaded value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// For the shapes `string` and `json`.
    String(Bytes),
    /// For the shape `hash`: fields and their values, in the order of the columns.
    Hash(Vec<(Bytes, Bytes)>),
}

/// Why a load gave neither a value nor absence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// No target could answer: their breakers are open, or connecting failed.
    #[error("no origin can be reached: {reason}")]
    Down {
        /// What the last target said.
        reason: Arc<str>,
    },
    /// The load did not end within the load timeout.
    #[error("the origin did not answer within {limit:?}")]
    Timeout {
        /// The load timeout.
        limit: Duration,
    },
    /// As many loads as are allowed are waiting already.
    #[error("{limit} loads are waiting already")]
    TooManyWaiting {
        /// The cap.
        limit: usize,
    },
    /// The database refused the group's query.
    #[error("group '{group}': {message}")]
    Query {
        /// The group's name.
        group: Arc<str>,
        /// The database's words.
        message: Arc<str>,
    },
    /// The query gave something that is no value of the group's shape.
    #[error("group '{group}': {problem}")]
    Shape {
        /// The group's name.
        group: Arc<str>,
        /// What was wrong with it.
        problem: Arc<str>,
    },
    /// The group was changed or removed before its load was begun.
    #[error("the group has been replaced")]
    Replaced,
    /// The origin was closed.
    #[error("the origin is closed")]
    Closed,
}

impl LoadError {
    /// The error line of a RESP reply, without the `-` and the line end.
    ///
    /// `ORIGINDOWN` means that trying again later can help, `ORIGINERR` that somebody has to mend the group or its data.
    pub fn reply(&self) -> String {
        let word = if self.is_origin_ill() { "ORIGINDOWN" } else { "ORIGINERR" };
        // A line end within the database's words would end the reply early.
        format!("{word} {self}").replace(['\r', '\n'], " ")
    }

    /// Whether the origin could not answer, as opposed to having answered badly: the case for `stale_if_error`.
    pub fn is_origin_ill(&self) -> bool {
        !matches!(self, LoadError::Query { .. } | LoadError::Shape { .. })
    }
}
