//! Nodes that know each other by certificates: they work as without, and strangers are turned away with a word to both ends.

use std::net::Ipv4Addr;

use forebay_redis_tests::cluster::certificates::Authority;
use forebay_redis_tests::cluster::network::socket;
use forebay_redis_tests::cluster::node::{Node, PATIENCE, PORTS};
use forebay_redis_tests::cluster::nodes::{Cluster, ClusterOptions};
use forebay_redis_tests::process::eventually;
use forebay_redis_tests::reply::Reply;

#[test]
fn nodes_with_certificates_are_a_cluster_like_any_other() {
    let authority = Authority::generate();
    let mut cluster = start(&authority);
    let keys: Vec<String> = (0..200).map(|n| format!("k:{n}")).collect();
    write(&cluster.nodes[0], &keys);
    read(&cluster.nodes[1], &keys);
    assert!(cluster.nodes[0].counter("forwarded_requests") > 0, "all keys are its own");
    cluster.await_equal_copies(&keys, PATIENCE);

    cluster.nodes[2].kill();
    cluster.await_settled();
    read(&cluster.nodes[1], &keys);
    cluster.nodes[2].restart();
    cluster.await_settled();
    read(&cluster.nodes[2], &keys);
}

#[test]
fn the_command_line_shows_a_certificate_too() {
    let authority = Authority::generate();
    let mut cluster = start(&authority);
    let told = command(&mut cluster, &authority.arguments(&["operator.test"])).expect("it is let in");
    assert!(told.contains("every slot is where it is to be"), "{told}");
    let refused = command(&mut cluster, &[]).expect_err("it shows no certificate");
    assert!(refused.contains("--peer-tls-cert"), "{refused}");
    let unknown = Authority::generate();
    let stranger = unknown.arguments_trusting(&["operator.test"], &authority);
    let refused = command(&mut cluster, &stranger).expect_err("nobody knows who signed it");
    assert!(refused.contains("it does not accept this node's certificate"), "{refused}");
    let doubtful = unknown.arguments(&["operator.test"]);
    let refused = command(&mut cluster, &doubtful).expect_err("it does not know who signed the node's");
    assert!(refused.contains("its certificate is not of this node's authority"), "{refused}");
}

#[test]
fn a_node_without_a_certificate_is_refused_in_words_at_both_ends() {
    let authority = Authority::generate();
    let mut cluster = start(&authority);
    let stranger = cluster.prepare_node();
    cluster.nodes[stranger].start();
    cluster.nodes[stranger].await_words(&["does not answer", "--peer-tls-cert"]);
    await_refusal(&cluster, "it does not speak TLS");
    goes_on_without(&mut cluster, stranger);
}

#[test]
fn a_node_with_the_certificate_of_a_stranger_is_refused_in_words_at_both_ends() {
    let authority = Authority::generate();
    let mut cluster = start(&authority);
    let stranger = cluster.prepare_node();
    let (unknown, host) = (Authority::generate(), cluster.nodes[stranger].host());
    cluster.nodes[stranger].add_args(&unknown.arguments_trusting(&[&host.to_string()], &authority));
    cluster.nodes[stranger].start();
    cluster.nodes[stranger].await_words(&["does not answer", "it does not accept this node's certificate"]);
    await_refusal(&cluster, "its certificate is not of this node's authority");
    goes_on_without(&mut cluster, stranger);
}

/// A certificate of the authority is not enough: whoever is called must be who it says it is.
#[test]
fn a_certificate_for_another_host_is_refused() {
    let authority = Authority::generate();
    let mut cluster = start(&authority);
    let liar = cluster.prepare_node();
    cluster.nodes[liar].add_args(&authority.arguments(&["somebody.else.test"]));
    cluster.nodes[liar].start();
    let host = cluster.nodes[liar].host().to_string();
    let is_doubted = || {
        let mut others = cluster.nodes[..liar].iter();
        others.any(|node| node.output().contains("not valid for name") && node.output().contains(&host))
    };
    assert!(eventually(PATIENCE, is_doubted), "nobody doubts it:\n{}", cluster.nodes[0].output_tail());
    assert!(!cluster.nodes[liar].is_ready(), "it was let in");
}

