//! Freshness: what the database has replaced is taken out of the cache, and nothing else is.

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use forebay_redis_tests::checker::psql::Psql;
use forebay_redis_tests::cluster::node::wait_until;
use forebay_redis_tests::connection::Connection;
use forebay_redis_tests::database::Database;
use forebay_redis_tests::over::Over;
use forebay_redis_tests::process::eventually;
use forebay_redis_tests::reply::Reply;
use forebay_redis_tests::server::{Forebay, ForebayOptions};
use forebay_redis_tests::sizes;

/// How long a condition may take to come about.
const PATIENCE: Duration = Duration::from_secs(30);

const SCHEMA: &str = "
CREATE TABLE products (id int PRIMARY KEY, name text NOT NULL);
INSERT INTO products SELECT n, 'product ' || n FROM generate_series(1, 500) n;
CREATE TABLE prices (id int PRIMARY KEY, product_id int, price int);
ALTER TABLE prices REPLICA IDENTITY FULL;
INSERT INTO prices SELECT n, n, n * 10 FROM generate_series(1, 100) n;
CREATE TABLE scores (player text PRIMARY KEY, points int);
INSERT INTO scores VALUES ('ann', 3), ('bob', 2);
";

const GROUPS: &str = r#"
[[group]]
name = "product"
key = "product:{id}"
load = "SELECT name FROM products WHERE id = $1"
as = "string"
invalidated_by = ["products(id)"]

[[group]]
name = "offer"
key = "offer:{id}"
load = "SELECT name, price FROM products p JOIN prices ON product_id = p.id WHERE p.id = $1"
as = "hash"
invalidated_by = ["products(id)", "prices(product_id)"]

[[group]]
name = "board"
key = "board:{rank}"
load = "SELECT player FROM scores ORDER BY points DESC, player OFFSET $1::bigint LIMIT 1"
as = "string"
invalidated_by = ["scores"]

[[group]]
name = "slow"
key = "slow:{id}"
load = "SELECT name FROM products WHERE id = $1 AND (SELECT pg_sleep(0.5)) IS NOT NULL"
as = "string"
invalidated_by = ["products(id)"]
"#;

#[test]
fn changed_rows_are_seen_and_others_stay() {
    let database = Database::start(SCHEMA);
    let server = start(&database, GROUPS, &[]);
    let mut client = server.connect();
    for id in 1..=20 {
        assert_eq!(client.command(&format!("GET product:{id}")), Reply::bulk(&format!("product {id}")));
    }
    assert_eq!(client.command("GET product:1000"), Reply::NilBulk);
    assert_eq!(client.command("HGET offer:7 price"), Reply::bulk("70"));
    database.forget();

    database.sql("UPDATE products SET name = 'new ' || id WHERE id IN (7, 8)");
    client.await_reply("GET product:7", &Reply::bulk("new 7"));
    client.await_reply("GET product:8", &Reply::bulk("new 8"));
    client.await_reply("HGET offer:7 name", &Reply::bulk("new 7"));
    database.sql("INSERT INTO products VALUES (1000, 'late')");
    client.await_reply("GET product:1000", &Reply::bulk("late"));
    database.sql("DELETE FROM ONLY products WHERE id = 9");
    client.await_reply("GET product:9", &Reply::NilBulk);
    database.sql("UPDATE products SET id = 1001 WHERE id = 10");
    client.await_reply("GET product:10", &Reply::NilBulk);
    assert_eq!(client.command("GET product:1001"), Reply::bulk("product 10"));
    database.sql("UPDATE prices SET price = 5 WHERE product_id = 7");
    client.await_reply("HGET offer:7 price", &Reply::bulk("5"));
    // A client's value goes as well: the key is the database's.
    client.command("SET product:11 mine");
    database.sql("UPDATE products SET name = 'theirs' WHERE id = 11");
    client.await_reply("GET product:11", &Reply::bulk("theirs"));
    // What was rolled back was never there, whatever was rolled back to.
    database.sql(
        "BEGIN; UPDATE products SET name = 'never' WHERE id = 12; ROLLBACK; \
         BEGIN; SAVEPOINT a; UPDATE products SET name = 'never' WHERE id = 13; ROLLBACK TO a; \
         UPDATE products SET name = 'twice' WHERE id = 14; COMMIT",
    );
    client.await_reply("GET product:14", &Reply::bulk("twice"));

    for id in (1..=20).filter(|id| ![7, 8, 9, 10, 11, 14].contains(id)) {
        assert_eq!(client.command(&format!("GET product:{id}")), Reply::bulk(&format!("product {id}")));
    }
    // 7, 8, offer 7, 1000, 9, 10, 1001, offer 7 again, 11 and 14; absent rows are no rows.
    let asked = database.asked("FROM products");
    println!("{asked} loads for 10 changes");
    assert_eq!(asked, 10);
    database.sql("TRUNCATE products CASCADE");
    for id in 1..=20 {
        client.await_reply(&format!("GET product:{id}"), &Reply::NilBulk);
    }
}

