//! What applications see through the libraries of other people, with the settings that those have by default, while nodes join, are drained,
//! end and start again: no error, and nothing that is run twice.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;

use forebay_redis_tests::cluster::balancer::Balancer;
use forebay_redis_tests::cluster::load::{Load, LoadOptions};
use forebay_redis_tests::cluster::node::{Node, PATIENCE};
use forebay_redis_tests::cluster::nodes::{Cluster, ClusterOptions};
use forebay_redis_tests::programs::run_script;
use forebay_redis_tests::reply::Reply;
use forebay_redis_tests::sizes;
use tempfile::TempDir;

/// Redis' own libraries, and where they run.
const LIBRARIES: [(&str, &str); 2] = [("python/bin/python", "steady.py"), ("node", "steady.mjs")];

/// A client that knows one address, of a balancer, and loses its connection when the node behind it ends.
#[test]
fn plain_clients_see_no_error_when_nodes_join_are_drained_and_restarted() {
    let mut cluster = Cluster::start(ClusterOptions::default());
    let fourth = cluster.prepare_node();
    let balancer = Balancer::before(cluster.addresses());
    while_used("plain", balancer.address(), || come_and_go(&mut cluster, fourth));
}

/// A client that knows of clusters, is told of one node and asks the owners.
#[test]
fn cluster_clients_see_no_error_when_nodes_join_are_drained_and_restarted() {
    let mut cluster = Cluster::start(ClusterOptions::default());
    let fourth = cluster.prepare_node();
    let first = cluster.nodes[0].direct();
    while_used("cluster", first, || come_and_go(&mut cluster, fourth));
}

/// Has all libraries ask `place` while `done` is done.
fn while_used(mode: &str, place: SocketAddr, done: impl FnOnce()) {
    let directory = TempDir::new().expect("a temporary directory");
    let file = directory.path().join("over");
    let arguments = [mode.to_owned(), place.ip().to_string(), place.port().to_string(), file.display().to_string()];
    thread::scope(|scope| {
        let arguments = &arguments;
        let libraries =
            LIBRARIES.map(|(interpreter, script)| scope.spawn(move || run_script(interpreter, script, arguments)));
        let over = Over(&file);
        done();
        drop(over);
        for library in libraries {
            print!("{}", library.join().expect("its application saw no error"));
        }
    });
}

/// Ends the scripts, also when the test fails meanwhile.
struct Over<'f>(&'f Path);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        fs::write(self.0, "").expect("the file can be written");
    }
}

/// A fourth node joins, the second one is drained and ended, and the others are restarted one after the other.
fn come_and_go(cluster: &mut Cluster, fourth: usize) {
    // A load of our own tells how long to wait: until so much has been asked by others, too.
    let options = LoadOptions { clients: 4, write_share: 1.0, trusts_ends: true, ..LoadOptions::default() };
    let load = Load::start(&options, &cluster.addresses());
    let meanwhile = || load.await_right(sizes::answers() / 4, PATIENCE);
    meanwhile();
    cluster.nodes[fourth].restart();
    cluster.await_settled();
    meanwhile();
    let id = match cluster.nodes[1].connect().command("CLUSTER MYID") {
        Reply::Bulk(id) => String::from_utf8(id).expect("forty digits"),
        other => panic!("CLUSTER MYID: {other}"),
    };
    cluster.command(0, &["drain", &id]).unwrap_or_else(|words| panic!("drain: {words}"));
    cluster.await_settled_with(3);
    meanwhile();
    end(&mut cluster.nodes[1]);
    meanwhile();
    for node in [0, 2, fourth] {
        end(&mut cluster.nodes[node]);
        meanwhile();
        cluster.nodes[node].restart();
        cluster.await_settled();
        meanwhile();
    }
    let report = load.end();
    println!("a load beside them: {report}");
    assert_eq!(report.failed(), 0, "{:?}", report.kinds());
}

fn end(node: &mut Node) {
    node.terminate();
    assert!(node.await_end().success(), "{node} does not end in order");
}
