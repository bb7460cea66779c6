//! A node ends and another takes its place under load: every reply that a client gets is whole, and no connection is reset.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use forebay_redis_tests::connection::encode;
use forebay_redis_tests::database::Database;
use forebay_redis_tests::process::eventually;
use forebay_redis_tests::reply::Reply;
use forebay_redis_tests::server::{Forebay, ForebayOptions};

/// How long a condition may take to come about.
const PATIENCE: Duration = Duration::from_secs(20);

/// Clients of each kind.
const CLIENTS: usize = 4;

/// Requests that a client sends at once.
const BATCH: usize = 64;

/// Bytes of the value that every other request reads: large enough for a reply to be written in parts.
const BLOB: usize = 8 * 1024;

/// Batches that are to be answered before and after the restart.
const ENOUGH: u64 = 200;

/// A load takes longer than any test waits.
const GROUPS: &str = r#"
[[group]]
name = "long"
key = "long:{seconds}"
load = "SELECT 'slept ' || $1::float8::text || coalesce(pg_sleep($1::float8)::text, '')"
as = "string"
"#;

#[test]
fn a_restart_under_load_cuts_no_reply() {
    let mut server = start(ForebayOptions::default());
    let counts = Arc::new(Counts::default());
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS * 2)
        .map(|id| {
            let pace = if id % 2 == 0 { Pace::BatchByBatch } else { Pace::Streaming };
            let (address, counts, over) = (server.address(), Arc::clone(&counts), Arc::clone(&over));
            thread::spawn(move || keep_asking(address, pace, &counts, &over))
        })
        .collect();
    let answered = |at_least: u64| eventually(PATIENCE, || counts.batches.load(Ordering::Relaxed) >= at_least);
    assert!(answered(ENOUGH), "nobody is served");

    server.process().terminate();
    assert!(server.process().ends(), "the node does not end");
    assert_eq!(server.process().exit_code(), Some(0));
    let before = counts.batches.load(Ordering::Relaxed);
    let _successor = Forebay::start_on(server.ports(), ForebayOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    assert!(answered(before + ENOUGH), "the successor serves nobody");
    over.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().expect("a client does not panic"));

    println!(
        "{} clients, {} batches of {BATCH} answered, {before} of them before the restart; {} connections ended by the node, \
         {} replies cut, {} connections reset, {} never taken up",
        CLIENTS * 2,
        counts.batches.load(Ordering::Relaxed),
        counts.ended.load(Ordering::Relaxed),
        counts.cut.load(Ordering::Relaxed),
        counts.reset.load(Ordering::Relaxed),
        counts.not_taken_up.load(Ordering::Relaxed),
    );
    assert_eq!(counts.ended.load(Ordering::Relaxed), (CLIENTS * 2) as u64, "each connection ends once");
    assert_eq!(counts.cut.load(Ordering::Relaxed), 0, "replies that were cut");
    assert_eq!(counts.reset.load(Ordering::Relaxed), 0, "connections that were reset");
}

#[test]
fn what_was_asked_is_answered_before_the_node_ends() {
    let database = Database::start("");
    let mut server = start(in_front_of(&database, "60s"));
    assert_eq!(server.http_status("/health"), Some(200));
    assert_eq!(server.connect().command("GET long:0"), Reply::bulk("slept 0"));
    let mut idle = server.connect();
    idle.command("GET long:0");
    let mut busy = server.connect();
    let asked = thread::spawn(move || {
        let reply = busy.command("GET long:1.5");
        (reply, busy.is_closed())
    });
    database.await_asleep("pg_sleep");

    server.process().terminate();
    assert!(eventually(PATIENCE, || server.http_status("/health") == Some(503)), "/health does not say 503");
    assert!(idle.is_closed(), "a connection without a request stays open");
    assert!(TcpStream::connect(server.address()).is_err(), "new connections are accepted");
    assert_eq!(asked.join().expect("the client does not panic"), (Reply::bulk("slept 1.5"), true));
    assert!(server.process().ends(), "the node does not end");
    assert_eq!(server.process().exit_code(), Some(0));
}

#[test]
fn a_second_signal_ends_the_wait() {
    let database = Database::start("");
    let mut server = start(in_front_of(&database, "10m"));
    let asked = wait_for_long(&database, &server);
    server.process().terminate();
    assert!(eventually(PATIENCE, || server.http_status("/health") == Some(503)), "/health does not say 503");
    assert!(!server.process().has_ended(), "the node does not wait for the request under way");

    server.process().terminate();
    assert!(server.process().ends(), "the node does not hurry");
    assert_eq!(server.process().exit_code(), Some(0));
    asked.join().expect("the client does not panic");
}

#[test]
fn the_grace_period_is_an_end() {
    let database = Database::start("");
    let mut server = start(in_front_of(&database, "1s"));
    let asked = wait_for_long(&database, &server);
    server.process().terminate();
    assert!(server.process().ends(), "the node outlives its grace period");
    assert_eq!(server.process().exit_code(), Some(0));
    asked.join().expect("the client does not panic");
}

fn start(options: ForebayOptions) -> Forebay {
    Forebay::start(options).unwrap_or_else(|error| panic!("{error}"))
}

fn in_front_of(database: &Database, grace: &str) -> ForebayOptions {
    let mut options = ForebayOptions::in_front_of(&database.url(), GROUPS);
    options.args.extend(["--grace", grace, "--origin-load-timeout", "10m"].map(str::to_owned));
    options
}

