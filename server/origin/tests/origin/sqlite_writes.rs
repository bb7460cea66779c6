//! Writes to SQLite.

use std::time::Duration;

use forebay_origin::{EmbeddedDatabase, Origin, OriginConfig, WriteError};

use crate::sqlite::Database;
use crate::writes::{groups, remove, save, whole, write_all};

const GROUPS: &str = r#"
[[group]]
name = "doc"
key = "doc:{id}"
load = "SELECT doc FROM docs WHERE id = $1"
as = "string"
write = "through"
save = "INSERT INTO docs (id, doc) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET doc = excluded.doc"
remove = "DELETE FROM docs WHERE id = $1"
"#;

#[tokio::test]
async fn writes_are_made_in_their_order_and_what_is_refused_is_told() {
    let database = Database::new();
    let mut beside = EmbeddedDatabase::create(&database.0).await.unwrap();
    beside.run("CREATE TABLE docs (id INTEGER PRIMARY KEY, doc NOT NULL CHECK (doc <> 'forbidden'))").await.unwrap();
    let config = OriginConfig { load_timeout: Duration::from_secs(4), ..database.config() };
    let origin = Origin::start(config, groups(GROUPS)).await.unwrap();
    let written = save(&origin, "doc:1", whole("a")).await.unwrap();
    assert_eq!((written.rows, written.xid, written.snapshot), (1, None, None));
    let writes = (0..1000).map(|id| {
        let doc = if id == 77 { "forbidden".to_owned() } else { format!("v{id}") };
        (format!("doc:{}", id % 900), (id != 950).then_some(doc))
    });
    let outcomes = write_all(&origin, writes).await;
    for (id, outcome) in outcomes.iter().enumerate() {
        match outcome {
            Err(WriteError::Refused { .. }) => assert_eq!(id, 77),
            outcome => assert_eq!(outcome.as_ref().unwrap().rows, 1, "{id}"),
        }
    }
    for (key, expected) in
        [("doc:0", Some("v900")), ("doc:77", Some("v977")), ("doc:50", None), ("doc:899", Some("v899"))]
    {
        assert_eq!(crate::shop::text(&origin, key).await.as_deref(), expected, "{key}");
    }
    save(&origin, "doc:1", whole(&b"\xff\0"[..])).await.unwrap();
    assert_eq!(remove(&origin, "doc:1").await.unwrap().rows, 1);
    assert_eq!(remove(&origin, "doc:1").await.unwrap().rows, 0);
    // Somebody keeps the database locked.
    beside.run("BEGIN IMMEDIATE").await.unwrap();
    let locked = save(&origin, "doc:2", whole("b")).await;
    assert!(matches!(locked, Err(WriteError::TryAgain { .. })), "{locked:?}");
    beside.run("ROLLBACK").await.unwrap();
    save(&origin, "doc:2", whole("b")).await.unwrap();
    let refused = save(&origin, "doc:2", whole("forbidden")).await;
    assert!(matches!(&refused, Err(WriteError::Refused { code, .. }) if &**code == "275"), "{refused:?}");
    origin.close().await;
}
