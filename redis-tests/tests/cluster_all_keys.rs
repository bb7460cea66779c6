//! What is asked of all keys, of all nodes, or of the nodes that have written: whichever of them come and go meanwhile.

use std::collections::BTreeSet;

use forebay_redis_tests::cluster::nodes::{Cluster, ClusterOptions};
use forebay_redis_tests::connection::Connection;
use forebay_redis_tests::database::Database;
use forebay_redis_tests::reply::Reply;

/// Keys that are there from the beginning of a scan to its end, and how many of them are in one slot.
const KEYS: usize = 2_000;
const IN_ONE_SLOT: usize = 300;

/// JavaScript's numbers, and whoever else keeps them as IEEE 754 doubles, know no larger integers.
const LARGEST_INTEGER: u64 = 1 << 53;

#[test]
fn a_scan_lists_every_key_whatever_nodes_come_and_go() {
    let mut cluster = Cluster::start(ClusterOptions { nodes: 4, ..ClusterOptions::default() });
    let names = fill(&cluster);
    let mut scan = Scan::begin(&cluster);
    for victim in 1..4 {
        scan.go_on(names.len() * (2 * victim - 1) / 8);
        cluster.nodes[victim].kill();
        scan.go_on(names.len() * victim / 4);
        cluster.nodes[victim].restart();
        cluster.await_settled();
    }
    let mut scan_while_leaving = Scan::begin(&cluster);
    scan_while_leaving.go_on(names.len() / 4);
    cluster.nodes[1].terminate();
    assert!(cluster.nodes[1].await_end().success());
    for (scan, name) in [(scan, "kills"), (scan_while_leaving, "a drain")] {
        let seen = scan.finish();
        // On a machine that is too slow all holders of a slot may be taken for dead, and then its keys are gone.
        let mut client = cluster.nodes[0].connect();
        let mut is_there = |name: &String| client.command(&format!("EXISTS {name}")) == Reply::Integer(1);
        let there: Vec<_> = names.iter().filter(|name| is_there(name)).collect();
        assert!(there.len() > KEYS / 2, "{name}: only {} keys are left", there.len());
        let missing: Vec<_> = there.iter().filter(|name| !seen.contains(**name)).collect();
        assert!(missing.is_empty(), "{name}: {} of {} are missing, such as {}", missing.len(), there.len(), missing[0]);
    }
}

#[test]
fn what_all_nodes_are_asked_waits_for_the_successor_of_a_dead_one() {
    let mut cluster = Cluster::start(ClusterOptions::default());
    let names = fill(&cluster);
    let expected = Reply::Integer(names.len() as i64);
    let mut client = cluster.nodes[0].connect();
    assert_eq!(client.command("DBSIZE"), expected);
    let owners = |seen: &BTreeSet<String>| {
        let seen: Vec<String> = seen.iter().cloned().collect();
        (0..3).filter(|node| !cluster.owned_of(*node, &seen).is_empty()).count()
    };
    let picked: BTreeSet<String> = (0..200).map(|_| client.command("RANDOMKEY").words()).collect();
    assert_eq!(owners(&picked), 3, "keys of all nodes are picked");
    for line in ["DBSIZE", "KEYS *", "SCAN 0 COUNT 100000", "RANDOMKEY"] {
        cluster.nodes[2].kill();
        let reply = client.command(line);
        match line {
            "DBSIZE" => assert_eq!(reply, expected),
            "KEYS *" => assert_eq!(reply.items().map(<[Reply]>::len), Some(names.len())),
            "RANDOMKEY" => assert!(names.contains(&reply.words()), "{reply}"),
            _ => assert_eq!(reply.items().and_then(|items| items[1].items()).map(<[Reply]>::len), Some(names.len())),
        }
        cluster.nodes[2].restart();
        cluster.await_settled();
    }
}

