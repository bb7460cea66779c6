//! What loads could see.

use forebay_origin::{OriginConfig, Snapshot, TargetId, Xid};
use forebay_test_postgres::TestPostgres;

use crate::shop::{self, load, text};

/// A running PostgreSQL with the shop's tables, in which transactions can be left open under a name.
pub(crate) async fn postgres() -> TestPostgres {
    let postgres = TestPostgres::start_with(&[("max_prepared_transactions", "10")]).await;
    postgres.sql("postgres", shop::TABLES).await;
    postgres
}

/// Runs a transaction up to just before its commit, and tells its id.
pub(crate) async fn begin(postgres: &TestPostgres, name: &str, change: &str) -> Xid {
    let sql = format!("BEGIN; {change}; SELECT pg_current_xact_id(); PREPARE TRANSACTION '{name}'");
    Xid(postgres.sql("postgres", &sql).await.parse().expect("an id is a number"))
}

#[tokio::test]
async fn every_load_says_what_it_could_see_even_if_it_found_nothing() {
    let postgres = postgres().await;
    let groups = vec![
        shop::names(),
        shop::group("doc", "doc:{id}", "SELECT id, doc FROM products WHERE id = $1", "json"),
        shop::group("picture", "picture:{id}", "SELECT picture, name FROM products WHERE id = $1", "hash"),
        // It cannot stand in a join, so each key is a statement of its own.
        shop::group("sold", "sold:{id}", "UPDATE products SET sold = true WHERE id = $1 RETURNING name", "string"),
    ];
    let origin = shop::origin(shop::patient(&postgres), groups).await;
    let open = begin(&postgres, "open", "UPDATE products SET price = 0 WHERE id = 9").await;
    let done = begin(&postgres, "done", "UPDATE products SET price = 1 WHERE id = 8").await;
    postgres.sql("postgres", "COMMIT PREPARED 'done'").await;
    let prefixes = ["name", "doc", "picture", "sold"];
    let keys = prefixes.iter().flat_map(|prefix| [format!("{prefix}:1"), format!("{prefix}:999999")]);
    for key in keys {
        let loaded = load(&origin, key.clone()).await.unwrap();
        assert_eq!(loaded.value.is_none(), key.ends_with("999999"), "{key}");
        let snapshot = loaded.snapshot.expect("Postgres has snapshots");
        assert!(snapshot.sees(done) && !snapshot.sees(open), "{key}: {snapshot}");
    }
    postgres.sql("postgres", "COMMIT PREPARED 'open'").await;
    for prefix in prefixes {
        let snapshot = load(&origin, format!("{prefix}:2")).await.unwrap().snapshot.unwrap();
        assert!(snapshot.sees(open), "{prefix}: {snapshot}");
    }
    let unasked = load(&origin, "name:abc").await.unwrap();
    assert_eq!((unasked.value, unasked.snapshot), (None, None), "no query was needed");
    origin.close().await;
}

#[tokio::test]
async fn what_a_batch_read_is_of_one_snapshot() {
    let postgres = postgres().await;
    let config = OriginConfig { batch_window: std::time::Duration::from_millis(200), ..shop::patient(&postgres) };
    let origin = shop::origin(config, vec![shop::names()]).await;
    let keys = (1990..2010).map(|id| (origin.group_of(b"name:1").unwrap(), format!("name:{id}").into()));
    let mut snapshots = Vec::new();
    for pending in origin.begin(keys) {
        snapshots.push(pending.result().await.unwrap().snapshot.unwrap());
    }
    assert_eq!(snapshots.len(), 20);
    assert!(snapshots.iter().all(|snapshot| std::sync::Arc::ptr_eq(snapshot, &snapshots[0])));
    origin.close().await;
}

#[tokio::test]
async fn a_standby_is_not_believed_to_have_seen_what_runs_beside_it() {
    let postgres = postgres().await;
    let standby = postgres.standby().await;
    let open = begin(&postgres, "open", "UPDATE products SET name = 'new' WHERE id = 1").await;
    let done = begin(&postgres, "done", "UPDATE products SET name = 'new' WHERE id = 2").await;
    postgres.sql("postgres", "COMMIT PREPARED 'done'").await;
    postgres.catch_up(&standby).await;
    let claimed = standby.sql("postgres", "SELECT pg_current_snapshot()").await.parse::<Snapshot>().unwrap();
    assert!(claimed.sees(open), "this is why its snapshots are not taken at their word: {claimed}");

    let config = OriginConfig { replicas: vec![standby.url("postgres")], ..shop::patient(&postgres) };
    let origin = shop::origin(config, vec![shop::names()]).await;
    assert_eq!(text(&origin, "name:1").await.as_deref(), Some("product 1"));
    let loaded = load(&origin, "name:1").await.unwrap();
    assert_eq!(loaded.target, Some(TargetId(1)));
    assert!(!loaded.snapshot.as_ref().unwrap().sees(open), "{loaded:?}");
    postgres.sql("postgres", "COMMIT PREPARED 'open'").await;
    postgres.catch_up(&standby).await;
    let loaded = load(&origin, "name:1").await.unwrap();
    assert!(loaded.snapshot.as_ref().unwrap().sees(open) && loaded.snapshot.unwrap().sees(done));
    assert_eq!(text(&origin, "name:1").await.as_deref(), Some("new"));
    origin.close().await;
}

#[tokio::test]
async fn a_transaction_is_seen_exactly_when_postgres_says_so() {
    let postgres = TestPostgres::start().await;
    let ids = 1_u64..40;
    let snapshots: Vec<String> = (0..300)
        .map(|_| {
            let xmin = rand::random_range(1..20_u64);
            let xmax = xmin + rand::random_range(0..15_u64);
            let running: Vec<String> =
                (xmin..xmax).filter(|_| rand::random_bool(0.3)).map(|xid| xid.to_string()).collect();
            format!("{xmin}:{xmax}:{}", running.join(","))
        })
        .collect();
    let asked = format!(
        "SELECT string_agg(pg_visible_in_snapshot(xid::text::xid8, s::pg_snapshot)::int::text, '' ORDER BY xid) \
         FROM unnest(ARRAY['{}']) WITH ORDINALITY AS a(s, n), generate_series({}, {}) xid GROUP BY n ORDER BY n",
        snapshots.join("','"),
        ids.start,
        ids.end - 1,
    );
    let told = postgres.sql("postgres", &asked).await;
    assert_eq!(told.lines().count(), snapshots.len());
    for (text, told) in snapshots.iter().zip(told.lines()) {
        let snapshot: Snapshot = text.parse().unwrap();
        let seen: String = ids.clone().map(|xid| if snapshot.sees(Xid(xid)) { '1' } else { '0' }).collect();
        assert_eq!(seen, told, "{text}");
    }
}
