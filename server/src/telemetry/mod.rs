//! What the server tells of itself: statistics by command, the slow log, latency events, metrics.

pub mod figures;
pub mod lanes;
pub mod latency;
pub mod metrics;
pub mod rates;
pub mod slowlog;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use dashmap::DashMap;

use lanes::Lanes;
use latency::LatencyEvents;
use rates::{Rates, Totals};
use slowlog::SlowLog;

/// All that is counted, kept in single-writer lanes where requests write and in plain atomics elsewhere.
pub struct Telemetry {
    pub lanes: Lanes,
    pub slowlog: SlowLog,
    pub latency: LatencyEvents,
    pub errors: ErrorCounts,
    pub loads: LoadCounts,
    pub rates: Rates,
    /// Bytes that were allocated before there was any data.
    pub used_at_start: u64,
    /// Resident bytes of the program itself, its code above all.
    pub program_size: u64,
}

/// Error replies by their code word (`INFO errorstats`).
#[derive(Default)]
pub struct ErrorCounts {
    by_code: DashMap<String, u64>,
    total: AtomicU64,
}

/// Most different code words that are kept: a stranger must not fill memory with them.
const MAX_ERROR_CODES: usize = 128;

/// What the read-through has done.
#[derive(Default)]
pub struct LoadCounts {
    /// Loads that were begun: one per flight and round.
    pub loads: AtomicU64,
    /// Requests that joined a flight that another had begun.
    pub coalesced: AtomicU64,
    /// Loads whose result a fence kept out of the store.
    pub fenced: AtomicU64,
    pub failed: AtomicU64,
    /// Requests answered from an entry past its deadline because the origin was ill.
    pub stale_served: AtomicU64,
    /// Early refreshes that were begun.
    pub refreshed: AtomicU64,
    /// Requests waiting for a load now.
    pub waiting: AtomicU64,
}

impl Telemetry {
    /// Room for `lanes` writing threads and `commands` commands.
    pub fn new(lanes: usize, commands: usize) -> Telemetry {
        Telemetry {
            lanes: Lanes::new(lanes, commands),
            slowlog: SlowLog::default(),
            latency: LatencyEvents::default(),
            errors: ErrorCounts::default(),
            loads: LoadCounts::default(),
            rates: Rates::default(),
            used_at_start: crate::memory::used(),
            program_size: crate::memory::resident().saturating_sub(crate::memory::used()),
        }
    }

    /// Notes how much has happened so far, for the rates. To be called at equal intervals.
    pub fn sample_rates(&self, now: forebay_store::UnixMillis) {
        let traffic = self.lanes.traffic();
        let totals = Totals { commands: self.lanes.calls(), bytes_in: traffic.bytes_in, bytes_out: traffic.bytes_out };
        self.rates.sample(now, totals);
    }

    /// `CONFIG RESETSTAT`.
    pub fn reset(&self) {
        self.lanes.reset();
        self.errors.reset();
    }
}

impl ErrorCounts {
    /// Counts an error reply by its code word. Code words past the limit are counted in the total alone.
    pub fn count(&self, code: &str) {
        self.total.fetch_add(1, Relaxed);
        if let Some(mut count) = self.by_code.get_mut(code) {
            *count += 1;
            return;
        }
        if self.by_code.len() < MAX_ERROR_CODES {
            *self.by_code.entry(code.to_owned()).or_insert(0) += 1;
        }
    }

    pub fn total(&self) -> u64 {
        self.total.load(Relaxed)
    }

    /// Counts by code word, in alphabetical order.
    pub fn all(&self) -> Vec<(String, u64)> {
        let mut all: Vec<_> = self.by_code.iter().map(|entry| (entry.key().clone(), *entry.value())).collect();
        all.sort_unstable();
        all
    }

    fn reset(&self) {
        self.by_code.clear();
        self.total.store(0, Relaxed);
    }
}
