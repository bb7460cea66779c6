//! A Postgres behind a cluster, what the cluster asks it, and so the hit ratio.

use std::fmt;

use super::load::{Load, LoadOptions};
use crate::connection::Connection;
use crate::database::Database;

/// Keys that are asked for at once when the cluster is warmed.
const WARMED_AT_ONCE: u32 = 100;

/// What occurs in the statement that loads, and in no other.
const LOADING: &str = "FROM products";

/// The group that reads through to it. What it loads is what a [`Load`] expects.
pub const GROUPS: &str = r#"
[[group]]
name = "product"
key = "product:{id}"
load = "SELECT 'value of product:' || id FROM products WHERE id = $1"
as = "string"
"#;

/// A database with one row for each key that a load reads.
pub struct Warehouse {
    pub database: Database,
    keys: u32,
}

/// What happened between two looks.
#[derive(Clone, Copy, Debug)]
pub struct Interval {
    /// Reads that were answered.
    pub reads: u64,
    /// Keys that were loaded.
    pub loads: u64,
    /// Statements that loaded them.
    pub queries: u64,
}

impl Warehouse {
    /// Starts the database for a load of these options.
    pub fn start(options: &LoadOptions) -> Self {
        let last = options.keys - 1;
        let schema = "CREATE TABLE products (id int PRIMARY KEY); INSERT INTO products SELECT generate_series(0, ";
        Self { database: Database::start(&format!("{schema}{last})")), keys: options.keys }
    }

    /// Reads every key once.
    ///
    /// # Panics
    /// When a key is not answered for.
    pub fn warm(&self, connection: &mut Connection) {
        for first in (0..self.keys).step_by(WARMED_AT_ONCE as usize) {
            let keys = first..self.keys.min(first + WARMED_AT_ONCE);
            let request = ["MGET".to_owned()].into_iter().chain(keys.map(|key| format!("product:{key}")));
            let reply = connection.command(&request.collect::<Vec<_>>().join(" "));
            let is_whole = reply.items().is_some_and(|values| values.iter().all(|value| value.text().is_some()));
            assert!(is_whole, "products {first} and after: {reply}");
        }
    }

    /// Begins to count.
    pub fn watch<'a>(&'a self, load: &'a Load) -> HitWatch<'a> {
        let mut watch = HitWatch { warehouse: self, load, reads: 0, loads: 0, queries: 0 };
        watch.interval();
        watch
    }
}

/// Counts reads and loads from look to look.
pub struct HitWatch<'a> {
    warehouse: &'a Warehouse,
    load: &'a Load,
    reads: u64,
    loads: u64,
    queries: u64,
}

impl HitWatch<'_> {
    /// What happened since the last look.
    pub fn interval(&mut self) -> Interval {
        let database = &self.warehouse.database;
        let (reads, loads, queries) = (self.load.right_reads(), database.rows(LOADING), database.asked(LOADING));
        let interval =
            Interval { reads: reads - self.reads, loads: loads - self.loads, queries: queries - self.queries };
        (self.reads, self.loads, self.queries) = (reads, loads, queries);
        interval
    }
}

impl Interval {
    /// Share of the reads that needed no load.
    pub fn hit_ratio(&self) -> f64 {
        1.0 - self.loads as f64 / self.reads.max(1) as f64
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reads, loads, queries } = self;
        write!(f, "{:.3} % hits ({reads} reads, {loads} keys loaded by {queries} queries)", self.hit_ratio() * 100.0)
    }
}
