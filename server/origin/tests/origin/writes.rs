//! Writes to Postgres: what is written, in which order, how many statements it takes, and what failures are called.

use bytes::Bytes;
use forebay_origin::{
    Abilities, GroupConfig, NewValue, Origin, OriginConfig, Write, WriteChange, WriteError, Written, parse_groups_for,
};
use forebay_test_postgres::TestPostgres;

use crate::shop;

const TABLES: &str = "
    CREATE TYPE level AS ENUM ('low', 'high');
    CREATE TABLE docs (id bigint PRIMARY KEY, doc text NOT NULL CHECK (doc <> 'forbidden'));
    CREATE TABLE users (name text PRIMARY KEY, age int, mail text);
    CREATE TABLE blobs (name text, part int, data bytea, PRIMARY KEY (name, part));
    CREATE TABLE levels (level level PRIMARY KEY, n int);
    CREATE TABLE parents (id bigint PRIMARY KEY);
    CREATE TABLE children (id bigint PRIMARY KEY, parent bigint REFERENCES parents DEFERRABLE INITIALLY DEFERRED);
    CREATE TABLE log (n bigserial PRIMARY KEY, id bigint, doc text);
    CREATE FUNCTION save_log(k bigint, v text) RETURNS bigint LANGUAGE sql AS
        'INSERT INTO log (id, doc) VALUES (k, v) RETURNING n';
";

const GROUPS: &str = r#"
[[group]]
name = "doc"
key = "doc:{id}"
load = "SELECT doc FROM docs WHERE id = $1"
as = "string"
write = "behind"
save = "INSERT INTO docs (id, doc) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET doc = excluded.doc"
remove = "DELETE FROM docs WHERE id = $1"

[[group]]
name = "user"
key = "user:{name}"
load = "SELECT age, mail FROM users WHERE name = $1"
as = "hash"
write = "through"
save = """
INSERT INTO users AS u (name, age, mail) VALUES ($1, ($2::jsonb ->> 'age')::int, $2::jsonb ->> 'mail')
ON CONFLICT (name) DO UPDATE SET
  age = CASE WHEN $2::jsonb ? 'age' THEN ($2::jsonb ->> 'age')::int ELSE u.age END,
  mail = CASE WHEN $2::jsonb ? 'mail' THEN $2::jsonb ->> 'mail' ELSE u.mail END
"""

[[group]]
name = "blob"
key = "blob:{name}:{part}"
load = "SELECT data FROM blobs WHERE name = $1 AND part = $2"
as = "string"
write = "around"
save = "INSERT INTO blobs (part, data, name) VALUES ($2, $3, $1) ON CONFLICT (name, part) DO UPDATE SET data = excluded.data"

[[group]]
name = "level"
key = "level:{level}"
load = "SELECT n::text FROM levels WHERE level = $1"
as = "string"
write = "through"
save = "INSERT INTO levels VALUES ($1, $2) ON CONFLICT (level) DO UPDATE SET n = excluded.n"

[[group]]
name = "child"
key = "child:{id}"
load = "SELECT parent::text FROM children WHERE id = $1"
as = "string"
write = "behind"
save = "INSERT INTO children VALUES ($1, $2)"

[[group]]
name = "log"
key = "log:{id}"
load = "SELECT doc FROM log WHERE id = $1"
as = "string"
write = "behind"
save = "SELECT save_log($1, $2)"
"#;

pub(crate) fn groups(text: &str) -> Vec<GroupConfig> {
    let abilities = Abilities { feeds: true, writes: true };
    parse_groups_for(text, "groups.toml", abilities).unwrap_or_else(|faults| panic!("{faults:#?}"))
}

async fn open() -> (TestPostgres, Origin) {
    let postgres = TestPostgres::start().await;
    postgres.sql("postgres", TABLES).await;
    let origin = shop::origin(shop::patient(&postgres), groups(GROUPS)).await;
    (postgres, origin)
}

pub(crate) fn whole(value: impl Into<Bytes>) -> NewValue {
    NewValue::Whole(value.into())
}

fn fields(fields: &[(&'static str, Option<&'static str>)]) -> NewValue {
    NewValue::Fields(fields.iter().map(|(name, value)| ((*name).into(), value.map(Bytes::from))).collect())
}

