//! How `load_many` is asked: as the group has it, and its rows are joined with the keys by the columns that are called as the
//! captures.
//!
//! The value is made of the columns that `load` gives, in the order of `load`, so that both give the same; a capture's column is part of it
//! if `load` has it, too. The database compares, by the type of the parameter: so `price:1.50` finds the row of 1.5, as it does by `load`.

use sqlx::TypeInfo;
use sqlx::postgres::{PgTypeInfo, PgTypeKind};

use super::parameter::ParameterType;
use super::plan::{Description, Output, quoted, refuse_unfit_columns};
use crate::group::Shape;
use crate::session::{LoadQuery, ManyQuery, SessionError};

/// A column of a statement.
type NamedColumn = (String, PgTypeInfo);

/// The statement for many keys, given what describing `load` and `load_many` said.
pub(super) fn statement(
    load: &LoadQuery,
    many: &ManyQuery,
    one: &Description<'_>,
    (parameters, columns): (&[PgTypeInfo], &[NamedColumn]),
) -> Result<String, SessionError> {
    refuse_other_parameters(one, parameters)?;
    // Beside the value there are the captures, so that a string has more than one column here.
    refuse_unfit_columns(Shape::Hash, columns)?;
    refuse_other_columns(load.shape, many, one, columns)?;
    let matches = one.parameters.iter().zip(1..).map(|(parameter, place)| {
        format!("__forebay_q.{} = __forebay_k.c{place}", quoted(many.capture(parameter.number)))
    });
    Ok(format!(
        // Materialized: it is planned as it is written, whatever it is joined with.
        "WITH __forebay_q AS MATERIALIZED (\n{}\n) {} SELECT __forebay_k.n, NULL, {} FROM {} JOIN __forebay_q ON {}",
        one.with_arrays(&many.query),
        one.snapshot_row(),
        expressions(load.shape, one).join(", "),
        one.keys(),
        matches.collect::<Vec<_>>().join(" AND "),
    ))
}

/// What is said where the rows cannot be compared with the keys.
pub(super) fn cannot_be_matched(error: SessionError, many: &ManyQuery) -> SessionError {
    match error {
        SessionError::Statement { message, .. } => SessionError::unfit(
            format!("its rows cannot be matched with keys: {message}"),
            format!("{} must be of the types that the captures have in `load`", many.captures.join(", ")),
        ),
        other => other,
    }
}

/// Each must be an array of what it is in `load`, so that what can be a key's capture there can be one here.
fn refuse_other_parameters(one: &Description<'_>, parameters: &[PgTypeInfo]) -> Result<(), SessionError> {
    for (parameter, info) in one.parameters.iter().zip(parameters) {
        let (number, wanted) = (parameter.number, parameter.of.sql());
        let hint = format!("write ${number}::{wanted}[]");
        let element = match info.kind() {
            PgTypeKind::Array(element) => element,
            _ => {
                let found = info.name().to_lowercase();
                let problem = format!("${number} is of the type {found}, and no array of all the keys' captures");
                return Err(SessionError::unfit(problem, format!("write … = ANY(${number}), or {hint}")));
            }
        };
        if ParameterType::of(element).as_ref() != Some(&parameter.of) {
            let found = element.name().to_lowercase();
            let problem = format!("${number} is an array of {found}, and {wanted} in `load`");
            return Err(SessionError::unfit(problem, hint));
        }
    }
    Ok(())
}

/// There must be a column for each capture, and the columns of `load`, and no other.
fn refuse_other_columns(
    shape: Shape,
    many: &ManyQuery,
    one: &Description<'_>,
    columns: &[NamedColumn],
) -> Result<(), SessionError> {
    let column = |name: &str| columns.iter().find(|(known, _)| known == name).map(|(_, info)| info);
    let captures: Vec<&str> = one.parameters.iter().map(|parameter| many.capture(parameter.number)).collect();
    if let Some(capture) = captures.iter().find(|capture| column(capture).is_none()) {
        return Err(SessionError::unfit(
            format!("it gives no column \"{capture}\", which would tell whose row it is"),
            format!("select what the capture {{{capture}}} is compared with AS {}", quoted(capture)),
        ));
    }
    for (name, info) in &one.columns {
        match column(name) {
            None => {
                return Err(SessionError::unfit(
                    format!("it gives no column \"{name}\", which `load` gives"),
                    "both must give the same value for a key",
                ));
            }
            Some(found) if found.name() != info.name() => {
                let types = [found, info].map(|info| info.name().to_lowercase());
                return Err(SessionError::unfit(
                    format!("the column \"{name}\" is of the type {}, and {} in `load`", types[0], types[1]),
                    "both must give the same value for a key",
                ));
            }
            Some(_) => {}
        }
    }
    let is_known = |name: &str| captures.contains(&name) || one.columns.iter().any(|(known, _)| known == name);
    match columns.iter().find(|(name, _)| !is_known(name)) {
        Some((name, _)) => Err(SessionError::unfit(
            format!("it gives the column \"{name}\", which `load` does not give"),
            match shape {
                Shape::String => "call the value as the column of `load` is called, by AS",
                _ => "both must give the same value for a key",
            },
        )),
        None => Ok(()),
    }
}

/// The SQL of each column that is sent back: as for `load`, but that a row may have columns that are not part of the value.
fn expressions(shape: Shape, one: &Description<'_>) -> Vec<String> {
    let is_row = shape == Shape::Json && one.output == Output::Value && !one.is_document();
    if !is_row {
        return one.expressions.clone();
    }
    let columns: Vec<String> = one.columns.iter().map(|(name, _)| format!("__forebay_q.{}", quoted(name))).collect();
    let columns = columns.join(", ");
    vec![format!("(SELECT row_to_json(__forebay_v) FROM (SELECT {columns}) AS __forebay_v)::text")]
}