/// A client that asks for what takes ten minutes; it ends when the connection does.
fn wait_for_long(database: &Database, server: &Forebay) -> thread::JoinHandle<()> {
    let mut client = server.connect();
    let asked = thread::spawn(move || {
        client.send(&encode(&["GET", "long:600"])).expect("the server reads");
        assert!(client.is_closed(), "a reply came from nowhere");
        assert!(!client.ended_between_replies(), "a request under way was cut, and the client takes it for not run");
    });
    database.await_asleep("pg_sleep");
    asked
}

/// How a client sends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// The next batch follows the replies of the last one.
    BatchByBatch,
    /// The next batch is sent while the replies of the last ones arrive.
    Streaming,
}

/// What all clients saw.
#[derive(Default)]
struct Counts {
    /// Batches that were answered to their end, every reply being the right one.
    batches: AtomicU64,
    /// Connections that the server ended between two replies.
    ended: AtomicU64,
    /// Connections that ended within a reply.
    cut: AtomicU64,
    /// Connections that were reset after they had been served.
    reset: AtomicU64,
    /// Connections that were refused, or reset before they were served: the system took them and nobody else did.
    not_taken_up: AtomicU64,
}

/// Asks until `over`, on a new connection whenever one ends.
fn keep_asking(address: SocketAddr, pace: Pace, counts: &Counts, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        match TcpStream::connect(address) {
            Ok(stream) => Conversation::new(stream, pace).run(counts, over),
            Err(_) => {
                counts.not_taken_up.fetch_add(1, Ordering::Relaxed);
                // Nobody listens between the end of one node and the start of the next.
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// One connection's requests and replies, in turns: one sets a blob, the next reads it.
struct Conversation {
    stream: TcpStream,
    batch: Vec<u8>,
    blob_reply: Vec<u8>,
    unread: Vec<u8>,
    replies: u64,
    /// Batches that may be sent, beyond those that were answered.
    ahead: u64,
}

impl Conversation {
    fn new(stream: TcpStream, pace: Pace) -> Self {
        let key = format!("blob:{}", stream.local_addr().expect("a connected socket").port());
        let blob = "x".repeat(BLOB);
        let pair = [encode(&["SET", &key, &blob]), encode(&["GET", &key])].concat();
        let ahead = match pace {
            Pace::BatchByBatch => 1,
            Pace::Streaming => 4,
        };
        let blob_reply = format!("${BLOB}\r\n{blob}\r\n").into_bytes();
        Self { stream, batch: pair.repeat(BATCH / 2), blob_reply, unread: Vec::new(), replies: 0, ahead }
    }

    fn run(self, counts: &Counts, over: &AtomicBool) {
        let (permits, permitted) = mpsc::sync_channel(self.ahead as usize);
        let mut writer = self.stream.try_clone().expect("a second handle to the socket");
        let batch = self.batch.clone();
        // Reading must not wait for writing: each side would wait for the other once all buffers are full.
        let sender = thread::spawn(move || {
            for () in permitted {
                // A server that no longer reads says so on the reading side as well.
                if writer.write_all(&batch).is_err() {
                    return;
                }
            }
        });
        self.read(permits, counts, over);
        sender.join().expect("the sender does not panic");
    }

    fn read(mut self, permits: mpsc::SyncSender<()>, counts: &Counts, over: &AtomicBool) {
        let mut permitted = 0;
        let mut chunk = vec![0; 64 * 1024];
        loop {
            let answered = self.replies / BATCH as u64;
            let is_over = over.load(Ordering::Relaxed);
            if is_over && permitted == answered {
                return;
            }
            while !is_over && permitted < answered + self.ahead && permits.send(()).is_ok() {
                permitted += 1;
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => break self.ended(counts),
                Ok(length) => self.take_in(&chunk[..length], counts),
                Err(error) => break self.failed(&error, counts),
            }
        }
        // The sender may still be writing to a server that reads no more; whether that works does not matter now.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    fn take_in(&mut self, bytes: &[u8], counts: &Counts) {
        self.unread.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(length) = self.reply_length(&self.unread[at..]) {
            at += length;
            self.replies += 1;
            if self.replies.is_multiple_of(BATCH as u64) {
                counts.batches.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.unread.drain(..at);
    }

    /// The length of the next reply, once all of it is there.
    fn reply_length(&self, bytes: &[u8]) -> Option<usize> {
        let expected: &[u8] = if self.replies.is_multiple_of(2) { b"+OK\r\n" } else { &self.blob_reply };
        let there = bytes.len().min(expected.len());
        assert_eq!(&bytes[..there], &expected[..there], "reply {} is wrong", self.replies);
        (there == expected.len()).then_some(there)
    }

    fn ended(&self, counts: &Counts) {
        let count = if self.unread.is_empty() { &counts.ended } else { &counts.cut };
        count.fetch_add(1, Ordering::Relaxed);
    }

    fn failed(&self, error: &io::Error, counts: &Counts) {
        let is_reset = matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
        assert!(is_reset, "the connection failed: {error}");
        let count = if self.replies == 0 && self.unread.is_empty() { &counts.not_taken_up } else { &counts.reset };
        count.fetch_add(1, Ordering::Relaxed);
    }
}
