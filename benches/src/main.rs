//! CPU time per request, Forebay beside redis-server.
//!
//! Wall-clock figures of a shared machine mean little, so what is compared is the processor time that the server spent on a
//! request (user and system, from the scheduler's own account), in rounds that alternate between the two servers. Server and load
//! generator (redis-benchmark) are pinned to different processors.

mod processor;
mod table;

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use clap::Parser;
use forebay_redis_tests::server::{Forebay, ForebayOptions, RedisServer};

use processor::{Pid, cpu_time, pin};
use table::{Row, print};

/// Compares the processor time that Forebay and redis-server spend on a request.
#[derive(Parser)]
struct Options {
    /// Requests in one round of one workload.
    #[arg(long, default_value_t = 200_000)]
    requests: u64,
    /// Rounds of each workload; the best of each server counts, since noise only ever adds.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Connections of the load generator.
    #[arg(long, default_value_t = 50)]
    clients: u32,
    /// Requests per write of one connection.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64])]
    pipelines: Vec<u32>,
    /// Bytes of a value.
    #[arg(long, default_value_t = 64)]
    value_bytes: u32,
    /// Processor that the servers run on; the load runs on the other ones.
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    /// Only workloads whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
}

/// A workload of redis-benchmark: its name here, and what it is called with.
const WORKLOADS: &[(&str, &[&str])] = &[
    ("GET", &["get", "key:__rand_int__"]),
    ("SET", &["set", "key:__rand_int__", "__data__"]),
    ("MGET 10", &["mget", "a:0", "a:1", "a:2", "a:3", "a:4", "a:5", "a:6", "a:7", "a:8", "a:9"]),
    ("INCR", &["incr", "counter:__rand_int__"]),
    ("HSET", &["hset", "hash:__rand_int__", "field", "__data__"]),
    ("HGETALL", &["hgetall", "h:1"]),
];

/// Different keys that `__rand_int__` makes.
const KEYS: &str = "100000";

struct Side {
    address: SocketAddr,
    pid: Pid,
}

fn main() {
    let options = Options::parse();
    let mut redis = RedisServer::start(&[]).unwrap_or_else(|error| panic!("{error}"));
    let arguments = ["--threads", "1"].map(str::to_owned).to_vec();
    let mut forebay = Forebay::start(ForebayOptions { args: arguments, ..ForebayOptions::default() })
        .unwrap_or_else(|error| panic!("{error}"));
    let redis = Side { address: redis.address(), pid: redis.process().id() };
    let forebay = Side { address: forebay.address(), pid: forebay.process().id() };
    for side in [&redis, &forebay] {
        pin(side.pid, options.server_cpu);
        prepare(side, &options);
    }
    let mut rows = Vec::new();
    for (name, command) in WORKLOADS.iter().filter(|(name, _)| name.contains(&options.only)) {
        for &pipeline in &options.pipelines {
            let mut row = Row::new(name, pipeline);
            for _ in 0..options.rounds {
                row.redis.add(round(&redis, command, pipeline, &options));
                row.forebay.add(round(&forebay, command, pipeline, &options));
            }
            eprintln!("{name} at pipeline {pipeline}: done");
            rows.push(row);
        }
    }
    print(&rows);
}

/// Fills what the reading workloads read.
fn prepare(side: &Side, options: &Options) {
    let value = "x".repeat(options.value_bytes as usize);
    let set = format!("set key:__rand_int__ {value}");
    benchmark(side, &set.split(' ').collect::<Vec<_>>(), 64, 400_000, options);
    for key in 0..10 {
        benchmark(side, &["set", &format!("a:{key}"), &value], 1, 1, options);
    }
    benchmark(side, &["hset", "h:1", "a", "1", "b", "2", "c", "3", "d", "4", "e", "5"], 1, 1, options);
}

/// Microseconds of processor time per request.
fn round(side: &Side, command: &[&str], pipeline: u32, options: &Options) -> f64 {
    let value = "x".repeat(options.value_bytes as usize);
    let command: Vec<_> = command.iter().map(|word| if *word == "__data__" { &value } else { *word }).collect();
    let before = cpu_time(side.pid);
    benchmark(side, &command, pipeline, options.requests, options);
    let spent = cpu_time(side.pid) - before;
    spent.as_secs_f64() * 1e6 / options.requests as f64
}

fn benchmark(side: &Side, command: &[&str], pipeline: u32, requests: u64, options: &Options) {
    let status = Command::new("taskset")
        .args(["-c", &other_cpus(options.server_cpu)])
        .arg("redis-benchmark")
        .args(["-p", &side.address.port().to_string(), "-q", "-r", KEYS])
        .args(["-n", &requests.to_string(), "-P", &pipeline.to_string(), "-c", &options.clients.to_string()])
        .args(command)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("redis-benchmark and taskset are installed");
    assert!(status.success(), "redis-benchmark failed for {command:?}");
}

/// All processors but the server's, in taskset's notation; on a machine with one, that one.
fn other_cpus(server: usize) -> String {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let others: Vec<_> = (0..count).filter(|cpu| *cpu != server).map(|cpu| cpu.to_string()).collect();
    if others.is_empty() { server.to_string() } else { others.join(",") }
}
