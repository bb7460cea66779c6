//! Bytes of a key: what a server's memory grows by for each of a million keys of 15 bytes.

use std::path::PathBuf;

use clap::Args;

use crate::contender::{Contender, Kind};
use crate::failure::Failure;
use crate::load::replies::Wire;
use crate::load::workload::{self, Dataset};
use crate::{forebay_binary, wire};

/// Bytes of memory of one key, by each server's own account and by what its process occupies.
#[derive(Args, Debug, Clone)]
pub(crate) struct Options {
    /// Keys that are stored.
    #[arg(long, default_value_t = 1_000_000)]
    keys: usize,
    /// Bytes of a value.
    #[arg(long, value_delimiter = ',', default_values_t = [8, 32, 64, 256])]
    values: Vec<usize>,
    /// A second Forebay to be compared.
    #[arg(long, value_name = "BINARY")]
    baseline: Option<PathBuf>,
}

/// Bytes of a process.
#[derive(Clone, Copy)]
pub(crate) struct Footprint {
    /// What its allocator has given out.
    pub(crate) used: u64,
    resident: u64,
}

/// Bytes of a value of those keys that are more than plain strings.
const SMALL_VALUE: usize = 8;

/// Prints the table.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let mut contenders =
        vec![("redis-server", Kind::Redis { io_threads: 1 }), ("memcached", Kind::Memcached { threads: 1 })];
    if let Some(binary) = &options.baseline {
        contenders.push(("baseline", Kind::forebay(binary, 1)));
    }
    contenders.push(("Forebay", Kind::forebay(&forebay_binary()?, 1)));
    println!(
        "{} keys of 15 bytes; what is over the bytes of key and value (of a hash: key, fields and values).\n",
        options.keys
    );
    println!("| holds | server | bytes of a key, allocated | over | bytes of a key, resident | over |");
    println!("| --- | --- | ---: | ---: | ---: | ---: |");
    for dataset in options.datasets() {
        for (name, kind) in &contenders {
            eprintln!("{}: {name}", describe(&dataset));
            if dataset.kind.is_on(kind.wire()) {
                print(&dataset, name, kind)?;
            }
        }
    }
    println!();
    Ok(())
}

impl Options {
    fn datasets(&self) -> Vec<Dataset> {
        let dataset = |kind, value_bytes| Dataset { kind, value_bytes, keys: self.keys };
        let strings = self.values.iter().map(|&bytes| dataset(workload::Kind::Strings, bytes));
        let others = [workload::Kind::MortalStrings, workload::Kind::Hashes].map(|kind| dataset(kind, SMALL_VALUE));
        strings.chain(others).collect()
    }
}

fn print(dataset: &Dataset, name: &'static str, kind: &Kind) -> Result<(), Failure> {
    let mut contender = Contender::start(name, kind)?;
    let before = Footprint::of(&contender)?;
    contender.hold(dataset)?;
    let after = Footprint::of(&contender)?;
    let each = |before: u64, after: u64| after.saturating_sub(before) as f64 / dataset.keys as f64;
    let (used, resident) = (each(before.used, after.used), each(before.resident, after.resident));
    let own = dataset.bytes_each() as f64;
    let (over, resident_over) = (used - own, resident - own);
    println!("| {} | {name} | {used:.1} | {over:.1} | {resident:.1} | {resident_over:.1} |", describe(dataset));
    Ok(())
}

impl Footprint {
    /// By the server's account and the system's.
    pub(crate) fn of(contender: &Contender) -> Result<Footprint, Failure> {
        let figures = wire::figures(contender.address(), contender.wire()).map_err(Failure::Figures)?;
        let names: &[&str] = match contender.wire() {
            Wire::Resp => &["used_memory"],
            // Items with their headers, and the table that finds them.
            Wire::Memcached => &["bytes", "hash_bytes"],
        };
        let parts = figures.iter().filter(|(name, _)| names.contains(&name.as_str()));
        let used = parts.filter_map(|(_, value)| value.parse::<u64>().ok()).sum();
        Ok(Footprint { used, resident: contender.resident_bytes() })
    }
}

fn describe(dataset: &Dataset) -> String {
    match dataset.kind {
        workload::Kind::Strings => format!("a string of {} B", dataset.value_bytes),
        workload::Kind::Counters => "a counter".to_owned(),
        workload::Kind::MortalStrings => format!("a string of {} B with a ttl", dataset.value_bytes),
        workload::Kind::Hashes => format!("a hash of 5 fields of {} B", dataset.value_bytes),
    }
}
