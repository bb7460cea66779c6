//! One connection to a database, whichever kind it is, and what can go wrong on it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;

use crate::group::Shape;
use crate::load::Value;
use crate::pattern::Captures;
use crate::placeholder::Query;
use crate::postgres::{self, PostgresPlan, PostgresSession};
use crate::snapshot::Snapshot;
use crate::sqlite::{self, SqlitePlan, SqliteSession};
use crate::write::{WriteError, Written};
use crate::write_plan::{Failure, Planned, WritePlan, WriteQueries};

/// How to reach one database.
#[derive(Debug, Clone)]
pub(crate) enum Connector {
    Postgres(Box<PgConnectOptions>),
    Sqlite(Box<SqliteConnectOptions>),
}

/// An open connection.
#[derive(Debug)]
pub(crate) enum Session {
    Postgres(PostgresSession),
    Sqlite(SqliteSession),
}

/// What describing a group's query said: how to ask it, and which captures can be its parameters.
#[derive(Debug)]
pub(crate) enum Plan {
    Postgres(PostgresPlan),
    Sqlite(SqlitePlan),
}

/// A group's query, as the database is asked for it.
#[derive(Debug, Clone)]
pub(crate) struct LoadQuery {
    pub(crate) query: Query,
    /// The group's own query for many keys.
    pub(crate) many: Option<ManyQuery>,
    pub(crate) shape: Shape,
}

/// A query whose parameters are arrays of captures, and whose rows tell by columns of the captures' names which key they are of.
#[derive(Debug, Clone)]
pub(crate) struct ManyQuery {
    pub(crate) query: Query,
    pub(crate) captures: Vec<String>,
}

/// A key to load, and where its captures are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) key: Bytes,
    pub(crate) captures: Captures,
}

impl ManyQuery {
    /// The name of the capture that is parameter `number`, from 1.
    pub(crate) fn capture(&self, number: usize) -> &str {
        number.checked_sub(1).and_then(|index| self.captures.get(index)).map(String::as_str).unwrap_or_default()
    }
}

impl Wanted {
    /// The capture that is parameter `number`, from 1; empty if the pattern has none of that number.
    pub(crate) fn parameter(&self, number: usize) -> &[u8] {
        let range = number.checked_sub(1).and_then(|index| self.captures.range(index));
        range.and_then(|range| self.key.get(range)).unwrap_or_default()
    }
}

/// What the database said about one key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// `None` when the key is absent.
    pub(crate) value: Option<Value>,
    /// What the statement could see; from Postgres alone.
    pub(crate) snapshot: Option<Arc<Snapshot>>,
}

/// What became of one key of a batch.
pub(crate) type Answer = Result<Found, KeyProblem>;

/// Why one key of a batch has no value, while the others may have theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeyProblem {
    /// The rows are no value of the group's shape.
    Shape(Arc<str>),
    /// The database refused the query for this key.
    Query(Arc<str>),
}

/// Why a session could not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SessionError {
    /// The database cannot be reached, or not any more, or does not take us in.
    #[error("{0}")]
    Unreachable(String),
    /// The database gave up since the query took too long.
    #[error("the query took too long")]
    TooSlow,
    /// The database refused the statement.
    #[error("{message}")]
    Statement { code: String, message: String, hint: String },
    /// The query can be no load: its parameters or its columns do not fit.
    #[error("{problem}")]
    Unfit { problem: String, hint: String },
}

impl SessionError {
    pub(crate) fn unfit(problem: impl Into<String>, hint: impl Into<String>) -> Self {
        SessionError::Unfit { problem: problem.into(), hint: hint.into() }
    }

    /// The same, with the setting that it is about in its words.
    pub(crate) fn about(self, setting: &'static str) -> Self {
        match self {
            SessionError::Statement { code, message, hint } => {
                SessionError::Statement { code, message: format!("{setting}: {message}"), hint }
            }
            SessionError::Unfit { problem, hint } => {
                SessionError::Unfit { problem: format!("{setting}: {problem}"), hint }
            }
            other => other,
        }
    }

    /// Whether the parameters' values may be to blame, so that other keys of the batch can succeed: class 22 is
    /// "data exception", 21 "cardinality violation", P0 an error that a function raised.
    pub(crate) fn may_be_one_keys(&self) -> bool {
        let SessionError::Statement { code, .. } = self else {
            return false;
        };
        ["22", "21", "P0"].iter().any(|class| code.starts_with(class))
    }

    /// Whether the schema may have changed since the statement was prepared: class 42 is "syntax error or access rule
    /// violation", 0A "feature not supported", under which a changed result type is reported.
    pub(crate) fn may_be_stale(&self) -> bool {
        let SessionError::Statement { code, .. } = self else {
            return false;
        };
        ["42", "0A"].iter().any(|class| code.starts_with(class))
    }
}

impl Connector {
    /// Reads a URL. `timeout` is set as the database's own limit on a statement, so that it does not go on working
    /// for nobody.
    pub(crate) fn parse(url: &str, timeout: Duration, groups: usize) -> Result<Self, String> {
        match url.split_once("://").map(|(scheme, _)| scheme) {
            Some("postgres" | "postgresql") => {
                Ok(Connector::Postgres(Box::new(postgres::connect_options(url, timeout, groups)?)))
            }
            Some("sqlite") => Ok(Connector::Sqlite(Box::new(sqlite::connect_options(url, timeout, groups)?))),
            _ => Err("it is neither postgres://… nor sqlite://FILE".to_owned()),
        }
    }

