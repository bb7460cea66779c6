//! Instructions and allocations of a request, counted by running the real server under valgrind's callgrind.
//!
//! They repeat to a fraction of a per cent, whatever else the machine does. What connecting costs is counted twice, with few and
//! with many requests, and falls out of the difference.

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::contender::{Contender, Kind};
use crate::failure::Failure;
use crate::load::driver::Driver;
use crate::load::keys::Spread;
use crate::load::tape::Tape;
use crate::load::workload::{Dataset, Workload};
use crate::wire;

/// The handler of `CONFIG RESETSTAT`, before which callgrind writes down what it has counted and starts anew. A handler is
/// called by its address, so it is there in every build.
const MARK: &str = "forebay::command::config::reset_statistics*";

/// The allocator's functions that give memory out, whatever stands behind them.
const ALLOCATING: [&str; 3] = ["__rust_alloc", "__rust_alloc_zeroed", "__rust_realloc"];

/// Keys that requests are spread over: few, since instructions do not depend on the processor's caches.
const KEYS: usize = 1000;

/// What one request costs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) instructions: f64,
    /// Calls of the allocator that ask for memory.
    pub(crate) allocations: f64,
}

/// What is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) workload: Workload,
    pub(crate) pipeline: usize,
    pub(crate) value_bytes: usize,
    /// Requests that the cost is the average of.
    pub(crate) requests: usize,
}

/// A Forebay with one worker, whose instructions are counted.
pub(crate) struct Counter {
    contender: Contender,
    marks: u32,
}

/// What was counted between two marks, or in all of a process's life.
#[derive(Clone, Copy, Default)]
struct Count {
    instructions: u64,
    allocations: u64,
}

impl Counter {
    /// Starts the server, which takes seconds.
    pub(crate) fn start(kind: &Kind) -> Result<Counter, Failure> {
        let flags = ["--separate-threads=yes".to_owned(), format!("--dump-before={MARK}")];
        let contender = start_counted(kind, &flags)?;
        // Under valgrind, and on a busy machine, many a command is slow.
        wire::keep_no_slow_log(contender.address()).map_err(Failure::Figures)?;
        wire::keep_values_in_place(contender.address()).map_err(Failure::Figures)?;
        Ok(Counter { contender, marks: 0 })
    }

    /// The cost of a request, on the worker's thread alone.
    pub(crate) fn cost(&mut self, asked: &Asked) -> Result<Cost, Failure> {
        self.contender.hold(&asked.dataset())?;
        let [few, many] = asked.tapes(&self.contender);
        // The first time is for what is made on first use.
        self.count(&few, asked.pipeline)?;
        let base = self.count(&few, asked.pipeline)?;
        let count = self.count(&many, asked.pipeline)?;
        Ok(count.per_request_over(base, many.len() - few.len()))
    }

    fn count(&mut self, tape: &Tape, pipeline: usize) -> Result<Count, Failure> {
        self.mark()?;
        run_through(&self.contender, tape, pipeline)?;
        self.mark()
    }

    /// What was counted since the last mark.
    fn mark(&mut self) -> Result<Count, Failure> {
        wire::reset_statistics(self.contender.address()).map_err(Failure::Figures)?;
        self.marks += 1;
        // Only the thread that meets the mark writes down what it has counted: the worker.
        let name = format!("callgrind.{}.{}-", self.contender.pid(), self.marks);
        read_counts(&self.contender, &name)
    }
}

/// The cost of a request to a server that has no mark, and whose threads are not told apart: two lives of it, one with few and one
/// with many requests, and the difference.
pub(crate) fn cost_by_lives(kind: &Kind, asked: &Asked) -> Result<Cost, Failure> {
    let [few, many] = [0, 1].map(|which| life(kind, asked, which));
    let ((few, few_requests), (many, many_requests)) = (few?, many?);
    Ok(many.per_request_over(few, many_requests - few_requests))
}

fn life(kind: &Kind, asked: &Asked, which: usize) -> Result<(Count, usize), Failure> {
    let mut contender = start_counted(kind, &[])?;
    wire::keep_no_slow_log(contender.address()).map_err(Failure::Figures)?;
    contender.hold(&asked.dataset())?;
    let tape = &asked.tapes(&contender)[which];
    run_through(&contender, tape, asked.pipeline)?;
    let pid = contender.pid();
    contender.end();
    Ok((read_counts(&contender, &format!("callgrind.{pid}"))?, tape.len()))
}

