//! Nodes come, go and are restarted while clients read and write: nobody gets an error, and little is loaded anew.
//!
//! Figures are printed; they are held only with `FOREBAY_CLAIMS=1` (`sizes::claim`).

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use forebay_redis_tests::cluster::load::{Load, LoadOptions, Report};
use forebay_redis_tests::cluster::node::{Node, PATIENCE};
use forebay_redis_tests::cluster::nodes::{Cluster, ClusterOptions};
use forebay_redis_tests::cluster::register;
use forebay_redis_tests::cluster::registers::{RegisterOptions, Registers};
use forebay_redis_tests::cluster::view::View;
use forebay_redis_tests::cluster::warehouse::{GROUPS, Interval, Shelf, Warehouse};
use forebay_redis_tests::process::eventually;
use forebay_redis_tests::reply::Reply;
use forebay_redis_tests::sizes;

/// How long it may take until a node that is gone for good has lost its seat, and its slots have moved.
const SEAT_KEPT: Duration = Duration::from_secs(180);

#[test]
fn a_fourth_node_joins_and_another_is_drained_without_an_error() {
    let options = load_options();
    let warehouse = Warehouse::start(&options);
    let mut cluster = Cluster::start(ClusterOptions::default().in_front_of(&warehouse.database.url(), GROUPS));
    warehouse.warm(&mut cluster.nodes[0].connect());
    fill(&cluster.nodes[0]);
    let products = Load::start(&options, &cluster.addresses());
    let prices = Load::start(&price_options(), &cluster.addresses());
    let mut watches = [warehouse.watch(Shelf::Lasting, &products), warehouse.watch(Shelf::Expiring, &prices)];
    let mut look = |when: &str| {
        products.await_right(sizes::answers(), PATIENCE);
        prices.await_right(sizes::answers(), PATIENCE);
        let intervals = watches.each_mut().map(|watch| watch.interval());
        println!("{when}:\n    products {}\n    prices   {}", intervals[0], intervals[1]);
        intervals
    };
    look("at first");
    let before = look("before");

    let (began, owned) = (Instant::now(), owners(&cluster.nodes[0]));
    let joined = cluster.add();
    cluster.await_settled();
    println!("a fourth node: settled after {:.1?}", began.elapsed());
    sizes::claim(began.elapsed() <= Duration::from_secs(10), "done within 10 s");
    moved_to(&cluster.nodes[joined], &owned, &owners(&cluster.nodes[0]));
    compare(&before, &look("while it joined"));

    let began = Instant::now();
    let id = id_of(&cluster.nodes[1]);
    cluster.command(0, &["drain", &id]).unwrap_or_else(|words| panic!("drain: {words}"));
    cluster.await_settled_with(3);
    println!("{} is drained: settled after {:.1?}", cluster.nodes[1], began.elapsed());
    sizes::claim(began.elapsed() <= Duration::from_secs(10), "done within 10 s");
    let drained = cluster.nodes[1].host().to_string();
    assert!(!owners(&cluster.nodes[0]).contains(&drained), "it owns slots still");
    compare(&before, &look("while it was drained"));

    cluster.nodes[1].terminate();
    assert!(cluster.nodes[1].await_end().success(), "it does not end in order");
    look("after its end");
    finish("a fourth node joined, the second was drained and ended; products", products);
    finish("prices", prices);
}

/// What moves when a node joins: its share, and hardly anything else.
fn moved_to(node: &Node, before: &[String], after: &[String]) {
    let host = node.host().to_string();
    let moved = before.iter().zip(after).filter(|(old, new)| old != new).count();
    let to_it = after.iter().filter(|owner| **owner == host).count();
    println!("    {moved} slots of {} moved, {to_it} of them to {node}", after.len());
    assert!(to_it > 0, "the new node owns nothing");
    assert!(moved - to_it <= after.len() / 50, "{} slots moved in vain", moved - to_it);
}

fn compare(before: &[Interval; 2], during: &[Interval; 2]) {
    sizes::claim(before[0].hit_ratio() - during[0].hit_ratio() < 0.01, "the hit ratio dips by less than 1 point");
    let growth = during[1].queries_per_second() / before[1].queries_per_second();
    sizes::claim(growth <= 1.2, &format!("at most 1.2 times the queries of before: {growth:.2}"));
}

