//! The same from SQLite.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use forebay_origin::{LoadError, OriginConfig, Value, check};
use futures_util::future::join_all;

use crate::shop::{self, fields, group, load, text};

const TABLES: &str = r#"
    CREATE TABLE products (id INTEGER PRIMARY KEY, name TEXT, price REAL, picture BLOB, doc TEXT, code TEXT);
    WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 1000)
    INSERT INTO products SELECT n, 'product ' || n, n * 1.5, x'00ff', NULL, n FROM n;
    UPDATE products SET doc = '{"a": [1, 2]}', name = NULL WHERE id = 7;
    CREATE TABLE notes (author TEXT, line INTEGER);
    INSERT INTO notes VALUES ('ann', 1), ('ann', 2), ('bob', 1);
"#;

/// A database file that is removed when this is dropped.
pub(crate) struct Database(pub(crate) PathBuf);

impl Database {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("forebay-sqlite-{}-{number}.db", std::process::id());
        let database = Database(std::env::temp_dir().join(name));
        let output = Command::new("sqlite3").arg(&database.0).arg(TABLES).output().expect("sqlite3 can be run");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        database
    }

    pub(crate) fn config(&self) -> OriginConfig {
        let url = format!("sqlite://{}", self.0.display());
        OriginConfig { load_timeout: Duration::from_secs(30), ..OriginConfig::new(url) }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        for suffix in ["", "-wal", "-shm"] {
            // The files beside the database are there or not.
            let _ = std::fs::remove_file(format!("{}{suffix}", self.0.display()));
        }
    }
}

