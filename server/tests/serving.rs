//! A node from outside: its HTTP doors, and its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use forebay::app::App;
use forebay::config::{Config, Invocation};
use forebay_origin::EmbeddedDatabase;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// No test waits longer for anything.
const DEADLINE: Duration = Duration::from_secs(30);

const GROUPS: &str = r#"
[[group]]
name = "document"
key = "document:{id}"
load = "SELECT id, name FROM rows WHERE id = $1"
as = "json"

[[group]]
name = "record"
key = "record:{id}"
load = "SELECT id, name FROM rows WHERE id = $1"
as = "hash"

[[group]]
name = "broken"
key = "broken:{id}"
load = "SELECT name FROM rows WHERE id > 0 AND $1 = $1"
as = "string"
"#;

/// A node on free ports over a small database.
struct TestNode {
    app: App,
    _directory: TempDir,
}

impl TestNode {
    async fn start(arguments: &[&str]) -> TestNode {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("rows.sqlite");
        let mut database = EmbeddedDatabase::create(&file).await.expect("a database");
        database
            .run(
                "CREATE TABLE rows (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO rows VALUES (1, 'one'), (2, 'two')",
            )
            .await
            .expect("rows");
        database.finish().await.expect("closed");
        let groups = directory.path().join("groups.toml");
        std::fs::write(&groups, GROUPS).expect("written");
        let origin = format!("sqlite://{}", file.display());
        let groups = groups.display().to_string();
        let data = directory.path().join("data").display().to_string();
        let fixed = ["--origin", &origin, "--groups", &groups, "--data-dir", &data, "--threads", "2"];
        let config = config(&[&FREE_PORTS[..], &fixed, arguments].concat());
        let app = App::start(&config, &Handle::current()).await.expect("a node");
        TestNode { app, _directory: directory }
    }

    fn http(&self) -> SocketAddr {
        SocketAddr::new(self.app.bind(), self.app.ports().http.expect("a port"))
    }

    fn metrics(&self) -> SocketAddr {
        SocketAddr::new(self.app.bind(), self.app.ports().metrics.expect("a port"))
    }

    async fn resp(&self) -> TcpStream {
        let address = SocketAddr::new(self.app.bind(), self.app.ports().open);
        TcpStream::connect(address).await.expect("a connection")
    }

    async fn end(self) {
        self.app.drain(DEADLINE, std::future::pending()).await;
    }
}

const FREE_PORTS: [&str; 12] = [
    "--port",
    "0",
    "--direct-port",
    "0",
    "--http-port",
    "0",
    "--metrics-port",
    "0",
    "--peer-port",
    "0",
    "--raft-port",
    "0",
];

fn config(arguments: &[&str]) -> Config {
    let arguments = std::iter::once("forebay").chain(arguments.iter().copied()).map(Into::into);
    Invocation::read(arguments, &|_| None).expect("a right configuration").config
}

/// Sends a request without a body and answers status and body.
async fn ask(door: SocketAddr, method: &str, target: &str, headers: &str) -> (u16, String) {
    send(door, &format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n")).await
}

async fn get(door: SocketAddr, target: &str) -> (u16, String) {
    ask(door, "GET", target, "").await
}

async fn put(door: SocketAddr, target: &str, body: &str) -> (u16, String) {
    let length = body.len();
    send(
        door,
        &format!("PUT {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"),
    )
    .await
}

async fn send(door: SocketAddr, request: &str) -> (u16, String) {
    let exchange = async {
        let mut stream = TcpStream::connect(door).await.expect("a connection");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut response = Vec::new();
        stream.read_to_end(&mut response).await.expect("a response");
        String::from_utf8_lossy(&response).into_owned()
    };
    let response = tokio::time::timeout(DEADLINE, exchange).await.expect("in time");
    let status = response.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let (_, body) = response.split_once("\r\n\r\n").expect("a head");
    (status, body.to_owned())
}

/// Reads until the peer closes; a reset fails the test.
async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut bytes)).await.expect("in time");
    read.expect("an end in order");
    bytes
}

