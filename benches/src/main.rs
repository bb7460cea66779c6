//! Measurements of Forebay, most of them beside redis-server and memcached. benches/README.md tells how to read them.

mod callgrind;
mod compare;
mod contender;
mod failure;
#[cfg(test)]
mod gates;
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
    Memory(memory::Options),
    Instructions(instructions::Options),
}

fn main() -> ExitCode {
    let invocation = Invocation::parse();
    match run(&invocation.measurement) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(measurement: &Measurement) -> Result<(), Failure> {
    interrupt::watch()?;
    match measurement {
        Measurement::Compare(options) => compare::run(options),
        Measurement::Memory(options) => memory::run(options),
        Measurement::Instructions(options) => instructions::run(options),
    }
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
