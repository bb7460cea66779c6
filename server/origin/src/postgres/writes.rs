//! How Postgres is asked to write: many writes as one statement.
//!
//! A statement of a group's is run by a function of the connection's own (`pg_temp`), which is called with the parameters of many writes as
//! arrays. Whatever the statement is, that is one way to the database and back and one transaction, and a write that is refused can be told
//! from the others. Where the user may not make such a function, each write is a statement in a transaction.

use std::fmt::Write as _;
use std::sync::Arc;

use sqlx::postgres::{PgArguments, PgRow, PgTypeInfo, Postgres};
use sqlx::query::Query as SqlxQuery;
use sqlx::{AssertSqlSafe, Connection as _, Executor, Row, SqlSafeStr, SqlStr, TypeInfo};

use super::parameter::{ACCEPTED, ParameterType};
use super::plan::{describable, place_among};
use super::session::{PostgresSession, in_words, session_error};
use crate::invalidation::literal;
use crate::placeholder::Query;
use crate::session::SessionError;
use crate::snapshot::{Snapshot, Xid};
use crate::write::{WriteError, Written};
use crate::write_plan::{Failure, Planned, WriteQueries};

/// What the database refuses, and will refuse again, by the class of SQLSTATE: 21 "cardinality violation", 22 "data exception", 23
/// "integrity constraint violation", 44 "WITH CHECK OPTION violation", P0 an error that a function raised.
const REFUSED: [&str; 5] = ["21", "22", "23", "44", "P0"];

/// SQLSTATEs after which nobody knows whether a transaction was committed: class 08, which a pooler gives for the connection behind it,
/// and 57P02, a server that ends since another of its processes has crashed.
const UNKNOWN: [&str; 2] = ["08", "57P02"];

/// After these the connection is of no use: the server ends, or has no room.
const BROKEN: [&str; 2] = ["57P", "53"];

/// SQLSTATE "undefined function".
const UNDEFINED_FUNCTION: &str = "42883";

/// The place of the row behind those of the writes, with the transaction.
const TRANSACTION: i64 = 0;

/// A group's statements for writes, as they are sent.
#[derive(Debug)]
pub(crate) struct PostgresWrites {
    captures: usize,
    save: Option<Statement>,
    remove: Option<Statement>,
    function: Function,
}

/// One of them, with each parameter as a text, or as bytes, that is cast.
#[derive(Debug)]
struct Statement {
    sql: SqlStr,
    parameters: Vec<WriteParameter>,
}

#[derive(Debug, Clone)]
struct WriteParameter {
    number: usize,
    of: WriteType,
}

/// The type of a parameter: JSON besides what a capture can be.
#[derive(Debug, Clone, PartialEq, Eq)]
enum WriteType {
    Plain(ParameterType),
    Json(&'static str),
}

/// The function that runs both for many writes.
#[derive(Debug)]
struct Function {
    /// By what it does, so that another one has another name.
    name: String,
    create: String,
    call: SqlStr,
    /// The parameters of `save` and then those of `remove`, each an array.
    arrays: Vec<(bool, WriteParameter)>,
}

impl PostgresWrites {
    /// Why a write cannot be sent: captures that are none of their parameters' types, and a text that Postgres cannot hold.
    pub(crate) fn refuses(&self, write: &Planned) -> Option<WriteError> {
        let statement = self.statement(write)?;
        statement.parameters.iter().find_map(|parameter| {
            let value = write.parameter(parameter.number, self.captures);
            let problem = match &parameter.of {
                WriteType::Plain(of) if parameter.number <= self.captures => (!of.accepts(value))
                    .then(|| format!("`{}` cannot be ${}", String::from_utf8_lossy(value), parameter.number)),
                WriteType::Plain(ParameterType::Bytea) => None,
                _ => (std::str::from_utf8(value).is_err() || value.contains(&0))
                    .then(|| "the value is no text: it is not UTF-8, or has a zero byte".to_owned()),
            };
            problem.map(|problem| WriteError::refused("", problem))
        })
    }

    fn statement(&self, write: &Planned) -> Option<&Statement> {
        if write.value.is_some() { self.save.as_ref() } else { self.remove.as_ref() }
    }
}

impl WriteType {
    fn of(info: &PgTypeInfo, is_value: bool) -> Option<Self> {
        match info.name() {
            "JSON" if is_value => Some(WriteType::Json("json")),
            "JSONB" if is_value => Some(WriteType::Json("jsonb")),
            _ => ParameterType::of(info).map(WriteType::Plain),
        }
    }

