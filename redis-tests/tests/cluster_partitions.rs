//! Links are cut or slow while clients read and write. There are never two owners, what was acknowledged is not lost, and in the end all copies
//! are equal. Partitions need root (`src/cluster/network.rs`).

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use forebay_redis_tests::cluster::history::{Call, Event, History, Outcome};
use forebay_redis_tests::cluster::network::NetworkKind;
use forebay_redis_tests::cluster::node::{PATIENCE, wait_until};
use forebay_redis_tests::cluster::nodes::{Cluster, ClusterOptions};
use forebay_redis_tests::cluster::registers::Registers;
use forebay_redis_tests::cluster::verdict::{judge, options};
use forebay_redis_tests::cluster::weather::Conditions;
use forebay_redis_tests::sizes;

/// Clients that keep a history.
const WRITERS: usize = 12;

/// Writes that are acknowledged before, during and after a fault.
const ENOUGH: u64 = 400;

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
        let mut registers = Registers::new(options(&format!("cut{minority}")));
        registers.add(WRITERS, &cluster.addresses());
        registers.add(3, &[cluster.nodes[minority].address()]);
        registers.await_writes(ENOUGH, PATIENCE);
        let healed_at = Instant::now() + sizes::fault();
        cluster.network.cut(&[minority], &cluster.others(minority));
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
    let rest: Vec<_> = cluster.others(minority);
    let rest_addresses: Vec<_> = rest.iter().map(|node| cluster.nodes[*node].address()).collect();
    let mut registers = Registers::new(options("fence"));
    registers.add(6, &rest_addresses);
    registers.add(6, &[cluster.nodes[minority].address()]);
    let is_of_minority = |event: &Event| (6..12).contains(&event.client);
    registers.await_writes(ENOUGH, PATIENCE);
    let names = registers.names();
    let keys_of_minority = cluster.owned_of(minority, &names);

    let healed_at = Instant::now() + sizes::fault();
    cluster.network.cut(&[minority], &rest);
    // What began before may have been forwarded while the links were being cut, one after the other.
    let cut_at = registers.now();
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
    let by_majority = keys_of_minority.iter().filter(|key| taken_over.contains_key(&(**key as u32))).count();
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
    let registers = writers(&cluster, "deaf");
    let healed_at = Instant::now() + sizes::fault();
    cluster.network.cut_one_way(&cluster.others(deaf), &[deaf]);
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
    let registers = writers(&cluster, "weather");
    let [delay, jitter, pause] = [10, 10, 200].map(Duration::from_millis);
    cluster.weather(Conditions { delay, jitter, lost_in_a_million: 5000, pause, is_cut: false });
    registers.await_writes(ENOUGH, PATIENCE);
    cluster.weather(Conditions::default());
    registers.await_writes(ENOUGH, PATIENCE);
    assert_eq!(cluster.nodes[0].view(), owners, "slots have other holders than before");
    let history = judge(&cluster, registers);
    let failed = history.count(|outcome| matches!(outcome, Outcome::Refused(_) | Outcome::Unknown(_)));
    assert_eq!(failed, 0, "requests failed");

    let registers = writers(&cluster, "storm");
    let stormy = Conditions { delay, jitter, lost_in_a_million: 1000, pause, is_cut: false };
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

/// Clients at all nodes, which have begun to write.
fn writers(cluster: &Cluster, prefix: &str) -> Registers {
    let mut registers = Registers::new(options(prefix));
    registers.add(WRITERS, &cluster.addresses());
    registers.await_writes(ENOUGH, PATIENCE);
    registers
}

fn partitioned_cluster(args: &str) -> Cluster {
    Cluster::start(ClusterOptions { network: NetworkKind::Namespaces, ..ClusterOptions::with(args) })
}

fn refusals(history: &History, is_meant: &impl Fn(&Event) -> bool) -> usize {
    let is_refusal = |event: &&Event| matches!((&event.outcome, event.call), (Outcome::Refused(_), Call::Write(_)));
    history.events.iter().filter(is_refusal).filter(|event| is_meant(event)).count()
}
