//! Writes that the database gets later: what is read meanwhile, what it costs, what is refused.

use std::time::Duration;

use forebay_redis_tests::checker::psql::Psql;
use forebay_redis_tests::connection::Connection;
use forebay_redis_tests::database::Database;
use forebay_redis_tests::process::eventually;
use forebay_redis_tests::reply::Reply;
use forebay_redis_tests::server::{Forebay, ForebayOptions};

/// How long a condition may take to come about.
const PATIENCE: Duration = Duration::from_secs(30);

/// What Forebay's statement for writes has in it.
const STATEMENT: &str = "pg_temp.forebay_write";

const SCHEMA: &str = "
CREATE TABLE counters (id int PRIMARY KEY, hits bigint NOT NULL CHECK (hits <> 13), note text NOT NULL DEFAULT '');
INSERT INTO counters SELECT n, n FROM generate_series(1, 10) n;
CREATE TABLE told (id int PRIMARY KEY, name text);
INSERT INTO told VALUES (1, '');
";

const GROUPS: &str = r#"
[[group]]
name = "counter"
key = "counter:{id}"
load = "SELECT hits FROM counters WHERE id = $1"
as = "string"
write = "behind"
save = "INSERT INTO counters (id, hits) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET hits = excluded.hits"
remove = "DELETE FROM counters WHERE id = $1"
invalidated_by = ["counters(id)"]

[[group]]
name = "row"
key = "row:{id}"
load = "SELECT hits, note FROM counters WHERE id = $1"
as = "hash"
write = "behind"
save = """
INSERT INTO counters (id, hits, note) VALUES ($1, coalesce(($2::jsonb ->> 'hits')::bigint, 0), coalesce($2::jsonb ->> 'note', ''))
ON CONFLICT (id) DO UPDATE SET hits = coalesce(($2::jsonb ->> 'hits')::bigint, counters.hits), note = coalesce($2::jsonb ->> 'note', counters.note)
"""
remove = "DELETE FROM counters WHERE id = $1"
invalidated_by = ["counters(id)"]

[[group]]
name = "told"
key = "told:{id}"
load = "SELECT name FROM told WHERE id = $1"
as = "string"
invalidated_by = ["told(id)"]
"#;

#[test]
fn many_writes_of_a_key_are_few_statements() {
    let database = Database::start(SCHEMA);
    let server = start(&database, &[]);
    let mut client = server.connect();
    database.forget();
    for count in 1..=1000 {
        assert_eq!(client.command("INCR counter:1"), Reply::Integer(1 + count));
    }
    database.await_sql("SELECT hits FROM counters WHERE id = 1", "1001");
    let statements = database.asked(STATEMENT);
    println!("1000 increments of a key are {statements} statements");
    assert!((1..=20).contains(&statements));
    // Many keys are few statements, too.
    database.forget();
    for id in 100..600 {
        assert_eq!(client.command(&format!("SET counter:{id} {id}")), Reply::ok());
    }
    database.await_sql("SELECT count(*) FROM counters WHERE id >= 100 AND hits = id", "500");
    let statements = database.asked(STATEMENT);
    println!("500 keys are {statements} statements");
    assert!((1..=20).contains(&statements));
    client.await_figure("behind_pending_keys", 0);
    // What was written is read without a load, and what others write is seen.
    await_feed(&database, &mut client, "all");
    database.forget();
    assert_eq!(client.command("GET counter:1"), Reply::bulk("1001"));
    assert_eq!(database.asked("FROM counters"), 0);
    database.sql("UPDATE counters SET hits = 5 WHERE id = 1");
    client.await_reply("GET counter:1", &Reply::bulk("5"));
}

