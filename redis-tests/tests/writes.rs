//! Writes of groups: what the database has, what clients see, and what it costs.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use forebay_redis_tests::connection::Connection;
use forebay_redis_tests::database::Database;
use forebay_redis_tests::over::Over;
use forebay_redis_tests::process::eventually;
use forebay_redis_tests::reply::Reply;
use forebay_redis_tests::server::{Forebay, ForebayOptions};

/// How long a condition may take to come about.
const PATIENCE: Duration = Duration::from_secs(30);

const SCHEMA: &str = "
CREATE TABLE products (id int PRIMARY KEY, name text NOT NULL CHECK (name <> 'bad'), price int NOT NULL DEFAULT 0);
INSERT INTO products SELECT n, 'product ' || n, n FROM generate_series(1, 100) n;
CREATE TABLE docs (id int PRIMARY KEY, doc jsonb NOT NULL);
INSERT INTO docs SELECT n, jsonb_build_object('n', n) FROM generate_series(1, 20) n;
CREATE TABLE counters (id int PRIMARY KEY, hits bigint NOT NULL, note text NOT NULL DEFAULT '');
INSERT INTO counters SELECT n, n FROM generate_series(1, 20) n;
";

const GROUPS: &str = r#"
[[group]]
name = "name"
key = "name:{id}"
load = "SELECT name FROM products WHERE id = $1"
as = "string"
write = "through"
save = "INSERT INTO products (id, name) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET name = excluded.name"
remove = "DELETE FROM products WHERE id = $1"
invalidated_by = ["products(id)"]

[[group]]
name = "product"
key = "product:{id}"
load = "SELECT name, price FROM products WHERE id = $1"
as = "hash"
write = "through"
save = """
UPDATE products SET name = coalesce($2::jsonb ->> 'name', name), price = coalesce(($2::jsonb ->> 'price')::int, price) WHERE id = $1
"""
invalidated_by = ["products(id)"]

[[group]]
name = "doc"
key = "doc:{id}"
load = "SELECT doc FROM docs WHERE id = $1"
as = "json"
write = "around"
save = "INSERT INTO docs (id, doc) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET doc = excluded.doc"
remove = "DELETE FROM docs WHERE id = $1"
invalidated_by = ["docs(id)"]

[[group]]
name = "counter"
key = "counter:{id}"
load = "SELECT hits FROM counters WHERE id = $1"
as = "string"
write = "through"
save = "INSERT INTO counters (id, hits) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET hits = excluded.hits"
remove = "DELETE FROM counters WHERE id = $1"
invalidated_by = ["counters(id)"]
"#;

#[test]
fn the_database_has_what_was_answered_and_reading_it_costs_nothing() {
    let database = Database::start(SCHEMA);
    let server = start(&database, GROUPS, &[]);
    let mut client = server.connect();
    assert_eq!(client.command("SET name:1 one"), Reply::ok());
    assert_eq!(database.sql("SELECT name FROM products WHERE id = 1"), "one");
    assert_eq!(client.command("SET name:500 new"), Reply::ok());
    assert_eq!(database.sql("SELECT name FROM products WHERE id = 500"), "new");
    // A read-modify-write has the present value loaded first.
    assert_eq!(client.command("INCR counter:7"), Reply::Integer(8));
    assert_eq!(client.command("INCRBY counter:7 10"), Reply::Integer(18));
    assert_eq!(database.sql("SELECT hits FROM counters WHERE id = 7"), "18");
    assert_eq!(client.command("APPEND name:2 !"), Reply::Integer(10));
    assert_eq!(client.command("GETSET name:2 two"), Reply::bulk("product 2!"));
    assert_eq!(client.command("SET name:2 zwei GET XX"), Reply::bulk("two"));
    assert_eq!(client.command("SETNX name:2 deux"), Reply::Integer(0));
    assert_eq!(client.command("SET name:501 x XX"), Reply::NilBulk);
    assert_eq!(client.command("SETRANGE name:2 0 Z"), Reply::Integer(4));
    assert_eq!(database.sql("SELECT name FROM products WHERE id = 2"), "Zwei");
    assert_eq!(database.sql("SELECT count(*) FROM products WHERE id = 501"), "0");
    // Several keys, one of them twice.
    assert_eq!(client.command("MSET name:3 a name:4 b plain c name:3 d"), Reply::ok());
    assert_eq!(database.sql("SELECT string_agg(name, ' ' ORDER BY id) FROM products WHERE id IN (3, 4)"), "d b");
    assert_eq!(client.command("GET plain"), Reply::bulk("c"));
    assert_eq!(client.command("DEL name:3 name:4 name:999 plain"), Reply::Integer(3));
    assert_eq!(database.sql("SELECT count(*) FROM products WHERE id IN (3, 4)"), "0");
    assert_eq!(client.command("GETDEL name:5"), Reply::bulk("product 5"));
    assert_eq!(database.sql("SELECT count(*) FROM products WHERE id = 5"), "0");
    await_feed(&database, &mut client, "told");

    database.forget();
    for (key, value) in [("name:1", "one"), ("name:500", "new"), ("counter:7", "18"), ("name:2", "Zwei")] {
        assert_eq!(client.command(&format!("GET {key}")), Reply::bulk(value));
    }
    for gone in ["name:3", "name:4", "name:5"] {
        assert_eq!(client.command(&format!("GET {gone}")), Reply::NilBulk);
    }
    assert_eq!(
        database.asked("FROM products") + database.asked("FROM counters"),
        0,
        "what was written was loaded again"
    );
}

