//! Client tracking at one node. What does not depend on numbers of connections is in `cases/tracking.cases`.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use forebay_redis_tests::connection::{Connection, Protocol};
use forebay_redis_tests::database::Database;
use forebay_redis_tests::near_cache::NearCache;
use forebay_redis_tests::over::Over;
use forebay_redis_tests::process::eventually;
use forebay_redis_tests::programs::run_script;
use forebay_redis_tests::reply::Reply;
use forebay_redis_tests::server::{Forebay, ForebayOptions, Target};

/// How long a condition may take to come about.
const PATIENCE: Duration = Duration::from_secs(30);

const CHANNEL: &str = "__redis__:invalidate";

const SCHEMA: &str = "
CREATE TABLE products (id int PRIMARY KEY, name text NOT NULL);
INSERT INTO products SELECT n, 'product ' || n FROM generate_series(1, 500) n;
";

const GROUPS: &str = r#"
[[group]]
name = "product"
key = "product:{id}"
load = "SELECT name FROM products WHERE id = $1"
as = "string"
invalidated_by = ["products(id)"]

[[group]]
name = "unkept"
key = "unkept:{id}"
load = "SELECT name FROM products WHERE id = $1"
as = "string"
absent_ttl = "0s"
invalidated_by = ["products(id)"]
"#;

// ---- in place of others -------------------------------------------------------------------------

#[test]
fn another_connection_is_told_in_both_servers() {
    for target in [Target::Redis, Target::Forebay] {
        let server = target.start();
        let (mut reader, mut writer) = (server.connect(), server.connect());
        let mut listener = server.connect();
        let id = id(&mut listener);
        let subscribe = format!("SUBSCRIBE {CHANNEL}");
        let subscribed = array(&[Reply::bulk("subscribe"), Reply::bulk(CHANNEL), Reply::Integer(1)]);
        assert_eq!(listener.command(&subscribe), subscribed);
        assert_eq!(reader.command(&format!("CLIENT TRACKING ON REDIRECT {id}")), Reply::ok());
        assert_eq!(reader.command("CLIENT GETREDIR"), Reply::Integer(id));
        assert_eq!(reader.command("GET k"), Reply::NilBulk);
        assert_eq!(writer.command("SET k 1"), Reply::ok());
        assert_eq!(heard(&mut listener), message(&array(&[Reply::bulk("k")])), "{target:?}");
        assert_eq!(writer.command("FLUSHALL"), Reply::ok());
        assert_eq!(heard(&mut listener), message(&Reply::NilBulk), "{target:?}");
        assert_eq!(reader.command("PING"), Reply::Simple(b"PONG".to_vec()), "it is told itself");
        // A connection in RESP3 needs no channel.
        let mut modern = server.connect();
        modern.speak(Protocol::Resp3);
        let modern_id = self::id(&mut modern);
        assert_eq!(reader.command(&format!("CLIENT TRACKING ON REDIRECT {modern_id}")), Reply::ok());
        assert_eq!(reader.command("GET k"), Reply::NilBulk);
        assert_eq!(writer.command("SET k 1"), Reply::ok());
        assert_eq!(heard(&mut modern), invalidate(&["k"]), "{target:?}");
    }
}

#[test]
fn who_has_named_a_connection_that_is_gone_is_told_so() {
    for target in [Target::Redis, Target::Forebay] {
        let server = target.start();
        let (mut reader, mut writer, mut listener) = (server.connect(), server.connect(), server.connect());
        reader.speak(Protocol::Resp3);
        let id = id(&mut listener);
        assert_eq!(reader.command(&format!("CLIENT TRACKING ON REDIRECT {id}")), Reply::ok());
        assert_eq!(reader.command("GET k"), Reply::Null);
        assert_eq!(writer.command(&format!("CLIENT KILL ID {id}")), Reply::Integer(1));
        assert_eq!(writer.command("SET k 1"), Reply::ok());
        let broken = Reply::Push(vec![Reply::bulk("tracking-redir-broken"), Reply::Integer(id)]);
        assert_eq!(heard(&mut reader), broken, "{target:?}");
        let info = reader.command("CLIENT TRACKINGINFO").to_string();
        assert!(info.contains("broken_redirect"), "{info}");
        let client = reader.command("CLIENT INFO").words();
        assert!(client.contains("flags=tR") && client.contains(&format!("redir={id} ")), "{client}");
    }
}

// ---- figures and limits -------------------------------------------------------------------------

#[test]
fn info_counts_what_is_tracked() {
    for target in [Target::Redis, Target::Forebay] {
        let server = target.start();
        let [mut one, mut other] = [0, 1].map(|_| NearCache::over(server.connect(), ""));
        let _broadcasting = NearCache::over(server.connect(), "BCAST PREFIX a PREFIX b");
        one.get_many(&["a".to_owned(), "b".to_owned()]);
        other.get("a");
        let figures = ["tracking_clients", "tracking_total_keys", "tracking_total_items", "tracking_total_prefixes"];
        let figures = figures.map(|name| server.connect().figure("all", name));
        assert_eq!(figures, [3, 2, 3, 2], "{target:?}");
    }
}

