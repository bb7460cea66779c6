//! Bad input, bad clients and bad groups: a clear error or nothing at all, and nobody else notices.

use std::env;
use std::thread;
use std::time::Duration;

use forebay_redis_tests::connection::{Connection, encode};
use forebay_redis_tests::database::Database;
use forebay_redis_tests::herd::Herd;
use forebay_redis_tests::process::eventually;
use forebay_redis_tests::reply::Reply;
use forebay_redis_tests::server::{Forebay, ForebayOptions};

/// How long a condition may take to come about.
const PATIENCE: Duration = Duration::from_secs(20);

const MIB: u64 = 1024 * 1024;

/// Half-open requests, unless `FOREBAY_HERD` says otherwise.
const HALF_OPEN: usize = 2_000;

/// Violations of the protocol, each with how the error begins. After each the connection is closed.
const VIOLATIONS: &[(&[u8], &str)] = &[
    (b"*1\r\n$-5\r\n", "ERR Protocol error: invalid bulk length"),
    (b"*1\r\n$abc\r\n", "ERR Protocol error: invalid bulk length"),
    (b"*2\r\n$3\r\nGET\r\n$536870913\r\n", "ERR Protocol error: invalid bulk length"),
    (b"*2\r\n$3\r\nGET\r\n$99999999999999999999\r\n", "ERR Protocol error: invalid bulk length"),
    (b"*2147483648\r\n", "ERR Protocol error: invalid multibulk length"),
    (b"*x\r\n", "ERR Protocol error: invalid multibulk length"),
    (b"*1\r\n*1\r\n*1\r\n", "ERR Protocol error: expected '$', got '*'"),
    (b"*1\r\n:5\r\n", "ERR Protocol error: expected '$', got ':'"),
    (b"GET 'unbalanced\r\n", "ERR Protocol error: unbalanced quotes in request"),
];

/// Commands that are wrong, each with how the error begins. The connection stays.
const MISTAKES: &[(&str, &str)] = &[
    ("NOSUCHCOMMAND a b", "ERR unknown command 'NOSUCHCOMMAND', with args beginning with: 'a' 'b'"),
    ("GET", "ERR wrong number of arguments for 'get' command"),
    ("GET a b", "ERR wrong number of arguments for 'get' command"),
    ("MGET", "ERR wrong number of arguments for 'mget' command"),
    ("SET k v EX 0", "ERR invalid expire time in 'set' command"),
    ("SET k v EX abc", "ERR value is not an integer or out of range"),
    ("SET k v NX XX", "ERR syntax error"),
    ("SELECT 99", "ERR DB index is out of range"),
    ("CLIENT NOSUCH", "ERR unknown subcommand 'NOSUCH'"),
    ("INCR text", "ERR value is not an integer or out of range"),
    ("HGET text f", "WRONGTYPE Operation against a key holding the wrong kind of value"),
    ("APPEND hash x", "WRONGTYPE Operation against a key holding the wrong kind of value"),
];

/// A password is for clients: that the ports of nodes ask for none is said once, where it matters.
#[test]
fn ports_of_nodes_that_strangers_can_reach_are_told_of() {
    let start = |args: &str| {
        let args = args.split_whitespace().map(str::to_owned).collect();
        let options = ForebayOptions { args, bind: Some("0.0.0.0".to_owned()), ..ForebayOptions::default() };
        let mut server = Forebay::start(options).unwrap_or_else(|error| panic!("{error}"));
        let has_started = || server.process().output().contains("the doors are open");
        assert!(eventually(PATIENCE, has_started), "it does not say that it has started");
        (server.process().output(), server.ports())
    };
    let (output, ports) = start("--requirepass secret");
    let words = format!("at port {} (nodes) or {} (Raft) can read and write every key", ports.peer, ports.raft);
    assert_eq!(output.matches(&words).count(), 1, "{output}");
    let (output, _) = start("--requirepass secret --insecure");
    assert!(!output.contains("can read and write every key"), "{output}");
}

