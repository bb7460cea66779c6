//! One connection to Postgres.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use sqlx::error::DatabaseError;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgDatabaseError, PgRow, PgTypeInfo};
use sqlx::query::Query as SqlxQuery;
use sqlx::{
    AssertSqlSafe, Column, ConnectOptions, Connection, Either, Executor, Postgres, Row, SqlSafeStr, Statement, ValueRef,
};

use super::many;
use super::parameter::ParameterType;
use super::plan::{
    Description, FIRST_VALUE, Output, Parameter, PostgresPlan, SNAPSHOT_PLACE, STANDBY_MARK, Wrapped, describable,
};
use crate::load::Value;
use crate::session::{Answer, Found, KeyProblem, LoadQuery, ManyQuery, SessionError, Wanted};
use crate::snapshot::Snapshot;

/// The statements that a connection keeps prepared if there are only a few groups.
const LEAST_STATEMENTS: usize = 100;

/// `load`, `load_many` and what writes.
const STATEMENTS_OF_GROUP: usize = 3;

/// An open connection.
#[derive(Debug)]
pub(crate) struct PostgresSession {
    pub(super) connection: PgConnection,
    /// The functions for writes that were made on this connection, or could not be made.
    pub(super) functions: HashMap<String, bool>,
    /// The server was a standby when the connection was made. It may have been promoted since; then its snapshots say more than is
    /// believed.
    of_standby: bool,
}

/// Reads a `postgres://` URL.
pub(crate) fn connect_options(url: &str, timeout: Duration, groups: usize) -> Result<PgConnectOptions, String> {
    let mut options = PgConnectOptions::from_str(url).map_err(|error| error.to_string())?;
    if options.get_application_name().is_none() {
        options = options.application_name("forebay");
    }
    if groups * STATEMENTS_OF_GROUP > LEAST_STATEMENTS {
        options = options.statement_cache_capacity(groups * STATEMENTS_OF_GROUP);
    }
    let millis = timeout.as_millis().max(1);
    Ok(options.options([("statement_timeout", millis)]).disable_statement_logging())
}

impl PostgresSession {
    pub(crate) async fn connect(options: &PgConnectOptions) -> Result<Self, SessionError> {
        match options.connect().await {
            Ok(connection) => {
                PostgresSession { connection, functions: HashMap::new(), of_standby: false }.introduced().await
            }
            Err(error) => Err(SessionError::Unreachable(in_words(&error))),
        }
    }

    async fn introduced(mut self) -> Result<Self, SessionError> {
        let row = sqlx::raw_sql("SELECT pg_is_in_recovery()").fetch_one(&mut self.connection).await;
        self.of_standby = row.and_then(|row| row.try_get(0)).map_err(session_error)?;
        Ok(self)
    }

    pub(crate) async fn ping(&mut self) -> Result<(), SessionError> {
        self.connection.ping().await.map_err(session_error)
    }

    pub(crate) async fn close(self) {
        // The connection is given up either way; a goodbye that fails changes nothing.
        let _ = self.connection.close().await;
    }

    /// Describes the group's queries, and finds statements that answer them for many keys, or for one if need be; an error tells which
    /// setting it is about.
    pub(crate) async fn plan(&mut self, load: &LoadQuery) -> Result<PostgresPlan, (&'static str, SessionError)> {
        // A description that the connection remembers may be older than the schema.
        self.connection.clear_cached_statements().await.map_err(|error| ("load", session_error(error)))?;
        let (parameters, columns) = self.describe(describable(&load.query)).await.map_err(|error| ("load", error))?;
        let description = Description::new(load, &parameters, columns).map_err(|error| ("load", error))?;
        let one = self.plan_one(&description).await.map_err(|error| ("load", error))?;
        let many = match &load.many {
            Some(many) => Some(self.plan_many(load, many, &description).await.map_err(|error| ("load_many", error))?),
            None => None,
        };
        Ok(description.plan(one, many))
    }

