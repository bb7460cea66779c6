//! The meter: whether what the database has replaced is still served anywhere, measured while the cluster works.
//!
//! The keeper, who learns of every change, draws some of them ([`sampler`]). 0.1, 1, 10 and 60 seconds after it has learnt of one it asks every node
//! what it would serve for the key ([`sight`]): the owner, those with copies that may become its own, and whoever keeps answers for a hot
//! key. What is there must have been loaded by a snapshot that sees the change; nothing at all is as good, since then it is loaded ([`verdict`]). What cannot
//! be told, be it that a node does not answer, is *unknown* and counts for neither side.
//!
//! The evidence is the snapshots by which entries were loaded, and when; not what the fences conclude from them. So a fence that
//! does not hold shows here.
//!
//! The figures go along with each question, so that every member can tell those of the whole cluster, and a new keeper goes on from them. What a node
//! has counted as the keeper is beside that in its metrics, which are added up elsewhere.

mod message;
mod rounds;
mod sampler;
mod sight;
mod verdict;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use forebay_origin::{AffectedKeys, Change};
use parking_lot::Mutex;

pub use message::{LOOK, answer};
pub use rounds::measure;

use sampler::{Drawn, Sampler};

/// How long after a change is known it is looked at, and what that is called.
pub const AGES: [(Duration, &str); 4] = [
    (Duration::from_millis(100), "100ms"),
    (Duration::from_secs(1), "1s"),
    (Duration::from_secs(10), "10s"),
    (Duration::from_secs(60), "60s"),
];

/// The most changes a second that may be asked for.
pub const MOST_SAMPLES: u64 = 1000;

/// A longer key is not drawn, in bytes.
const LONGEST_KEY: usize = 1024;

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The key's owner.
    Owner,
    /// A node with a copy that may become the owner's.
    Replica,
    /// A node that answers for a hot key of another.
    HotCopy,
}

/// What was found there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing, or what is as new as the change.
    Fresh,
    /// What the change has replaced.
    Stale,
    /// Nobody can tell.
    Unknown,
}

impl Place {
    pub const ALL: [Place; 3] = [Place::Owner, Place::Replica, Place::HotCopy];

    pub fn as_str(self) -> &'static str {
        match self {
            Place::Owner => "owner",
            Place::Replica => "replica",
            Place::HotCopy => "hot_copy",
        }
    }
}

impl Verdict {
    pub const ALL: [Verdict; 3] = [Verdict::Fresh, Verdict::Stale, Verdict::Unknown];

    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Fresh => "fresh",
            Verdict::Stale => "stale",
            Verdict::Unknown => "unknown",
        }
    }
}

/// How many verdicts there were, by age, place and verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals([[[u64; Verdict::ALL.len()]; Place::ALL.len()]; AGES.len()]);

/// The share of what was looked at that was fresh. It displays itself rounded down: what is not all is not 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    pub fresh: u64,
    pub stale: u64,
}

/// A node's part in the meter.
#[derive(Default)]
pub struct Meter {
    sampler: Mutex<Sampler>,
    /// What this node has found as the keeper.
    own: [[[AtomicU64; Verdict::ALL.len()]; Place::ALL.len()]; AGES.len()],
    /// What the cluster's keepers have found, as far as this node knows.
    totals: Mutex<Totals>,
}

impl Meter {
    /// Considers a change that has just come to be known; perhaps some of its keys are looked at later.
    pub(super) fn offer(&self, change: &Change, now: Instant) {
        let Some(xid) = change.xid else { return };
        let mut sampler = self.sampler.lock();
        for affected in &change.affected {
            if let AffectedKeys::These(keys) = &affected.keys {
                let keys = keys.iter().filter(|key| key.len() <= LONGEST_KEY);
                keys.for_each(|key| sampler.offer(key, xid, now, &mut rand::random::<u64>));
            }
        }
    }

    /// What was drawn in the period that ends now, of which there may be `rate` a second.
    fn drawn(&self, rate: u64) -> Vec<Drawn> {
        self.sampler.lock().end_period(rate)
    }