#[test]
fn a_full_table_tells_of_what_it_forgets() {
    let server = Target::Forebay.start();
    let mut admin = server.connect();
    assert_eq!(admin.command("CONFIG SET tracking-table-max-keys 10"), Reply::ok());
    let mut cache = NearCache::over(server.connect(), "");
    (0..100).for_each(|key| drop(cache.get(&format!("k:{key}"))));
    cache.listen();
    assert_eq!((cache.told, cache.len()), (90, 10));
    assert_eq!(server.connect().figure("all", "tracking_total_keys"), 10);
    // Of those that it has not forgotten it tells.
    (0..100).for_each(|key| drop(admin.command(&format!("SET k:{key} 1"))));
    assert!(eventually(PATIENCE, || {
        cache.listen();
        cache.is_empty()
    }));
}

#[test]
fn what_expires_or_is_evicted_is_told_of() {
    let server = Target::Forebay.start();
    let mut admin = server.connect();
    let mut cache = NearCache::over(server.connect(), "");
    for key in 0..100 {
        admin.command(&format!("SET expires:{key} 1 PX {}", 200 + key));
        cache.get(&format!("expires:{key}"));
    }
    await_nothing_kept(&mut cache);
    admin.command("CONFIG SET maxmemory-policy allkeys-random");
    for key in 0..100 {
        admin.command(&format!("SET evicted:{key} 1"));
        cache.get(&format!("evicted:{key}"));
    }
    admin.command("CONFIG SET maxmemory 1");
    await_nothing_kept(&mut cache);
    assert_eq!(admin.command("CONFIG SET maxmemory 0"), Reply::ok());
}

// ---- what others change while it is read --------------------------------------------------------