#[tokio::test]
async fn rows_become_strings_documents_and_hashes() {
    let database = Database::new();
    let groups = vec![
        shop::names(),
        group("price", "price:{id}", "SELECT price FROM products WHERE id = $1", "string"),
        group("picture", "picture:{id}", "SELECT picture FROM products WHERE id = $1", "string"),
        group("code", "code:{code}", "SELECT id FROM products WHERE code = $1", "string"),
        group("row", "row:{id}", "SELECT id, name, price, doc FROM products WHERE id = $1", "json"),
        group("doc", "doc:{id}", "SELECT doc FROM products WHERE id = $1", "json"),
        group("hash", "hash:{id}", "SELECT id, name, price, doc FROM products WHERE id = $1", "hash"),
        group(
            "two",
            "two:{author}:{line}",
            "SELECT author || line FROM notes WHERE line = $2 AND author = $1",
            "string",
        ),
        group("second", "second:{ignored}:{line}", "SELECT max(author) FROM notes WHERE line = $2", "string"),
        group("blob", "blob:{id}", "SELECT id, picture FROM products WHERE id = $1", "json"),
        group("note", "note:{author}", "SELECT line FROM notes WHERE author = $1", "string"),
        group("gone", "gone:{id}", "SELECT x FROM missing WHERE id = $1", "string"),
    ];
    let origin = shop::origin(database.config(), groups).await;
    assert_eq!(text(&origin, "name:1").await.as_deref(), Some("product 1"));
    assert_eq!(text(&origin, "name:5000").await, None);
    assert_eq!(text(&origin, "name:abc").await, None);
    assert_eq!(text(&origin, "name:7").await, None, "NULL is absent");
    assert_eq!(text(&origin, "price:1").await.as_deref(), Some("1.5"));
    assert_eq!(load(&origin, "picture:1").await.unwrap().value, Some(Value::String(b"\x00\xff"[..].into())));
    assert_eq!(text(&origin, "code:12").await.as_deref(), Some("12"), "a number finds a text column's row");
    let row = r#"{"id":7,"name":null,"price":10.5,"doc":"{\"a\": [1, 2]}"}"#;
    assert_eq!(text(&origin, "row:7").await.as_deref(), Some(row));
    assert_eq!(text(&origin, "doc:7").await.as_deref(), Some(r#"{"a": [1, 2]}"#));
    assert_eq!(text(&origin, "doc:1").await, None);
    let product = fields(&origin, "hash:7").await;
    let product: Vec<(&str, &str)> = product.iter().map(|(field, value)| (field.as_str(), value.as_str())).collect();
    assert_eq!(product, [("id", "7"), ("price", "10.5"), ("doc", r#"{"a": [1, 2]}"#)]);
    assert_eq!(text(&origin, "two:ann:2").await.as_deref(), Some("ann2"));
    assert_eq!(text(&origin, "second:anything:1").await.as_deref(), Some("bob"));
    let (ann, bob) = tokio::join!(load(&origin, "note:ann"), text(&origin, "note:bob"));
    assert_eq!(ann.unwrap_err().reply(), "ORIGINERR group 'note': the query gave more than one row for one key");
    assert_eq!(bob.as_deref(), Some("1"));
    let blob = load(&origin, "blob:1").await.unwrap_err();
    assert!(matches!(&blob, LoadError::Shape { .. }) && blob.to_string().contains("picture"), "{blob}");
    assert_eq!(load(&origin, "gone:1").await.unwrap_err().reply(), "ORIGINERR group 'gone': no such table: missing");
    origin.close().await;
}

#[tokio::test]
async fn many_keys_are_one_batch_on_one_connection() {
    let database = Database::new();
    let config = OriginConfig { batch_window: Duration::from_millis(100), ..database.config() };
    let origin = shop::origin(config, vec![shop::names()]).await;
    let names = join_all((1..=300).map(|id| text(&origin, format!("name:{id}")))).await;
    assert_eq!(names.iter().flatten().count(), 299);
    let status = origin.status();
    assert_eq!((status.groups[0].batch_sizes[9], status.targets[0].idle), (1, 1));
    origin.close().await;
}

#[tokio::test]
async fn a_query_without_end_is_ended() {
    let database = Database::new();
    let endless = "WITH RECURSIVE n(n) AS (SELECT $1 UNION ALL SELECT n + 1 FROM n) SELECT max(n) FROM n";
    let config = OriginConfig { load_timeout: Duration::from_millis(200), ..database.config() };
    let groups = vec![group("endless", "endless:{n}", endless, "string"), shop::names()];
    let origin = shop::origin(config, groups).await;
    let error = load(&origin, "endless:1").await.unwrap_err();
    assert!(matches!(error, LoadError::Timeout { .. }), "{error:?}");
    forebay_test_postgres::wait_until("the connection is free", || origin.status().targets[0].in_use == 0).await;
    shop::heals(&origin, "name:1").await;
    origin.close().await;
}

#[tokio::test]
async fn a_check_finds_missing_tables_and_missing_files() {
    let database = Database::new();
    let gone = group("gone", "gone:{id}", "SELECT x FROM missing WHERE id = $1", "string");
    let faults = check(database.config(), vec![shop::names(), gone.clone()]).await;
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert_eq!((faults[0].place.as_str(), faults[0].line), ("group \"gone\".load", 5));
    let faults = check(OriginConfig::new("sqlite:///nowhere/shop.db"), vec![gone]).await;
    assert!(faults.len() == 1 && faults[0].problem.contains("cannot be reached"), "{faults:?}");
}

/// Groups are exchanged while loads go on: what is defined as before stays what it was, and nothing else does.
#[tokio::test]
async fn groups_are_replaced_as_a_whole() {
    let database = Database::new();
    let price = |factor: u32| {
        group("price", "price:{id}", &format!("SELECT price * {factor} FROM products WHERE id = $1"), "string")
    };
    let origin = shop::origin(database.config(), vec![shop::names(), price(1)]).await;
    let [name_id, price_id] = [&b"name:1"[..], b"price:1"].map(|key| origin.group_of(key).expect("a group has it"));
    assert_eq!(text(&origin, "price:2").await.as_deref(), Some("3.0"));
    assert_eq!(text(&origin, "name:2").await.as_deref(), Some("product 2"));

    let mut names_for_longer = shop::names();
    names_for_longer.ttl = Some(Duration::from_secs(60));
    origin.replace(vec![price(2), names_for_longer], 7).await.expect("they are right");
    assert_eq!(origin.groups().version(), 7);
    assert_eq!(origin.group_of(b"name:1"), Some(name_id), "it is loaded as before");
    let rules = origin.rules(name_id, b"name:1").expect("it is served");
    assert_eq!(rules.group.ttl, Some(Duration::from_secs(60)));
    assert!(origin.rules(name_id, b"price:1").is_none(), "that key is another group's");
    assert_ne!(origin.group_of(b"price:1"), Some(price_id));
    assert!(origin.rules(price_id, b"price:1").is_none());
    assert_eq!(origin.load(price_id, "price:2".into()).await, Err(LoadError::Replaced));
    assert_eq!(text(&origin, "price:2").await.as_deref(), Some("6.0"));
    let loads: Vec<_> =
        origin.groups().with_status().map(|(group, status)| (group.name.clone(), status.loads)).collect();
    assert_eq!(loads, [("price".to_owned(), 2), ("name".to_owned(), 1)], "they are counted by their names");

    let twice = origin.replace(vec![price(1), price(1)], 8).await.expect_err("both have one name");
    assert!(twice.iter().any(|fault| fault.place.contains("name")), "{twice:?}");
    assert_eq!(origin.groups().version(), 7, "nothing has changed");
    origin.replace(Vec::new(), 9).await.expect("none are right, too");
    assert!(origin.is_empty() && origin.group_of(b"name:1").is_none());
    // Removed groups' batchers have ended, or this would wait for ever.
    origin.close().await;
}

#[tokio::test]
async fn a_query_for_many_keys_is_refused() {
    let database = Database::new();
    let mut group = shop::names();
    group.load_many = Some("SELECT id, name FROM products WHERE id = ANY($1)".to_owned());
    let faults = check(database.config(), vec![group.clone()]).await;
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert_eq!(faults[0].place, "group \"name\".load_many");
    assert!(faults[0].problem.contains("SQLite has no arrays"), "{}", faults[0]);
    let origin = shop::origin(database.config(), vec![shop::names()]).await;
    assert_eq!(origin.replace(vec![group], 1).await, Err(faults));
    origin.close().await;
}
