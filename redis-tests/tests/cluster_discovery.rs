//! Nodes that find each other by the DNS: a real server that is asked, taught and stopped.

use forebay_redis_tests::cluster::names::NameServer;
use forebay_redis_tests::cluster::node::{Node, PATIENCE, PORTS};
use forebay_redis_tests::cluster::nodes::{Cluster, ClusterOptions};
use forebay_redis_tests::process::eventually;

/// The name that stands for all nodes.
const NAME: &str = "forebay.test";
/// The place of the DNS server in the cluster's network.
const SERVER: usize = 60;

#[test]
fn nodes_find_each_other_by_addresses_and_one_more_appears() {
    let (mut cluster, mut names) = prepare(3, NAME);
    (0..3).for_each(|node| names.enter(NAME, cluster.nodes[node].host()));
    names.start();
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.await_settled();
    cluster.assert_serves();

    let fourth = prepare_node(&mut cluster, &names, NAME);
    names.enter(NAME, cluster.nodes[fourth].host());
    cluster.nodes[fourth].start();
    cluster.await_settled();
    cluster.assert_serves();
}

#[test]
fn nodes_find_each_other_by_services_whose_ports_count() {
    let service = "_peer._tcp.forebay.test";
    let (mut cluster, mut names) = prepare(3, service);
    for node in 0..3 {
        let host = format!("node-{node}.test");
        names.enter(&host, cluster.nodes[node].host());
        names.offer(service, &host, PORTS.peer);
    }
    let nobody = 9;
    names.offer(service, "node-0.test", nobody);
    names.start();
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.await_settled();
    cluster.nodes[1].await_words(&[&format!("{}:{nobody} does not answer", cluster.nodes[0].host())]);
    cluster.assert_serves();
}

#[test]
fn a_server_that_is_away_for_a_while_is_missed_by_nobody_but_new_nodes() {
    let (mut cluster, mut names) = prepare(3, NAME);
    (0..3).for_each(|node| names.enter(NAME, cluster.nodes[node].host()));
    names.start();
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.await_settled();

    names.stop();
    cluster.assert_serves();
    // One that knows its cluster comes back to it without being told where it is.
    cluster.nodes[1].kill();
    cluster.nodes[1].restart();
    cluster.await_settled();
    let fourth = prepare_node(&mut cluster, &names, NAME);
    cluster.nodes[fourth].start();
    await_unreadiness(&cluster.nodes[fourth], &["dns:forebay.test cannot be looked up"]);
    cluster.nodes[..fourth].iter().for_each(Node::assert_serves);

    names.start();
    cluster.await_settled();
    cluster.nodes[fourth].await_words(&["dns:forebay.test stands for"]);
    cluster.assert_serves();
}

/// Nobody is flooded with news of what has not changed, and the other way to the cluster is gone all the same.
#[test]
fn a_name_that_nobody_knows_is_told_once_and_the_listed_nodes_are_asked_as_well() {
    let (mut cluster, mut names) = prepare(2, "unknown.test");
    names.start();
    cluster.nodes[0].start();
    await_unreadiness(&cluster.nodes[0], &["dns:unknown.test", "there is no such name"]);
    names.await_questions("unknown.test", 8);
    let told = cluster.nodes[0].output().lines().filter(|line| line.contains("WARN")).count();
    assert_eq!(told, 1, "{}", cluster.nodes[0].output());

    let first = format!("{}:{}", cluster.nodes[0].host(), PORTS.peer);
    cluster.nodes[1].add_args(&["--join", &first]);
    cluster.nodes[1].start();
    cluster.await_settled();
}

/// Others may be registered any moment. Who formed a cluster now might form one of several.
#[test]
fn who_finds_only_itself_waits_for_a_cluster_and_joins_it() {
    let (mut cluster, mut names) = prepare(2, NAME);
    names.start();
    let lone = prepare_node(&mut cluster, &names, NAME);
    names.enter(NAME, cluster.nodes[lone].host());
    cluster.nodes[lone].start();
    cluster.nodes[lone].await_words(&[&format!("{NAME} stands for {}", cluster.nodes[lone].host())]);
    names.await_questions(NAME, 8);
    await_unreadiness(&cluster.nodes[lone], &["waiting for a cluster", "--bootstrap-expect"]);

    (0..2).for_each(|node| names.enter(NAME, cluster.nodes[node].host()));
    (0..2).for_each(|node| cluster.nodes[node].start());
    cluster.await_settled();
}

// ---- what all of them use -----------------------------------------------------------------------

/// Nodes that find each other by `name`, and the DNS server that they ask; none is started.
fn prepare(nodes: usize, name: &str) -> (Cluster, NameServer) {
    let mut cluster = Cluster::prepare(ClusterOptions { nodes, is_listed: false, ..ClusterOptions::default() });
    let names = NameServer::at(cluster.network.address(SERVER));
    cluster.nodes.iter_mut().for_each(|node| discover(node, &names, name));
    (cluster, names)
}

/// One more; its number.
fn prepare_node(cluster: &mut Cluster, names: &NameServer, name: &str) -> usize {
    let number = cluster.prepare_node();
    discover(&mut cluster.nodes[number], names, name);
    number
}

fn discover(node: &mut Node, names: &NameServer, name: &str) {
    node.add_args(&["--discover", &format!("dns:{name}"), "--dns-server", &names.socket().to_string()]);
}

fn await_unreadiness(node: &Node, words: &[&str]) {
    let mut said = None;
    let says = eventually(PATIENCE, || {
        said = node.unreadiness();
        said.as_ref().is_some_and(|said| words.iter().all(|word| said.contains(word)))
    });
    assert!(says, "/ready of {node} does not say {words:?}, but {said:?}:\n{}", node.output_tail());
}
