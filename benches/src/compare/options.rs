//! What is compared, and how thoroughly.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::matrix::{self, Point};
use crate::contender::Kind;
use crate::failure::Failure;
use crate::load::keys::Spread;
use crate::load::workload::Workload;
use crate::{forebay_binary, processor};

/// Compares Forebay with redis-server and memcached, taking turns in one run.
#[derive(Args, Debug, Clone)]
pub(crate) struct Options {
    /// Every combination of the axes, which takes more than an hour.
    #[arg(long, conflicts_with = "quick")]
    pub(crate) full: bool,
    /// GET and SET at the pipelines alone, in two short rounds.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Only these workloads.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) only: Vec<Workload>,
    /// Only these pipelines (requests per write); with any of the next four, the points are the product of what is given.
    #[arg(long, value_delimiter = ',')]
    pub(crate) pipelines: Vec<usize>,
    /// Bytes of a value.
    #[arg(long, value_delimiter = ',')]
    pub(crate) values: Vec<usize>,
    /// Connections.
    #[arg(long, value_delimiter = ',')]
    pub(crate) clients: Vec<usize>,
    /// How requests are spread over the keys.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) spread: Vec<Spread>,
    /// Keys of a dataset; fewer where their values would take more than 256 MiB.
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) keys: usize,
    /// Rounds of each server at each point [default: 5, with --quick 2].
    #[arg(long)]
    pub(crate) rounds: Option<usize>,
    /// Seconds of a round [default: 1, with --quick 0.5].
    #[arg(long)]
    pub(crate) seconds: Option<f64>,
    /// A second Forebay to be compared, such as one built before a change.
    #[arg(long, value_name = "BINARY")]
    pub(crate) baseline: Option<PathBuf>,
    /// Leave memcached out.
    #[arg(long)]
    pub(crate) without_memcached: bool,
    /// Leave redis-server out.
    #[arg(long)]
    pub(crate) without_redis: bool,
    /// Worker threads: Forebay with N, redis-server with N io-threads (reading as well), and Forebay with one. Servers and load
    /// share all processors.
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// The load looks for replies all the time instead of sleeping until there are some: then no server pays for waking it.
    #[arg(long)]
    pub(crate) spin: bool,
    /// The processor that the servers run on; the load has the next one.
    #[arg(long, default_value_t = 0)]
    pub(crate) server_cpu: usize,
    /// Writes the figures of every round to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// Processors of the two sides.
pub(crate) struct Placement {
    pub(crate) servers: Vec<usize>,
    pub(crate) load: Vec<usize>,
}

impl Options {
    /// The servers, with the Forebay that is measured last.
    pub(crate) fn contenders(&self) -> Result<Vec<(&'static str, Kind)>, Failure> {
        let threads = self.threads.unwrap_or(1);
        let binary = forebay_binary()?;
        let forebay = |threads| Kind::forebay(&binary, threads);
        let mut contenders = Vec::new();
        if !self.without_redis {
            contenders.push(("redis-server", Kind::Redis { io_threads: threads }));
        }
        if !self.without_memcached {
            contenders.push(("memcached", Kind::Memcached { threads }));
        }
        if let Some(binary) = &self.baseline {
            contenders.push(("baseline", Kind::forebay(binary, threads)));
        }
        if threads > 1 {
            contenders.push(("Forebay, 1 thread", forebay(1)));
        }
        contenders.push(("Forebay", forebay(threads)));
        Ok(contenders)
    }

    pub(crate) fn placement(&self) -> Placement {
        match self.threads {
            Some(_) => Placement::shared(),
            None => Placement::apart(self.server_cpu),
        }
    }

    pub(crate) fn points(&self) -> Vec<Point> {
        let points = match (self.names_axes(), self.full, self.quick) {
            (true, _, _) => self.product(),
            (false, true, _) => matrix::full(self.keys),
            (false, false, true) => matrix::quick(self.keys),
            (false, false, false) => matrix::curated(self.keys),
        };
        points.into_iter().filter(|point| self.only.is_empty() || self.only.contains(&point.workload)).collect()
    }

    pub(crate) fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 2 } else { 5 })
    }

    pub(crate) fn round(&self) -> Duration {
        Duration::from_secs_f64(self.seconds.unwrap_or(if self.quick { 0.5 } else { 1.0 }))
    }

    fn names_axes(&self) -> bool {
        !(self.pipelines.is_empty() && self.values.is_empty() && self.clients.is_empty() && self.spread.is_empty())
    }

    fn product(&self) -> Vec<Point> {
        matrix::product(self.keys, &self.pipelines, &self.values, &self.clients, &self.spread)
    }
}

impl Placement {
    /// Servers on one processor, the load on the next one, if there are two.
    pub(crate) fn apart(server_cpu: usize) -> Placement {
        let count = processor::count();
        let server = server_cpu.min(count - 1);
        Placement { servers: vec![server], load: vec![(server + 1) % count] }
    }

    /// Everything everywhere.
    fn shared() -> Placement {
        let all: Vec<_> = (0..processor::count()).collect();
        Placement { servers: all.clone(), load: all }
    }
}
