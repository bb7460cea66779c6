//! What people get wrong: every mistake is told in words that name its cause, and the cluster that runs does not suffer.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};

use forebay_redis_tests::cluster::network::socket;
use forebay_redis_tests::cluster::node::{Node, PATIENCE, PORTS};
use forebay_redis_tests::cluster::nodes::{Cluster, ClusterOptions};
use forebay_redis_tests::process::eventually;
use forebay_redis_tests::reply::Reply;
use forebay_redis_tests::small_disk::SmallDisk;

#[test]
fn a_port_in_use_is_named() {
    for port in [PORTS.peer, PORTS.raft] {
        let mut cluster = Cluster::prepare(ClusterOptions { nodes: 1, ..ClusterOptions::default() });
        let node = &mut cluster.nodes[0];
        let _taken = TcpListener::bind(socket(node.host(), port)).expect("the address is ours");
        node.start();
        assert!(!node.await_end().success(), "it runs without port {port}");
        let address = socket(node.host(), port).to_string();
        says(node, &[&address, "in use"]);
    }
}

#[test]
fn a_seed_that_nobody_listens_at_is_named_and_tried_again() {
    let mut cluster = Cluster::prepare(ClusterOptions { nodes: 2, ..ClusterOptions::default() });
    let [first, second] = &mut cluster.nodes[..] else { panic!("two nodes") };
    first.start();
    let missing = socket(second.host(), PORTS.peer).to_string();
    assert!(eventually(PATIENCE, || first.output().contains(&missing)), "{missing} is not named:\n{}", first.output());
    assert!(!first.has_ended(), "it does not wait for the others");
    assert!(!first.is_ready(), "it serves alone, though two are expected");
    second.start();
    cluster.await_settled();
}

#[test]
fn a_node_that_waits_for_others_ends_in_order() {
    let mut cluster = Cluster::prepare(ClusterOptions { nodes: 2, ..ClusterOptions::default() });
    let node = &mut cluster.nodes[0];
    node.start();
    assert!(eventually(PATIENCE, || node.connectable()), "its doors do not open");
    node.terminate();
    assert!(node.await_end().success(), "{}", node.output());
}

/// Two clusters that were formed by themselves hold different things under the same keys: they must never become one by accident.
#[test]
fn a_node_of_another_cluster_is_turned_away() {
    let mut cluster = Cluster::start(ClusterOptions::default());
    let mut elsewhere = Cluster::start(ClusterOptions { nodes: 2, ..ClusterOptions::default() });
    elsewhere.nodes.iter_mut().for_each(Node::kill);
    let stranger = cluster.prepare_node();
    copy(&elsewhere.nodes[0].data(), &cluster.nodes[stranger].data());
    cluster.nodes[stranger].start();
    cluster.nodes[stranger].await_words(&["another cluster"]);
    assert!(!cluster.nodes[stranger].is_ready(), "it was let in");
    cluster.nodes[stranger].kill_if_running();
    cluster.await_settled();
    cluster.assert_serves();
}

/// A machine image that was copied with its data directory.
#[test]
fn the_second_of_two_nodes_with_one_identity_is_turned_away() {
    let mut cluster = Cluster::start(ClusterOptions::default());
    let id = cluster.nodes[0].connect().command("CLUSTER MYID");
    let id = String::from_utf8_lossy(id.text().expect("an id")).into_owned();
    let twin = cluster.prepare_node();
    copy(&cluster.nodes[0].data(), &cluster.nodes[twin].data());
    cluster.nodes[twin].start();
    cluster.nodes[twin].await_words(&[&format!("node {id} is already running at {}", cluster.nodes[0].host())]);
    assert!(!cluster.nodes[twin].await_end().success(), "it goes on");
    cluster.await_settled();
    cluster.assert_serves();
}

