//! A frontend: whatever clients may ask of a node, they may ask of it, and it holds nothing.
//!
//! Figures are printed; they are held only with `FOREBAY_CLAIMS=1` (`sizes::claim`).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use forebay_redis_tests::cluster::certificates::Authority;
use forebay_redis_tests::cluster::load::{Load, LoadOptions, value_of};
use forebay_redis_tests::cluster::network::socket;
use forebay_redis_tests::cluster::node::{Node, PATIENCE, PORTS};
use forebay_redis_tests::cluster::nodes::{Cluster, ClusterOptions};
use forebay_redis_tests::cluster::warehouse::{GROUPS, Warehouse};
use forebay_redis_tests::connection::Connection;
use forebay_redis_tests::herd::Herd;
use forebay_redis_tests::http;
use forebay_redis_tests::process::eventually;
use forebay_redis_tests::programs::run_script;
use forebay_redis_tests::reply::Reply;
use forebay_redis_tests::sizes;

const KEYS: usize = 300;

/// Groups whose values HTTP tells as what they are.
const SHAPES: &str = r#"
[[group]]
name = "document"
key = "document:{id}"
load = "SELECT id, 'x' AS name FROM products WHERE id = $1"
as = "json"

[[group]]
name = "digits"
key = "digits:{id}"
load = "SELECT id FROM products WHERE id = $1"
as = "string"
"#;

// ---- clients ------------------------------------------------------------------------------------

#[test]
fn every_key_is_answered_and_pipelines_come_in_order() {
    let (cluster, frontend) = cluster_with_frontend(ClusterOptions::default());
    let frontend = &cluster.frontends[frontend];
    let mut door = frontend.connect();
    let requests = |verb: fn(usize) -> String| (0..KEYS).map(verb).collect::<String>();
    door.send(requests(|n| format!("SET f:{n} {n}\r\nINCR f:{n}\r\n")).as_bytes()).expect("it reads");
    for n in 0..KEYS {
        assert_eq!(Reply::parse(&door.read_raw().expect("a reply")), Reply::ok());
        assert_eq!(Reply::parse(&door.read_raw().expect("a reply")), Reply::Integer(n as i64 + 1));
    }
    for node in &cluster.nodes {
        let mut connection = node.connect();
        for n in 0..KEYS {
            assert_eq!(connection.command(&format!("GET f:{n}")), Reply::bulk(&(n + 1).to_string()), "f:{n} at {node}");
        }
    }
    let names: Vec<String> = (0..KEYS).map(|n| format!("f:{n}")).collect();
    let values = (0..KEYS).map(|n| Reply::bulk(&(n + 1).to_string())).collect();
    assert_eq!(door.command(&format!("MGET {}", names.join(" "))), Reply::Array(values));
    let pairs: Vec<String> = (0..KEYS).map(|n| format!("m:{n} {n}")).collect();
    assert_eq!(door.command(&format!("MSET {}", pairs.join(" "))), Reply::ok());
    assert_eq!(door.command(&format!("DEL {} none", names.join(" "))), Reply::Integer(KEYS as i64));
    let names: Vec<String> = (0..KEYS).map(|n| format!("m:{n}")).collect();
    let [ours, theirs] = [0, 1].map(|node| &names[cluster.owned_of(node, &names)[0]]);
    assert!(door.command(&format!("RENAME {ours} {theirs}")).is_error("CROSSSLOT"), "what cannot be split");
}

