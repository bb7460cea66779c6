//! Nodes that find each other by AWS Cloud Map, of which moto's server answers here. They must have been built with `--features cloudmap`.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;

use forebay_redis_tests::cluster::network::socket;
use forebay_redis_tests::cluster::node::{Node, PATIENCE, PORTS};
use forebay_redis_tests::cluster::nodes::{Cluster, ClusterOptions};
use forebay_redis_tests::process::{ServerProcess, eventually};
use forebay_redis_tests::programs::{installed, run_script_of};
use forebay_redis_tests::reply::Reply;

/// The place and port of the server in the cluster's network.
const SERVER: (usize, u16) = (60, 5000);
const SERVICE: &str = "cloudmap:shop/forebay";

#[test]
fn nodes_find_each_other_and_one_more_appears() {
    let (mut cluster, map) = prepare();
    map.create_service();
    (0..3).for_each(|node| map.register(&cluster, node, &[&format!("AWS_INSTANCE_PORT={}", PORTS.peer)]));
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.await_settled();

    let fourth = cluster.prepare_node();
    map.point(&mut cluster.nodes[fourth]);
    // What ECS registers is the port that clients use; the attribute of our own says where nodes meet.
    map.register(&cluster, fourth, &["AWS_INSTANCE_PORT=6379", &format!("FOREBAY_PEER_PORT={}", PORTS.peer)]);
    cluster.nodes[fourth].start();
    cluster.await_settled();
    for node in &cluster.nodes {
        assert_eq!(node.connect().command("SET greeting hello"), Reply::Simple(b"OK".to_vec()), "{node}");
    }
}

#[test]
fn a_service_that_is_not_there_is_waited_for() {
    let (mut cluster, map) = prepare();
    cluster.nodes.iter_mut().for_each(Node::start);
    let mut said = None;
    let says = eventually(PATIENCE, || {
        said = cluster.nodes[0].unreadiness();
        said.as_ref().is_some_and(|said| said.contains(SERVICE) && said.contains("NamespaceNotFound"))
    });
    assert!(says, "/ready says {said:?}:\n{}", cluster.nodes[0].output_tail());
    map.create_service();
    // Without a port, it is that of the node that asks.
    (0..3).for_each(|node| map.register(&cluster, node, &[]));
    cluster.await_settled();
}

// ---- what all of them use -----------------------------------------------------------------------

/// Three nodes that are not started, and the server that they will ask.
fn prepare() -> (Cluster, CloudMap) {
    let args = ["--discover", SERVICE].map(str::to_owned).to_vec();
    let mut cluster = Cluster::prepare(ClusterOptions { args, is_listed: false, ..ClusterOptions::default() });
    let map = CloudMap::start(cluster.network.address(SERVER.0));
    cluster.nodes.iter_mut().for_each(|node| map.point(node));
    (cluster, map)
}

struct CloudMap {
    address: SocketAddr,
    _process: ServerProcess,
}

impl CloudMap {
    fn start(host: Ipv4Addr) -> Self {
        let address = socket(host, SERVER.1);
        let command = |_: &_| {
            let mut command = Command::new(installed("moto/bin/moto_server"));
            command.args(["-H", &host.to_string(), "-p", &SERVER.1.to_string()]);
            (command, address)
        };
        let started = ServerProcess::start("moto_server", command, |address| TcpStream::connect(address).is_ok());
        let (process, address) = started.unwrap_or_else(|error| panic!("{error}"));
        Self { address, _process: process }
    }

    /// Has a node ask this server, with credentials that it does not look at.
    fn point(&self, node: &mut Node) {
        node.set_env("AWS_ENDPOINT_URL", &format!("http://{}", self.address));
        node.set_env("AWS_REGION", "eu-west-1");
        node.set_env("AWS_ACCESS_KEY_ID", "testing");
        node.set_env("AWS_SECRET_ACCESS_KEY", "testing");
    }

    fn create_service(&self) {
        self.tell(&["create"]);
    }

    fn register(&self, cluster: &Cluster, node: usize, attributes: &[&str]) {
        let (name, host) = (format!("node-{node}"), format!("AWS_INSTANCE_IPV4={}", cluster.nodes[node].host()));
        self.tell(&[&["register", &name, &host], attributes].concat());
    }

    fn tell(&self, args: &[&str]) {
        let url = format!("http://{}", self.address);
        let args: Vec<String> = std::iter::once(url.as_str()).chain(args.iter().copied()).map(str::to_owned).collect();
        run_script_of("moto/bin/python", "cloud_map.py", &args);
    }
}
