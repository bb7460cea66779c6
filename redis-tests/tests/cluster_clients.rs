//! Three nodes are one cache: for clients that know nothing of clusters, and for those that do.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use forebay_redis_tests::cluster::load::{LoadOptions, value_of};
use forebay_redis_tests::cluster::node::{Node, PATIENCE};
use forebay_redis_tests::cluster::nodes::{Cluster, ClusterOptions};
use forebay_redis_tests::cluster::view::SLOTS;
use forebay_redis_tests::cluster::warehouse::{GROUPS, Warehouse};
use forebay_redis_tests::connection::{Connection, encode};
use forebay_redis_tests::herd::Herd;
use forebay_redis_tests::process::eventually;
use forebay_redis_tests::programs::{output, run_script};
use forebay_redis_tests::reply::Reply;
use forebay_redis_tests::server::Forebay;
use forebay_redis_tests::sizes;

/// Keys that are written at one node and read at every other.
const KEYS: usize = 300;

#[test]
fn every_key_is_answered_by_every_node() {
    let cluster = Cluster::start(ClusterOptions::default());
    for writer in &cluster.nodes {
        let mut connection = writer.connect();
        for n in 0..KEYS {
            assert_eq!(connection.command(&format!("SET {}:{n} {n}", writer.number())), Reply::ok());
        }
    }
    for reader in &cluster.nodes {
        let mut connection = reader.connect();
        for (writer, n) in (0..cluster.nodes.len()).flat_map(|writer| (0..KEYS).map(move |n| (writer, n))) {
            let reply = connection.command(&format!("GET {writer}:{n}"));
            assert_eq!(reply, Reply::bulk(&n.to_string()), "key {writer}:{n} at {reader}");
        }
    }
    let views: Vec<_> = cluster.nodes.iter().map(Node::view).collect();
    assert!(views.windows(2).all(|pair| pair[0] == pair[1]), "the nodes do not agree on the slots: {views:#?}");
    let shares = views[0].as_ref().expect("a view").shares();
    println!("slots of each node: {shares:?}");
    assert!(shares.values().all(|share| *share * 3 <= SLOTS + SLOTS / 20), "more than 1.05 of the mean: {shares:?}");
}

/// A pipeline goes to all nodes side by side, and its replies come in the order of its requests.
#[test]
fn the_replies_of_a_pipeline_come_in_order() {
    let cluster = Cluster::start(ClusterOptions::default());
    let mut connection = cluster.nodes[0].connect();
    let requests = |verb: fn(usize) -> String| (0..KEYS).map(verb).collect::<String>();
    connection.send(requests(|n| format!("SET p:{n} {n}\r\nINCR p:{n}\r\n")).as_bytes()).expect("the node reads");
    for n in 0..KEYS {
        assert_eq!(Reply::parse(&connection.read_raw().expect("a reply")), Reply::ok());
        assert_eq!(Reply::parse(&connection.read_raw().expect("a reply")), Reply::Integer(n as i64 + 1));
    }
    let names: Vec<String> = (0..KEYS).map(|n| format!("p:{n}")).collect();
    let values = (0..KEYS).map(|n| Reply::bulk(&(n + 1).to_string())).collect();
    assert_eq!(connection.command(&format!("MGET {}", names.join(" "))), Reply::Array(values));
    assert_eq!(connection.command(&format!("DEL {} none", names.join(" "))), Reply::Integer(KEYS as i64));
}

#[test]
fn the_doors_differ_in_what_they_do_with_keys_of_other_nodes() {
    let cluster = Cluster::start(ClusterOptions::default());
    let view = cluster.nodes[0].view().expect("a view");
    let [mut open, mut direct] = [cluster.nodes[0].address(), cluster.nodes[0].direct()].map(connect);
    for n in 0..30 {
        let key = format!("door:{n}");
        let slot = cluster.nodes[0].slot_of(&key);
        let owner = &view.holders(slot)[0];
        assert_eq!(open.command(&format!("SET {key} x")), Reply::ok());
        let expected = match *owner == cluster.nodes[0].host().to_string() {
            true => Reply::bulk("x"),
            false => Reply::Error(format!("MOVED {slot} {owner}:{}", cluster.nodes[0].direct().port()).into_bytes()),
        };
        assert_eq!(direct.command(&format!("GET {key}")), expected, "{key}");
    }
    // With three copies on three nodes everybody may read everything, as soon as it has come there.
    assert_eq!(open.command("WAIT 2 30000"), Reply::Integer(2));
    assert_eq!(direct.command("READONLY"), Reply::ok());
    for n in 0..30 {
        assert_eq!(direct.command(&format!("GET door:{n}")), Reply::bulk("x"));
    }
    let owner_of = |n: usize| view.holders(cluster.nodes[0].slot_of(&format!("door:{n}")))[0].clone();
    let stranger = (1..30).find(|n| owner_of(*n) != owner_of(0)).expect("thirty keys have more than one owner");
    assert!(open.command(&format!("RENAME door:0 door:{stranger}")).is_error("CROSSSLOT"), "what cannot be split");
}