#[test]
fn fields_that_nobody_wrote_stay_what_others_have_made_of_them() {
    let database = Database::start(SCHEMA);
    let server = start(&database, GROUPS, &[]);
    let mut client = server.connect();
    assert_eq!(client.command("HINCRBY product:1 price 5"), Reply::Integer(6));
    assert_eq!(client.command("HSET product:1 name first"), Reply::Integer(0));
    assert_eq!(database.sql("SELECT name, price FROM products WHERE id = 1"), "first|6");
    // Somebody else changes one column again and again, while we count with the other.
    const CHANGES: usize = 40;
    let (is_over, counted) = (AtomicBool::new(false), AtomicU64::new(2));
    thread::scope(|scope| {
        let _over = Over::at_end(&is_over);
        for _ in 0..4 {
            let mut client = server.connect();
            let (is_over, counted) = (&is_over, &counted);
            scope.spawn(move || {
                while !is_over.load(Relaxed) {
                    assert!(matches!(client.command("HINCRBY product:2 price 1"), Reply::Integer(_)));
                    counted.fetch_add(1, Relaxed);
                }
            });
        }
        for change in 1..=CHANGES {
            database.sql(&format!("UPDATE products SET name = 'name {change}' WHERE id = 2"));
        }
    });
    let counted = counted.into_inner();
    println!("{CHANGES} changes by others among {counted} increments");
    assert_eq!(database.sql("SELECT name, price FROM products WHERE id = 2"), format!("name {CHANGES}|{counted}"));
    client.await_reply("HGET product:2 name", &Reply::bulk(&format!("name {CHANGES}")));
    assert_eq!(client.command("HGET product:2 price"), Reply::bulk(&counted.to_string()));
}

#[test]
fn what_the_database_refuses_is_nowhere() {
    let database = Database::start(SCHEMA);
    let server = start(&database, GROUPS, &[]);
    let mut client = server.connect();
    assert_eq!(client.command("GET name:1"), Reply::bulk("product 1"));
    assert_error(&client.command("SET name:1 bad"), "ORIGINERR", "violates check constraint");
    assert_eq!(client.command("GET name:1"), Reply::bulk("product 1"));
    assert_error(&client.command("SET counter:1 text"), "ORIGINERR", "");
    assert_eq!(client.command("INCR counter:1"), Reply::Integer(2));
    assert_error(&client.command("MSET name:2 good name:3 bad"), "ORIGINERR", "violates check constraint");
    assert_eq!(client.command("GET name:3"), Reply::bulk("product 3"));
    // What a group cannot have is not tried, and what cannot be done key by key is not done.
    assert_error(&client.command("SET product:1 text"), "WRONGTYPE", "as = \"hash\"");
    assert_error(&client.command("HSET name:400 field value"), "WRONGTYPE", "as = \"string\"");
    assert_error(&client.command("DEL product:1"), "ERR", "has no `remove`");
    for line in ["RENAME name:1 name:2", "MSETNX name:600 a name:601 b", "COPY plain name:1 REPLACE", "MOVE name:1 1"] {
        client.command("SET plain x");
        assert_error(&client.command(line), "ERR", "is written to the origin");
    }
    assert_eq!(client.command("COPY name:1 copied"), Reply::Integer(1), "what is only read is read");
    assert_eq!(client.figure("forebay", "origin_writes_refused"), 3);
}

