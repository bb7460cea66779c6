//! Sessions that read: what each has seen of each key, in its order.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};

use super::truth::{Truth, Version};
use crate::connection::{Connection, ReplyError, encode};
use crate::reply::Reply;

/// How long a reply may take; what comes later was not seen.
const PATIENCE: Duration = Duration::from_secs(2);

/// The pause of a session that no node answers.
const REST: Duration = Duration::from_millis(5);

/// One read in so many is of the one key that is hot, and as many are of the few that are warm: these are in most sessions' memory when an owner dies.
const HOT: u32 = 3;
pub const WARM: u32 = 20;

/// What keys are read as: the name of the group, and its table's number.
pub const GROUPS: [(&str, usize); 3] = [("item", 0), ("row", 0), ("note", 1)];

/// What all sessions share.
pub struct Reading {
    pub keys: u32,
    pub nodes: Vec<SocketAddr>,
    pub ends: AtomicBool,
    pub reads: AtomicU64,
    /// Reads that were answered by an error, or by nobody.
    pub failed: AtomicU64,
    /// Whether a session has seen a value that is older than what it had seen.
    pub has_gone_back: AtomicBool,
}

/// What was read of several keys; `None`: nothing.
pub type Versions = Vec<Option<Version>>;

/// What a session has seen: of each group and key every value that differed from the one before.
pub type Seen = HashMap<(usize, u32), Vec<Option<Version>>>;

/// Sessions that read all the time, each at all nodes in turn.
pub struct Readers {
    pub shared: Arc<Reading>,
    threads: Vec<JoinHandle<Seen>>,
}

impl Readers {
    pub fn start(sessions: u64, keys: u32, nodes: Vec<SocketAddr>, seed: u64) -> Self {
        let (ends, reads, failed, has_gone_back) = Default::default();
        let shared = Arc::new(Reading { keys, nodes, ends, reads, failed, has_gone_back });
        let session = |number| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || Session::new(&shared, seed + number).read())
        };
        Self { threads: (0..sessions).map(session).collect(), shared }
    }

    /// Ends the sessions: what each has seen.
    pub fn end(self) -> Vec<Seen> {
        self.shared.ends.store(true, Relaxed);
        self.threads.into_iter().map(|thread| thread.join().expect("a session does not panic")).collect()
    }
}

/// The faults in what sessions have seen.
pub fn faults(truth: &Truth, sessions: &[Seen]) -> Vec<String> {
    let mut faults = Vec::new();
    for (number, seen) in sessions.iter().enumerate() {
        for ((group, id), versions) in seen {
            let (name, table) = GROUPS[*group];
            if let Some(fault) = truth.fault(table, *id, versions) {
                faults.push(format!("session {number}: {name}:{id}: {fault}"));
            }
        }
    }
    faults
}

struct Session<'s> {
    shared: &'s Reading,
    random: StdRng,
    connections: Vec<Option<Connection>>,
    seen: Seen,
}

impl<'s> Session<'s> {
    fn new(shared: &'s Reading, seed: u64) -> Self {
        let connections = shared.nodes.iter().map(|_| None).collect();
        Self { shared, random: StdRng::seed_from_u64(seed), connections, seen: Seen::new() }
    }

    fn read(mut self) -> Seen {
        while !self.shared.ends.load(Relaxed) {
            let group = self.random.random_range(0..GROUPS.len());
            let ids: Vec<u32> = match self.random.random_range(0..10) {
                0 => (0..5).map(|_| self.any_key()).collect(),
                _ => vec![self.any_key()],
            };
            match self.ask(group, &ids) {
                Some(versions) => {
                    self.shared.reads.fetch_add(ids.len() as u64, Relaxed);
                    ids.iter().zip(versions).for_each(|(id, version)| self.note(group, *id, version));
                }
                None => {
                    self.shared.failed.fetch_add(1, Relaxed);
                    thread::sleep(REST);
                }
            }
        }
        self.seen
    }

