//! The points at which servers are compared.

use std::fmt;

use crate::load::keys::Spread;
use crate::load::workload::{Dataset, Kind, Workload};

pub(crate) const PIPELINES: [usize; 3] = [1, 16, 64];
const VALUES: [usize; 4] = [16, 64, 1024, 65_536];
const CLIENTS: [usize; 3] = [1, 50, 1000];
const SPREADS: [Spread; 2] = [Spread::Uniform, Spread::Zipf];

/// Where an axis stands while another one varies.
const USUAL_VALUE: usize = 64;
const USUAL_CLIENTS: usize = 50;

/// Most bytes of values of one dataset.
const DATASET_BYTES: usize = 256 << 20;

/// One way to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) workload: Workload,
    /// Requests per write.
    pub(crate) pipeline: usize,
    pub(crate) value_bytes: usize,
    pub(crate) clients: usize,
    pub(crate) spread: Spread,
    /// Keys that are asked for, if their values do not take too much.
    keys: usize,
}

impl Point {
    fn usual(workload: Workload, pipeline: usize, keys: usize) -> Point {
        let (value_bytes, clients, spread) = (USUAL_VALUE, USUAL_CLIENTS, Spread::Uniform);
        Point { workload, pipeline, value_bytes, clients, spread, keys }
    }

    /// What it needs in the servers.
    pub(crate) fn dataset(&self) -> Dataset {
        let kind = self.workload.kind();
        // Counters have no size.
        let value_bytes = if kind == Kind::Counters { 1 } else { self.value_bytes };
        let keys = self.keys.min(DATASET_BYTES / (value_bytes * kind.values())).max(1);
        Dataset { kind, value_bytes, keys }
    }

    /// Points of one dataset have one number, so that the servers are filled as seldom as possible.
    pub(crate) fn dataset_order(&self) -> (Kind, usize) {
        let dataset = self.dataset();
        (dataset.kind, dataset.value_bytes)
    }

    /// Whether only workload and pipeline are special in it.
    pub(crate) fn is_usual(&self) -> bool {
        *self == Point::usual(self.workload, self.pipeline, self.keys)
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Point { workload, pipeline, value_bytes, clients, spread, .. } = self;
        write!(f, "{workload}, pipeline {pipeline}, {value_bytes} B, {clients} clients, {spread}")
    }
}

/// Every workload at every pipeline; GET and SET along each of the other axes.
pub(crate) fn curated(keys: usize) -> Vec<Point> {
    let usual =
        Workload::ALL.iter().flat_map(|&workload| PIPELINES.map(|pipeline| Point::usual(workload, pipeline, keys)));
    let along = [Workload::Get, Workload::Set].into_iter().flat_map(|workload| {
        [1, 16].into_iter().flat_map(move |pipeline| {
            let usual = Point::usual(workload, pipeline, keys);
            let values = VALUES.into_iter().map(move |value_bytes| Point { value_bytes, ..usual });
            let clients = CLIENTS.into_iter().map(move |clients| Point { clients, ..usual });
            let spreads = SPREADS.into_iter().map(move |spread| Point { spread, ..usual });
            values.chain(clients).chain(spreads).filter(|point| !point.is_usual())
        })
    });
    usual.chain(along).collect()
}

/// GET and SET at every pipeline.
pub(crate) fn quick(keys: usize) -> Vec<Point> {
    let workloads = [Workload::Get, Workload::Set].into_iter();
    workloads.flat_map(|workload| PIPELINES.map(|pipeline| Point::usual(workload, pipeline, keys))).collect()
}

/// Every combination.
pub(crate) fn full(keys: usize) -> Vec<Point> {
    combinations(keys, &PIPELINES, &VALUES, &CLIENTS, &SPREADS)
}

/// The combinations of what is given; an axis of which nothing is given stands where it usually does, and the pipeline takes its
/// usual steps.
pub(crate) fn product(
    keys: usize,
    pipelines: &[usize],
    values: &[usize],
    clients: &[usize],
    spreads: &[Spread],
) -> Vec<Point> {
    combinations(
        keys,
        or(pipelines, &PIPELINES),
        or(values, &[USUAL_VALUE]),
        or(clients, &[USUAL_CLIENTS]),
        or(spreads, &[Spread::Uniform]),
    )
}

fn or<'a, T>(given: &'a [T], usual: &'a [T]) -> &'a [T] {
    if given.is_empty() { usual } else { given }
}

fn combinations(
    keys: usize,
    pipelines: &[usize],
    values: &[usize],
    clients: &[usize],
    spreads: &[Spread],
) -> Vec<Point> {
    let mut points = Vec::new();
    for workload in Workload::ALL {
        for &pipeline in pipelines {
            for &value_bytes in values {
                for &clients in clients {
                    for &spread in spreads {
                        points.push(Point { workload, pipeline, value_bytes, clients, spread, keys });
                    }
                }
            }
        }
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_point_is_measured_twice() {
        let points = curated(1000);
        for (at, point) in points.iter().enumerate() {
            assert!(!points[..at].contains(point), "{point}");
        }
    }

    #[test]
    fn large_values_have_fewer_keys() {
        let large = Point { value_bytes: 65_536, ..Point::usual(Workload::Get, 1, 1_000_000) };
        assert_eq!(large.dataset().keys, 4096);
    }
}
