//! How a group's writes are sent, whichever kind of database takes them, and what can go wrong.

use bytes::Bytes;

use crate::placeholder::Query;
use crate::postgres::PostgresWrites;
use crate::session::{SessionError, Wanted};
use crate::sqlite::SqliteWrites;
use crate::write::WriteError;

/// A group's statements for writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WriteQueries {
    pub(crate) save: Option<Query>,
    pub(crate) remove: Option<Query>,
    /// The captures of the key; the value is the parameter after them.
    pub(crate) captures: usize,
}

/// What describing them said.
#[derive(Debug)]
pub(crate) enum WritePlan {
    Postgres(PostgresWrites),
    Sqlite(SqliteWrites),
}

/// A write that can be sent.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub(crate) wanted: Wanted,
    /// `None`: it is removed.
    pub(crate) value: Option<Bytes>,
}

/// Why nothing is known to be written.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: WriteError,
    /// The connection is of no use any more.
    pub(crate) is_broken: bool,
}

impl WritePlan {
    /// Why a write cannot be sent, if so.
    pub(crate) fn refuses(&self, write: &Planned) -> Option<WriteError> {
        match self {
            WritePlan::Postgres(plan) => plan.refuses(write),
            WritePlan::Sqlite(plan) => plan.refuses(write),
        }
    }
}

impl Planned {
    /// Parameter `number` of the statement, of which the one after the captures is the value.
    pub(crate) fn parameter(&self, number: usize, captures: usize) -> &[u8] {
        match &self.value {
            Some(value) if number > captures => value,
            _ => self.wanted.parameter(number),
        }
    }
}

impl Failure {
    /// Something that went wrong before a write was sent.
    pub(crate) fn before(error: SessionError) -> Self {
        let is_broken = matches!(error, SessionError::Unreachable(_));
        let error = match error {
            SessionError::Unfit { problem, .. } => WriteError::refused("", problem),
            other => WriteError::try_again(other.to_string()),
        };
        Failure { error, is_broken }
    }

    pub(crate) fn refused(code: &str, message: &str) -> Self {
        Failure { error: WriteError::refused(code, message), is_broken: false }
    }

    pub(crate) fn try_again(reason: &str) -> Self {
        Failure { error: WriteError::try_again(reason), is_broken: false }
    }

    pub(crate) fn unknown(reason: String) -> Self {
        Failure { error: WriteError::Unknown { reason: reason.into() }, is_broken: true }
    }
}
