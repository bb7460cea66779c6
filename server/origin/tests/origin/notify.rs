//! The feed of triggers and NOTIFY.

use forebay_origin::{ChangeFeed, Feed, FeedConfig, FeedState, Origin, OriginConfig, Snapshot, check, feed_sql};
use forebay_test_postgres::TestPostgres;

use crate::feed::{GROUPS, MORE_TABLES, change, config, gap, groups, keys, wait_until};
use crate::shop;

fn notifying() -> String {
    GROUPS.replace("as = \"string\"", "as = \"string\"\nfeed = \"notify\"")
}

/// A shop that needs no logical log.
async fn postgres() -> TestPostgres {
    let postgres = TestPostgres::start_with(&[("wal_level", "replica")]).await;
    postgres.sql("postgres", shop::TABLES).await;
    postgres.sql("postgres", MORE_TABLES).await;
    postgres
}

async fn begun(postgres: &TestPostgres) -> (Origin, ChangeFeed) {
    let origin = shop::origin(shop::patient(postgres), groups(&notifying())).await;
    let mut feed = origin.follow(Feed::Notify, config(1, None)).unwrap();
    assert_eq!(gap(&mut feed).await.groups.len(), 3, "what happened before is not known");
    (origin, feed)
}

#[tokio::test]
async fn each_kind_of_change_is_told_of_with_its_transaction() {
    let postgres = postgres().await;
    postgres.sql("postgres", "ALTER TABLE prices REPLICA IDENTITY DEFAULT").await;
    let (origin, mut feed) = begun(&postgres).await;
    for (sql, expected) in [
        ("INSERT INTO products (id, name) VALUES (5001, 'new')", vec!["product:5001"]),
        ("UPDATE products SET id = 6000 WHERE id = 2", vec!["product:6000", "product:2"]),
        ("DELETE FROM products WHERE id = 3", vec!["product:3"]),
        ("INSERT INTO prices VALUES (1, 7, 1.5)", vec!["product:7"]),
        ("UPDATE prices SET product_id = 8 WHERE id = 1", vec!["product:8", "product:7"]),
        ("INSERT INTO notes VALUES (repeat('x', 9000), 1)", vec!["line *"]),
        ("INSERT INTO scores VALUES ('ann', 1)", vec!["board *"]),
        ("TRUNCATE prices", vec!["product *"]),
    ] {
        postgres.sql("postgres", sql).await;
        let told = change(&mut feed).await;
        assert_eq!(keys(&told), expected, "{sql}");
        let xid = told.xid.expect("triggers tell the transaction");
        let now: Snapshot = postgres.sql("postgres", "SELECT pg_current_snapshot()").await.parse().unwrap();
        assert!(now.sees(xid) && now.xmax().0 - xid.0 < 10, "{sql}: {xid} {now}");
    }
    feed.close().await;
    origin.close().await;
}

#[tokio::test]
async fn a_listener_that_is_cut_off_does_not_know_what_it_missed() {
    let postgres = postgres().await;
    let (origin, mut feed) = begun(&postgres).await;
    wait_until("the feed is followed", &feed, |status| status.state == FeedState::Following).await;
    let end =
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name LIKE 'forebay feed%'";
    postgres.sql("postgres", end).await;
    assert_eq!(gap(&mut feed).await.groups.len(), 3);
    postgres.sql("postgres", "UPDATE products SET name = 'x' WHERE id = 1").await;
    assert_eq!(keys(&change(&mut feed).await), ["product:1"]);
    feed.close().await;
    origin.close().await;
}

#[tokio::test]
async fn who_may_not_make_triggers_is_told_the_sql_and_it_works() {
    let postgres = postgres().await;
    postgres.sql("postgres", "CREATE ROLE weak LOGIN").await;
    let url = postgres.url("postgres").replace("postgres@", "weak@");
    let weak = OriginConfig { url, ..shop::patient(&postgres) };
    let groups = groups(&notifying());
    let origin = shop::origin(weak.clone(), groups.clone()).await;
    let mut feed = origin.follow(Feed::Notify, FeedConfig { ..config(1, None) }).unwrap();
    wait_until("the fault is told", &feed, |status| {
        status.faults.iter().any(|fault| fault.hint.contains("CREATE OR REPLACE FUNCTION public.forebay_"))
    })
    .await;
    let sql = feed_sql(&weak, &groups).await.unwrap();
    postgres.sql("postgres", &sql).await;
    gap(&mut feed).await;
    postgres.sql("postgres", "UPDATE products SET name = 'x' WHERE id = 1").await;
    assert_eq!(keys(&change(&mut feed).await), ["product:1"]);
    feed.close().await;
    origin.close().await;
}

#[tokio::test]
async fn check_tells_what_keeps_a_feed_from_telling_of_everything() {
    let postgres = postgres().await;
    let faults = check(shop::patient(&postgres), groups(GROUPS)).await;
    let of_feed: Vec<_> = faults.iter().filter(|fault| fault.place == "feed").collect();
    assert_eq!(of_feed.len(), 1, "{faults:#?}");
    assert!(of_feed[0].problem.contains("wal_level is replica"), "{}", of_feed[0]);
    let text = notifying().replace("products(id)", "prducts(id)");
    let faults = check(shop::patient(&postgres), groups(&text)).await;
    assert!(faults.iter().any(|fault| fault.problem == "there is no table `prducts`" && fault.line > 0), "{faults:#?}");
}
