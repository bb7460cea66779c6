//! What becomes of a feed when somebody alters tables, the publication, or the server.

use forebay_origin::{ChangeFeed, Feed, FeedEvent, Gap, OriginConfig, Xid};

use crate::feed::{GROUPS, Shop, change, config, gap, groups, keys, next, wait_until};
use crate::shop;

/// The next gap, whatever is told of before it.
async fn gap_behind_changes(feed: &mut ChangeFeed) -> Gap {
    loop {
        if let FeedEvent::Gap(gap) = next(feed).await {
            return gap;
        }
    }
}

#[tokio::test]
async fn what_a_publication_does_not_have_any_more_is_published_again_and_a_gap() {
    let shop = Shop::open().await;
    let (mut feed, _) = shop.begun().await;
    shop.wait_until_followed(&feed).await;
    for (sql, expected) in [
        ("ALTER PUBLICATION forebay DROP TABLE notes", vec!["line".into()]),
        ("ALTER PUBLICATION forebay SET TABLE products WHERE (id < 10), prices, notes, scores", vec!["product".into()]),
        ("ALTER PUBLICATION forebay SET (publish = 'insert')", vec!["board".into(), "line".into(), "product".into()]),
    ] {
        shop.sql(sql).await;
        let told = gap(&mut feed).await;
        assert_eq!(told.groups, expected, "{sql}: {}", told.reason);
    }
    shop.sql("UPDATE products SET name = 'x' WHERE id = 11").await;
    assert_eq!(keys(&change(&mut feed).await), ["product:11"]);
    assert_eq!(feed.status().counts.interruptions, 0);
    feed.close().await;
}

#[tokio::test]
async fn another_table_of_the_same_name_is_a_gap_and_then_followed() {
    let shop = Shop::open().await;
    let (mut feed, memory) = shop.begun().await;
    shop.wait_until_followed(&feed).await;
    shop.sql(
        "BEGIN; CREATE TABLE fresh (LIKE products INCLUDING ALL); INSERT INTO fresh SELECT * FROM products WHERE id > 5; \
         ALTER TABLE products RENAME TO stale; ALTER TABLE fresh RENAME TO products; COMMIT",
    )
    .await;
    assert_eq!(gap(&mut feed).await.groups, ["product".into()]);
    shop.sql("UPDATE products SET name = 'x' WHERE id = 11").await;
    assert_eq!(keys(&change(&mut feed).await), ["product:11"]);
    feed.close().await;
    // Nor does it escape a keeper that was not there at the time.
    let mut feed = shop.follow(config(2, Some(memory)));
    assert_eq!(gap(&mut feed).await.groups, ["product".into()]);
    feed.close().await;
}

#[tokio::test]
async fn columns_that_change_are_read_as_they_are() {
    let shop = Shop::open().await;
    let (mut feed, _) = shop.begun().await;
    shop.wait_until_followed(&feed).await;
    shop.sql("ALTER TABLE products ADD COLUMN colour text DEFAULT 'red'").await;
    assert_eq!(gap(&mut feed).await.groups, ["product".into()], "rows changed, and none was told of");
    shop.sql(
        "ALTER TABLE products DROP COLUMN name; ALTER TABLE products RENAME id TO code; \
         ALTER TABLE products RENAME CONSTRAINT products_pkey TO p; ALTER TABLE products RENAME code TO id; \
         UPDATE products SET colour = 'blue' WHERE id = 3",
    )
    .await;
    assert_eq!(keys(&change(&mut feed).await), ["product:3"]);
    gap(&mut feed).await;
    // Another type: what is not known to be written in one way only counts as every key, until the table was looked at again.
    shop.sql("ALTER TABLE products ALTER COLUMN id TYPE text").await;
    gap_behind_changes(&mut feed).await;
    shop.sql("UPDATE products SET colour = 'green' WHERE id = '4'").await;
    assert_eq!(keys(&change(&mut feed).await), ["product:4"]);
    feed.close().await;
}

#[tokio::test]
async fn partitions_that_come_and_go_are_a_gap() {
    let text = "[[group]]\nname = 'event'\nkey = 'event:{id}'\nload = 'SELECT 1 FROM events WHERE id = $1'\nas = 'string'\n\
                invalidated_by = ['events(id)']\n";
    let shop = Shop::open_with(text).await;
    shop.sql(
        "CREATE TABLE events (id int PRIMARY KEY) PARTITION BY RANGE (id); \
         CREATE TABLE low PARTITION OF events FOR VALUES FROM (0) TO (100); \
         CREATE TABLE high (id int PRIMARY KEY); INSERT INTO high VALUES (100)",
    )
    .await;
    let (mut feed, _) = shop.begun().await;
    shop.wait_until_followed(&feed).await;
    for sql in [
        "ALTER TABLE events ATTACH PARTITION high FOR VALUES FROM (100) TO (200)",
        "TRUNCATE low",
        "ALTER TABLE events DETACH PARTITION high",
    ] {
        shop.sql(sql).await;
        assert_eq!(gap(&mut feed).await.groups, ["event".into()], "{sql}");
    }
    feed.close().await;
}

