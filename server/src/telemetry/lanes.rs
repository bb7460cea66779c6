//! Statistics that every request writes, without a shared cache line: each thread that runs requests has a lane of its own.
//!
//! A lane has one writer, so adding is a load and a store and needs no locked instruction. Readers sum the lanes and may see a
//! request half counted, which statistics can bear.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crossbeam_utils::CachePadded;

/// Buckets of a histogram: bucket `n` counts durations below `2^n` microseconds that no lower bucket counts.
pub const BUCKETS: usize = 32;

/// One lane per writing thread.
pub struct Lanes {
    lanes: Box<[CachePadded<Lane>]>,
}

/// One thread's statistics.
pub struct Lane {
    commands: Box<[CommandLane]>,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    reads: AtomicU64,
    writes: AtomicU64,
}

#[derive(Default)]
struct CommandLane {
    calls: AtomicU64,
    nanos: AtomicU64,
    rejected: AtomicU64,
    failed: AtomicU64,
    histogram: [AtomicU64; BUCKETS],
}

/// The sum of all lanes for one command.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CommandTotals {
    pub calls: u64,
    /// Time spent in handlers.
    pub nanos: u64,
    /// Refused before they ran: wrong arity, no authentication, no memory.
    pub rejected: u64,
    /// Ran and answered an error.
    pub failed: u64,
    pub histogram: [u64; BUCKETS],
}

/// Traffic of all lanes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Times that a socket was read with a result, and written.
    pub reads: u64,
    pub writes: u64,
}

#[inline]
fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(n), Relaxed);
}

impl Lanes {
    pub fn new(lanes: usize, commands: usize) -> Lanes {
        let lane = || CachePadded::new(Lane::new(commands));
        Lanes { lanes: std::iter::repeat_with(lane).take(lanes).collect() }
    }

    /// The lane that the calling thread alone writes.
    #[inline]
    pub fn lane(&self, lane: usize) -> &Lane {
        &self.lanes[lane]
    }

    /// The totals of the command with this id.
    pub fn totals(&self, command: usize) -> CommandTotals {
        let mut totals = CommandTotals::default();
        for lane in &self.lanes {
            lane.commands[command].add_to(&mut totals);
        }
        totals
    }

    /// Calls of all commands.
    pub fn calls(&self) -> u64 {
        let of_lane = |lane: &CachePadded<Lane>| lane.commands.iter().map(|c| c.calls.load(Relaxed)).sum::<u64>();
        self.lanes.iter().map(of_lane).sum()
    }

    pub fn traffic(&self) -> Traffic {
        self.lanes.iter().fold(Traffic::default(), |sum, lane| Traffic {
            bytes_in: sum.bytes_in + lane.bytes_in.load(Relaxed),
            bytes_out: sum.bytes_out + lane.bytes_out.load(Relaxed),
            reads: sum.reads + lane.reads.load(Relaxed),
            writes: sum.writes + lane.writes.load(Relaxed),
        })
    }

    /// Sets everything to zero. A request that is being counted meanwhile may survive in part.
    pub fn reset(&self) {
        for lane in &self.lanes {
            for counter in [&lane.bytes_in, &lane.bytes_out, &lane.reads, &lane.writes] {
                counter.store(0, Relaxed);
            }
            lane.commands.iter().for_each(CommandLane::reset);
        }
    }
}

impl Lane {
    fn new(commands: usize) -> Lane {
        Lane {
            commands: std::iter::repeat_with(CommandLane::default).take(commands).collect(),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            writes: AtomicU64::new(0),
        }
    }

    /// A command ran, and took so many nanoseconds.
    #[inline]
    pub fn ran(&self, command: usize, nanos: u64, failed: bool) {
        let lane = &self.commands[command];
        add(&lane.calls, 1);
        add(&lane.nanos, nanos);
        add(&lane.histogram[bucket(nanos / 1000)], 1);
        if failed {
            add(&lane.failed, 1);
        }
    }

    /// A command was refused before it ran.
    pub fn rejected(&self, command: usize) {
        add(&self.commands[command].rejected, 1);
    }

    /// Times that a socket was read with a result.
    pub fn reads(&self) -> u64 {
        self.reads.load(Relaxed)
    }

    #[inline]
    pub fn read(&self, bytes: usize) {
        add(&self.bytes_in, bytes as u64);
        add(&self.reads, 1);
    }

    #[inline]
    pub fn wrote(&self, bytes: usize) {
        add(&self.bytes_out, bytes as u64);
        add(&self.writes, 1);
    }
}

impl CommandLane {
    fn add_to(&self, totals: &mut CommandTotals) {
        totals.calls += self.calls.load(Relaxed);
        totals.nanos += self.nanos.load(Relaxed);
        totals.rejected += self.rejected.load(Relaxed);
        totals.failed += self.failed.load(Relaxed);
        for (sum, bucket) in totals.histogram.iter_mut().zip(&self.histogram) {
            *sum += bucket.load(Relaxed);
        }
    }

    fn reset(&self) {
        for counter in [&self.calls, &self.nanos, &self.rejected, &self.failed].into_iter().chain(&self.histogram) {
            counter.store(0, Relaxed);
        }
    }
}

impl CommandTotals {
    /// The time that `percentile` per cent of the calls took at most, in microseconds: as near as the buckets tell, and between their
    /// bounds as if the calls were spread evenly.
    pub fn percentile_micros(&self, percentile: f64) -> f64 {
        let wanted = (percentile / 100.0 * self.calls as f64).max(1.0);
        let mut below = 0.0;
        for (bucket, &count) in self.histogram.iter().enumerate() {
            let upto = below + count as f64;
            if count > 0 && upto >= wanted {
                let least = if bucket == 0 { 0.0 } else { (1u64 << (bucket - 1)) as f64 };
                let most = upper_bound(bucket) as f64;
                return least + (most - least) * (wanted - below) / count as f64;
            }
            below = upto;
        }
        0.0
    }
}

/// What all durations of a bucket are below, in microseconds.
pub fn upper_bound(bucket: usize) -> u64 {
    1 << bucket
}

/// The bucket of a duration.
#[inline]
fn bucket(micros: u64) -> usize {
    let bits = (u64::BITS - micros.leading_zeros()) as usize;
    bits.min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_is_below_its_power_of_two() {
        for (micros, expected) in
            [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (1023, 10), (1024, 11), (u64::MAX, BUCKETS - 1)]
        {
            assert_eq!(bucket(micros), expected, "{micros} µs");
        }
    }

    #[test]
    fn percentiles_lie_in_the_bucket_that_holds_them() {
        let mut totals = CommandTotals { calls: 100, ..CommandTotals::default() };
        totals.histogram[3] = 90;
        totals.histogram[10] = 10;
        let (median, tail) = (totals.percentile_micros(50.0), totals.percentile_micros(99.0));
        assert!((4.0..=8.0).contains(&median), "{median}");
        assert!((512.0..=1024.0).contains(&tail), "{tail}");
        assert_eq!(CommandTotals::default().percentile_micros(50.0), 0.0);
    }

    #[test]
    fn lanes_add_up_and_reset() {
        let lanes = Lanes::new(2, 3);
        lanes.lane(0).ran(1, 5_000, false);
        lanes.lane(1).ran(1, 7_000, true);
        lanes.lane(1).rejected(1);
        let totals = lanes.totals(1);
        assert_eq!((totals.calls, totals.nanos, totals.failed, totals.rejected), (2, 12_000, 1, 1));
        assert_eq!(totals.histogram[3], 2);
        lanes.reset();
        assert_eq!(lanes.totals(1), CommandTotals::default());
    }
}
