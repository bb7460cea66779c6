//! Nodes die and sleep while clients read and write. What was acknowledged is not lost, nobody sees time go backwards, and users
//! hardly notice.
//!
//! Figures are printed; they are held only with `FOREBAY_CLAIMS=1` (`sizes::claim`).

use std::time::{Duration, Instant};

use forebay_redis_tests::cluster::load::{Load, LoadOptions, value_of};
use forebay_redis_tests::cluster::node::{Node, PATIENCE, wait_until};
use forebay_redis_tests::cluster::nodes::{Cluster, ClusterOptions};
use forebay_redis_tests::cluster::registers::{RegisterOptions, Registers};
use forebay_redis_tests::cluster::verdict::{judge, options};
use forebay_redis_tests::cluster::warehouse::{GROUPS, Shelf, Warehouse};
use forebay_redis_tests::process::eventually;
use forebay_redis_tests::sizes;

/// Clients that keep a history.
const WRITERS: usize = 12;

/// Writes that are acknowledged before, during and after a fault.
const ENOUGH: u64 = 400;

// ---- death --------------------------------------------------------------------------------------

/// With the default settings: what users notice of it.
#[test]
fn a_killed_node_is_hardly_noticed() {
    let options =
        LoadOptions { clients: sizes::clients(), keys: sizes::keys(), seed: sizes::seed(), ..LoadOptions::default() };
    let warehouse = Warehouse::start(&options);
    let mut cluster = Cluster::start(ClusterOptions::default().in_front_of(&warehouse.database.url(), GROUPS));
    warehouse.warm(&mut cluster.nodes[0].connect());
    for round in 0..sizes::rounds() {
        for victim in 0..cluster.nodes.len() {
            let load = Load::start(&options, &cluster.addresses());
            let mut watch = warehouse.watch(Shelf::Lasting, &load);
            load.await_right(sizes::answers(), PATIENCE);
            let before = watch.interval();
            let role = cluster.nodes[victim].info("cluster", "raft_role").unwrap_or_default();
            let fault = load.now();
            cluster.nodes[victim].kill();
            load.await_calm(sizes::answers(), PATIENCE);
            let during = watch.interval();
            cluster.nodes[victim].restart();
            cluster.await_settled();
            load.await_right(sizes::answers(), PATIENCE);
            let after = watch.interval();
            let report = load.end();
            println!(
                "round {round}: {} ({role}) is killed {fault:.1?} after the begin: {report}",
                cluster.nodes[victim]
            );
            let (ended, slowest) = (report.errors_ended_after(fault), report.slowest(fault, fault + PATIENCE));
            println!("    errors ended after {ended:.2?}, slowest answer {slowest:.2?}");
            println!("    before: {before}\n    during: {during}\n    after:  {after}");
            assert!(report.wrong().is_empty(), "{:?}", report.wrong());
            sizes::claim(ended <= Duration::from_secs(2), "errors end within 2 s");
            sizes::claim(report.failed_share_of_a_minute() <= 0.001, "at most 0.1 % of a minute's requests fail");
            sizes::claim(before.hit_ratio() - during.hit_ratio() < 0.01, "the hit ratio dips by less than 1 point");
        }
    }
}

#[test]
fn a_killed_node_loses_no_write_that_two_have_acknowledged() {
    let mut cluster = Cluster::start(ClusterOptions::with("--copies 3 --min-acks 2"));
    for round in 0..sizes::rounds() {
        let mut registers = Registers::new(options(&format!("kill{round}")));
        registers.add(WRITERS, &cluster.addresses());
        registers.await_writes(ENOUGH, PATIENCE);
        for victim in 0..cluster.nodes.len() {
            cluster.nodes[victim].kill();
            registers.await_writes(ENOUGH, PATIENCE);
            cluster.nodes[victim].restart();
            cluster.await_settled();
            registers.await_writes(ENOUGH, PATIENCE);
        }
        judge(&cluster, registers);
    }
}

