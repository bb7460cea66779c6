//! What a request costs that comes to a node which does not own its key, beside one that comes to the owner, and beside a proxy in front
//! of redis-server.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use clap::Args;
use forebay_cluster::{SLOT_COUNT, slot_of};
use forebay_redis_tests::process::{ServerProcess, eventually, free_ports, loopback};

use crate::failure::Failure;
use crate::load::driver::Driver;
use crate::load::replies::Wire;
use crate::load::tape::Tape;
use crate::load::workload::{self, Kind};
use crate::processor::{self, CpuTime};
use crate::{compare, forebay_binary, wire};

/// Processor time of GETs that are forwarded: two Forebays, and haproxy in front of redis-server, in turns with local ones.
#[derive(Args, Debug, Clone)]
pub(crate) struct Options {
    /// Rounds of each way; the best one counts for processor time, the median for latency. With a lone client each is cut into five, since
    /// what it takes follows the processor's speed, which changes from second to second.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of a round.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Keys of each node.
    #[arg(long, default_value_t = 10_000)]
    keys: usize,
    /// A second Forebay binary, to be compared with.
    #[arg(long)]
    baseline: Option<std::path::PathBuf>,
    /// Leaves redis-server and haproxy out.
    #[arg(long)]
    without_redis: bool,
}

/// Clients and pipeline of each part of the table.
const POINTS: [(usize, usize); 4] = [(50, 1), (50, 16), (50, 64), (1, 1)];

/// Into so many a round is cut with a lone client.
const CUTS: usize = 5;

/// How long two nodes may take to be a cluster.
const FORMED: Duration = Duration::from_secs(20);

/// Bytes of a value.
const VALUE_BYTES: usize = 64;

/// The share of a round that goes by before it is measured.
const WARM_UP: f64 = 0.2;

/// Requests on a tape.
const REQUESTS: usize = 1 << 16;

/// One way that requests go: what answers them, and who works for it.
struct Way {
    name: String,
    address: SocketAddr,
    tape: Tape,
    processes: Vec<u32>,
    rounds: Vec<Round>,
}

#[derive(Clone, Copy)]
struct Round {
    /// Microseconds of processor time of a request, all processes together.
    cpu: f64,
    /// Microseconds.
    p50: f64,
    /// Requests per second.
    throughput: f64,
}

/// Prints the table.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let placement = compare::Placement::apart(0);
    processor::pin_this_thread(&placement.load);
    let binary = forebay_binary()?;
    let mut clusters = vec![("Forebay", Pair::start(&binary)?)];
    if let Some(baseline) = &options.baseline {
        clusters.push(("baseline", Pair::start(baseline)?));
    }
    let mut ways = Vec::new();
    for (name, pair) in &clusters {
        ways.extend(pair.ways(name, options.keys)?);
    }
    let proxied = if options.without_redis { None } else { Some(Proxied::start()?) };
    if let Some(proxied) = &proxied {
        ways.extend(proxied.ways(options.keys)?);
    }
    println!(
        "| clients | pipeline | way | CPU µs, all processes | to its local one | p50 µs | to its local one | requests/s |"
    );
    println!("| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |");
    for (clients, pipeline) in POINTS {
        eprintln!("{clients} clients, pipeline {pipeline}");
        for way in &mut ways {
            way.rounds.clear();
        }
        let cuts = if clients == 1 { CUTS } else { 1 };
        for _ in 0..options.rounds * cuts {
            for way in &mut ways {
                way.round(clients, pipeline, Duration::from_secs_f64(options.seconds) / cuts as u32)?;
            }
        }
        // Each way through another server follows its direct one.
        for pair in ways.chunks(2) {
            let [local, through] = pair else { unreachable!("ways come in twos") };
            local.print(clients, pipeline, local);
            through.print(clients, pipeline, local);
        }
    }
    println!();
    Ok(())
}

impl Way {
    fn round(&mut self, clients: usize, pipeline: usize, duration: Duration) -> Result<(), Failure> {
        let mut driver = Driver::connect(self.address, Wire::Resp, clients, pipeline, &self.tape)?;
        driver.warm_up(duration.mul_f64(WARM_UP))?;
        let before = self.spent();
        let sample = driver.run(duration)?;
        let spent = self.spent() - before;
        driver.finish()?;
        self.rounds.push(Round {
            cpu: spent.as_secs_f64() * 1e6 / sample.requests as f64,
            p50: sample.latency.value_at_quantile(0.5) as f64 / 1e3,
            throughput: sample.requests as f64 / sample.elapsed.as_secs_f64(),
        });
        Ok(())
    }

    fn spent(&self) -> Duration {
        self.processes.iter().map(|&process| CpuTime::of(process).total).sum()
    }

    fn cpu(&self) -> f64 {
        self.rounds.iter().map(|round| round.cpu).fold(f64::INFINITY, f64::min)
    }

    fn median(&self, figure: impl Fn(&Round) -> f64) -> f64 {
        median(self.rounds.iter().map(figure))
    }

    /// How many times the other's latency this one's is, from rounds that followed each other.
    fn p50_to(&self, other: &Way) -> f64 {
        median(self.rounds.iter().zip(&other.rounds).map(|(own, others)| own.p50 / others.p50))
    }

