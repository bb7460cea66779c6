//! A private Postgres as a black-box test uses it: every call blocks, and it tells what it was asked and by how many connections.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use forebay_test_postgres::TestPostgres;
use tokio::runtime::Runtime;

use crate::process::eventually;

/// The name that Forebay's connections give themselves unless the URL names another.
const APPLICATION: &str = "forebay";

/// The database that all tests use.
const NAME: &str = "postgres";

/// Time between two looks of a [`ConnectionWatch`].
const WATCH_INTERVAL: Duration = Duration::from_millis(10);

/// How long a watch may take to look for the first time.
const WATCH_START: Duration = Duration::from_secs(20);

/// A running PostgreSQL instance; it ends with this value.
pub struct Database {
    runtime: Runtime,
    postgres: TestPostgres,
}

impl Database {
    /// Starts an instance and runs `schema` in it.
    pub fn start(schema: &str) -> Self {
        let runtime = runtime();
        let postgres = runtime.block_on(TestPostgres::start());
        let database = Self { runtime, postgres };
        database.sql(schema);
        database
    }

    /// Starts a streaming replica.
    pub fn standby(&self) -> Self {
        let standby = Self { runtime: runtime(), postgres: self.runtime.block_on(self.postgres.standby()) };
        self.catch_up(&standby);
        standby
    }

    /// Waits until `standby` has everything that is committed here.
    pub fn catch_up(&self, standby: &Self) {
        self.runtime.block_on(self.postgres.catch_up(&standby.postgres));
    }

    /// What Forebay is given as its origin.
    pub fn url(&self) -> String {
        self.postgres.url(NAME)
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.postgres.port()
    }

    /// Runs SQL; rows come back as lines, columns separated by `|`.
    pub fn sql(&self, text: &str) -> String {
        self.runtime.block_on(self.postgres.sql(NAME, text))
    }

    /// The same, with the database's words instead of a panic.
    ///
    /// # Errors
    /// When the database refuses it.
    pub fn try_sql(&self, text: &str) -> Result<String, String> {
        self.runtime.block_on(self.postgres.try_sql(NAME, text))
    }

    /// Stops it as a crash would.
    pub fn stop(&mut self) {
        self.runtime.block_on(self.postgres.stop());
    }

    /// Starts it again after [`Database::stop`].
    pub fn start_again(&mut self) {
        self.runtime.block_on(self.postgres.start_again());
    }

    /// How many statements that contain `part` were run since the last [`Database::forget`]. Constants in a statement may have become
    /// placeholders, and statements that differ in constants or column names only count as the one that was run first.
    pub fn asked(&self, part: &str) -> u64 {
        let calls = self.sql(&format!("SELECT coalesce(sum(calls), 0) FROM pg_stat_statements {}", of(part)));
        calls.parse().expect("a sum is a number")
    }

    /// How many rows the loads that contain `part` found since the last [`Database::forget`]. Each statement gives one row more, with its
    /// snapshot.
    pub fn rows(&self, part: &str) -> u64 {
        let rows = self.sql(&format!("SELECT coalesce(sum(rows - calls), 0) FROM pg_stat_statements {}", of(part)));
        rows.parse().expect("a sum is a number")
    }

    /// The longest that a statement that contains `part` took to run, as the database measured it.
    pub fn longest(&self, part: &str) -> Duration {
        let millis = self.sql(&format!("SELECT coalesce(max(max_exec_time), 0) FROM pg_stat_statements {}", of(part)));
        Duration::from_secs_f64(millis.parse::<f64>().expect("a maximum is a number") / 1000.0)
    }

    /// Forgets which statements were run.
    pub fn forget(&self) {
        self.sql("SELECT pg_stat_statements_reset()");
    }

    /// Waits until a statement that contains `part`, by which it calls `pg_sleep`, sleeps for Forebay: then its snapshot is taken. One that is
    /// merely active may be about to be prepared.
    ///
    /// # Panics
    /// When none is, long after it should.
    pub fn await_asleep(&self, part: &str) {
        let running = format!(
            "SELECT count(*) FROM pg_stat_activity \
             WHERE application_name = '{APPLICATION}' AND wait_event = 'PgSleep' AND query LIKE '%{part}%'"
        );
        assert!(eventually(WATCH_START, || self.sql(&running) != "0"), "no statement with {part} sleeps");
    }

    /// Begins to count Forebay's connections, many times a second, until the watch is ended or the database stops.
    pub fn watch_connections(&self) -> ConnectionWatch {
        ConnectionWatch::start(&self.url())
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime for the fixture")
}

/// Statements of Forebay, not those that a test looks at them with.
fn of(part: &str) -> String {
    format!("WHERE query LIKE '%{part}%' AND query NOT LIKE '%pg_stat_%'")
}

/// Looks at `pg_stat_activity` again and again over one connection of its own.
pub struct ConnectionWatch {
    psql: Child,
    reader: JoinHandle<Vec<usize>>,
}

impl ConnectionWatch {
    fn start(url: &str) -> Self {
        let mut psql = Command::new("psql")
            .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--dbname", url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("psql can be run");
        let (first, looked) = mpsc::channel();
        let output = BufReader::new(psql.stdout.take().expect("its output is a pipe"));
        let reader = thread::spawn(move || counts(output, first));
        let mut input = psql.stdin.take().expect("its input is a pipe");
        let look = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{APPLICATION}'");
        writeln!(input, "{look} \\watch {}", WATCH_INTERVAL.as_secs_f64()).expect("psql reads its input");
        drop(input);
        looked.recv_timeout(WATCH_START).expect("psql looks at the connections");
        Self { psql, reader }
    }

    /// Ends the watch: the numbers of connections that were seen, in order.
    pub fn end(mut self) -> Vec<usize> {
        // It has ended by itself if the database was stopped.
        let _ = self.psql.kill();
        let _ = self.psql.wait();
        self.reader.join().expect("the watch's reader does not panic")
    }
}

/// Reads what psql prints; titles and empty lines stand between the numbers.
fn counts(output: impl BufRead, first: mpsc::Sender<()>) -> Vec<usize> {
    let mut counts = Vec::new();
    for line in output.lines().map_while(Result::ok) {
        if let Ok(count) = line.trim().parse() {
            counts.push(count);
            // Only the first number is waited for.
            let _ = first.send(());
        }
    }
    counts
}