    /// The SQL that turns the placeholder `$number` into this type.
    fn scalar(&self, number: usize) -> String {
        match self {
            WriteType::Plain(of) => of.scalar(number),
            WriteType::Json(name) => format!("(${number}::text::{name})"),
        }
    }

    fn sent_as(&self) -> &'static str {
        if *self == WriteType::Plain(ParameterType::Bytea) { "bytea" } else { "text" }
    }
}

impl Statement {
    fn new(query: &Query, types: &[PgTypeInfo], captures: usize) -> Result<Self, SessionError> {
        let used = query.used();
        let parameters = used.iter().zip(types).map(|(number, info)| {
            let unfit = || {
                let problem = format!("${number} is of the type {}, which cannot be sent", info.name().to_lowercase());
                SessionError::unfit(problem, ACCEPTED)
            };
            let of = WriteType::of(info, *number > captures).ok_or_else(unfit)?;
            Ok(WriteParameter { number: *number, of })
        });
        let parameters = parameters.collect::<Result<Vec<_>, SessionError>>()?;
        let sql = query.replace(|number| {
            let place = place_among(&used, number);
            parameters[place - 1].of.scalar(place)
        });
        Ok(Statement { sql: AssertSqlSafe(sql).into_sql_str(), parameters })
    }

    /// The SQL within the function that runs it for the write `n`.
    fn execute(statement: Option<&Statement>, letter: char) -> String {
        let Some(statement) = statement else { return "NULL;".to_owned() };
        let using = (1..=statement.parameters.len()).map(|place| format!("{letter}{place}[n]")).collect::<Vec<_>>();
        let using = if using.is_empty() { String::new() } else { format!(" USING {}", using.join(", ")) };
        format!("EXECUTE {}{using};", literal(statement.sql.as_str()))
    }
}

impl Function {
    fn new(save: Option<&Statement>, remove: Option<&Statement>) -> Self {
        let mut arrays = Vec::new();
        let mut declared = String::new();
        for (is_save, letter, statement) in [(true, 's', save), (false, 'r', remove)] {
            for (parameter, place) in statement.iter().flat_map(|statement| &statement.parameters).zip(1..) {
                // Writing to a string cannot fail.
                let _written = write!(declared, ", {letter}{place} {}[]", parameter.of.sent_as());
                arrays.push((is_save, parameter.clone()));
            }
        }
        let run = format!(
            "IF saves[n] THEN {} ELSE {} END IF; GET DIAGNOSTICS affected = ROW_COUNT;",
            Statement::execute(save, 's'),
            Statement::execute(remove, 'r'),
        );
        let body = format!(
            "
DECLARE
    before text := pg_catalog.pg_current_snapshot()::text;
BEGIN
    FOR n IN 1 .. cardinality(saves) LOOP
        place := n; affected := 0; code := NULL; words := NULL;
        IF each_by_itself THEN
            BEGIN
                {run}
            EXCEPTION WHEN OTHERS THEN
                IF left(SQLSTATE, 2) NOT IN ('{refused}') THEN RAISE; END IF;
                affected := 0; code := SQLSTATE; words := SQLERRM;
            END;
        ELSE
            {run}
        END IF;
        RETURN NEXT;
    END LOOP;
    place := {TRANSACTION}; affected := 0; code := pg_catalog.pg_current_xact_id_if_assigned()::text; words := before;
    RETURN NEXT;
END
",
            refused = REFUSED.join("', '"),
        );
        let name = format!("forebay_write_{:016x}", fingerprint(&format!("{declared}{body}")));
        let create = format!(
            "CREATE OR REPLACE FUNCTION pg_temp.{name}(saves boolean[], each_by_itself boolean{declared}) \
             RETURNS TABLE (place int8, affected int8, code text, words text) LANGUAGE plpgsql AS {}",
            literal(&body)
        );
        let sent: String =
            arrays.iter().zip(3..).map(|((_, of), place)| format!(", ${place}::{}[]", of.of.sent_as())).collect();
        let call = format!("SELECT place, affected, code, words FROM pg_temp.{name}($1::boolean[], $2::boolean{sent})");
        Function { name, create, call: AssertSqlSafe(call).into_sql_str(), arrays }
    }
}

