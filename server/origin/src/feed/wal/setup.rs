//! The publication and the slot: looked up, made if that is allowed, and otherwise the SQL for whoever is.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row};

use crate::fault::Fault;
use crate::feed::change::Position;
use crate::feed::tables::Table;
use crate::invalidation::{Name, TableName};
use crate::postgres::session_error;
use crate::session::SessionError;

/// SQLSTATE "insufficient privilege".
const NOT_ALLOWED: &str = "42501";

/// What has to be done to a publication so that it has all tables.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::feed) struct Publication {
    /// Statements that have not been run yet.
    pub(in crate::feed) missing: Vec<String>,
    /// What is wrong with it, in words.
    pub(in crate::feed) problems: Vec<String>,
    /// The tables whose changes it does not tell of, or not of all.
    pub(in crate::feed) lacking: BTreeSet<TableName>,
    /// Whether the user may change it.
    pub(in crate::feed) is_owned: bool,
    /// Whether it was there.
    pub(in crate::feed) existed: bool,
}

/// A slot as the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) confirmed: Position,
    /// Whoever is connected to it, and what that calls itself.
    pub(super) active: Option<(i32, String)>,
    /// Why it cannot be used any more, if so.
    pub(super) unusable: Option<String>,
}

/// What is asked every now and then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Watched {
    pub(super) snapshot: String,
    /// The server's timeline, which another one has after it took over.
    pub(super) timeline: String,
    /// Where the log ends.
    pub(super) end: Position,
    /// From where on the log is kept for the slot; `None` if that is lost.
    pub(super) kept_from: Option<Position>,
}

impl Publication {
    /// Looks the publication `name` up.
    pub(in crate::feed) async fn look_up(
        connection: &mut PgConnection,
        name: &str,
        tables: &BTreeMap<TableName, Table>,
    ) -> Result<Publication, SessionError> {
        let found = Published::look_up(connection, name).await.map_err(session_error)?;
        Ok(match found {
            Some(published) => published.lacks(name, tables),
            None => Publication {
                missing: vec![create(name, tables.keys())],
                problems: vec![format!("there is no publication {}", Name(name))],
                lacking: tables.keys().cloned().collect(),
                is_owned: true,
                existed: false,
            },
        })
    }