#[test]
fn commands_about_all_keys_are_about_those_of_all_nodes() {
    let (cluster, frontend) = cluster_with_frontend(ClusterOptions::default());
    let frontend = &cluster.frontends[frontend];
    let mut door = frontend.connect();
    let pairs: Vec<String> = (0..KEYS).map(|n| format!("all:{n} {n}")).collect();
    assert_eq!(door.command(&format!("MSET {}", pairs.join(" "))), Reply::ok());
    assert_eq!(door.command("DBSIZE"), Reply::Integer(KEYS as i64));
    assert_eq!(door.command("KEYS all:*").items().expect("keys").len(), KEYS);
    assert_eq!(scanned(&mut door).len(), KEYS);
    assert!(door.command("RANDOMKEY").words().starts_with("all:"));
    assert_eq!(door.command("WAIT 2 20000"), Reply::Integer(2), "two copies of what was written");
    assert_eq!(frontend.connect().command("WAIT 2 20000"), Reply::Integer(2), "who has written nothing");
    assert!(door.command("SWAPDB 0 1").is_error("ERR"));
    // What is said of a process is said of this one.
    assert_eq!(frontend.info("server", "forebay_mode").as_deref(), Some("frontend"));
    assert_eq!(cluster.nodes[0].info("server", "forebay_mode").as_deref(), Some("node"));
    assert_eq!(frontend.info("keyspace", "db0"), None, "it holds keys");
    assert!(door.command("DEBUG POPULATE 10").is_error("ERR"));
    assert!(door.command("CONFIG SET maxmemory 1mb").is_error("ERR"));
    assert_eq!(door.command("CONFIG SET maxmemory 0"), Reply::ok());
    assert_eq!(door.command("PING"), Reply::Simple(b"PONG".to_vec()));
    assert_eq!(door.command("FLUSHALL"), Reply::ok());
    assert_eq!(door.command("DBSIZE"), Reply::Integer(0));
}

