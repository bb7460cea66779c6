//! Freshness in a cluster: whichever node dies, also the one that follows the database, what was changed is taken out everywhere.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use forebay_redis_tests::checker::faults::signal;
use forebay_redis_tests::cluster::node::{Node, PATIENCE, wait_until};
use forebay_redis_tests::cluster::nodes::{Cluster, ClusterOptions};
use forebay_redis_tests::cluster::roaming::Roaming;
use forebay_redis_tests::cluster::weather::Conditions;
use forebay_redis_tests::connection::Connection;
use forebay_redis_tests::database::Database;
use forebay_redis_tests::over::Over;
use forebay_redis_tests::process::eventually;
use forebay_redis_tests::reply::Reply;

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
    let owner = cluster.owner_of(name);
    await_all(&mut [cluster.nodes[owner].connect()], "thing");
    let addresses = cluster.addresses();
    let ends = AtomicBool::new(false);
    database.forget();
    let (changes, half) = (40, 20);
    thread::scope(|scope| {
        let _over = Over::at_end(&ends);
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
        set_guard(&cluster, "copies", guard);
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

/// What the meter finds at owners, copies and those who answer for a hot key, whichever node is asked for it; and that it finds what each of
/// them has kept although it should not have.
#[test]
fn the_meter_looks_at_every_place_where_a_value_may_be_old() {
    let (database, cluster) = start_with(ClusterOptions::with("--hot-key-reads 20 --freshness-samples 200"));
    let name = "thing:7";
    let owner = cluster.owner_of(name);
    let ends = AtomicBool::new(false);
    let mut changes = 0;
    thread::scope(|scope| {
        let _over = Over::at_end(&ends);
        for node in cluster.others(owner) {
            let (cluster, ends) = (&cluster, &ends);
            scope.spawn(move || {
                let mut client = cluster.nodes[node].connect();
                while !ends.load(Relaxed) {
                    client.command(&format!("GET {name}"));
                }
            });
        }
        // Far enough from each other that a hot key is copied in between.
        let mut change_until = |what: &str, is_so: &dyn Fn() -> bool| {
            let is_so = || {
                changes += 1;
                database.sql(&format!("UPDATE things SET name = 'change {changes}' WHERE id = 7"));
                let next = Instant::now() + Duration::from_millis(300);
                let mut client = cluster.nodes[owner].connect();
                (1..=ROWS).for_each(|id| drop(client.command(&format!("GET thing:{id}"))));
                wait_until(next);
                is_so()
            };
            assert!(eventually(PATIENCE, is_so), "{what}: {}", told(&cluster));
        };
        let at = |place: &str, kind: &str| count(&cluster.nodes[0], place, kind);
        change_until("nothing was looked at", &|| {
            ["owner", "replica", "hot_copy"].iter().all(|place| at(place, "fresh_100ms") > 10)
                && ["owner", "replica"].iter().all(|place| at(place, "fresh_1s") > 0)
        });
        println!("{}", told(&cluster));
        for node in &cluster.nodes {
            // On a machine with too much to do changes may be late, and that is told, too.
            for age in ["100ms", "1s"] {
                let share = node.info("forebay", &format!("fresh_ratio_{age}")).expect("a share");
                assert!(share.parse::<f64>().expect("a number") > 0.5, "{age}: {}", told(&cluster));
            }
        }
        for (guard, places) in [("take-backs", &["hot_copy"][..]), ("drop", &["owner", "replica"])] {
            let before: Vec<u64> = places.iter().map(|place| at(place, "stale_100ms")).collect();
            set_guard(&cluster, guard, "0");
            change_until(guard, &|| {
                places.iter().zip(&before).all(|(place, before)| at(place, "stale_100ms") > before + 5)
            });
            set_guard(&cluster, guard, "1");
        }
        println!("{}", told(&cluster));
    });
}

fn set_guard(cluster: &Cluster, guard: &str, is_there: &str) {
    for node in &cluster.nodes {
        assert_eq!(node.connect().command(&format!("DEBUG GUARD {guard} {is_there}")), Reply::ok());
    }
}

/// What the meter has counted at a place.
fn count(node: &Node, place: &str, kind: &str) -> u64 {
    let counts = node.info("forebay", &format!("freshness_{place}")).expect("counts");
    let count = counts.split(',').find_map(|count| count.strip_prefix(kind)?.strip_prefix('='));
    count.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("no {kind} in {counts}"))
}

fn told(cluster: &Cluster) -> String {
    let fields = ["owner", "replica", "hot_copy"].map(|place| format!("freshness_{place}"));
    let fields =
        fields.map(|field| format!("{field}: {}\n", cluster.nodes[0].info("forebay", &field).unwrap_or_default()));
    let alarms = |node: &Node| {
        let delay = node.info("forebay", "change_delay_max_us").unwrap_or_default();
        let output = node.output();
        let lines = output.lines().filter(|line| line.contains("the database has replaced"));
        lines.map(|line| format!("{line}\n")).chain([format!("{node}: at most {delay} us late\n")]).collect::<String>()
    };
    fields.into_iter().chain(cluster.nodes.iter().map(alarms)).collect()
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