pub(crate) async fn save(origin: &Origin, key: &str, value: NewValue) -> Result<Written, WriteError> {
    let group = origin.group_of(key.as_bytes()).expect("a group has the key");
    origin.save(group, key.to_owned().into(), value).await
}

pub(crate) async fn remove(origin: &Origin, key: &str) -> Result<Written, WriteError> {
    let group = origin.group_of(key.as_bytes()).expect("a group has the key");
    origin.remove(group, key.to_owned().into()).await
}

/// Writes values by their keys; `None` removes.
pub(crate) async fn write_all(
    origin: &Origin,
    writes: impl IntoIterator<Item = (String, Option<String>)>,
) -> Vec<Result<Written, WriteError>> {
    let writes = writes.into_iter().map(|(key, value)| Write {
        key: key.into(),
        change: value.map_or(WriteChange::Remove, |value| WriteChange::Save(whole(value))),
    });
    let writes: Vec<Write> = writes.collect();
    let group = origin.group_of(&writes[0].key).expect("a group has the key");
    origin.write_all(group, writes).await
}

fn is_refused(result: &Result<Written, WriteError>, wanted: &str) -> bool {
    matches!(result, Err(WriteError::Refused { code, .. }) if &**code == wanted)
}

#[tokio::test]
async fn what_is_saved_is_there_and_its_snapshot_sees_it() {
    let (postgres, origin) = open().await;
    let before = shop::load(&origin, "doc:1").await.unwrap();
    let written = save(&origin, "doc:1", whole("it's \\ $1 new")).await.unwrap();
    assert_eq!(postgres.sql("postgres", "SELECT doc FROM docs WHERE id = 1").await, "it's \\ $1 new");
    assert_eq!(written.rows, 1);
    let (xid, snapshot) = (written.xid.unwrap(), written.snapshot.unwrap());
    let xmin = postgres.sql("postgres", "SELECT xmin FROM docs WHERE id = 1").await;
    assert_eq!(xid.to_string(), xmin);
    assert!(!before.snapshot.unwrap().sees(xid) && snapshot.sees(xid));
    let after = shop::load(&origin, "doc:1").await.unwrap();
    assert!(after.snapshot.unwrap().covers(&snapshot));
    // Of what is written between the snapshot and the write, nothing is claimed.
    let other = save(&origin, "doc:1", whole("other")).await.unwrap();
    assert!(!snapshot.sees(other.xid.unwrap()) && other.snapshot.unwrap().covers(&snapshot));
    assert_eq!(remove(&origin, "doc:1").await.unwrap().rows, 1);
    let nothing = remove(&origin, "doc:1").await.unwrap();
    assert_eq!((nothing.rows, nothing.xid), (0, None));
    assert_eq!(postgres.sql("postgres", "SELECT count(*) FROM docs").await, "0");
    origin.close().await;
}

#[tokio::test]
async fn each_type_of_parameter_takes_its_values() {
    let (postgres, origin) = open().await;
    save(&origin, "user:ann", fields(&[("age", Some("30")), ("mail", Some("a@b.c"))])).await.unwrap();
    save(&origin, "user:ann", fields(&[("age", Some("31"))])).await.unwrap();
    save(&origin, "user:bob", fields(&[("mail", None)])).await.unwrap();
    let users = postgres.sql("postgres", "SELECT * FROM users ORDER BY name").await;
    assert_eq!(users, "ann|31|a@b.c\nbob||");
    save(&origin, "user:ann", fields(&[("mail", None)])).await.unwrap();
    assert_eq!(shop::fields(&origin, "user:ann").await, [("age".to_owned(), "31".to_owned())]);
    save(&origin, "blob:x:2", whole(&b"\xff\0\x01"[..])).await.unwrap();
    assert_eq!(postgres.sql("postgres", "SELECT * FROM blobs").await, "x|2|\\xff0001");
    save(&origin, "level:high", whole("7")).await.unwrap();
    assert_eq!(postgres.sql("postgres", "SELECT * FROM levels").await, "high|7");
    // A statement that gives rows.
    let saved = write_all(&origin, [("log:1".into(), Some("a".into())), ("log:1".into(), Some("b".into()))]).await;
    assert!(saved.iter().all(Result::is_ok), "{saved:?}");
    assert_eq!(postgres.sql("postgres", "SELECT n, id, doc FROM log ORDER BY n").await, "1|1|a\n2|1|b");
    origin.close().await;
}

