//! How much happens per second, now: the means over the last few samples.

use std::collections::VecDeque;

use forebay_store::UnixMillis;
use parking_lot::Mutex;

/// Samples that a mean is taken over; with one every 100 ms, the last 1.6 seconds (as Redis has it).
const SAMPLES: usize = 16;

/// Totals that have been sampled.
#[derive(Default)]
pub struct Rates {
    samples: Mutex<VecDeque<(UnixMillis, Totals)>>,
}

/// What is counted, since the start or per second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    pub commands: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

impl Rates {
    /// Takes a sample. To be called at equal intervals.
    pub fn sample(&self, now: UnixMillis, totals: Totals) {
        let mut samples = self.samples.lock();
        samples.push_back((now, totals));
        if samples.len() > SAMPLES {
            samples.pop_front();
        }
    }

    /// The mean over the samples that are there; zero before the second one, and when the counters were reset in between.
    pub fn per_second(&self) -> Totals {
        let samples = self.samples.lock();
        let (Some((start, first)), Some((end, last))) = (samples.front(), samples.back()) else {
            return Totals::default();
        };
        let millis = u64::try_from(end - start).unwrap_or(0);
        let rate = |first: u64, last: u64| (last.saturating_sub(first) * 1000).checked_div(millis).unwrap_or(0);
        Totals {
            commands: rate(first.commands, last.commands),
            bytes_in: rate(first.bytes_in, last.bytes_in),
            bytes_out: rate(first.bytes_out, last.bytes_out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(commands: u64) -> Totals {
        Totals { commands, ..Totals::default() }
    }

    #[test]
    fn a_rate_forgets_what_is_long_past() {
        let rates = Rates::default();
        assert_eq!(rates.per_second(), Totals::default());
        rates.sample(0, commands(1_000_000));
        for tick in 1..=SAMPLES as i64 {
            rates.sample(100 * tick, commands(1_000_000 + 50 * tick as u64));
        }
        assert_eq!(rates.per_second(), commands(500));
    }

    #[test]
    fn a_reset_between_samples_is_no_negative_rate() {
        let rates = Rates::default();
        rates.sample(0, commands(10));
        rates.sample(100, commands(0));
        assert_eq!(rates.per_second(), commands(0));
    }
}