#[tokio::test]
async fn heirs_and_computed_columns_are_pointed_out() {
    let shop = Shop::open().await;
    shop.sql(
        "CREATE TABLE base (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED); \
         CREATE TABLE heir (PRIMARY KEY (id)) INHERITS (base)",
    )
    .await;
    let text = |tables: &str| {
        groups(&format!(
            "[[group]]\nname = 'g'\nkey = 'g:{{id}}'\nload = 'SELECT $1'\nas = 'string'\ninvalidated_by = [{tables}]\n"
        ))
    };
    for (tables, problem, hint) in [
        ("'base(id)'", "rows of `public.heir` are rows of `base`, too", "add \"public.heir(id)\""),
        ("'base(twice)', 'heir(twice)'", "the column `twice` is computed", "stored"),
    ] {
        let checked = forebay_origin::examine(shop::patient(&shop.postgres), text(tables)).await;
        let faults = [checked.faults, checked.advice].concat();
        assert!(
            faults.iter().any(|fault| fault.problem.contains(problem) && fault.hint.contains(hint)),
            "{tables}: {faults:#?}"
        );
    }
    let faults = forebay_origin::check(shop::patient(&shop.postgres), text("'base(id)', 'heir(id)'")).await;
    assert!(!faults.iter().any(|fault| fault.problem.contains("rows of")), "{faults:#?}");
}

#[tokio::test]
async fn a_gap_that_is_not_over_outlives_the_connection() {
    let shop = Shop::open().await;
    let (mut feed, _) = shop.begun().await;
    shop.wait_until_followed(&feed).await;
    let open = shop
        .sql("BEGIN; INSERT INTO unrelated VALUES (1); SELECT pg_current_xact_id(); PREPARE TRANSACTION 'open'")
        .await;
    let open = Xid(open.parse().unwrap());
    let text = GROUPS.replace("notes(author, line)\"]", "notes(author, line)\", \"unrelated\"]");
    shop.origin.replace(groups(&text), 2).await.unwrap();
    let first = gap(&mut feed).await;
    assert!(first.memory.is_none() && !first.after.unwrap().sees(open));
    let end = "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE application_name LIKE 'forebay feed%'";
    shop.sql(end).await;
    wait_until("it is cut off", &feed, |status| status.counts.interruptions > 0).await;
    shop.sql("COMMIT PREPARED 'open'").await;
    let second = gap_behind_changes(&mut feed).await;
    assert!(second.memory.is_some() && second.after.unwrap().sees(open));
    assert_eq!(second.groups, ["line".into()]);
    feed.close().await;
}

#[tokio::test]
async fn a_server_that_takes_over_may_have_another_history() {
    let shop = Shop::open().await;
    let (mut feed, memory) = shop.begun().await;
    shop.wait_until_followed(&feed).await;
    let standby = shop.postgres.standby().await;
    shop.postgres.catch_up(&standby).await;
    shop.sql("UPDATE products SET name = 'x' WHERE id = 1").await;
    let before = change(&mut feed).await.position.unwrap();
    feed.close().await;
    assert_eq!(standby.sql("postgres", "SELECT pg_promote()").await, "t");
    let url = standby.url("postgres");
    let origin = shop::origin(OriginConfig { url, ..shop::patient(&standby) }, groups(GROUPS)).await;
    let mut feed = origin.follow(Feed::Wal, config(2, Some(memory))).unwrap();
    let told = gap(&mut feed).await;
    assert_eq!((told.reason.as_str(), &told.after, told.groups.len()), ("another server has taken over", &None, 3));
    let memory = told.memory.expect("nothing ran");
    standby.sql("postgres", "UPDATE products SET name = 'y' WHERE id = 2").await;
    let told = change(&mut feed).await;
    assert_eq!(keys(&told), ["product:2"]);
    // What was confirmed of the former server's log says nothing.
    feed.confirm(before);
    feed.confirm(told.position.unwrap());
    wait_until("the confirmation is known", &feed, |status| Some(status.confirmed) >= told.position).await;
    feed.close().await;
    let mut feed = origin.follow(Feed::Wal, config(3, Some(memory))).unwrap();
    standby.sql("postgres", "UPDATE products SET name = 'y' WHERE id = 3").await;
    assert_eq!(keys(&change(&mut feed).await), ["product:3"], "that was no gap");
    feed.close().await;
    origin.close().await;
}