#[tokio::test]
async fn a_thousand_writes_are_few_statements_and_keep_their_order() {
    let (postgres, origin) = open().await;
    postgres
        .sql("postgres", "CREATE EXTENSION IF NOT EXISTS pg_stat_statements; SELECT pg_stat_statements_reset()")
        .await;
    let mut writes: Vec<(String, Option<String>)> =
        (0..1000).map(|id| (format!("doc:{}", id % 900), Some(format!("v{id}")))).collect();
    writes.push(("doc:5".into(), None));
    writes.push(("doc:6".into(), None));
    writes.push(("doc:6".into(), Some("again".into())));
    let outcomes = write_all(&origin, writes).await;
    assert_eq!(outcomes.len(), 1003);
    assert!(outcomes.iter().all(|outcome| outcome.as_ref().is_ok_and(|written| written.rows == 1)), "{outcomes:?}");
    let xids: std::collections::BTreeSet<_> =
        outcomes.iter().map(|outcome| outcome.as_ref().unwrap().xid.unwrap()).collect();
    assert!(xids.len() <= 3, "{xids:?}");
    let told = "SELECT count(*), count(*) FILTER (WHERE doc = 'v' || id), count(*) FILTER (WHERE doc = 'v' || (id + 900)) FROM docs";
    assert_eq!(postgres.sql("postgres", told).await, "899|800|98");
    assert_eq!(postgres.sql("postgres", "SELECT id, doc FROM docs WHERE id IN (5, 6)").await, "6|again");
    let calls = "SELECT sum(calls) FROM pg_stat_statements WHERE query NOT LIKE '%pg_stat_statements%'";
    let statements: u64 = postgres.sql("postgres", calls).await.parse().unwrap();
    assert!(statements <= 20, "{statements} statements");
    origin.close().await;
}

#[tokio::test]
async fn what_the_database_refuses_is_told_from_the_rest() {
    let (postgres, origin) = open().await;
    let writes = (0..100).map(|id| {
        let doc = if id % 10 == 3 { "forbidden".to_owned() } else { format!("v{id}") };
        (format!("doc:{id}"), Some(doc))
    });
    let outcomes = write_all(&origin, writes).await;
    for (id, outcome) in outcomes.iter().enumerate() {
        assert_eq!(is_refused(outcome, "23514"), id % 10 == 3, "{id}: {outcome:?}");
        assert_eq!(outcome.is_ok(), id % 10 != 3, "{id}: {outcome:?}");
    }
    assert_eq!(postgres.sql("postgres", "SELECT count(*) FROM docs").await, "90");
    // A constraint that is looked at only in the end.
    postgres.sql("postgres", "INSERT INTO parents SELECT generate_series(0, 9)").await;
    let writes = (0..20).map(|id| (format!("child:{id}"), Some(if id == 7 { 99 } else { id % 10 }.to_string())));
    let outcomes = write_all(&origin, writes).await;
    let refused: Vec<usize> = (0..20).filter(|id| is_refused(&outcomes[*id], "23503")).collect();
    assert_eq!(refused, [7], "{outcomes:?}");
    assert_eq!(postgres.sql("postgres", "SELECT count(*) FROM children").await, "19");
    for (key, value, code) in [
        ("doc:1", whole("forbidden"), "23514"),
        ("level:high", whole("many"), "22P02"),
        ("child:1", whole("1"), "23505"),
        ("user:ann", fields(&[("age", Some("old"))]), "22P02"),
        // What cannot be sent.
        ("doc:abc", whole("x"), ""),
        ("doc:1", whole(&b"\xff"[..]), ""),
        ("doc:1", whole("a\0b"), ""),
    ] {
        let result = save(&origin, key, value).await;
        assert!(is_refused(&result, code), "{key}: {result:?}");
    }
    assert_eq!(remove(&origin, "user:ann").await, Err(WriteError::NoStatement));
    origin.close().await;
}

