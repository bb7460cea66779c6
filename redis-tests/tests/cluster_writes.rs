//! Writes of groups in a cluster: linearizable, whoever dies, and nothing that was acknowledged is missing in the database.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use forebay_redis_tests::cluster::durability;
use forebay_redis_tests::cluster::history::History;
use forebay_redis_tests::cluster::node::{Node, PATIENCE};
use forebay_redis_tests::cluster::nodes::{Cluster, ClusterOptions};
use forebay_redis_tests::cluster::register;
use forebay_redis_tests::cluster::registers::{RegisterOptions, Registers};
use forebay_redis_tests::cluster::verdict::options;
use forebay_redis_tests::database::Database;
use forebay_redis_tests::over::Over;
use forebay_redis_tests::process::eventually;
use forebay_redis_tests::reply::Reply;
use forebay_redis_tests::sizes;
use forebay_redis_tests::small_disk::SmallDisk;

/// Clients that keep a history.
const WRITERS: usize = 6;

/// Writes that are acknowledged before, during and after a fault.
const ENOUGH: u64 = 150;

const SCHEMA: &str = "
CREATE TABLE registers (id int PRIMARY KEY, value bigint NOT NULL);
CREATE TABLE counters (id int PRIMARY KEY, hits bigint NOT NULL, note text NOT NULL DEFAULT '');
INSERT INTO counters SELECT n, 0 FROM generate_series(1, 50) n;
";

fn groups(strategy: &str) -> String {
    format!(
        r#"
[[group]]
name = "register"
key = "register:{{id}}"
load = "SELECT value FROM registers WHERE id = $1"
as = "string"
write = "{strategy}"
save = "INSERT INTO registers VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET value = excluded.value"
remove = "DELETE FROM registers WHERE id = $1"
invalidated_by = ["registers(id)"]

[[group]]
name = "counter"
key = "counter:{{id}}"
load = "SELECT hits, note FROM counters WHERE id = $1"
as = "hash"
write = "{strategy}"
save = """
UPDATE counters SET hits = coalesce(($2::jsonb ->> 'hits')::bigint, hits), note = coalesce($2::jsonb ->> 'note', note) WHERE id = $1
"""
invalidated_by = ["counters(id)"]

[[group]]
name = "total"
key = "total:{{id}}"
load = "SELECT hits FROM counters WHERE id = $1"
as = "string"
write = "{strategy}"
save = "UPDATE counters SET hits = $2 WHERE id = $1"
invalidated_by = ["counters(id)"]
"#
    )
}

#[test]
fn through_is_linearizable_whoever_dies() {
    let (database, mut cluster) = start("through");
    let registers = begin(&cluster);
    for victim in 0..cluster.nodes.len() {
        cluster.nodes[victim].kill();
        registers.await_writes(ENOUGH, PATIENCE);
        cluster.nodes[victim].restart();
        cluster.await_settled();
        registers.await_writes(ENOUGH, PATIENCE);
    }
    judge(&database, &cluster, registers);
}

/// The slots of a node that leaves in order move under the writes; nobody sees an error that says less than what happened.
#[test]
fn through_goes_on_while_slots_move() {
    let (database, mut cluster) = start("through");
    let registers = begin(&cluster);
    let added = cluster.add();
    registers.await_writes(2 * ENOUGH, PATIENCE);
    cluster.await_settled();
    cluster.nodes[added].terminate();
    registers.await_writes(2 * ENOUGH, PATIENCE);
    cluster.nodes[added].await_end();
    judge(&database, &cluster, registers);
}

#[test]
fn behind_loses_nothing_whoever_dies() {
    let (mut database, mut cluster) = start("behind");
    let registers = begin(&cluster);
    for victim in 0..cluster.nodes.len() {
        cluster.nodes[victim].kill();
        registers.await_writes(ENOUGH, PATIENCE);
        if victim == 1 {
            database.stop();
            registers.await_writes(ENOUGH, PATIENCE);
            database.start_again();
        }
        cluster.nodes[victim].restart();
        cluster.await_settled();
        registers.await_writes(ENOUGH, PATIENCE);
    }
    judge(&database, &cluster, registers);
}