/// A change of owner is no moment without one, and no moment with two.
#[test]
fn moves_keep_the_registers_linearizable() {
    let mut cluster = Cluster::start(ClusterOptions::with("--copies 2 --min-acks 2"));
    let mut registers = Registers::new(RegisterOptions { seed: sizes::seed(), ..RegisterOptions::default() });
    registers.add(12, &cluster.addresses());
    registers.await_writes(400, PATIENCE);
    let joined = cluster.add();
    registers.add(4, &[cluster.nodes[joined].address()]);
    cluster.await_settled();
    registers.await_writes(400, PATIENCE);
    let id = id_of(&cluster.nodes[0]);
    cluster.command(1, &["drain", &id]).unwrap_or_else(|words| panic!("drain: {words}"));
    cluster.await_settled_with(3);
    registers.await_writes(400, PATIENCE);
    let names = registers.names();
    let (history, _) = registers.end(cluster.nodes[joined].address(), PATIENCE);
    println!("{history}");
    let violations = register::violations(&history);
    assert!(violations.is_empty(), "{} keys are not linearizable, first: {}", violations.len(), violations[0]);
    cluster.await_equal_copies(&names, PATIENCE);
}

#[test]
fn a_rolling_restart_costs_nobody_a_request() {
    let options = load_options();
    let warehouse = Warehouse::start(&options);
    let mut cluster = Cluster::start(ClusterOptions::default().in_front_of(&warehouse.database.url(), GROUPS));
    warehouse.warm(&mut cluster.nodes[0].connect());
    let before = owners(&cluster.nodes[0]);
    let load = Load::start(&options, &cluster.addresses());
    let mut watch = warehouse.watch(Shelf::Lasting, &load);
    load.await_right(sizes::answers(), PATIENCE);
    println!("before: {}", watch.interval());
    for node in 0..cluster.nodes.len() {
        let began = Instant::now();
        cluster.nodes[node].terminate();
        assert!(cluster.nodes[node].await_end().success(), "{} does not end in order", cluster.nodes[node]);
        let ended = began.elapsed();
        load.await_right(sizes::answers() / 2, PATIENCE);
        cluster.nodes[node].restart();
        cluster.await_settled();
        load.await_right(sizes::answers() / 2, PATIENCE);
        println!("{}: ended after {ended:.1?}; {}", cluster.nodes[node], watch.interval());
    }
    let changed = before.iter().zip(&owners(&cluster.nodes[0])).filter(|(old, new)| old != new).count();
    assert_eq!(changed, 0, "slots have another owner than before");
    finish("rolling restart", load);
}

#[test]
fn all_are_killed_and_started_again() {
    let mut cluster = Cluster::start(ClusterOptions::default());
    let before = owners(&cluster.nodes[0]);
    let ids: Vec<String> = cluster.nodes.iter().map(id_of).collect();
    cluster.nodes.iter_mut().for_each(Node::kill);
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.await_settled();
    assert_eq!(cluster.nodes.iter().map(id_of).collect::<Vec<_>>(), ids, "nodes forgot who they are");
    let changed = before.iter().zip(&owners(&cluster.nodes[0])).filter(|(old, new)| old != new).count();
    assert_eq!(changed, 0, "slots have another owner than before");
    assert_eq!(cluster.nodes[0].connect().command("SET k v"), Reply::Simple(b"OK".to_vec()));
    assert_eq!(cluster.nodes[1].connect().command("GET k"), Reply::Bulk(b"v".to_vec()));
}

#[test]
fn groups_outlive_the_death_of_all_nodes() {
    let options = load_options();
    let warehouse = Warehouse::start(&options);
    let mut cluster = Cluster::start(ClusterOptions::default().in_front_of(&warehouse.database.url(), ""));
    let file = cluster.nodes[0].data().with_file_name("groups.toml");
    fs::write(&file, GROUPS).expect("the file is written");
    let path = file.display().to_string();
    cluster.forebay(0, &["groups", "apply", &path]).unwrap_or_else(|words| panic!("apply: {words}"));
    let reads = |node: &Node| node.connect().command("GET product:7") == Reply::Bulk(b"value of product:7".to_vec());
    let all_read = |cluster: &Cluster| eventually(PATIENCE, || cluster.nodes.iter().all(reads));
    assert!(all_read(&cluster), "a node does not know the group");
    cluster.nodes.iter_mut().for_each(Node::kill);
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.await_settled();
    assert!(all_read(&cluster), "a node has forgotten the group");
    let listed = cluster.forebay(1, &["groups", "list"]).unwrap_or_else(|words| panic!("list: {words}"));
    assert!(listed.contains("product"), "{listed}");
}

