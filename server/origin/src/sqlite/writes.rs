//! How SQLite is asked to write: in its own process, so that each write is a statement, and many are one transaction.

use std::time::Instant;

use sqlx::{AssertSqlSafe, Executor, SqlSafeStr, SqlStr};

use super::{SqliteSession, integer, session_error};
use crate::placeholder::Query;
use crate::session::SessionError;
use crate::write::{WriteError, Written};
use crate::write_plan::{Failure, Planned, WriteQueries};

/// What SQLite refuses, and will refuse again, by its primary result codes: 18 too big, 19 a constraint, 20 a mismatch of types.
const REFUSED: [u32; 3] = [18, 19, 20];

/// A group's statements for writes, as they are sent.
#[derive(Debug)]
pub(crate) struct SqliteWrites {
    captures: usize,
    save: Option<Statement>,
    remove: Option<Statement>,
}

#[derive(Debug)]
struct Statement {
    sql: SqlStr,
    parameters: Vec<usize>,
}

impl SqliteWrites {
    /// Why a write cannot be sent: a capture that is no text.
    pub(crate) fn refuses(&self, write: &Planned) -> Option<WriteError> {
        let captures = (1..=self.captures).map(|number| write.parameter(number, self.captures));
        let is_unfit = |capture: &[u8]| std::str::from_utf8(capture).is_err() || capture.contains(&0);
        captures.into_iter().any(is_unfit).then(|| WriteError::refused("", "the key has a part that is no text"))
    }
}

impl SqliteSession {
    /// Prepares a group's statements for writes.
    pub(crate) async fn plan_writes(
        &mut self,
        queries: &WriteQueries,
    ) -> Result<SqliteWrites, (&'static str, SessionError)> {
        let save = self.plan_write(queries.save.as_ref()).await.map_err(|error| ("save", error))?;
        let remove = self.plan_write(queries.remove.as_ref()).await.map_err(|error| ("remove", error))?;
        Ok(SqliteWrites { captures: queries.captures, save, remove })
    }

    async fn plan_write(&mut self, query: Option<&Query>) -> Result<Option<Statement>, SessionError> {
        let Some(query) = query else { return Ok(None) };
        let parameters = query.used();
        let numbered = query.replace(|number| format!("?{}", parameters.partition_point(|p| *p < number) + 1));
        let sql = AssertSqlSafe(numbered).into_sql_str();
        self.connection.prepare(sql.clone()).await.map_err(session_error)?;
        Ok(Some(Statement { sql, parameters }))
    }

    /// Makes changes in one transaction.
    pub(crate) async fn write(
        &mut self,
        plan: &SqliteWrites,
        writes: &[Planned],
        each_by_itself: bool,
        until: Instant,
    ) -> Result<Vec<Result<Written, WriteError>>, Failure> {
        self.clock.set(Some(until));
        let written = self.write_each(plan, writes, each_by_itself).await;
        self.clock.set(None);
        if written.is_err() {
            // There may be none any more: some errors end the transaction.
            let _none = self.connection.execute("ROLLBACK").await;
        }
        written
    }

    async fn write_each(
        &mut self,
        plan: &SqliteWrites,
        writes: &[Planned],
        each_by_itself: bool,
    ) -> Result<Vec<Result<Written, WriteError>>, Failure> {
        self.run("BEGIN IMMEDIATE").await?;
        let mut outcomes = Vec::with_capacity(writes.len());
        for write in writes {
            if each_by_itself {
                self.run("SAVEPOINT forebay_write").await?;
            }
            match self.write_one(plan, write).await {
                Ok(rows) => outcomes.push(Ok(Written { xid: None, snapshot: None, rows })),
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
        self.run("COMMIT").await?;
        Ok(outcomes)
    }

    async fn write_one(&mut self, plan: &SqliteWrites, write: &Planned) -> Result<u64, Failure> {
        let statement = if write.value.is_some() { &plan.save } else { &plan.remove };
        let Some(statement) = statement else { return Ok(0) };
        let mut query = sqlx::query(statement.sql.clone());
        for number in &statement.parameters {
            let value = write.parameter(*number, plan.captures);
            query = match std::str::from_utf8(value).ok().filter(|text| !text.contains('\0')) {
                // Keys are compared with columns that may have no type; what a value is its column decides.
                Some(text) => match integer(text).filter(|_| *number <= plan.captures) {
                    Some(integer) => query.bind(integer),
                    None => query.bind(text.to_owned()),
                },
                None => query.bind(value.to_vec()),
            };
        }
        let done = query.execute(&mut self.connection).await.map_err(write_failure)?;
        Ok(done.rows_affected())
    }

    async fn run(&mut self, sql: &'static str) -> Result<(), Failure> {
        self.connection.execute(sql).await.map(drop).map_err(write_failure)
    }
}

/// Sorts what a write met with. Nothing is committed by a statement that failed, nor by a COMMIT that did.
fn write_failure(error: sqlx::Error) -> Failure {
    let sqlx::Error::Database(database) = &error else {
        return Failure { is_broken: true, ..Failure::try_again(&error.to_string()) };
    };
    // The primary code is the lower byte of the extended one.
    let code = database.code().unwrap_or_default();
    let primary = code.parse::<u32>().unwrap_or_default() & 0xff;
    match REFUSED.contains(&primary) {
        true => Failure::refused(&code, database.message()),
        false => Failure::try_again(database.message()),
    }
}