/// Waits until something holds.
async fn until(holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, waiting).await.expect("in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_by_http_reads_through() {
    let node = TestNode::start(&[]).await;
    let door = node.http();
    assert_eq!(get(door, "/api?key=document%3A1").await, (200, r#"{"id":1,"name":"one"}"#.to_owned()));
    assert_eq!(get(door, "/api?key=record:2").await, (200, r#"{"id":"2","name":"two"}"#.to_owned()));
    assert_eq!(get(door, "/api?key=document:3").await, (404, "document:3 not exist".to_owned()));
    assert_eq!(get(door, "/api?key=document:one").await, (404, "document:one not exist".to_owned()));
    assert_eq!(get(door, "/api").await.0, 400);
    assert_eq!(get(door, "/api?key=").await.0, 400);
    assert_eq!(get(door, "/nothing").await.0, 404);
    let (status, body) = get(door, "/api?key=broken:1").await;
    assert_eq!(status, 503, "{body}");
    assert!(body.starts_with("ORIGINERR "), "{body}");
    node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_written_and_removed_by_http() {
    let node = TestNode::start(&[]).await;
    let door = node.http();
    assert_eq!(put(door, "/api?key=k", "v").await.0, 200);
    assert_eq!(get(door, "/api?key=k").await, (200, "v".to_owned()));
    assert_eq!(ask(door, "DELETE", "/api?key=k", "").await, (200, "1\n".to_owned()));
    assert_eq!(ask(door, "DELETE", "/api?key=k", "").await, (200, "0\n".to_owned()));
    node.app.node().settings.proto_max_bulk_len.store(4, Relaxed);
    assert_eq!(put(door, "/api?key=k", "1234").await.0, 200);
    assert_eq!(put(door, "/api?key=k", "12345").await.0, 413);
    assert_eq!(get(door, "/api?key=k").await, (200, "1234".to_owned()));
    assert_eq!(ask(door, "POST", "/api?key=k", "Content-Length: 0\r\n").await.0, 405);
    node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_password_guards_everything_but_health() {
    let node = TestNode::start(&["--requirepass", "secret"]).await;
    let door = node.http();
    for guarded in ["/", "/api?key=document:1"] {
        assert_eq!(get(door, guarded).await.0, 401, "{guarded}");
        assert_eq!(ask(door, "GET", guarded, "Authorization: Bearer wrong\r\n").await.0, 401, "{guarded}");
        assert_eq!(ask(door, "GET", guarded, "Authorization: Bearer secret\r\n").await.0, 200, "{guarded}");
        // base64 of ":secret"
        assert_eq!(ask(door, "GET", guarded, "Authorization: Basic OnNlY3JldA==\r\n").await.0, 200, "{guarded}");
    }
    assert_eq!(get(door, "/health").await.0, 200);
    assert_eq!(get(door, "/ready").await.0, 200);
    node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_tell_what_happened() {
    let node = TestNode::start(&[]).await;
    get(node.http(), "/api?key=document:1").await;
    get(node.http(), "/api?key=document:1").await;
    let (status, text) = get(node.metrics(), "/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "forebay_requests_total{command=\"get\"} 2",
        "forebay_hits_total 1",
        "forebay_misses_total 1",
        "forebay_loads_total 1",
        "forebay_batch_keys_count{group=\"document\"} 1",
        "forebay_origin_breaker_state{target=\"0\",role=\"primary\",state=\"closed\"} 1",
        "forebay_connections 0",
    ] {
        assert!(text.lines().any(|told| told == line), "{line} in\n{text}");
    }
    let (_, page) = get(node.http(), "/").await;
    assert!(page.contains("loads") && page.contains("serving"), "{page}");
    node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_costs_the_http_door_nothing() {
    let node = TestNode::start(&[]).await;
    for rubbish in ["\r\n\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "*1\r\n$4\r\nPING\r\n", &"x".repeat(100_000)] {
        let mut stream = TcpStream::connect(node.http()).await.expect("a connection");
        // The door may hang up before it has taken all of it.
        let _sent = stream.write_all(rubbish.as_bytes()).await;
    }
    assert_eq!(get(node.http(), "/health").await.0, 200);
    node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_answers_what_was_asked_and_closes_in_order() {
    let node = TestNode::start(&[]).await;
    let mut idle = node.resp().await;
    let mut half = node.resp().await;
    half.write_all(b"*1\r\n$4\r\nPI").await.expect("sent");
    let mut busy = node.resp().await;
    busy.write_all(b"*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\n".repeat(1000).as_slice()).await.expect("sent");
    let mut first = [0];
    busy.read_exact(&mut first).await.expect("the first reply");
    let readers = async {
        assert_eq!(read_to_end(&mut idle).await, b"");
        assert_eq!(read_to_end(&mut half).await, b"");
        let replies = read_to_end(&mut busy).await;
        assert_eq!(replies.len() + 1, b"$2\r\nhi\r\n".len() * 1000);
        drop((idle, half, busy));
    };
    tokio::join!(node.end(), readers);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_above_the_output_limit_ends_the_connection() {
    let node = TestNode::start(&[]).await;
    let mut limited = node.resp().await;
    let value = "x".repeat(3000);
    let requests = format!("SET k {value}\r\nCONFIG SET client-output-buffer-limit \"normal 1kb 0 0\"\r\nPING\r\n");
    limited.write_all(requests.as_bytes()).await.expect("sent");
    let mut replies = [0; 17];
    limited.read_exact(&mut replies).await.expect("replies below the limit");
    assert_eq!(&replies, b"+OK\r\n+OK\r\n+PONG\r\n");
    limited.write_all(b"GET k\r\n").await.expect("sent");
    // It was run and is not answered: no orderly end.
    let end = limited.read(&mut [0]).await.expect_err("a reset");
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
    node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_arrived_before_a_drain_is_answered() {
    let node = TestNode::start(&[]).await;
    let mut streams = Vec::new();
    for _ in 0..50 {
        let mut stream = node.resp().await;
        stream.write_all(b"PING\r\n").await.expect("sent");
        stream.read_exact(&mut [0; 7]).await.expect("a reply");
        streams.push(stream);
    }
    for stream in &mut streams {
        stream.write_all(b"PING\r\n").await.expect("sent");
    }
    let readers = async {
        for mut stream in streams {
            assert_eq!(read_to_end(&mut stream).await, b"+PONG\r\n");
        }
    };
    tokio::join!(node.end(), readers);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_tells_of_a_drain_while_it_lasts_and_a_second_signal_ends_it() {
    let node = TestNode::start(&[]).await;
    let mut paused = node.resp().await;
    paused.write_all(b"CLIENT PAUSE 100000 ALL\r\n").await.expect("sent");
    let mut ok = [0; 5];
    paused.read_exact(&mut ok).await.expect("a reply");
    paused.write_all(b"PING\r\n").await.expect("sent");
    until(|| node.app.node().clients.all().iter().any(|client| client.blocked.load(Relaxed))).await;
    let (http, parts) = (node.http(), Arc::clone(node.app.node()));
    let (hurry, hurried) = oneshot::channel::<()>();
    let drain = tokio::spawn(node.app.drain(DEADLINE, async move { drop(hurried.await) }));
    until(|| parts.gates.is_draining()).await;
    assert_eq!(get(http, "/health").await, (503, "draining\n".to_owned()));
    assert!(!drain.is_finished(), "a paused client is waited for");
    hurry.send(()).expect("the drain listens");
    tokio::time::timeout(DEADLINE, drain).await.expect("in time").expect("no panic");
    assert!(TcpStream::connect(http).await.is_err(), "the HTTP door has closed, too");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_keeps_its_identity() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().display().to_string();
    let mut ids = Vec::new();
    for _ in 0..2 {
        let config = config(&[&FREE_PORTS[..], &["--data-dir", &data]].concat());
        let app = App::start(&config, &Handle::current()).await.expect("a node");
        ids.push(app.node().identity.node_id.clone());
        app.drain(DEADLINE, std::future::pending()).await;
    }
    assert_eq!(ids[0], ids[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_told_with_its_flag() {
    let node = TestNode::start(&[]).await;
    let port = node.app.ports().open.to_string();
    let config = config(&["--port", &port, "--direct-port", "off", "--http-port", "off", "--metrics-port", "off"]);
    let error = App::start(&config, &Handle::current()).await.err().expect("an error").to_string();
    assert!(error.contains("--port") && error.contains(&port) && error.contains("hint:"), "{error}");
    node.end().await;
}

/// An authority, and certificates that it has signed, as PEM files.
struct Certificates {
    directory: TempDir,
    authority: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
}

impl Certificates {
    fn new() -> Certificates {
        // Whoever came first has installed the same.
        let _installed = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        let directory = tempfile::tempdir().expect("a directory");
        let mut parameters = rcgen::CertificateParams::default();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().expect("a key");
        let authority = rcgen::CertifiedIssuer::self_signed(parameters, key).expect("an authority");
        let certificates = Certificates { directory, authority };
        certificates.write("ca.pem", &certificates.authority.pem());
        certificates.issue("server");
        certificates.issue("client");
        certificates
    }

    fn issue(&self, name: &str) {
        let key = rcgen::KeyPair::generate().expect("a key");
        let parameters = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("parameters");
        let certificate = parameters.signed_by(&key, &self.authority).expect("a certificate");
        self.write(&format!("{name}.pem"), &certificate.pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.directory.path().join(name), text).expect("written");
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// Connects as a client that shows the certificate `name`, or none, and answers the reply to PING.
    async fn ping(&self, node: &TestNode, name: Option<&str>) -> std::io::Result<Vec<u8>> {
        use tokio_rustls::rustls::pki_types::pem::PemObject;
        use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
        use tokio_rustls::rustls::{ClientConfig, RootCertStore};
        let certificate = |name| CertificateDer::from_pem_file(self.path(name)).expect("a certificate");
        let mut roots = RootCertStore::empty();
        roots.add(certificate("ca.pem")).expect("an authority");
        let builder = ClientConfig::builder().with_root_certificates(roots);
        let config = match name {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let key = PrivateKeyDer::from_pem_file(self.path(&format!("{name}.key"))).expect("a key");
                builder.with_client_auth_cert(vec![certificate(&format!("{name}.pem"))], key).expect("a pair")
            }
        };
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let server = ServerName::try_from("localhost").expect("a name");
        let mut stream = connector.connect(server, node.resp().await).await?;
        stream.write_all(b"PING\r\n").await?;
        let mut reply = [0; 7];
        stream.read_exact(&mut reply).await?;
        Ok(reply.to_vec())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_tls_only_those_who_agree_are_served() {
    let certificates = Certificates::new();
    let (cert, key, ca) =
        (certificates.path("server.pem"), certificates.path("server.key"), certificates.path("ca.pem"));
    let node = TestNode::start(&["--tls-cert", &cert, "--tls-key", &key]).await;
    assert_eq!(certificates.ping(&node, None).await.expect("served"), b"+PONG\r\n");
    let mut plain = node.resp().await;
    plain.write_all(b"PING\r\n").await.expect("sent");
    let mut answer = Vec::new();
    // An alert, or a reset: anything but a reply.
    let _ended = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"+"), "{answer:?}");
    assert_eq!(get(node.metrics(), "/health").await.0, 200);
    node.end().await;

    let node = TestNode::start(&["--tls-cert", &cert, "--tls-key", &key, "--tls-ca", &ca]).await;
    assert_eq!(certificates.ping(&node, Some("client")).await.expect("served"), b"+PONG\r\n");
    certificates.ping(&node, None).await.expect_err("a client without a certificate");
    node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_files_that_are_wrong_are_told_with_their_flags() {
    let certificates = Certificates::new();
    certificates.write("rubbish.pem", "nothing\n");
    let error = |cert: &str, key: &str| {
        let files = [certificates.path(cert), certificates.path(key)];
        async move {
            let config = config(&[&FREE_PORTS[..], &["--tls-cert", &files[0], "--tls-key", &files[1]]].concat());
            let config =
                Config { identity: forebay::config::IdentityConfig { data_dir: None, ..config.identity }, ..config };
            App::start(&config, &Handle::current()).await.err().expect("an error").to_string()
        }
    };
    let both = error("rubbish.pem", "missing.key").await;
    assert!(both.contains("--tls-cert") && both.contains("rubbish.pem") && both.contains("--tls-key"), "{both}");
    let pair = error("server.pem", "client.key").await;
    assert!(pair.contains("must belong together"), "{pair}");
}
