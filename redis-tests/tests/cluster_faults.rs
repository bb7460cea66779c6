//! Nodes die, sleep and lose each other while clients read and write. What was acknowledged is not lost, nobody sees time go backwards, and users
//! hardly notice.
//!
//! Figures are printed; what is asserted of times is only that things end.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use forebay_redis_tests::cluster::durability;
use forebay_redis_tests::cluster::history::{Call, Event, History, Outcome};
use forebay_redis_tests::cluster::load::{Load, LoadOptions, value_of};
use forebay_redis_tests::cluster::network::NetworkKind;
use forebay_redis_tests::cluster::node::{Node, PATIENCE, wait_until};
use forebay_redis_tests::cluster::nodes::{Cluster, ClusterOptions};
use forebay_redis_tests::cluster::register;
use forebay_redis_tests::cluster::registers::{RegisterOptions, Registers};
use forebay_redis_tests::cluster::warehouse::{GROUPS, Shelf, Warehouse};
use forebay_redis_tests::cluster::weather::Conditions;
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
        let mut registers = registers(&format!("kill{round}"));
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
        let mut registers = registers_with(&format!("sleep{round}"), sizes::fault() * 3);
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

// ---- partitions ---------------------------------------------------------------------------------

/// The harness itself: what is cut is cut, in the direction that it was cut.
#[test]
fn links_are_cut_and_healed() {
    let options = ClusterOptions { nodes: 1, network: NetworkKind::Namespaces, ..ClusterOptions::default() };
    let mut cluster = Cluster::prepare(options);
    cluster.prepare_node();
    cluster.nodes[0].start();
    cluster.nodes[0].await_ready();
    let host = cluster.nodes[0].host().to_string();
    assert!(reaches(&mut cluster, &host));
    cluster.network.cut(&[0], &[1]);
    assert!(!reaches(&mut cluster, &host), "the link is not cut");
    assert!(cluster.nodes[0].is_ready(), "the test itself reaches everybody");
    cluster.network.heal();
    assert!(reaches(&mut cluster, &host), "the link is not healed");
    cluster.network.cut_one_way(&[0], &[1]);
    assert!(!reaches(&mut cluster, &host), "answers come through a link that is cut one way");
}

/// Whether the second node's place reaches the first node.
fn reaches(cluster: &mut Cluster, host: &str) -> bool {
    let mut command = cluster.network.command(1, Path::new("timeout"));
    let done = command.args(["2", "redis-cli", "-h", host, "PING"]).output().expect("redis-cli can be run");
    String::from_utf8_lossy(&done.stdout).contains("PONG")
}

#[test]
fn a_partition_loses_no_write_that_two_have_acknowledged() {
    let cluster = partitioned_cluster("--copies 3 --min-acks 2");
    for minority in 0..cluster.nodes.len().min(sizes::rounds()) {
        let mut registers = registers(&format!("cut{minority}"));
        registers.add(WRITERS, &cluster.addresses());
        registers.add(3, &[cluster.nodes[minority].address()]);
        registers.await_writes(ENOUGH, PATIENCE);
        let healed_at = Instant::now() + sizes::fault();
        cluster.network.cut(&[minority], &others(&cluster, minority));
        registers.await_writes(ENOUGH, PATIENCE);
        wait_until(healed_at);
        cluster.network.heal();
        cluster.await_settled();
        registers.await_writes(ENOUGH, PATIENCE);
        judge(&cluster, registers);
    }
}

/// With one acknowledgement a write may be lost, but never are there two owners: when the others have acknowledged a write of a key, the minority
/// acknowledges none of it any more, and soon it acknowledges nothing at all.
#[test]
fn a_minority_stops_to_accept_writes_before_the_majority_begins() {
    let cluster = partitioned_cluster("--copies 3 --min-acks 1");
    let minority = usize::try_from(sizes::seed() % 3).expect("a small number");
    let rest: Vec<_> = others(&cluster, minority);
    let rest_addresses: Vec<_> = rest.iter().map(|node| cluster.nodes[*node].address()).collect();
    let mut registers = registers("fence");
    registers.add(6, &rest_addresses);
    registers.add(6, &[cluster.nodes[minority].address()]);
    let is_of_minority = |event: &Event| (6..12).contains(&event.client);
    registers.await_writes(ENOUGH, PATIENCE);
    let names = registers.names();
    let keys_of_minority = keys_owned_by(&cluster, minority, &names);

    let cut_at = registers.now();
    let healed_at = Instant::now() + sizes::fault();
    cluster.network.cut(&[minority], &rest);
    registers.await_writes(ENOUGH, PATIENCE);
    wait_until(healed_at);
    let healing_at = registers.now();
    cluster.network.heal();
    cluster.await_settled();
    registers.await_writes(ENOUGH, PATIENCE);
    let (history, _) = registers.end(cluster.nodes[0].address(), PATIENCE);
    println!("partition with --min-acks 1: {history}");

    let during = |event: &&Event| event.began > cut_at && event.ended < healing_at && event.outcome == Outcome::Written;
    let last_of_minority =
        history.events.iter().filter(during).filter(|event| is_of_minority(event)).max_by_key(|e| e.ended);
    println!(
        "last acknowledgement of the minority: {:.2?} after the cut",
        last_of_minority.map(|last| last.ended - cut_at)
    );
    let mut taken_over: BTreeMap<u32, Duration> = BTreeMap::new();
    for event in history.events.iter().filter(during).filter(|event| !is_of_minority(event)) {
        let first = taken_over.entry(event.key).or_insert(event.ended);
        *first = event.ended.min(*first);
    }
    for event in history.events.iter().filter(during).filter(|event| is_of_minority(event)) {
        let first = taken_over.get(&event.key).copied().unwrap_or(Duration::MAX);
        assert!(
            event.began <= first,
            "two owners of key {}: {first:.2?} others acknowledged a write, then\n{event}",
            event.key
        );
    }
    let by_majority = keys_of_minority.iter().filter(|key| taken_over.contains_key(key)).count();
    println!("{by_majority} of {} keys of the minority were written by the majority", keys_of_minority.len());
    assert!(by_majority > 0, "the majority did not go on with the minority's keys");
    assert!(refusals(&history, &is_of_minority) > 0, "the minority refused nothing");
    cluster.await_equal_copies(&names, PATIENCE);
}