/// A client of a node that lives, and a key of another one that lives: the death of the third one is nothing to them, leader or not.
#[test]
fn the_leaders_death_disturbs_no_key_of_others() {
    let mut cluster = Cluster::start(ClusterOptions::default());
    let leader = leader(&cluster);
    let others: Vec<usize> = (0..cluster.nodes.len()).filter(|node| *node != leader).collect();
    let loads: Vec<Load> = others
        .iter()
        .map(|owner| {
            let tag = tag_owned_by(&cluster, *owner);
            let options = LoadOptions {
                clients: 4,
                reads: format!("{{{tag}}}read"),
                writes: format!("{{{tag}}}written"),
                keys: 50,
                seed: sizes::seed(),
                ..LoadOptions::default()
            };
            write_all(&cluster.nodes[*owner], &options);
            let places: Vec<_> = others.iter().map(|node| cluster.nodes[*node].address()).collect();
            Load::start(&options, &places)
        })
        .collect();
    loads.iter().for_each(|load| load.await_right(sizes::answers() / 2, PATIENCE));
    let fault = loads[0].now();
    cluster.nodes[leader].kill();
    loads.iter().for_each(|load| load.await_right(sizes::answers(), PATIENCE));
    for (owner, load) in others.iter().zip(loads) {
        let report = load.end();
        let slowest = report.slowest(fault, fault + PATIENCE);
        println!("the leader dies; keys of {}: slowest answer since {slowest:.2?}; {report}", cluster.nodes[*owner]);
        assert_eq!(report.failed(), 0, "requests that have nothing to do with the leader failed");
    }
}

// ---- sleep --------------------------------------------------------------------------------------

/// A node that was stopped, and has been declared down meanwhile, must not answer for its old keys when it goes on.
#[test]
fn a_sleeper_acknowledges_nothing_and_shows_nothing_old() {
    let cluster = Cluster::start(ClusterOptions::with("--copies 3 --min-acks 2"));
    for round in 0..sizes::rounds() {
        let sleeper = &cluster.nodes[round % cluster.nodes.len()];
        let mut registers =
            Registers::new(RegisterOptions { patience: sizes::fault() * 3, ..options(&format!("sleep{round}")) });
        let others: Vec<_> =
            cluster.nodes.iter().filter(|node| node.number() != sleeper.number()).map(Node::address).collect();
        registers.add(WRITERS, &others);
        registers.add(2, &[sleeper.address()]);
        registers.await_writes(ENOUGH, PATIENCE);
        let awake = Instant::now() + sizes::fault();
        sleeper.pause();
        registers.await_writes(ENOUGH, PATIENCE);
        // These ask the sleeper when others have written already: an answer from what it remembers would be seen to be old.
        registers.add(4, &[sleeper.address()]);
        registers.add(4, &[sleeper.direct()]);
        wait_until(awake);
        sleeper.resume();
        registers.await_writes(ENOUGH, PATIENCE);
        cluster.await_settled();
        registers.await_writes(ENOUGH, PATIENCE);
        judge(&cluster, registers);
    }
}

// ---- what all of them use -----------------------------------------------------------------------

fn leader(cluster: &Cluster) -> usize {
    let mut leader = None;
    let is_known = eventually(PATIENCE, || {
        let is_leader = |node: &Node| node.info("cluster", "raft_role").is_some_and(|role| role == "leader");
        leader = cluster.nodes.iter().position(is_leader);
        leader.is_some()
    });
    assert!(is_known, "nobody says that it is leader");
    leader.expect("it is known")
}

/// A hash tag whose slot the node owns.
fn tag_owned_by(cluster: &Cluster, owner: usize) -> String {
    let names: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
    let owned = cluster.owned_of(owner, &names);
    names[*owned.first().expect("it owns some of a thousand")].clone()
}

fn write_all(node: &Node, options: &LoadOptions) {
    let mut connection = node.connect();
    for number in 0..options.keys {
        let key = format!("{}:{number}", options.reads);
        let raw = connection.call(&["SET", &key, &value_of(&key)]).expect("a reply");
        assert_eq!(raw, b"+OK\r\n", "{key}");
    }
}