#[test]
fn mistakes_get_errors_and_cost_nobody_else_anything() {
    let server = Forebay::start(ForebayOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    let mut neighbour = server.connect();
    let mut client = server.connect();
    client.command("SET text words");
    client.command("HSET hash f v");
    for (line, expected) in MISTAKES {
        assert_error(&client.command(line), expected, line);
        assert_eq!(neighbour.command("GET text"), Reply::bulk("words"));
    }
    for (bytes, expected) in VIOLATIONS {
        let shown = bytes.escape_ascii().to_string();
        let mut client = server.connect();
        client.send(bytes).expect("the server reads");
        let raw = client.read_raw().unwrap_or_else(|error| panic!("{shown}: {error}"));
        assert_error(&Reply::parse(&raw), expected, &shown);
        assert!(client.is_closed(), "{shown}: the connection stays open");
        assert_eq!(neighbour.command("GET text"), Reply::bulk("words"));
    }
}

/// Every client stops at another byte of the same requests; meanwhile another one works, and then they all go on.
#[test]
fn clients_that_stall_within_a_request_hold_up_nobody() {
    let server = Forebay::start(ForebayOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    let requests = [encode(&["SET", "stalled", "value\r\n with $3\r\n in it"]), encode(&["GET", "stalled"])].concat();
    let mut stalled: Vec<(usize, Connection)> = (1..requests.len()).map(|at| (at, server.connect())).collect();
    for (at, client) in &mut stalled {
        client.send(&requests[..*at]).expect("the server reads");
    }
    let mut worker = server.connect();
    for n in 0..1_000 {
        assert_eq!(worker.command(&format!("SET worked {n}")), Reply::Simple(b"OK".to_vec()));
        assert_eq!(worker.command("GET worked"), Reply::bulk(&n.to_string()));
    }
    for (at, client) in &mut stalled {
        client.send(&requests[*at..]).expect("the server reads");
        let replies = [(); 2].map(|()| Reply::parse(&client.read_raw().expect("a reply")));
        assert_eq!(
            replies,
            [Reply::Simple(b"OK".to_vec()), Reply::bulk("value\r\n with $3\r\n in it")],
            "stopped at {at}"
        );
    }
    println!("{} clients stalled at each byte of a request while one made 2,000 requests", stalled.len());
}

/// What a header promises is a claim: memory is spent on what has arrived.
#[test]
fn promises_cost_no_memory() {
    let mut server = Forebay::start(ForebayOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    server.connect().command("PING");
    let before = server.process().resident_bytes();
    let arrived = [b"*1000000\r\n$536870912\r\n".as_slice(), &[b'x'; 4096]].concat();
    let mut strangers: Vec<Connection> = (0..100).map(|_| server.connect()).collect();
    for stranger in &mut strangers {
        stranger.send(&arrived).expect("the server reads");
    }
    await_clients(&server, strangers.len() + 1);
    let grown = server.process().resident_bytes().saturating_sub(before);
    println!("100 promises of 512 TB in all: {} KiB more", grown / 1024);
    assert!(grown < 24 * MIB, "{grown} bytes more");
}

#[test]
fn half_open_requests_are_cheap() {
    let size = env::var("FOREBAY_HERD").ok().and_then(|size| size.parse().ok()).unwrap_or(HALF_OPEN);
    let mut server = start_with(&["--maxclients", "15000"]);
    let mut herd = Herd::gather(server.address(), size);
    let idle = server.process().resident_bytes();
    herd.send(b"*2\r\n$3\r\nGET\r\n$4\r\nhal");
    let mut worker = server.connect();
    for n in 0..100 {
        worker.command(&format!("SET half {n}"));
    }
    let grown = server.process().resident_bytes().saturating_sub(idle);
    println!("{size} half-open requests: {} bytes more for each", grown / size as u64);
    herd.send(b"f\r\n");
    let right = herd.read().into_iter().filter(|reply| *reply == Reply::bulk("99")).count();
    assert_eq!(right, size, "replies once the requests are whole");
    assert!(grown / (size as u64) < 4 * 1024, "{grown} bytes more");
}

/// Replies wait in the client's socket and in one buffer, and then requests are left unread.
#[test]
fn replies_that_nobody_reads_do_not_pile_up() {
    const DEAF: usize = 20;
    const REQUESTS: usize = 2_000;
    let mut server = Forebay::start(ForebayOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    let mut worker = server.connect();
    let value = "v".repeat(MIB as usize);
    worker.call(&["SET", "large", &value]).expect("a reply");
    let before = server.process().resident_bytes();
    let deaf: Vec<Connection> = (0..DEAF)
        .map(|_| {
            let mut client = server.connect();
            client.send(&encode(&["GET", "large"]).repeat(REQUESTS)).expect("the server reads some of it");
            client
        })
        .collect();
    for _ in 0..50 {
        assert_eq!(worker.call(&["STRLEN", "large"]).expect("a reply"), format!(":{MIB}\r\n").into_bytes());
    }
    let grown = server.process().resident_bytes().saturating_sub(before);
    println!("{DEAF} clients that read nothing of {} GiB: {} KiB more", DEAF * REQUESTS / 1024, grown / 1024);
    assert!(grown < 64 * MIB, "{grown} bytes more");
    drop(deaf);
    assert!(eventually(PATIENCE, || clients(&mut worker) == 1), "connections outlive their clients");
}

#[test]
fn one_client_too_many_is_told_so() {
    let server = start_with(&["--maxclients", "10"]);
    // The connection that the harness looked for the server with may still be leaving.
    let mut admitted: Vec<Connection> = Vec::new();
    let ten_are_in = || {
        let mut client = server.connect();
        if client.call(&["PING"]).is_ok_and(|raw| raw == b"+PONG\r\n") {
            admitted.push(client);
        }
        admitted.len() == 10
    };
    assert!(eventually(PATIENCE, ten_are_in), "there is no room for ten");
    let mut refused = server.connect();
    let raw = refused.read_raw().unwrap_or_else(|error| panic!("no reason is given: {error}"));
    assert_eq!(Reply::parse(&raw), Reply::Error(b"ERR max number of clients reached".to_vec()));
    assert!(refused.is_closed());
    admitted.pop();
    let is_admitted = || server.connect().call(&["PING"]).is_ok_and(|raw| raw == b"+PONG\r\n");
    assert!(eventually(PATIENCE, is_admitted), "there is room again and nobody gets it");
}

const SCHEMA: &str = "
CREATE TABLE things (id int PRIMARY KEY, body text, raw bytea);
INSERT INTO things VALUES (1, 'one', '\\x00ff0d0a'), (2, NULL, NULL), (3, E'three\\r\\nlines', '\\x');
CREATE TABLE twins (id int, body text);
INSERT INTO twins VALUES (1, 'a'), (1, 'b'), (2, 'alone');
CREATE TABLE vanishing (id int, body text);
CREATE FUNCTION refuse(id int) RETURNS text LANGUAGE plpgsql AS
    $$ BEGIN IF id = 13 THEN RAISE EXCEPTION E'bad\\r\\n+OK\\r\\nluck'; END IF; RETURN 'fine ' || id; END $$;
";

const GROUPS: &str = r#"
[[group]]
name = "text"
key = "text:{id}"
load = "SELECT body FROM things WHERE id = $1"
as = "string"

[[group]]
name = "raw"
key = "raw:{id}"
load = "SELECT raw FROM things WHERE id = $1"
as = "string"

[[group]]
name = "fields"
key = "fields:{id}"
load = "SELECT body, raw FROM things WHERE id = $1"
as = "hash"

[[group]]
name = "document"
key = "document:{id}"
load = "SELECT * FROM things WHERE id = $1"
as = "json"

[[group]]
name = "twin"
key = "twin:{id}"
load = "SELECT body FROM twins WHERE id = $1"
as = "string"

[[group]]
name = "named"
key = "named:{name}"
load = "SELECT 'name ' || body FROM things WHERE body = $1"
as = "string"

[[group]]
name = "refused"
key = "refused:{id}"
load = "SELECT refuse($1)"
as = "string"

[[group]]
name = "vanishing"
key = "vanishing:{id}"
load = "SELECT body FROM vanishing WHERE id = $1"
as = "string"
"#;

#[test]
fn groups_that_fail_say_so_and_harm_no_other_key() {
    let database = Database::start(SCHEMA);
    let options = ForebayOptions::in_front_of(&database.url(), GROUPS);
    let server = Forebay::start(options).unwrap_or_else(|error| panic!("{error}"));
    let mut client = server.connect();
    let lines = [
        ("GET text:1", Reply::bulk("one")),
        ("GET text:2", Reply::NilBulk),
        ("GET text:3", Reply::bulk("three\r\nlines")),
        ("GET raw:1", Reply::Bulk(b"\x00\xff\r\n".to_vec())),
        ("GET raw:2", Reply::NilBulk),
        ("GET raw:3", Reply::bulk("")),
        ("HGET fields:1 raw", Reply::Bulk(b"\x00\xff\r\n".to_vec())),
        ("HLEN fields:2", Reply::Integer(0)),
        ("GET twin:2", Reply::bulk("alone")),
        ("GET named:one", Reply::bulk("name one")),
        (r#"GET "named:\xff\xfe""#, Reply::NilBulk),
        (r#"GET "named:one\x00""#, Reply::NilBulk),
        ("GET \"named:one' OR 'a' = 'a\"", Reply::NilBulk),
        ("GET refused:1", Reply::bulk("fine 1")),
    ];
    for (line, expected) in lines {
        assert_eq!(client.command(line), expected, "{line}");
    }
    for (line, words) in [
        ("GET twin:1", "ORIGINERR group 'twin': "),
        ("GET document:1", "ORIGINERR group 'document': "),
        ("GET refused:13", "ORIGINERR group 'refused': "),
        ("INCR twin:1", "ORIGINERR group 'twin': "),
        ("EXISTS twin:1", "ORIGINERR group 'twin': "),
    ] {
        // Again and again: an error is not kept, and what a database says does not end the reply early.
        for _ in 0..2 {
            let reply = client.command(line);
            println!("{line} -> {reply}");
            assert_error(&reply, words, line);
        }
    }
    a_bad_key_of_a_batch_fails_alone(&server);
    a_table_that_goes_and_comes_back(&database, &mut client);
}

/// Keys that are loaded by one query: the one that makes the query fail is the only one that fails.
fn a_bad_key_of_a_batch_fails_alone(server: &Forebay) {
    let asking: Vec<_> = (10..20)
        .map(|id| {
            let mut client = server.connect();
            thread::spawn(move || (id, client.command(&format!("GET refused:{id}"))))
        })
        .collect();
    for client in asking {
        match client.join().expect("a client does not panic") {
            (13, reply) => assert_error(&reply, "ORIGINERR ", "the bad key"),
            (id, reply) => assert_eq!(reply, Reply::bulk(&format!("fine {id}"))),
        }
    }
}

fn a_table_that_goes_and_comes_back(database: &Database, client: &mut Connection) {
    assert_eq!(client.command("GET vanishing:1"), Reply::NilBulk);
    database.sql("DROP TABLE vanishing");
    assert_error(&client.command("GET vanishing:2"), "ORIGINERR group 'vanishing': ", "a table that is gone");
    database.sql("CREATE TABLE vanishing (id int, body varchar(20)); INSERT INTO vanishing VALUES (3, 'back')");
    let is_back = || client.command("GET vanishing:3") == Reply::bulk("back");
    assert!(eventually(PATIENCE, is_back), "a table that is back is not seen");
}

fn start_with(args: &[&str]) -> Forebay {
    let args = args.iter().map(ToString::to_string).collect();
    Forebay::start(ForebayOptions { args, ..ForebayOptions::default() }).unwrap_or_else(|error| panic!("{error}"))
}

fn assert_error(reply: &Reply, beginning: &str, of: &str) {
    let is_expected = matches!(reply, Reply::Error(words) if words.starts_with(beginning.as_bytes()));
    assert!(is_expected, "{of}: expected -{beginning}…, got {reply}");
}

/// Waits until so many clients are served and what they have sent so far has been taken in.
fn await_clients(server: &Forebay, count: usize) {
    let mut observer = server.connect();
    let is_taken_in = |line: &&str| line.contains("name=") && !line.contains("qbuf=0 ");
    assert!(
        eventually(PATIENCE, || {
            let reply = observer.command("CLIENT LIST");
            let text = String::from_utf8_lossy(reply.text().unwrap_or_default()).into_owned();
            text.lines().filter(is_taken_in).count() >= count
        }),
        "not all clients are served"
    );
}

fn clients(observer: &mut Connection) -> usize {
    let reply = observer.command("CLIENT LIST");
    String::from_utf8_lossy(reply.text().unwrap_or_default()).lines().count()
}