/// Packets to a node are lost while its own arrive: it must not hold on to what it owns by speaking alone.
#[test]
fn a_deaf_node_keeps_nothing() {
    let cluster = partitioned_cluster("--copies 3 --min-acks 2");
    let deaf = usize::try_from(sizes::seed() % 3).expect("a small number");
    let mut registers = registers("deaf");
    registers.add(WRITERS, &cluster.addresses());
    registers.await_writes(ENOUGH, PATIENCE);
    let healed_at = Instant::now() + sizes::fault();
    cluster.network.cut_one_way(&others(&cluster, deaf), &[deaf]);
    registers.await_writes(ENOUGH, PATIENCE);
    wait_until(healed_at);
    cluster.network.heal();
    cluster.await_settled();
    registers.await_writes(ENOUGH, PATIENCE);
    judge(&cluster, registers);
}

// ---- bad weather --------------------------------------------------------------------------------

/// A slow network that loses packets costs time, and nothing else: no owner changes, no request fails, and a death is still survived.
#[test]
fn bad_weather_costs_time_only() {
    let mut cluster =
        Cluster::start(ClusterOptions { has_weather: true, ..ClusterOptions::with("--copies 3 --min-acks 2") });
    let owners = cluster.nodes[0].view();
    let mut registers = registers("weather");
    registers.add(WRITERS, &cluster.addresses());
    registers.await_writes(ENOUGH, PATIENCE);
    let [delay, jitter, pause] = [10, 10, 200].map(Duration::from_millis);
    cluster.weather(Conditions { delay, jitter, lost_in_a_million: 5000, pause });
    registers.await_writes(ENOUGH, PATIENCE);
    cluster.weather(Conditions::default());
    registers.await_writes(ENOUGH, PATIENCE);
    assert_eq!(cluster.nodes[0].view(), owners, "slots have other holders than before");
    let stormy = Conditions { delay, jitter, lost_in_a_million: 1000, pause };
    cluster.weather(stormy);
    cluster.nodes[1].kill();
    registers.await_writes(ENOUGH, PATIENCE);
    cluster.nodes[1].restart();
    cluster.await_settled();
    registers.await_writes(ENOUGH, PATIENCE);
    cluster.weather(Conditions::default());
    judge(&cluster, registers);
}

// ---- what all of them use -----------------------------------------------------------------------

fn options(prefix: &str) -> RegisterOptions {
    RegisterOptions { prefix: prefix.to_owned(), seed: sizes::seed(), ..RegisterOptions::default() }
}

fn registers(prefix: &str) -> Registers {
    Registers::new(options(prefix))
}

fn registers_with(prefix: &str, patience: Duration) -> Registers {
    Registers::new(RegisterOptions { patience, ..options(prefix) })
}

/// Ends the clients; their history must be linearizable, nothing acknowledged lost, and all copies equal.
fn judge(cluster: &Cluster, registers: Registers) {
    let names = registers.names();
    let (history, finally) = registers.end(cluster.nodes[0].address(), PATIENCE);
    println!("{history}");
    let losses = durability::losses(&history, &finally);
    assert!(losses.is_empty(), "{} keys lost an acknowledged write, first: {}", losses.len(), losses[0]);
    let violations = register::violations(&history);
    assert!(violations.is_empty(), "{} keys are not linearizable, first: {}", violations.len(), violations[0]);
    cluster.await_equal_copies(&names, PATIENCE);
}

fn partitioned_cluster(args: &str) -> Cluster {
    Cluster::start(ClusterOptions { network: NetworkKind::Namespaces, ..ClusterOptions::with(args) })
}

fn others(cluster: &Cluster, than: usize) -> Vec<usize> {
    (0..cluster.nodes.len()).filter(|node| *node != than).collect()
}

fn refusals(history: &History, is_meant: &impl Fn(&Event) -> bool) -> usize {
    let is_refusal = |event: &&Event| matches!((&event.outcome, event.call), (Outcome::Refused(_), Call::Write(_)));
    history.events.iter().filter(is_refusal).filter(|event| is_meant(event)).count()
}

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
    let owned = keys_owned_by(cluster, owner, &names);
    names[*owned.first().expect("it owns some of a thousand") as usize].clone()
}

/// The places of those names that the node owns.
fn keys_owned_by(cluster: &Cluster, owner: usize, names: &[String]) -> Vec<u32> {
    let node = &cluster.nodes[owner];
    let view = node.view().expect("a view");
    let host = node.host().to_string();
    let is_owned = |name: &String| view.holders(node.slot_of(name)).first() == Some(&host);
    (0..).zip(names).filter(|(_, name)| is_owned(name)).map(|(place, _)| place).collect()
}

fn write_all(node: &Node, options: &LoadOptions) {
    let mut connection = node.connect();
    for number in 0..options.keys {
        let key = format!("{}:{number}", options.reads);
        let raw = connection.call(&["SET", &key, &value_of(&key)]).expect("a reply");
        assert_eq!(raw, b"+OK\r\n", "{key}");
    }
}