    /// Does what has to be done. What is not allowed becomes a fault with the SQL for somebody who may.
    pub(super) async fn complete(&self, connection: &mut PgConnection) -> Result<Option<Fault>, SessionError> {
        for statement in &self.missing {
            let done = sqlx::raw_sql(AssertSqlSafe(statement.clone())).execute(&mut *connection).await;
            match done.map_err(session_error) {
                Ok(_) => tracing::info!(statement, "the publication was completed"),
                Err(SessionError::Statement { code, message, .. }) if code == NOT_ALLOWED => {
                    let problem = format!("the publication cannot be completed: {message}");
                    return Ok(Some(Fault::unplaced("feed", problem, by_admin(&self.missing))));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

/// A publication as the database has it.
#[derive(Debug, Default)]
struct Published {
    has_all: bool,
    is_owned: bool,
    /// The kinds of changes that it does not tell of.
    lacks: Vec<&'static str>,
    via_root: bool,
    tables: BTreeSet<TableName>,
    /// Those of which only some rows or columns are published.
    filtered: BTreeSet<TableName>,
}

impl Published {
    async fn look_up(connection: &mut PgConnection, name: &str) -> Result<Option<Published>, sqlx::Error> {
        let sql = "SELECT puballtables, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot, \
                   pg_has_role(pubowner, 'USAGE') AS is_owned \
                   FROM pg_catalog.pg_publication WHERE pubname = $1";
        let Some(row) = sqlx::query(sql).bind(name).fetch_optional(&mut *connection).await? else {
            return Ok(None);
        };
        let mut published = Published {
            has_all: row.try_get("puballtables")?,
            is_owned: row.try_get("is_owned")?,
            via_root: row.try_get("pubviaroot")?,
            ..Published::default()
        };
        for (column, kind) in
            [("pubinsert", "insert"), ("pubupdate", "update"), ("pubdelete", "delete"), ("pubtruncate", "truncate")]
        {
            if !row.try_get::<bool, _>(column)? {
                published.lacks.push(kind);
            }
        }
        // Servers before PostgreSQL 15 have no such columns, and no filters.
        let sql = "SELECT s.nspname::text, c.relname::text, \
                   coalesce(to_jsonb(r) ->> 'prqual', to_jsonb(r) ->> 'prattrs') IS NOT NULL FROM pg_catalog.pg_publication p \
                   JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid JOIN pg_catalog.pg_class c ON c.oid = r.prrelid \
                   JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace WHERE p.pubname = $1 UNION ALL \
                   SELECT schemaname::text, tablename::text, false FROM pg_catalog.pg_publication_tables WHERE pubname = $1";
        for row in sqlx::query(sql).bind(name).fetch_all(connection).await? {
            let table = TableName { schema: Some(row.try_get(0)?), name: row.try_get(1)? };
            if row.try_get(2)? {
                published.filtered.insert(table.clone());
            }
            published.tables.insert(table);
        }
        Ok(Some(published))
    }

    fn lacks(&self, name: &str, tables: &BTreeMap<TableName, Table>) -> Publication {
        let is_whole = self.lacks.is_empty() && (self.via_root || !tables.values().any(|table| table.is_partitioned));
        let absent = |table: &&TableName| !self.has_all && !self.tables.contains(*table);
        let absent: BTreeSet<&TableName> = tables.keys().filter(absent).collect();
        let filtered: BTreeSet<&TableName> = tables.keys().filter(|table| self.filtered.contains(*table)).collect();
        let mut publication = Publication { existed: true, is_owned: self.is_owned, ..Publication::default() };
        let Publication { missing, problems, lacking, .. } = &mut publication;
        let published = format!("the publication {}", Name(name));
        if !is_whole {
            problems.push(match self.lacks.is_empty() {
                false => format!("{published} does not tell of each {}", self.lacks.join(", ")),
                true => format!("{published} tells of partitions by their own names"),
            });
            missing.push(format!("ALTER PUBLICATION {} SET ({WHOLE})", Name(name)));
            lacking.extend(tables.keys().cloned());
        }
        if !filtered.is_empty() {
            let those = list(filtered.iter().copied());
            problems.push(format!("{published} has only some rows or columns of {those}"));
            missing.push(format!("ALTER PUBLICATION {} DROP TABLE {those}", Name(name)));
        }
        if !absent.is_empty() {
            problems.push(format!("{published} has no table {}", list(absent.iter().copied())));
        }
        let lacked: BTreeSet<&TableName> = absent.union(&filtered).copied().collect();
        if !lacked.is_empty() {
            missing.push(format!("ALTER PUBLICATION {} ADD TABLE {}", Name(name), list(lacked.iter().copied())));
            lacking.extend(lacked.into_iter().cloned());
        }
        publication
    }
}

/// What a publication for feeds says of every change.
const WHOLE: &str = "publish = 'insert, update, delete, truncate', publish_via_partition_root = true";

/// The statement that makes a publication.
pub(crate) fn create<'t>(name: &str, tables: impl IntoIterator<Item = &'t TableName>) -> String {
    format!("CREATE PUBLICATION {} FOR TABLE {} WITH ({WHOLE})", Name(name), list(tables))
}

fn list<'t>(tables: impl IntoIterator<Item = &'t TableName>) -> String {
    tables.into_iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// What whoever may is to do.
pub(in crate::feed) fn by_admin(statements: &[String]) -> String {
    format!("let the owner of the tables, or a superuser, run: {};", statements.join("; "))
}

impl Slot {
    /// The terms of the keepers that are connected. Everybody may see what connections call themselves.
    pub(super) async fn keepers(connection: &mut PgConnection, prefix: &str) -> Result<Vec<u64>, SessionError> {
        let sql = "SELECT application_name FROM pg_catalog.pg_stat_activity WHERE starts_with(application_name, $1)";
        let rows = sqlx::query(sql).bind(prefix).fetch_all(connection).await.map_err(session_error)?;
        let names = rows.iter().filter_map(|row| row.try_get::<String, _>(0).ok());
        Ok(names.filter_map(|name| name.strip_prefix(prefix)?.parse().ok()).collect())
    }

    /// Looks the slot `name` up.
    pub(super) async fn look_up(connection: &mut PgConnection, name: &str) -> Result<Option<Slot>, SessionError> {
        let sql = "SELECT s.plugin::text, s.database::text = current_database()::text AS is_here, s.active_pid, \
                   coalesce(a.application_name, '') AS used_by, s.confirmed_flush_lsn::text AS confirmed, \
                   coalesce(s.wal_status, 'lost') = 'lost' AS is_lost \
                   FROM pg_catalog.pg_replication_slots s LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = s.active_pid \
                   WHERE s.slot_name = $1";
        let row = sqlx::query(sql).bind(name).fetch_optional(connection).await.map_err(session_error)?;
        row.map(|row| {
            let plugin: Option<String> = row.try_get("plugin")?;
            let is_here: Option<bool> = row.try_get("is_here")?;
            let unusable = match plugin.as_deref() {
                _ if row.try_get("is_lost")? => {
                    Some("the database has dropped log that the slot had not read".to_owned())
                }
                Some("pgoutput") if is_here == Some(true) => None,
                _ => Some("the slot is no slot of pgoutput in this database".to_owned()),
            };
            let active: Option<i32> = row.try_get("active_pid")?;
            let used_by: String = row.try_get("used_by")?;
            let confirmed: Option<String> = row.try_get("confirmed")?;
            Ok(Slot {
                confirmed: confirmed.and_then(|text| text.parse().ok()).unwrap_or_default(),
                active: active.map(|pid| (pid, used_by)),
                unusable,
            })
        })
        .transpose()
        .map_err(session_error)
    }

    /// Makes a slot. This waits for transactions that are open.
    pub(super) async fn create(connection: &mut PgConnection, name: &str) -> Result<(), SessionError> {
        let made = sqlx::query("SELECT pg_catalog.pg_create_logical_replication_slot($1, 'pgoutput')").bind(name);
        made.execute(connection).await.map(drop).map_err(session_error)
    }

    /// Drops the slots that former keepers have left, besides `kept`, if nobody is connected to them; tells whether none is left.
    pub(super) async fn drop_all(
        connection: &mut PgConnection,
        prefix: &str,
        kept: &str,
    ) -> Result<bool, SessionError> {
        let sql = "SELECT pg_catalog.pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots \
                   WHERE slot_name ~ ('^' || $1 || '_[0-9a-f]{8}$') AND slot_name <> $2 AND NOT active \
                   AND database = current_database()";
        sqlx::query(sql).bind(prefix).bind(kept).execute(&mut *connection).await.map_err(session_error)?;
        let sql = "SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_replication_slots \
                   WHERE slot_name ~ ('^' || $1 || '_[0-9a-f]{8}$') AND slot_name <> $2 AND database = current_database())";
        let row = sqlx::query(sql).bind(prefix).bind(kept).fetch_one(connection).await.map_err(session_error)?;
        row.try_get(0).map_err(session_error)
    }
}

/// Ends whoever is connected.
pub(super) async fn terminate(connection: &mut PgConnection, pid: i32) -> Result<(), SessionError> {
    let sql = "SELECT pg_catalog.pg_terminate_backend($1)";
    sqlx::query(sql).bind(pid).execute(connection).await.map(drop).map_err(session_error)
}

impl Watched {
    pub(super) async fn ask(connection: &mut PgConnection, slot: &str) -> Result<Watched, SessionError> {
        let sql = "SELECT pg_current_snapshot()::text AS snapshot, pg_current_wal_lsn()::text AS here, \
                   left(pg_walfile_name(pg_current_wal_lsn()), 8) AS timeline, \
                   (SELECT restart_lsn::text FROM pg_catalog.pg_replication_slots WHERE slot_name = $1 AND wal_status <> 'lost') AS kept";
        let row = sqlx::query(sql).bind(slot).fetch_one(connection).await.map_err(session_error)?;
        let text = |column: &str| row.try_get::<Option<String>, _>(column).map_err(session_error);
        let position = |text: Option<String>| text.and_then(|text| text.parse::<Position>().ok());
        Ok(Watched {
            snapshot: text("snapshot")?.unwrap_or_default(),
            timeline: text("timeline")?.unwrap_or_default(),
            end: position(text("here")?).unwrap_or_default(),
            kept_from: position(text("kept")?),
        })
    }
}

/// What keeps a server from being followed, whoever asks.
pub(in crate::feed) async fn server_fault(connection: &mut PgConnection) -> Result<Option<Fault>, SessionError> {
    let sql = "SELECT current_setting('wal_level') AS level, pg_is_in_recovery() AS is_standby, \
               current_setting('server_version_num')::int4 AS version";
    let row = sqlx::query(sql).fetch_one(connection).await.map_err(session_error)?;
    let level: String = row.try_get("level").map_err(session_error)?;
    let version: i32 = row.try_get("version").map_err(session_error)?;
    let fault = |problem: String, hint: &str| Some(Fault::unplaced("feed", problem, hint));
    if row.try_get("is_standby").map_err(session_error)? {
        return Ok(fault(
            "the origin is a standby, which has no log of its own".to_owned(),
            "name the primary as the origin",
        ));
    }
    if version < OLDEST {
        return Ok(fault(
            "the server is older than PostgreSQL 13".to_owned(),
            "use feed = \"notify\", or a newer server",
        ));
    }
    if level != "logical" {
        return Ok(fault(
            format!("wal_level is {level}, with which the log does not tell rows"),
            "run: ALTER SYSTEM SET wal_level = 'logical'; then restart the server (Amazon RDS: rds.logical_replication = 1). \
             Or write feed = \"notify\"",
        ));
    }
    Ok(None)
}

/// The first version with what is used here: the root of partitions in publications, what slots retain, 64-bit ids in SQL.
const OLDEST: i32 = 130_000;
