//! Lock conflicts of many threads over one store.
//!
//! Few machines that build this have sixteen processors, and on two a thread finds a lock taken only when its holder was preempted.
//! So the threads are simulated: each spends its time as a worker does, some of it within a shard's lock, and the simulation
//! knows to the nanosecond who would have met whom. Keys and slots are real, and the results repeat exactly.
//!
//! Beside it, real threads hammer a real store as fast as they can, with nothing between two requests.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::thread;

use clap::Args;
use forebay_cluster::slot_of;
use forebay_store::{Expiry, Store, StoreConfig};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::failure::Failure;
use crate::load::keys::{Draw, Spread};
use crate::load::workload::{Kind, name};

/// How often threads that serve requests side by side find a lock taken.
#[derive(Args, Debug, Clone)]
pub(crate) struct Options {
    /// Worker threads.
    #[arg(long, default_value_t = 16)]
    threads: usize,
    /// Locks of the store.
    #[arg(long, value_delimiter = ',', default_values_t = [64, 256, 1024])]
    shards: Vec<usize>,
    /// Nanoseconds that a request takes a worker, system calls included.
    #[arg(long, default_value_t = 700)]
    request_nanos: u64,
    /// Nanoseconds of them for which a GET holds its lock; a SET holds it for twice as long.
    #[arg(long, default_value_t = 60)]
    held_nanos: u64,
    /// Keys.
    #[arg(long, default_value_t = 1_000_000)]
    keys: usize,
    /// Requests of each thread.
    #[arg(long, default_value_t = 100_000)]
    requests: usize,
}

const SPREADS: [Spread; 3] = [Spread::Uniform, Spread::Zipf, Spread::Hot];

/// The share of requests that are SETs.
const SETS: f64 = 0.2;

/// The most shards that a real store is made with.
const REAL_SHARDS_MAX: usize = 256;

/// What came of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Outcome {
    requests: u64,
    /// Requests that found the lock taken.
    conflicts: u64,
    /// Nanoseconds that they waited.
    waited: u64,
}

/// Prints the table.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let Options { threads, request_nanos, held_nanos, .. } = options;
    println!(
        "{threads} threads, GET and SET 4 to 1; simulated with {request_nanos} ns a request, {held_nanos} ns of them within the lock \
         (a SET {} ns); real with nothing but the lock's work, on {} processors.\n",
        2 * held_nanos,
        crate::processor::count(),
    );
    println!(
        "| keys | shards | simulated: conflicts of 1,000 requests | time waited | real: conflicts of 1,000 requests |"
    );
    println!("| --- | ---: | ---: | ---: | ---: |");
    for spread in SPREADS {
        for &shards in &options.shards {
            let simulated = simulate(options, spread, shards);
            let waited = simulated.waited as f64 / (simulated.requests * request_nanos) as f64;
            let real = match shards <= REAL_SHARDS_MAX {
                true => format!("{:.3}", hammer(options, spread, shards).per_thousand()),
                false => "–".to_owned(),
            };
            println!("| {spread} | {shards} | {:.2} | {:.2} % | {real} |", simulated.per_thousand(), waited * 100.0);
        }
    }
    println!();
    Ok(())
}

impl Outcome {
    fn per_thousand(&self) -> f64 {
        self.conflicts as f64 * 1e3 / self.requests as f64
    }
}

/// One simulated thread.
struct Worker {
    draw: Draw,
    random: SmallRng,
    left: usize,
}

/// Lets simulated threads take turns in the order of their time.
fn simulate(options: &Options, spread: Spread, shards: usize) -> Outcome {
    let mut workers: Vec<_> = (0..options.threads as u64).map(|number| Worker::new(options, spread, number)).collect();
    // When each worker comes to its next lock, and when each lock is free again.
    let mut arrivals: BinaryHeap<_> = (0..workers.len()).map(|number| Reverse((number as u64, number))).collect();
    let mut free_at = vec![0; shards];
    let mut outcome = Outcome { requests: 0, conflicts: 0, waited: 0 };
    while let Some(Reverse((now, number))) = arrivals.pop() {
        let worker = &mut workers[number];
        if worker.left == 0 {
            continue;
        }
        worker.left -= 1;
        let (shard, held) = worker.request(options, shards);
        let entered = now.max(free_at[shard]);
        outcome.requests += 1;
        outcome.conflicts += u64::from(entered > now);
        outcome.waited += entered - now;
        free_at[shard] = entered + held;
        arrivals.push(Reverse((entered + held + worker.rest(options), number)));
    }
    outcome
}

impl Worker {
    fn new(options: &Options, spread: Spread, number: u64) -> Worker {
        Worker {
            draw: Draw::new(spread, options.keys, number),
            random: SmallRng::seed_from_u64(number),
            left: options.requests,
        }
    }

    /// The shard that the next request needs, and for how long.
    fn request(&mut self, options: &Options, shards: usize) -> (usize, u64) {
        let key = name(Kind::Strings, self.draw.next());
        let held = if self.random.random_bool(SETS) { 2 * options.held_nanos } else { options.held_nanos };
        // As the store places slots.
        (usize::from(slot_of(&key)) % shards, held)
    }

    /// The time from one lock to the next, which is never twice the same.
    fn rest(&mut self, options: &Options) -> u64 {
        let rest = options.request_nanos.saturating_sub(options.held_nanos).max(1);
        self.random.random_range(rest / 2..=rest * 3 / 2)
    }
}

/// Lets real threads at a real store.
fn hammer(options: &Options, spread: Spread, shards: usize) -> Outcome {
    const NOW: i64 = 1_700_000_000_000;
    let store = Store::new(StoreConfig { shards, ..StoreConfig::default() });
    let set = |number: usize| {
        let name = name(Kind::Strings, number);
        let key = store.key(0, slot_of(&name), &name);
        store.lock(key.slot(), NOW).set_string(&key, &[b'x'; 64], Expiry::None);
    };
    (0..options.keys).for_each(set);
    store.reset_counters();
    thread::scope(|scope| {
        for number in 0..options.threads as u64 {
            let mut worker = Worker::new(options, spread, number);
            let store = &store;
            scope.spawn(move || {
                for _ in 0..worker.left {
                    let number = worker.draw.next();
                    if worker.random.random_bool(SETS) {
                        set(number);
                    } else {
                        let name = name(Kind::Strings, number);
                        let key = store.key(0, slot_of(&name), &name);
                        assert!(store.lock(key.slot(), NOW).read(&key).is_some(), "every key was set");
                    }
                }
            });
        }
    });
    let requests = (options.threads * options.requests) as u64;
    Outcome { requests, conflicts: store.counters().lock_conflicts, waited: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options { threads: 16, shards: vec![], request_nanos: 700, held_nanos: 60, keys: 10_000, requests: 2000 }
    }

    #[test]
    fn a_lone_thread_meets_nobody() {
        let outcome = simulate(&Options { threads: 1, ..options() }, Spread::Hot, 1);
        assert_eq!(outcome, Outcome { requests: 2000, conflicts: 0, waited: 0 });
    }

    #[test]
    fn more_shards_mean_fewer_conflicts_but_not_for_one_key() {
        let conflicts = |spread, shards| simulate(&options(), spread, shards).conflicts;
        assert!(conflicts(Spread::Uniform, 64) > 2 * conflicts(Spread::Uniform, 256));
        assert!(conflicts(Spread::Hot, 256) * 2 > conflicts(Spread::Hot, 64));
    }
}