/// A slot that changes hands is emptied by the one or by the other.
#[test]
fn emptying_reaches_what_is_changing_hands() {
    let mut cluster = Cluster::start(ClusterOptions::default());
    let mut client = cluster.nodes[0].connect();
    let keys: String = (0..KEYS).map(|n| format!("SET key:{n} x\r\n")).collect();
    let mut empty = || {
        client.send(keys.as_bytes()).expect("the node reads");
        (0..KEYS).for_each(|_| assert_eq!(client.read_raw().expect("a reply"), b"+OK\r\n"));
        assert_eq!(client.command("FLUSHALL"), Reply::ok());
        assert_eq!(client.command("DBSIZE"), Reply::Integer(0), "keys are left");
    };
    empty();
    for _ in 0..3 {
        cluster.add();
        let mut rounds = 0;
        while !cluster.is_settled() {
            empty();
            rounds += 1;
        }
        println!("{rounds} times while a node came");
    }
}

/// Arguments as redis-server 7.0.15 takes and refuses them.
#[test]
fn several_owners_change_no_error() {
    let cluster = Cluster::start(ClusterOptions::default());
    let mut client = cluster.nodes[0].connect();
    let missing = Reply::Error(b"ERR wrong number of arguments for 'mset' command".to_vec());
    assert_eq!(client.command("MSET a 1 b 2 c"), missing);
    for line in ["SCAN \"\"", "SCAN -0", "SCAN +0"] {
        assert_eq!(client.command(line), Reply::Array(vec![Reply::bulk("0"), Reply::Array(Vec::new())]), "{line}");
    }
    for (line, error) in [
        ("SCAN x", "ERR invalid cursor"),
        ("SCAN 0 COUNT 0", "ERR syntax error"),
        ("SCAN 0 COUNT x", "ERR value is not an integer or out of range"),
        ("SCAN 0 MATCH", "ERR syntax error"),
    ] {
        assert_eq!(client.command(line), Reply::Error(error.into()), "{line}");
    }
    assert!(client.command("FOREBAY.SCAN 0 0 0 1").is_error("ERR"), "it is for nodes alone");
    assert!(client.command("FUNCTION HELP").items().is_some());
    // By this some clients go when a key is said to have moved.
    let mut direct = Connection::open(cluster.nodes[0].direct()).expect("the direct port is open");
    for (door, mode) in [(&mut client, "standalone"), (&mut direct, "cluster")] {
        assert!(door.command("INFO server").words().contains(&format!("redis_mode:{mode}\r\n")));
        let hello = door.command("HELLO 2").items().expect("what it says of itself").to_vec();
        assert!(hello.contains(&Reply::bulk(mode)), "{hello:?}");
    }
}

#[test]
fn wait_counts_nothing_that_died_with_its_writer() {
    let mut cluster = Cluster::start(ClusterOptions::default());
    let names = fill(&cluster);
    let [theirs, others] = [2, 1].map(|node| names[cluster.owned_of(node, &names)[0]].clone());
    let mut client = cluster.nodes[0].connect();
    assert_eq!(client.command(&format!("SET {theirs} x")), Reply::ok());
    assert_eq!(client.command(&format!("SET {others} x")), Reply::ok());
    assert_eq!(client.command("WAIT 2 30000"), Reply::Integer(2));
    cluster.nodes[2].kill();
    // Nobody can tell any more what the copies had of it.
    assert_eq!(client.command("WAIT 1 1000"), Reply::Integer(0));
    assert_eq!(client.command(&format!("SET {theirs} y")), Reply::ok());
    assert_eq!(client.command("WAIT 1 30000"), Reply::Integer(1), "by its new owner");
    // A part of a request counts as well as the whole.
    assert_eq!(client.command(&format!("MSET {theirs} z {others} z")), Reply::ok());
    assert_eq!(client.command("WAIT 1 30000"), Reply::Integer(1));
}

/// A client that is content with copies costs one load for each key that nobody has, by its owner, as any other client does.
#[test]
fn who_reads_from_copies_has_owners_load() {
    const ROWS: usize = 60;
    let (database, cluster) = in_front_of_things(ROWS);
    let mut client = cluster.nodes[0].connect();
    assert_eq!(client.command("READONLY"), Reply::ok());
    for _ in 0..2 {
        for id in 1..=ROWS {
            assert_eq!(client.command(&format!("GET thing:{id}")), Reply::bulk(&format!("thing {id}")));
        }
    }
    assert_eq!(client.command("GET thing:0"), Reply::NilBulk);
    assert_eq!(database.rows("FROM things"), ROWS as u64);
}