    async fn plan_one(&mut self, description: &Description<'_>) -> Result<Wrapped, SessionError> {
        if description.has_parameters() {
            let batched = description.batched();
            match self.describe(batched.clone()).await {
                Ok(_) => return Ok(Wrapped::new(batched, true)),
                Err(SessionError::Statement { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let single = description.single();
        self.describe(single.clone()).await?;
        Ok(Wrapped::new(single, false))
    }

    async fn plan_many(
        &mut self,
        load: &LoadQuery,
        many: &ManyQuery,
        one: &Description<'_>,
    ) -> Result<Wrapped, SessionError> {
        let (parameters, columns) = self.describe(describable(&many.query)).await?;
        let statement = many::statement(load, many, one, (&parameters, &columns))?;
        self.describe(statement.clone()).await.map_err(|error| many::cannot_be_matched(error, many))?;
        Ok(Wrapped::new(statement, true))
    }

    /// Loads keys whose captures the plan accepts.
    pub(crate) async fn load(&mut self, plan: &PostgresPlan, keys: &[Wanted]) -> Result<Vec<Answer>, SessionError> {
        let statement = plan.many.as_ref().filter(|_| keys.len() > 1).unwrap_or(&plan.one);
        if statement.of_arrays {
            return self.ask(plan, statement, keys).await;
        }
        let mut answers = Vec::with_capacity(keys.len());
        for key in keys {
            match self.ask(plan, statement, std::slice::from_ref(key)).await {
                Ok(answer) => answers.extend(answer),
                Err(error) if error.may_be_one_keys() => {
                    answers.push(Err(KeyProblem::Query(error.to_string().into())));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(answers)
    }

    /// Sends a statement of the plan once.
    async fn ask(
        &mut self,
        plan: &PostgresPlan,
        statement: &Wrapped,
        keys: &[Wanted],
    ) -> Result<Vec<Answer>, SessionError> {
        let query = sqlx::query(statement.sql.clone());
        let query = plan.parameters.iter().fold(query, |query, parameter| {
            if statement.of_arrays { bind_all(query, parameter, keys) } else { bind_first(query, parameter, keys) }
        });
        let mut answers: Vec<Answer> = vec![Ok(Found::default()); keys.len()];
        let mut seen = vec![false; keys.len()];
        let mut snapshot = None;
        let mut rows = query.fetch(&mut self.connection);
        while let Some(row) = rows.try_next().await.map_err(session_error)? {
            let place = row.try_get::<i64, _>(0).map_err(session_error)?;
            if place == SNAPSHOT_PLACE {
                snapshot = Some(read_snapshot(&row, self.of_standby)?);
                continue;
            }
            let place = usize::try_from(place - 1).unwrap_or(usize::MAX);
            let (Some(answer), Some(seen)) = (answers.get_mut(place), seen.get_mut(place)) else {
                return Err(SessionError::unfit("the database answered for a key that was not asked for", ""));
            };
            // However many rows a key has, no more than one is held.
            *answer = match *seen {
                true => Err(two_rows()),
                false => Ok(Found { value: plan.output.value(&row).map_err(session_error)?, snapshot: None }),
            };
            *seen = true;
        }
        let snapshot = snapshot.ok_or_else(|| SessionError::unfit("the database gave no snapshot", ""))?;
        for found in answers.iter_mut().flatten() {
            found.snapshot = Some(Arc::clone(&snapshot));
        }
        Ok(answers)
    }

    pub(super) async fn describe(
        &mut self,
        sql: String,
    ) -> Result<(Vec<PgTypeInfo>, Vec<(String, PgTypeInfo)>), SessionError> {
        let sql = AssertSqlSafe(sql).into_sql_str();
        let statement = self.connection.prepare(sql).await.map_err(session_error)?;
        let parameters = match statement.parameters() {
            Some(Either::Left(types)) => types.to_vec(),
            _ => Vec::new(),
        };
        let columns = statement.columns().iter();
        let columns = columns.map(|column| (column.name().to_owned(), column.type_info().clone())).collect();
        Ok((parameters, columns))
    }
}

impl Output {
    fn value(&self, row: &PgRow) -> Result<Option<Value>, sqlx::Error> {
        match self {
            Output::Value => Ok(bytes_of(row, FIRST_VALUE)?.map(Value::String)),
            Output::Fields(names) => {
                let mut fields = Vec::with_capacity(names.len());
                for (name, column) in names.iter().zip(FIRST_VALUE..) {
                    if let Some(value) = bytes_of(row, column)? {
                        fields.push((Bytes::copy_from_slice(name.as_bytes()), value));
                    }
                }
                // A row of nothing but NULLs would be an empty hash, which Redis has not.
                Ok((!fields.is_empty()).then_some(Value::Hash(fields)))
            }
        }
    }
}

/// A column's bytes: text and bytea are sent as they are; `None` for NULL.
fn bytes_of(row: &PgRow, column: usize) -> Result<Option<Bytes>, sqlx::Error> {
    let value = row.try_get_raw(column)?;
    if value.is_null() {
        return Ok(None);
    }
    value.as_bytes().map(|bytes| Some(Bytes::copy_from_slice(bytes))).map_err(sqlx::Error::Decode)
}

/// A standby's snapshot is marked with a `*`. That it was one when the connection was made says so, too: what is asked within a
/// statement is answered after its snapshot was taken, and it may have been promoted just then.
fn read_snapshot(row: &PgRow, of_standby: bool) -> Result<Arc<Snapshot>, SessionError> {
    let text: &str = row.try_get(1).map_err(session_error)?;
    let (text, of_standby) = match text.strip_suffix(STANDBY_MARK) {
        Some(text) => (text, true),
        None => (text, of_standby),
    };
    let snapshot: Snapshot = text.parse().map_err(|_| SessionError::unfit(format!("`{text}` is no snapshot"), ""))?;
    Ok(Arc::new(if of_standby { snapshot.of_standby() } else { snapshot }))
}

fn two_rows() -> KeyProblem {
    KeyProblem::Shape("the query gave more than one row for one key".into())
}

type Bound<'q> = SqlxQuery<'q, Postgres, PgArguments>;

fn bind_all<'q>(query: Bound<'q>, parameter: &Parameter, keys: &'q [Wanted]) -> Bound<'q> {
    let values = keys.iter().map(|key| key.parameter(parameter.number));
    match parameter.of {
        ParameterType::Bytea => query.bind(values.collect::<Vec<&[u8]>>()),
        _ => query.bind(values.map(text).collect::<Vec<&str>>()),
    }
}

fn bind_first<'q>(query: Bound<'q>, parameter: &Parameter, keys: &'q [Wanted]) -> Bound<'q> {
    let value = keys.first().map(|key| key.parameter(parameter.number)).unwrap_or_default();
    match parameter.of {
        ParameterType::Bytea => query.bind(value),
        _ => query.bind(text(value)),
    }
}

/// A parameter as text; the plan accepts only UTF-8 where a text is due.
fn text(value: &[u8]) -> &str {
    std::str::from_utf8(value).unwrap_or_default()
}

/// Sorts an error by who is to blame.
pub(crate) fn session_error(error: sqlx::Error) -> SessionError {
    match &error {
        sqlx::Error::Database(database) => database_error(database.as_ref()),
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnIndexOutOfBounds { .. } => {
            SessionError::unfit(error.to_string(), "")
        }
        _ => SessionError::Unreachable(in_words(&error)),
    }
}

/// Sorts by SQLSTATE: class 08 is "connection exception", 53 "insufficient resources", 57P "operator intervention"
/// (shutting down, starting up), 25006 and 40001 on a standby that replay overtook, 57014 a cancelled query.
fn database_error(error: &dyn DatabaseError) -> SessionError {
    let code = error.code().unwrap_or_default();
    match code.as_ref() {
        "57014" => SessionError::TooSlow,
        // A limit of the configuration, which is no sign of illness (53400): waiting does not help.
        code if code != "53400" && ["08", "53", "57P", "40001"].iter().any(|class| code.starts_with(class)) => {
            SessionError::Unreachable(error.message().to_owned())
        }
        code => SessionError::Statement {
            code: code.to_owned(),
            message: error.message().to_owned(),
            hint: error
                .try_downcast_ref::<PgDatabaseError>()
                .and_then(PgDatabaseError::hint)
                .unwrap_or_default()
                .to_owned(),
        },
    }
}

/// An error without the library's preamble.
pub(super) fn in_words(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(database) => database.message().to_owned(),
        sqlx::Error::Io(io) => io.to_string(),
        other => other.to_string(),
    }
}
