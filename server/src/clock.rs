//! The two clocks: wall time, which deadlines are written in, and the cycle counter, which durations are measured by.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use forebay_store::UnixMillis;

/// Reads both clocks; cheap enough for every request.
pub struct Clock {
    cycles: quanta::Clock,
}

/// A reading of the cycle counter; only differences mean something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instant(u64);

impl Clock {
    /// Calibrates the cycle counter, which takes some milliseconds once per process.
    pub fn new() -> Clock {
        Clock { cycles: quanta::Clock::new() }
    }

    /// Wall time in milliseconds since 1970.
    #[inline]
    pub fn unix_millis(&self) -> UnixMillis {
        self.unix().as_millis() as UnixMillis
    }

    /// Wall time since 1970; zero on a machine whose clock is set before that.
    pub fn unix(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    #[inline]
    pub fn instant(&self) -> Instant {
        Instant(self.cycles.raw())
    }

    /// The time from `start` to `end`.
    #[inline]
    pub fn between(&self, start: Instant, end: Instant) -> Duration {
        Duration::from_nanos(self.nanos_between(start, end))
    }

    /// [`Clock::between`] in nanoseconds.
    #[inline]
    pub fn nanos_between(&self, start: Instant, end: Instant) -> u64 {
        self.cycles.delta_as_nanos(start.0, end.0)
    }
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::new()
    }
}
