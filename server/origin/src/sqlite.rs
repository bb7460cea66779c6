//! Loads from SQLite.
//!
//! SQLite runs in this process, so a query per key costs no round trip: a batch is one query after another on one
//! connection. There are no parameter types to describe; a capture that is written as Postgres would write an integer is
//! bound as an integer, and any other one as text. Compared with a column, either is converted to the column's
//! affinity; only compared with a bare expression it matters, and there numbers are the likelier case
//! (write `CAST($1 AS TEXT)` where it is not).

mod writes;

pub(crate) use writes::SqliteWrites;

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::TryStreamExt;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteRow};
use sqlx::{
    AssertSqlSafe, Column, ConnectOptions, Connection, Executor, Row, SqlSafeStr, SqlStr, Statement, TypeInfo,
    Value as _, ValueRef,
};

use crate::group::Shape;
use crate::load::Value;
use crate::session::{Answer, Found, KeyProblem, LoadQuery, SessionError, Wanted};

/// The instructions of SQLite's machine between two looks at the clock: some tens of microseconds.
const STEPS_BETWEEN_CHECKS: i32 = 10_000;

/// An open connection.
#[derive(Debug)]
pub(crate) struct SqliteSession {
    connection: SqliteConnection,
    clock: Arc<QueryClock>,
}

/// A group's query as it is sent.
#[derive(Debug)]
pub(crate) struct SqlitePlan {
    sql: SqlStr,
    /// The captures it uses, by number from 1, in the order of the statement's parameters.
    parameters: Vec<usize>,
    shape: Shape,
}

/// What a row is as a value; `None` when it is absence.
type Read = Result<Option<Value>, KeyProblem>;

/// Stops queries that take too long: SQLite asks it now and then whether to go on.
#[derive(Debug)]
struct QueryClock {
    epoch: Instant,
    /// Nanoseconds after the epoch at which the present query is stopped.
    until: AtomicU64,
}

impl QueryClock {
    fn set(&self, until: Option<Instant>) {
        let nanos = until.map(|until| until.saturating_duration_since(self.epoch).as_nanos());
        let nanos = nanos.and_then(|nanos| u64::try_from(nanos).ok()).unwrap_or(u64::MAX);
        self.until.store(nanos, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.epoch.elapsed().as_nanos() > u128::from(self.until.load(Ordering::Relaxed))
    }
}

/// Reads a `sqlite://` URL. The file must exist unless the URL says `mode=rwc`.
pub(crate) fn connect_options(url: &str, timeout: Duration, groups: usize) -> Result<SqliteConnectOptions, String> {
    let options = SqliteConnectOptions::from_str(url).map_err(|error| error.to_string())?;
    let read_only = url.split_once('?').is_some_and(|(_, query)| query.split('&').any(|pair| pair == "mode=ro"));
    let options = if read_only { options } else { options.journal_mode(SqliteJournalMode::Wal) };
    Ok(options.busy_timeout(timeout / 2).statement_cache_capacity(groups.max(100)).disable_statement_logging())
}

impl SqliteSession {
    pub(crate) async fn connect(options: &SqliteConnectOptions) -> Result<Self, SessionError> {
        let unreachable = |error: sqlx::Error| SessionError::Unreachable(error.to_string());
        let mut connection = options.connect().await.map_err(unreachable)?;
        let clock = Arc::new(QueryClock { epoch: Instant::now(), until: AtomicU64::new(u64::MAX) });
        let watch = Arc::clone(&clock);
        connection
            .lock_handle()
            .await
            .map_err(unreachable)?
            .set_progress_handler(STEPS_BETWEEN_CHECKS, move || !watch.is_over());
        Ok(SqliteSession { connection, clock })
    }

    pub(crate) async fn ping(&mut self) -> Result<(), SessionError> {
        self.connection.ping().await.map_err(session_error)
    }

    pub(crate) async fn close(self) {
        // The connection is given up either way.
        let _ = self.connection.close().await;
    }

    pub(crate) async fn plan(&mut self, load: &LoadQuery) -> Result<SqlitePlan, SessionError> {
        let parameters = load.query.used();
        let numbered = load.query.replace(|number| format!("?{}", parameters.partition_point(|p| *p < number) + 1));
        let sql = AssertSqlSafe(numbered).into_sql_str();
        let statement = self.connection.prepare(sql.clone()).await.map_err(session_error)?;
        refuse_unfit_columns(load.shape, statement.columns().iter().map(Column::name))?;
        Ok(SqlitePlan { sql, parameters, shape: load.shape })
    }

    /// Loads keys whose captures the plan accepts.
    pub(crate) async fn load(
        &mut self,
        plan: &SqlitePlan,
        keys: &[Wanted],
        until: Instant,
    ) -> Result<Vec<Answer>, SessionError> {
        self.clock.set(Some(until));
        let answers = self.load_each(plan, keys).await;
        self.clock.set(None);
        answers
    }

    async fn load_each(&mut self, plan: &SqlitePlan, keys: &[Wanted]) -> Result<Vec<Answer>, SessionError> {
        let mut answers = Vec::with_capacity(keys.len());
        for key in keys {
            answers.push(self.load_one(plan, key).await?);
        }
        Ok(answers)
    }