#[test]
fn any_change_of_a_table_may_concern_every_key() {
    let database = Database::start(SCHEMA);
    let server = start(&database, GROUPS, &[]);
    let mut client = server.connect();
    assert_eq!(client.command("GET board:0"), Reply::bulk("ann"));
    assert_eq!(client.command("GET board:1"), Reply::bulk("bob"));
    assert_eq!(client.command("GET product:1"), Reply::bulk("product 1"));
    database.forget();
    database.sql("UPDATE scores SET points = 9 WHERE player = 'bob'");
    client.await_reply("GET board:0", &Reply::bulk("bob"));
    client.await_reply("GET board:1", &Reply::bulk("ann"));
    assert_eq!(client.command("GET product:1"), Reply::bulk("product 1"));
    assert_eq!(database.asked("FROM products"), 0, "another group's key was loaded again");
}

/// Three loads in a row are overtaken by changes. Readers take what the last one brought; whoever writes must not build on it, or its result would
/// stay when all changes have been told of.
#[test]
fn a_write_builds_on_nothing_that_is_known_to_be_old() {
    let database = Database::start(SCHEMA);
    let slow = r#"
[[group]]
name = "price"
key = "price:{id}"
load = "SELECT price FROM prices WHERE id = $1 AND (SELECT pg_sleep(0.3)) IS NOT NULL"
as = "string"
invalidated_by = ["prices(id)"]
"#;
    let server = start(&database, &format!("{GROUPS}{slow}"), &[]);
    let mut client = server.connect();
    let changes = "DO $$ BEGIN FOR i IN 1..12 LOOP \
                   UPDATE prices SET price = price + 100 WHERE id = 1; COMMIT; PERFORM pg_sleep(0.08); \
                   END LOOP; END $$";
    let built = thread::scope(|scope| {
        let changing = scope.spawn(|| database.sql(changes));
        let built = client.command("INCR price:1");
        changing.join().expect("the rows are changed");
        built
    });
    println!("INCR: {built}");
    assert!(client.figure("forebay", "late_fills") > 0, "no change came during a load");
    let is_right = |value: &Reply| *value == Reply::bulk("1210") || *value == Reply::bulk("1211");
    assert!(eventually(PATIENCE, || is_right(&client.command("GET price:1"))), "{}", client.command("GET price:1"));
}

#[test]
fn triggers_tell_as_well() {
    let database = Database::start(SCHEMA);
    let groups = GROUPS
        .replace("as = \"string\"", "as = \"string\"\nfeed = \"notify\"")
        .replace("as = \"hash\"", "as = \"hash\"\nfeed = \"notify\"");
    let server = start(&database, &groups, &[]);
    let mut client = server.connect();
    assert_eq!(client.command("GET product:1"), Reply::bulk("product 1"));
    assert_eq!(client.command("GET board:0"), Reply::bulk("ann"));
    database.sql("UPDATE products SET name = 'new' WHERE id = 1; UPDATE scores SET points = 9 WHERE player = 'bob'");
    client.await_reply("GET product:1", &Reply::bulk("new"));
    client.await_reply("GET board:0", &Reply::bulk("bob"));
    // Whoever listens is cut off: what is told meanwhile is told to nobody.
    database.sql(
        "UPDATE products SET name = 'unheard' WHERE id = 1; \
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ILIKE '%listen%' AND pid <> pg_backend_pid(); \
         UPDATE products SET name = 'after' WHERE id = 1",
    );
    client.await_reply("GET product:1", &Reply::bulk("after"));
}