/// CLUSTER NODES, SHARDS and SLOTS tell the same thing in three ways, at every node.
#[test]
fn the_cluster_commands_agree() {
    let cluster = Cluster::start(ClusterOptions::default());
    let ids: Vec<String> = cluster.nodes.iter().map(|node| node.connect().command("CLUSTER MYID").words()).collect();
    // Each slot has its holders before each node has its share.
    let shares = || cluster.nodes[0].view().map(|view| view.shares()).unwrap_or_default();
    let is_shared_out = || shares().values().all(|slots| slots.abs_diff(16384 / 3) < 300);
    assert!(eventually(PATIENCE, is_shared_out), "{:?}", shares());
    let shares = shares();
    for (node, id) in cluster.nodes.iter().zip(&ids) {
        let mut connection = node.connect();
        let listed = connection.command("CLUSTER NODES").words();
        let lines: Vec<Vec<&str>> = listed.lines().map(|line| line.split(' ').collect()).collect();
        assert_eq!(lines.len(), cluster.nodes.len(), "{listed}");
        for line in &lines {
            let host = line[1].split(':').next().expect("an address");
            let at = cluster.nodes.iter().position(|node| node.host().to_string() == host).expect("a host of ours");
            assert_eq!(line[0], ids[at], "{listed}");
            assert_eq!(line[2].contains("myself"), *id == ids[at], "{listed}");
            assert!(line[2].contains("master") && line[7] == "connected", "{listed}");
            let owned: usize = line[8..].iter().map(|range| length_of(range)).sum();
            assert_eq!(Some(&owned), shares.get(host), "{listed}");
        }
        let info = connection.command("CLUSTER INFO").words();
        for line in ["cluster_state:ok", "cluster_slots_assigned:16384", "cluster_known_nodes:3"] {
            assert!(info.contains(line), "{line} is missing in:\n{info}");
        }
        assert_eq!(node.info("cluster", "cluster_enabled").as_deref(), Some("1"));
        assert!(!connection.command("CLUSTER SHARDS").items().expect("shards").is_empty());
    }
    let mut connection = cluster.nodes[0].connect();
    for n in 0..10 {
        assert_eq!(connection.command(&format!("SET {{same}}:{n} x")), Reply::ok());
    }
    let slot = cluster.nodes[0].slot_of("{same}");
    let owner = cluster.nodes[0].view().expect("a view").holders(slot)[0].clone();
    let owner = cluster.nodes.iter().find(|node| node.host().to_string() == owner).expect("a host of ours");
    let mut direct = connect(owner.direct());
    assert_eq!(direct.command(&format!("CLUSTER COUNTKEYSINSLOT {slot}")), Reply::Integer(10));
    let keys = direct.command(&format!("CLUSTER GETKEYSINSLOT {slot} 100"));
    assert_eq!(keys.items().expect("keys").len(), 10);
}

#[test]
fn wait_tells_how_many_copies_have_it() {
    let cluster = Cluster::start(ClusterOptions::default());
    let mut connection = cluster.nodes[0].connect();
    for n in 0..20 {
        assert_eq!(connection.command(&format!("SET wait:{n} x")), Reply::ok());
        assert_eq!(connection.command("WAIT 2 20000"), Reply::Integer(2), "after wait:{n}");
    }
    // With the acknowledgements that it waited for, the copies can be read at once.
    for node in &cluster.nodes {
        let mut direct = connect(node.direct());
        assert_eq!(direct.command("READONLY"), Reply::ok());
        for n in 0..20 {
            assert_eq!(direct.command(&format!("GET wait:{n}")), Reply::bulk("x"), "wait:{n} at {node}");
        }
    }
}

