//! Reading through: a key that is missing here is what the database says, and the database is asked no more than it must be.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use forebay_redis_tests::connection::{Connection, encode};
use forebay_redis_tests::database::Database;
use forebay_redis_tests::process::eventually;
use forebay_redis_tests::reply::Reply;
use forebay_redis_tests::server::{Forebay, ForebayOptions};

/// How long a condition may take to come about.
const PATIENCE: Duration = Duration::from_secs(20);

const SCHEMA: &str = "
CREATE TABLE products (id int PRIMARY KEY, name text NOT NULL, price numeric, tags text[]);
INSERT INTO products SELECT n, 'product ' || n, n * 1.5, ARRAY['a', 'b'] FROM generate_series(1, 2000) n;
CREATE TABLE users (id bigint PRIMARY KEY, name text, email text, visits int);
INSERT INTO users SELECT n, 'user ' || n, 'user' || n || '@example.org', n * 10 FROM generate_series(1, 100) n;
UPDATE users SET email = NULL WHERE id = 2;
CREATE TABLE notes (id int PRIMARY KEY, body text);
INSERT INTO notes SELECT n, 'old' FROM generate_series(1, 100) n;
";

const GROUPS: &str = r#"
[[group]]
name = "product"
key = "product:{id}"
load = "SELECT * FROM products WHERE id = $1"
as = "json"
ttl = "10m"

[[group]]
name = "title"
key = "title:{id}"
load = "SELECT name FROM products WHERE id = $1"
as = "string"

[[group]]
name = "user"
key = "user:{id}"
load = "SELECT name, email, visits FROM users WHERE id = $1"
as = "hash"
ttl = "100s"
ttl_jitter = 0.1
"#;

#[test]
fn commands_see_what_the_database_has() {
    let database = Database::start(SCHEMA);
    let server = start(&database, GROUPS);
    let mut client = server.connect();

    let row = database.sql("SELECT row_to_json(p) FROM products p WHERE id = 1");
    assert_eq!(client.command("GET product:1"), Reply::bulk(&row));
    println!("GET product:1 -> {row}");
    let lines = [
        ("GET title:1", Reply::bulk("product 1")),
        ("STRLEN title:2", Reply::Integer(9)),
        ("GETRANGE title:3 0 6", Reply::bulk("product")),
        ("EXISTS title:4 title:5 title:99999", Reply::Integer(2)),
        ("TYPE title:6", Reply::Simple(b"string".to_vec())),
        ("TTL title:7", Reply::Integer(-1)),
        ("TTL title:99998", Reply::Integer(-2)),
        ("APPEND title:8 !", Reply::Integer(10)),
        ("GET title:8", Reply::bulk("product 8!")),
        ("SETNX title:9 mine", Reply::Integer(0)),
        ("SET title:10 mine GET", Reply::bulk("product 10")),
        ("SET title:11 mine", Reply::Simple(b"OK".to_vec())),
        ("GET title:11", Reply::bulk("mine")),
        ("HGET user:1 name", Reply::bulk("user 1")),
        ("HGET user:2 email", Reply::NilBulk),
        ("HLEN user:2", Reply::Integer(2)),
        ("HINCRBY user:3 visits 1", Reply::Integer(31)),
        ("HSTRLEN user:4 name", Reply::Integer(6)),
        ("TYPE user:5", Reply::Simple(b"hash".to_vec())),
        ("EXISTS user:6", Reply::Integer(1)),
        ("HGETALL user:99999", Reply::Array(Vec::new())),
    ];
    for (line, expected) in lines {
        assert_eq!(client.command(line), expected, "{line}");
    }
    let all = ["name", "user 7", "email", "user7@example.org", "visits", "70"].map(Reply::bulk);
    assert_eq!(client.command("HGETALL user:7"), Reply::Array(all.to_vec()));
    let some = [Reply::bulk("product 12"), Reply::NilBulk, Reply::bulk("product 13")];
    assert_eq!(client.command("MGET title:12 title:99997 title:13"), Reply::Array(some.to_vec()));
    assert!(matches!(client.command("GET user:8"), Reply::Error(words) if words.starts_with(b"WRONGTYPE")));
    assert!(matches!(client.command("TTL product:1"), Reply::Integer(530..=660)));
}