/// The load has read the row before it was changed, and comes back after the change was told of.
#[test]
fn a_load_under_way_does_not_bury_a_change() {
    let database = Database::start(SCHEMA);
    let server = start(&database, GROUPS, &[]);
    let mut waiting = server.connect();
    let waiter = thread::spawn(move || waiting.command("GET slow:7"));
    database.await_asleep("pg_sleep");
    database.sql("UPDATE products SET name = 'new 7' WHERE id = 7");
    assert_eq!(waiter.join().expect("no panic"), Reply::bulk("new 7"), "the change was known before the load was back");
    let mut client = server.connect();
    assert_eq!(client.command("GET slow:7"), Reply::bulk("new 7"));
    assert!(client.figure("forebay", "late_fills") > 0, "the load was not late");
}

/// The same where both keys were read together, by the group's own query for many.
#[test]
fn a_load_of_many_keys_does_not_bury_a_change() {
    let groups = r#"
[[group]]
name = "slow"
key = "slow:{id}"
load = "SELECT name FROM products WHERE id = $1"
load_many = "SELECT id, name FROM products WHERE id = ANY($1) AND (SELECT pg_sleep(0.5)) IS NOT NULL"
as = "string"
invalidated_by = ["products(id)"]
"#;
    let database = Database::start(SCHEMA);
    let server = start(&database, groups, &[]);
    let mut waiting = server.connect();
    let waiter = thread::spawn(move || waiting.command("MGET slow:7 slow:8 slow:9999"));
    database.await_asleep("pg_sleep");
    database.sql("UPDATE products SET name = 'new 7' WHERE id = 7; INSERT INTO products VALUES (9999, 'new')");
    let expected = ["new 7", "product 8", "new"].map(Reply::bulk);
    assert_eq!(waiter.join().expect("no panic"), Reply::Array(expected.to_vec()));
    assert!(server.connect().figure("forebay", "late_fills") > 0, "the load was not late");
}

/// What the meter says of a node that does as it should, and of one that does not take out what was changed.
#[test]
fn the_meter_tells_fresh_from_stale() {
    let database = Database::start(SCHEMA);
    let server = start(&database, GROUPS, &["--freshness-samples", "100"]);
    let mut client = server.connect();
    let mut rounds = 0;
    let mut change_and_read = |client: &mut Connection| {
        rounds += 1;
        database.sql(&format!("UPDATE products SET name = 'round {rounds} of ' || id WHERE id <= 20"));
        for id in 1..=20 {
            client.command(&format!("GET product:{id}"));
        }
    };
    let aged = |ages: &[&str], verdict: &str, client: &mut Connection| {
        let counts = client.info("forebay", "freshness_owner").expect("a figure");
        ages.iter().all(|age| !counts.split(',').any(|count| count == format!("{verdict}_{age}=0")))
    };
    let is_fresh = || {
        change_and_read(&mut client);
        aged(&["100ms", "1s"], "fresh", &mut client)
    };
    assert!(eventually(PATIENCE, is_fresh), "nothing was looked at: {}", client.command("INFO forebay"));
    let ratios = ["fresh_ratio_100ms", "fresh_ratio_1s"].map(|name| client.info("forebay", name).expect("a figure"));
    println!("{ratios:?} of {} looks", client.figure("forebay", "freshness_samples_fresh"));
    // On a machine with too much to do changes may be late, and that is told, too.
    assert!(
        ratios.iter().all(|ratio| ratio.parse::<f64>().is_ok_and(|share| share > 0.5)),
        "{}",
        client.command("INFO forebay")
    );

    let before = client.figure("forebay", "freshness_samples_stale");
    client.command("DEBUG GUARD drop 0");
    let is_stale = || {
        change_and_read(&mut client);
        client.figure("forebay", "freshness_samples_stale") > before + 20 && aged(&["1s"], "stale", &mut client)
    };
    assert!(eventually(PATIENCE, is_stale), "nothing stale was found: {}", client.command("INFO forebay"));
    let ratios = ["fresh_ratio_100ms", "fresh_ratio_1s"].map(|name| client.info("forebay", name).expect("a figure"));
    println!("{ratios:?} while nothing is taken out");
    assert!(ratios[1].starts_with("0."), "{ratios:?}");
}

