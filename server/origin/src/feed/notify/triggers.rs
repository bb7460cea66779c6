//! The triggers that tell of changed rows.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row};

use crate::fault::Fault;
use crate::feed::tables::Table;
use crate::invalidation::{Name, TableName, literal};
use crate::postgres::session_error;
use crate::session::SessionError;

/// A notification holds less than 8,000 bytes.
const LARGEST_PAYLOAD: usize = 7900;

/// The longest name of a database's object.
const LONGEST_NAME: usize = 63;

/// SQLSTATE "insufficient privilege".
const NOT_ALLOWED: &str = "42501";

/// What one table needs to be told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Triggers {
    table: TableName,
    /// The function's name in the table's schema, and the triggers' first part.
    name: String,
    body: String,
    statements: Vec<String>,
}

impl Triggers {
    /// Of `table`, as the feed `feed` needs them.
    pub(crate) fn of(feed: &str, table: &TableName, columns: &Table) -> Triggers {
        let mut name = format!("{feed}_{}", table.name);
        // As Postgres cuts it; a letter of several bytes goes as a whole.
        while name.len() > LONGEST_NAME - "_truncate".len() {
            name.pop();
        }
        let function = TableName { schema: table.schema.clone(), name: name.clone() };
        let body = body(feed, table, columns);
        let trigger = |kind: &str| Name(&format!("{name}_{kind}")).to_string();
        let mut statements = vec![format!(
            "CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql \
             SET search_path = pg_catalog SET datestyle = 'ISO' SET bytea_output = 'hex' AS $forebay${body}$forebay$"
        )];
        for (kind, when) in [
            ("row", "AFTER INSERT OR UPDATE OR DELETE ON {} FOR EACH ROW"),
            ("truncate", "AFTER TRUNCATE ON {} FOR EACH STATEMENT"),
        ] {
            let when = when.replace("{}", &table.to_string());
            let trigger = trigger(kind);
            statements.push(format!("DROP TRIGGER IF EXISTS {trigger} ON {table}"));
            statements.push(format!("CREATE TRIGGER {trigger} {when} EXECUTE FUNCTION {function}()"));
            // What a subscription replicates into the table is a change as well.
            statements.push(format!("ALTER TABLE {table} ENABLE ALWAYS TRIGGER {trigger}"));
        }
        Triggers { table: table.clone(), name, body, statements }
    }

    /// The SQL that makes them.
    pub(crate) fn sql(&self) -> String {
        self.statements.iter().fold(String::new(), |mut sql, statement| {
            // Writing to a string cannot fail.
            let _written = writeln!(sql, "{statement};");
            sql
        })
    }

    /// Whether they are there, as they should be.
    pub(in crate::feed) async fn are_there(&self, connection: &mut PgConnection) -> Result<bool, SessionError> {
        let sql = "SELECT count(*) = 2 FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid \
                   WHERE t.tgrelid = pg_catalog.to_regclass($1) AND t.tgname = ANY ($2) AND t.tgenabled = 'A' AND p.prosrc = $3";
        let names = ["row", "truncate"].map(|kind| format!("{}_{kind}", self.name)).to_vec();
        let asked = sqlx::query(sql).bind(self.table.to_string()).bind(names).bind(&self.body);
        let row = asked.fetch_one(connection).await.map_err(session_error)?;
        row.try_get(0).map_err(session_error)
    }

    /// Makes them, all or none.
    async fn make(&self, connection: &mut PgConnection) -> Result<(), SessionError> {
        // Several statements that are sent at once are one transaction.
        let made = sqlx::raw_sql(AssertSqlSafe(self.sql())).execute(connection).await;
        made.map(drop).map_err(session_error)
    }
}

/// What came of making triggers.
#[derive(Debug, Default)]
pub(super) struct Completed {
    /// The tables that did not have them.
    pub(super) made: BTreeSet<TableName>,
    pub(super) refused: Option<Fault>,
}