/// All nodes are gone at once while the database is away: the journals have what was acknowledged.
#[test]
fn behind_is_made_up_for_after_the_death_of_all() {
    let (mut database, mut cluster) = start("behind");
    let mut client = cluster.nodes[0].connect();
    let began = std::time::Instant::now();
    for id in 1..=50 {
        assert_eq!(client.command(&format!("HINCRBY counter:{id} hits {id}")), Reply::Integer(id));
    }
    println!("50 writes took {:.1?}", began.elapsed());
    database.await_sql("SELECT count(*) FROM counters WHERE hits = id", "50");
    let is_pending =
        || cluster.nodes.iter().any(|node| node.info("forebay", "behind_pending_keys") != Some("0".to_owned()));
    assert!(eventually(PATIENCE, || !is_pending()), "something is pending for ever");
    for id in 1..=50 {
        assert_eq!(client.command(&format!("HGET counter:{id} hits")), Reply::bulk(&id.to_string()));
    }
    database.stop();
    let began = std::time::Instant::now();
    for id in 1..=50 {
        assert_eq!(client.command(&format!("HSET counter:{id} note n{id}")), Reply::Integer(0));
        assert_eq!(client.command(&format!("SET register:{id} {id}")), Reply::ok());
    }
    println!("100 writes without loads took {:.1?}", began.elapsed());
    cluster.nodes.iter_mut().for_each(Node::kill);
    database.start_again();
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.await_settled();
    database.await_sql("SELECT count(*) FROM counters WHERE hits = id AND note = 'n' || id", "50");
    database.await_sql("SELECT count(*) FROM registers WHERE value = id", "50");
    for node in &cluster.nodes {
        let mut client = node.connect();
        assert_eq!(client.command("HGET counter:7 note"), Reply::bulk("n7"));
        assert_eq!(client.command("GET register:7"), Reply::bulk("7"));
    }
}

/// One node with one journal, killed again and again under load; it must not build on a value from before.
#[test]
fn behind_at_one_node_counts_right_through_crashes() {
    let database = Database::start(SCHEMA);
    let options = ClusterOptions { nodes: 1, ..ClusterOptions::default() };
    let mut cluster = Cluster::start(options.in_front_of(&database.url(), &groups("behind")));
    let mut counted = 0;
    for round in 0..5 {
        let mut client = cluster.nodes[0].connect();
        for _ in 0..100 {
            counted += 1;
            assert_eq!(client.command("HINCRBY counter:1 hits 1"), Reply::Integer(counted), "round {round}");
        }
        cluster.nodes[0].kill();
        cluster.nodes[0].restart();
    }
    database.await_sql("SELECT hits FROM counters WHERE id = 1", "500");
}

/// The journal's disk is full while the database is away: what cannot be kept is refused in words, and what was taken is not lost, even if the
/// node dies then.
#[test]
fn behind_with_a_full_disk_refuses_and_loses_nothing() {
    let mut database = Database::start(SCHEMA);
    let options = ClusterOptions { nodes: 1, ..ClusterOptions::default() };
    let mut cluster = Cluster::prepare(options.in_front_of(&database.url(), &groups("behind")));
    let disk = SmallDisk::mount(&cluster.nodes[0].data());
    cluster.nodes[0].start();
    cluster.await_settled();
    let mut client = cluster.nodes[0].connect();
    assert_eq!(client.command("SET register:1 1"), Reply::ok());
    database.stop();
    disk.fill();
    let mut taken = 1;
    let refused = loop {
        match client.command(&format!("SET register:{id} {id}", id = taken + 1)) {
            reply if reply == Reply::ok() => taken += 1,
            reply => break reply,
        }
    };
    println!("{taken} writes are taken, and then: {refused}");
    assert!(refused.is_error("ORIGINBEHIND") && refused.words().contains("No space left on device"), "{refused}");
    assert_eq!(client.command("GET register:1"), Reply::bulk("1"), "it goes on to answer");
    disk.empty();
    let next = taken + 2;
    let is_taken = || client.command(&format!("SET register:{next} {next}")) == Reply::ok();
    assert!(eventually(PATIENCE, is_taken), "writes are not taken again");
    cluster.nodes[0].kill();
    database.start_again();
    cluster.nodes[0].restart();
    database.await_sql("SELECT count(*) FROM registers WHERE value = id", &(taken + 1).to_string());
    database.await_sql(&format!("SELECT count(*) FROM registers WHERE id = {}", taken + 1), "0");
}

