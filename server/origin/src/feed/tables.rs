//! What the database says of the tables that groups name: whether a feed can tell of them, and how their columns' values stand in keys.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use super::mapping::{ColumnFact, Facts, Spelling};
use crate::fault::{Fault, nearest};
use crate::group::{Feed, GroupConfig};
use crate::invalidation::{Invalidation, TableName};
use crate::postgres::session_error;
use crate::session::SessionError;

/// What the database says of all tables that groups with one feed name.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// How columns' values stand in keys.
    pub(crate) facts: Facts,
    /// The tables that can be followed, in their schemas.
    pub(crate) tables: BTreeMap<TableName, Table>,
    /// By group, what it names, what that is like and the keys' pattern, as far as all of it can be followed.
    pub(crate) covered: BTreeMap<String, Vec<String>>,
    /// What keeps groups from being told of.
    pub(crate) faults: Vec<Fault>,
    /// What makes feeds tell of every key where one was changed.
    pub(crate) advice: Vec<Fault>,
}

/// A table that can be followed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) is_partitioned: bool,
    /// The columns that groups name.
    pub(crate) columns: BTreeSet<String>,
    /// The columns that old rows have.
    pub(crate) identity: BTreeSet<String>,
    /// Whether the user may do with it what its owner may.
    pub(crate) is_owned: bool,
    /// Whether the user may create functions beside it.
    pub(crate) may_create: bool,
    /// The groups that name it.
    pub(crate) groups: BTreeSet<String>,
}

/// One table as it is in the database.
#[derive(Debug)]
struct Found {
    oid: i64,
    schema: String,
    name: String,
    /// `r`: a table; `p`: one with partitions; `v`: a view …
    kind: String,
    /// `p`: permanent; `u`: unlogged; `t`: temporary.
    persistence: String,
    /// Whether all of it, or of its partitions, has something that tells rows apart.
    has_identity: bool,
    /// Whether its partitions have the same kind of it.
    is_uniform: bool,
    is_owned: bool,
    may_create: bool,
    /// Tables other than partitions that inherit from it: their rows are among its rows, and told of as theirs.
    heirs: Vec<TableName>,
    /// Another text says that it is another table of that name, or that it has other columns or partitions, or that a partition was
    /// emptied: then rows may have changed without a change of a row.
    likeness: String,
    columns: Vec<FoundColumn>,
}

/// One column as it is in the database.
#[derive(Debug, Clone)]
struct FoundColumn {
    name: String,
    type_oid: u32,
    type_name: String,
    is_enum: bool,
    /// Whether two texts are equal only if they are the same.
    is_exact: bool,
    /// It is computed from others, and not published.
    is_generated: bool,
    /// Whether old rows have it, in all partitions.
    in_identity: bool,
}

const TABLES: &str = "
    SELECT named.text AS named, c.oid::int8 AS oid, s.nspname::text AS schema, c.relname::text AS name, c.relkind::text AS kind,
        c.relpersistence::text AS persistence,
        coalesce(leaves.has_identity, true) AS has_identity,
        coalesce(leaves.is_uniform, true) AS is_uniform,
        pg_has_role(c.relowner, 'USAGE') AS is_owned, has_schema_privilege(s.oid, 'CREATE') AS may_create,
        md5(concat(c.oid, leaves.likeness, (
            SELECT string_agg(concat_ws(' ', a.attnum, a.attname, a.atttypid, a.atttypmod), ',' ORDER BY a.attnum)
            FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        ))) AS likeness,
        ARRAY(SELECT hs.nspname::text FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class h ON h.oid = i.inhrelid
            JOIN pg_catalog.pg_namespace hs ON hs.oid = h.relnamespace WHERE i.inhparent = c.oid AND c.relkind = 'r' ORDER BY h.oid) AS heir_schemas,
        ARRAY(SELECT h.relname::text FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class h ON h.oid = i.inhrelid
            WHERE i.inhparent = c.oid AND c.relkind = 'r' ORDER BY h.oid) AS heir_names
    FROM unnest($1::text[], $2::text[], $3::text[]) AS named(text, schema, name)
    JOIN pg_catalog.pg_class c ON c.relname = named.name
    JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
    CROSS JOIN LATERAL (
        SELECT bool_and(CASE l.relreplident WHEN 'f' THEN true WHEN 'n' THEN false ELSE EXISTS (
                SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = l.oid
                    AND CASE l.relreplident WHEN 'i' THEN i.indisreplident ELSE i.indisprimary END) END) AS has_identity,
            bool_and(l.relreplident = c.relreplident AND (c.relkind <> 'p' OR c.relreplident <> 'i')) AS is_uniform,
            string_agg(concat_ws(' ', l.oid, l.relfilenode), ',' ORDER BY l.oid) FILTER (WHERE c.relkind = 'p') AS likeness
        FROM pg_catalog.pg_class l
        WHERE l.oid IN (SELECT c.oid WHERE c.relkind <> 'p' UNION ALL
            SELECT p.relid FROM pg_catalog.pg_partition_tree(c.oid) p WHERE p.isleaf AND c.relkind = 'p')
    ) AS leaves
    -- Looking up a whole name would be refused where the user may not use the schema, which a feed need not.
    WHERE CASE WHEN named.schema IS NULL THEN c.oid = pg_catalog.to_regclass(named.text) ELSE s.nspname = named.schema END";