#[test]
fn a_node_whose_disk_was_lost_is_taken_back_as_new() {
    let mut cluster = Cluster::start(ClusterOptions::default());
    let mut connection = cluster.nodes[0].connect();
    for n in 0..200 {
        assert_eq!(connection.command(&format!("SET k:{n} {n}")), Reply::Simple(b"OK".to_vec()));
    }
    assert_eq!(connection.command("WAIT 2 20000"), Reply::Integer(2), "an owner alone has what it has acknowledged");
    let id = id_of(&cluster.nodes[2]);
    cluster.nodes[2].kill();
    cluster.nodes[2].wipe();
    cluster.nodes[2].restart();
    cluster.await_settled_within(3, SEAT_KEPT);
    assert_ne!(id_of(&cluster.nodes[2]), id, "the identity was on the disk");
    for node in &cluster.nodes {
        let mut connection = node.connect();
        for n in 0..200 {
            assert_eq!(
                connection.command(&format!("GET k:{n}")),
                Reply::Bulk(n.to_string().into_bytes()),
                "k:{n} at {node}"
            );
        }
    }
    let names: Vec<String> = (0..200).map(|n| format!("k:{n}")).collect();
    cluster.await_equal_copies(&names, PATIENCE);
}

/// `forebay cluster status` tells of each node, and `remove` gives the seat of a dead one away at once.
#[test]
fn a_dead_node_is_removed_by_hand() {
    let mut cluster = Cluster::start(ClusterOptions { nodes: 4, ..ClusterOptions::default() });
    let ids: Vec<String> = cluster.nodes.iter().map(id_of).collect();
    let status = cluster.command(1, &["status"]).unwrap_or_else(|words| panic!("status: {words}"));
    assert!(ids.iter().all(|id| status.contains(id)), "{ids:?} in:\n{status}");
    cluster.nodes[3].kill();
    // That it is dead is known after about a second; before, it is not removed with what it holds.
    let is_removed = eventually(PATIENCE, || match cluster.command(0, &["remove", &ids[3]]) {
        Ok(_) => true,
        Err(words) => {
            assert!(words.contains("still holds slots"), "remove: {words}");
            false
        }
    });
    assert!(is_removed, "it is not removed");
    cluster.await_settled_with(3);
    let status = cluster.command(1, &["status"]).unwrap_or_else(|words| panic!("status: {words}"));
    assert!(!status.contains(&ids[3]), "it is listed still:\n{status}");
    assert!(cluster.command(0, &["drain", "nobody"]).is_err(), "a node that does not exist is drained");
}

// ---- what all of them use -----------------------------------------------------------------------

/// Clients as people have them. A tenth of what they ask is of counters, which tell whether anything was run twice.
fn load_options() -> LoadOptions {
    LoadOptions {
        clients: sizes::clients(),
        keys: sizes::keys(),
        count_share: 0.1,
        trusts_ends: true,
        seed: sizes::seed(),
        ..LoadOptions::default()
    }
}

/// Few enough keys that each is asked for again and again within its ttl.
fn price_options() -> LoadOptions {
    let options = load_options();
    LoadOptions {
        reads: "price".to_owned(),
        keys: options.keys.min(2000),
        write_share: 0.0,
        count_share: 0.0,
        ..options
    }
}

/// Writes many small keys, a thousand at a time.
fn fill(node: &Node) {
    let mut connection = node.connect();
    let numbers: Vec<usize> = (0..sizes::filling()).collect();
    for some in numbers.chunks(1000) {
        let request: String = some.iter().map(|n| format!("SET filling:{n} {n}\r\n")).collect();
        connection.send(request.as_bytes()).expect("the node reads");
        for n in some {
            assert_eq!(connection.read_raw().expect("a reply"), b"+OK\r\n", "filling:{n}");
        }
    }
}

/// Ends the load, of which no request may have failed.
fn finish(what: &str, load: Load) {
    let report: Report = load.end();
    println!("{what}: {report}");
    assert!(report.wrong().is_empty(), "{:?}", report.wrong());
    assert_eq!(report.failed(), 0, "requests failed: {:?}", report.kinds());
}

/// The owner of each slot.
fn owners(node: &Node) -> Vec<String> {
    let view: View = node.view().expect("a view");
    let owned = |range: &forebay_redis_tests::cluster::view::Range| {
        let owner = range.holders.first().cloned().unwrap_or_default();
        (range.first..=range.last).map(move |slot| (slot, owner.clone()))
    };
    let by_slot: BTreeMap<usize, String> = view.ranges.iter().flat_map(owned).collect();
    by_slot.into_values().collect()
}

fn id_of(node: &Node) -> String {
    let reply = node.connect().command("CLUSTER MYID");
    String::from_utf8_lossy(reply.text().unwrap_or_else(|| panic!("CLUSTER MYID: {reply}"))).into_owned()
}
