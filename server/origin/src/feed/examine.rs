//! `forebay check`, as far as feeds go: what keeps them from telling of everything, and the SQL that makes what they need.

use std::fmt::Write;
use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions, Row};

use super::address::Address;
use super::kafka::look_at_topics;
use super::notify::triggers::Triggers;
use super::outlet::is_wanted;
use super::tables::{Survey, Table};
use super::wal::setup::{Publication, by_admin, create, server_fault};
use crate::config::OriginConfig;
use crate::fault::Fault;
use crate::group::{Feed, GroupConfig};
use crate::invalidation::{Name, TableName};
use crate::postgres::session_error;
use crate::session::SessionError;

/// How long the database may take to say what there is.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a database says of the feeds that groups have.
#[derive(Debug, Default)]
pub(crate) struct Examined {
    /// The name of the feeds.
    name: String,
    /// What keeps them from telling of everything.
    pub(crate) faults: Vec<Fault>,
    /// What makes them tell of more than was changed.
    pub(crate) advice: Vec<Fault>,
    /// What they need, as SQL. What is there already is a comment.
    pub(crate) sql: String,
}

/// The SQL that makes what the groups' feeds need in the primary: for whoever may run it, where the feed's own user must not. A feed makes
/// all of it itself if it may, and looks first whether it is there.
///
/// # Errors
/// When the primary cannot be asked.
pub async fn feed_sql(config: &OriginConfig, groups: &[GroupConfig]) -> Result<String, Fault> {
    let examined = examine(config, groups).await;
    examined.map(|examined| examined.sql).map_err(|error| Fault::unplaced("origin", error.to_string(), ""))
}

/// Looks at the primary and at the tables that groups with feeds name.
pub(crate) async fn examine(config: &OriginConfig, groups: &[GroupConfig]) -> Result<Examined, SessionError> {
    let url = config.url.as_str();
    let mut examined = Examined { name: config.feed_name.clone(), ..Examined::default() };
    if url.starts_with("sqlite:") {
        let told = groups.iter().filter(|group| group.change_feed().is_some());
        let hint = "leave it out and set a ttl";
        examined.faults.extend(told.map(|group| group.fault("invalidated_by", "SQLite tells nobody of changes", hint)));
        return Ok(examined);
    }
    let feeds = [Feed::Wal, Feed::Notify, Feed::Kafka].map(|feed| (feed, is_wanted(groups, feed)));
    if feeds.iter().all(|(_, wanted)| !wanted) {
        return Ok(examined);
    }
    let asking = async {
        let address = Address::parse(url, "forebay check").map_err(|problem| SessionError::unfit(problem, ""))?;
        let mut connection = address.options.connect().await.map_err(session_error)?;
        for (feed, _) in feeds.into_iter().filter(|(_, wanted)| *wanted) {
            examined.look_at(&mut connection, groups, feed).await?;
        }
        Ok(())
    };
    let late = |_| SessionError::Unreachable(format!("the origin did not answer within {PATIENCE:?}"));
    tokio::time::timeout(PATIENCE, asking).await.map_err(late)??;
    if is_wanted(groups, Feed::Kafka) {
        examined.faults.extend(look_at_topics(&config.kafka, PATIENCE).await);
    }
    Ok(examined)
}

impl Examined {
    async fn look_at(
        &mut self,
        connection: &mut PgConnection,
        groups: &[GroupConfig],
        feed: Feed,
    ) -> Result<(), SessionError> {
        let survey = Survey::make(connection, groups, feed).await?;
        self.faults.extend(survey.faults.iter().cloned());
        self.advice.extend(survey.advice.iter().cloned());
        let rights = Rights::ask(connection, &self.name).await?;
        match feed {
            Feed::Wal => self.look_at_wal(connection, &survey, &rights).await,
            Feed::Notify => self.look_at_triggers(connection, &survey, &rights).await,
            Feed::Kafka => Ok(()),
        }
    }

