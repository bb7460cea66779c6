//! Freshness in a cluster: whichever node dies, also the one that follows the database, what was changed is taken out everywhere.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use forebay_redis_tests::checker::faults::signal;
use forebay_redis_tests::cluster::nodes::{Cluster, ClusterOptions};
use forebay_redis_tests::cluster::roaming::Roaming;
use forebay_redis_tests::cluster::weather::Conditions;
use forebay_redis_tests::connection::Connection;
use forebay_redis_tests::database::Database;
use forebay_redis_tests::process::eventually;
use forebay_redis_tests::reply::Reply;

/// How long a condition may take to come about.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long nodes do not hear each other: shorter than a lease.
const CUT: Duration = Duration::from_millis(500);

/// How long an answer is waited for meanwhile.
const ANSWERED: Duration = Duration::from_millis(100);

const ROWS: usize = 200;

const GROUPS: &str = r#"
[[group]]
name = "thing"
key = "thing:{id}"
load = "SELECT name FROM things WHERE id = $1"
as = "string"
invalidated_by = ["things(id)"]
"#;

#[test]
fn a_change_is_seen_at_every_node_and_costs_one_load() {
    let (database, cluster) = start();
    let mut clients: Vec<Connection> = cluster.nodes.iter().map(|node| node.connect()).collect();
    await_all(&mut clients, "thing");
    database.forget();
    database.sql("UPDATE things SET name = 'new ' || id");
    await_all(&mut clients, "new");
    let loads = database.rows("FROM things");
    println!("{loads} loads of {ROWS} changed keys by three nodes");
    assert_eq!(loads, ROWS as u64);
    let names: Vec<String> = (1..=ROWS).map(|id| format!("thing:{id}")).collect();
    cluster.await_equal_copies(&names, PATIENCE);
}

#[test]
fn the_death_of_any_node_loses_no_change() {
    let (database, mut cluster) = start();
    for victim in 0..3 {
        let before = format!("round {victim}");
        database.sql(&format!("UPDATE things SET name = '{before} ' || id"));
        let mut clients: Vec<Connection> = cluster.nodes.iter().map(|node| node.connect()).collect();
        await_all(&mut clients, &before);
        let after = format!("death of {victim}");
        cluster.nodes[victim].kill();
        // Whether the keeper has died or another: nobody tells of this until the others know.
        database.sql(&format!("UPDATE things SET name = '{after} ' || id"));
        let mut clients: Vec<Connection> = cluster.running().map(|node| node.connect()).collect();
        await_all(&mut clients, &after);
        cluster.nodes[victim].restart();
        cluster.await_settled();
        let mut clients: Vec<Connection> = cluster.nodes.iter().map(|node| node.connect()).collect();
        await_all(&mut clients, &after);
    }
}

/// Many clients at all nodes want one key all the time; its row is changed again and again, and its owner is killed.
#[test]
fn a_herd_costs_one_load_for_each_change_and_owner() {
    let (database, mut cluster) = start();
    let name = "thing:7";
    let owner = cluster.owned_of(0, &[name.to_owned()]);
    let owner = if owner.is_empty() {
        (1..3).find(|node| !cluster.owned_of(*node, &[name.to_owned()]).is_empty())
    } else {
        Some(0)
    };
    let owner = owner.expect("the key has an owner");
    await_all(&mut [cluster.nodes[owner].connect()], "thing");
    let addresses = cluster.addresses();
    let ends = AtomicBool::new(false);
    database.forget();
    let (changes, half) = (40, 20);
    thread::scope(|scope| {
        for number in 0..48 {
            let (addresses, ends) = (&addresses, &ends);
            scope.spawn(move || {
                let mut client = Roaming::new(addresses.clone(), number, Duration::from_secs(2));
                while !ends.load(Relaxed) {
                    client.call(&["GET", name]);
                }
            });
        }
        for change in 1..=changes {
            if change == half {
                cluster.nodes[owner].kill();
            }
            database.sql(&format!("UPDATE things SET name = 'change {change}' WHERE id = 7"));
            let expected = Reply::bulk(&format!("change {change}"));
            let is_seen = || {
                let node = cluster.running().next().expect("two nodes are left");
                node.connect().command(&format!("GET {name}")) == expected
            };
            assert!(eventually(PATIENCE, is_seen), "change {change} is not seen");
        }
        ends.store(true, Relaxed);
    });
    let loads = database.asked("FROM things");
    println!("{loads} loads of one key for {changes} changes, with one change of its owner, by 48 clients");
    assert!(loads <= changes + 1, "{loads}");
}