#[test]
fn the_database_is_asked_no_more_than_it_must_be() {
    let database = Database::start(SCHEMA);
    let server = start(&database, GROUPS);
    let mut client = server.connect();
    // The group's plan is made by its first load; what is counted below is what follows.
    client.command("GET title:2000");
    client.command("GET product:2000");

    for line in ["GET product:abc", "GET product:99999999999", "GET product:007", "GET product:", "GET product:1;--"] {
        assert_eq!(asked(&database, "products", || client.command(line)), (Reply::NilBulk, 0), "{line}");
    }
    client.command("SELECT 1");
    assert_eq!(asked(&database, "products", || client.command("GET title:100")), (Reply::NilBulk, 0), "database 1");
    client.command("SELECT 0");

    let keys: Vec<String> = (1..=100).map(|id| format!("title:{id}")).collect();
    let (reply, queries) = asked(&database, "products", || client.command(&format!("MGET {}", keys.join(" "))));
    println!("MGET of 100 missing keys: {queries} query");
    let values: Vec<Reply> = (1..=100).map(|id| Reply::bulk(&format!("product {id}"))).collect();
    assert_eq!((reply, queries), (Reply::Array(values), 1));

    let (_, queries) = asked(&database, "products", || pipeline_from_many(&server, 10, 100..1100));
    println!("1,000 missing keys, pipelined by 10 clients: {queries} queries");
    assert!(queries <= 20, "{queries} queries");

    let (replies, queries) =
        asked(&database, "products", || [(); 5].map(|()| client.command("GET title:77777")).to_vec());
    println!("5 reads of an absent key: {queries} query");
    assert_eq!((replies, queries), (vec![Reply::NilBulk; 5], 1));
}

/// A group's own query for many keys is used wherever there are many, and gives what the one for one key gives.
#[test]
fn many_keys_are_asked_for_by_the_groups_own_query() {
    let groups = r#"
[[group]]
name = "one"
key = "one:{id}"
load = "SELECT id, name, tags FROM products WHERE id = $1"
as = "json"

[[group]]
name = "many"
key = "many:{id}"
load = "SELECT id, name, tags FROM products WHERE id = $1"
load_many = "SELECT name, id, tags FROM products /* all of them */ WHERE id = ANY($1)"
as = "json"

[[group]]
name = "visits"
key = "visits:{id}"
load = "SELECT visits, email FROM users WHERE id = $1"
load_many = "SELECT id, visits, email FROM users /* their visits */ WHERE id = ANY($1)"
as = "hash"
"#;
    let database = Database::start(SCHEMA);
    let server = start(&database, groups);
    let mut client = server.connect();
    let get = |group: &str| (1..=100).map(|id| format!("{group}:{}", id * 30)).collect::<Vec<_>>().join(" ");
    let expected = client.command(&format!("MGET {}", get("one")));
    let Reply::Array(values) = &expected else { panic!("{expected}") };
    assert_eq!(values.iter().filter(|value| **value == Reply::NilBulk).count(), 34, "there are 2,000 products");

    client.command("GET many:1");
    database.forget();
    assert_eq!(client.command(&format!("MGET {}", get("many"))), expected);
    let queries = [database.asked("FROM products"), database.asked("/* all of them */")];
    println!("MGET of 100 missing keys: {} query, by the group's own words", queries[1]);
    assert_eq!(queries, [1, 1]);
    let (alone, queries) = asked(&database, "/* all of them */", || client.command("GET many:2"));
    assert_eq!(queries, 0, "one key is `load`'s");
    let row = database.sql("SELECT row_to_json(p) FROM (SELECT id, name, tags FROM products WHERE id = 2) p");
    assert_eq!(alone, Reply::bulk(&row));

    client.command("HGETALL visits:1");
    let lines: Vec<String> = (1..=5).chain([101]).map(|id| format!("HGETALL visits:{id}")).collect();
    let requests: Vec<u8> = lines.iter().flat_map(|line| encode(&line.split(' ').collect::<Vec<_>>())).collect();
    database.forget();
    client.send(&requests).expect("the server reads");
    let replies: Vec<Reply> = lines.iter().map(|_| Reply::parse(&client.read_raw().expect("a reply"))).collect();
    assert_eq!(database.asked("/* their visits */"), 1);
    let fields = |fields: &[&str]| Reply::Array(fields.iter().map(|field| Reply::bulk(field)).collect());
    assert_eq!(replies[1], fields(&["visits", "20"]), "the capture is no field, since `load` does not have it");
    assert_eq!(replies[4], fields(&["visits", "50", "email", "user5@example.org"]));
    assert_eq!(replies[5], fields(&[]));

    let explained = client.command("FOREBAY.EXPLAIN many:1").to_string();
    assert!(explained.contains("FROM products /* all of them */ WHERE id = ANY($1)"), "{explained}");
}

