//! The checker: a cluster in front of a database that is changed by SQL, read by many sessions, while things happen to both.
//!
//! Nothing expires, so what the database has replaced goes only if it is taken out. The order of the commits comes from the database itself
//! ([`truth`]). Three things must not be: a value that was never committed, a value older than what the same session has seen of the key,
//! and, when nothing has changed for five seconds, a key that differs from the database at any node.
//!
//! - [`readers`] are the sessions, some of which ask all nodes in turn, and some the owners; [`writers`] change rows in all ways in which rows are changed;
//! - [`faults`] is what happens meanwhile; [`guard`] takes away what keeps old values out, and then the checker must fail;
//! - [`cache_aside`] is the same workload with redis-server and what applications do by hand.

pub mod cache_aside;
pub mod faults;
pub mod guard;
pub mod psql;
pub mod readers;
pub mod replica;
pub mod truth;
pub mod writers;

use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use rand::RngExt as _;

use crate::cluster::network::socket;
use crate::cluster::node::PORTS;
use crate::cluster::nodes::{Cluster, ClusterOptions};
use crate::connection::Connection;
use crate::database::Database;
use crate::process::eventually;
use faults::{Fault, GUEST, Troublemaker};
use guard::Mutation;
use psql::Psql;
use readers::{Answer, Doors, GROUPS, Readers, Versions};
use replica::Replica;
use truth::{TABLES, Truth, Version};
use writers::{Writers, Writing};

/// Nothing has changed for so long when keys are compared with the database.
const QUIET: Duration = Duration::from_secs(5);

/// How long a node may take to answer when nothing happens any more.
const PATIENCE: Duration = Duration::from_secs(60);

/// Keys that are compared at once.
const AT_ONCE: usize = 100;

/// What is checked, and for how long.
#[derive(Clone, Debug)]
pub struct Check {
    pub seed: u64,
    /// Time of reads, writes and faults.
    pub lasts: Duration,
    pub keys: u32,
    pub readers: u64,
    pub writers: u64,
    /// Transactions per second of all writers.
    pub rate: f64,
    /// What happens, in random order.
    pub faults: Vec<Fault>,
    /// What is taken away, so that something must be found. It ends when it is.
    pub mutation: Option<Mutation>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    pub reads: u64,
    pub failed_reads: u64,
    pub commits: usize,
    pub happened: Vec<Fault>,
    /// Values that were never committed, and values that went back.
    pub faults: Vec<String>,
    /// Keys that were not as in the database after five seconds of quiet, with the node.
    pub different: Vec<String>,
    pub took: Duration,
}

impl Report {
    /// Whether something was found.
    pub fn is_red(&self) -> bool {
        !self.faults.is_empty() || !self.different.is_empty()
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Report { reads, failed_reads, commits, happened, faults, different, took } = self;
        write!(
            formatter,
            "{reads} reads ({failed_reads} failed), {commits} SQL commits, {} faults made in {took:.0?}: {} values invented or going \
             back, {} keys different after the quiet",
            happened.len(),
            faults.len(),
            different.len(),
        )?;
        for fault in faults.iter().chain(different).take(10) {
            write!(formatter, "\n  {fault}")?;
        }
        Ok(())
    }
}

/// Runs a check.
///
/// # Panics
/// When the cluster or the database does not get over what happens to it.
pub fn check(check: &Check) -> Report {
    let mut database = Database::start(&truth::schema(check.keys));
    let mut replica = Replica::of(&database);
    let mut cluster = Cluster::start(options(check, &database, &replica));
    if let Some(mutation) = check.mutation {
        mutation.take_away(&cluster);
    }
    let nodes: Vec<Doors> = (0..=GUEST)
        .map(|node| {
            let [open, direct] = [PORTS.resp, PORTS.direct].map(|port| socket(cluster.network.address(node), port));
            Doors { open, direct, advertised: cluster.advertised(node) }
        })
        .collect();
    let mut report = Report::default();
    let began = Instant::now();
    while began.elapsed() < check.lasts && !report.is_red() {
        let left = check.lasts.saturating_sub(began.elapsed());
        // What is only found when it is quiet is looked for now and then, if something is to be found.
        let lasts = if check.mutation.is_some() { left.min(Duration::from_secs(20)) } else { left };
        let mut trouble =
            Troublemaker::new(&mut cluster, &mut database, &mut replica, check.mutation, check.seed ^ report.reads);
        round(check, lasts, &nodes, &mut trouble, &mut report);
        report.different = differences(&cluster, &database);
    }
    report.took = began.elapsed();
    report
}

