//! Keys that many read by way of nodes that do not own them. These answer by copies that they hold for moments, and nobody ever reads
//! what is older than what somebody knows by then.

use std::time::{Duration, Instant};

use forebay_redis_tests::cluster::node::{Node, PATIENCE, wait_until};
use forebay_redis_tests::cluster::nodes::{Cluster, ClusterOptions};
use forebay_redis_tests::cluster::registers::{RegisterOptions, Registers};
use forebay_redis_tests::cluster::verdict::{judge, options};
use forebay_redis_tests::connection::{Connection, encode};
use forebay_redis_tests::process::eventually;
use forebay_redis_tests::sizes;

/// Clients that keep a history.
const CLIENTS: usize = 12;

/// Writes that are acknowledged before, during and after a fault.
const ENOUGH: u64 = 100;

/// What is done to a node.
type Fault = fn(&mut Node);

/// Nodes that do not own a key answer for it by copies that they hold for moments, while it is written and its owner ends, dies and
/// sleeps: whatever is read is at least as new as what anybody knows by then.
#[test]
fn a_hot_key_is_never_read_old() {
    let mut cluster = Cluster::start(ClusterOptions::with("--copies 3 --min-acks 2 --hot-key-reads 20"));
    let (keys, writes, rest) = (3, 0.01, Duration::from_micros(500));
    let mut registers = Registers::new(RegisterOptions { keys, writes, rest, ..options("hot") });
    let names = registers.names();
    registers.add(CLIENTS, &cluster.addresses());
    registers.await_writes(2 * ENOUGH, PATIENCE);
    let faults: [(&str, Fault); 3] = [
        ("ends", |owner| {
            owner.terminate();
            assert!(owner.await_end().success(), "it does not end in order");
            owner.restart();
        }),
        ("dies", |owner| {
            owner.kill();
            owner.restart();
        }),
        ("sleeps", |owner| {
            let awake = Instant::now() + sizes::fault();
            owner.pause();
            wait_until(awake);
            owner.resume();
        }),
    ];
    for (what, fault) in faults {
        let owner = (0..cluster.nodes.len()).max_by_key(|node| cluster.owned_of(*node, &names).len()).expect("a node");
        let others = cluster.others(owner);
        // Some are at each node, whoever has fled from one before.
        registers.add(6, &cluster.addresses());
        registers.await_writes(ENOUGH, PATIENCE);
        let sum = |field| cluster.nodes.iter().map(|node| node.counter(field)).sum::<u64>();
        let [grants, taken_back] = [sum("hot_grants"), sum("hot_take_backs")];
        let served = |cluster: &Cluster| {
            others.iter().map(|node| cluster.nodes[*node].counter("hot_copies_served")).sum::<u64>()
        };
        let before = served(&cluster);
        fault(&mut cluster.nodes[owner]);
        registers.await_writes(ENOUGH, PATIENCE);
        cluster.await_settled();
        registers.await_writes(ENOUGH, PATIENCE);
        let copied = served(&cluster) - before;
        println!(
            "the owner {what}: {copied} reads from copies at the others; before, {grants} grants and {taken_back} take-backs"
        );
        assert!(copied > 1000 && taken_back > 10, "there were no hot copies to speak of");
    }
    judge(&cluster, registers);
}

/// A pipeline is answered in its order: what stands behind a write sees it, what stands before does not, although some is answered here by a copy
/// and some by the owner.
#[test]
fn a_pipeline_sees_its_own_writes_of_a_hot_key() {
    let cluster = Cluster::start(ClusterOptions::with("--hot-key-reads 20"));
    let asked = &cluster.nodes[cluster.others(cluster.owner_of("key"))[0]];
    let mut client = asked.connect();
    let get = encode(&["GET", "key"]);
    for turn in 0..100u32 {
        let before = format!("{turn}");
        let set = |value: &str| encode(&["SET", "key", value]);
        assert_eq!(answers(&mut client, &[set(&before)]), ["+OK\r\n"]);
        let copies = asked.counter("hot_copies_served");
        let is_copied = || {
            let seen = answers(&mut asked.connect(), &vec![get.clone(); 50]);
            assert!(seen.iter().all(|seen| *seen == bulk(&before)), "{seen:?}");
            asked.counter("hot_copies_served") > copies
        };
        assert!(eventually(PATIENCE, is_copied), "the key is not copied");
        let after = format!("{turn} and after");
        let pipeline = [get.clone(), get.clone(), set(&after), get.clone(), get.clone()];
        let (old, new) = (bulk(&before), bulk(&after));
        assert_eq!(answers(&mut client, &pipeline), [&old, &old, "+OK\r\n", &new, &new], "turn {turn}");
    }
    assert_eq!(answers(&mut client, &[encode(&["FLUSHALL"]), get]), ["+OK\r\n", "$-1\r\n"]);
}

fn bulk(value: &str) -> String {
    format!("${}\r\n{value}\r\n", value.len())
}

/// Sends the requests at once.
fn answers(client: &mut Connection, requests: &[Vec<u8>]) -> Vec<String> {
    client.send(&requests.concat()).expect("it is connected");
    let mut answer = |_| String::from_utf8(client.read_raw().expect("a reply")).expect("text");
    (0..requests.len()).map(&mut answer).collect()
}
