//! The feed `kafka` in a cluster: whichever node dies, the next keeper goes on with the topic where everybody had got to.

use forebay_redis_tests::cluster::node::{Node, PATIENCE};
use forebay_redis_tests::cluster::nodes::{Cluster, ClusterOptions};
use forebay_redis_tests::database::Database;
use forebay_redis_tests::kafka::Kafka;
use forebay_redis_tests::process::eventually;
use forebay_redis_tests::reply::Reply;

const TOPIC: &str = "changes";

const SCHEMA: &str = "
CREATE TABLE products (id int PRIMARY KEY, name text NOT NULL);
INSERT INTO products SELECT n, 'product ' || n FROM generate_series(1, 100) n;
";

const GROUPS: &str = r#"
[[group]]
name = "product"
key = "product:{id}"
load = "SELECT name FROM products WHERE id = $1"
as = "string"
invalidated_by = ["products(id)"]
feed = "kafka"
"#;

#[test]
fn whoever_is_killed_the_next_keeper_goes_on_where_that_one_was() {
    let (database, mut kafka) = (Database::start(SCHEMA), Kafka::start(3));
    kafka.produce(TOPIC, r#"{"table": "orders", "op": "insert", "after": {"id": 1}}"#);
    let mut cluster = start(&database, &kafka, 3);
    for round in 0..3 {
        let keeper = await_keeper(&cluster);
        for id in 1..=20 {
            change(&database, &mut kafka, id, &format!("round {round}"));
        }
        for node in cluster.running() {
            for id in 1..=20 {
                node.connect().await_reply(&format!("GET product:{id}"), &Reply::bulk(&format!("round {round}")));
            }
        }
        // How far all is told is agreed on after a while, and may have been by now: one more change is to be remembered in any case.
        let before = epoch(&cluster.nodes[keeper]);
        change(&database, &mut kafka, 21, &format!("round {round}"));
        let is_remembered = || epoch(&cluster.nodes[keeper]) > before;
        assert!(eventually(PATIENCE, is_remembered), "round {round}: the position is not remembered");
        cluster.nodes[keeper].kill();
        for id in 1..=5 {
            change(&database, &mut kafka, id, &format!("death {round}"));
        }
        let next = await_keeper(&cluster);
        for node in cluster.running() {
            for id in 1..=5 {
                node.connect().await_reply(&format!("GET product:{id}"), &Reply::bulk(&format!("death {round}")));
            }
            assert_eq!(node.connect().command("GET product:6"), Reply::bulk(&format!("round {round}")));
        }
        let mut client = cluster.nodes[next].connect();
        assert_eq!(client.figure("forebay", "feed_kafka_gaps"), 0, "nothing was missed");
        assert_eq!(client.figure("forebay", "feed_kafka_unmapped"), 0, "it did not begin at the beginning");
        let parts = client.figure("forebay", "feed_kafka_transactions");
        println!("round {round}: node {next} goes on after node {keeper}, and tells of {parts} parts");
        cluster.nodes[keeper].restart();
        cluster.await_settled();
    }
}

#[test]
fn a_node_that_is_restarted_goes_on_where_it_was() {
    let (database, mut kafka) = (Database::start(SCHEMA), Kafka::start(1));
    kafka.produce(TOPIC, "{}");
    let mut cluster = start(&database, &kafka, 1);
    await_keeper(&cluster);
    let mut client = cluster.nodes[0].connect();
    client.await_figure("feed_kafka_gaps", 1);
    change(&database, &mut kafka, 1, "told");
    client.await_reply("GET product:1", &Reply::bulk("told"));
    client.await_figure("feed_kafka_transactions", 1);
    let before = epoch(&cluster.nodes[0]);
    change(&database, &mut kafka, 1, "told once more");
    assert!(eventually(PATIENCE, || epoch(&cluster.nodes[0]) > before), "the position is not remembered");
    cluster.nodes[0].kill();
    change(&database, &mut kafka, 2, "missed");
    change(&database, &mut kafka, 3, "missed");
    cluster.nodes[0].restart();
    await_keeper(&cluster);
    let mut client = cluster.nodes[0].connect();
    let told = || client.figure("forebay", "changed_keys") >= 2;
    assert!(eventually(PATIENCE, told), "what came while it was away is not told");
    assert_eq!(client.figure("forebay", "feed_kafka_gaps"), 0);
    assert_eq!(client.figure("forebay", "feed_kafka_unreadable"), 0, "it did not begin at the beginning");
}

fn start(database: &Database, kafka: &Kafka, nodes: usize) -> Cluster {
    let mut options = ClusterOptions { nodes, ..ClusterOptions::default() }.in_front_of(&database.url(), GROUPS);
    options.args.extend(["--feed-brokers", kafka.addresses(), "--feed-topic", TOPIC].map(str::to_owned));
    Cluster::start(options)
}

/// Changes a row, and tells of it.
fn change(database: &Database, kafka: &mut Kafka, id: usize, name: &str) {
    database.sql(&format!("UPDATE products SET name = '{name}' WHERE id = {id}"));
    let text = format!(r#"{{"table": "products", "op": "update", "after": {{"id": {id}}}}}"#);
    kafka.produce_with(TOPIC, &text, &format!(r#""partition": {}"#, id % 4));
}

/// The number of the node that follows.
fn await_keeper(cluster: &Cluster) -> usize {
    let mut keeper = None;
    let is_there = || {
        keeper = cluster.nodes.iter().position(|node| node.is_started() && node.connectable() && is_keeper(node));
        keeper.is_some()
    };
    assert!(eventually(PATIENCE, is_there), "nobody follows");
    keeper.expect("it was found")
}

fn is_keeper(node: &Node) -> bool {
    node.connect().info("forebay", "feed_kafka").as_deref() == Some("following")
}

fn epoch(node: &Node) -> u64 {
    let told = node.connect().command("CLUSTER INFO").words();
    let epoch = told.lines().find_map(|line| line.strip_prefix("cluster_current_epoch:")?.trim().parse().ok());
    epoch.unwrap_or_else(|| panic!("no epoch in {told}"))
}