#[test]
fn copies_are_in_different_zones_and_weights_are_shares() {
    let mut cluster = Cluster::prepare(ClusterOptions { nodes: 6, ..ClusterOptions::default() });
    let zones = ["a", "a", "b", "b", "c", "c"];
    for (node, zone) in cluster.nodes.iter_mut().zip(zones) {
        let weight = if *zone == *"c" { "2.0" } else { "1.0" };
        node.add_args(&["--zone", zone, "--weight", weight]);
        node.start();
    }
    cluster.await_settled();
    let view = cluster.nodes[0].view().expect("a view");
    let zone_of: BTreeMap<String, &str> =
        cluster.nodes.iter().zip(zones).map(|(node, zone)| (node.host().to_string(), zone)).collect();
    for range in view.ranges.iter().filter(|range| range.holders.len() > 1) {
        let different: BTreeSet<&str> = range.holders.iter().map(|host| zone_of[host]).collect();
        assert_eq!(different.len(), 3, "slots {} to {} are at {:?}", range.first, range.last, range.holders);
    }
    for (host, share) in view.shares() {
        let ideal = SLOTS / 8 * if zone_of[&host] == "c" { 2 } else { 1 };
        assert!(share.abs_diff(ideal) * 20 <= ideal, "{host} in {} owns {share} slots, ideal {ideal}", zone_of[&host]);
    }
}

#[test]
fn clients_that_know_nothing_of_clusters_get_no_error() {
    let cluster = Cluster::start(ClusterOptions::default());
    let before = forwards(&cluster);
    for node in &cluster.nodes {
        let place = arguments("plain", node.address());
        run_script("python/bin/python", "redis_py_cluster.py", &place);
        run_script("node", "ioredis_cluster.mjs", &place);
    }
    let address = cluster.nodes[0].address();
    let sets: String = (0..KEYS).map(|n| format!("SET cli:{n} {n}\n")).collect();
    assert_eq!(redis_cli(address, &[], &sets), "OK\n".repeat(KEYS));
    assert_eq!(redis_cli(address, &["-r", "3", "INCR", "cli:n"], ""), "1\n2\n3\n");
    benchmark(address, &[]);
    let forwarded = forwards(&cluster) - before;
    println!("{forwarded} requests were forwarded");
    assert!(forwarded > 0, "nobody counts the forwards");
}

#[test]
fn clients_that_know_of_clusters_cause_no_forwards() {
    let cluster = Cluster::start(ClusterOptions::default());
    let before = forwards(&cluster);
    for node in &cluster.nodes {
        let place = arguments("cluster", node.direct());
        run_script("python/bin/python", "redis_py_cluster.py", &place);
        run_script("node", "ioredis_cluster.mjs", &place);
    }
    let direct = cluster.nodes[0].direct();
    let sets: String = (0..KEYS).map(|n| format!("SET cli:{n} {n}\n")).collect();
    let printed = redis_cli(direct, &["-c"], &sets);
    assert_eq!(printed.lines().filter(|line| *line == "OK").count(), KEYS, "{printed}");
    benchmark(direct, &["--cluster"]);
    assert_eq!(forwards(&cluster) - before, 0, "requests were forwarded");
}

#[test]
fn one_missing_key_is_one_query_whoever_asks() {
    let options = LoadOptions::default();
    let warehouse = Warehouse::start(&options);
    let cluster = Cluster::start(ClusterOptions::default().in_front_of(&warehouse.database.url(), GROUPS));
    let size = sizes::herd();
    for key in ["product:1", "product:2", "product:3"] {
        let mut herd = Herd::gather_at(&cluster.addresses(), size);
        warehouse.database.forget();
        let answers = herd.ask(&["GET", key]);
        let slowest = answers.iter().map(|answer| answer.after).max().expect("there are answers");
        assert!(answers.iter().all(|answer| answer.reply == Reply::bulk(&value_of(key))), "a wrong answer");
        let queries = warehouse.database.asked("FROM products");
        println!(
            "{size} clients over {} nodes asked for {key}: {queries} query, slowest {slowest:.0?}",
            cluster.nodes.len()
        );
        assert_eq!(queries, 1);
    }
}