/// Nor is it the change itself that the meter goes by: here it was taken in, and then an older value was stored.
#[test]
fn the_meter_finds_what_a_late_load_has_brought() {
    let database = Database::start(SCHEMA);
    let server = start(&database, GROUPS, &["--freshness-samples", "100"]);
    let mut client = server.connect();
    client.command("DEBUG GUARD changes 0");
    let mut waiting = server.connect();
    let waiter = thread::spawn(move || waiting.command("GET slow:7"));
    database.await_asleep("pg_sleep");
    database.sql("UPDATE products SET name = 'new 7' WHERE id = 7");
    assert_eq!(waiter.join().expect("no panic"), Reply::bulk("product 7"));
    let is_found = || client.figure("forebay", "freshness_samples_stale") > 0;
    assert!(eventually(PATIENCE, is_found), "it was not found: {}", server.connect().command("INFO forebay"));
}

/// A synchronous replica is stalled: commits are in the log, from where the feed tells of them, and nobody sees them yet. What is loaded then is
/// old, and is in nobody's memory if the whole group was called in.
#[test]
fn what_is_told_before_it_can_be_seen_is_told_again() {
    let database = Database::start(SCHEMA);
    let server = start(&database, GROUPS, &[]);
    let mut client = server.connect();
    assert_eq!(client.command("GET board:0"), Reply::bulk("ann"));
    let dropped = client.figure("forebay", "groups_dropped_entries");
    stall_commits(&database);
    let mut writer = Psql::open(&database.url());
    let hung = thread::spawn(move || writer.run("UPDATE scores SET points = 9 WHERE player = 'bob'"));
    let is_told = || client.figure("forebay", "groups_dropped_entries") > dropped;
    assert!(eventually(PATIENCE, is_told), "nothing is told of");
    assert_eq!(client.command("GET board:0"), Reply::bulk("ann"), "nobody sees the commit yet");
    database.sql("ALTER SYSTEM RESET synchronous_standby_names");
    database.sql("SELECT pg_reload_conf()");
    assert!(hung.join().expect("no panic").is_some(), "the connection was lost");
    client.await_reply("GET board:0", &Reply::bulk("bob"));
    client.await_reply("GET board:1", &Reply::bulk("ann"));
    client.await_figure("feed_lag_ms", 0);
}

/// From now on commits wait for a replica that there is none of.
fn stall_commits(database: &Database) {
    database.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    database.sql("SELECT pg_reload_conf()");
    // Who is to wait is told by another process, a moment later.
    let (mut probe, ends) = (Psql::open(&database.url()), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut goes_on = true;
            while goes_on && !ends.load(Relaxed) {
                goes_on = probe.run("UPDATE products SET name = name WHERE id = 499").is_some();
            }
        });
        let waiting = "FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        let is_stalled = eventually(PATIENCE, || database.sql(&format!("SELECT count(*) {waiting}")) == "1");
        ends.store(true, Relaxed);
        // It has waited for nothing, and is to end.
        database.sql(&format!("SELECT pg_terminate_backend(pid) {waiting}"));
        assert!(is_stalled, "commits do not wait");
    });
}

/// The load came too late to be stored, since a client had written the key by then: what the load has seen the client's value has not.
#[test]
fn what_a_load_has_seen_that_was_not_stored_saves_nothing() {
    let held = r#"
[[group]]
name = "held"
key = "held:{id}"
load = "SELECT name FROM products WHERE id = $1 AND (SELECT pg_advisory_lock_shared(1)) IS NOT NULL"
as = "string"
"#;
    let database = Database::start(SCHEMA);
    let server =
        start(&database, &format!("{GROUPS}{held}"), &["--origin-pool-size", "1", "--origin-load-timeout", "60s"]);
    let mut client = server.connect();
    let mut holder = Psql::open(&database.url());
    holder.run("SELECT pg_advisory_lock(1)").expect("the database answers");
    thread::scope(|scope| {
        for (key, waiting) in [("held:1", 1), ("product:7", 2)] {
            let mut reader = server.connect();
            scope.spawn(move || reader.command(&format!("GET {key}")));
            client.await_figure("waiting", waiting);
        }
        // The only connection is taken, so that the load of the product begins behind all that follows.
        let sender: u32 = database.sql("SELECT active_pid FROM pg_replication_slots").parse().expect("a process");
        signal(sender, "STOP");
        assert_eq!(client.command("SET product:7 mine"), Reply::ok());
        database.sql("UPDATE products SET name = 'new 7' WHERE id = 7");
        holder.run("SELECT pg_advisory_unlock(1)").expect("the database answers");
        client.await_figure("waiting", 0);
        signal(sender, "CONT");
    });
    client.await_reply("GET product:7", &Reply::bulk("new 7"));
}

