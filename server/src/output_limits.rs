//! `client-output-buffer-limit`: how many bytes of replies a client may leave unsent before its connection is closed.
//!
//! A connection that does not take its replies is not read from, so its buffer holds one batch at most. The limit is for replies that
//! are large by themselves, and for those who would rather close a stalled connection than keep it.

use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};

use arc_swap::ArcSwap;
use forebay_store::UnixMillis;

/// One class's limits: bytes at which a connection is closed, bytes at which it is closed after some time, and that time in seconds.
/// 0 is for no limit.
pub type Class = [u64; 3];

/// The names of the classes. Ours are all normal clients; the others are told as they were set.
pub const CLASSES: [&str; 3] = ["normal", "slave", "pubsub"];

/// Redis' defaults (redis.conf).
const DEFAULTS: [Class; 3] = [[0, 0, 0], [256 << 20, 64 << 20, 60], [32 << 20, 8 << 20, 60]];

/// The limits of all classes.
pub struct OutputLimits {
    classes: ArcSwap<[Class; 3]>,
    // The normal class's, for the request path.
    hard: AtomicUsize,
    soft: AtomicUsize,
    soft_seconds: AtomicU64,
}

/// How much a client has left unsent, and since when.
#[derive(Default)]
pub struct Unsent {
    bytes: AtomicUsize,
    /// When the connection last began to stall; 0 while it does not.
    since: AtomicI64,
}

impl OutputLimits {
    /// Limits of all classes.
    pub fn all(&self) -> [Class; 3] {
        **self.classes.load()
    }

    /// Replaces the limits of all classes.
    pub fn set(&self, classes: [Class; 3]) {
        let [hard, soft, seconds] = classes[0];
        self.hard.store(hard as usize, Relaxed);
        self.soft.store(soft as usize, Relaxed);
        self.soft_seconds.store(seconds, Relaxed);
        self.classes.store(classes.into());
    }

    /// The most bytes of replies that may wait at any time.
    #[inline]
    pub fn allowed(&self) -> usize {
        match self.hard.load(Relaxed) {
            0 => usize::MAX,
            hard => hard,
        }
    }

    /// Whether so many bytes of replies are too many at any time.
    #[inline]
    pub fn forbid(&self, unsent: usize) -> bool {
        unsent > self.allowed()
    }

    /// Whether a connection has been stalled with too much for too long.
    pub fn are_outlasted_by(&self, unsent: &Unsent, now: UnixMillis) -> bool {
        let (soft, since) = (self.soft.load(Relaxed), unsent.since.load(Relaxed));
        let patience = self.soft_seconds.load(Relaxed) as i64 * 1000;
        soft > 0 && since > 0 && unsent.bytes() > soft && now - since >= patience
    }
}

impl Default for OutputLimits {
    fn default() -> OutputLimits {
        let limits = OutputLimits {
            classes: ArcSwap::from_pointee(DEFAULTS),
            hard: AtomicUsize::new(0),
            soft: AtomicUsize::new(0),
            soft_seconds: AtomicU64::new(0),
        };
        limits.set(DEFAULTS);
        limits
    }
}

impl Unsent {
    /// Bytes of replies that are not sent.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// The peer does not take its replies.
    pub fn stalled(&self, bytes: usize, now: UnixMillis) {
        self.bytes.store(bytes, Relaxed);
        if self.since.load(Relaxed) == 0 {
            self.since.store(now, Relaxed);
        }
    }

    /// All is sent.
    #[inline]
    pub fn sent(&self) {
        self.bytes.store(0, Relaxed);
        self.since.store(0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_limit_forbids_nothing() {
        let limits = OutputLimits::default();
        let unsent = Unsent::default();
        unsent.stalled(usize::MAX, 1);
        assert!(!limits.forbid(usize::MAX) && !limits.are_outlasted_by(&unsent, i64::MAX));
    }

    #[test]
    fn the_hard_limit_is_for_any_time_and_the_soft_one_for_a_stall() {
        let limits = OutputLimits::default();
        limits.set([[1000, 100, 5], DEFAULTS[1], DEFAULTS[2]]);
        assert!(limits.forbid(1001) && !limits.forbid(1000));
        let unsent = Unsent::default();
        unsent.stalled(101, 1_000);
        unsent.stalled(101, 4_000);
        assert!(!limits.are_outlasted_by(&unsent, 5_999));
        assert!(limits.are_outlasted_by(&unsent, 6_000));
        unsent.sent();
        assert!(!limits.are_outlasted_by(&unsent, 60_000));
    }
}
