//! The feed of the write-ahead log, told of by a real one.

use std::time::{Duration, Instant};

use forebay_origin::{
    AffectedKeys, Change, ChangeFeed, Feed, FeedConfig, FeedEvent, FeedMemory, FeedState, Gap, GroupConfig, Origin,
    OriginConfig, Snapshot, Xid, parse_groups,
};
use forebay_test_postgres::TestPostgres;

use crate::shop;

const PATIENCE: Duration = Duration::from_secs(60);

/// Ends whoever reads from a slot, and waits for that.
const END: &str = "pg_terminate_backend(active_pid, 5000)";

/// Groups of the shop, and of tables for what a shop has not.
pub(crate) const GROUPS: &str = r#"
[[group]]
name = "product"
key = "product:{id}"
load = "SELECT name FROM products WHERE id = $1"
as = "string"
invalidated_by = ["products(id)", "prices(product_id)"]

[[group]]
name = "line"
key = "line:{author}:{line}"
load = "SELECT 1 FROM notes WHERE author = $1 AND line = $2"
as = "string"
invalidated_by = ["notes(author, line)"]

[[group]]
name = "board"
key = "board:{n}"
load = "SELECT $1"
as = "string"
invalidated_by = ["scores"]
"#;

pub(crate) const MORE_TABLES: &str = "
    CREATE TABLE prices (id bigint PRIMARY KEY, product_id bigint, price numeric);
    ALTER TABLE prices REPLICA IDENTITY FULL;
    ALTER TABLE notes REPLICA IDENTITY FULL;
    CREATE TABLE scores (player text PRIMARY KEY, points int);
    CREATE TABLE unrelated (id int PRIMARY KEY);
";

/// A shop with a feed of its changes.
pub(crate) struct Shop {
    pub(crate) postgres: TestPostgres,
    pub(crate) origin: Origin,
}

pub(crate) fn groups(text: &str) -> Vec<GroupConfig> {
    parse_groups(text, "groups.toml").unwrap_or_else(|faults| panic!("{faults:#?}"))
}

impl Shop {
    pub(crate) async fn open() -> Shop {
        Shop::open_with(GROUPS).await
    }

    pub(crate) async fn open_with(text: &str) -> Shop {
        let postgres = TestPostgres::start_with(&[("max_prepared_transactions", "10")]).await;
        postgres.sql("postgres", shop::TABLES).await;
        postgres.sql("postgres", MORE_TABLES).await;
        let origin = shop::origin(shop::patient(&postgres), groups(text)).await;
        Shop { postgres, origin }
    }

    pub(crate) async fn sql(&self, text: &str) -> String {
        self.postgres.sql("postgres", text).await
    }

    /// Runs what can fail while somebody reads from the slot, until it does not.
    async fn until_done(&self, sql: &str) {
        let deadline = Instant::now() + PATIENCE;
        while let Err(words) = self.postgres.try_sql("postgres", sql).await {
            assert!(Instant::now() < deadline, "{words}");
        }
    }

    pub(crate) fn follow(&self, config: FeedConfig) -> ChangeFeed {
        self.origin.follow(Feed::Wal, config).expect("Postgres has a log")
    }

    /// A feed that has just begun, and what is to be remembered of it.
    pub(crate) async fn begun(&self) -> (ChangeFeed, FeedMemory) {
        let mut feed = self.follow(config(1, None));
        let memory = gap(&mut feed).await.memory.expect("nothing ran when it began");
        (feed, memory)
    }

    /// Waits until a slot exists and somebody reads from it.
    pub(crate) async fn wait_until_followed(&self, feed: &ChangeFeed) {
        wait_until("the feed is followed", feed, |status| status.state == FeedState::Following).await;
    }
}

pub(crate) fn config(term: u64, memory: Option<FeedMemory>) -> FeedConfig {
    FeedConfig { watch_every: Duration::from_millis(50), ..FeedConfig::new(term, memory) }
}