impl Asked {
    fn dataset(&self) -> Dataset {
        Dataset { kind: self.workload.kind(), value_bytes: self.value_bytes, keys: KEYS }
    }

    /// One with a few batches, and one with as many requests more as are to be counted.
    fn tapes(&self, contender: &Contender) -> [Tape; 2] {
        let few = 4 * self.pipeline;
        [few, few + self.requests]
            .map(|requests| Tape::record(self.workload, contender.wire(), &self.dataset(), Spread::Uniform, requests))
    }
}

impl Count {
    fn per_request_over(self, base: Count, requests: usize) -> Cost {
        let each = |count: u64, base: u64| (count as f64 - base as f64) / requests as f64;
        Cost {
            instructions: each(self.instructions, base.instructions),
            allocations: each(self.allocations, base.allocations),
        }
    }
}

fn start_counted(kind: &Kind, flags: &[String]) -> Result<Contender, Failure> {
    // Without --vgdb=no, a killed valgrind leaves pipes in the directory for temporary files.
    let fixed = ["valgrind", "--tool=callgrind", "--vgdb=no", "--callgrind-out-file=callgrind.%p"];
    let mut runner = fixed.map(str::to_owned).to_vec();
    runner.extend_from_slice(flags);
    Ok(Contender::start_under("a server under callgrind", kind, &runner)?)
}

fn run_through(contender: &Contender, tape: &Tape, pipeline: usize) -> Result<(), Failure> {
    Ok(Driver::connect(contender.address(), contender.wire(), 1, pipeline, tape)?.run_through()?)
}

/// Adds up the files in the server's directory whose names begin with `name`.
fn read_counts(contender: &Contender, name: &str) -> Result<Count, Failure> {
    let unreadable = |error| Failure::NotCounted { error };
    let mut sum = Count::default();
    let mut files = 0;
    for entry in fs::read_dir(contender.directory()).map_err(unreadable)? {
        let path: PathBuf = entry.map_err(unreadable)?.path();
        if path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(name)) {
            let text = fs::read(&path).map_err(unreadable)?;
            let count = count_of(&String::from_utf8_lossy(&text));
            sum.instructions += count.instructions;
            sum.allocations += count.allocations;
            files += 1;
        }
    }
    match files {
        0 => Err(unreadable(io::ErrorKind::NotFound.into())),
        _ => Ok(sum),
    }
}

/// Reads callgrind's format (valgrind's manual, "Callgrind Format Specification"): `totals:` has the instructions; behind a
/// `cfn=(ID) NAME`, where the name is left out once it is known, `calls=` tells how often that function was called.
fn count_of(text: &str) -> Count {
    let mut count = Count::default();
    let mut allocating = Vec::new();
    let mut callee = "";
    for line in text.lines() {
        if let Some(totals) = line.strip_prefix("totals: ") {
            count.instructions = totals.trim().parse().unwrap_or(0);
        } else if let Some(function) = line.strip_prefix("cfn=").or_else(|| line.strip_prefix("fn=")) {
            let (id, name) = function.split_once(' ').unwrap_or((function, ""));
            if ALLOCATING.contains(&name.rsplit("::").next().unwrap_or_default()) {
                allocating.push(id);
            }
            callee = id;
        } else if let Some(calls) = line.strip_prefix("calls=")
            && allocating.contains(&callee)
        {
            count.allocations += calls.split(' ').next().and_then(|calls| calls.parse().ok()).unwrap_or(0);
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_found_although_names_are_told_once() {
        let text = "version: 1\ntotals: 120\n\nfn=(1) main\n1 5\ncfn=(2) __rustc::__rust_alloc\ncalls=3 7\n1 10\n\
                    cfn=(3) __rustc::__rust_dealloc\ncalls=4 7\n1 10\ncfn=(2)\ncalls=2 9\n1 4\nfn=(2)\n1 1\n";
        let count = count_of(text);
        assert_eq!((count.instructions, count.allocations), (120, 5));
    }
}