    /// Whether both lead to the same kind of database.
    pub(crate) fn same_kind(&self, other: &Connector) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    pub(crate) async fn connect(&self) -> Result<Session, SessionError> {
        match self {
            Connector::Postgres(options) => PostgresSession::connect(options).await.map(Session::Postgres),
            Connector::Sqlite(options) => SqliteSession::connect(options).await.map(Session::Sqlite),
        }
    }
}

impl Session {
    /// Asks for a sign of life.
    pub(crate) async fn ping(&mut self) -> Result<(), SessionError> {
        match self {
            Session::Postgres(session) => session.ping().await,
            Session::Sqlite(session) => session.ping().await,
        }
    }

    /// Describes a group's queries and makes a plan of them; an error tells which setting it is about.
    pub(crate) async fn plan(&mut self, load: &LoadQuery) -> Result<Plan, (&'static str, SessionError)> {
        match self {
            Session::Postgres(session) => session.plan(load).await.map(Plan::Postgres),
            Session::Sqlite(session) => session.plan(load).await.map(Plan::Sqlite).map_err(|error| ("load", error)),
        }
    }

    /// Loads keys, one answer for each, in order. All their captures fit the plan.
    pub(crate) async fn load(
        &mut self,
        plan: &Plan,
        keys: &[Wanted],
        until: Instant,
    ) -> Result<Vec<Answer>, SessionError> {
        match (self, plan) {
            (Session::Postgres(session), Plan::Postgres(plan)) => session.load(plan, keys).await,
            (Session::Sqlite(session), Plan::Sqlite(plan)) => session.load(plan, keys, until).await,
            _ => Err(SessionError::unfit("the targets are databases of different kinds", "")),
        }
    }

    /// Describes a group's statements for writes; an error tells which one it is about.
    pub(crate) async fn plan_writes(
        &mut self,
        queries: &WriteQueries,
    ) -> Result<WritePlan, (&'static str, SessionError)> {
        match self {
            Session::Postgres(session) => session.plan_writes(queries).await.map(WritePlan::Postgres),
            Session::Sqlite(session) => session.plan_writes(queries).await.map(WritePlan::Sqlite),
        }
    }

    /// Makes changes in one transaction, in their order; what the plan refuses is not among them. `each_by_itself`: what the database
    /// refuses does not keep the others from being written.
    pub(crate) async fn write(
        &mut self,
        plan: &WritePlan,
        writes: &[Planned],
        each_by_itself: bool,
        until: Instant,
    ) -> Result<Vec<Result<Written, WriteError>>, Failure> {
        match (self, plan) {
            (Session::Postgres(session), WritePlan::Postgres(plan)) => {
                session.write(plan, writes, each_by_itself).await
            }
            (Session::Sqlite(session), WritePlan::Sqlite(plan)) => {
                session.write(plan, writes, each_by_itself, until).await
            }
            _ => Err(Failure::try_again("the targets are databases of different kinds")),
        }
    }

    /// Says goodbye and closes.
    pub(crate) async fn close(self) {
        match self {
            Session::Postgres(session) => session.close().await,
            Session::Sqlite(session) => session.close().await,
        }
    }
}

impl Plan {
    /// Whether the captures of `wanted` can be the query's parameters. If not, the key is absent for sure.
    pub(crate) fn accepts(&self, wanted: &Wanted) -> bool {
        match self {
            Plan::Postgres(plan) => plan.accepts(wanted),
            Plan::Sqlite(plan) => plan.accepts(wanted),
        }
    }

    /// Whether one call to the database answers many keys.
    pub(crate) fn is_batched(&self) -> bool {
        match self {
            Plan::Postgres(plan) => plan.is_batched(),
            Plan::Sqlite(_) => true,
        }
    }

    /// The statements it takes to load `keys` keys, for the counters.
    pub(crate) fn statements_for(&self, keys: usize) -> usize {
        match self {
            Plan::Postgres(plan) => plan.statements_for(keys),
            Plan::Sqlite(_) => keys,
        }
    }
}

/// `url` without the password, to be shown.
pub(crate) fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let authority_end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(authority_end);
    let authority = match authority.rsplit_once('@') {
        Some((user, host)) => format!("{}@{host}", user.split(':').next().unwrap_or_default()),
        None => authority.to_owned(),
    };
    let (path, query) = match tail.split_once('?') {
        Some((path, query)) => (path, query),
        None => (tail, ""),
    };
    let shown: Vec<&str> = query.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("password=")).collect();
    let mark = if shown.is_empty() { "" } else { "?" };
    format!("{scheme}://{authority}{path}{mark}{}", shown.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        for (url, shown) in [
            ("postgres://ann:secret@db:5432/shop?sslmode=require", "postgres://ann@db:5432/shop?sslmode=require"),
            ("postgres://ann:s@e:c@db/shop", "postgres://ann@db/shop"),
            ("postgres://db/shop?user=ann&password=secret", "postgres://db/shop?user=ann"),
            ("postgres://db/shop?password=secret", "postgres://db/shop"),
            ("sqlite:///var/lib/shop.db", "sqlite:///var/lib/shop.db"),
            ("nonsense", "nonsense"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }
}
