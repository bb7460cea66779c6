//! What applications do by hand: read the cache, on a miss ask the database and set the key; delete the key after a commit.
//!
//! The workload is the checker's, the cache a redis-server. What happens to it is the least that can happen: it stands still for moments, and
//! the replica of the database is late at times.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};

use super::faults::Fault;
use super::psql::Psql;
use super::readers::{self, GROUPS, Seen};
use super::truth::{self, TABLES, Truth, Version};
use super::writers::{Writers, Writing};
use super::{Check, QUIET, Report};
use crate::connection::Connection;
use crate::database::Database;
use crate::reply::Reply;
use crate::server::RedisServer;

/// How long an application waits for its cache.
const PATIENCE: Duration = Duration::from_millis(500);

/// What a missing row is cached as.
const NO_ROW: &[u8] = b"-";

/// Runs the workload of a check.
///
/// # Panics
/// When redis-server or the database cannot be run.
pub fn check(check: &Check) -> Report {
    let database = Database::start(&truth::schema(check.keys));
    let replica = database.standby();
    let mut redis = RedisServer::start(&[]).expect("redis-server can be run");
    let (address, process) = (redis.address(), redis.process().id());
    let deletes = Deletes { cache: address, connections: Mutex::default() };
    let writing = Writing {
        url: database.url(),
        keys: check.keys,
        rate: check.rate / check.writers as f64,
        afterwards: Some(Arc::new(move |changed| deletes.delete(changed))),
    };
    let writers = Writers::start(check.writers, &writing, check.seed);
    let (ends, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let sessions: Vec<_> = (0..check.readers)
        .map(|number| {
            let (ends, reads, keys) = (Arc::clone(&ends), Arc::clone(&reads), check.keys);
            let mut session = Session::new(address, &database, &replica, check.seed + 1_000 + number);
            thread::spawn(move || {
                while !ends.load(Relaxed) {
                    session.read(keys);
                    reads.fetch_add(1, Relaxed);
                }
                session.seen
            })
        })
        .collect();
    let (began, mut random) = (Instant::now(), StdRng::seed_from_u64(check.seed));
    let mut happened = Vec::new();
    while began.elapsed() < check.lasts {
        let while_ = Duration::from_millis(random.random_range(300..3_000));
        let fault = [Fault::Pause, Fault::LateReplica, Fault::Calm][random.random_range(0..3)];
        match fault {
            Fault::Pause => {
                signal("STOP", process);
                thread::sleep(while_);
                signal("CONT", process);
            }
            Fault::LateReplica => {
                replica.sql("SELECT pg_wal_replay_pause()");
                thread::sleep(while_);
                replica.sql("SELECT pg_wal_replay_resume()");
            }
            _ => thread::sleep(while_),
        }
        happened.push(fault);
    }
    writers.end();
    thread::sleep(QUIET);
    ends.store(true, Relaxed);
    let seen: Vec<Seen> =
        sessions.into_iter().map(|session| session.join().expect("a session does not panic")).collect();
    let truth = Truth::read(&database.url());
    Report {
        reads: reads.load(Relaxed),
        failed_reads: 0,
        commits: truth.commits,
        happened,
        faults: readers::faults(&truth, &seen),
        different: differences(address, &database),
        took: began.elapsed(),
    }
}

fn signal(name: &str, process: u32) {
    let status = Command::new("kill").args(["-s", name, &process.to_string()]).status();
    assert!(status.is_ok_and(|status| status.success()), "kill -s {name} {process}");
}

/// Deletes keys of changed rows.
struct Deletes {
    cache: SocketAddr,
    connections: Mutex<Vec<Connection>>,
}

impl Deletes {
    fn delete(&self, changed: &[(usize, u32)]) {
        let known = self.connections.lock().expect("no panic").pop();
        let Some(mut connection) = known.or_else(|| Connection::open_within(self.cache, PATIENCE).ok()) else { return };
        let mut args = vec!["DEL".to_owned()];
        for (table, id) in changed {
            args.extend(GROUPS.iter().filter(|(_, of)| of == table).map(|(name, _)| format!("{name}:{id}")));
        }
        if connection.call(&args).is_ok() {
            self.connections.lock().expect("no panic").push(connection);
        }
    }
}

struct Session {
    cache: SocketAddr,
    connection: Option<Connection>,
    databases: [Psql; 2],
    random: StdRng,
    seen: Seen,
}

impl Session {
    fn new(cache: SocketAddr, primary: &Database, replica: &Database, seed: u64) -> Self {
        let databases = [primary, replica].map(|database| Psql::open(&database.url()));
        Self { cache, connection: None, databases, random: StdRng::seed_from_u64(seed), seen: Seen::new() }
    }

    fn read(&mut self, keys: u32) {
        let group = self.random.random_range(0..GROUPS.len());
        let id = if self.random.random_range(0..3) == 0 { 1 } else { self.random.random_range(1..=keys) };
        let key = format!("{}:{id}", GROUPS[group].0);
        let version = match self.ask(&["GET".as_bytes(), key.as_bytes()]) {
            Some(Reply::Bulk(text)) if text == NO_ROW => None,
            Some(Reply::Bulk(text)) => Some(readers::version_of(std::str::from_utf8(&text).expect("digits"))),
            // A miss, or a cache that does not answer: either way the database knows.
            _ => {
                let version = self.select(GROUPS[group].1, id);
                let text = version.map(|version| format!("{}.{}", version.number, version.transaction));
                let text = text.as_deref().map_or(NO_ROW, str::as_bytes);
                self.ask(&["SET".as_bytes(), key.as_bytes(), text]);
                version
            }
        };
        readers::note(&mut self.seen, group, id, version);
    }

    fn ask(&mut self, args: &[&[u8]]) -> Option<Reply> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(Connection::open_within(self.cache, PATIENCE).ok()?),
        };
        let reply = connection.call(args).ok().map(|raw| Reply::parse(&raw));
        if reply.is_none() {
            self.connection = None;
        }
        reply
    }

    fn select(&mut self, table: usize, id: u32) -> Option<Version> {
        let query = format!("SELECT version || '.' || xid FROM {} WHERE id = {id}", TABLES[table]);
        let database = self.random.random_range(0..self.databases.len());
        let rows = self.databases[database].run(&query).expect("the database answers");
        rows.first().map(|row| readers::version_of(row))
    }
}

fn differences(cache: SocketAddr, database: &Database) -> Vec<String> {
    let mut connection = Connection::open(cache).expect("redis-server answers");
    let mut different = Vec::new();
    let tables: Vec<_> = TABLES.iter().map(|table| super::rows(&database.url(), table)).collect();
    for (name, table) in GROUPS {
        for (id, row) in (1..).zip(&tables[table]) {
            let cached = match connection.command(&format!("GET {name}:{id}")) {
                Reply::Bulk(text) if text == NO_ROW => None,
                Reply::Bulk(text) => Some(readers::version_of(std::str::from_utf8(&text).expect("digits"))),
                // A miss asks the database.
                _ => continue,
            };
            if cached != *row {
                different.push(format!("{name}:{id} is {cached:?}, in the database {row:?}"));
            }
        }
    }
    different
}
