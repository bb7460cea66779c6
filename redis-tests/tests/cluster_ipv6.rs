//! Nodes with IPv6 addresses are a cluster like any other: they find each other, forward, copy, and are found by the command line.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use forebay_redis_tests::cluster::certificates::Authority;
use forebay_redis_tests::cluster::node::PATIENCE;
use forebay_redis_tests::connection::Connection;
use forebay_redis_tests::http;
use forebay_redis_tests::process::{ServerProcess, eventually, free_ports};
use forebay_redis_tests::reply::Reply;
use forebay_redis_tests::server::forebay_binary;

#[test]
fn nodes_on_ipv6_forward_and_copy() {
    forward_and_copy(&[]);
}

#[test]
fn they_know_each_other_by_certificates_too() {
    forward_and_copy(&Authority::generate().arguments(&["::1"]));
}

fn forward_and_copy(tls: &[String]) {
    let first = Node::start(None, tls);
    let second = Node::start(Some(&first), tls);
    let address = format!("[::1]:{}", second.ports.peer);
    let is_settled = |told: &str| told.contains("every slot is where it is to be") && told.contains(&address);
    assert!(eventually(PATIENCE, || is_settled(&first.status(tls))), "{}", first.status(tls));

    let keys: Vec<String> = (0..200).map(|n| format!("k:{n}")).collect();
    let mut connection = first.connect();
    for key in &keys {
        assert_eq!(connection.command(&format!("SET {key} {key}")), Reply::Simple(b"OK".to_vec()), "{key}");
    }
    assert_eq!(connection.command("WAIT 1 20000"), Reply::Integer(1), "an owner alone has what it has acknowledged");
    let mut connection = second.connect();
    keys.iter().for_each(|key| assert_eq!(connection.command(&format!("GET {key}")), Reply::Bulk(key.clone().into())));
    let told = connection.command("INFO forebay");
    let told = String::from_utf8_lossy(told.text().expect("a text")).into_owned();
    assert!(!told.contains("forwarded_requests:0\r"), "all keys are its own: {told}");

    // The one that did not form the cluster has no vote, so that the other goes on without it.
    drop(second);
    let mut connection = first.connect();
    keys.iter().for_each(|key| assert_eq!(connection.command(&format!("GET {key}")), Reply::Bulk(key.clone().into())));
}

struct Node {
    _process: ServerProcess,
    ports: Ports,
}

#[derive(Clone, Copy)]
struct Ports {
    resp: u16,
    http: u16,
    peer: u16,
}

impl Node {
    /// Starts a node, alone or to join another, and waits until it is ready.
    fn start(joins: Option<&Node>, tls: &[String]) -> Node {
        let command = |directory: &Path| {
            let [resp, http, peer, raft, metrics] = free_ports();
            let mut command = Command::new(forebay_binary());
            command.args(["node", "--bind", "::1", "--direct-port", "off", "--data-dir"]).arg(directory.join("data"));
            let ports = [
                ("--port", resp),
                ("--http-port", http),
                ("--peer-port", peer),
                ("--raft-port", raft),
                ("--metrics-port", metrics),
            ];
            for (flag, port) in ports {
                command.args([flag, &port.to_string()]);
            }
            if let Some(other) = joins {
                command.args(["--join", &format!("[::1]:{}", other.ports.peer)]);
            }
            command.args(tls);
            (command, Ports { resp, http, peer })
        };
        let is_ready = |ports: &Ports| http::status(here(ports.http), "/ready") == Some(200);
        let (process, ports) =
            ServerProcess::start("forebay", command, is_ready).unwrap_or_else(|error| panic!("{error}"));
        Node { _process: process, ports }
    }

    fn connect(&self) -> Connection {
        Connection::open(here(self.ports.resp)).expect("it serves")
    }

    /// What the command line tells of the cluster.
    fn status(&self, tls: &[String]) -> String {
        let node = format!("[::1]:{}", self.ports.peer);
        let output = Command::new(forebay_binary()).args(["cluster", "status", "--node", &node]).args(tls).output();
        let output = output.expect("it can be run");
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    }
}

fn here(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv6Addr::LOCALHOST, port))
}