/// Whatever becomes of the entry, a read sees what is pending; and so does the database, once it can.
#[test]
fn reads_see_what_the_database_does_not_have_yet() {
    let mut database = Database::start(SCHEMA);
    let server = start(&database, &[]);
    let mut client = server.connect();
    assert_eq!(client.command("GET counter:3"), Reply::bulk("3"));
    assert_eq!(client.command("HGET row:4 note"), Reply::bulk(""));
    database.stop();
    for line in ["GET counter:1", "INCR counter:5"] {
        assert!(client.command(line).is_error("ORIGINDOWN"), "{line}");
    }
    assert_eq!(client.command("SET counter:2 200"), Reply::ok());
    assert_eq!(client.command("INCR counter:3"), Reply::Integer(4));
    assert_eq!(client.command("HSET row:4 note four"), Reply::Integer(0));
    assert_eq!(client.command("HINCRBY row:4 hits 10"), Reply::Integer(14));
    assert_eq!(client.command("SET counter:6 6 PX 1"), Reply::ok());
    for gone in ["PING", "FLUSHALL", "EXPIRE counter:2 -1", "FOREBAY.INVALIDATE counter:2 counter:3 row:4 counter:6"] {
        client.command(gone);
        assert_eq!(client.command("GET counter:2"), Reply::bulk("200"), "{gone}");
        assert_eq!(client.command("GET counter:3"), Reply::bulk("4"), "{gone}");
        assert_eq!(client.command("HMGET row:4 hits note").words_of_items(), ["14", "four"], "{gone}");
        assert_eq!(client.command("GET counter:6"), Reply::bulk("6"), "{gone}");
    }
    assert_eq!(client.command("INCR counter:2"), Reply::Integer(201), "it builds on what is pending");
    assert_eq!(client.command("DEL counter:3"), Reply::Integer(1));
    client.command("FLUSHALL");
    assert_eq!(client.command("GET counter:3"), Reply::NilBulk);
    assert_eq!(client.command("DBSIZE"), Reply::Integer(0), "records are nobody's keys");
    assert!(eventually(PATIENCE, || client.figure("forebay", "behind_retries") > 0), "the database is not even asked");
    database.start_again();
    database.await_sql("SELECT hits FROM counters WHERE id = 2", "201");
    database.await_sql("SELECT count(*) FROM counters WHERE id = 3", "0");
    database.await_sql("SELECT hits, note FROM counters WHERE id = 4", "14|four");
    client.await_figure("behind_pending_keys", 0);
}

/// A removal and what was written before and after it reach the database in that order.
#[test]
fn a_row_that_is_removed_and_written_again_has_nothing_of_the_old_one() {
    let database = Database::start(SCHEMA);
    let server = start(&database, &[]);
    let mut client = server.connect();
    assert_eq!(client.command("HSET row:1 note old"), Reply::Integer(0));
    assert_eq!(client.command("DEL row:1"), Reply::Integer(1));
    assert_eq!(client.command("HSET row:1 hits 7"), Reply::Integer(1));
    assert_eq!(client.command("HGETALL row:1").words_of_items(), ["hits", "7"]);
    database.await_sql("SELECT hits, note FROM counters WHERE id = 1", "7|");
    client.await_reply("HGET row:1 note", &Reply::bulk(""));
}