/// Counting at every node by turns, of a row that others change all the time: each count builds on what the database has, also where the key is missing.
#[test]
fn increments_at_all_nodes_keep_what_others_change_in_the_row() {
    const CHANGES: usize = 30;
    // One field of a hash, and a string of the same column.
    let hash = ("counter:1", "HINCRBY counter:1 hits 1", "HGET counter:1 hits");
    let string = ("total:1", "INCR total:1", "GET total:1");
    for (strategy, (key, count, read)) in [("through", hash), ("around", hash), ("through", string), ("around", string)]
    {
        let (database, cluster) = start(strategy);
        let (is_over, counted) = (AtomicBool::new(false), AtomicU64::new(0));
        thread::scope(|scope| {
            let _over = Over::at_end(&is_over);
            for node in &cluster.nodes {
                let mut client = node.connect();
                let (is_over, counted) = (&is_over, &counted);
                scope.spawn(move || {
                    while !is_over.load(Relaxed) {
                        let reply = client.command(count);
                        assert!(matches!(reply, Reply::Integer(_)), "{reply}");
                        counted.fetch_add(1, Relaxed);
                        client.command(&format!("FOREBAY.INVALIDATE {key}"));
                    }
                });
            }
            for change in 1..=CHANGES {
                database.sql(&format!("UPDATE counters SET note = 'note {change}' WHERE id = 1"));
            }
        });
        let counted = counted.into_inner();
        println!("{count}, {strategy}: {CHANGES} changes by others among {counted} increments");
        database.await_sql("SELECT hits, note FROM counters WHERE id = 1", &format!("{counted}|note {CHANGES}"));
        for node in &cluster.nodes {
            assert_eq!(node.connect().command(read), Reply::bulk(&counted.to_string()), "{node}");
        }
    }
}

// ---- what all of them use -----------------------------------------------------------------------

fn start(strategy: &str) -> (Database, Cluster) {
    let database = Database::start(SCHEMA);
    let cluster = Cluster::start(ClusterOptions::default().in_front_of(&database.url(), &groups(strategy)));
    (database, cluster)
}

fn begin(cluster: &Cluster) -> Registers {
    println!("seed {}", sizes::seed());
    let mut registers = Registers::new(RegisterOptions { rest: Duration::from_millis(5), ..options("register") });
    registers.add(WRITERS, &cluster.addresses());
    registers.await_writes(ENOUGH, PATIENCE);
    registers
}

fn judge(database: &Database, cluster: &Cluster, registers: Registers) {
    let names = registers.names();
    let node = cluster.running().next().expect("a node runs").address();
    let (history, finally) = registers.end(node, PATIENCE);
    println!("{history}");
    assert_right(&history, &finally);
    for (key, value) in finally {
        let sql = format!("SELECT coalesce(max(value)::text, 'nothing') FROM registers WHERE id = {key}");
        database.await_sql(&sql, &value.map_or("nothing".to_owned(), |value| value.to_string()));
    }
    cluster.await_equal_copies(&names, PATIENCE);
}

fn assert_right(history: &History, finally: &[(u32, Option<u64>)]) {
    let losses = durability::losses(history, finally);
    assert!(losses.is_empty(), "{} keys lost an acknowledged write, first: {}", losses.len(), losses[0]);
    let violations = register::violations(history);
    assert!(violations.is_empty(), "{} keys are not linearizable, first: {}", violations.len(), violations[0]);
}