    fn count(&self, age: usize, place: Place, verdict: Verdict) {
        self.own[age][place as usize][verdict as usize].fetch_add(1, Relaxed);
        self.totals.lock().0[age][place as usize][verdict as usize] += 1;
    }

    /// What the cluster has found.
    pub fn totals(&self) -> Totals {
        *self.totals.lock()
    }

    /// What this node has found as the keeper.
    pub fn own(&self, age: usize, place: Place, verdict: Verdict) -> u64 {
        self.own[age][place as usize][verdict as usize].load(Relaxed)
    }

    /// The keeper tells how far it is.
    fn hear(&self, totals: Totals) {
        *self.totals.lock() = totals;
    }
}

impl Totals {
    /// How many there are of one kind.
    pub fn of(&self, age: usize, place: Place, verdict: Verdict) -> u64 {
        self.0[age][place as usize][verdict as usize]
    }

    /// At all places together.
    pub fn share(&self, age: usize) -> Share {
        let sum = |verdict| Place::ALL.iter().map(|place| self.of(age, *place, verdict)).sum();
        Share { fresh: sum(Verdict::Fresh), stale: sum(Verdict::Stale) }
    }

    /// All verdicts of one kind.
    pub fn sum(&self, verdict: Verdict) -> u64 {
        let ages = 0..AGES.len();
        ages.flat_map(|age| Place::ALL.map(|place| self.of(age, place, verdict))).sum()
    }

    fn numbers(&self) -> impl Iterator<Item = u64> {
        self.0.iter().flatten().flatten().copied()
    }

    fn numbers_mut(&mut self) -> impl Iterator<Item = &mut u64> {
        self.0.iter_mut().flatten().flatten()
    }
}

impl Share {
    /// As many nines as there are in the share. So many looks prove no more nines than their number has digits, were all of them fresh.
    pub fn nines(self) -> f64 {
        let all = self.fresh + self.stale;
        (all.max(1) as f64 / self.stale.max(1) as f64).log10()
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: u64 = 10_000_000;
        match (self.fresh, self.stale) {
            (0, 0) => f.write_str("none"),
            (_, 0) => f.write_str("1"),
            (fresh, stale) => {
                let parts = u128::from(fresh) * u128::from(DIGITS) / u128::from(fresh + stale);
                write!(f, "0.{parts:07}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_never_rounded_up() {
        let share = |fresh, stale| Share { fresh, stale }.to_string();
        assert_eq!([share(0, 0), share(5, 0), share(0, 3)], ["none", "1", "0.0000000"]);
        assert_eq!([share(2, 1), share(99_999, 1), share(u64::MAX / 2, 1)], ["0.6666666", "0.9999900", "0.9999999"]);
    }

    #[test]
    fn nines_are_what_so_many_looks_can_tell() {
        let nines = |fresh, stale| Share { fresh, stale }.nines();
        assert_eq!([nines(0, 0), nines(1, 0), nines(1000, 0), nines(999, 1)], [0.0, 0.0, 3.0, 3.0]);
        assert!((nines(99_998, 2) - 4.699).abs() < 0.001);
    }

    #[test]
    fn what_is_counted_is_found_by_its_kind() {
        let meter = Meter::default();
        meter.count(0, Place::Owner, Verdict::Fresh);
        meter.count(0, Place::HotCopy, Verdict::Stale);
        meter.count(3, Place::Replica, Verdict::Unknown);
        let totals = meter.totals();
        assert_eq!(totals.share(0), Share { fresh: 1, stale: 1 });
        assert_eq!(totals.share(3), Share { fresh: 0, stale: 0 });
        assert_eq!(totals.of(3, Place::Replica, Verdict::Unknown), 1);
        assert_eq!(Verdict::ALL.map(|verdict| totals.sum(verdict)), [1, 1, 1]);
        assert_eq!(meter.own(0, Place::HotCopy, Verdict::Stale), 1);
        meter.hear(Totals::default());
        assert_eq!((meter.totals().sum(Verdict::Fresh), meter.own(0, Place::Owner, Verdict::Fresh)), (0, 1));
    }
}