fn signal(process: u32, name: &str) {
    let sent = Command::new("kill").arg(format!("-{name}")).arg(process.to_string()).status();
    assert!(sent.is_ok_and(|status| status.success()), "{process} does not get {name}");
}

/// A change of the whole group takes out what a client has made of something older, as a change of its key does; and nothing of other groups.
#[test]
fn what_a_client_has_touched_goes_with_its_group() {
    let team = r#"
[[group]]
name = "team"
key = "team:{player}"
load = "SELECT player, points FROM scores WHERE player = $1"
as = "hash"
invalidated_by = ["scores"]
"#;
    let database = Database::start(SCHEMA);
    let server = start(&database, &format!("{GROUPS}{team}"), &[]);
    let mut client = server.connect();
    client.command("SET other mine");
    client.command("SET product:1 mine");
    assert_eq!(client.command("HGET team:ann points"), Reply::bulk("3"));
    assert_eq!(client.command("HSET team:ann note mine"), Reply::Integer(1));
    assert_eq!(client.command("HGET team:ann points"), Reply::bulk("3"));
    database.sql("UPDATE scores SET points = 10 WHERE player = 'ann'");
    client.await_reply("HGET team:ann points", &Reply::bulk("10"));
    assert_eq!(client.command("HGET team:ann note"), Reply::NilBulk);
    client.await_figure("feed_lag_ms", 0);
    for key in ["other", "product:1"] {
        assert_eq!(client.command(&format!("GET {key}")), Reply::bulk("mine"), "{key}");
    }
    // What is touched later stays until the next change.
    assert_eq!(client.command("HSET team:bob note mine"), Reply::Integer(1));
    database.sql("UPDATE products SET name = 'new' WHERE id = 2");
    client.await_reply("GET product:2", &Reply::bulk("new"));
    assert_eq!(client.command("HGET team:bob note"), Reply::bulk("mine"));
}

#[test]
fn a_pause_of_clients_does_not_hold_changes_back() {
    let database = Database::start(SCHEMA);
    let server = start(&database, GROUPS, &[]);
    let mut client = server.connect();
    assert_eq!(client.command("GET product:7"), Reply::bulk("product 7"));
    assert_eq!(client.command("CLIENT PAUSE 600000 WRITE"), Reply::ok());
    database.sql("UPDATE products SET name = 'new 7' WHERE id = 7");
    client.await_reply("GET product:7", &Reply::bulk("new 7"));
    assert_eq!(client.command("CLIENT UNPAUSE"), Reply::ok());
}

/// The feed has told of other keys until then.
#[test]
fn another_pattern_of_a_group_is_a_gap() {
    let database = Database::start(SCHEMA);
    let mut server = start(&database, GROUPS, &[]);
    let mut client = server.connect();
    let gaps = client.figure("forebay", "feed_wal_gaps");
    server.apply_groups(&GROUPS.replace("product:{id}", "item:{id}"));
    assert!(eventually(PATIENCE, || client.figure("forebay", "feed_wal_gaps") > gaps), "it is no gap");
    assert_eq!(client.command("GET item:7"), Reply::bulk("product 7"));
    database.sql("UPDATE products SET name = 'new 7' WHERE id = 7");
    client.await_reply("GET item:7", &Reply::bulk("new 7"));
}