#[test]
fn what_the_database_refuses_is_written_down() {
    let database = Database::start(SCHEMA);
    let mut server = start(&database, &[]);
    let mut client = server.connect();
    assert_eq!(client.command("SET counter:1 13"), Reply::ok());
    assert_eq!(client.command("SET counter:2 22"), Reply::ok());
    client.await_figure("behind_dead_letters", 1);
    database.await_sql("SELECT string_agg(hits::text, ' ' ORDER BY id) FROM counters WHERE id IN (1, 2)", "1 22");
    // The database's value is served again.
    assert_eq!(client.command("GET counter:1"), Reply::bulk("1"));
    let letters =
        std::fs::read_to_string(server.process().directory().join("data/dead-letters.jsonl")).expect("there is a file");
    assert_eq!(letters.lines().count(), 1, "{letters}");
    assert!(letters.contains(r#""key":"counter:1""#) && letters.contains(r#""value":"13""#), "{letters}");
    assert!(letters.contains("violates check constraint"), "{letters}");
}

#[test]
fn beyond_the_limit_writes_are_refused_and_what_was_taken_is_kept() {
    let mut database = Database::start(SCHEMA);
    let server = start(&database, &["--write-behind-max", "20kb"]);
    let mut client = server.connect();
    database.stop();
    let mut taken = 0;
    let refused = loop {
        match client.command(&format!("SET counter:{id} {id}", id = 1000 + taken)) {
            reply if reply == Reply::ok() => taken += 1,
            reply => break reply,
        }
    };
    println!("{taken} writes are taken, and then: {refused}");
    assert!(refused.is_error("ORIGINBEHIND") && taken > 50, "{refused}");
    assert_eq!(client.command("SET counter:1000 7"), Reply::ok(), "what is pending may be changed");
    database.start_again();
    database.await_sql("SELECT count(*) FROM counters WHERE id >= 1000", &taken.to_string());
    let is_taken = || client.command("SET counter:5000 1") == Reply::ok();
    assert!(eventually(PATIENCE, is_taken), "writes are not taken again");
    database.await_sql("SELECT hits FROM counters WHERE id = 1000", "7");
}

/// The database gets writes in their order, although the group is written in another way since the first.
#[test]
fn what_is_pending_is_not_written_after_what_is_written_through() {
    let mut database = Database::start(SCHEMA);
    let mut server = start(&database, &[]);
    let mut client = server.connect();
    database.stop();
    assert_eq!(client.command("SET counter:2 200"), Reply::ok());
    assert_eq!(client.command("SET counter:3 300"), Reply::ok());
    // Until it is asked seldom.
    assert!(eventually(PATIENCE, || client.figure("forebay", "behind_retries") >= 6), "the database is not even asked");
    server.apply_groups(&GROUPS.replace("\"behind\"", "\"through\""));
    database.start_again();
    let is_written = || client.command("SET counter:2 201") == Reply::ok();
    assert!(eventually(PATIENCE, is_written), "it is not written");
    assert_eq!(client.command("INCR counter:3"), Reply::Integer(301), "it builds on what is pending");
    client.await_figure("behind_pending_keys", 0);
    assert_eq!(database.sql("SELECT hits FROM counters WHERE id IN (2, 3) ORDER BY id"), "201\n301");
    client.await_reply("GET counter:2", &Reply::bulk("201"));
    // From then on it is as the group says.
    assert_eq!(client.command("SET counter:2 202"), Reply::ok());
    assert_eq!(database.sql("SELECT hits FROM counters WHERE id = 2"), "202");
}

/// Nobody writes what is pending any more: it is written down, and reads are answered by the database again.
#[test]
fn what_has_no_way_to_the_database_any_more_is_written_down() {
    let mut database = Database::start(SCHEMA);
    let mut server = start(&database, &[]);
    let mut client = server.connect();
    assert_eq!(client.command("HGET row:4 hits"), Reply::bulk("4"));
    database.stop();
    assert_eq!(client.command("SET counter:2 200"), Reply::ok());
    assert_eq!(client.command("DEL row:4"), Reply::Integer(1));
    server.apply_groups(&without_writes(GROUPS));
    database.start_again();
    client.await_figure("behind_dead_letters", 2);
    client.await_figure("behind_pending_keys", 0);
    client.await_reply("GET counter:2", &Reply::bulk("2"));
    client.await_reply("HGET row:4 hits", &Reply::bulk("4"));
    assert_eq!(database.sql("SELECT hits FROM counters WHERE id IN (2, 4) ORDER BY id"), "2\n4");
    let letters =
        std::fs::read_to_string(server.process().directory().join("data/dead-letters.jsonl")).expect("there is a file");
    let counter = letters.lines().find(|line| line.contains("counter:2")).expect("a letter");
    assert!(counter.contains(r#""group":"counter""#) && counter.contains(r#""value":"200""#), "{letters}");
    assert!(letters.lines().any(|line| line.contains("row:4") && line.contains(r#""removes":true"#)), "{letters}");
}

/// The statement is under way when the group is replaced: what it leaves is not as the new group would have it.
#[test]
fn a_write_that_ends_under_another_definition_is_not_kept_by_its_own() {
    let database = Database::start(SCHEMA);
    // It is also how long an owner waits before its first write.
    let mut server = start(&database, &["--origin-load-timeout", "8s"]);
    let mut client = server.connect();
    let mut holder = Psql::open(&database.url());
    holder.run("BEGIN; SELECT FROM counters WHERE id = 5 FOR UPDATE").expect("the database answers");
    assert_eq!(client.command("SET counter:5 55"), Reply::ok());
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    database.await_sql(waiting, "1");
    server.apply_groups(&GROUPS.replace("SELECT hits FROM", "SELECT -hits FROM"));
    // It was looked through for what the former group has loaded.
    client.await_reply("GET counter:6", &Reply::bulk("-6"));
    holder.run("COMMIT").expect("the database answers");
    client.await_figure("behind_pending_keys", 0);
    assert_eq!(database.sql("SELECT hits FROM counters WHERE id = 5"), "55");
    client.await_reply("GET counter:5", &Reply::bulk("-55"));
}

/// The groups without what they write by.
fn without_writes(groups: &str) -> String {
    let mut is_statement = false;
    let kept = groups.lines().filter(|line| {
        let is_of_writes = is_statement || ["write", "save", "remove"].iter().any(|name| line.starts_with(name));
        is_statement ^= line.matches("\"\"\"").count() == 1;
        !is_of_writes
    });
    kept.collect::<Vec<_>>().join("\n")
}

fn start(database: &Database, args: &[&str]) -> Forebay {
    let config = format!("origin = \"{}\"\n{GROUPS}", database.url());
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
    database.sql(&format!("UPDATE told SET name = '{word}' WHERE id = 1"));
    client.await_reply("GET told:1", &Reply::bulk(word));
}

/// The texts of an array.
trait Texts {
    fn words_of_items(&self) -> Vec<String>;
}

impl Texts for Reply {
    fn words_of_items(&self) -> Vec<String> {
        self.items().unwrap_or_else(|| panic!("no array: {self}")).iter().map(Reply::words).collect()
    }
}