/// FNV-1a, 64 bits.
fn fingerprint(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

impl PostgresSession {
    /// Describes a group's statements for writes.
    pub(crate) async fn plan_writes(
        &mut self,
        queries: &WriteQueries,
    ) -> Result<PostgresWrites, (&'static str, SessionError)> {
        // A description that the connection remembers may be older than the schema.
        self.connection.clear_cached_statements().await.map_err(|error| ("save", session_error(error)))?;
        let save = self.plan_write(queries.save.as_ref(), queries.captures).await.map_err(|error| ("save", error))?;
        let remove = self.plan_write(queries.remove.as_ref(), queries.captures).await;
        let remove = remove.map_err(|error| ("remove", error))?;
        let function = Function::new(save.as_ref(), remove.as_ref());
        Ok(PostgresWrites { captures: queries.captures, save, remove, function })
    }

    async fn plan_write(&mut self, query: Option<&Query>, captures: usize) -> Result<Option<Statement>, SessionError> {
        let Some(query) = query else { return Ok(None) };
        let (types, _) = self.describe(describable(query)).await?;
        let statement = Statement::new(query, &types, captures)?;
        self.describe(statement.sql.as_str().to_owned()).await?;
        Ok(Some(statement))
    }

    /// Makes changes in one transaction.
    pub(crate) async fn write(
        &mut self,
        plan: &PostgresWrites,
        writes: &[Planned],
        each_by_itself: bool,
    ) -> Result<Vec<Result<Written, WriteError>>, Failure> {
        if self.has_function(&plan.function).await? {
            return self.write_by_function(plan, writes, each_by_itself).await;
        }
        let written = self.write_one_by_one(plan, writes, each_by_itself).await;
        if let Err(Failure { is_broken: false, .. }) = &written {
            self.connection.execute("ROLLBACK").await.map_err(|error| Failure::unknown(in_words(&error)))?;
        }
        written
    }

    /// Makes the function, if it is not there; tells whether that is allowed.
    async fn has_function(&mut self, function: &Function) -> Result<bool, Failure> {
        if let Some(is_there) = self.functions.get(&function.name) {
            return Ok(*is_there);
        }
        if self.functions.len() >= MAX_FUNCTIONS {
            return Ok(false);
        }
        let made = self.connection.execute(AssertSqlSafe(function.create.clone())).await;
        let is_there = match made.map_err(session_error) {
            Ok(_) => true,
            // No temporary objects, or no PL/pgSQL.
            Err(SessionError::Statement { code, message, .. }) => {
                tracing::info!(code, message, "writes are sent one by one, since no function can be made for them");
                false
            }
            Err(error) => return Err(Failure::before(error)),
        };
        self.functions.insert(function.name.clone(), is_there);
        Ok(is_there)
    }

    async fn write_by_function(
        &mut self,
        plan: &PostgresWrites,
        writes: &[Planned],
        each_by_itself: bool,
    ) -> Result<Vec<Result<Written, WriteError>>, Failure> {
        let saves: Vec<bool> = writes.iter().map(|write| write.value.is_some()).collect();
        let mut query = sqlx::query(plan.function.call.clone()).bind(saves).bind(each_by_itself);
        for (is_save, parameter) in &plan.function.arrays {
            let values = writes.iter().map(|write| {
                (write.value.is_some() == *is_save).then(|| write.parameter(parameter.number, plan.captures))
            });
            query = match parameter.of.sent_as() {
                "bytea" => query.bind(values.collect::<Vec<Option<&[u8]>>>()),
                _ => query.bind(values.map(|value| value.map(text)).collect::<Vec<Option<&str>>>()),
            };
        }
        let rows = match query.fetch_all(&mut self.connection).await {
            Ok(rows) => rows,
            Err(error) => {
                let code = error.as_database_error().and_then(|database| database.code());
                if code.is_some_and(|code| code == UNDEFINED_FUNCTION) {
                    // A pooler has reset the connection, or has another one behind it.
                    self.functions.remove(&plan.function.name);
                }
                return Err(write_failure(error));
            }
        };
        outcomes(&rows).map_err(|error| Failure::unknown(in_words(&error)))
    }

    async fn write_one_by_one(
        &mut self,
        plan: &PostgresWrites,
        writes: &[Planned],
        each_by_itself: bool,
    ) -> Result<Vec<Result<Written, WriteError>>, Failure> {
        self.run("BEGIN").await?;
        let before: Option<String> = self.ask_text("SELECT pg_current_snapshot()::text").await?;
        let mut outcomes = Vec::with_capacity(writes.len());
        for write in writes {
            let Some(statement) = plan.statement(write) else {
                outcomes.push(Err(WriteError::NoStatement));
                continue;
            };
            if each_by_itself {
                self.run("SAVEPOINT forebay_write").await?;
            }
            let bind = |query: SqlxQuery<'static, Postgres, PgArguments>, parameter: &WriteParameter| {
                let value = write.parameter(parameter.number, plan.captures);
                match parameter.of.sent_as() {
                    "bytea" => query.bind(value.to_vec()),
                    _ => query.bind(text(value).to_owned()),
                }
            };
            let query = statement.parameters.iter().fold(sqlx::query(statement.sql.clone()), bind);
            match query.execute(&mut self.connection).await.map_err(write_failure) {
                Ok(done) => outcomes.push(Ok(done.rows_affected())),
                Err(Failure { error: error @ WriteError::Refused { .. }, .. }) if each_by_itself => {
                    self.run("ROLLBACK TO forebay_write").await?;
                    outcomes.push(Err(error));
                }
                Err(failure) => return Err(failure),
            }
            if each_by_itself {
                self.run("RELEASE forebay_write").await?;
            }
        }
        let xid = self.ask_text("SELECT pg_current_xact_id_if_assigned()::text").await?;
        self.connection.execute("COMMIT").await.map(drop).map_err(write_failure)?;
        let (xid, snapshot) = transaction(xid.as_deref(), before.as_deref());
        let written = |rows| Written { xid, snapshot: snapshot.clone(), rows };
        Ok(outcomes.into_iter().map(|outcome| outcome.map(written)).collect())
    }

    /// Nothing is committed by it.
    async fn run(&mut self, sql: &'static str) -> Result<(), Failure> {
        self.connection.execute(sql).await.map(drop).map_err(|error| Failure::before(session_error(error)))
    }

    async fn ask_text(&mut self, sql: &'static str) -> Result<Option<String>, Failure> {
        let asked = sqlx::query(sql).fetch_one(&mut self.connection).await.and_then(|row| row.try_get(0));
        asked.map_err(|error| Failure::before(session_error(error)))
    }
}