#[test]
fn absence_is_remembered_for_its_time() {
    let groups = r#"
[[group]]
name = "forgotten"
key = "forgotten:{id}"
load = "SELECT body FROM notes WHERE id = $1"
as = "string"
absent_ttl = "0s"

[[group]]
name = "brief"
key = "brief:{id}"
load = "SELECT body FROM notes WHERE id = $1"
as = "string"
absent_ttl = "300ms"
"#;
    let database = Database::start(SCHEMA);
    let server = start(&database, groups);
    let mut client = server.connect();
    let (_, queries) =
        asked(&database, "FROM notes", || [(); 3].map(|()| client.command("GET forgotten:1000")).to_vec());
    assert_eq!(queries, 3, "absence that is not to be remembered");

    database.forget();
    assert_eq!(client.command("GET brief:1000"), Reply::NilBulk);
    database.sql("INSERT INTO notes VALUES (1000, 'here now')");
    assert!(
        eventually(PATIENCE, || client.command("GET brief:1000") == Reply::bulk("here now")),
        "absence is never forgotten"
    );
    // A read that finds an entry must not have asked: one query found the key absent, one found the row.
    assert_eq!(database.asked("FROM notes"), 2);
}

/// The load reads its row when it begins and takes a while to answer; meanwhile the row and the key are changed.
///
/// With a store that takes every fill whatever its fence says, this test fails: the key then keeps "old" until it expires.
#[test]
fn a_write_during_a_load_is_not_buried_by_it() {
    let groups = r#"
[[group]]
name = "note"
key = "note:{id}"
load = "SELECT body || coalesce(pg_sleep(0.7)::text, '') FROM notes WHERE id = $1"
as = "string"
"#;
    let database = Database::start(SCHEMA);
    let server = start(&database, groups);
    let mut client = server.connect();
    // The plan is made and the connection is open: what runs from here on is the load itself.
    client.command("GET note:100");

    for (id, write, after) in [
        (1, "DEL note:1", "new"),
        (2, "SET note:2 mine", "mine"),
        (3, "UNLINK note:3", "new"),
        (4, "FLUSHALL", "new"),
        (5, "MSET note:5 mine other x", "mine"),
    ] {
        let reader = read_slowly(&server, id);
        database.await_asleep("pg_sleep(0.7)");
        database.sql(&format!("UPDATE notes SET body = 'new' WHERE id = {id}"));
        client.command(write);
        let early = reader.join().expect("the reader does not panic");
        let late = client.command(&format!("GET note:{id}"));
        println!("{write} during the load: its reader got {early}, a later one {late}");
        assert_eq!(late, Reply::bulk(after), "after {write}");
        // Who asked before the write may see either; nobody may see anything else.
        assert!([Reply::bulk("old"), Reply::bulk(after)].contains(&early), "{early} during {write}");
    }
}

