//! A moving average of a target's query times that forgets.

use std::time::{Duration, Instant};

/// The weight of the newest query.
const NEWEST: f64 = 0.2;

/// The time in which an estimate that is not renewed halves. A target that was slow once would otherwise never be asked
/// again, and so never be found to be fast again.
const HALF_LIFE: Duration = Duration::from_secs(5);

/// An estimate of how long a target takes to answer.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Latency {
    renewed: Option<(Instant, f64)>,
}

impl Latency {
    pub(crate) fn renew(&mut self, now: Instant, took: Duration) {
        let newest = took.as_secs_f64();
        let average = match self.renewed {
            Some((_, average)) => average + NEWEST * (newest - average),
            None => newest,
        };
        self.renewed = Some((now, average));
    }

    /// The average of the queries that were measured.
    pub(crate) fn average(&self) -> Option<Duration> {
        self.renewed.map(|(_, seconds)| Duration::from_secs_f64(seconds))
    }

    /// What the next query may take, in seconds; 0 for a target that was never asked, so that it is tried.
    pub(crate) fn estimate(&self, now: Instant) -> f64 {
        self.renewed.map_or(0.0, |(at, seconds)| {
            let halvings = now.saturating_duration_since(at).as_secs_f64() / HALF_LIFE.as_secs_f64();
            seconds * (-halvings).exp2()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_what_is_measured_and_forgets() {
        let now = Instant::now();
        let mut latency = Latency::default();
        assert_eq!(latency.estimate(now), 0.0);
        latency.renew(now, Duration::from_millis(100));
        latency.renew(now, Duration::from_millis(200));
        assert!((latency.estimate(now) - 0.120).abs() < 1e-9);
        assert!((latency.estimate(now + HALF_LIFE) - 0.060).abs() < 1e-9);
        assert_eq!(latency.average(), Some(Duration::from_millis(120)));
    }
}
