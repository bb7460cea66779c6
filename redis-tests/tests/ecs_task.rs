//! A node as a task of Amazon ECS: what it takes from the task metadata endpoint, of which a stand-in answers here.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use forebay_redis_tests::cluster::node::PATIENCE;
use forebay_redis_tests::process::{eventually, loopback};
use forebay_redis_tests::reply::Reply;
use forebay_redis_tests::server::{Forebay, ForebayOptions};

const TASK: &str = "arn:aws:ecs:eu-west-1:111122223333:task/shop/e9028f8d5d8e4f258373e7b93ce9a3c3";
const SUCCESSOR: &str = "arn:aws:ecs:eu-west-1:111122223333:task/shop/17a0b2c6d3f94d5c8e7f6a5b4c3d2e1f";

#[test]
fn a_task_is_one_node_however_often_its_disk_is_new() {
    let (first, successor) = (Endpoint::of_task(TASK), Endpoint::of_task(SUCCESSOR));
    let ids = [&first, &first, &successor].map(|endpoint| text(&start(endpoint, &[], None), "CLUSTER MYID"));
    assert_eq!(ids[0], ids[1], "each had a directory of its own");
    assert_ne!(ids[0], ids[2]);
}

#[test]
fn zone_and_address_are_those_of_the_task() {
    let node = start(&Endpoint::of_task(TASK), &["--insecure"], Some("0.0.0.0"));
    assert_eq!(zone(&node), "eu-west-1b");
    assert_eq!(host(&node), "10.0.2.108");
}

#[test]
fn what_is_configured_goes_first() {
    let id = "5".repeat(40);
    let args = ["--node-id", &id, "--zone", "here", "--advertise", "cache.internal", "--insecure"];
    let node = start(&Endpoint::of_task(TASK), &args, Some("0.0.0.0"));
    assert_eq!((text(&node, "CLUSTER MYID"), zone(&node)), (id, "here".to_owned()));
    assert_eq!(host(&node), "cache.internal");
    // A node that listens at one address is found there.
    assert_eq!(host(&start(&Endpoint::of_task(TASK), &[], None)), "127.0.0.1");
}

#[test]
fn an_endpoint_that_is_of_no_use_keeps_no_node_from_starting() {
    let mut ids = Vec::new();
    for endpoint in
        [Endpoint::silent(), Endpoint::saying("404 Not Found", "no such task"), Endpoint::saying("200 OK", "{}")]
    {
        let mut node = start(&endpoint, &[], None);
        ids.push(text(&node, "CLUSTER MYID"));
        assert_eq!(zone(&node), "");
        let output = node.process().output();
        assert_eq!(output.matches("ECS does not tell of this task").count(), 1, "{output}");
    }
    assert!(ids[0] != ids[1] && ids[1] != ids[2], "they are different nodes: {ids:?}");
}

// ---- what all of them use -----------------------------------------------------------------------

fn start(endpoint: &Endpoint, args: &[&str], bind: Option<&str>) -> Forebay {
    let url = format!("http://{}/v4/e9028f8d-0001", endpoint.address);
    let options = ForebayOptions {
        args: args.iter().map(ToString::to_string).collect(),
        env: vec![("ECS_CONTAINER_METADATA_URI_V4".to_owned(), url)],
        bind: bind.map(str::to_owned),
        ..ForebayOptions::default()
    };
    let node = Forebay::start(options).unwrap_or_else(|error| panic!("{error}"));
    assert!(eventually(PATIENCE, || node.http_status("/ready") == Some(200)), "it does not become ready");
    node
}

fn text(node: &Forebay, command: &str) -> String {
    let reply = node.connect().command(command);
    String::from_utf8_lossy(reply.text().unwrap_or_else(|| panic!("{command}: {reply}"))).into_owned()
}

fn zone(node: &Forebay) -> String {
    let info = text(node, "INFO server");
    let line = info.lines().find_map(|line| line.strip_prefix("availability_zone:"));
    line.unwrap_or_else(|| panic!("no zone in {info}")).trim().to_owned()
}

/// The host that clients of clusters are told.
fn host(node: &Forebay) -> String {
    let slots = node.connect().command("CLUSTER SLOTS");
    let host = || -> Option<String> {
        let range = slots.items()?.first()?.items()?;
        let owner: &Reply = range.get(2)?;
        Some(String::from_utf8_lossy(owner.items()?.first()?.text()?).into_owned())
    };
    host().unwrap_or_else(|| panic!("no host in {slots}"))
}

/// A stand-in for the endpoint, ended when it is dropped.
struct Endpoint {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
    answering: Option<JoinHandle<()>>,
}

impl Endpoint {
    /// It describes a task with an address of its own, and one container.
    fn of_task(arn: &str) -> Self {
        Self::saying(
            "200 OK",
            &format!(
                r#"{{"Cluster": "shop", "TaskARN": "{arn}", "Family": "forebay", "Revision": "3", "DesiredStatus": "RUNNING",
                "KnownStatus": "RUNNING", "Containers": [{{"DockerId": "e9028f8d-0001", "Name": "forebay", "Networks":
                [{{"NetworkMode": "awsvpc", "IPv4Addresses": ["10.0.2.108"], "IPv4SubnetCIDRBlock": "10.0.2.0/24"}}]}}],
                "LaunchType": "FARGATE", "AvailabilityZone": "eu-west-1b"}}"#
            ),
        )
    }

    fn saying(status: &str, body: &str) -> Self {
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        Self::start(Some(answer))
    }

    /// It takes connections, and never answers.
    fn silent() -> Self {
        Self::start(None)
    }

    fn start(answer: Option<String>) -> Self {
        let listener = TcpListener::bind(loopback(0)).expect("a free port");
        let (address, is_over) = (listener.local_addr().expect("it is bound"), Arc::new(AtomicBool::new(false)));
        let is_ended = Arc::clone(&is_over);
        let answering = thread::spawn(move || {
            let mut unanswered = Vec::new();
            while let Ok((mut stream, _)) = listener.accept() {
                if is_ended.load(Ordering::SeqCst) {
                    return;
                }
                let Some(answer) = &answer else {
                    unanswered.push(stream);
                    continue;
                };
                let lines = BufReader::new(stream.try_clone().expect("a second handle")).lines();
                let request: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
                assert!(
                    request.first().is_some_and(|line| line == "GET /v4/e9028f8d-0001/task HTTP/1.1"),
                    "{request:?}"
                );
                stream.write_all(answer.as_bytes()).expect("the node reads its answer");
            }
        });
        Self { address, is_over, answering: Some(answering) }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        drop(std::net::TcpStream::connect(self.address));
        let ended = self.answering.take().map(JoinHandle::join);
        if !thread::panicking() {
            assert!(ended.is_some_and(|ended| ended.is_ok()), "what was asked was not the task");
        }
    }
}