/// Some write, some keep what they read. When it has gone quiet, nobody keeps what is not so.
#[test]
fn nobody_keeps_what_is_old() {
    const KEYS: usize = 20;
    const READERS: usize = 4;
    let server = Target::Forebay.start();
    let keys: Vec<String> = (0..KEYS).map(|key| format!("k:{key}")).collect();
    let (is_over, keys) = (&AtomicBool::new(false), &keys);
    thread::scope(|scope| {
        let over = Over::at_end(is_over);
        let readers: Vec<_> = (0..READERS)
            .map(|reader| {
                let mut cache = NearCache::over(server.connect(), if reader == 0 { "BCAST" } else { "" });
                scope.spawn(move || {
                    while !is_over.load(Relaxed) {
                        match reader {
                            1 => cache.get_in_one_go(keys),
                            2 => cache.get_many(keys),
                            _ => cache.listen(),
                        }
                        keys.iter().for_each(|key| drop(cache.get(key)));
                    }
                    cache
                })
            })
            .collect();
        let writers: Vec<_> = (0..2)
            .map(|_| {
                let mut writer = server.connect();
                scope.spawn(move || {
                    for round in 0..3_000 {
                        let key = &keys[round * 7 % KEYS];
                        let line = match round % 10 {
                            0 => format!("DEL {key}"),
                            1 => format!("PEXPIRE {key} 2"),
                            _ => format!("INCR {key}"),
                        };
                        writer.command(&line);
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().expect("no panic"));
        drop(over);
        for reader in readers {
            let mut cache = reader.join().expect("no panic");
            println!("{} hits, told of {} keys", cache.hits, cache.told);
            assert!(cache.hits > 0 && cache.told > 0);
            await_true(&mut cache, &mut server.connect(), keys);
        }
    });
}

// ---- the database -------------------------------------------------------------------------------

#[test]
fn a_commit_reaches_what_applications_keep() {
    let database = Database::start(SCHEMA);
    let server = in_front_of(&database);
    let mut cache = NearCache::over(server.connect(), "");
    for id in 1..=100 {
        assert_eq!(cache.get(&format!("product:{id}")), Reply::bulk(&format!("product {id}")));
    }
    assert_eq!(cache.get("product:1000"), Reply::Null);
    cache.listen();
    assert_eq!((cache.told, cache.len()), (0, 101), "what is loaded for a reader is no change of what it has read");
    database.sql("UPDATE products SET name = 'new ' || id WHERE id <= 50");
    await_kept(&mut cache, 51);
    assert!((51..=100).all(|id| cache.kept(&format!("product:{id}")).is_some()));
    for id in 1..=50 {
        assert_eq!(cache.get(&format!("product:{id}")), Reply::bulk(&format!("new {id}")));
    }
    database.sql("INSERT INTO products VALUES (1000, 'late')");
    await_kept(&mut cache, 100);
    assert_eq!(cache.get("product:1000"), Reply::bulk("late"));
    database.sql("TRUNCATE products");
    await_nothing_kept(&mut cache);
    assert_eq!(cache.get("product:7"), Reply::Null);
}

/// What the server does not keep it cannot tell of later.
#[test]
fn what_is_lent_to_one_reader_is_not_to_be_kept() {
    let database = Database::start(SCHEMA);
    let server = in_front_of(&database);
    let mut cache = NearCache::over(server.connect(), "");
    assert_eq!(cache.get("unkept:1000"), Reply::Null);
    await_nothing_kept(&mut cache);
    assert_eq!(cache.get("unkept:7"), Reply::bulk("product 7"));
    cache.listen();
    assert_eq!(cache.len(), 1, "what is there is kept");
}

#[test]
fn redis_py_keeps_what_the_database_has() {
    const CHANGES: usize = 300;
    let database = Database::start(SCHEMA);
    let server = in_front_of(&database);
    let address = server.address();
    database.sql("UPDATE products SET name = 'begin' WHERE id = 7");
    server.connect().await_reply("GET product:7", &Reply::bulk("begin"));
    let before = calls_of_get(&mut server.connect());
    let arguments = [address.ip().to_string(), address.port().to_string(), "product:7".to_owned()];
    let told = thread::scope(|scope| {
        let reader = scope.spawn(|| run_script("python/bin/python", "near_cache.py", &arguments));
        let mut watcher = server.connect();
        assert!(eventually(PATIENCE, || calls_of_get(&mut watcher) > before), "it does not read");
        database.sql(&format!(
            "DO $$ BEGIN FOR n IN 1..{CHANGES} LOOP \
             UPDATE products SET name = extract(epoch FROM clock_timestamp())::text WHERE id = 7; COMMIT; \
             PERFORM pg_sleep(0.01); END LOOP; END $$"
        ));
        database.sql("UPDATE products SET name = 'over' WHERE id = 7");
        reader.join().expect("it saw what it should")
    });
    let asked = calls_of_get(&mut server.connect()) - before;
    println!(
        "redis-py, from an UPDATE before its commit to the new value: {} ({CHANGES} commits, {asked} GETs)",
        told.trim()
    );
    let reads: u64 = told.split_whitespace().nth(3).and_then(|reads| reads.parse().ok()).expect("reads");
    assert!(asked < reads / 2, "{reads} reads were {asked} requests: nothing was kept");
}

// ---- asking -------------------------------------------------------------------------------------

fn in_front_of(database: &Database) -> Forebay {
    let options = ForebayOptions::in_front_of(&database.url(), GROUPS);
    let server = Forebay::start(options).unwrap_or_else(|error| panic!("{error}"));
    let mut client = server.connect();
    let follows = || client.command("INFO forebay").words().contains("feed_wal:following");
    assert!(eventually(PATIENCE, follows), "the feed is not followed");
    server
}

fn id(client: &mut Connection) -> i64 {
    match client.command("CLIENT ID") {
        Reply::Integer(id) => id,
        other => panic!("CLIENT ID -> {other}"),
    }
}

fn heard(client: &mut Connection) -> Reply {
    Reply::parse(&client.read_raw().expect("it is told"))
}

fn array(items: &[Reply]) -> Reply {
    Reply::Array(items.to_vec())
}

fn message(what: &Reply) -> Reply {
    array(&[Reply::bulk("message"), Reply::bulk(CHANNEL), what.clone()])
}

fn invalidate(keys: &[&str]) -> Reply {
    let keys = keys.iter().map(|key| Reply::bulk(key)).collect();
    Reply::Push(vec![Reply::bulk("invalidate"), Reply::Array(keys)])
}

fn calls_of_get(client: &mut Connection) -> u64 {
    let info = client.command("INFO commandstats").words();
    let calls = |line: &str| line.strip_prefix("cmdstat_get:calls=")?.split(',').next()?.parse().ok();
    info.lines().find_map(calls).unwrap_or_default()
}

fn await_nothing_kept(cache: &mut NearCache) {
    await_kept(cache, 0);
}

fn await_kept(cache: &mut NearCache, keys: usize) {
    let mut left = 0;
    let is_so = || {
        cache.listen();
        left = cache.len();
        left == keys
    };
    assert!(eventually(PATIENCE, is_so), "{left} keys are kept and not {keys}");
}

/// Waits until all that is kept is what the server has.
fn await_true(cache: &mut NearCache, client: &mut Connection, keys: &[String]) {
    client.speak(Protocol::Resp3);
    for key in keys {
        let (mut kept, mut now) = (None, Reply::Null);
        let is_true = || {
            now = client.command(&format!("GET {key}"));
            cache.listen();
            kept = cache.kept(key).cloned();
            kept.as_ref().is_none_or(|kept| *kept == now)
        };
        assert!(eventually(PATIENCE, is_true), "{key} is {now}, and kept as {kept:?}");
    }
}