    fn any_key(&mut self) -> u32 {
        match self.random.random_range(0..HOT) {
            0 => 1,
            1 => self.random.random_range(1..=WARM),
            _ => self.random.random_range(1..=self.shared.keys),
        }
    }

    /// A node that takes connections.
    fn any_node(&mut self) -> Option<usize> {
        let nodes = self.shared.nodes.len();
        let first = self.random.random_range(0..nodes);
        (first..first + nodes).map(|node| node % nodes).find(|node| {
            let connection = &mut self.connections[*node];
            if connection.is_none() {
                *connection = Connection::open_within(self.shared.nodes[*node], PATIENCE).ok();
            }
            connection.is_some()
        })
    }

    /// Asks a node, whichever it is.
    fn ask(&mut self, group: usize, ids: &[u32]) -> Option<Versions> {
        let node = self.any_node()?;
        let connection = self.connections[node].as_mut()?;
        let versions = read(connection, group, ids);
        if versions.is_err() {
            self.connections[node] = None;
        }
        versions.ok().flatten()
    }

    fn note(&mut self, group: usize, id: u32, version: Option<Version>) {
        if note(&mut self.seen, group, id, version) {
            self.shared.has_gone_back.store(true, Relaxed);
        }
    }
}

/// Notes what a session has seen. Whether it is older than what it had seen.
pub fn note(seen: &mut Seen, group: usize, id: u32, version: Option<Version>) -> bool {
    let seen = seen.entry((group, id)).or_default();
    if seen.last() == Some(&version) {
        return false;
    }
    let newest = seen.iter().rev().flatten().next();
    let has_gone_back = newest.zip(version.as_ref()).is_some_and(|(before, now)| now.number < before.number);
    seen.push(version);
    has_gone_back
}

/// Reads keys of a group. `Ok(None)` if the answer is an error.
///
/// # Errors
/// When the connection is of no use any more.
pub fn read(connection: &mut Connection, group: usize, ids: &[u32]) -> Result<Option<Versions>, ReplyError> {
    let keys = ids.iter().map(|id| format!("{}:{id}", GROUPS[group].0));
    if GROUPS[group].0 == "row" {
        // All at once, as a pipeline.
        let requests: Vec<u8> = keys.flat_map(|key| encode(&["HMGET", &key, "version", "xid"])).collect();
        connection.send(&requests)?;
        let replies = ids.iter().map(|_| connection.read_raw()).collect::<Result<Vec<_>, ReplyError>>()?;
        return Ok(replies.iter().map(|raw| version_of_hash(&Reply::parse(raw))).collect());
    }
    let args: Vec<String> = std::iter::once("MGET".to_owned()).chain(keys).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match Reply::parse(&connection.call(&args)?) {
        Reply::Array(values) => Ok(values.iter().map(version_of_string).collect()),
        _ => Ok(None),
    }
}

/// The outer `None`: there was an error.
fn version_of_string(value: &Reply) -> Option<Option<Version>> {
    match value {
        Reply::NilBulk => Some(None),
        Reply::Bulk(text) => {
            let text = std::str::from_utf8(text).expect("digits");
            Some(Some(version_of(text)))
        }
        _ => None,
    }
}

fn version_of_hash(fields: &Reply) -> Option<Option<Version>> {
    let Reply::Array(fields) = fields else { return None };
    match &fields[..] {
        [Reply::NilBulk, Reply::NilBulk] => Some(None),
        [Reply::Bulk(number), Reply::Bulk(transaction)] => {
            let [number, transaction] = [number, transaction].map(|text| std::str::from_utf8(text).expect("digits"));
            Some(Some(version(number, transaction)))
        }
        other => panic!("half a row: {other:?}"),
    }
}

/// What a number and a transaction in one text say.
///
/// # Panics
/// When that is not in it.
pub fn version_of(text: &str) -> Version {
    let (number, transaction) = text.split_once('.').expect("two numbers");
    version(number, transaction)
}

fn version(number: &str, transaction: &str) -> Version {
    let [number, transaction] = [number, transaction].map(|text| text.parse().expect("a number"));
    Version { number, transaction }
}
