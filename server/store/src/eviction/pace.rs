//! How fast a shard's requests come, measured against how many entries it has.

use crate::UnixMillis;
use crate::counters::StoreCounters;

/// Fewer requests than this tell nothing.
const FEWEST_REQUESTS: u64 = 256;

/// The beginning of the measurement under way.
pub(super) struct Pace {
    since: UnixMillis,
    requests: u64,
}

impl Pace {
    pub(super) fn new(counters: &StoreCounters, now: UnixMillis) -> Self {
        Pace { since: now, requests: requests(counters) }
    }

    /// Milliseconds until as many requests have come as there are entries, once enough have come to tell; then the
    /// measurement begins anew.
    pub(super) fn turnover(&mut self, counters: &StoreCounters, entries: usize, now: UnixMillis) -> Option<u64> {
        let came = requests(counters).checked_sub(self.requests);
        let took = u64::try_from(now - self.since).ok();
        let (Some(came), Some(took)) = (came, took) else {
            // The counters were reset, or the clock was.
            *self = Pace::new(counters, now);
            return None;
        };
        if came < FEWEST_REQUESTS.max(entries as u64) {
            return None;
        }
        *self = Pace::new(counters, now);
        Some(took.saturating_mul(entries as u64) / came)
    }
}

/// What is read or what is written, whichever is more: a value that is missed is read and then written.
fn requests(counters: &StoreCounters) -> u64 {
    (counters.hits + counters.misses + counters.absent_hits).max(counters.changes + counters.fills)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turnover_is_as_many_requests_as_entries() {
        let mut counters = StoreCounters { hits: 100, ..StoreCounters::default() };
        let mut pace = Pace::new(&counters, 1_000);
        counters.hits += 900;
        assert_eq!(pace.turnover(&counters, 1_000, 2_000), None);
        counters.misses += 1_100;
        assert_eq!(pace.turnover(&counters, 1_000, 3_000), Some(1_000));
        assert_eq!(pace.turnover(&counters, 1_000, 4_000), None);
        assert_eq!(pace.turnover(&StoreCounters::default(), 1_000, 5_000), None);
        counters.changes = 4_000;
        assert_eq!(pace.turnover(&counters, 1_000, 9_000), Some(1_000));
    }
}