/// The most functions of one connection; there is one for each group that was written to.
pub(super) const MAX_FUNCTIONS: usize = 10_000;

fn outcomes(rows: &[PgRow]) -> Result<Vec<Result<Written, WriteError>>, sqlx::Error> {
    let Some((last, rows)) = rows.split_last() else {
        return Err(sqlx::Error::RowNotFound);
    };
    let (xid, before): (Option<String>, Option<String>) = (last.try_get(2)?, last.try_get(3)?);
    let (xid, snapshot) = transaction(xid.as_deref(), before.as_deref());
    let one = |row: &PgRow| {
        let (code, words): (Option<String>, Option<String>) = (row.try_get(2)?, row.try_get(3)?);
        if let Some(code) = code {
            return Ok(Err(WriteError::refused(&code, words.unwrap_or_default())));
        }
        let rows = u64::try_from(row.try_get::<i64, _>(1)?).unwrap_or_default();
        Ok(Ok(Written { xid, snapshot: snapshot.clone(), rows }))
    };
    rows.iter().map(one).collect()
}

/// The transaction, and what an entry with its value can be said to have seen.
fn transaction(xid: Option<&str>, before: Option<&str>) -> (Option<Xid>, Option<Arc<Snapshot>>) {
    let xid: Option<Xid> = xid.and_then(|digits| digits.parse().ok()).map(Xid);
    let before: Option<Snapshot> = before.and_then(|text| text.parse().ok());
    let snapshot = before.map(|before| match xid {
        Some(xid) => before.and(xid),
        None => before,
    });
    (xid, snapshot.map(Arc::new))
}

/// A parameter as text; the plan lets through only UTF-8 where a text is due.
fn text(value: &[u8]) -> &str {
    std::str::from_utf8(value).unwrap_or_default()
}

/// Sorts what a write met with. What the server itself says of a statement came instead of its commit.
fn write_failure(error: sqlx::Error) -> Failure {
    let sqlx::Error::Database(database) = &error else {
        return Failure::unknown(in_words(&error));
    };
    let code = database.code().unwrap_or_default();
    let is_of = |classes: &[&str]| classes.iter().any(|class| code.starts_with(class));
    match () {
        () if is_of(&UNKNOWN) => Failure::unknown(database.message().to_owned()),
        () if is_of(&REFUSED) => Failure::refused(&code, database.message()),
        () => Failure { is_broken: is_of(&BROKEN), ..Failure::try_again(database.message()) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_with_quotes_stand_in_the_function_as_they_are() {
        let statement = Statement {
            sql: AssertSqlSafe("UPDATE t SET a = 'it''s', b = E'\\\\' WHERE id = ($1::text::int8)".to_owned())
                .into_sql_str(),
            parameters: vec![WriteParameter { number: 1, of: WriteType::Plain(ParameterType::Int8) }],
        };
        let function = Function::new(Some(&statement), None);
        assert!(function.create.contains("USING s1[n]"), "{}", function.create);
        assert_ne!(function.name, Function::new(None, Some(&statement)).name);
        assert_eq!(function.call.as_str().matches("text[]").count(), 1);
    }
}