#[test]
fn deadlines_vary_within_their_share() {
    let database = Database::start(SCHEMA);
    let server = start(&database, GROUPS);
    let mut client = server.connect();
    let ttls: Vec<i64> = (1..=100).map(|id| integer(&client.command(&format!("PTTL user:{id}")))).collect();
    let (least, most) = (ttls.iter().min().copied().unwrap_or(0), ttls.iter().max().copied().unwrap_or(0));
    println!("100 entries with ttl 100 s and jitter 0.1: {least} ms to {most} ms");
    // Time passes between the fill and the look, so only the upper bound is sharp.
    assert!(least > 80_000 && most <= 110_000, "{least} to {most}");
    assert!(most - least > 5_000, "all deadlines are close together: {least} to {most}");
}

/// The value is the time at which its load began, so two values tell by themselves whether the second load began before the first
/// value's deadline: that is the ttl after the end of the first load, which takes [`LOAD`].
#[test]
fn an_early_refresh_comes_before_the_deadline() {
    const LOAD: Duration = Duration::from_millis(100);
    const TTL: Duration = Duration::from_millis(1500);
    const KEYS: u32 = 30;
    let group = |refresh: &str| {
        format!(
            "[[group]]\nname = \"{refresh}\"\nkey = \"{refresh}:{{id}}\"\n\
             load = \"SELECT (extract(epoch FROM statement_timestamp()) * 1000)::int8 \
             WHERE $1::int4 >= 0 AND (SELECT pg_sleep({})) IS NOT NULL\"\n\
             as = \"string\"\nttl = \"{}ms\"\nttl_jitter = 0.0\nrefresh = \"{refresh}\"\n",
            LOAD.as_secs_f64(),
            TTL.as_millis()
        )
    };
    let database = Database::start("");
    let server = start(&database, &(group("early") + &group("off")));
    let reading = ["early", "off"].map(|name| {
        let mut client = server.connect();
        let keys: Vec<String> = (0..KEYS).map(|id| format!("{name}:{id}")).collect();
        thread::spawn(move || {
            let mut generations = Generations::default();
            let enough = 2 * keys.len();
            assert!(
                eventually(PATIENCE, || generations.read(&mut client, &keys) >= enough),
                "entries are not loaded again"
            );
            generations.steps
        })
    });
    // A millisecond for each of the two times that were cut to whole ones.
    let least = (TTL + LOAD).as_millis() as i64 - 2;
    let [early, off] = reading.map(|reader| {
        let steps = reader.join().expect("a reader does not panic");
        (steps.iter().filter(|step| **step < least).count(), steps.len())
    });
    println!("loaded again before the deadline: {} of {} with refresh = early", early.0, early.1);
    println!("loaded again before the deadline: {} of {} with refresh = off", off.0, off.1);
    assert!(early.0 > 0, "no entry was refreshed early");
    assert_eq!(off.0, 0, "an entry was loaded again although its deadline had not come");
}

