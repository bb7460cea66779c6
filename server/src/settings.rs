//! What `CONFIG SET` may change while the server runs, in a form that the request path reads without a lock.
//!
//! The store keeps its own settings (encodings, eviction); these are the server's. `command/config.rs` has the table of names.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;

use crate::output_limits::OutputLimits;

/// Run-time settings. Sizes are bytes.
pub struct Settings {
    /// Upper bound of the process's allocated bytes; 0 for none.
    pub maxmemory: AtomicU64,
    /// What of `maxmemory` may not be allocated, since the allocator needs more memory than it hands out; see
    /// [`crate::memory::withheld`].
    pub withheld: AtomicU64,
    pub maxclients: AtomicUsize,
    /// Password of the default user.
    pub requirepass: ArcSwapOption<Vec<u8>>,
    /// Seconds without a request after which a connection is closed; 0 for never.
    pub timeout: AtomicU64,
    /// Seconds between TCP keep-alive probes; 0 for none.
    pub tcp_keepalive: AtomicU64,
    /// Longest bulk string of a request.
    pub proto_max_bulk_len: AtomicUsize,
    /// Most bytes of one request that is not complete.
    pub client_query_buffer_limit: AtomicUsize,
    pub output_limits: OutputLimits,
    /// Microseconds from which a command is slow; negative for never, 0 for every command.
    pub slowlog_log_slower_than: AtomicI64,
    pub slowlog_max_len: AtomicUsize,
    /// Milliseconds from which an event enters the latency history; 0 for off.
    pub latency_monitor_threshold: AtomicU64,
    /// Whether `LATENCY HISTOGRAM` and `INFO latencystats` have something to show.
    pub latency_tracking: AtomicBool,
    /// The percentiles that `INFO latencystats` tells, between 0 and 100.
    pub latency_percentiles: ArcSwap<Vec<f64>>,
    /// Whether values are moved when much more memory is resident than in use.
    pub active_defrag: AtomicBool,
    /// Bytes of memory that may be wasted without more ado …
    pub active_defrag_ignore_bytes: AtomicU64,
    /// … or this part of what is in use, in percent, if it is more.
    pub active_defrag_threshold_lower: AtomicU64,
    /// Reads a second by way of other nodes that make a key hot; 0: none is.
    pub hot_key_reads: AtomicU64,
    /// Changes of the database a second that are looked at later; 0: none.
    pub freshness_samples: AtomicU64,
    /// Most keys of which it is remembered who has read them; 0 for any number.
    pub tracking_table_max_keys: AtomicUsize,
    /// `DEBUG SET-ACTIVE-EXPIRE`.
    pub active_expire: AtomicBool,
    /// `DEBUG PAUSE-CRON` sets it to false.
    pub housekeeping: AtomicBool,
    /// Values of names that mean nothing here, told again as they were set. The names are those of our own table, so their number is
    /// bounded.
    remembered: Mutex<BTreeMap<&'static str, String>>,
}

/// Redis' own defaults (redis.conf), but for compaction, which Redis leaves switched off.
mod defaults {
    pub(super) const WASTE_IGNORED: u64 = 8 << 20;
    pub(super) const WASTE_PERCENT: u64 = 6;
    pub(super) const MAXCLIENTS: usize = 10_000;
    pub(super) const TCP_KEEPALIVE_SECONDS: u64 = 300;
    pub(super) const BULK: usize = 512 << 20;
    pub(super) const QUERY_BUFFER: usize = 1 << 30;
    pub(super) const SLOW_MICROS: i64 = 10_000;
    pub(super) const SLOW_ENTRIES: usize = 128;
    pub(super) const TRACKED_KEYS: usize = 1_000_000;
    pub(super) const PERCENTILES: [f64; 3] = [50.0, 99.0, 99.9];
}

impl Settings {
    /// Bytes that may be allocated before something is evicted; `None` for any number.
    #[inline]
    pub fn memory_budget(&self) -> Option<u64> {
        match self.maxmemory.load(Relaxed) {
            0 => None,
            limit => Some(limit.saturating_sub(self.withheld.load(Relaxed))),
        }
    }

    /// Whether a new connection must authenticate before anything else.
    pub fn needs_password(&self) -> bool {
        self.requirepass.load().is_some()
    }

    /// Whether the default user may enter with `password`. Takes the same time wherever the first difference is.
    pub fn admits(&self, password: &[u8]) -> bool {
        match &*self.requirepass.load() {
            None => true,
            Some(right) => equal_in_constant_time(right, password),
        }
    }

    /// What was set for a name that means nothing here.
    pub fn remembered(&self, name: &str) -> Option<String> {
        self.remembered.lock().get(name).cloned()
    }

    /// Remembers a value for a name that means nothing here.
    pub fn remember(&self, name: &'static str, value: String) {
        self.remembered.lock().insert(name, value);
    }

    /// Whether `micros` is slow enough for the slow log.
    #[inline]
    pub fn is_slow(&self, micros: u64) -> bool {
        u64::try_from(self.slowlog_log_slower_than.load(Relaxed)).is_ok_and(|threshold| micros >= threshold)
    }

    /// Whether an event that took so many milliseconds is a latency spike.
    #[inline]
    pub fn is_spike(&self, millis: u64) -> bool {
        let threshold = self.latency_monitor_threshold.load(Relaxed);
        threshold > 0 && millis >= threshold
    }
}

/// Compares digests, so that neither the length nor a common prefix of the secret shows in the time taken.
fn equal_in_constant_time(left: &[u8], right: &[u8]) -> bool {
    use sha2::{Digest, Sha256};
    let difference = Sha256::digest(left)
        .iter()
        .zip(Sha256::digest(right).iter())
        .fold(0, |difference, (left, right)| difference | (left ^ right));
    difference == 0
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            maxmemory: AtomicU64::new(0),
            withheld: AtomicU64::new(0),
            maxclients: AtomicUsize::new(defaults::MAXCLIENTS),
            requirepass: ArcSwapOption::empty(),
            timeout: AtomicU64::new(0),
            tcp_keepalive: AtomicU64::new(defaults::TCP_KEEPALIVE_SECONDS),
            proto_max_bulk_len: AtomicUsize::new(defaults::BULK),
            client_query_buffer_limit: AtomicUsize::new(defaults::QUERY_BUFFER),
            output_limits: OutputLimits::default(),
            slowlog_log_slower_than: AtomicI64::new(defaults::SLOW_MICROS),
            slowlog_max_len: AtomicUsize::new(defaults::SLOW_ENTRIES),
            latency_monitor_threshold: AtomicU64::new(0),
            latency_tracking: AtomicBool::new(true),
            latency_percentiles: ArcSwap::from_pointee(defaults::PERCENTILES.to_vec()),
            active_defrag: AtomicBool::new(true),
            active_defrag_ignore_bytes: AtomicU64::new(defaults::WASTE_IGNORED),
            active_defrag_threshold_lower: AtomicU64::new(defaults::WASTE_PERCENT),
            hot_key_reads: AtomicU64::new(0),
            freshness_samples: AtomicU64::new(0),
            tracking_table_max_keys: AtomicUsize::new(defaults::TRACKED_KEYS),
            active_expire: AtomicBool::new(true),
            housekeeping: AtomicBool::new(true),
            remembered: Mutex::default(),
        }
    }
}
