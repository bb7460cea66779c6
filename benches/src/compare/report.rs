//! The tables, as benches/RESULTS.md has them, and the figures of every round as JSON.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::matrix::Point;
use super::measure::{Measured, Server};
use super::options::Options;
use crate::failure::Failure;
use crate::processor;

/// What has been measured so far.
pub(crate) struct Report {
    measured: Vec<Measured>,
    load_before: String,
}

impl Report {
    pub(crate) fn new() -> Report {
        Report { measured: Vec::new(), load_before: processor::load_average() }
    }

    pub(crate) fn add(&mut self, measured: Measured) {
        self.measured.push(measured);
    }

    /// Prints the tables, and writes the file that the options name.
    pub(crate) fn print(&mut self, options: &Options) -> Result<(), Failure> {
        let order = options.points();
        self.measured.sort_by_key(|measured| order.iter().position(|point| *point == measured.point));
        println!("{}\n", self.conditions(options));
        self.print_ratios();
        self.print_servers();
        options.json.as_deref().map_or(Ok(()), |path| self.write(path, options))
    }

    fn conditions(&self, options: &Options) -> String {
        let threads = match options.threads {
            None => "servers on one processor, the load on another".to_owned(),
            Some(threads) => format!("{threads} threads, servers and load share all processors"),
        };
        format!(
            "{} rounds of {} s in turns; {threads}; {} keys of 15 bytes (fewer where values are large); load average before: {}, after: {}.",
            options.rounds(),
            options.round().as_secs_f64(),
            options.keys,
            self.load_before,
            processor::load_average(),
        )
    }

    /// Forebay, which is the last, against each of the others.
    fn print_ratios(&self) {
        println!("| {POINT} | of | CPU | CPU, median | throughput | p99 | p99.9 |");
        println!("| {POINT_RULE} | --- | ---: | ---: | ---: | ---: | ---: |");
        for Measured { point, servers } in &self.measured {
            let Some((forebay, others)) = servers.split_last() else {
                continue;
            };
            for other in others {
                let of = |figure: fn(&Server) -> f64| figure(forebay) / figure(other);
                println!(
                    "| {} | {} / {} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} |",
                    cells(point),
                    forebay.name,
                    other.name,
                    of(Server::best_cpu),
                    of(|server| server.median(|round| round.cpu)),
                    of(|server| server.median(|round| round.throughput)),
                    of(|server| server.median(|round| round.p99)),
                    of(|server| server.median(|round| round.p999)),
                );
            }
        }
        println!();
    }

    fn print_servers(&self) {
        println!(
            "| {POINT} | server | 1,000/s | CPU µs | user | system | CPU µs, median | p50 µs | p99 µs | p99.9 µs |"
        );
        println!("| {POINT_RULE} | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
        for Measured { point, servers } in &self.measured {
            for server in servers {
                let (cpu, user) = (server.best_cpu(), server.user_share());
                println!(
                    "| {} | {} | {:.0} | {cpu:.2} | {:.2} | {:.2} | {:.2} | {:.0} | {:.0} | {:.0} | {:.2} |",
                    cells(point),
                    server.name,
                    server.median(|round| round.throughput) / 1e3,
                    cpu * user,
                    cpu * (1.0 - user),
                    server.median(|round| round.cpu),
                    server.median(|round| round.p50),
                    server.median(|round| round.p99),
                    server.median(|round| round.p999),
                    server.median(|round| round.load_cpu),
                );
            }
        }
        println!();
    }

    fn write(&self, path: &Path, options: &Options) -> Result<(), Failure> {
        let points: Vec<_> = self.measured.iter().map(as_json).collect();
        let report = json!({ "conditions": self.conditions(options), "points": points });
        fs::write(path, format!("{report:#}\n")).map_err(|error| Failure::Report { path: path.to_owned(), error })
    }
}

/// The columns that name a point.
const POINT: &str = "workload | pipeline | value | clients | keys";
const POINT_RULE: &str = "--- | ---: | ---: | ---: | ---";

fn cells(point: &Point) -> String {
    let Point { workload, pipeline, value_bytes, clients, spread, .. } = point;
    format!("{workload} | {pipeline} | {value_bytes} | {clients} | {spread}")
}

fn as_json(measured: &Measured) -> Value {
    let Measured { point, servers } = measured;
    let servers: Vec<_> =
        servers.iter().map(|server| json!({ "server": server.name, "rounds": server.rounds })).collect();
    json!({
        "workload": point.workload.to_string(),
        "pipeline": point.pipeline,
        "value_bytes": point.value_bytes,
        "clients": point.clients,
        "keys": point.spread.to_string(),
        "servers": servers,
    })
}