#[test]
fn deadlines_are_the_caches() {
    let database = Database::start(SCHEMA);
    let server = start(&database, GROUPS, &[]);
    let mut client = server.connect();
    assert_eq!(client.command("SET name:1 one EX 100"), Reply::ok());
    assert_eq!(client.command("TTL name:1"), Reply::Integer(100));
    assert_eq!(client.command("PERSIST name:1"), Reply::Integer(1));
    assert_eq!(client.command("EXPIRE name:1 -1"), Reply::Integer(1));
    assert_eq!(database.sql("SELECT name FROM products WHERE id = 1"), "one");
    assert_eq!(client.command("GET name:1"), Reply::bulk("one"), "it is loaded again");
    assert_eq!(client.command("FLUSHALL"), Reply::ok());
    assert_eq!(database.sql("SELECT count(*) FROM products"), "100");
    assert_eq!(client.command("SELECT 1"), Reply::ok());
    assert_eq!(client.command("SET name:1 other"), Reply::ok());
    assert_eq!(database.sql("SELECT name FROM products WHERE id = 1"), "one", "groups apply to database 0");
}

#[test]
fn around_writes_and_forgets() {
    let database = Database::start(SCHEMA);
    let server = start(&database, GROUPS, &[]);
    let mut client = server.connect();
    assert_eq!(client.command("GET doc:1"), Reply::bulk(r#"{"n": 1}"#));
    assert_eq!(Reply::parse(&client.call(&["SET", "doc:1", r#"{"n":2}"#]).expect("a reply")), Reply::ok());
    assert_eq!(database.sql("SELECT doc FROM docs WHERE id = 1"), r#"{"n": 2}"#);
    // The database's own way to write it, which only a load tells.
    assert_eq!(client.command("GET doc:1"), Reply::bulk(r#"{"n": 2}"#));
    assert_eq!(client.command("DEL doc:1 doc:2"), Reply::Integer(2));
    assert_eq!(client.command("GET doc:1"), Reply::NilBulk);
    assert_error(&client.command("SET doc:3 {"), "ORIGINERR", "json");
    assert_eq!(client.command("GET doc:3"), Reply::bulk(r#"{"n": 3}"#));
}

/// While the database is away nothing is written, and all is said.
#[test]
fn a_database_that_is_away_refuses_writes_and_takes_them_afterwards() {
    let mut database = Database::start(SCHEMA);
    let server = start(&database, GROUPS, &["--origin-load-timeout", "2s"]);
    let mut client = server.connect();
    assert_eq!(client.command("GET name:1"), Reply::bulk("product 1"));
    database.stop();
    let refused = client.command("SET name:1 lost");
    assert!(refused.is_error("ORIGINDOWN") || refused.is_error("ORIGINUNSURE"), "{refused}");
    database.start_again();
    let is_taken = || client.command("SET name:1 found") == Reply::ok();
    assert!(eventually(PATIENCE, is_taken), "writes are not taken again");
    assert_eq!(database.sql("SELECT name FROM products WHERE id = 1"), "found");
    assert_eq!(client.command("GET name:1"), Reply::bulk("found"));
}

/// Counting by many at once, with reads between, which never go back.
#[test]
fn writes_of_a_key_are_one_after_the_other() {
    let database = Database::start(SCHEMA);
    let server = start(&database, GROUPS, &[]);
    thread::scope(|scope| {
        for _ in 0..8 {
            let (mut writer, mut reader) = (server.connect(), server.connect());
            scope.spawn(move || {
                let mut last = 0;
                for _ in 0..50 {
                    let Reply::Integer(count) = writer.command("INCR counter:1") else { panic!("no count") };
                    assert!(count > last);
                    last = number(&reader.command("GET counter:1"));
                    assert!(last >= count, "{last} was read after {count} was answered");
                }
            });
        }
    });
    assert_eq!(database.sql("SELECT hits FROM counters WHERE id = 1"), "401");
}

fn start(database: &Database, groups: &str, args: &[&str]) -> Forebay {
    let config = format!("origin = \"{}\"\n{groups}", database.url());
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    let options = ForebayOptions { args, config: Some(config), ..ForebayOptions::default() };
    let server = Forebay::start(options).unwrap_or_else(|error| panic!("{error}"));
    server.await_feed("wal");
    // It begins by calling in what was loaded before.
    await_feed(database, &mut server.connect(), "begun");
    server
}

/// Waits until what was committed so far has been told.
fn await_feed(database: &Database, client: &mut Connection, word: &str) {
    database.sql(&format!("UPDATE docs SET doc = '\"{word}\"' WHERE id = 20"));
    assert!(
        eventually(PATIENCE, || client.command("GET doc:20") == Reply::bulk(&format!("\"{word}\""))),
        "the feed stands still"
    );
}

fn number(reply: &Reply) -> i64 {
    match reply {
        Reply::Bulk(text) => String::from_utf8_lossy(text).parse().expect("a number"),
        reply => panic!("{reply}"),
    }
}

fn assert_error(reply: &Reply, word: &str, part: &str) {
    assert!(reply.is_error(word) && reply.words().contains(part), "{reply}, and not {word} … {part}");
}
