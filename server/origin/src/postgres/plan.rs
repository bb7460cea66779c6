//! How a group's query is asked: wrapped, so that one statement answers many keys, with every value in its text form.

use std::collections::HashSet;

use sqlx::postgres::PgTypeInfo;
use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr, TypeInfo};

use super::parameter::{ACCEPTED, ParameterType};
use crate::group::Shape;
use crate::placeholder::Query;
use crate::session::{LoadQuery, SessionError, Wanted};

/// A group's query as it is sent, and how its rows are read.
#[derive(Debug)]
pub(crate) struct PostgresPlan {
    pub(super) one: Wrapped,
    /// The group's own query for more than one key, if it has one.
    pub(super) many: Option<Wrapped>,
    pub(super) parameters: Vec<Parameter>,
    pub(super) output: Output,
}

/// A statement as it is sent.
#[derive(Debug)]
pub(super) struct Wrapped {
    pub(super) sql: SqlStr,
    /// Its parameters are arrays, so that it answers many keys.
    pub(super) of_arrays: bool,
}

/// A parameter of the statement that is sent: capture `number` of the key, from 1, as this type.
#[derive(Debug, Clone)]
pub(super) struct Parameter {
    pub(super) number: usize,
    pub(super) of: ParameterType,
}

/// The place that stands in the first column of the row with the statement's snapshot; keys count from 1.
pub(super) const SNAPSHOT_PLACE: i64 = 0;

/// Follows the snapshot of a standby, see [`crate::snapshot::Snapshot::of_standby`].
pub(super) const STANDBY_MARK: char = '*';

/// The first column of a key's row that is part of its value. Before it are the key's place in the batch, and the snapshot.
pub(super) const FIRST_VALUE: usize = 2;

/// What the columns from [`FIRST_VALUE`] on are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Output {
    /// One column, the value.
    Value,
    /// The fields of a hash by their names.
    Fields(Vec<String>),
}

/// What describing the group's own query said, from which the statements are made.
#[derive(Debug)]
pub(super) struct Description<'q> {
    query: &'q Query,
    pub(super) parameters: Vec<Parameter>,
    pub(super) columns: Vec<(String, PgTypeInfo)>,
    pub(super) expressions: Vec<String>,
    pub(super) output: Output,
}

impl PostgresPlan {
    pub(crate) fn accepts(&self, wanted: &Wanted) -> bool {
        self.parameters.iter().all(|parameter| parameter.of.accepts(wanted.parameter(parameter.number)))
    }

    pub(crate) fn is_batched(&self) -> bool {
        self.many.is_some() || self.one.of_arrays
    }

    /// The statements that it takes to load `keys` keys.
    pub(crate) fn statements_for(&self, keys: usize) -> usize {
        if self.is_batched() { 1 } else { keys }
    }
}

impl Wrapped {
    pub(super) fn new(sql: String, of_arrays: bool) -> Self {
        Wrapped { sql: AssertSqlSafe(sql).into_sql_str(), of_arrays }
    }
}

/// The group's query with the placeholders that it uses numbered from 1, without gaps: Postgres cannot tell the type of
/// a parameter that does not occur, and a query need not use every capture.
pub(super) fn describable(query: &Query) -> String {
    let used = query.used();
    query.replace(|number| format!("${}", place_among(&used, number)))
}

impl<'q> Description<'q> {
    pub(super) fn new(
        load: &'q LoadQuery,
        parameters: &[PgTypeInfo],
        columns: Vec<(String, PgTypeInfo)>,
    ) -> Result<Self, SessionError> {
        let parameters = load
            .query
            .used()
            .into_iter()
            .zip(parameters)
            .map(|(number, info)| match ParameterType::of(info) {
                Some(of) => Ok(Parameter { number, of }),
                None => Err(SessionError::unfit(
                    format!("${number} is of the type {}, which no capture can be", info.name().to_lowercase()),
                    ACCEPTED,
                )),
            })
            .collect::<Result<_, _>>()?;
        refuse_unfit_columns(load.shape, &columns)?;
        let (expressions, output) = outputs(load.shape, &columns);
        Ok(Description { query: &load.query, parameters, columns, expressions, output })
    }

    /// The statement that asks for many keys at once.
    ///
    /// Every key is a row of `unnest`, and the group's query runs beside it with columns of that row in place of the
    /// placeholders. The odd names cannot collide with those of the query. One row more has the snapshot, which is of the whole
    /// statement: so it comes whether or not there is a row for a key.
    pub(super) fn batched(&self) -> String {
        let used = self.query.used();
        let inner = self.query.replace(|number| format!("__forebay_k.c{}", place_among(&used, number)));
        format!(
            "{} SELECT __forebay_k.n, NULL, {} FROM {} CROSS JOIN LATERAL (\n{inner}\n) AS __forebay_q",
            self.snapshot_row(),
            self.expressions.join(", "),
            self.keys(),
        )
    }

