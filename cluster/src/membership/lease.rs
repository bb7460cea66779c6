//! A node may serve the slots that it owns only while it holds a lease.
//!
//! # Why no slot is ever served by two nodes
//!
//! A node serves a slot if (1) the state that *it* serves by says that it owns the slot, under its present incarnation, and (2) it holds
//! a lease. A slot is taken from a living owner in three ways only. `HandOver` is proposed by the owner itself, which has stopped serving
//! before. `Down` and `Join` (of a later life) take all its slots at once; both are let into the log by the leader alone, by the rules
//! below. (`Remove` takes effect only on who holds nothing or is down.) So it is to be shown that, when a `Down` or `Join` that ends the
//! incarnation i of node n is proposed, no lease of (n, i) is valid, and none is granted later.
//!
//! Each lease ends `lease` after the moment at which its holder *sent* the renewal, thus at the latest `lease` after the leader received
//! and granted it; durations are measured by monotonic clocks, each by one process alone. `grants.rs` follows these rules:
//!
//! - A leader proposes the end of (n, i) only after it has, for `down_after` of its own present leadership, received nothing from it,
//!   and under the same lock it writes (n, i) down as condemned: it grants it nothing any more. So *its own* grants to it have ended.
//! - A leader grants only while a quorum has confirmed it within `quorum_fresh` (measured from when that heartbeat was sent). Let an older
//!   leader L grant at g, and let a later leader M be elected at t. A voter of M's was in L's quorum, and confirmed L at or after
//!   g - `quorum_fresh`, which was before it voted for M, so g < t + `quorum_fresh`. L's leases thus have ended by t + `quorum_fresh` +
//!   `lease`, and M waits from t on for `down_after`, which is longer (`Timing::check`, with room for drift).
//! - M may have inherited the end of (n, i) in its log without having applied it. It grants nothing before it has applied an entry of its
//!   own term, thus all earlier ones (a process that comes back leads in a later term, if it does: `raft::config`); from then on the state tells it that (n, i) has ended. Whoever proposed that entry had waited.
//! - A lone voter has no quorum to ask. Nobody else can become leader before it has appended another voter to its log; from then on it
//!   needs the others' confirmation like any leader. While it is the only *member* its own lease does not end by itself, so that a stall of
//!   the machine stops nobody; it is bounded again before the leader proposes another member (`Node::bound_own_lease`).
//!
//! After `Down` a process joins again, and renews only once it has applied that `Join` itself; and a leader grants only to who serves by
//! the change by which it stands as it does now (`Renewal::epoch`). By then its own state says that it owns nothing of what it had. So (1)
//! and (2) cannot be true by an old state and a new lease. What Raft has applied is not enough for that: a process makes a state its own slot
//! by slot, which may take seconds where much is to be forgotten, and until it has come to a slot it would serve that by the state before. So
//! it tells when it is through ([`Membership::serves_by`](super::Membership::serves_by)), and renews with that epoch.
//!
//! Not covered: a machine whose monotonic clock stands still while others' go on (a virtual machine that is frozen and moved on).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The right to serve, which ends by itself unless it is renewed.
#[derive(Debug)]
pub struct Lease {
    /// What the times are counted from.
    base: Instant,
    /// Nanoseconds after `base` at which it ends; 0: there is none; [`FOREVER`].
    until: AtomicU64,
}

const FOREVER: u64 = u64::MAX;

impl Lease {
    /// That of a node that is in no cluster: nobody else serves its slots.
    pub fn always() -> Lease {
        Lease { base: Instant::now(), until: AtomicU64::new(FOREVER) }
    }

    /// None yet.
    pub(super) fn none() -> Lease {
        Lease { base: Instant::now(), until: AtomicU64::new(0) }
    }

    /// Whether it is held at `now`. One atomic load.
    #[inline]
    pub fn holds(&self, now: Instant) -> bool {
        // Whoever sees a lease sees by which state it was granted: the roles that he looks at behind this, under a lock, are no older.
        let until = self.until.load(Ordering::Acquire);
        until == FOREVER || self.nanoseconds(now) < until
    }

    /// How much of it is left; `None` if it does not end.
    pub fn remaining(&self, now: Instant) -> Option<Duration> {
        match self.until.load(Ordering::Relaxed) {
            FOREVER => None,
            until => Some(Duration::from_nanos(until.saturating_sub(self.nanoseconds(now)))),
        }
    }

    /// It is held until `end`. An earlier end takes something back.
    pub(super) fn set_until(&self, end: Instant) {
        self.until.store(self.nanoseconds(end), Ordering::Release);
    }

    pub(super) fn set_forever(&self) {
        self.until.store(FOREVER, Ordering::Release);
    }

    pub(super) fn end(&self) {
        self.until.store(0, Ordering::Relaxed);
    }

    fn nanoseconds(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.base).as_nanos()).unwrap_or(FOREVER - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_until_its_end_and_no_longer() {
        let lease = Lease::none();
        let now = Instant::now();
        assert!(!lease.holds(now));
        lease.set_until(now + Duration::from_secs(1));
        assert!(lease.holds(now) && lease.holds(now + Duration::from_millis(999)));
        assert!(!lease.holds(now + Duration::from_secs(1)));
        lease.end();
        assert!(!lease.holds(now));
    }

    #[test]
    fn that_of_a_lone_node_does_not_end() {
        let lease = Lease::always();
        assert!(lease.holds(Instant::now() + Duration::from_secs(1_000_000)));
        assert_eq!(lease.remaining(Instant::now()), None);
    }
}
