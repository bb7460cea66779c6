//! Instructions and allocations of a request, as a table.

use clap::Args;

use crate::callgrind::{Asked, Counter, cost_by_lives};
use crate::contender::{Groups, Kind};
use crate::failure::Failure;
use crate::forebay_binary;
use crate::load::workload::Workload;

/// Instructions of a request outside the kernel, and its allocations, counted by callgrind.
#[derive(Args, Debug, Clone)]
pub(crate) struct Options {
    /// Only these workloads.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Workload>,
    /// Requests per write.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64])]
    pipelines: Vec<usize>,
    /// Bytes of a value.
    #[arg(long, default_value_t = 64)]
    value_bytes: usize,
    /// Requests that are counted.
    #[arg(long, default_value_t = 20_000)]
    requests: usize,
}

/// Prints the table.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let binary = forebay_binary()?;
    let forebay = |groups| Kind::Forebay { binary: binary.clone(), threads: 1, groups };
    let mut plain = Counter::start(&forebay(Groups::None))?;
    let mut reading_through = Counter::start(&forebay(Groups::Matching))?;
    println!("One connection, values of {} B.\n", options.value_bytes);
    println!("| workload | pipeline | redis-server | Forebay | ratio | Forebay with groups | ratio | allocations |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for asked in options.asked() {
        let Asked { workload, pipeline, .. } = asked;
        eprintln!("{workload}, pipeline {pipeline}");
        let redis = cost_by_lives(&Kind::Redis { io_threads: 1 }, &asked)?.instructions;
        let cost = plain.cost(&asked)?;
        let grouped = reading_through.cost(&asked)?.instructions;
        let own = cost.instructions;
        println!(
            "| {workload} | {pipeline} | {redis:.0} | {own:.0} | {:.2} | {grouped:.0} | {:.3} | {:.3} |",
            own / redis,
            grouped / own,
            cost.allocations.abs(),
        );
    }
    println!();
    Ok(())
}

impl Options {
    fn asked(&self) -> Vec<Asked> {
        let Options { pipelines, value_bytes, requests, .. } = self;
        let workloads = Workload::ALL.into_iter().filter(|each| self.only.is_empty() || self.only.contains(each));
        workloads
            .flat_map(|workload| {
                pipelines.iter().map(move |&pipeline| Asked {
                    workload,
                    pipeline,
                    value_bytes: *value_bytes,
                    requests: *requests,
                })
            })
            .collect()
    }
}
