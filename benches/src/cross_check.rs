//! The same comparison with redis-benchmark as the load, to see that the driver of our own favours nobody.

use std::process::Command;

use clap::Args;

use crate::compare;
use crate::contender::{Contender, Kind};
use crate::failure::Failure;
use crate::load::driver::LoadError;
use crate::{forebay_binary, interrupt, processor};

/// Processor time of a request under redis-benchmark: redis-server and Forebay in turns.
#[derive(Args, Debug, Clone)]
pub(crate) struct Options {
    /// Rounds of each server; the best one counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Requests of a round.
    #[arg(long, default_value_t = 300_000)]
    requests: u64,
    /// The processor that the servers run on; the load has the next one.
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
}

/// Commands, with the words by which redis-benchmark knows random keys.
const COMMANDS: [(&str, &str); 5] = [
    ("GET", "get key:__rand_int__"),
    ("SET", "set key:__rand_int__ VALUE"),
    ("INCR", "incr counter:__rand_int__"),
    ("HSET", "hset hash:__rand_int__ field VALUE"),
    ("HGETALL", "hgetall hash:__rand_int__"),
];

/// Bytes of a value.
const VALUE_BYTES: usize = 64;

/// Different keys.
const KEYS: &str = "1000000";

/// Prints the table.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let placement = compare::Placement::apart(options.server_cpu);
    processor::pin_this_thread(&placement.load);
    let kinds = [("redis-server", Kind::Redis { io_threads: 1 }), ("Forebay", Kind::forebay(&forebay_binary()?, 1))];
    let mut servers = Vec::new();
    for (name, kind) in &kinds {
        let server = Contender::start(name, kind)?;
        server.pin(&placement.servers);
        fill(&server)?;
        servers.push(server);
    }
    println!(
        "50 clients, values of {VALUE_BYTES} B, a million keys; the best of {} rounds in turns.\n",
        options.rounds
    );
    println!("| workload | pipeline | redis-server, CPU µs | Forebay, CPU µs | ratio |");
    println!("| --- | ---: | ---: | ---: | ---: |");
    for (name, command) in COMMANDS {
        for pipeline in compare::PIPELINES {
            eprintln!("{name}, pipeline {pipeline}");
            let mut best = [f64::INFINITY; 2];
            for _ in 0..options.rounds {
                for (best, server) in best.iter_mut().zip(&servers) {
                    *best = best.min(round(server, command, pipeline, options.requests)?);
                }
            }
            let [redis, forebay] = best;
            println!("| {name} | {pipeline} | {redis:.2} | {forebay:.2} | {:.2} |", forebay / redis);
        }
    }
    println!();
    Ok(())
}

/// Makes about 630,000 of the million keys, as many as a million draws meet.
fn fill(server: &Contender) -> Result<(), Failure> {
    benchmark(server, "set key:__rand_int__ VALUE", 64, 1_000_000)?;
    benchmark(server, "hset hash:__rand_int__ field VALUE", 64, 1_000_000)
}

/// Microseconds of processor time of a request.
fn round(server: &Contender, command: &str, pipeline: usize, requests: u64) -> Result<f64, Failure> {
    let before = server.cpu_time();
    benchmark(server, command, pipeline, requests)?;
    let spent = server.cpu_time() - before;
    Ok(spent.total.as_secs_f64() * 1e6 / requests as f64)
}

fn benchmark(server: &Contender, command: &str, pipeline: usize, requests: u64) -> Result<(), Failure> {
    let value = "v".repeat(VALUE_BYTES);
    let words = command.split(' ').map(|word| if word == "VALUE" { value.as_str() } else { word });
    let output = Command::new("redis-benchmark")
        .args(["-p", &server.address().port().to_string(), "-q", "-r", KEYS, "-c", "50"])
        .args(["-n", &requests.to_string(), "-P", &pipeline.to_string()])
        .args(words)
        .output()
        .map_err(|error| Failure::CrossCheck(error.to_string()))?;
    match output.status.success() {
        _ if interrupt::asked() => Err(LoadError::Interrupted.into()),
        true => Ok(()),
        false => Err(Failure::CrossCheck(String::from_utf8_lossy(&output.stderr).into_owned())),
    }
}