/// Replies and pipelines that are larger than any message between nodes are answered, and the streams that they come by stay whole for everybody else.
#[test]
fn what_is_large_is_forwarded_and_breaks_no_stream() {
    let cluster = Cluster::start(ClusterOptions::default());
    let (node, view) = (&cluster.nodes[0], cluster.nodes[0].view().expect("a view"));
    let is_elsewhere = |tag: &String| view.holders(node.slot_of(tag))[0] != node.host().to_string();
    let tag = (0..100).map(|n| format!("{{large:{n}}}")).find(is_elsewhere).expect("others own most keys");
    let [big, huge] = [("big", 1 << 20), ("huge", 10 << 20)].map(|(name, size)| {
        let (key, value) = (format!("{tag}:{name}"), (0..size).map(|at| (at % 251) as u8).collect::<Vec<u8>>());
        assert_eq!(node.connect().call(&[b"SET", key.as_bytes(), &value]).expect("a reply"), b"+OK\r\n");
        (key, value)
    });
    let address = node.address();
    let is_over = AtomicBool::new(false);
    let count = |n: usize| {
        let mut connection = connect(address);
        let counted = (1..).take_while(|_| !is_over.load(Relaxed));
        let incr = |count| assert_eq!(connection.command(&format!("INCR {tag}:{n}")), Reply::Integer(count));
        counted.map(incr).count()
    };
    let ask = || {
        let mut keys = vec!["MGET"];
        keys.resize(1 + 540, &big.0);
        let mut asked = Asked::of(address, &encode(&keys));
        asked.expect_line("*540");
        (0..540).for_each(|_| asked.expect_value(&big.1));
        let mut pipeline = Asked::of(address, &encode(&["GET", &huge.0]).repeat(20));
        (0..20).for_each(|_| pipeline.expect_value(&huge.1));
        let mut many: Vec<_> = (0..20).map(|_| Asked::of(address, &encode(&["GET", &huge.0]))).collect();
        many.iter_mut().for_each(|asked| asked.expect_value(&huge.1));
    };
    thread::scope(|scope| {
        // Connections go to workers in turn, so some of these share theirs with who asks.
        let counting: Vec<_> = (0..4).map(|n| scope.spawn(move || count(n))).collect();
        let asked = scope.spawn(ask).join();
        is_over.store(true, Relaxed);
        let counts: Vec<usize> = counting.into_iter().map(|counts| counts.join().expect("no error")).collect();
        println!("meanwhile others counted {counts:?}");
        assert!(asked.is_ok(), "what was large was not answered");
    });
}

/// A node that is told nothing of others is a cluster of one, and a client of clusters may use it.
#[test]
fn a_node_alone_is_a_cluster_for_those_who_want_one() {
    let node = Forebay::start(Default::default()).unwrap_or_else(|error| panic!("{error}"));
    let direct = SocketAddr::new(node.address().ip(), node.ports().direct);
    let mut connection = connect(direct);
    let hosts: BTreeSet<String> = connection
        .command("CLUSTER SLOTS")
        .items()
        .expect("ranges")
        .iter()
        .map(|range| range.items().expect("a range")[2].to_string())
        .collect();
    assert_eq!(hosts.len(), 1);
    assert_eq!(redis_cli(direct, &["-c"], "SET a 1\nSET b 2\nGET a\n"), "OK\nOK\n1\n");
}

// ---- tools --------------------------------------------------------------------------------------

/// Replies that are compared as they come, since they are too large to be kept.
struct Asked(BufReader<TcpStream>);

impl Asked {
    fn of(address: SocketAddr, requests: &[u8]) -> Self {
        let mut stream = TcpStream::connect(address).expect("the node listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
        stream.write_all(requests).expect("the node reads");
        Self(BufReader::new(stream))
    }

    fn expect_line(&mut self, expected: &str) {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a line");
        assert_eq!(line.trim_end(), expected);
    }

    fn expect_value(&mut self, value: &[u8]) {
        self.expect_line(&format!("${}", value.len()));
        let mut read = vec![0; value.len() + 2];
        self.0.read_exact(&mut read).expect("a value");
        assert!(read.strip_suffix(b"\r\n") == Some(value), "it is another value");
    }
}

fn arguments(mode: &str, address: SocketAddr) -> [String; 3] {
    [mode.to_owned(), address.ip().to_string(), address.port().to_string()]
}

fn place(command: &mut Command, address: SocketAddr) -> &mut Command {
    command.args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()])
}

fn redis_cli(address: SocketAddr, args: &[&str], input: &str) -> String {
    let mut command = Command::new("redis-cli");
    place(&mut command, address).args(args);
    output(command, input)
}

fn benchmark(address: SocketAddr, args: &[&str]) {
    let mut command = Command::new("redis-benchmark");
    place(&mut command, address)
        .args(["--csv", "-t", "set,get,incr,hset", "-c", "30", "-n", "6000", "-r", "1000"])
        .args(args);
    let report = output(command, "");
    for name in ["SET", "GET", "INCR", "HSET"] {
        assert!(report.contains(&format!("\"{name}\",")), "{name} is missing in:\n{report}");
    }
    assert!(!report.to_lowercase().contains("error"), "{report}");
}

fn forwards(cluster: &Cluster) -> u64 {
    cluster.nodes.iter().map(|node| node.counter("forwarded_requests")).sum()
}

fn connect(address: SocketAddr) -> Connection {
    Connection::open(address).unwrap_or_else(|error| panic!("{address}: {error}"))
}

/// How many slots `12` or `12-34` in CLUSTER NODES are.
fn length_of(range: &str) -> usize {
    let number = |text: &str| text.parse::<usize>().unwrap_or_else(|_| panic!("no range: {range}"));
    match range.split_once('-') {
        Some((first, last)) => number(last) + 1 - number(first),
        None => 1,
    }
}