#[tokio::test]
async fn what_can_be_tried_again_is_told_from_what_may_have_been_done() {
    let (mut postgres, origin) = open().await;
    save(&origin, "doc:1", whole("a")).await.unwrap();
    postgres.sql("postgres", "INSERT INTO docs VALUES (2, 'a'); ALTER TABLE docs RENAME TO gone").await;
    let absent = save(&origin, "doc:1", whole("b")).await;
    assert!(matches!(absent, Err(WriteError::TryAgain { .. })), "{absent:?}");
    postgres.sql("postgres", "ALTER TABLE gone RENAME TO docs").await;
    save(&origin, "doc:1", whole("b")).await.unwrap();
    // A connection that was reset, as poolers do it.
    postgres
        .sql(
            "postgres",
            "CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql AS \
             'BEGIN EXECUTE format(''DROP FUNCTION %s'', (SELECT string_agg(p.oid::regprocedure::text, '', '') FROM pg_proc p \
             WHERE p.pronamespace = pg_my_temp_schema())); RETURN NULL; END'; \
             CREATE TRIGGER forget AFTER DELETE ON docs FOR EACH ROW EXECUTE FUNCTION forget()",
        )
        .await;
    remove(&origin, "doc:2").await.unwrap();
    let forgotten = save(&origin, "doc:2", whole("a")).await;
    assert!(matches!(forgotten, Err(WriteError::TryAgain { .. })), "{forgotten:?}");
    save(&origin, "doc:2", whole("a")).await.unwrap();
    // What is no matter of a single write is not left out, and what is behind it is not tried.
    postgres
        .sql(
            "postgres",
            "CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS \
             'BEGIN RAISE EXCEPTION USING ERRCODE = ''40P01'', MESSAGE = ''deadlock''; END'; \
             CREATE TRIGGER conflict AFTER UPDATE ON docs FOR EACH ROW WHEN (NEW.doc = 'conflict') EXECUTE FUNCTION conflict()",
        )
        .await;
    let docs = ["x", "forbidden", "conflict", "y"].map(|doc| ("doc:1".to_owned(), Some(doc.to_owned())));
    let outcomes = write_all(&origin, docs).await;
    let reason = WriteError::TryAgain { reason: "deadlock".into() };
    assert!(outcomes.iter().all(|outcome| *outcome == Err(reason.clone())), "{outcomes:?}");
    assert_eq!(postgres.sql("postgres", "SELECT doc FROM docs WHERE id = 1").await, "b");
    // A session that is ended while it writes: the server says so, and nothing is committed.
    postgres
        .sql(
            "postgres",
            "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS \
             'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(1); RETURN NULL; END'; \
             CREATE TRIGGER die AFTER UPDATE ON docs FOR EACH ROW WHEN (NEW.doc = 'die') EXECUTE FUNCTION die()",
        )
        .await;
    let outcomes =
        write_all(&origin, [("doc:1".into(), Some("die".into())), ("doc:2".into(), Some("behind".into()))]).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Err(WriteError::TryAgain { .. }))), "{outcomes:?}");
    assert_eq!(postgres.sql("postgres", "SELECT doc FROM docs ORDER BY id").await, "b\na");
    // One that is killed at the commit says nothing any more.
    postgres
        .sql(
            "postgres",
            "CREATE FUNCTION crash() RETURNS trigger LANGUAGE plpgsql AS \
             'BEGIN EXECUTE format(''COPY (SELECT 1) TO PROGRAM %L'', ''kill -9 '' || pg_backend_pid()); PERFORM pg_sleep(5); RETURN NULL; END'; \
             CREATE TRIGGER crash AFTER UPDATE ON docs FOR EACH ROW WHEN (NEW.doc = 'crash') EXECUTE FUNCTION crash()",
        )
        .await;
    let outcome = save(&origin, "doc:1", whole("crash")).await;
    assert!(matches!(outcome, Err(WriteError::Unknown { .. })), "{outcome:?}");
    postgres.stop().await;
    let outcome = save(&origin, "doc:1", whole("c")).await;
    assert!(matches!(outcome, Err(WriteError::TryAgain { .. })), "{outcome:?}");
    postgres.start_again().await;
    tokio::time::timeout(std::time::Duration::from_secs(60), async {
        while save(&origin, "doc:1", whole("c")).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("it heals");
    assert_eq!(postgres.sql("postgres", "SELECT doc FROM docs ORDER BY id").await, "c\na");
    origin.close().await;
}

#[tokio::test]
async fn who_may_make_no_function_writes_all_the_same() {
    let (postgres, origin) = open().await;
    origin.close().await;
    postgres
        .sql(
            "postgres",
            "REVOKE TEMPORARY ON DATABASE postgres FROM PUBLIC; CREATE ROLE weak LOGIN; \
             GRANT ALL ON ALL TABLES IN SCHEMA public TO weak",
        )
        .await;
    let url = postgres.url("postgres").replace("postgres@", "weak@");
    let origin = shop::origin(OriginConfig { url, ..shop::patient(&postgres) }, groups(GROUPS)).await;
    let writes = [
        ("doc:1", Some("a")),
        ("doc:2", Some("forbidden")),
        ("doc:1", Some("b")),
        ("doc:3", Some("c")),
        ("doc:3", None),
    ];
    let writes = writes.map(|(key, value)| (key.to_owned(), value.map(str::to_owned)));
    let outcomes = write_all(&origin, writes).await;
    assert!(is_refused(&outcomes[1], "23514"), "{outcomes:?}");
    let written: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).collect();
    assert_eq!(written.len(), 4, "{outcomes:?}");
    assert!(
        written.iter().all(|one| one.xid == written[0].xid && one.snapshot.as_ref().unwrap().sees(one.xid.unwrap()))
    );
    assert_eq!(postgres.sql("postgres", "SELECT * FROM docs").await, "1|b");
    origin.close().await;
}

