//! A Postgres behind a cluster, what the cluster asks it, and so the hit ratio.

use std::fmt;
use std::time::{Duration, Instant};

use super::load::{Load, LoadOptions};
use crate::connection::Connection;
use crate::database::Database;

/// Keys that are asked for at once when the cluster is warmed.
const WARMED_AT_ONCE: u32 = 100;

/// The groups that read through to it. What they load is what a [`Load`] expects that reads `product` or `price`.
pub const GROUPS: &str = r#"
[[group]]
name = "product"
key = "product:{id}"
load = "SELECT 'value of product:' || id FROM products WHERE id = $1"
as = "string"

[[group]]
name = "price"
key = "price:{id}"
load = "SELECT 'value of price:' || id FROM prices WHERE id = $1"
as = "string"
ttl = "4s"
ttl_jitter = 0.5
"#;

/// What a load reads.
#[derive(Clone, Copy, Debug)]
pub enum Shelf {
    /// `product`: loaded once, and again only when the cluster has lost it.
    Lasting,
    /// `price`: loaded again every few seconds, so there is a steady number of queries to compare with.
    Expiring,
}

impl Shelf {
    /// What occurs in the statement that loads, and in no other.
    fn loading(self) -> &'static str {
        match self {
            Self::Lasting => "FROM products",
            Self::Expiring => "FROM prices",
        }
    }
}

/// A database with one row on each shelf for each key that a load reads.
pub struct Warehouse {
    pub database: Database,
    keys: u32,
}

/// What happened between two looks.
#[derive(Clone, Copy, Debug)]
pub struct Interval {
    pub took: Duration,
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
        let table = |name: &str| {
            format!("CREATE TABLE {name} (id int PRIMARY KEY); INSERT INTO {name} SELECT generate_series(0, {last});")
        };
        Self { database: Database::start(&[table("products"), table("prices")].concat()), keys: options.keys }
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

    /// Begins to count what the load reads and what is loaded from the shelf.
    pub fn watch<'a>(&'a self, shelf: Shelf, load: &'a Load) -> HitWatch<'a> {
        let mut watch =
            HitWatch { warehouse: self, shelf, load, looked: Instant::now(), reads: 0, loads: 0, queries: 0 };
        watch.interval();
        watch
    }
}

/// Counts reads and loads from look to look.
pub struct HitWatch<'a> {
    warehouse: &'a Warehouse,
    shelf: Shelf,
    load: &'a Load,
    looked: Instant,
    reads: u64,
    loads: u64,
    queries: u64,
}

impl HitWatch<'_> {
    /// What happened since the last look.
    pub fn interval(&mut self) -> Interval {
        let database = &self.warehouse.database;
        let loading = self.shelf.loading();
        let (reads, loads, queries) = (self.load.right_reads(), database.rows(loading), database.asked(loading));
        let interval = Interval {
            took: self.looked.elapsed(),
            reads: reads - self.reads,
            loads: loads - self.loads,
            queries: queries - self.queries,
        };
        (self.looked, self.reads, self.loads, self.queries) = (Instant::now(), reads, loads, queries);
        interval
    }
}

impl Interval {
    /// Share of the reads that needed no load.
    pub fn hit_ratio(&self) -> f64 {
        1.0 - self.loads as f64 / self.reads.max(1) as f64
    }

    /// Queries in a second.
    pub fn queries_per_second(&self) -> f64 {
        self.queries as f64 / self.took.as_secs_f64()
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { took, reads, loads, queries } = self;
        let hits = self.hit_ratio() * 100.0;
        write!(f, "{hits:.3} % hits ({reads} reads, {loads} keys loaded by {queries} queries in {took:.1?})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::nodes::{Cluster, ClusterOptions};

    #[test]
    fn loads_are_counted_by_keys_and_by_queries() {
        let options = LoadOptions { clients: 4, keys: 50, ..LoadOptions::default() };
        let warehouse = Warehouse::start(&options);
        let alone = ClusterOptions { nodes: 1, ..ClusterOptions::default() };
        let mut cluster = Cluster::prepare(alone.in_front_of(&warehouse.database.url(), GROUPS));
        cluster.nodes[0].restart();
        let prices = Load::start(&LoadOptions { reads: "price".to_owned(), ..options.clone() }, &cluster.addresses());
        let products = Load::start(&options, &cluster.addresses());
        let mut watch = warehouse.watch(Shelf::Lasting, &products);
        warehouse.warm(&mut cluster.nodes[0].connect());
        products.await_right(400, Duration::from_secs(20));
        // Some keys may have been read, and loaded, before the watch began.
        let first = watch.interval();
        assert!(first.loads <= 50 && first.queries <= first.loads, "{first}");
        products.await_right(400, Duration::from_secs(20));
        let warm = watch.interval();
        assert!(warm.loads == 0 && warm.reads > 200 && warm.hit_ratio() == 1.0, "{warm}");

        // They expire, so they are loaded again and again.
        let mut watch = warehouse.watch(Shelf::Expiring, &prices);
        let mut loads = 0;
        let is_reloaded = crate::process::eventually(Duration::from_secs(60), || {
            loads += watch.interval().loads;
            loads >= 100
        });
        assert!(is_reloaded, "only {loads} loads");
        assert_eq!((products.end().failed(), prices.end().failed()), (0, 0));
    }
}