const COLUMNS: &str = "
    WITH RECURSIVE base AS (
        SELECT t.oid AS of, t.oid AS is FROM pg_catalog.pg_type t
        UNION ALL
        SELECT b.of, t.typbasetype FROM base b JOIN pg_catalog.pg_type t ON t.oid = b.is WHERE t.typtype = 'd'
    )
    SELECT a.attrelid::int8 AS table_oid, a.attname::text AS name, a.atttypid::int8 AS type_oid, t.typname::text AS type_name,
        t.typtype = 'e' AS is_enum, a.attgenerated <> '' AS is_generated,
        coalesce((SELECT l.collisdeterministic FROM pg_catalog.pg_collation l WHERE l.oid = a.attcollation), true) AS is_exact,
        NOT EXISTS (
            SELECT FROM pg_catalog.pg_class leaf
            JOIN pg_catalog.pg_attribute la ON la.attrelid = leaf.oid AND la.attname = a.attname
            WHERE leaf.oid IN (SELECT c.oid WHERE c.relkind <> 'p' UNION ALL
                SELECT p.relid FROM pg_catalog.pg_partition_tree(c.oid) p WHERE p.isleaf AND c.relkind = 'p')
            AND NOT CASE leaf.relreplident WHEN 'f' THEN true WHEN 'n' THEN false ELSE EXISTS (
                SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = leaf.oid AND la.attnum = ANY (i.indkey)
                    AND CASE leaf.relreplident WHEN 'i' THEN i.indisreplident ELSE i.indisprimary END) END
        ) AS in_identity
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN base ON base.of = a.atttypid
    JOIN pg_catalog.pg_type t ON t.oid = base.is AND t.typtype <> 'd'
    WHERE c.oid = ANY ($1::int8[]::oid[])";

impl Survey {
    /// Looks up all that the groups with `feed` name.
    pub(crate) async fn make(
        connection: &mut PgConnection,
        groups: &[GroupConfig],
        feed: Feed,
    ) -> Result<Survey, SessionError> {
        let groups: Vec<&GroupConfig> = groups.iter().filter(|group| group.change_feed() == Some(feed)).collect();
        let named: BTreeSet<&TableName> =
            groups.iter().flat_map(|group| &group.invalidated_by).map(|i| &i.table).collect();
        let texts: Vec<String> = named.iter().map(ToString::to_string).collect();
        let schemas: Vec<Option<&str>> = named.iter().map(|table| table.schema.as_deref()).collect();
        let names: Vec<&str> = named.iter().map(|table| table.name.as_str()).collect();
        let asked = sqlx::query(TABLES).bind(&texts).bind(schemas).bind(names);
        let rows = asked.fetch_all(&mut *connection).await.map_err(session_error)?;
        let mut found: BTreeMap<String, Found> = BTreeMap::new();
        for row in &rows {
            let table = Found::read(row).map_err(session_error)?;
            found.insert(row.try_get("named").map_err(session_error)?, table);
        }
        let oids: Vec<i64> = found.values().map(|table| table.oid).collect();
        let rows = sqlx::query(COLUMNS).bind(oids).fetch_all(connection).await.map_err(session_error)?;
        for row in &rows {
            let oid: i64 = row.try_get("table_oid").map_err(session_error)?;
            let column = FoundColumn::read(row).map_err(session_error)?;
            // A table can be named with its schema and without.
            found.values_mut().filter(|table| table.oid == oid).for_each(|table| table.columns.push(column.clone()));
        }
        Ok(Survey::of(&groups, &found, feed))
    }