    async fn look_at_wal(
        &mut self,
        connection: &mut PgConnection,
        survey: &Survey,
        rights: &Rights,
    ) -> Result<(), SessionError> {
        self.faults.extend(server_fault(connection).await?);
        let name = self.name.clone();
        if !survey.tables.is_empty() {
            let publication = Publication::look_up(connection, &name, &survey.tables).await?;
            self.comment("what the feed \"wal\" reads; it makes this itself if its user owns the tables");
            match publication.missing.is_empty() {
                true => self.done(&create(&name, survey.tables.keys())),
                false => publication.missing.iter().for_each(|statement| self.statement(statement)),
            }
            let owns = |table: &TableName| survey.tables.get(table).is_none_or(|table| table.is_owned);
            let stranger = publication.lacking.iter().find(|table| !owns(table));
            let obstacle = match (stranger, publication.existed) {
                (Some(table), _) => Some(format!("does not own {table}")),
                (None, false) if !rights.creates => Some("may create nothing in this database".to_owned()),
                (None, true) if !publication.is_owned => Some("does not own it".to_owned()),
                _ => None,
            };
            if let (Some(obstacle), false) = (obstacle, publication.missing.is_empty()) {
                let problem = format!("{}, and \"{}\" {obstacle}", publication.problems.join(", "), rights.user);
                self.faults.push(Fault::unplaced("feed", problem, by_admin(&publication.missing)));
            }
        }
        let user = Name(&rights.user);
        let replication = format!("ALTER ROLE {user} REPLICATION");
        self.comment("its user replicates, and makes a slot for itself");
        if rights.replicates {
            self.done(&replication);
        } else {
            self.comment(&format!("on Amazon RDS: GRANT rds_replication TO {user};"));
            self.statement(&replication);
            let problem = format!("\"{}\" may not replicate, and so neither make a slot nor read from it", rights.user);
            let hint = format!("let a superuser run: {replication}; (Amazon RDS: GRANT rds_replication TO {user};)");
            self.faults.push(Fault::unplaced("feed", problem, hint));
        }
        if rights.slots >= rights.max_slots && rights.own_slots == 0 {
            let problem =
                format!("all replication slots of the server are taken: {} of {}", rights.slots, rights.max_slots);
            let hint = format!(
                "run: ALTER SYSTEM SET max_replication_slots = {}; then restart the server; or drop slots that nobody uses",
                rights.max_slots.max(rights.slots) + 10
            );
            self.faults.push(Fault::unplaced("feed", problem, hint));
        }
        Ok(())
    }

    async fn look_at_triggers(
        &mut self,
        connection: &mut PgConnection,
        survey: &Survey,
        rights: &Rights,
    ) -> Result<(), SessionError> {
        let name = self.name.clone();
        for (table, columns) in &survey.tables {
            let triggers = Triggers::of(&name, table, columns);
            self.comment(&format!(
                "what tells the feed \"notify\" of {table}; it makes this itself if its user owns the table"
            ));
            if triggers.are_there(connection).await? {
                self.done(&format!("the triggers of {table}"));
                continue;
            }
            self.sql.push_str(&triggers.sql());
            let Table { is_owned, may_create, .. } = columns;
            if !(*is_owned && *may_create) {
                let obstacle = if *is_owned { "may not create functions in its schema" } else { "does not own it" };
                let problem =
                    format!("{table} has no triggers that tell of its rows, and \"{}\" {obstacle}", rights.user);
                let hint = format!("let the owner of the table, or a superuser, run:\n{}", triggers.sql());
                self.faults.push(Fault::unplaced("feed", problem, hint));
            }
        }
        Ok(())
    }

    /// Names may hold ends of lines, behind which there is no comment any more.
    fn comment(&mut self, text: &str) {
        self.line(format_args!("-- {}", text.replace(['\n', '\r'], " ")));
    }

    fn done(&mut self, what: &str) {
        self.comment(&format!("done: {what}"));
    }

    fn statement(&mut self, statement: &str) {
        self.line(format_args!("{statement};"));
    }

    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _written = writeln!(self.sql, "{text}");
    }
}

/// What the feed's user may do, and what the server has room for.
#[derive(Debug)]
struct Rights {
    user: String,
    replicates: bool,
    creates: bool,
    slots: i64,
    own_slots: i64,
    max_slots: i64,
}

impl Rights {
    async fn ask(connection: &mut PgConnection, feed: &str) -> Result<Rights, SessionError> {
        let sql = "SELECT r.rolname::text AS name, r.rolsuper OR r.rolreplication OR EXISTS ( \
                   SELECT FROM pg_catalog.pg_roles g WHERE g.rolname = 'rds_replication' AND pg_has_role(g.oid, 'MEMBER')) AS replicates, \
                   has_database_privilege(current_database(), 'CREATE') AS creates, \
                   (SELECT count(*) FROM pg_catalog.pg_replication_slots) AS slots, \
                   (SELECT count(*) FROM pg_catalog.pg_replication_slots WHERE slot_name ~ ('^' || $1 || '_[0-9a-f]{8}$')) AS own_slots, \
                   current_setting('max_replication_slots')::int8 AS max_slots \
                   FROM pg_catalog.pg_roles r WHERE r.rolname = current_user";
        let asked = sqlx::query(sql).bind(feed).fetch_one(connection).await;
        let row = asked.map_err(session_error)?;
        let read = || {
            Ok(Rights {
                user: row.try_get("name")?,
                replicates: row.try_get("replicates")?,
                creates: row.try_get("creates")?,
                slots: row.try_get("slots")?,
                own_slots: row.try_get("own_slots")?,
                max_slots: row.try_get("max_slots")?,
            })
        };
        read().map_err(session_error)
    }
}
