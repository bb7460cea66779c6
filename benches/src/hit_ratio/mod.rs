//! Hit ratios: the store under the default policy beside other algorithms and the optimum, on the same requests.
//!
//! Every cache holds the same number of keys and is asked for the same keys in turn; a key that is missing is fetched and put.
//! The store is the real one, with its locks, its index and its clock; the others are as exact as their papers. All is made from
//! a seed, so the same figures come out on every machine.

mod lfu;
mod lru;
mod optimum;
mod recency;
mod s3_fifo;
mod sketch;
mod store;
mod w_tiny_lfu;
mod workloads;

use clap::Args;
use forebay_store::EvictionPolicy;

use lfu::{Kind, Lfu};
use workloads::Workload;

/// Hit ratios of the store and of other algorithms, in per cent.
#[derive(Args, Debug, Clone)]
pub(crate) struct Options {
    /// Keys that each cache holds.
    #[arg(long, default_value_t = 32_768)]
    capacity: usize,
    /// Requests for each key that a cache holds; the first quarter fills the caches and is not counted.
    #[arg(long, default_value_t = 100)]
    requests: usize,
    /// Only workloads whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
}

/// Something that keeps what was asked for.
trait Cache {
    /// Asks for a key, which is fetched and put if it is missing. Tells whether it was there.
    fn request(&mut self, key: u64) -> bool;
}

/// Hit ratios on one workload, in per cent.
struct Row {
    workload: &'static str,
    optimum: f64,
    /// LFU that never forgets, which takes memory for every key ever seen; so it is shown but no rival.
    perfect_lfu: f64,
    /// In the order of [`RIVALS`].
    rivals: [f64; RIVALS.len()],
    forebay: f64,
}

const RIVALS: [&str; 5] = ["LRU", "LFU, in-cache", "LFU, ageing", "S3-FIFO", "W-TinyLFU"];

/// Prints the table.
pub(crate) fn run(options: &Options) {
    println!("| workload | optimum | LFU, perfect | {} | Forebay | over the best |", RIVALS.join(" | "));
    println!("|---|---:{}", "|---:".repeat(RIVALS.len() + 3) + "|");
    let workloads = workloads::all(options.capacity, options.capacity * options.requests);
    for workload in workloads.iter().filter(|workload| workload.name.contains(&options.only)) {
        println!("{}", Row::of(workload, options.capacity));
    }
}

impl Row {
    fn of(workload: &Workload, capacity: usize) -> Row {
        let requests = &workload.requests;
        let warm_up = requests.len() / 4;
        let counted = (requests.len() - warm_up) as f64;
        let optimum = optimum::optimal_hits(requests, capacity, warm_up) as f64 * 100.0 / counted;
        let ratio = |cache: &mut dyn Cache| hits(cache, requests, warm_up) as f64 * 100.0 / counted;
        Row {
            workload: workload.name,
            optimum,
            perfect_lfu: ratio(&mut Lfu::new(Kind::Perfect, capacity)),
            rivals: [
                ratio(&mut lru::Lru::new(capacity)),
                ratio(&mut Lfu::new(Kind::InCache, capacity)),
                ratio(&mut Lfu::new(Kind::Ageing, capacity)),
                ratio(&mut s3_fifo::S3Fifo::new(capacity)),
                ratio(&mut w_tiny_lfu::WTinyLfu::new(capacity)),
            ],
            forebay: ratio(&mut store::KeptInStore::new(capacity, EvictionPolicy::default())),
        }
    }

    /// Points over the best of the rivals.
    fn over_the_best(&self) -> f64 {
        self.forebay - self.rivals.iter().copied().fold(0.0, f64::max)
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "| {} | {:.2} | {:.2} ", self.workload, self.optimum, self.perfect_lfu)?;
        self.rivals.iter().try_for_each(|ratio| write!(f, "| {ratio:.2} "))?;
        write!(f, "| {:.2} | {:+.2} |", self.forebay, self.over_the_best())
    }
}

fn hits(cache: &mut dyn Cache, requests: &[u64], warm_up: usize) -> usize {
    for key in &requests[..warm_up] {
        cache.request(*key);
    }
    requests[warm_up..].iter().filter(|key| cache.request(**key)).count()
}

/// Random numbers that are the same in every run (splitmix64; G. Steele et al., "Fast Splittable Pseudorandom Number
/// Generators", OOPSLA 2014).
struct Draws(u64);

impl Draws {
    fn new(seed: u64) -> Self {
        Draws(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> u64::BITS) as usize
    }

    /// From 0 to 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its place among the rivals.
    const LRU: usize = 0;
    const CAPACITY: usize = 4096;
    const REQUESTS: usize = 40 * CAPACITY;
    /// Points that the store may be behind the best of the rivals. The aim is one, at the size that `hit-ratio` has; in a cache so
    /// small and so short a run, what the store has to learn first costs more, by what was counted up to 1.4.
    const BEHIND: f64 = 2.0;

    #[test]
    fn the_default_policy_keeps_up_with_the_best_on_each_workload() {
        let rows: Vec<_> =
            workloads::all(CAPACITY, REQUESTS).iter().map(|workload| Row::of(workload, CAPACITY)).collect();
        rows.iter().for_each(|row| println!("{row}"));
        for row in &rows {
            assert!(row.over_the_best() >= -BEHIND, "{row}");
            let best = row.rivals.iter().copied().fold(row.perfect_lfu.max(row.forebay), f64::max);
            assert!(best <= row.optimum, "{row}: nothing is better than the optimum");
        }
        let over_lru: f64 = rows.iter().map(|row| row.forebay - row.rivals[LRU]).sum();
        assert!(over_lru > 0.0);
    }
}
