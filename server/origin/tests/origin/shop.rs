//! A shop's database, and an origin in front of it.

use std::time::Duration;

use bytes::Bytes;
use forebay_origin::{GroupConfig, LoadError, Loaded, Origin, OriginConfig, Value, parse_groups};
use forebay_test_postgres::TestPostgres;

/// Tables that the tests load from.
pub(crate) const TABLES: &str = r#"
    CREATE TYPE mood AS ENUM ('happy', 'so so');
    CREATE TABLE products (id bigint PRIMARY KEY, name text, price numeric(10,2), sold boolean, added timestamp,
                           picture bytea, doc jsonb);
    INSERT INTO products SELECT n, 'product ' || n, n * 1.50, n % 2 = 0, '2024-01-02 03:04:05', '\x00ff', NULL
        FROM generate_series(1, 2000) n;
    UPDATE products SET doc = '{"a": [1, 2]}', name = NULL WHERE id = 7;
    CREATE TABLE things (u uuid, t text, s smallint, i int, b bool, n numeric, f double precision, d date,
                         ts timestamptz, y bytea, m mood, c char(5), v varchar, g name, r real, l timestamp);
    INSERT INTO things VALUES ('123e4567-e89b-12d3-a456-426614174000', 'é:x', -3, 70000, true, 1.50, 2.5, '2024-02-29',
        '2024-01-01 00:00:00+00', 'raw', 'so so', 'ab', 'cd', 'ef', 0.5, '2024-01-01 12:00:00');
    CREATE TABLE notes (author text, line int);
    INSERT INTO notes VALUES ('ann', 1), ('ann', 2), ('bob', 1);
"#;

/// A group called `name` whose query is `load`.
pub(crate) fn group(name: &str, key: &str, load: &str, shape: &str) -> GroupConfig {
    let text = format!("[[group]]\nname = '{name}'\nkey = '{key}'\nas = '{shape}'\nload = '''{load}'''\n");
    parse_groups(&text, "test").expect("the group is right").remove(0)
}

/// The group that most tests use.
pub(crate) fn names() -> GroupConfig {
    group("name", "name:{id}", "SELECT name FROM products WHERE id = $1", "string")
}

/// A running PostgreSQL with the shop's tables in the database `postgres`.
pub(crate) async fn postgres() -> TestPostgres {
    let postgres = TestPostgres::start().await;
    postgres.sql("postgres", TABLES).await;
    postgres
}

/// The configuration that the tests begin with.
pub(crate) fn config(postgres: &TestPostgres) -> OriginConfig {
    OriginConfig::new(postgres.url("postgres"))
}

/// A configuration that gives up late, for tests that are about something else than time, on a busy machine.
pub(crate) fn patient(postgres: &TestPostgres) -> OriginConfig {
    OriginConfig { load_timeout: Duration::from_secs(30), ..config(postgres) }
}

/// Starts an origin.
pub(crate) async fn origin(config: OriginConfig, groups: Vec<GroupConfig>) -> Origin {
    Origin::start(config, groups).await.expect("the configuration is right")
}

/// Loads one key through the group that has it.
pub(crate) async fn load(origin: &Origin, key: impl AsRef<[u8]>) -> Result<Loaded, LoadError> {
    let key = Bytes::copy_from_slice(key.as_ref());
    let group = origin.group_of(&key).unwrap_or_else(|| panic!("no group has {key:?}"));
    origin.load(group, key).await
}

/// The value of a key of the shape `string` or `json`, as text; `None` when it is absent.
pub(crate) async fn text(origin: &Origin, key: impl AsRef<[u8]>) -> Option<String> {
    match load(origin, key).await.expect("the key can be loaded").value? {
        Value::String(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        other => panic!("{other:?} is no string"),
    }
}

/// The fields of a hash, as text.
pub(crate) async fn fields(origin: &Origin, key: &str) -> Vec<(String, String)> {
    let lossy = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    match load(origin, key).await.expect("the key can be loaded").value {
        Some(Value::Hash(fields)) => fields.iter().map(|(field, value)| (lossy(field), lossy(value))).collect(),
        other => panic!("{other:?} is no hash"),
    }
}

/// How often statements that contain `part` were executed, as PostgreSQL counts it.
pub(crate) async fn calls(postgres: &TestPostgres, part: &str) -> u64 {
    let sql = format!(
        "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements \
         WHERE query LIKE '%{part}%' AND query NOT LIKE '%pg_stat_statements%'"
    );
    postgres.sql("postgres", &sql).await.parse().expect("a count is a number")
}

/// Waits until `key` can be loaded again.
pub(crate) async fn heals(origin: &Origin, key: &str) {
    let healing = async {
        while load(origin, key).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), healing).await.expect("the origin heals");
}