#[tokio::test]
async fn a_statement_that_is_replaced_is_used_and_check_finds_those_that_are_wrong() {
    let (postgres, origin) = open().await;
    save(&origin, "doc:1", whole("a")).await.unwrap();
    let upper = GROUPS.replace("VALUES ($1, $2) ON CONFLICT (id)", "VALUES ($1, upper($2)) ON CONFLICT (id)");
    origin.replace(groups(&upper), 2).await.unwrap();
    save(&origin, "doc:1", whole("b")).await.unwrap();
    assert_eq!(postgres.sql("postgres", "SELECT doc FROM docs").await, "B");
    let wrong = GROUPS
        .replace("INSERT INTO docs (id, doc)", "INSERT INTO docs (id, dok)")
        .replace("DELETE FROM docs", "DELETE FROM dogs")
        .replace("INSERT INTO levels VALUES ($1, $2)", "INSERT INTO levels SELECT $1, abs($2::int4range)");
    let faults = forebay_origin::check(shop::patient(&postgres), groups(&wrong)).await;
    let places: Vec<&str> = faults.iter().map(|fault| fault.place.as_str()).collect();
    assert_eq!(places, ["group \"doc\".save", "group \"doc\".remove", "group \"level\".save"], "{faults:#?}");
    origin.close().await;
}

#[tokio::test]
async fn settings_that_do_not_fit_each_other_are_refused() {
    let text = |more: &str| {
        format!(
            "[[group]]\nname = 'g'\nkey = 'g:{{a}}:{{b}}'\nload = 'SELECT $1, $2'\nas = 'json'\nwrite = 'through'\n{more}\n"
        )
    };
    let writes = Abilities { feeds: false, writes: true };
    for (more, setting, problem) in [
        ("", "write", "`through` needs a statement to write by"),
        ("save = 'SELECT $1, $2'", "save", "it does not use the value, which is $3"),
        ("save = 'SELECT $1, $3'", "save", "it does not use $2"),
        ("save = 'SELECT $1, $2, $4'", "save", "it uses $4"),
        ("save = 'SELECT $1, $2, $3'\nremove = 'SELECT $1'", "remove", "it does not use $2"),
        ("save = 'SELECT $1, $2, $3'\nremove = 'SELECT $1, $2, $3'", "remove", "it uses $3"),
    ] {
        let faults = parse_groups_for(&text(more), "f", writes).unwrap_err();
        let fault = faults.iter().find(|fault| fault.place == format!("group \"g\".{setting}"));
        assert!(fault.is_some_and(|fault| fault.problem.contains(problem)), "{more}: {faults:#?}");
    }
    let right = text("save = 'SELECT $1, $2, $3'");
    let parsed = parse_groups_for(&right, "f", writes).unwrap();
    let again = parse_groups_for(&parsed[0].to_toml(), "f", writes).unwrap();
    assert_eq!((again[0].write, &again[0].save), (parsed[0].write, &parsed[0].save));
}