#[test]
fn a_late_replica_is_found_out() {
    let database = Database::start(SCHEMA);
    let standby = database.standby();
    let server = start(&database, GROUPS, &["--origin-replica", &standby.url()]);
    let mut client = server.connect();
    assert_eq!(client.command("GET product:7"), Reply::bulk("product 7"));
    standby.sql("SELECT pg_wal_replay_pause()");
    database.sql("UPDATE products SET name = 'new ' || id");
    for id in 1..=50 {
        // The first one may be asked before the change is known.
        client.await_reply(&format!("GET product:{id}"), &Reply::bulk(&format!("new {id}")));
    }
    assert_eq!(standby.sql("SELECT name FROM products WHERE id = 7"), "product 7", "the replica is to be behind");
    assert!(client.figure("forebay", "late_fills") > 0, "the replica was not asked");
    standby.sql("SELECT pg_wal_replay_resume()");
    database.catch_up(&standby);
    for id in 1..=50 {
        assert_eq!(client.command(&format!("GET product:{id}")), Reply::bulk(&format!("new {id}")));
    }
}

/// The database forgets what it kept for us: nobody knows what was changed, so all that was loaded is loaded anew.
#[test]
fn a_lost_slot_makes_everything_suspect() {
    let database = Database::start(SCHEMA);
    let server = start(&database, GROUPS, &[]);
    let mut client = server.connect();
    for id in 1..=20 {
        assert_eq!(client.command(&format!("GET product:{id}")), Reply::bulk(&format!("product {id}")));
    }
    let gaps = client.figure("forebay", "feed_wal_gaps");
    let drop_slot = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active_pid IS NOT NULL; \
                     SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots";
    assert!(eventually(PATIENCE, || database.try_sql(drop_slot).is_ok()), "the slot is in use all the time");
    database.sql("UPDATE products SET name = 'new ' || id");
    for id in 1..=20 {
        client.await_reply(&format!("GET product:{id}"), &Reply::bulk(&format!("new {id}")));
    }
    assert!(client.figure("forebay", "feed_wal_gaps") > gaps);
}

/// The feed goes on where it was, and what was changed meanwhile is told of.
#[test]
fn a_restart_of_the_database_loses_nothing() {
    let mut database = Database::start(SCHEMA);
    let server = start(&database, GROUPS, &[]);
    let mut client = server.connect();
    assert_eq!(client.command("GET product:1"), Reply::bulk("product 1"));
    assert_eq!(client.command("GET product:2"), Reply::bulk("product 2"));
    database.stop();
    assert_eq!(client.command("GET product:1"), Reply::bulk("product 1"), "what is known is served");
    database.start_again();
    database.sql("UPDATE products SET name = 'new' WHERE id = 1");
    client.await_reply("GET product:1", &Reply::bulk("new"));
    assert_eq!(client.command("GET product:2"), Reply::bulk("product 2"));
}

#[test]
fn what_nodes_tell_each_other_no_client_can_say() {
    let database = Database::start(SCHEMA);
    let server = start(&database, GROUPS, &[]);
    let mut client = server.connect();
    for line in ["FOREBAY.CHANGED - - product:1", "FOREBAY.REACHED 1", "FOREBAY.PENDING product:1 x"] {
        let reply = client.command(line).to_string();
        assert!(reply.contains("unknown command"), "{line} -> {reply}");
    }
    let listed = client.command("COMMAND LIST FILTERBY PATTERN forebay.*").to_string();
    assert!(listed.contains("forebay.explain") && !listed.contains("forebay.changed"), "{listed}");
}

