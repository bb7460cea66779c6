//! Measurements of Forebay, most of them beside redis-server and memcached. benches/README.md tells how to read them.

mod callgrind;
mod compare;
mod contender;
mod contention;
mod cross_check;
mod failure;
mod forwarded;
#[cfg(test)]
mod gates;
mod hit_ratio;
mod instructions;
mod interrupt;
mod load;
mod memory;
mod processor;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use failure::Failure;

/// Measures Forebay beside redis-server and memcached.
#[derive(Parser)]
struct Invocation {
    #[command(subcommand)]
    measurement: Measurement,
}

#[derive(Subcommand)]
enum Measurement {
    Compare(compare::Options),
    CrossCheck(cross_check::Options),
    Memory(memory::Options),
    Instructions(instructions::Options),
    Contention(contention::Options),
    Forwarded(forwarded::Options),
    /// All but hit-ratio, one after the other; compare with one worker and with two.
    All,
    HitRatio(hit_ratio::Options),
}

/// What `all` runs, and the headings of its tables.
const ALL: &[(&str, &str)] = &[
    ("Processor time, throughput and latency", "compare"),
    ("Two worker threads", "compare --threads 2 --without-memcached --only get,set --pipelines 1,16,64"),
    ("The same load by redis-benchmark", "cross-check"),
    ("Memory of a key", "memory"),
    ("Instructions and allocations of a request", "instructions"),
    ("Lock conflicts", "contention"),
    ("Forwarded requests", "forwarded"),
];

fn main() -> ExitCode {
    let invocation = Invocation::parse();
    let outcome = interrupt::watch().map_err(Failure::from).and_then(|()| run(&invocation.measurement));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(measurement: &Measurement) -> Result<(), Failure> {
    processor::unpin_this_thread();
    match measurement {
        Measurement::Compare(options) => compare::run(options),
        Measurement::CrossCheck(options) => cross_check::run(options),
        Measurement::Memory(options) => memory::run(options),
        Measurement::Instructions(options) => instructions::run(options),
        Measurement::Contention(options) => contention::run(options),
        Measurement::Forwarded(options) => forwarded::run(options),
        Measurement::All => run_all(),
        Measurement::HitRatio(options) => {
            hit_ratio::run(options);
            Ok(())
        }
    }
}

fn run_all() -> Result<(), Failure> {
    for (heading, line) in ALL {
        eprintln!("== {line}");
        println!("### {heading}\n\n`make bench ARGS='{line}'`\n");
        let words = std::iter::once("forebay-benches").chain(line.split(' '));
        run(&Invocation::parse_from(words).measurement)?;
    }
    Ok(())
}

/// The Forebay to be measured: the one that `FOREBAY_BIN` names, or the one beside this binary.
fn forebay_binary() -> Result<PathBuf, Failure> {
    let named = std::env::var_os("FOREBAY_BIN").map(PathBuf::from);
    let path = named.unwrap_or_else(|| {
        let here = std::env::current_exe().unwrap_or_default();
        here.with_file_name("forebay")
    });
    match path.exists() {
        // Servers run in directories of their own.
        true => path.canonicalize().map_err(|_| Failure::NoBinary(path)),
        false => Err(Failure::NoBinary(path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_all_are_understood() {
        for (_, line) in ALL {
            let words = std::iter::once("forebay-benches").chain(line.split(' '));
            assert!(Invocation::try_parse_from(words).is_ok(), "{line}");
        }
    }
}