fn options(check: &Check, database: &Database, replica: &Replica) -> ClusterOptions {
    let groups = r#"
[[group]]
name = "item"
key = "item:{id}"
load = "SELECT version || '.' || xid FROM items WHERE id = $1"
as = "string"
absent_ttl = "1d"
invalidated_by = ["items(id)"]

[[group]]
name = "row"
key = "row:{id}"
load = "SELECT version, xid FROM items WHERE id = $1"
as = "hash"
absent_ttl = "1d"
invalidated_by = ["items(id)"]

[[group]]
name = "note"
key = "note:{id}"
load = "SELECT version || '.' || xid FROM notes WHERE id = $1"
as = "string"
absent_ttl = "1d"
invalidated_by = ["notes(id)"]
feed = "notify"
"#;
    let mut options = ClusterOptions::with("--hot-key-reads 50").in_front_of(&database.url(), groups);
    options.has_weather = check.faults.iter().any(|fault| matches!(fault, Fault::Cut | Fault::CutAndKill));
    options.args.extend(["--origin-replica".to_owned(), replica.url()]);
    options
}

/// Reads, writes and makes trouble for a while, and looks at what was seen.
fn round(check: &Check, lasts: Duration, nodes: &[Doors], trouble: &mut Troublemaker<'_>, report: &mut Report) {
    let writing = Writing {
        url: trouble.database.url(),
        keys: check.keys,
        rate: check.rate / check.writers as f64,
        afterwards: None,
    };
    let seed = check.seed.wrapping_add(report.reads);
    let writers = Writers::start(check.writers, &writing, seed);
    let readers = Readers::start(check.readers, check.keys, nodes.to_vec(), seed + 1_000);
    let began = Instant::now();
    let mut last = None;
    while began.elapsed() < lasts && !readers.shared.has_gone_back.load(Relaxed) {
        let fault = check.faults[trouble.random.random_range(0..check.faults.len())];
        if last == Some(fault) && check.faults.len() > 1 {
            continue;
        }
        println!("{:6.1?} {fault:?}", began.elapsed());
        last = Some(fault);
        trouble.make(fault);
        report.happened.push(fault);
    }
    writers.end();
    thread::sleep(QUIET);
    report.reads += readers.shared.reads.load(Relaxed);
    report.failed_reads += readers.shared.failed.load(Relaxed);
    let seen = readers.end();
    let truth = Truth::read(&trouble.database.url());
    report.commits = truth.commits;
    report.faults.extend(readers::faults(&truth, &seen));
}

/// The keys that nodes have otherwise than the database.
fn differences(cluster: &Cluster, database: &Database) -> Vec<String> {
    let rows: Vec<Vec<Option<Version>>> = TABLES.iter().map(|table| rows(&database.url(), table)).collect();
    let mut different = Vec::new();
    for node in cluster.running() {
        let mut connection = node.connect();
        for (group, (name, table)) in GROUPS.iter().enumerate() {
            let ids: Vec<u32> = (1..).take(rows[*table].len()).collect();
            for (ids, rows) in ids.chunks(AT_ONCE).zip(rows[*table].chunks(AT_ONCE)) {
                let read = read_at_last(&mut connection, node.address(), group, ids);
                for ((id, read), row) in ids.iter().zip(read).zip(rows).filter(|((_, read), row)| read != *row) {
                    let explained = connection.command(&format!("FOREBAY.EXPLAIN {name}:{id}"));
                    let changes = format!(
                        "SELECT * FROM journal WHERE name = '{}' AND id = {id} ORDER BY version DESC LIMIT 3",
                        TABLES[*table]
                    );
                    let changes = database.sql(&changes).replace('\n', ", ");
                    different.push(format!(
                        "{node}: {name}:{id} is {read:?}, in the database {row:?}; the last changes: {changes}; {explained}"
                    ));
                }
            }
        }
    }
    different
}

/// Reads keys of a node that may have to wait for its database still.
fn read_at_last(connection: &mut Connection, node: SocketAddr, group: usize, ids: &[u32]) -> Versions {
    let mut versions = Vec::new();
    let is_read = eventually(PATIENCE, || match readers::read(connection, group, ids) {
        Ok(Answer::Versions(read)) => {
            versions = read;
            true
        }
        Ok(Answer::MovedTo(_) | Answer::Error) => false,
        Err(_) => {
            *connection = Connection::open(node).expect("the node answers");
            false
        }
    });
    assert!(is_read, "{node} does not answer for {}:{ids:?}", GROUPS[group].0);
    versions
}

fn rows(url: &str, table: &str) -> Vec<Option<Version>> {
    let query = format!(
        "SELECT t.version, t.xid FROM counters LEFT JOIN {table} t USING (id) WHERE name = '{table}' ORDER BY id"
    );
    let rows = Psql::open(url).run(&query).expect("the database answers");
    let row = |row: &String| {
        let (number, transaction) = row.split_once('|').expect("two columns");
        Some(Version { number: number.parse().ok()?, transaction: transaction.parse().ok()? })
    };
    rows.iter().map(row).collect()
}