/// A request waits at its owner, those of its pipeline that go to the same owner later wait behind it, and one that is sent when another owner has
/// answered does not overtake them.
#[test]
fn no_request_of_a_pipeline_overtakes_another_at_its_owner() {
    let (_database, cluster) = in_front_of_things(200);
    let names: Vec<String> = (0..1_000).map(|n| format!("key:{n}")).collect();
    let things: Vec<String> = (1..=200).map(|id| format!("slow:{id}")).collect();
    let [first, second] =
        [1, 2].map(|node| cluster.owned_of(node, &names).into_iter().map(|at| &names[at][..]).collect::<Vec<_>>());
    let slow: Vec<&str> = cluster.owned_of(2, &things).into_iter().map(|at| &things[at][..]).collect();
    let mut client = cluster.nodes[0].connect();
    for (round, slow) in slow.iter().take(5).enumerate() {
        let key = second[round];
        assert_eq!(client.command(&format!("SET {key} before")), Reply::ok());
        let pipeline = format!(
            "MGET {}\r\nGET {slow}\r\nSET {key} after\r\nMGET {}\r\nGET {key}\r\n",
            first[..30].join(" "),
            first[..40].join(" ")
        );
        client.send(pipeline.as_bytes()).expect("the node reads");
        let replies: Vec<Reply> = (0..5).map(|_| Reply::parse(&client.read_raw().expect("a reply"))).collect();
        assert_eq!(replies[2], Reply::ok());
        assert_eq!(replies[4], Reply::bulk("after"), "round {round}");
    }
}

/// A scan by a client of one node, some keys at a time.
struct Scan {
    client: Connection,
    cursor: u64,
    seen: BTreeSet<String>,
}

impl Scan {
    fn begin(cluster: &Cluster) -> Scan {
        Scan { client: cluster.nodes[0].connect(), cursor: 0, seen: BTreeSet::new() }
    }

    /// Until so many keys have been seen.
    fn go_on(&mut self, keys: usize) {
        while self.seen.len() < keys {
            assert!(self.step(), "the scan ends with {} keys", self.seen.len());
        }
    }

    fn finish(mut self) -> BTreeSet<String> {
        while self.step() {}
        self.seen
    }

    /// Whether there is more.
    fn step(&mut self) -> bool {
        let reply = self.client.command(&format!("SCAN {} COUNT 10", self.cursor));
        let items = reply.items().unwrap_or_else(|| panic!("{reply}"));
        self.seen.extend(items[1].items().expect("keys").iter().map(Reply::words));
        self.cursor = items[0].words().parse().expect("a cursor");
        assert!(self.cursor < LARGEST_INTEGER, "{}", self.cursor);
        self.cursor != 0
    }
}

/// Keys that all three holders have.
fn fill(cluster: &Cluster) -> Vec<String> {
    let names: Vec<String> = (0..KEYS - IN_ONE_SLOT)
        .map(|n| format!("key:{n}"))
        .chain((0..IN_ONE_SLOT).map(|n| format!("{{one}}:{n}")))
        .collect();
    let mut client = cluster.nodes[0].connect();
    for name in &names {
        assert_eq!(client.command(&format!("SET {name} x")), Reply::ok());
    }
    assert_eq!(client.command("WAIT 2 60000"), Reply::Integer(2));
    names
}

/// Three nodes in front of so many rows; some names are slow to load.
fn in_front_of_things(rows: usize) -> (Database, Cluster) {
    const GROUPS: &str = r#"
[[group]]
name = "thing"
key = "thing:{id}"
load = "SELECT name FROM things WHERE id = $1"
as = "string"

[[group]]
name = "slow"
key = "slow:{id}"
load = "SELECT name FROM things, pg_sleep(0.3) WHERE id = $1"
as = "string"
"#;
    let database = Database::start(&format!(
        "CREATE TABLE things (id int PRIMARY KEY, name text NOT NULL); \
         INSERT INTO things SELECT n, 'thing ' || n FROM generate_series(1, {rows}) n;"
    ));
    let cluster = Cluster::start(ClusterOptions::default().in_front_of(&database.url(), GROUPS));
    (database, cluster)
}
