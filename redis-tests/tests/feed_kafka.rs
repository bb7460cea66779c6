//! The feed `kafka`: what a topic tells of is taken out of the cache, nobody loses a message, and where one may be missing nothing old stays.

use std::process::Command;
use std::time::Duration;

use forebay_redis_tests::connection::Connection;
use forebay_redis_tests::database::Database;
use forebay_redis_tests::kafka::Kafka;
use forebay_redis_tests::process::eventually;
use forebay_redis_tests::reply::Reply;
use forebay_redis_tests::server::{Forebay, ForebayOptions, forebay_binary};

const PATIENCE: Duration = Duration::from_secs(60);

const TOPIC: &str = "changes";

const SCHEMA: &str = "
CREATE TABLE products (id int PRIMARY KEY, name text NOT NULL);
INSERT INTO products SELECT n, 'product ' || n FROM generate_series(1, 100) n;
CREATE TABLE prices (id int PRIMARY KEY, product_id int, price int);
INSERT INTO prices SELECT n, n, n * 10 FROM generate_series(1, 100) n;
";

const GROUPS: &str = r#"
[[group]]
name = "product"
key = "product:{id}"
load = "SELECT name FROM products WHERE id = $1"
as = "string"
invalidated_by = ["products(id)"]
feed = "kafka"

[[group]]
name = "price"
key = "price:{product}"
load = "SELECT price::text FROM prices WHERE product_id = $1"
as = "string"
invalidated_by = ["prices(product_id)"]
feed = "kafka"
"#;

/// A broker, a database and a node that follows.
struct Shop {
    kafka: Kafka,
    database: Database,
    server: Forebay,
}