    /// What there is to be told of it, the worst first.
    pub(crate) fn told(&self) -> Vec<Fault> {
        self.faults.iter().chain(&self.advice).cloned().collect()
    }

    /// The groups that name one of these tables.
    pub(crate) fn groups_of(&self, tables: &BTreeSet<TableName>) -> BTreeSet<String> {
        let named = tables.iter().filter_map(|table| self.tables.get(table));
        named.flat_map(|table| table.groups.iter().cloned()).collect()
    }

    fn of(groups: &[&GroupConfig], found: &BTreeMap<String, Found>, feed: Feed) -> Survey {
        let mut survey = Survey::default();
        for table in found.values() {
            for column in &table.columns {
                let spelling = column.spelling(table);
                let fact = ColumnFact { type_oid: column.type_oid, spelling };
                survey.facts.insert(&table.schema, &table.name, &column.name, fact);
            }
        }
        for group in groups {
            let faults_before = survey.faults.len();
            for named in &group.invalidated_by {
                survey.look_at(group, named, found.get(&named.table.to_string()), feed);
            }
            if survey.faults.len() == faults_before {
                let of = |named: &Invalidation| {
                    let likeness = found.get(&named.table.to_string()).map_or("", |table| &table.likeness);
                    // With another pattern the rows are other keys'.
                    format!("{named} {likeness} {}", group.key)
                };
                survey.covered.insert(group.name.clone(), group.invalidated_by.iter().map(of).collect());
            }
        }
        survey
    }

    fn look_at(&mut self, group: &GroupConfig, named: &Invalidation, table: Option<&Found>, feed: Feed) {
        let fault = |problem: String, hint: String| group.fault("invalidated_by", problem, hint);
        let Some(table) = table else {
            let hint = match named.table.schema {
                Some(_) => "is it spelled as in the database, and in this one?",
                None => "is it spelled as in the database? write schema.table if it is not in the search path",
            };
            return self.faults.push(fault(format!("there is no table `{}`", named.table), hint.to_owned()));
        };
        if let Some((problem, hint)) = table.unfit(feed) {
            return self.faults.push(fault(problem, hint));
        }
        for heir in table.heirs.iter().filter(|heir| !group.invalidated_by.iter().any(|named| named.table.may_be(heir)))
        {
            let problem = format!("rows of `{heir}` are rows of `{}`, too, since it inherits from it", named.table);
            let columns =
                named.to_string().split_once('(').map(|(_, columns)| format!("({columns}")).unwrap_or_default();
            self.faults.push(fault(problem, format!("add \"{heir}{columns}\" to invalidated_by")));
        }
        for name in &named.columns {
            let Some(column) = table.columns.iter().find(|column| column.name == *name) else {
                let known: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
                let hint = match nearest(name, &known) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => format!("its columns are {}", known.join(", ")),
                };
                self.faults.push(fault(format!("`{}` has no column `{name}`", named.table), hint));
                continue;
            };
            self.advice.extend(table.advice(column, named, feed).map(|(problem, hint)| fault(problem, hint)));
        }
        let followed = self.tables.entry(table.full_name()).or_insert_with(|| Table {
            is_partitioned: table.kind == "p",
            identity: table.identity(),
            is_owned: table.is_owned,
            may_create: table.may_create,
            ..Table::default()
        });
        followed.groups.insert(group.name.clone());
        followed.columns.extend(named.columns.iter().cloned());
    }
}