/// Prints how long changes take from their commit to the owner of their key: one at a time, and while clients read and others write.
#[test]
fn how_long_changes_take() {
    let database = Database::start(SCHEMA);
    let server = start(&database, GROUPS, &[]);
    let mut client = server.connect();
    for id in 1..=100 {
        client.command(&format!("GET product:{id}"));
    }
    let mut writer = Psql::open(&database.url());
    let changes = 300;
    for round in 0..changes {
        let id = round % 100 + 1;
        writer
            .run(&format!("UPDATE products SET name = 'round {round}' WHERE id = {id}"))
            .expect("the database answers");
        client.await_reply(&format!("GET product:{id}"), &Reply::bulk(&format!("round {round}")));
    }
    println!("one at a time: {}", delays(&mut client));
    let loaded = start(&database, GROUPS, &["--feed-name", "loaded"]);
    let mut client = loaded.connect();
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        let _over = Over::at_end(&ends);
        for _ in 0..4 {
            scope.spawn(|| {
                let mut reader = loaded.connect();
                while !ends.load(Relaxed) {
                    for id in 1..=100 {
                        reader.command(&format!("GET product:{id}"));
                    }
                }
            });
        }
        let began = Instant::now();
        for round in 0..5 * changes {
            let id = round % 100 + 1;
            writer
                .run(&format!("UPDATE products SET name = 'again {round}' WHERE id = {id}"))
                .expect("the database answers");
            // 250 commits a second.
            wait_until(began + Duration::from_millis(4) * (round as u32));
        }
    });
    client.await_reply("GET product:100", &Reply::bulk(&format!("again {}", 5 * changes - 1)));
    println!("under load: {}", delays(&mut client));
    assert!(client.figure("forebay", "changed_keys") >= 5 * changes);
}

/// The hot keys do not need the database while it is away, and it is not overrun when it returns.
#[test]
fn an_outage_is_not_noticed_by_readers_of_what_is_known() {
    let mut database = Database::start(SCHEMA);
    let server = start(&database, GROUPS, &["--origin-pool-size", "4"]);
    let mut client = server.connect();
    for id in 1..=100 {
        client.command(&format!("GET product:{id}"));
    }
    let ends = AtomicBool::new(false);
    let (asked, answered) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        let over = Over::at_end(&ends);
        for _ in 0..4 {
            scope.spawn(|| {
                let mut reader = server.connect();
                while !ends.load(Relaxed) {
                    for id in 1..=100 {
                        let reply = reader.command(&format!("GET product:{id}"));
                        asked.fetch_add(1, Relaxed);
                        answered.fetch_add(u64::from(matches!(reply, Reply::Bulk(_))), Relaxed);
                    }
                }
            });
        }
        database.stop();
        let before = asked.load(Relaxed);
        let lasts = Duration::from_secs(sizes::outage());
        assert!(!eventually(lasts, || ends.load(Relaxed)), "nobody ends it");
        println!("{} reads in {lasts:?} without a database", asked.load(Relaxed) - before);
        database.start_again();
        let watch = database.watch_connections();
        database.sql("UPDATE products SET name = 'after ' || id");
        for id in 1..=100 {
            client.await_reply(&format!("GET product:{id}"), &Reply::bulk(&format!("after {id}")));
        }
        drop(over);
        let most = watch.end().into_iter().max().unwrap_or_default();
        println!("at most {most} connections when it was back");
        // Four for loads and one for the feed, besides what looks after the feed.
        assert!(most <= 8, "{most} connections");
    });
    let (asked, answered) = (asked.into_inner(), answered.into_inner());
    println!("{answered} of {asked} reads were answered");
    assert!(answered as f64 >= asked as f64 * 0.999, "{} were not", asked - answered);
}

fn delays(client: &mut Connection) -> String {
    let figures = ["p50", "p99", "max"]
        .map(|which| client.figure("forebay", &format!("change_delay_{which}_us")) as f64 / 1_000.0);
    let [half, most, all] = figures;
    format!(
        "{} changes, commit to owner: p50 {half} ms, p99 {most} ms, at most {all} ms",
        client.figure("forebay", "changed_keys")
    )
}

fn start(database: &Database, groups: &str, args: &[&str]) -> Forebay {
    let config = format!("origin = \"{}\"\n{groups}", database.url());
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    let options = ForebayOptions { args, config: Some(config), ..ForebayOptions::default() };
    let server = Forebay::start(options).unwrap_or_else(|error| panic!("{error}"));
    server.await_feed(if groups.contains("notify") { "notify" } else { "wal" });
    let mut client = server.connect();
    // It begins by calling in what was loaded before; what is told of has come behind that.
    let mut touches = 0;
    let is_told = || {
        touches += 1;
        database.sql(&format!("UPDATE products SET name = 'touched {touches}' WHERE id = 500"));
        client.figure("forebay", "changed_keys") > 0 && client.figure("forebay", "feed_lag_ms") == 0
    };
    assert!(eventually(PATIENCE, is_told), "nothing is told of");
    server
}