    /// The keys of a batch as a relation: a column for each parameter, and the key's place.
    pub(super) fn keys(&self) -> String {
        let arrays: Vec<String> =
            self.parameters.iter().zip(1..).map(|(parameter, place)| parameter.of.array(place)).collect();
        let names: String = (1..=arrays.len()).map(|place| format!("c{place}, ")).collect();
        format!("unnest({}) WITH ORDINALITY AS __forebay_k({names}n)", arrays.join(", "))
    }

    /// A query that uses the same captures, with the arrays of all keys' captures in place of the placeholders.
    pub(super) fn with_arrays(&self, query: &Query) -> String {
        let used = self.query.used();
        query.replace(|number| {
            let place = place_among(&used, number);
            self.parameters
                .get(place - 1)
                .map(|parameter| format!("({})", parameter.of.array(place)))
                .unwrap_or_default()
        })
    }

    /// The statement that asks for one key at a time, for queries that cannot stand in a join.
    pub(super) fn single(&self) -> String {
        let used = self.query.used();
        let inner = self.query.replace(|number| {
            let place = place_among(&used, number);
            self.parameters[place - 1].of.scalar(place)
        });
        format!(
            "WITH __forebay_q AS (\n{inner}\n) {} SELECT 1::int8, NULL, {} FROM __forebay_q",
            self.snapshot_row(),
            self.expressions.join(", "),
        )
    }

    /// The query that gives the snapshot, up to where the one for the values follows.
    pub(super) fn snapshot_row(&self) -> String {
        format!(
            "SELECT {SNAPSHOT_PLACE}::int8, pg_current_snapshot()::text \
             || CASE WHEN pg_is_in_recovery() THEN '{STANDBY_MARK}' ELSE '' END{} UNION ALL",
            ", NULL".repeat(self.expressions.len()),
        )
    }

    /// Whether there is anything that tells one key from another.
    pub(super) fn has_parameters(&self) -> bool {
        !self.parameters.is_empty()
    }

    /// Whether the value is a document that is one column.
    pub(super) fn is_document(&self) -> bool {
        matches!(self.columns.as_slice(), [(_, info)] if is_json(info))
    }

    pub(super) fn plan(self, one: Wrapped, many: Option<Wrapped>) -> PostgresPlan {
        PostgresPlan { one, many, parameters: self.parameters, output: self.output }
    }
}

pub(super) fn place_among(used: &[usize], number: usize) -> usize {
    used.partition_point(|other| *other < number) + 1
}

pub(super) fn refuse_unfit_columns(shape: Shape, columns: &[(String, PgTypeInfo)]) -> Result<(), SessionError> {
    if columns.is_empty() {
        return Err(SessionError::unfit("the query gives no columns", "select the value"));
    }
    if shape == Shape::String && columns.len() > 1 {
        return Err(SessionError::unfit(
            format!("a string is one column, and the query gives {}", columns.len()),
            "select the one column that is the value, or write as = \"json\" or \"hash\"",
        ));
    }
    let mut seen = HashSet::new();
    if let Some((name, _)) = columns.iter().find(|(name, _)| !seen.insert(name)) {
        return Err(SessionError::unfit(
            format!("two columns are called \"{name}\""),
            format!("give one another name: … AS other_{name}"),
        ));
    }
    match columns.iter().find(|(_, info)| shape == Shape::Json && info.name() == "BYTEA") {
        Some((name, _)) => Err(SessionError::unfit(
            format!("the column \"{name}\" is binary (bytea), which JSON cannot hold"),
            format!("select encode({name}, 'base64'), or leave the column out"),
        )),
        None => Ok(()),
    }
}

/// The SQL of each column that is sent back, and what the columns are together.
fn outputs(shape: Shape, columns: &[(String, PgTypeInfo)]) -> (Vec<String>, Output) {
    match (shape, columns) {
        (Shape::Json, [(name, info)]) if is_json(info) => (vec![text_form(name, info)], Output::Value),
        (Shape::Json, _) => (vec!["row_to_json(__forebay_q)::text".to_owned()], Output::Value),
        (Shape::String, _) => (columns.iter().map(|(name, info)| text_form(name, info)).collect(), Output::Value),
        (Shape::Hash, _) => (
            columns.iter().map(|(name, info)| text_form(name, info)).collect(),
            Output::Fields(columns.iter().map(|(name, _)| name.clone()).collect()),
        ),
    }
}

fn is_json(info: &PgTypeInfo) -> bool {
    matches!(info.name(), "JSON" | "JSONB")
}

fn text_form(name: &str, info: &PgTypeInfo) -> String {
    let cast = if info.name() == "BYTEA" { "" } else { "::text" };
    format!("__forebay_q.{}{cast}", quoted(name))
}

/// A column's name as SQL has it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