#[test]
fn what_a_message_tells_of_is_loaded_anew_and_nothing_else_is() {
    let mut shop = Shop::open();
    let mut client = shop.server.connect();
    shop.fill(&mut client);
    // The database changes without a word: what is served stays as it was.
    shop.rename("new", "TRUE");
    assert_eq!(client.command("GET product:1"), Reply::bulk("product 1"));

    shop.kafka.produce(
        TOPIC,
        r#"{"table": "products", "schema": "public", "op": "update", "after": {"id": 1, "name": "x"}}"#,
    );
    shop.await_name(&mut client, 1, "new 1");
    shop.kafka.produce(TOPIC, r#"{"table": "products", "op": "delete", "before": {"id": "2"}}"#);
    shop.await_name(&mut client, 2, "new 2");
    let moved = r#"{"table": "products", "op": "update", "before": {"id": 3}, "after": {"id": 4}}"#;
    shop.kafka.produce_with(TOPIC, moved, r#""partition": 3, "compression": "gzip""#);
    shop.await_name(&mut client, 3, "new 3");
    shop.await_name(&mut client, 4, "new 4");
    for (id, compression) in [(5, "lz4"), (6, "snappy"), (7, "zstd")] {
        let text = format!(
            r#"{{"before": null, "after": {{"id": {id}}}, "op": "u", "source": {{"schema": "public", "table": "products"}}}}"#
        );
        let wrapped = format!(r#"{{"schema": {{"type": "struct"}}, "payload": {text}}}"#);
        // Little is not compressed.
        let padded = format!("{}{}", wrapped, " ".repeat(2000));
        shop.kafka.produce_with(TOPIC, &padded, &format!(r#""compression": "{compression}""#));
        shop.await_name(&mut client, id, &format!("new {id}"));
    }
    // A time that cannot be.
    let late = r#"{"table": "products", "op": "update", "after": {"id": 100}, "ts_ms": 9223372036854775807}"#;
    shop.kafka.produce(TOPIC, late);
    shop.await_name(&mut client, 100, "new 100");
    // A transaction's id: of this database, of nobody knows which, and one that there is not yet.
    let xid = shop.database.sql("SELECT pg_current_xact_id()");
    let xid: u64 = xid.trim().parse().expect("a number");
    shop.kafka
        .produce(TOPIC, &format!(r#"{{"table": "products", "op": "update", "after": {{"id": 8}}, "txid": {xid}}}"#));
    shop.await_name(&mut client, 8, "new 8");
    let of = |id: u64, xid: u64| {
        format!(
            r#"{{"after": {{"id": {id}}}, "op": "c", "source": {{"schema": "public", "table": "products", "txId": {xid}}}}}"#
        )
    };
    shop.kafka.produce(TOPIC, &of(9, xid));
    shop.await_name(&mut client, 9, "new 9");
    shop.kafka.produce(TOPIC, &of(10, xid + 1_000_000));
    shop.await_name(&mut client, 10, "new 10");

    for id in 11..=99 {
        assert_eq!(client.command(&format!("GET product:{id}")), Reply::bulk(&format!("product {id}")));
    }
    shop.kafka.produce(TOPIC, r#"{"table": "products", "op": "truncate"}"#);
    for id in 11..=100 {
        shop.await_name(&mut client, id, &format!("new {id}"));
    }
    assert_eq!(client.figure("forebay", "feed_kafka_gaps"), 1, "that is the beginning");
}

#[test]
fn poison_is_counted_and_stops_nothing_and_leaves_nothing_old() {
    let mut shop = Shop::open();
    let mut client = shop.server.connect();
    shop.fill(&mut client);
    for (text, counter) in [
        (r#"{"table": "orders", "op": "insert", "after": {"id": 1}}"#, "unmapped"),
        (r#"{"table": "prices", "op": "insert", "after": {"product_id": null}}"#, "null_keys"),
    ] {
        shop.kafka.produce(TOPIC, text);
        client.await_figure(&format!("feed_kafka_{counter}"), 1);
    }
    shop.kafka.produce_tombstone(TOPIC);
    shop.rename("quiet", "TRUE");
    assert_eq!(client.command("GET product:1"), Reply::bulk("product 1"), "those concern no key");

    // A message that names the table and not the key, of which the other group knows nothing.
    shop.database.sql("UPDATE prices SET price = 1");
    shop.kafka.produce(TOPIC, r#"{"table": "products", "op": "update", "after": {"name": "x"}}"#);
    for id in 1..=100 {
        shop.await_name(&mut client, id, &format!("quiet {id}"));
    }
    assert_eq!(client.command("GET price:7"), Reply::bulk("70"));
    let untold = client.figure("forebay", "feed_kafka_untold_keys");
    assert!(untold > 0, "{untold}");
    for (round, text) in ["no JSON", "[1, 2]", "{\"table\": 7}", "{}", "{"].into_iter().enumerate() {
        let name = format!("round {round}");
        shop.rename(&name, "TRUE");
        shop.kafka.produce(TOPIC, text);
        shop.await_name(&mut client, 50, &format!("{name} 50"));
    }
    assert_eq!(client.figure("forebay", "feed_kafka_unreadable"), 5);
    client.await_reply("GET price:7", &Reply::bulk("1"));
    shop.rename("last", "id = 3");
    shop.kafka.produce(TOPIC, r#"{"table": "products", "op": "update", "after": {"id": 3}}"#);
    shop.await_name(&mut client, 3, "last 3");
    assert_eq!(client.figure("forebay", "feed_kafka_gaps"), 1);
}

/// The brokers keep five megabytes of a partition. While the node stands still, more comes than that.
#[test]
fn messages_that_were_removed_unread_leave_nothing_old() {
    let mut shop = Shop::open();
    let mut client = shop.server.connect();
    shop.fill(&mut client);
    shop.rename("unheard", "TRUE");
    shop.server.process().pause();
    shop.kafka.produce(TOPIC, r#"{"table": "products", "op": "update", "after": {"id": 1}}"#);
    let noise = r#"{"table": "orders", "op": "insert", "after": {"id": 1, "note": "PAD"}}"#;
    shop.kafka.produce_with(TOPIC, noise, r#""times": 90, "padding": 100000"#);
    shop.server.process().resume();
    for id in 1..=100 {
        shop.await_name(&mut client, id, &format!("unheard {id}"));
    }
    assert_eq!(client.figure("forebay", "feed_kafka_gaps"), 2);
    shop.rename("again", "id = 5");
    shop.kafka.produce(TOPIC, r#"{"table": "products", "op": "update", "after": {"id": 5}}"#);
    shop.await_name(&mut client, 5, "again 5");
}

#[test]
fn what_is_missing_is_told_before_and_while_a_node_runs() {
    let database = Database::start(SCHEMA);
    let mut kafka = Kafka::start(1);
    kafka.produce("there", "{}");
    let address = kafka.addresses().to_owned();
    for (args, problem, hint) in [
        (&[][..], "feed-brokers: no broker is given", "give --feed-brokers HOST:PORT"),
        (&["--feed-brokers", "127.0.0.1:1"], "the broker 127.0.0.1:1: Connection refused", "advertised.listeners"),
        (
            &["--feed-brokers", &address, "--feed-topic", "nowhere"],
            "there is no topic `nowhere`",
            "--create --topic nowhere",
        ),
        (&["--feed-brokers", "localhost"], "`localhost` is no broker", "write HOST:PORT"),
        (&["--feed-brokers", &address, "--feed-topic", "a b"], "`a b` cannot be the name of a topic", "at most 249"),
        (&["--feed-user", "ann"], "it has no password", "FOREBAY_FEED_PASSWORD"),
        (&["--feed-sasl", "gssapi"], "`gssapi` is no mechanism", "scram-sha-256"),
        (&["--feed-tls", "/nowhere.pem"], "`/nowhere.pem` cannot be read", "write off, on"),
    ] {
        let (is_right, said) = check(&database, args);
        assert!(!is_right && said.contains(problem) && said.contains(hint), "{args:?}: {said}");
    }
    let (is_right, said) = check(&database, &["--feed-brokers", &address, "--feed-topic", "there"]);
    assert!(is_right, "{said}");

    let server = start(&database, &["--feed-brokers", &address, "--feed-topic", "later"]);
    let mut client = server.connect();
    let mut last = None;
    let is_told = || {
        last = client.info("forebay", "feed_kafka_fault");
        last.as_ref().is_some_and(|fault| fault.contains("there is no topic `later`"))
    };
    assert!(eventually(PATIENCE, is_told), "{last:?}");
    kafka.produce("later", "{}");
    server.await_feed("kafka");
}

impl Shop {
    fn open() -> Shop {
        let (database, mut kafka) = (Database::start(SCHEMA), Kafka::start(1));
        // It has a message by which every key would be called in: what was there before is not read.
        kafka.produce(TOPIC, "poison");
        let server = start(&database, &["--feed-brokers", kafka.addresses(), "--feed-topic", TOPIC]);
        server.await_feed("kafka");
        Shop { kafka, database, server }
    }

    /// Loads all keys, and waits until they stay: what runs when a feed begins is waited for.
    fn fill(&mut self, client: &mut Connection) {
        let all = || {
            self.database.forget();
            for id in 1..=100 {
                client.command(&format!("GET product:{id}"));
                client.command(&format!("GET price:{id}"));
            }
            self.database.asked("FROM products") + self.database.asked("FROM prices") == 0
        };
        assert!(eventually(PATIENCE, all), "the keys do not stay");
    }

    fn rename(&self, name: &str, which: &str) {
        self.database.sql(&format!("UPDATE products SET name = '{name} ' || id WHERE {which}"));
    }

    fn await_name(&self, client: &mut Connection, id: u64, name: &str) {
        client.await_reply(&format!("GET product:{id}"), &Reply::bulk(name));
    }
}

fn start(database: &Database, args: &[&str]) -> Forebay {
    let config = format!("origin = \"{}\"\n{GROUPS}", database.url());
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    let options = ForebayOptions { args, config: Some(config), ..ForebayOptions::default() };
    Forebay::start(options).unwrap_or_else(|error| panic!("{error}"))
}

fn check(database: &Database, args: &[&str]) -> (bool, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("groups.toml");
    std::fs::write(&file, GROUPS).expect("a file");
    let mut command = Command::new(forebay_binary());
    command.args(["check", "--origin", &database.url(), "--groups"]).arg(&file).args(args);
    let output = command.output().expect("forebay runs");
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}