#[test]
fn a_corrupted_log_is_named_and_nothing_is_lost() {
    let mut cluster = Cluster::start(ClusterOptions::default());
    let keys: Vec<String> = (0..200).map(|n| format!("kept:{n}")).collect();
    let mut connection = cluster.nodes[0].connect();
    for key in &keys {
        assert_eq!(connection.command(&format!("SET {key} {key}")), Reply::ok());
    }
    assert_eq!(connection.command("WAIT 2 20000"), Reply::Integer(2), "every node is to have them");
    cluster.nodes[1].kill();
    let log = largest_file(&cluster.nodes[1].data());
    let mut bytes = fs::read(&log).expect("the log can be read");
    // What a disk does that loses blocks: zeros and rubbish from the first byte on.
    bytes.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at % 251) as u8);
    fs::write(&log, bytes).expect("the log can be written");
    cluster.nodes[1].start();
    assert!(!cluster.nodes[1].await_end().success(), "it runs with a corrupted log");
    let name = log.file_name().expect("a name").to_string_lossy().into_owned();
    says(&cluster.nodes[1], &[&name]);
    // Nothing is written before that: what was lost would be there again.
    for node in cluster.running() {
        let mut connection = node.connect();
        keys.iter().for_each(|key| connection.await_reply(&format!("GET {key}"), &Reply::bulk(key)));
    }
    cluster.assert_serves();
}

/// The disk of one node is full while the cluster changes: the others do not suffer, and the node comes back when there is space.
#[test]
fn a_full_disk_is_that_nodes_own_trouble() {
    let mut cluster = Cluster::prepare(ClusterOptions::default());
    let disk = SmallDisk::mount(&cluster.nodes[2].data());
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.await_settled();
    cluster.assert_serves();
    disk.fill();
    // A join is many changes, and all of them go into the log.
    cluster.add();
    let others = [0, 1, 3];
    let mut connections = others.map(|node| cluster.nodes[node].connect());
    for n in 0..200 {
        let reply = connections[n % others.len()].command(&format!("SET full:{n} {n}"));
        assert_eq!(reply, Reply::Simple(b"OK".to_vec()), "full:{n}");
    }
    let node = &mut cluster.nodes[2];
    if node.has_ended() {
        says(node, &["space"]);
    }
    node.kill_if_running();
    disk.empty();
    node.restart();
    cluster.await_settled();
    cluster.assert_serves();
}

/// Its kernel may take what is sent to it for ever: a caller that says nothing, not even that it is there, is gone.
#[test]
fn callers_that_vanish_do_not_keep_their_connections() {
    /// What begins a connection by HTTP/2, with no settings (RFC 9113, 3.4).
    const BEGINNING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let cluster = Cluster::start(ClusterOptions { nodes: 1, ..ClusterOptions::default() });
    let callers = [PORTS.peer, PORTS.raft].map(|port| {
        let mut caller = TcpStream::connect(socket(cluster.nodes[0].host(), port)).expect("it listens");
        caller.write_all(BEGINNING).expect("it is taken");
        caller.set_read_timeout(Some(PATIENCE)).expect("a limit");
        (port, caller)
    });
    for (port, mut caller) in callers {
        let mut said = Vec::new();
        let ended = caller.read_to_end(&mut said);
        assert!(!said.is_empty(), "port {port} speaks no HTTP/2");
        let is_closed = ended.as_ref().err().is_none_or(|error| error.kind() == ErrorKind::ConnectionReset);
        assert!(is_closed, "port {port} keeps the connection: {ended:?}");
    }
}

// ---- what all of them use -----------------------------------------------------------------------

fn says(node: &Node, words: &[&str]) {
    let output = node.output();
    let missing: Vec<_> = words.iter().filter(|word| !contains(&output, word)).collect();
    assert!(missing.is_empty(), "{node} does not say {missing:?}:\n{output}");
}

fn contains(text: &str, word: &str) -> bool {
    text.to_lowercase().contains(&word.to_lowercase())
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("the directory is there").map(|entry| entry.expect("an entry")) {
        let target = to.join(entry.file_name());
        match entry.file_type().expect("a type").is_dir() {
            true => copy(&entry.path(), &target),
            false => {
                fs::copy(entry.path(), target).expect("the file can be copied");
            }
        }
    }
}

fn largest_file(directory: &Path) -> PathBuf {
    let size = |path: &PathBuf| fs::metadata(path).map_or(0, |data| data.len());
    files(directory).into_iter().max_by_key(size).expect("the directory has files")
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("the directory is there").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