/// Sees to it that all tables have their triggers. What is not allowed becomes a fault with the SQL for somebody who may.
pub(super) async fn complete(
    connection: &mut PgConnection,
    feed: &str,
    tables: &BTreeMap<TableName, Table>,
) -> Result<Completed, SessionError> {
    let mut completed = Completed::default();
    for (table, columns) in tables {
        let triggers = Triggers::of(feed, table, columns);
        if triggers.are_there(connection).await? {
            continue;
        }
        match triggers.make(connection).await {
            Ok(()) => {
                tracing::info!(%table, "the triggers of the change feed were made");
                completed.made.insert(table.clone());
            }
            Err(SessionError::Statement { code, message, .. }) if code == NOT_ALLOWED => {
                let sql: String =
                    tables.iter().map(|(table, columns)| Triggers::of(feed, table, columns).sql()).collect();
                let hint = format!("let the owner of the tables, or a superuser, run:\n{sql}");
                let problem = format!("the triggers of `{table}` cannot be made: {message}");
                completed.refused = Some(Fault::unplaced("feed", problem, hint));
                return Ok(completed);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(completed)
}

/// The function's text. Values are sent as they are printed, whatever their types.
fn body(feed: &str, table: &TableName, columns: &Table) -> String {
    let values = |row: &str| {
        let printed = columns.columns.iter().map(|column| {
            let value = format!("{row}.{}", Name(column));
            format!("CASE WHEN {value} IS NULL THEN NULL ELSE format('%s', {value}) END")
        });
        format!("json_build_array({})", printed.collect::<Vec<_>>().join(", "))
    };
    let names: Vec<String> = columns.columns.iter().map(|column| literal(column)).collect();
    format!(
        "
DECLARE
    what jsonb := jsonb_build_object('x', pg_current_xact_id()::text, 's', {schema}, 't', {name});
    rows jsonb := '{{}}';
BEGIN
    IF TG_OP IN ('UPDATE', 'DELETE') THEN rows := rows || jsonb_build_object('o', {old}); END IF;
    IF TG_OP IN ('UPDATE', 'INSERT') THEN rows := rows || jsonb_build_object('n', {new}); END IF;
    rows := what || jsonb_build_object('c', jsonb_build_array({names})) || rows;
    -- Without its values it stands for every row.
    PERFORM pg_notify({feed}, CASE WHEN octet_length(rows::text) <= {LARGEST_PAYLOAD} THEN rows ELSE what END::text);
    RETURN NULL;
END
",
        schema = literal(table.schema.as_deref().unwrap_or_default()),
        name = literal(&table.name),
        old = values("OLD"),
        new = values("NEW"),
        names = names.join(", "),
        feed = literal(feed),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn triggers(name: &str, columns: &[&str]) -> Triggers {
        let table = TableName { schema: Some("public".into()), name: name.into() };
        let columns = columns.iter().map(|column| (*column).to_owned()).collect::<BTreeSet<_>>();
        Triggers::of("forebay", &table, &Table { columns, ..Table::default() })
    }

    #[test]
    fn names_are_quoted_and_cut_where_they_must_be() {
        let sql = triggers("Order's", &["Id", "it's"]).sql();
        for part in [
            "FUNCTION public.\"forebay_Order's\"()",
            "CREATE TRIGGER \"forebay_Order's_row\" AFTER INSERT OR UPDATE OR DELETE ON public.\"Order's\" FOR EACH ROW",
            "ENABLE ALWAYS TRIGGER \"forebay_Order's_truncate\"",
            "NEW.\"it's\" IS NULL",
            "jsonb_build_array('Id', 'it''s')",
            "'t', 'Order''s'",
        ] {
            assert!(sql.contains(part), "{part} is missing in {sql}");
        }
        let long = triggers(&"é".repeat(31), &["id"]);
        assert!(long.name.len() + "_truncate".len() <= LONGEST_NAME && long.name.ends_with('é'));
        assert_eq!(literal("a\\'b"), "E'a\\\\''b'");
    }
}
