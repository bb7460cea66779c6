//! The rounds at one point of the matrix.

use std::process;

use serde::Serialize;

use super::matrix::Point;
use super::options::Options;
use crate::contender::Contender;
use crate::failure::Failure;
use crate::load::driver::Driver;
use crate::load::replies::Wire;
use crate::load::tape::{REQUESTS_MAX, Tape};
use crate::processor::CpuTime;

/// The share of a round that goes by before it is measured.
const WARM_UP: f64 = 0.2;

/// A point, and what each server did there.
pub(crate) struct Measured {
    pub(crate) point: Point,
    /// In the servers' order; a server that has no such command is not in it.
    pub(crate) servers: Vec<Server>,
}

/// All rounds of one server at one point.
pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) rounds: Vec<Round>,
}

/// One round.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Round {
    /// Requests per second.
    pub(crate) throughput: f64,
    /// Microseconds of processor time that the server spent on a request.
    pub(crate) cpu: f64,
    /// The part of it that was spent outside the kernel, where it can be told.
    pub(crate) user_share: Option<f64>,
    /// Microseconds of processor time that the load driver spent on a request.
    pub(crate) load_cpu: f64,
    /// Microseconds from a request's write to its reply.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
}

impl Measured {
    /// Runs the rounds, the servers taking turns.
    pub(crate) fn new(point: Point, contenders: &mut [Contender], options: &Options) -> Result<Measured, Failure> {
        let dataset = point.dataset();
        let mut servers = Vec::new();
        for contender in contenders.iter_mut().filter(|contender| point.workload.is_on(contender.wire())) {
            contender.hold(&dataset)?;
            servers.push((&*contender, Server::new(contender.name)));
        }
        let tapes = Tapes::record(&point, servers.iter().map(|(contender, _)| contender.wire()));
        for _ in 0..options.rounds() {
            for (contender, server) in &mut servers {
                server.round(contender, &point, tapes.of(contender.wire()), options)?;
            }
        }
        Ok(Measured { point, servers: servers.into_iter().map(|(_, server)| server).collect() })
    }
}

impl Server {
    fn new(name: &'static str) -> Server {
        Server { name, rounds: Vec::new() }
    }

    fn round(&mut self, contender: &Contender, point: &Point, tape: &Tape, options: &Options) -> Result<(), Failure> {
        let mut driver = Driver::connect(contender.address(), contender.wire(), point.clients, point.pipeline, tape)?;
        if options.spin {
            driver.spin();
        }
        let duration = options.round();
        driver.warm_up(duration.mul_f64(WARM_UP))?;
        let (before, load_before) = (contender.cpu_time(), CpuTime::of(process::id()));
        let sample = driver.run(duration)?;
        let (spent, load_spent) = (contender.cpu_time() - before, CpuTime::of(process::id()) - load_before);
        driver.finish()?;
        let each = |spent: CpuTime| spent.total.as_secs_f64() * 1e6 / sample.requests as f64;
        let micros = |quantile| sample.latency.value_at_quantile(quantile) as f64 / 1e3;
        self.rounds.push(Round {
            throughput: sample.requests as f64 / sample.elapsed.as_secs_f64(),
            cpu: each(spent),
            user_share: spent.user_share(),
            load_cpu: each(load_spent),
            p50: micros(0.5),
            p99: micros(0.99),
            p999: micros(0.999),
        });
        Ok(())
    }

    /// The best of the rounds, by processor time.
    pub(crate) fn best_cpu(&self) -> f64 {
        self.rounds.iter().map(|round| round.cpu).fold(f64::INFINITY, f64::min)
    }

    /// The median of what `figure` says of each round.
    pub(crate) fn median(&self, figure: impl Fn(&Round) -> f64) -> f64 {
        let mut figures: Vec<_> = self.rounds.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        let middle = figures.len() / 2;
        match figures.len() {
            0 => f64::NAN,
            length if length % 2 == 0 => (figures[middle - 1] + figures[middle]) / 2.0,
            _ => figures[middle],
        }
    }

    /// The share of the processor time that was spent outside the kernel, over all rounds in which it can be told.
    pub(crate) fn user_share(&self) -> f64 {
        let shares: Vec<_> = self.rounds.iter().filter_map(|round| round.user_share).collect();
        shares.iter().sum::<f64>() / shares.len() as f64
    }
}

/// The requests of a point, in each wire's words.
struct Tapes(Vec<(Wire, Tape)>);

impl Tapes {
    fn record(point: &Point, wires: impl Iterator<Item = Wire>) -> Tapes {
        let mut tapes: Vec<(Wire, Tape)> = Vec::new();
        for wire in wires {
            if tapes.iter().all(|(recorded, _)| *recorded != wire) {
                tapes.push((wire, Tape::record(point.workload, wire, &point.dataset(), point.spread, REQUESTS_MAX)));
            }
        }
        Tapes(tapes)
    }

    fn of(&self, wire: Wire) -> &Tape {
        self.0.iter().find(|(recorded, _)| *recorded == wire).map(|(_, tape)| tape).expect("recorded for every wire")
    }
}