pub(crate) async fn next(feed: &mut ChangeFeed) -> FeedEvent {
    match tokio::time::timeout(PATIENCE, feed.next()).await {
        Ok(Some(event)) => event,
        Ok(None) => panic!("the feed has ended"),
        Err(_) => panic!("nothing comes; {:#?}", feed.status()),
    }
}

pub(crate) async fn gap(feed: &mut ChangeFeed) -> Gap {
    match next(feed).await {
        FeedEvent::Gap(gap) => gap,
        other => panic!("{other:?} comes where a gap is due"),
    }
}

pub(crate) async fn change(feed: &mut ChangeFeed) -> Change {
    match next(feed).await {
        FeedEvent::Change(change) => change,
        other => panic!("{other:?} comes where a change is due"),
    }
}

/// The keys of a change, or the group's name and a `*` for every key.
pub(crate) fn keys(change: &Change) -> Vec<String> {
    let of = |affected: &forebay_origin::Affected| match &affected.keys {
        AffectedKeys::All => vec![format!("{} *", affected.group)],
        AffectedKeys::These(keys) => keys.iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect(),
    };
    change.affected.iter().flat_map(of).collect()
}

pub(crate) async fn wait_until(what: &str, feed: &ChangeFeed, holds: impl Fn(&forebay_origin::FeedStatus) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds(&feed.status()) {
        assert!(Instant::now() < deadline, "in vain it was waited until {what}: {:#?}", feed.status());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn each_kind_of_change_is_told_of_with_its_transaction() {
    let shop = Shop::open().await;
    let (mut feed, _) = shop.begun().await;
    for (sql, expected) in [
        ("INSERT INTO products (id, name) VALUES (5001, 'new')", vec!["product:5001"]),
        ("UPDATE products SET name = 'x' WHERE id = 1", vec!["product:1"]),
        ("UPDATE products SET id = 6000 WHERE id = 2", vec!["product:6000", "product:2"]),
        ("DELETE FROM products WHERE id = 3", vec!["product:3"]),
        ("UPDATE products SET sold = true WHERE id IN (10, 11, 12)", vec!["product:10", "product:11", "product:12"]),
        ("INSERT INTO prices VALUES (1, 7, 1.5), (2, NULL, 1)", vec!["product:7"]),
        ("UPDATE prices SET product_id = 8 WHERE id = 1", vec!["product:8", "product:7"]),
        ("DELETE FROM prices WHERE id = 1", vec!["product:8"]),
        ("INSERT INTO notes VALUES ('cem', 4)", vec!["line:cem:4"]),
        ("DELETE FROM notes WHERE author = 'ann'", vec!["line:ann:1", "line:ann:2"]),
        ("INSERT INTO scores VALUES ('ann', 1)", vec!["board *"]),
        ("TRUNCATE prices, scores", vec!["board *", "product *"]),
        (
            "BEGIN; UPDATE products SET name = 'y' WHERE id = 20; SAVEPOINT s; UPDATE products SET name = 'y' WHERE id = 21; \
          ROLLBACK TO s; UPDATE products SET name = 'y' WHERE id = 22; COMMIT",
            vec!["product:20", "product:22"],
        ),
    ] {
        shop.sql(sql).await;
        let told = change(&mut feed).await;
        assert_eq!(keys(&told), expected, "{sql}");
        feed.confirm(told.position.expect("small transactions come in one part"));
        let xid = told.xid.expect("the log tells the transaction");
        let now: Snapshot = shop.sql("SELECT pg_current_snapshot()").await.parse().unwrap();
        assert!(now.sees(xid) && now.xmax().0 - xid.0 < 10, "{sql}: {xid} {now}");
    }
    assert_eq!(feed.status().counts.null_keys, 1);
    feed.close().await;
}

#[tokio::test]
async fn what_is_rolled_back_is_not_told_of_and_what_is_prepared_when_it_is_committed() {
    let shop = Shop::open().await;
    let (mut feed, _) = shop.begun().await;
    shop.sql("BEGIN; UPDATE products SET name = 'x' WHERE id = 1; ROLLBACK").await;
    let prepare = |name: &str, id: u32| {
        format!(
            "BEGIN; UPDATE products SET name = 'x' WHERE id = {id}; SELECT pg_current_xact_id(); PREPARE TRANSACTION '{name}'"
        )
    };
    let kept: u64 = shop.sql(&prepare("kept", 2)).await.parse().unwrap();
    shop.sql(&prepare("given_up", 3)).await;
    shop.sql("UPDATE products SET name = 'x' WHERE id = 4").await;
    assert_eq!(keys(&change(&mut feed).await), ["product:4"]);
    shop.sql("ROLLBACK PREPARED 'given_up'").await;
    shop.sql("COMMIT PREPARED 'kept'").await;
    let told = change(&mut feed).await;
    assert_eq!((keys(&told), told.xid), (vec!["product:2".to_owned()], Some(Xid(kept))));
    feed.close().await;
}

#[tokio::test]
async fn a_load_and_a_change_can_be_told_apart_by_the_snapshot() {
    let shop = Shop::open().await;
    let (mut feed, _) = shop.begun().await;
    let before = shop::load(&shop.origin, "product:1").await.unwrap();
    shop.sql("UPDATE products SET name = 'x' WHERE id = 1").await;
    let xid = change(&mut feed).await.xid.unwrap();
    let after = shop::load(&shop.origin, "product:1").await.unwrap();
    assert!(!before.snapshot.unwrap().sees(xid) && after.snapshot.unwrap().sees(xid));
    feed.close().await;
}

#[tokio::test]
async fn partitions_are_told_of_as_their_table() {
    let text = "[[group]]\nname = 'event'\nkey = 'event:{id}'\nload = 'SELECT 1 FROM events WHERE id = $1'\nas = 'string'\n\
                invalidated_by = ['events(id)']\n";
    let shop = Shop::open_with(text).await;
    shop.sql(
        "CREATE TABLE events (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); \
         CREATE TABLE events_low PARTITION OF events FOR VALUES FROM (0) TO (100); \
         CREATE TABLE events_high (v text, id int PRIMARY KEY)",
    )
    .await;
    // The columns stand in another order there.
    shop.sql("ALTER TABLE events ATTACH PARTITION events_high FOR VALUES FROM (100) TO (200)").await;
    let (mut feed, _) = shop.begun().await;
    for (sql, expected) in [
        ("INSERT INTO events VALUES (1, 'a'), (101, 'b')", vec!["event:1", "event:101"]),
        ("UPDATE events SET v = 'c' WHERE id = 101", vec!["event:101"]),
        ("DELETE FROM events_low WHERE id = 1", vec!["event:1"]),
        // From one partition to another it is a deletion and an insertion.
        ("UPDATE events SET id = 2 WHERE id = 101", vec!["event:101", "event:2"]),
        ("TRUNCATE events", vec!["event *"]),
    ] {
        shop.sql(sql).await;
        assert_eq!(keys(&change(&mut feed).await), expected, "{sql}");
    }
    feed.close().await;
}

#[tokio::test]
async fn the_next_keeper_goes_on_where_everything_was_confirmed() {
    let shop = Shop::open().await;
    let (mut feed, memory) = shop.begun().await;
    for id in 1..=3 {
        shop.sql(&format!("UPDATE products SET name = 'x' WHERE id = {id}")).await;
    }
    let first = change(&mut feed).await;
    change(&mut feed).await;
    feed.confirm(first.position.unwrap());
    wait_until("the confirmation is known", &feed, |status| Some(status.confirmed) == first.position).await;
    feed.close().await;

    shop.sql("UPDATE products SET name = 'x' WHERE id = 4").await;
    let mut feed = shop.follow(config(2, FeedMemory::from_text(&memory.to_text())));
    let mut told = Vec::new();
    for _ in 2..=4 {
        told.extend(keys(&change(&mut feed).await));
    }
    assert_eq!(told, ["product:2", "product:3", "product:4"], "what was told of and not confirmed comes again");
    feed.close().await;
}

#[tokio::test]
async fn a_keeper_of_a_later_term_takes_the_slot_and_one_of_an_earlier_term_does_not() {
    let shop = Shop::open().await;
    let (mut old, memory) = shop.begun().await;
    let mut new = shop.follow(config(2, Some(memory)));
    shop.wait_until_followed(&new).await;
    shop.sql("UPDATE products SET name = 'x' WHERE id = 1").await;
    assert_eq!(keys(&change(&mut new).await), ["product:1"]);
    wait_until("the former keeper knows", &old, |status| status.last_error.contains("a keeper of term 2")).await;
    shop.sql("UPDATE products SET name = 'x' WHERE id = 2").await;
    assert_eq!(keys(&change(&mut new).await), ["product:2"]);
    assert!(tokio::time::timeout(Duration::ZERO, old.next()).await.is_err(), "it is told of nothing");
    old.close().await;
    new.close().await;
}

#[tokio::test]
async fn a_connection_that_breaks_is_made_again_and_nothing_is_missed() {
    let shop = Shop::open().await;
    let (mut feed, _) = shop.begun().await;
    shop.wait_until_followed(&feed).await;
    for id in 1..=5 {
        let end = "SELECT count(pg_terminate_backend(active_pid)) FROM pg_replication_slots WHERE active";
        let ended = shop.sql(end).await;
        shop.sql(&format!("UPDATE products SET name = 'x' WHERE id = {id}")).await;
        // What was confirmed just before comes again if the server had not heard of it.
        let expected = format!("product:{id}");
        let told = loop {
            let told = change(&mut feed).await;
            match keys(&told) {
                keys if keys == [expected.clone()] => break told,
                keys => assert_eq!(keys, [format!("product:{}", id - 1)], "{ended} connections were ended"),
            }
        };
        feed.confirm(told.position.unwrap());
    }
    assert!(feed.status().counts.interruptions > 0);
    assert_eq!(feed.status().counts.gaps, 1, "only that of the beginning");
    feed.close().await;
}

#[tokio::test]
async fn a_database_that_crashes_is_followed_on_where_it_was() {
    let mut shop = Shop::open().await;
    let (mut feed, _) = shop.begun().await;
    shop.sql("UPDATE products SET name = 'x' WHERE id = 1").await;
    let told = change(&mut feed).await;
    feed.confirm(told.position.unwrap());
    wait_until("the confirmation is known", &feed, |status| Some(status.confirmed) >= told.position).await;
    shop.postgres.stop().await;
    wait_until("the feed notices", &feed, |status| status.state == FeedState::Retrying).await;
    shop.postgres.start_again().await;
    shop.sql("UPDATE products SET name = 'y' WHERE id = 2").await;
    // What was confirmed shortly before a crash may come again: a server writes down where a slot is from time to time.
    let mut told = keys(&change(&mut feed).await);
    if told == ["product:1"] {
        told = keys(&change(&mut feed).await);
    }
    assert_eq!(told, ["product:2"]);
    feed.close().await;
}

#[tokio::test]
async fn a_slot_that_is_dropped_is_a_gap() {
    let shop = Shop::open().await;
    let (mut feed, memory) = shop.begun().await;
    shop.wait_until_followed(&feed).await;
    let slot = shop.sql("SELECT slot_name FROM pg_replication_slots").await;
    shop.until_done(&format!("SELECT {END}, pg_drop_replication_slot(slot_name) FROM pg_replication_slots")).await;
    let told = gap(&mut feed).await;
    assert_eq!((told.reason.as_str(), told.groups.len()), ("the slot was dropped", 3));
    assert_ne!(told.memory.as_ref(), Some(&memory), "there is another slot");
    assert_eq!(
        shop.sql(&format!("SELECT count(*), count(*) FILTER (WHERE slot_name = '{slot}') FROM pg_replication_slots"))
            .await,
        "1|0"
    );
    feed.close().await;
    // Who was not told of that knows the former slot, and takes nothing for granted either.
    let mut feed = shop.follow(config(2, Some(memory)));
    assert_eq!(gap(&mut feed).await.reason, "the slot was dropped");
    feed.close().await;
}

#[tokio::test]
async fn a_slot_that_somebody_else_has_read_from_is_a_gap() {
    let shop = Shop::open().await;
    let (mut feed, memory) = shop.begun().await;
    shop.wait_until_followed(&feed).await;
    shop.sql("UPDATE products SET name = 'x' WHERE id = 2").await;
    let position = change(&mut feed).await.position.unwrap();
    feed.confirm(position);
    wait_until("the confirmation is known", &feed, |status| status.confirmed >= position).await;
    // What is committed while nobody reads is skipped.
    let steal = format!(
        "DO $$ BEGIN PERFORM {END} FROM pg_replication_slots; UPDATE products SET name = 'y' WHERE id = 3; COMMIT; \
         PERFORM pg_replication_slot_advance(slot_name, pg_current_wal_lsn()) FROM pg_replication_slots; END $$"
    );
    shop.until_done(&steal).await;
    // If the feed came back before the slot was moved, it told of the change, and it was tried again.
    let told = loop {
        match next(&mut feed).await {
            FeedEvent::Gap(gap) => break gap,
            FeedEvent::Change(change) => assert_eq!(keys(&change), ["product:3"]),
            FeedEvent::Remember(memory) => panic!("{memory:?} is not the log's"),
        }
    };
    assert_eq!(told.reason, "somebody else has read from the slot");
    assert_ne!(told.memory, Some(memory));
    assert_eq!(shop.sql("SELECT count(*) FROM pg_replication_slots").await, "1", "the former slot is gone");
    feed.close().await;
}

#[tokio::test]
async fn a_publication_that_is_dropped_is_a_gap() {
    let shop = Shop::open().await;
    let (mut feed, _) = shop.begun().await;
    shop.wait_until_followed(&feed).await;
    shop.sql("DROP PUBLICATION forebay").await;
    shop.sql("UPDATE products SET name = 'x' WHERE id = 1").await;
    let told = gap(&mut feed).await;
    assert!(told.reason.contains("publication") && told.groups.len() == 3, "{told:?}");
    shop.sql("UPDATE products SET name = 'x' WHERE id = 2").await;
    assert_eq!(keys(&change(&mut feed).await), ["product:2"]);
    feed.close().await;
}

#[tokio::test]
async fn a_server_that_would_have_to_keep_too_much_is_relieved() {
    let shop = Shop::open().await;
    let mut feed = shop.follow(FeedConfig { max_retained: 20 << 20, ..config(1, None) });
    gap(&mut feed).await;
    shop.wait_until_followed(&feed).await;
    shop.sql("UPDATE products SET name = 'x' WHERE id = 1").await;
    assert_eq!(keys(&change(&mut feed).await), ["product:1"]);
    // Nobody confirms that, so the server keeps all that follows.
    shop.sql("INSERT INTO unrelated SELECT generate_series(1, 400000)").await;
    let told = gap(&mut feed).await;
    assert!(told.reason.contains("more than 20971520 bytes"), "{}", told.reason);
    wait_until("the log is not kept any more", &feed, |status| status.retained_bytes < 20 << 20).await;
    feed.close().await;
}

#[tokio::test]
async fn what_changes_no_key_is_passed_without_anybody_confirming_it() {
    let shop = Shop::open().await;
    let (feed, _) = shop.begun().await;
    shop.wait_until_followed(&feed).await;
    shop.sql("INSERT INTO unrelated SELECT generate_series(1, 10000)").await;
    let end: forebay_origin::Position = shop.sql("SELECT pg_current_wal_lsn()").await.parse().unwrap();
    wait_until("the log need not be kept", &feed, |status| status.confirmed >= end).await;
    feed.close().await;
}

#[tokio::test]
async fn groups_that_are_added_are_told_of_behind_a_gap_and_the_last_one_takes_the_slot_with_it() {
    let shop = Shop::open().await;
    let (mut feed, _) = shop.begun().await;
    let text = GROUPS.replace("notes(author, line)\"]", "notes(author, line)\", \"unrelated\"]");
    shop.origin.replace(groups(&text), 2).await.unwrap();
    let told = gap(&mut feed).await;
    assert_eq!(told.groups, ["line".into()], "the others miss nothing");
    shop.sql("INSERT INTO unrelated VALUES (1)").await;
    assert_eq!(keys(&change(&mut feed).await), ["line *"]);
    shop.origin.replace(vec![shop::names()], 3).await.unwrap();
    wait_until("the slot is given up", &feed, |status| status.state == FeedState::Starting).await;
    assert_eq!(shop.sql("SELECT count(*) FROM pg_replication_slots").await, "0");
    shop.origin.replace(groups(GROUPS), 4).await.unwrap();
    assert_eq!(gap(&mut feed).await.groups.len(), 3);
    feed.close().await;
}

#[tokio::test]
async fn what_ran_when_the_feed_began_is_a_gap_once_more_when_it_has_ended() {
    let shop = Shop::open().await;
    let (mut feed, _) = shop.begun().await;
    let open = shop
        .sql("BEGIN; INSERT INTO unrelated VALUES (1); SELECT pg_current_xact_id(); PREPARE TRANSACTION 'open'")
        .await;
    let open = Xid(open.parse().unwrap());
    let text = GROUPS.replace("notes(author, line)\"]", "notes(author, line)\", \"unrelated\"]");
    shop.origin.replace(groups(&text), 2).await.unwrap();
    let first = gap(&mut feed).await;
    assert!(first.memory.is_none() && !first.after.unwrap().sees(open));
    shop.sql("COMMIT PREPARED 'open'").await;
    let mut events = Vec::new();
    let second = loop {
        match next(&mut feed).await {
            FeedEvent::Gap(gap) => break gap,
            other => events.push(other),
        }
    };
    assert!(second.memory.is_some() && second.after.unwrap().sees(open), "{events:?}");
    assert_eq!(second.groups, ["line".into()]);
    feed.close().await;
}

#[tokio::test]
async fn a_reader_that_is_slow_holds_up_the_feed_and_loses_nothing() {
    let shop = Shop::open().await;
    let mut feed = shop.follow(FeedConfig { max_events: 2, ..config(1, None) });
    gap(&mut feed).await;
    shop.wait_until_followed(&feed).await;
    for id in 1..=50 {
        shop.sql(&format!("UPDATE products SET name = 'x' WHERE id = {id}")).await;
    }
    let counted = feed.status().counts.transactions;
    assert!(counted <= 4, "{counted} were read, and nobody has taken any");
    for id in 1..=50 {
        let told = change(&mut feed).await;
        assert_eq!(keys(&told), [format!("product:{id}")]);
        feed.confirm(told.position.unwrap());
    }
    feed.close().await;
}

#[tokio::test]
async fn from_commit_to_event() {
    let shop = Shop::open().await;
    let (mut feed, _) = shop.begun().await;
    let mut delays = Vec::new();
    // One session that commits a thousand times, so that no process has to be started meanwhile.
    let url = shop.postgres.url("postgres");
    let writer = tokio::task::spawn_blocking(move || {
        let sql = "DO $$ BEGIN FOR i IN 1..1000 LOOP UPDATE products SET sold = NOT sold WHERE id = i; COMMIT; \
                   PERFORM pg_sleep(0.001); END LOOP; END $$";
        std::process::Command::new("psql").args(["--no-psqlrc", "--quiet", "--dbname", &url, "--command", sql]).status()
    });
    while delays.len() < 1000 {
        let told = change(&mut feed).await;
        delays.push(
            told.committed_at.and_then(|at| std::time::SystemTime::now().duration_since(at).ok()).unwrap_or_default(),
        );
        feed.confirm(told.position.unwrap());
    }
    assert!(writer.await.unwrap().unwrap().success());
    delays.sort();
    let at = |share: f64| delays[(share * (delays.len() - 1) as f64) as usize];
    println!("from commit to event: p50 {:?}, p90 {:?}, p99 {:?}, longest {:?}", at(0.5), at(0.9), at(0.99), at(1.0));
    feed.close().await;
}

#[tokio::test]
async fn what_cannot_be_followed_says_what_to_do() {
    let shop = Shop::open().await;
    shop.sql(
        "CREATE ROLE weak LOGIN; CREATE TABLE keyless (id int); CREATE VIEW seen AS SELECT 1 AS id; \
         CREATE UNLOGGED TABLE loose (id int PRIMARY KEY); CREATE TABLE decimal (id numeric PRIMARY KEY); \
         CREATE TABLE owned (id int PRIMARY KEY, other int)",
    )
    .await;
    let text = |table: &str| {
        format!(
            "[[group]]\nname = 'g'\nkey = 'g:{{id}}'\nload = 'SELECT $1'\nas = 'string'\ninvalidated_by = ['{table}']\n"
        )
    };
    for (table, problem, hint) in [
        ("nowhere(id)", "there is no table `nowhere`", "search path"),
        ("products(idd)", "`products` has no column `idd`", "did you mean `id`?"),
        ("keyless(id)", "`public.keyless` has no key", "ALTER TABLE public.keyless REPLICA IDENTITY FULL"),
        ("seen(id)", "`public.seen` is a view", "name the tables"),
        ("loose(id)", "`public.loose` is not logged", "SET LOGGED"),
        ("decimal(id)", "`id` (numeric) can be written in more than one way", "whole numbers"),
        ("owned(other)", "without the column `other`", "ALTER TABLE public.owned REPLICA IDENTITY FULL"),
    ] {
        let origin = shop::origin(shop::patient(&shop.postgres), groups(&text(table))).await;
        let feed = origin.follow(Feed::Wal, config(1, None)).unwrap();
        wait_until("the fault is told", &feed, |status| {
            status.faults.iter().any(|fault| fault.problem.contains(problem) && fault.hint.contains(hint))
        })
        .await;
        feed.close().await;
        origin.close().await;
    }
    // Where there was only advice, the feed has made it.
    shop.sql("DROP PUBLICATION IF EXISTS forebay").await;
    let as_weak = shop.postgres.url("postgres").replace("postgres@", "weak@");
    for (grants, problem, hint) in [
        (
            "SELECT 1",
            "the publication cannot be completed",
            "CREATE PUBLICATION forebay FOR TABLE public.owned WITH (publish = ",
        ),
        (
            "CREATE PUBLICATION forebay FOR TABLE products",
            "the publication cannot be completed",
            "ALTER PUBLICATION forebay ADD TABLE public.owned",
        ),
        (
            "ALTER PUBLICATION forebay ADD TABLE owned; ALTER PUBLICATION forebay SET (publish_via_partition_root)",
            "permission denied|replication role",
            "ALTER ROLE weak REPLICATION",
        ),
    ] {
        shop.sql(grants).await;
        let config = OriginConfig { url: as_weak.clone(), ..shop::patient(&shop.postgres) };
        let origin = shop::origin(config, groups(&text("owned(id)"))).await;
        let feed = origin.follow(Feed::Wal, self::config(1, None)).unwrap();
        wait_until("the fault is told", &feed, |status| {
            status.faults.iter().any(|fault| {
                problem.split('|').any(|problem| fault.problem.contains(problem)) && fault.hint.contains(hint)
            })
        })
        .await;
        feed.close().await;
        origin.close().await;
    }
}

#[tokio::test]
async fn a_server_whose_log_tells_no_rows_says_what_to_set() {
    let postgres = TestPostgres::start_with(&[("wal_level", "replica")]).await;
    postgres.sql("postgres", shop::TABLES).await;
    postgres.sql("postgres", MORE_TABLES).await;
    let origin = shop::origin(shop::patient(&postgres), groups(GROUPS)).await;
    let feed = origin.follow(Feed::Wal, config(1, None)).unwrap();
    wait_until("the fault is told", &feed, |status| {
        status.faults.iter().any(|fault| {
            fault.problem.contains("wal_level is replica") && fault.hint.contains("ALTER SYSTEM SET wal_level")
        })
    })
    .await;
    assert_eq!(feed.status().state, FeedState::Retrying);
    feed.close().await;
    origin.close().await;
}