    fn print(&self, clients: usize, pipeline: usize, local: &Way) {
        println!(
            "| {clients} | {pipeline} | {} | {:.2} | {:.2} | {:.0} | {:.2} | {:.0} |",
            self.name,
            self.cpu(),
            self.cpu() / local.cpu(),
            self.median(|round| round.p50),
            self.p50_to(local),
            self.median(|round| round.throughput),
        );
    }
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Two nodes, one of which is asked.
struct Pair {
    asked: Member,
    other: Member,
}

struct Member {
    process: ServerProcess,
    open: SocketAddr,
}

impl Pair {
    fn start(binary: &Path) -> Result<Pair, Failure> {
        let [first_peer, second_peer] = free_ports();
        let asked = Member::start(binary, first_peer, second_peer)?;
        let other = Member::start(binary, second_peer, first_peer)?;
        let pair = Pair { asked, other };
        let share = |member: &Member| member.slots().map_or(0, |slots| slots.len());
        // Once nothing moves any more.
        let is_formed = || share(&pair.asked).min(share(&pair.other)) > usize::from(SLOT_COUNT) * 2 / 5;
        match eventually(FORMED, is_formed) {
            true => Ok(pair),
            false => Err(Failure::NoCluster),
        }
    }

    /// GETs of the keys of the node that is asked, and of the other one.
    fn ways(&self, name: &str, keys: usize) -> Result<[Way; 2], Failure> {
        let processes = vec![self.asked.process.id(), self.other.process.id()];
        let way = |owner: &Member, what: &str| -> Result<Way, Failure> {
            let keys = owner.keys(keys)?;
            Driver::connect(self.asked.open, Wire::Resp, 1, 64, &Tape::setting(&keys, VALUE_BYTES))?.run_through()?;
            let tape = Tape::getting(&keys, REQUESTS);
            let name = format!("{name}, {what}");
            Ok(Way { name, address: self.asked.open, tape, processes: processes.clone(), rounds: Vec::new() })
        };
        Ok([way(&self.asked, "at the owner")?, way(&self.other, "forwarded")?])
    }
}

impl Member {
    fn start(binary: &Path, peer: u16, other_peer: u16) -> Result<Member, Failure> {
        let command = |directory: &Path| {
            let [open, direct, raft, http] = free_ports();
            let mut command = Command::new(binary);
            command.args(["node", "--bind", "127.0.0.1", "--threads", "1", "--bootstrap-expect", "2", "--copies", "1"]);
            command.arg("--data-dir").arg(directory.join("data")).args(["--join", &format!("127.0.0.1:{other_peer}")]);
            let ports = [
                ("port", open),
                ("direct-port", direct),
                ("raft-port", raft),
                ("http-port", http),
                ("peer-port", peer),
            ];
            for (flag, port) in ports {
                command.arg(format!("--{flag}")).arg(port.to_string());
            }
            command.args(["--metrics-port", "off"]);
            (command, loopback(open))
        };
        let (process, open) = ServerProcess::start("forebay", command, |&address| wire::answers(address, Wire::Resp))?;
        Ok(Member { process, open })
    }

    /// The slots that it owns, by its own word.
    fn slots(&self) -> Result<Vec<u16>, Failure> {
        let nodes = wire::text(self.open, "CLUSTER NODES").map_err(Failure::Figures)?;
        let own = nodes.lines().find(|line| line.contains("myself")).unwrap_or_default();
        // Eight fields of the node itself, then its ranges.
        Ok(own.split(' ').skip(8).flat_map(range).collect())
    }

    /// Keys of which it is the owner.
    fn keys(&self, count: usize) -> Result<Vec<usize>, Failure> {
        let slots = self.slots()?;
        let is_own = |number: &usize| slots.binary_search(&slot_of(&workload::name(Kind::Strings, *number))).is_ok();
        Ok((0..).filter(is_own).take(count).collect())
    }
}

/// `first-last`, or one slot.
fn range(text: &str) -> impl Iterator<Item = u16> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse::<u16>(), last.parse::<u16>()) {
        (Ok(first), Ok(last)) => first..=last,
        #[expect(clippy::reversed_empty_ranges, reason = "no slots")]
        _ => 1..=0,
    }
}

/// redis-server, and haproxy in front of it.
struct Proxied {
    redis: ServerProcess,
    direct: SocketAddr,
    proxy: ServerProcess,
    through: SocketAddr,
}

impl Proxied {
    fn start() -> Result<Proxied, Failure> {
        let command = |_: &Path| {
            let [port] = free_ports();
            let mut command = Command::new("redis-server");
            command.args(["--bind", "127.0.0.1", "--save", "", "--port", &port.to_string()]);
            (command, loopback(port))
        };
        let answers = |address: &SocketAddr| wire::answers(*address, Wire::Resp);
        let (redis, direct) = ServerProcess::start("redis-server", command, answers)?;
        let command = |directory: &Path| {
            let [port] = free_ports();
            let path = directory.join("haproxy.cfg");
            fs::write(&path, proxy_configuration(port, direct)).expect("the directory is ours");
            let mut command = Command::new("haproxy");
            command.arg("-db").arg("-f").arg(path);
            (command, loopback(port))
        };
        let (proxy, through) = ServerProcess::start("haproxy", command, answers)?;
        Ok(Proxied { redis, direct, proxy, through })
    }

    fn ways(&self, keys: usize) -> Result<[Way; 2], Failure> {
        let keys: Vec<_> = (0..keys).collect();
        Driver::connect(self.direct, Wire::Resp, 1, 64, &Tape::setting(&keys, VALUE_BYTES))?.run_through()?;
        let way = |name: &str, address, processes| {
            let tape = Tape::getting(&keys, REQUESTS);
            Way { name: name.to_owned(), address, tape, processes, rounds: Vec::new() }
        };
        Ok([
            way("redis-server", self.direct, vec![self.redis.id()]),
            way("redis-server behind haproxy", self.through, vec![self.redis.id(), self.proxy.id()]),
        ])
    }
}

/// One thread that passes bytes on, as redis-server has one.
fn proxy_configuration(port: u16, to: SocketAddr) -> String {
    format!(
        "global\n  nbthread 1\n  maxconn 2000\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
         listen redis\n  bind 127.0.0.1:{port}\n  server redis {to}\n"
    )
}
