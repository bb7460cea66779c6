//! Sessions that read: what each has seen of each key, in its order.
//!
//! One kind asks any node, the other kind knows about clusters and asks the owners: it goes on at an owner that nobody else can reach.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
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

/// One session in so many asks the owners.
const KNOWING: u64 = 2;

/// How often a session follows a node that says who the owner is.
const REDIRECTS: usize = 4;

/// Where a node is asked.
#[derive(Clone, Copy, Debug)]
pub struct Doors {
    pub open: SocketAddr,
    pub direct: SocketAddr,
    /// What other nodes call it when they send a client there.
    pub advertised: Ipv4Addr,
}

/// What all sessions share.
pub struct Reading {
    pub keys: u32,
    pub nodes: Vec<Doors>,
    pub ends: AtomicBool,
    pub reads: AtomicU64,
    /// Reads that were answered by an error, or by nobody.
    pub failed: AtomicU64,
    /// Whether a session has seen a value that is older than what it had seen.
    pub has_gone_back: AtomicBool,
}

/// What was read of several keys; `None`: nothing.
pub type Versions = Vec<Option<Version>>;

/// What a node answers.
#[derive(Debug)]
pub enum Answer {
    Versions(Versions),
    /// It is not the owner.
    MovedTo(Ipv4Addr),
    Error,
}

/// What a session has seen: of each group and key every value that differed from the one before.
pub type Seen = HashMap<(usize, u32), Vec<Option<Version>>>;

/// Sessions that read all the time.
pub struct Readers {
    pub shared: Arc<Reading>,
    threads: Vec<JoinHandle<Seen>>,
}

impl Readers {
    pub fn start(sessions: u64, keys: u32, nodes: Vec<Doors>, seed: u64) -> Self {
        let (ends, reads, failed, has_gone_back) = Default::default();
        let shared = Arc::new(Reading { keys, nodes, ends, reads, failed, has_gone_back });
        let session = |number| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let kind = if number % KNOWING == 1 { Kind::AsksOwners(HashMap::new()) } else { Kind::AsksAnybody };
                Session::new(&shared, kind, seed + number).read()
            })
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

enum Kind {
    AsksAnybody,
    /// With who they are taken to be.
    AsksOwners(HashMap<(usize, u32), usize>),
}

struct Session<'s> {
    shared: &'s Reading,
    kind: Kind,
    random: StdRng,
    connections: Vec<Option<Connection>>,
    seen: Seen,
}

impl<'s> Session<'s> {
    fn new(shared: &'s Reading, kind: Kind, seed: u64) -> Self {
        let connections = shared.nodes.iter().map(|_| None).collect();
        Self { shared, kind, random: StdRng::seed_from_u64(seed), connections, seen: Seen::new() }
    }

    fn read(mut self) -> Seen {
        while !self.shared.ends.load(Relaxed) {
            let group = self.random.random_range(0..GROUPS.len());
            let ids: Vec<u32> = match self.random.random_range(0..10) {
                0 if matches!(self.kind, Kind::AsksAnybody) => (0..5).map(|_| self.any_key()).collect(),
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

    /// Asks a node, and where that is not the owner and says so, the one that it names.
    fn ask(&mut self, group: usize, ids: &[u32]) -> Option<Versions> {
        for _ in 0..REDIRECTS {
            let node = self.node_for(group, ids)?;
            match self.ask_at(node, group, ids) {
                Some(Answer::Versions(versions)) => return Some(versions),
                Some(Answer::MovedTo(address)) => {
                    let owner = self.shared.nodes.iter().position(|doors| doors.advertised == address)?;
                    self.take_for_owner(group, ids, Some(owner));
                }
                Some(Answer::Error) => return None,
                None => {
                    self.take_for_owner(group, ids, None);
                    return None;
                }
            }
        }
        None
    }

    fn ask_at(&mut self, node: usize, group: usize, ids: &[u32]) -> Option<Answer> {
        let answer = read(self.connection(node)?, group, ids);
        if answer.is_err() {
            self.connections[node] = None;
        }
        answer.ok()
    }

    /// Who is taken for the owner, or any node that takes connections.
    fn node_for(&mut self, group: usize, ids: &[u32]) -> Option<usize> {
        let known = match &self.kind {
            Kind::AsksOwners(owners) => owners.get(&(group, ids[0])).copied(),
            Kind::AsksAnybody => None,
        };
        let nodes = self.shared.nodes.len();
        let first = self.random.random_range(0..nodes);
        known.or_else(|| (first..first + nodes).map(|node| node % nodes).find(|node| self.connection(*node).is_some()))
    }

    fn take_for_owner(&mut self, group: usize, ids: &[u32], owner: Option<usize>) {
        if let Kind::AsksOwners(owners) = &mut self.kind {
            match owner {
                Some(owner) => owners.insert((group, ids[0]), owner),
                None => owners.remove(&(group, ids[0])),
            };
        }
    }

    /// The connection to a node, if it takes one.
    fn connection(&mut self, node: usize) -> Option<&mut Connection> {
        let doors = self.shared.nodes[node];
        let door = if matches!(self.kind, Kind::AsksAnybody) { doors.open } else { doors.direct };
        let connection = &mut self.connections[node];
        if connection.is_none() {
            *connection = Connection::open_within(door, PATIENCE).ok();
        }
        connection.as_mut()
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

/// Reads keys of a group.
///
/// # Errors
/// When the connection is of no use any more.
pub fn read(connection: &mut Connection, group: usize, ids: &[u32]) -> Result<Answer, ReplyError> {
    let keys = ids.iter().map(|id| format!("{}:{id}", GROUPS[group].0));
    if GROUPS[group].0 == "row" {
        // All at once, as a pipeline.
        let requests: Vec<u8> = keys.flat_map(|key| encode(&["HMGET", &key, "version", "xid"])).collect();
        connection.send(&requests)?;
        let replies = ids.iter().map(|_| Ok(Reply::parse(&connection.read_raw()?)));
        let replies = replies.collect::<Result<Vec<_>, ReplyError>>()?;
        let versions = replies.iter().map(version_of_hash).collect::<Option<Versions>>();
        return Ok(versions.map_or_else(|| refusal(&replies), Answer::Versions));
    }
    let args: Vec<String> = std::iter::once("MGET".to_owned()).chain(keys).collect();
    let reply = Reply::parse(&connection.call(&args)?);
    let versions = match &reply {
        Reply::Array(values) => values.iter().map(version_of_string).collect::<Option<Versions>>(),
        _ => None,
    };
    Ok(versions.map_or_else(|| refusal(&[reply]), Answer::Versions))
}

/// What an error among replies says.
fn refusal(replies: &[Reply]) -> Answer {
    let moved = replies.iter().find_map(|reply| match reply {
        Reply::Error(words) => {
            let (host, _port) =
                std::str::from_utf8(words).ok()?.strip_prefix("MOVED ")?.split_once(' ')?.1.rsplit_once(':')?;
            host.parse().ok()
        }
        _ => None,
    });
    moved.map_or(Answer::Error, Answer::MovedTo)
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