/// Clients of clusters that are pointed at a frontend are told of the nodes, and never of itself.
#[test]
fn it_tells_of_the_nodes_and_not_of_itself() {
    let (cluster, frontend) = cluster_with_frontend(ClusterOptions::default());
    let frontend = &cluster.frontends[frontend];
    assert_eq!(frontend.view(), cluster.nodes[0].view());
    let mut door = frontend.connect();
    let nodes = door.command("CLUSTER NODES").words();
    assert_eq!(nodes.lines().count(), cluster.nodes.len(), "{nodes}");
    assert!(!nodes.contains("myself") && !nodes.contains(&frontend.host().to_string()), "{nodes}");
    let info = door.command("CLUSTER INFO").words();
    assert!(info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3"), "{info}");
    assert_eq!(door.command("CLUSTER SHARDS").items().expect("shards").len(), 3);
    assert!(door.command("CLUSTER MYID").is_error("ERR"));
    let listed = cluster.nodes[0].connect().command("CLUSTER NODES");
    assert!(!listed.words().contains(&frontend.host().to_string()), "the nodes take it for one of them");
}

#[test]
fn clients_get_no_error() {
    let (cluster, frontend) = cluster_with_frontend(ClusterOptions::default());
    let address = cluster.frontends[frontend].address();
    // Those of clusters, too: they find the nodes by it.
    for mode in ["plain", "cluster"] {
        let place = [mode.to_owned(), address.ip().to_string(), address.port().to_string()];
        run_script("python/bin/python", "redis_py_cluster.py", &place);
        run_script("node", "ioredis_cluster.mjs", &place);
    }
}

#[test]
fn http_and_loads_are_as_at_a_node() {
    let options = LoadOptions::default();
    let warehouse = Warehouse::start(&options);
    let groups = format!("{GROUPS}{SHAPES}");
    let (cluster, frontend) =
        cluster_with_frontend(ClusterOptions::default().in_front_of(&warehouse.database.url(), &groups));
    let frontend = &cluster.frontends[frontend];
    let at = socket(frontend.host(), PORTS.http);
    let ask = |method: &str, path: &str, body: &str| http::ask(at, method, path, body).expect("it answers");
    assert_eq!(ask("GET", "/health", "").status, 200);
    assert_eq!(ask("PUT", "/api?key=http:1", "a value").status, 200);
    assert_eq!(ask("GET", "/api?key=http:1", "").body, "a value");
    assert_eq!(ask("DELETE", "/api?key=http:1", "").body, "1\n");
    assert_eq!(ask("GET", "/api?key=http:1", "").status, 404);
    for (path, kind) in [("document:1", "application/json"), ("digits:1", "text/plain")] {
        let path = format!("/api?key={path}");
        let [through, direct] = [at, socket(cluster.nodes[0].host(), PORTS.http)].map(|at| {
            let answer = http::ask(at, "GET", &path, "").expect("it answers");
            let line = answer.head.lines().find(|line| line.to_lowercase().starts_with("content-type"));
            (answer.status, line.map(str::to_lowercase), answer.body)
        });
        assert_eq!(through, direct, "{path}");
        assert!(through.1.is_some_and(|line| line.contains(kind)), "{path}");
    }
    // The key's owner loads it, once, whoever asks where.
    let doors = [cluster.addresses(), vec![frontend.address()]].concat();
    for key in ["product:1", "product:2"] {
        let mut herd = Herd::gather_at(&doors, sizes::herd());
        warehouse.database.forget();
        let answers = herd.ask(&["GET", key]);
        assert!(answers.iter().all(|answer| answer.reply == Reply::bulk(&value_of(key))), "a wrong answer");
        assert_eq!(warehouse.database.asked("FROM products"), 1, "{key}");
    }
}

/// It keeps nothing of what goes through it.
#[test]
fn its_memory_stays_small() {
    const VALUES: usize = 2000;
    const VALUE: usize = 32 << 10;
    let (cluster, frontend) = cluster_with_frontend(ClusterOptions::with("--copies 1"));
    let frontend = &cluster.frontends[frontend];
    let used = || -> usize { frontend.info("memory", "used_memory").expect("a field").parse().expect("a number") };
    let before = used();
    let mut door = frontend.connect();
    let value = vec![b'x'; VALUE];
    for n in 0..VALUES {
        let key = format!("large:{n}");
        assert_eq!(door.call(&[b"SET", key.as_bytes(), &value]).expect("a reply"), b"+OK\r\n");
        let told = door.call(&[b"GET".as_slice(), key.as_bytes()]).expect("a reply");
        assert!(told.len() > VALUE);
    }
    drop(door);
    let is_small = eventually(PATIENCE, || used() < before + (8 << 20));
    println!("{} MB went through it twice; it used {before} bytes before, {} after", (VALUES * VALUE) >> 20, used());
    assert!(is_small, "it uses {} bytes more than before", used() - before);
}

// ---- faults -------------------------------------------------------------------------------------

/// Each node in turn, thus the one that the frontend watches, the leader and an owner are among them.
#[test]
fn a_killed_node_is_hardly_noticed() {
    let (mut cluster, frontend) = cluster_with_frontend(ClusterOptions::default());
    let options = load_options();
    fill(&cluster.frontends[frontend], &options);
    for victim in 0..cluster.nodes.len() {
        let address = cluster.frontends[frontend].address();
        let watched = watched_by(&cluster, frontend);
        let load = Load::start(&options, &[address]);
        load.await_right(sizes::answers(), PATIENCE);
        let fault = load.now();
        cluster.nodes[victim].kill();
        load.await_calm(sizes::answers(), PATIENCE);
        cluster.nodes[victim].restart();
        cluster.await_settled();
        load.await_right(sizes::answers(), PATIENCE);
        let report = load.end();
        let (ended, slowest) = (report.errors_ended_after(fault), report.slowest(fault, fault + PATIENCE));
        println!(
            "{} is killed {fault:.1?} after the begin ({}): {report}\n    errors ended after {ended:.2?}, slowest answer {slowest:.2?}",
            cluster.nodes[victim],
            if watched == Some(victim) { "the one that is watched" } else { "not watched" },
        );
        assert!(report.wrong().is_empty(), "{:?}", report.wrong());
        sizes::claim(ended <= Duration::from_secs(2), "errors end within 2 s");
        sizes::claim(report.failed_share_of_a_minute() <= 0.001, "at most 0.1 % of a minute's requests fail");
    }
}

#[test]
fn it_learns_of_a_node_that_joins_and_serves_on_when_its_seeds_are_gone() {
    let (mut cluster, frontend) = cluster_with_frontend(ClusterOptions::default());
    let options = load_options();
    fill(&cluster.frontends[frontend], &options);
    let load = Load::start(&options, &[cluster.frontends[frontend].address()]);
    load.await_right(sizes::answers(), PATIENCE);
    let joined = cluster.add();
    cluster.await_settled();
    let host = cluster.nodes[joined].host().to_string();
    let knows = |node: &Node| node.view().is_some_and(|view| view.shares().contains_key(&host));
    assert!(eventually(PATIENCE, || knows(&cluster.frontends[frontend])), "it does not learn of {host}");
    load.await_right(sizes::answers(), PATIENCE);
    // Its one seed goes for good, in order.
    cluster.command(1, &["drain", &format!("{}:{}", cluster.nodes[0].host(), PORTS.peer)]).expect("it is drained");
    cluster.nodes[0].terminate();
    assert!(cluster.nodes[0].await_end().success());
    load.await_right(sizes::answers(), PATIENCE);
    let report = load.end();
    println!("a node joins, the only seed is drained and ends: {report}");
    assert!(report.wrong().is_empty(), "{:?}", report.wrong());
    sizes::claim(report.failed() == 0, "no request fails");
    assert!(cluster.frontends[frontend].is_ready());
}

#[test]
fn when_all_nodes_are_gone_it_says_so_and_recovers() {
    let (mut cluster, frontend) = cluster_with_frontend(ClusterOptions::default());
    let mut door = cluster.frontends[frontend].connect();
    assert_eq!(door.command("SET kept x"), Reply::ok());
    cluster.nodes.iter_mut().for_each(Node::kill);
    assert!(eventually(PATIENCE, || !cluster.frontends[frontend].is_ready()), "it is ready without a cluster");
    for request in ["GET kept", "SET kept y", "DBSIZE", "MGET a b c d e f", "FLUSHALL"] {
        let began = Instant::now();
        let reply = door.command(request);
        println!("{request}: {reply} after {:.1?}", began.elapsed());
        assert!(reply.is_error("CLUSTERDOWN"), "{request}: {reply}");
    }
    assert_eq!(door.command("PING"), Reply::Simple(b"PONG".to_vec()));
    assert_eq!(http::status(socket(cluster.frontends[frontend].host(), PORTS.http), "/health"), Some(200));
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.await_settled();
    cluster.frontends[frontend].await_ready();
    let recovers = eventually(PATIENCE, || door.command("SET again x") == Reply::ok());
    assert!(recovers, "it does not find the cluster again:\n{}", cluster.frontends[frontend].output_tail());
    assert_eq!(door.command("GET again"), Reply::bulk("x"));
}

/// All nodes are replaced without their disks, as tasks without volumes are: what they form then is another cluster.
#[test]
fn when_another_cluster_is_in_the_place_of_its_own_it_says_so_and_ends() {
    let (mut cluster, frontend) = cluster_with_frontend(ClusterOptions::default());
    assert_eq!(cluster.frontends[frontend].connect().command("SET lost x"), Reply::ok());
    cluster.nodes.iter_mut().for_each(Node::kill);
    cluster.nodes.iter_mut().for_each(Node::wipe);
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.await_settled();
    let says_so = |node: &Node| node.unreadiness().is_some_and(|why| why.contains("is of another cluster"));
    assert!(eventually(PATIENCE, || says_so(&cluster.frontends[frontend])), "/ready does not say why");
    assert!(!cluster.frontends[frontend].await_end().success(), "that is no good end");
    let output = cluster.frontends[frontend].output();
    assert!(output.contains("this frontend cannot follow its cluster") && output.contains("hint:"), "{output}");
    cluster.frontends[frontend].restart();
    let mut door = cluster.frontends[frontend].connect();
    assert_eq!(door.command("GET lost"), Reply::NilBulk);
    assert_eq!(door.command("SET again x"), Reply::ok());
}

// ---- starts and ends ----------------------------------------------------------------------------

#[test]
fn it_waits_for_a_cluster_and_says_for_whom() {
    let mut cluster = Cluster::prepare(ClusterOptions { nodes: 2, ..ClusterOptions::default() });
    let frontend = cluster.prepare_frontend(&[1, 0]);
    cluster.frontends[frontend].start();
    let seeds: Vec<String> = cluster.nodes.iter().map(|node| socket(node.host(), PORTS.peer).to_string()).collect();
    let output = || cluster.frontends[frontend].output();
    let names_them = eventually(PATIENCE, || seeds.iter().all(|seed| output().contains(seed)));
    assert!(names_them, "it does not say whom it waits for:\n{}", output());
    assert!(!cluster.frontends[frontend].is_ready());
    for request in ["GET a", "DBSIZE", "FLUSHALL"] {
        let reply = cluster.frontends[frontend].connect().command(request);
        assert!(reply.is_error("CLUSTERDOWN"), "{request}: {reply}");
    }
    // A node that waits for the others is no cluster yet, which the frontend is told when it asks; it must not be counted as the second of two.
    let waits = "waiting for 1 more node: knows none";
    cluster.nodes[0].start();
    cluster.frontends[frontend].await_words(&[waits]);
    let mut said = None;
    let is_said = || {
        said = cluster.nodes[0].unreadiness();
        said.as_ref().is_some_and(|said| said.contains(waits))
    };
    assert!(eventually(PATIENCE, is_said), "it does not wait for a node, but says {said:?}");
    assert!(!cluster.frontends[frontend].is_ready());
    cluster.nodes[1].start();
    cluster.await_settled();
    cluster.frontends[frontend].await_ready();
    assert_eq!(cluster.frontends[frontend].connect().command("SET a x"), Reply::ok());
}

/// Of a cluster of one it is a door as of any other; and a seed that is something else does not keep it from the right one.
#[test]
fn one_node_is_a_cluster_and_a_wrong_seed_is_named() {
    let mut cluster = Cluster::start(ClusterOptions { nodes: 1, ..ClusterOptions::default() });
    let frontend = cluster.prepare_frontend(&[]);
    // The door for clients instead of that for nodes.
    let [wrong, right] = [PORTS.resp, PORTS.peer].map(|port| socket(cluster.nodes[0].host(), port).to_string());
    cluster.frontends[frontend].add_args(&["--join", &wrong, "--join", &right, "--databases", "32"]);
    cluster.frontends[frontend].restart();
    assert!(cluster.frontends[frontend].output().contains(&wrong), "it does not name the wrong seed");
    let mut door = cluster.frontends[frontend].connect();
    assert_eq!(door.command("SELECT 20"), Reply::ok());
    assert!(door.command("SET a 1").is_error("ERR"), "the node has 16 databases");
    assert_eq!(door.command("SELECT 0"), Reply::ok());
    assert_eq!(door.command("MSET a 1 b 2 c 3"), Reply::ok());
    assert_eq!(door.command("DBSIZE"), Reply::Integer(3));
    door.send(b"GET a\r\nGET b\r\nGET c\r\n").expect("it reads");
    for n in 1..=3 {
        assert_eq!(Reply::parse(&door.read_raw().expect("a reply")), Reply::bulk(&n.to_string()));
    }
    assert!(door.command("SWAPDB 0 1").is_error("ERR"), "it has nothing to exchange");
    assert_eq!(door.command("FLUSHALL"), Reply::ok());
    assert_eq!(cluster.nodes[0].connect().command("DBSIZE"), Reply::Integer(0));
}

#[test]
fn a_start_that_means_nothing_is_refused() {
    let mut cluster = Cluster::prepare(ClusterOptions { nodes: 1, ..ClusterOptions::default() });
    for (args, words) in [
        (&[][..], ["--join", "where the cluster is"]),
        (&["--join", "127.0.0.1:8001", "--maxmemory", "1gb"], ["--maxmemory", "holds no data"]),
        (&["--join", "127.0.0.1:8001", "--origin", "sqlite://x"], ["--origin", "loads nothing"]),
        (&["--join", "127.0.0.1:8001", "--raft-port", "1"], ["--raft-port", "not a member"]),
        (&["--join", "127.0.0.1:8001", "--data-dir", "x"], ["--data-dir", "holds no data"]),
    ] {
        let frontend = cluster.prepare_frontend(&[]);
        let frontend = &mut cluster.frontends[frontend];
        frontend.add_args(args);
        frontend.start();
        assert!(!frontend.await_end().success(), "{args:?} is accepted");
        let output = frontend.output();
        assert!(words.iter().all(|word| output.contains(word)), "{args:?}:\n{output}");
    }
}

/// Nodes trust a frontend by its certificate; the passwords of clients are each door's own.
#[test]
fn nodes_know_it_by_its_certificate_and_clients_by_its_password() {
    let mut cluster = Cluster::prepare(ClusterOptions::with("--requirepass nodes"));
    let [right, refused, none] = [(); 3].map(|()| cluster.prepare_frontend(&[0]));
    let [ours, theirs] = [(); 2].map(|()| Authority::generate());
    let doors = [&cluster.frontends[right], &cluster.frontends[refused]].map(Node::host);
    let hosts: Vec<String> = cluster.nodes.iter().map(Node::host).chain(doors).map(|host| host.to_string()).collect();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    for node in cluster.nodes.iter_mut().chain([&mut cluster.frontends[right]]) {
        node.add_args(&ours.arguments(&hosts));
    }
    cluster.frontends[refused].add_args(&theirs.arguments_trusting(&hosts, &ours));
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.nodes.iter().for_each(Node::await_ready);
    cluster.frontends[right].add_args(&["--requirepass", "door"]);
    cluster.frontends[right].restart();
    let mut door = cluster.frontends[right].connect();
    assert!(door.command("GET a").is_error("NOAUTH"));
    assert!(door.command("AUTH nodes").is_error("WRONGPASS"));
    assert_eq!(door.command("AUTH door"), Reply::ok());
    let pairs: Vec<String> = (0..KEYS).map(|n| format!("tls:{n} {n}")).collect();
    assert_eq!(door.command(&format!("MSET {}", pairs.join(" "))), Reply::ok());
    assert_eq!(door.command("DBSIZE"), Reply::Integer(KEYS as i64));
    // Who shows none, or one of another authority, is told nothing.
    let seed = socket(cluster.nodes[0].host(), PORTS.peer).to_string();
    for stranger in [refused, none] {
        cluster.frontends[stranger].start();
        let frontend = &cluster.frontends[stranger];
        assert!(eventually(PATIENCE, || frontend.output().contains(&seed)), "{}", frontend.output());
        assert!(frontend.connect().command("GET tls:1").is_error("CLUSTERDOWN"));
        assert!(!frontend.is_ready());
    }
}

#[test]
fn it_ends_in_order_under_load() {
    let (mut cluster, frontend) = cluster_with_frontend(ClusterOptions::default());
    let second = cluster.add_frontend(&[1]);
    let options = load_options();
    fill(&cluster.frontends[frontend], &options);
    let doors = [frontend, second].map(|door| cluster.frontends[door].address());
    let load = Load::start(&options, &doors);
    load.await_right(sizes::answers(), PATIENCE);
    cluster.frontends[frontend].terminate();
    assert!(cluster.frontends[frontend].await_end().success());
    load.await_right(sizes::answers(), PATIENCE);
    let report = load.end();
    println!("a frontend of two ends: {report}");
    assert!(report.wrong().is_empty(), "{:?}", report.wrong());
    // Each of its clients may lose the one request that crossed its end on the way.
    assert!(report.failed() <= options.clients, "{report}");
}

// ---- tools --------------------------------------------------------------------------------------

/// A cluster and a frontend that is told of its first node.
fn cluster_with_frontend(options: ClusterOptions) -> (Cluster, usize) {
    let mut cluster = Cluster::start(options);
    let frontend = cluster.add_frontend(&[0]);
    (cluster, frontend)
}

fn load_options() -> LoadOptions {
    LoadOptions {
        clients: sizes::clients(),
        reads: "read".to_owned(),
        writes: "written".to_owned(),
        keys: 500,
        seed: sizes::seed(),
        ..LoadOptions::default()
    }
}

fn fill(door: &Node, options: &LoadOptions) {
    let mut connection = door.connect();
    for number in 0..options.keys {
        let key = format!("{}:{number}", options.reads);
        assert_eq!(connection.call(&["SET", &key, &value_of(&key)]).expect("a reply"), b"+OK\r\n", "{key}");
    }
}

/// The node that told the frontend of the cluster last.
fn watched_by(cluster: &Cluster, frontend: usize) -> Option<usize> {
    let output = cluster.frontends[frontend].output();
    let line = output.lines().rev().find(|line| line.contains(" tells of cluster "))?.to_owned();
    cluster.nodes.iter().position(|node| line.contains(&socket(node.host(), PORTS.peer).to_string()))
}

fn scanned(door: &mut Connection) -> BTreeSet<String> {
    let (mut keys, mut cursor) = (BTreeSet::new(), "0".to_owned());
    loop {
        let reply = door.command(&format!("SCAN {cursor} COUNT 50"));
        let [next, found] = reply.items().expect("a cursor and keys") else { panic!("{reply}") };
        keys.extend(found.items().expect("keys").iter().map(Reply::words));
        cursor = next.words();
        if cursor == "0" {
            return keys;
        }
    }
}
