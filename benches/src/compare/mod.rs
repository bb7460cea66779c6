//! Servers side by side: throughput, the processor time of a request, and latency.
//!
//! All servers run at once on the same processor, the load on another. For each point of the matrix the servers take turns in
//! short rounds, so that what else the machine does hits them alike. Noise only ever adds to processor time, so the best round of
//! a server is nearest to the truth; the median tells how far the others lie from it.

mod matrix;
mod measure;
mod options;
mod report;

use std::time::Instant;

use crate::contender::Contender;
use crate::failure::Failure;
use crate::processor;
pub(crate) use matrix::PIPELINES;
use matrix::Point;
use measure::Measured;
pub(crate) use options::{Options, Placement};
use report::Report;

/// Measures what the options ask for and prints the tables.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let placement = options.placement();
    processor::pin_this_thread(&placement.load);
    let mut contenders = Vec::new();
    for (name, kind) in options.contenders()? {
        let contender = Contender::start(name, &kind)?;
        contender.pin(&placement.servers);
        contenders.push(contender);
    }
    let mut points = options.points();
    points.sort_by_key(Point::dataset_order);
    let mut report = Report::new();
    let outcome = measure_all(&points, &mut contenders, options, &mut report);
    report.print(options)?;
    outcome
}

fn measure_all(
    points: &[Point],
    contenders: &mut [Contender],
    options: &Options,
    report: &mut Report,
) -> Result<(), Failure> {
    let start = Instant::now();
    for (done, point) in points.iter().enumerate() {
        let left = match done {
            0 => String::new(),
            done => {
                format!(", about {} left", minutes(start.elapsed().div_f64(done as f64) * (points.len() - done) as u32))
            }
        };
        eprintln!("[{}/{}, {}{left}] {point}", done + 1, points.len(), minutes(start.elapsed()));
        report.add(Measured::new(*point, contenders, options)?);
    }
    eprintln!("done in {}", minutes(start.elapsed()));
    Ok(())
}

fn minutes(duration: std::time::Duration) -> String {
    let seconds = duration.as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}
