//! `forebay demo`: what it tells people to type works, and nothing is left of it.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use forebay_redis_tests::connection::Connection;
use forebay_redis_tests::process::{eventually, loopback};
use forebay_redis_tests::reply::Reply;
use forebay_redis_tests::server::forebay_binary;
use tempfile::TempDir;

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(60);

const FREE_PORTS: [&str; 10] =
    ["--port", "0", "--direct-port", "0", "--http-port", "0", "--metrics-port", "0", "--peer-port", "0"];

/// The process; it is killed if it runs still when this is dropped.
struct Demo {
    process: Child,
    output: BufReader<ChildStdout>,
    temporary: TempDir,
}

impl Demo {
    fn start(args: &[&str]) -> Demo {
        let temporary = TempDir::new().expect("a temporary directory");
        let mut process = Command::new(forebay_binary())
            .arg("demo")
            .args(args)
            .env("TMPDIR", temporary.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary can be run");
        let output = BufReader::new(process.stdout.take().expect("it is piped"));
        Demo { process, output, temporary }
    }

    /// Reads on to the line with these words.
    fn line_with(&mut self, words: &str) -> String {
        let mut line = String::new();
        while self.output.read_line(&mut line).expect("it is text") > 0 {
            if line.contains(words) {
                return line;
            }
            line.clear();
        }
        panic!("it has ended without {words:?}: {}", self.complaint());
    }

    /// What it has written to its standard error, after its end.
    fn complaint(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut errors) = self.process.stderr.take() {
            errors.read_to_string(&mut text).expect("it is text");
        }
        text
    }

    /// Waits for its end; whether it was a good one.
    fn ends_well(&mut self) -> bool {
        let process = &mut self.process;
        assert!(eventually(PATIENCE, || process.try_wait().expect("it is ours").is_some()), "it does not end");
        process.wait().expect("it has ended").success()
    }

    fn has_left_nothing(&self) -> bool {
        fs::read_dir(self.temporary.path()).expect("the directory is there").next().is_none()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ended = self.process.kill();
        let _ended = self.process.wait();
    }
}

#[test]
fn any_of_three_doors_answers_any_key() {
    let mut demo = Demo::start(&FREE_PORTS);
    let doors = demo.line_with("Doors");
    let ports = doors.split_once(": ").expect("a list").1.trim().split(", ");
    let ports: Vec<u16> = ports.map(|port| port.parse().expect("a port")).collect();
    assert_eq!(ports.len(), 3, "{doors}");
    let status = demo.line_with("cluster status --node");
    let peer = status.split_whitespace().last().expect("an address").to_owned();
    let mut connections: Vec<_> =
        ports.iter().map(|port| Connection::open(loopback(*port)).expect("it listens")).collect();
    for rank in 1..=100 {
        let replies: Vec<Reply> =
            connections.iter_mut().map(|connection| connection.command(&format!("GET rank:{rank}"))).collect();
        assert!(replies.iter().all(|reply| *reply == replies[0] && reply.text().is_some()), "rank {rank}: {replies:?}");
    }
    let shards = connections[0].command("CLUSTER SHARDS");
    assert_eq!(shards.items().map(<[Reply]>::len), Some(3), "{shards}");
    let told = Command::new(forebay_binary()).args(["cluster", "status", "--node", &peer]).output().expect("it runs");
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    assert_eq!(String::from_utf8_lossy(&told.stdout).matches(" up ").count(), 3);
    // SHUTDOWN at one ends all.
    connections[2].send(b"SHUTDOWN NOSAVE\r\n").expect("it reads");
    assert!(demo.ends_well(), "{}", demo.complaint());
    assert!(demo.has_left_nothing());
}

#[test]
fn it_ends_after_the_seconds_that_were_asked_for() {
    let mut demo = Demo::start(&[&FREE_PORTS[..], &["--seconds", "2", "--load"]].concat());
    demo.line_with("joined another's load");
    assert!(demo.ends_well(), "{}", demo.complaint());
    assert!(demo.has_left_nothing());
}

#[test]
fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let mut demo = Demo::start(&[&FREE_PORTS[2..], &["--port", &port]].concat());
    assert!(!demo.ends_well(), "it runs without its port");
    let complaint = demo.complaint();
    assert!(complaint.contains(&port) && complaint.contains("--port"), "{complaint}");
    assert!(demo.has_left_nothing());
}