/// The owner of keys follows the database as well, and cannot be heard by the others: they hold what it has replaced. Whatever it has answered
/// then, they must not go back behind it when it dies; and they do, if it does not wait for them.
#[test]
fn what_was_seen_stays_seen_when_its_owner_dies() {
    let went_back = |guard: &str| {
        let (database, mut cluster) = start_with(ClusterOptions { has_weather: true, ..ClusterOptions::default() });
        await_all(&mut cluster.nodes.iter().map(|node| node.connect()).collect::<Vec<_>>(), "thing");
        let names: Vec<String> = (1..=ROWS).map(|id| format!("thing:{id}")).collect();
        cluster.await_equal_copies(&names, PATIENCE);
        for node in &cluster.nodes {
            assert_eq!(node.connect().command(&format!("DEBUG GUARD copies {guard}")), Reply::ok());
        }
        let follows = |node: &usize| cluster.nodes[*node].info("forebay", "feed_wal").as_deref() == Some("following");
        let keeper = (0..3).find(follows).expect("somebody follows the database");
        let owned: Vec<String> =
            cluster.owned_of(keeper, &names).into_iter().take(10).map(|at| names[at].clone()).collect();
        let ids = owned.iter().map(|name| name.replace("thing:", "")).collect::<Vec<_>>().join(", ");

        cluster.weather(Conditions { is_cut: true, ..Conditions::default() });
        database.sql(&format!("UPDATE things SET name = 'new ' || id WHERE id IN ({ids})"));
        let began = Instant::now();
        let mut seen = BTreeSet::new();
        while began.elapsed() < CUT {
            for name in &owned {
                // Who waits for copies that do not answer is not waited for here.
                let mut client = Connection::open_within(cluster.nodes[keeper].direct(), ANSWERED).expect("a door");
                if let Ok(raw) = client.call(&["GET", name]) {
                    let reply = Reply::parse(&raw);
                    if matches!(&reply, Reply::Bulk(text) if text.starts_with(b"new")) {
                        seen.insert(name.clone());
                    }
                }
            }
        }
        let senders = database.sql("SELECT active_pid FROM pg_replication_slots WHERE active");
        signal(&senders, "STOP");
        cluster.nodes[keeper].kill();
        cluster.weather(Conditions::default());
        let went_back = seen.iter().filter(|name| {
            let mut reply = Reply::NilBulk;
            let is_answered = || {
                let node = cluster.running().next().expect("two nodes are left");
                reply = node.connect().command(&format!("GET {name}"));
                matches!(reply, Reply::Bulk(_))
            };
            assert!(eventually(PATIENCE, is_answered), "{name}: {reply}");
            !matches!(&reply, Reply::Bulk(text) if text.starts_with(b"new"))
        });
        let went_back = went_back.count();
        signal(&senders, "CONT");
        println!(
            "copies {guard}: of {} keys {} were seen as changed during the cut, {went_back} went back",
            owned.len(),
            seen.len()
        );
        went_back
    };
    assert_eq!(went_back("1"), 0);
    assert!(went_back("0") > 0, "nobody needs to wait for copies");
}

fn start() -> (Database, Cluster) {
    start_with(ClusterOptions::default())
}

fn start_with(options: ClusterOptions) -> (Database, Cluster) {
    let database = Database::start(&format!(
        "CREATE TABLE things (id int PRIMARY KEY, name text NOT NULL); \
         INSERT INTO things SELECT n, 'thing ' || n FROM generate_series(1, {ROWS}) n;"
    ));
    let cluster = Cluster::start(options.in_front_of(&database.url(), GROUPS));
    let follows = || {
        cluster.nodes.iter().any(|node| match node.connect().command("INFO forebay") {
            Reply::Bulk(text) => String::from_utf8_lossy(&text).contains("feed_wal:following"),
            _ => false,
        })
    };
    assert!(eventually(PATIENCE, follows), "nobody follows the database");
    (database, cluster)
}

/// Waits until every node gives every row as it is now.
fn await_all(clients: &mut [Connection], name: &str) {
    for client in clients {
        for id in 1..=ROWS {
            let (line, expected) = (format!("GET thing:{id}"), Reply::bulk(&format!("{name} {id}")));
            let mut last = Reply::NilBulk;
            let is_there = || {
                last = client.command(&line);
                last == expected
            };
            assert!(eventually(PATIENCE, is_there), "{line} -> {last}, and not {expected}");
        }
    }
}