    async fn load_one(&mut self, plan: &SqlitePlan, key: &Wanted) -> Result<Answer, SessionError> {
        let mut query = sqlx::query(plan.sql.clone());
        for number in &plan.parameters {
            let text = std::str::from_utf8(key.parameter(*number)).unwrap_or_default();
            query = match integer(text) {
                Some(integer) => query.bind(integer),
                None => query.bind(text),
            };
        }
        let mut rows = query.fetch(&mut self.connection);
        let Some(row) = rows.try_next().await.map_err(session_error)? else {
            return Ok(Ok(Found::default()));
        };
        if rows.try_next().await.map_err(session_error)?.is_some() {
            return Ok(Err(KeyProblem::Shape("the query gave more than one row for one key".into())));
        }
        Ok(plan.value(&row).map(|value| Found { value, snapshot: None }))
    }
}

impl SqlitePlan {
    /// Whether the captures are text; SQLite converts the rest itself.
    pub(crate) fn accepts(&self, wanted: &Wanted) -> bool {
        self.parameters.iter().all(|number| {
            let text = wanted.parameter(*number);
            std::str::from_utf8(text).is_ok() && !text.contains(&0)
        })
    }

    fn value(&self, row: &SqliteRow) -> Read {
        match self.shape {
            Shape::String => Ok(Cell::of(row, 0)?.into_bytes().map(Value::String)),
            Shape::Json => json(row),
            Shape::Hash => hash(row),
        }
    }
}

fn hash(row: &SqliteRow) -> Read {
    let mut fields = Vec::with_capacity(row.len());
    for column in row.columns() {
        if let Some(value) = Cell::of(row, column.ordinal())?.into_bytes() {
            fields.push((Bytes::copy_from_slice(column.name().as_bytes()), value));
        }
    }
    // A row of nothing but NULLs would be an empty hash, which Redis has not.
    Ok((!fields.is_empty()).then_some(Value::Hash(fields)))
}

/// SQLite has no JSON type, so a single column that holds the text of a JSON object or array counts as the document.
fn json(row: &SqliteRow) -> Read {
    if let [_] = row.columns() {
        match Cell::of(row, 0)? {
            Cell::Null => return Ok(None),
            Cell::Text(text) if is_document(&text) => return Ok(Some(Value::String(text.into()))),
            _ => {}
        }
    }
    // Written field by field, since a map would sort the columns.
    let mut object = String::from("{");
    for column in row.columns() {
        let value = Cell::of(row, column.ordinal())?.into_json(column.name())?;
        let comma = if object.len() > 1 { "," } else { "" };
        object.push_str(&format!("{comma}{}:{value}", serde_json::Value::from(column.name())));
    }
    object.push('}');
    Ok(Some(Value::String(object.into())))
}

fn is_document(text: &str) -> bool {
    text.trim_start().starts_with(['{', '[']) && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// A value of a row, by its storage class.
enum Cell {
    Null,
    Integer(i64),
    Real(f64),
    Text(String),
    Blob(Vec<u8>),
}

impl Cell {
    fn of(row: &SqliteRow, column: usize) -> Result<Self, KeyProblem> {
        Self::read(row, column).map_err(|error| KeyProblem::Shape(error.to_string().into()))
    }

    fn read(row: &SqliteRow, column: usize) -> Result<Self, sqlx::Error> {
        let value = row.try_get_raw(column)?.to_owned();
        if value.is_null() {
            return Ok(Cell::Null);
        }
        // The value's own storage class decides, not the type its column was declared with.
        Ok(match value.type_info().name() {
            "BLOB" => Cell::Blob(value.try_decode_unchecked()?),
            "TEXT" => Cell::Text(value.try_decode_unchecked()?),
            "REAL" => Cell::Real(value.try_decode_unchecked()?),
            _ => Cell::Integer(value.try_decode_unchecked()?),
        })
    }

    fn into_bytes(self) -> Option<Bytes> {
        match self {
            Cell::Null => None,
            Cell::Integer(number) => Some(number.to_string().into()),
            Cell::Real(number) => Some(format!("{number:?}").into()),
            Cell::Text(text) => Some(text.into()),
            Cell::Blob(bytes) => Some(bytes.into()),
        }
    }

    fn into_json(self, column: &str) -> Result<serde_json::Value, KeyProblem> {
        Ok(match self {
            Cell::Null => serde_json::Value::Null,
            Cell::Integer(number) => number.into(),
            Cell::Real(number) => number.into(),
            Cell::Text(text) => text.into(),
            Cell::Blob(_) => {
                let problem = format!("the column \"{column}\" holds a blob, which JSON cannot hold");
                return Err(KeyProblem::Shape(problem.into()));
            }
        })
    }
}

/// The number, if `text` is written as SQLite would print it.
fn integer(text: &str) -> Option<i64> {
    text.parse::<i64>().ok().filter(|number| number.to_string() == text)
}

fn refuse_unfit_columns<'c>(shape: Shape, names: impl Iterator<Item = &'c str>) -> Result<(), SessionError> {
    let names: Vec<&str> = names.collect();
    if names.is_empty() {
        return Err(SessionError::unfit("the statement gives no columns", "write a query that selects the value"));
    }
    if shape == Shape::String && names.len() > 1 {
        return Err(SessionError::unfit(
            format!("a string is one column, and the query gives {}", names.len()),
            "select the one column that is the value, or write as = \"json\" or \"hash\"",
        ));
    }
    match names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
        Some((_, name)) => Err(SessionError::unfit(
            format!("two columns are called \"{name}\""),
            format!("give one another name: … AS other_{name}"),
        )),
        None => Ok(()),
    }
}

/// Sorts an error by who is to blame: 9 is an interrupted query, 5 a database that others keep locked.
fn session_error(error: sqlx::Error) -> SessionError {
    let sqlx::Error::Database(database) = &error else {
        return SessionError::Unreachable(error.to_string());
    };
    match database.code().as_deref() {
        Some("9" | "5") => SessionError::TooSlow,
        code => SessionError::Statement {
            code: code.unwrap_or_default().to_owned(),
            message: database.message().to_owned(),
            hint: String::new(),
        },
    }
}