/// One certificate for all, as a service of containers has it whose addresses nobody knows before.
#[test]
fn a_name_that_all_certificates_share_stands_for_every_host() {
    let authority = Authority::generate();
    let mut shared = authority.arguments(&["forebay.test"]);
    shared.extend(["--peer-tls-name", "forebay.test"].map(str::to_owned));
    let mut cluster = Cluster::start(ClusterOptions { args: shared, ..ClusterOptions::default() });
    let keys: Vec<String> = (0..50).map(|n| format!("k:{n}")).collect();
    write(&cluster.nodes[0], &keys);
    read(&cluster.nodes[1], &keys);
    cluster.nodes.iter_mut().for_each(Node::kill);
}

/// Raft's port is no back door: nobody gets as far as asking without a certificate.
#[test]
fn the_raft_port_wants_certificates_as_well() {
    let authority = Authority::generate();
    let mut cluster = start(&authority);
    let raft = socket(cluster.nodes[0].host(), PORTS.raft).to_string();
    let mut ask = |tls: &[String]| {
        let args = [&["cluster", "status", "--node", &raft].map(str::to_owned)[..], tls].concat();
        cluster.run(&args.iter().map(String::as_str).collect::<Vec<_>>()).expect_err("that is no question for Raft")
    };
    let let_in = ask(&authority.arguments(&["operator.test"]));
    assert!(!let_in.contains("--peer-tls"), "{let_in}");
    let refused = ask(&[]);
    assert!(refused.contains("--peer-tls-cert"), "{refused}");
    let unknown = Authority::generate();
    let refused = ask(&unknown.arguments_trusting(&["operator.test"], &authority));
    assert!(refused.contains("it does not accept this node's certificate"), "{refused}");
}

#[test]
fn files_that_are_no_certificates_are_named() {
    let authority = Authority::generate();
    let mut cluster = Cluster::prepare(ClusterOptions { nodes: 1, ..ClusterOptions::default() });
    let mut args = authority.arguments(&["forebay.test"]);
    // The certificate where the key should be.
    args[3] = args[1].clone();
    cluster.nodes[0].add_args(&args);
    cluster.nodes[0].start();
    assert!(!cluster.nodes[0].await_end().success(), "it runs without a key");
    cluster.nodes[0].await_words(&[&args[3], "cannot be used"]);
}

// ---- what all of them use -----------------------------------------------------------------------

/// Three nodes, each with a certificate for its own address.
fn start(authority: &Authority) -> Cluster {
    let mut cluster = Cluster::prepare(ClusterOptions::default());
    for node in &mut cluster.nodes {
        let host: Ipv4Addr = node.host();
        node.add_args(&authority.arguments(&[&host.to_string()]));
        node.start();
    }
    cluster.await_settled();
    cluster
}

fn command(cluster: &mut Cluster, tls: &[String]) -> Result<String, String> {
    let args: Vec<&str> = std::iter::once("status").chain(tls.iter().map(String::as_str)).collect();
    cluster.command(0, &args)
}

/// A member has said in its log why it turned somebody away.
fn await_refusal(cluster: &Cluster, why: &str) {
    let refuses = |line: &str| line.contains("a connection from 127.0.0.1 is refused") && line.contains(why);
    let is_told = || cluster.nodes.iter().any(|node| node.output().lines().any(refuses));
    assert!(eventually(PATIENCE, is_told), "no node says `{why}`:\n{}", cluster.nodes[0].output_tail());
}

/// The stranger was not let in, and nobody suffers from it.
fn goes_on_without(cluster: &mut Cluster, stranger: usize) {
    assert!(!cluster.nodes[stranger].is_ready(), "it was let in");
    let keys: Vec<String> = (0..50).map(|n| format!("k:{n}")).collect();
    write(&cluster.nodes[0], &keys);
    read(&cluster.nodes[1], &keys);
    cluster.nodes[stranger].kill();
    cluster.await_settled();
}

fn write(node: &Node, keys: &[String]) {
    let mut connection = node.connect();
    for key in keys {
        assert_eq!(
            connection.command(&format!("SET {key} of-{key}")),
            Reply::Simple(b"OK".to_vec()),
            "{key} at {node}"
        );
    }
}

fn read(node: &Node, keys: &[String]) {
    let mut connection = node.connect();
    for key in keys {
        let value = Reply::Bulk(format!("of-{key}").into_bytes());
        assert_eq!(connection.command(&format!("GET {key}")), value, "{key} at {node}");
    }
}