impl Found {
    fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        let (schemas, names): (Vec<String>, Vec<String>) = (row.try_get("heir_schemas")?, row.try_get("heir_names")?);
        let heirs = schemas.into_iter().zip(names);
        Ok(Found {
            oid: row.try_get("oid")?,
            schema: row.try_get("schema")?,
            name: row.try_get("name")?,
            kind: row.try_get("kind")?,
            persistence: row.try_get("persistence")?,
            has_identity: row.try_get("has_identity")?,
            is_uniform: row.try_get("is_uniform")?,
            heirs: heirs.map(|(schema, name)| TableName { schema: Some(schema), name }).collect(),
            likeness: row.try_get("likeness")?,
            is_owned: row.try_get("is_owned")?,
            may_create: row.try_get("may_create")?,
            columns: Vec::new(),
        })
    }

    fn full_name(&self) -> TableName {
        TableName { schema: Some(self.schema.clone()), name: self.name.clone() }
    }

    fn identity(&self) -> BTreeSet<String> {
        let columns = self.columns.iter().filter(|column| column.in_identity && self.is_uniform);
        columns.map(|column| column.name.clone()).collect()
    }

    /// Why `feed` cannot tell of it, and what to do about that.
    fn unfit(&self, feed: Feed) -> Option<(String, String)> {
        let table = self.full_name();
        let kind = match self.kind.as_str() {
            "r" | "p" => None,
            "v" => Some("a view"),
            "m" => Some("a materialized view"),
            "f" => Some("a foreign table"),
            _ => Some("no table"),
        };
        if let Some(kind) = kind {
            let hint = "name the tables in this database that it is made of; or leave invalidated_by out and set a ttl";
            return Some((format!("`{table}` is {kind}, of which no changes are told"), hint.to_owned()));
        }
        if self.persistence != "p" && feed == Feed::Wal {
            let hint = format!("ALTER TABLE {table} SET LOGGED; or write feed = \"notify\"");
            return Some((format!("`{table}` is not logged, so nothing of it is in the write-ahead log"), hint));
        }
        if !self.has_identity && feed == Feed::Wal {
            let hint = format!(
                "give it a primary key, or run: ALTER TABLE {table} REPLICA IDENTITY FULL;{}",
                self.of_each_partition()
            );
            let problem = format!(
                "`{table}` has no key: once it is published, the database refuses to update it and to delete from it"
            );
            return Some((problem, hint));
        }
        None
    }

    /// Why a change of it may mean every key, and what to do about that.
    fn advice(&self, column: &FoundColumn, named: &Invalidation, feed: Feed) -> Option<(String, String)> {
        let table = self.full_name();
        if column.is_generated && feed == Feed::Wal {
            let problem = format!(
                "the column `{}` is computed from others, which the log does not tell, so any change of `{table}` invalidates every key of \
                 the group",
                column.name
            );
            return Some((
                problem,
                "name columns that are stored as they are written, or write feed = \"notify\"".to_owned(),
            ));
        }
        if self.spells_alike(column) == Spelling::Many {
            let problem = format!(
                "a value of the column `{}` ({}) can be written in more than one way, so any change of `{table}` invalidates every key of \
                 the group",
                column.name, column.type_name
            );
            let hint = format!(
                "write \"{}\" alone if that is meant, or use a column of whole numbers, text or uuid",
                named.table
            );
            return Some((problem, hint));
        }
        if feed == Feed::Wal && !self.is_uniform {
            let problem = format!("the partitions of `{table}` do not have the replica identity of the table itself");
            return Some((
                problem,
                format!("run: ALTER TABLE {table} REPLICA IDENTITY FULL;{}", self.of_each_partition()),
            ));
        }
        if feed == Feed::Wal && !column.in_identity {
            let problem = format!(
                "old rows of `{table}` come without the column `{}`, so an update or a delete invalidates every key of the group",
                column.name
            );
            return Some((
                problem,
                format!("run: ALTER TABLE {table} REPLICA IDENTITY FULL;{}", self.of_each_partition()),
            ));
        }
        None
    }

    fn of_each_partition(&self) -> &'static str {
        if self.kind == "p" { " and the same for each of its partitions" } else { "" }
    }

    fn spells_alike(&self, column: &FoundColumn) -> Spelling {
        if column.is_exact { Spelling::of(&column.type_name, column.is_enum) } else { Spelling::Many }
    }
}

impl FoundColumn {
    fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(FoundColumn {
            name: row.try_get("name")?,
            type_oid: row.try_get::<i64, _>("type_oid")? as u32,
            type_name: row.try_get("type_name")?,
            is_enum: row.try_get("is_enum")?,
            is_exact: row.try_get("is_exact")?,
            is_generated: row.try_get("is_generated")?,
            in_identity: row.try_get("in_identity")?,
        })
    }

    /// What is sent of a partition's old row does not say which of its columns are there if the table has another identity.
    fn spelling(&self, table: &Found) -> Spelling {
        if table.is_uniform { table.spells_alike(self) } else { Spelling::Many }
    }
}