#[test]
fn sqlite_reads_through_alike() {
    let directory = tempfile::TempDir::new().expect("a temporary directory");
    let url = format!("sqlite://{}?mode=rwc", directory.path().join("origin.db").display());
    let groups = r#"
[[group]]
name = "square"
key = "square:{n}"
load = "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 1000) SELECT n * n AS square FROM numbers WHERE n = CAST($1 AS INTEGER)"
as = "string"

[[group]]
name = "row"
key = "row:{n}"
load = "SELECT CAST($1 AS INTEGER) AS n, 'row ' || $1 AS name, NULL AS blank"
as = "hash"

[[group]]
name = "doc"
key = "doc:{n}"
load = "SELECT CAST($1 AS INTEGER) AS n, 'doc ' || $1 AS name"
as = "json"
"#;
    let server = Forebay::start(ForebayOptions::in_front_of(&url, groups)).unwrap_or_else(|error| panic!("{error}"));
    let mut client = server.connect();
    assert_eq!(client.command("GET square:12"), Reply::bulk("144"));
    assert_eq!(client.command("GET square:1001"), Reply::NilBulk);
    let some = [Reply::bulk("1"), Reply::bulk("4"), Reply::NilBulk];
    assert_eq!(client.command("MGET square:1 square:2 square:5000"), Reply::Array(some.to_vec()));
    assert_eq!(client.command("HGETALL row:7"), Reply::Array(["n", "7", "name", "row 7"].map(Reply::bulk).to_vec()));
    assert_eq!(client.command("GET doc:7"), Reply::bulk(r#"{"n":7,"name":"doc 7"}"#));
}

#[test]
fn what_a_command_builds_on_is_loaded_before_it_changes_anything() {
    let directory = tempfile::TempDir::new().expect("a temporary directory");
    let url = format!("sqlite://{}?mode=rwc", directory.path().join("origin.db").display());
    let groups = r#"
[[group]]
name = "ten"
key = "ten:{n}"
load = "SELECT CAST($1 AS INTEGER) * 10 AS ten WHERE CAST($1 AS INTEGER) < 1000"
as = "string"
ttl = "10m"

[[group]]
name = "row"
key = "row:{n}"
load = "SELECT CAST($1 AS INTEGER) AS n, 'row ' || $1 AS name WHERE CAST($1 AS INTEGER) < 1000"
as = "hash"
"#;
    let server = Forebay::start(ForebayOptions::in_front_of(&url, groups)).unwrap_or_else(|error| panic!("{error}"));
    let mut client = server.connect();
    let [zero, one, ok] = [Reply::Integer(0), Reply::Integer(1), Reply::Simple(b"OK".to_vec())];
    let lines = [
        ("INCR ten:1", Reply::Integer(11)),
        ("DECR ten:2", Reply::Integer(19)),
        ("INCRBY ten:3 5", Reply::Integer(35)),
        ("DECRBY ten:4 5", Reply::Integer(35)),
        ("INCRBYFLOAT ten:5 0.5", Reply::bulk("50.5")),
        ("APPEND ten:6 x", Reply::Integer(3)),
        ("SETRANGE ten:7 2 x", Reply::Integer(3)),
        ("GET ten:7", Reply::bulk("70x")),
        ("SETBIT ten:8 0 0", zero.clone()),
        ("GET ten:8", Reply::bulk("80")),
        ("BITFIELD ten:9 GET u8 0", Reply::Array(vec![Reply::Integer(b'9'.into())])),
        ("BITFIELD ten:10 SET u8 0 50", Reply::Array(vec![Reply::Integer(b'1'.into())])),
        ("GET ten:10", Reply::bulk("200")),
        ("GETSET ten:11 x", Reply::bulk("110")),
        ("SETNX ten:12 x", zero.clone()),
        ("SET ten:13 x NX", Reply::NilBulk),
        ("SET ten:14 x XX", ok.clone()),
        ("SET ten:15 x GET", Reply::bulk("150")),
        ("SET ten:16 x KEEPTTL", ok.clone()),
        ("PERSIST ten:16", one.clone()),
        ("PERSIST ten:17", one.clone()),
        ("EXPIRE ten:18 50", one.clone()),
        ("PEXPIRE ten:19 50000", one.clone()),
        ("EXPIREAT ten:20 99999999999", one.clone()),
        ("PEXPIREAT ten:21 99999999999000", one.clone()),
        ("HDEL row:1 name", one.clone()),
        ("HGETALL row:1", Reply::Array(["n", "1"].map(Reply::bulk).to_vec())),
        ("HINCRBY row:2 n 1", Reply::Integer(3)),
        ("HINCRBYFLOAT row:3 n 0.5", Reply::bulk("3.5")),
        ("HSET row:4 n 5 more 6", one.clone()),
        ("HGETALL row:4", Reply::Array(["n", "5", "name", "row 4", "more", "6"].map(Reply::bulk).to_vec())),
        ("HMSET row:5 more 6", ok),
        ("HLEN row:5", Reply::Integer(3)),
        ("HSETNX row:6 name x", zero.clone()),
        ("MSETNX new x ten:22 x", zero.clone()),
        ("EXISTS new", zero.clone()),
        ("SET mine x", Reply::Simple(b"OK".to_vec())),
        ("RENAMENX mine ten:23", zero.clone()),
        ("COPY mine ten:24", zero.clone()),
        ("BITOP OR both ten:25 ten:26", Reply::Integer(3)),
        // Of these the database has none.
        ("INCR ten:1001", one.clone()),
        ("APPEND ten:1002 x", one.clone()),
        ("SETNX ten:1003 x", one.clone()),
        ("GETSET ten:1004 x", Reply::NilBulk),
        ("PERSIST ten:1005", zero.clone()),
        ("HSET row:1001 f v", one.clone()),
        ("HDEL row:1002 f", zero),
        // And these are of no group.
        ("INCR number", one.clone()),
        ("HSET hash f v", one),
    ];
    for (line, expected) in lines {
        assert_eq!(client.command(line), expected, "{line}");
    }
}

fn start(database: &Database, groups: &str) -> Forebay {
    Forebay::start(ForebayOptions::in_front_of(&database.url(), groups)).unwrap_or_else(|error| panic!("{error}"))
}

fn integer(reply: &Reply) -> i64 {
    match reply {
        Reply::Integer(number) => *number,
        other => panic!("{other} is no integer"),
    }
}

/// What `work` gives, and how many statements that contain `part` it cost.
fn asked<T>(database: &Database, part: &str, work: impl FnOnce() -> T) -> (T, u64) {
    database.forget();
    let result = work();
    (result, database.asked(part))
}

/// Reads the titles of `ids`, shared out among clients that send all of theirs at once.
fn pipeline_from_many(server: &Forebay, clients: usize, ids: std::ops::Range<usize>) {
    let ids: Vec<usize> = ids.collect();
    let share = ids.len() / clients;
    let asking: Vec<_> = ids
        .chunks(share)
        .map(|ids| {
            let (mut client, ids) = (server.connect(), ids.to_vec());
            thread::spawn(move || {
                let requests: Vec<u8> = ids.iter().flat_map(|id| encode(&["GET", &format!("title:{id}")])).collect();
                client.send(&requests).expect("the server reads");
                for id in ids {
                    let raw = client.read_raw().expect("a reply");
                    assert_eq!(Reply::parse(&raw), Reply::bulk(&format!("product {id}")));
                }
            })
        })
        .collect();
    asking.into_iter().for_each(|client| client.join().expect("a client does not panic"));
}

/// Begins to read a note, whose load takes a while.
fn read_slowly(server: &Forebay, id: u32) -> thread::JoinHandle<Reply> {
    let mut client = server.connect();
    thread::spawn(move || client.command(&format!("GET note:{id}")))
}

/// The values that keys had one after the other, each being the time of its load.
#[derive(Default)]
struct Generations {
    last: BTreeMap<String, i64>,
    /// Milliseconds between a key's load and its next one.
    steps: Vec<i64>,
}

impl Generations {
    /// Reads all keys; how many steps are known by now.
    fn read(&mut self, client: &mut Connection, keys: &[String]) -> usize {
        let reply = client.command(&format!("MGET {}", keys.join(" ")));
        let values = reply.items().unwrap_or_else(|| panic!("MGET gives {reply}"));
        for (key, value) in keys.iter().zip(values) {
            let text = value.text().unwrap_or_else(|| panic!("{key} is {value}"));
            let loaded: i64 = String::from_utf8_lossy(text).parse().expect("the value is a time");
            match self.last.insert(key.clone(), loaded) {
                Some(before) if before != loaded => self.steps.push(loaded - before),
                _ => {}
            }
        }
        self.steps.len()
    }
}
