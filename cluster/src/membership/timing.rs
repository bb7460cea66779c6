//! How long things may take. What must hold between the times is checked in one place.

use std::time::Duration;

/// The times of a cluster. All its nodes should have the same.
///
/// The leader's heartbeats are small and come from a task of their own, so 50 ms cost nothing. A follower that hears none waits for
/// `election_max` and then for a random time between `election_min` and `election_max` more (openraft), thus 450 to 600 ms: nine
/// heartbeats may be late on a busy machine before an election begins, and a pre-vote asks the others first. A new leader is there before
/// the leases that the old one granted have ended, so that the other nodes serve on.
#[derive(Clone, Debug)]
pub struct Timing {
    pub heartbeat: Duration,
    pub election_min: Duration,
    pub election_max: Duration,
    /// How long a node may serve after it sent the renewal that the leader granted.
    pub lease: Duration,
    /// How often a lease is renewed.
    pub renewal: Duration,
    /// A leader grants leases only while a quorum has confirmed it within this time.
    pub quorum_fresh: Duration,
    /// A member that was not heard of for so long is declared down.
    pub down_after: Duration,
    /// A member that was down for so long is lost: others take its seat.
    pub lose_after: Duration,
    /// A member that was lost for so long is removed: where each process has a new identity, as tasks of Amazon ECS do, those that were replaced
    /// would be members for ever. Only who leads for so long knows it. Three days, so that a machine that is switched off on Friday comes back as
    /// what it was on Monday: who was removed must be given a new directory by hand.
    pub remove_after: Duration,
    /// How long a proposal is retried.
    pub proposal: Duration,
    /// How long a node that is told that it runs already goes on asking: the lease of a process that crashed must end.
    pub patience: Duration,
    /// How often nodes without a cluster greet each other.
    pub greeting: Duration,
    /// A node that was not heard of for so long while the cluster forms is not waited for.
    pub forget_after: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            heartbeat: Duration::from_millis(50),
            election_min: Duration::from_millis(150),
            election_max: Duration::from_millis(300),
            lease: Duration::from_millis(700),
            renewal: Duration::from_millis(100),
            quorum_fresh: Duration::from_millis(300),
            down_after: Duration::from_millis(1_100),
            lose_after: Duration::from_secs(60),
            remove_after: Duration::from_secs(3 * 24 * 60 * 60),
            proposal: Duration::from_secs(10),
            patience: Duration::from_secs(8),
            greeting: Duration::from_millis(200),
            forget_after: Duration::from_secs(10),
        }
    }
}

impl Timing {
    /// What two clocks may differ by over the time of a lease: one part in twenty, which is a hundred times what oscillators do.
    const DRIFT: u32 = 20;

    /// Checks what the argument in [`lease`](super::lease) needs.
    ///
    /// # Errors
    /// When two nodes could hold a lease for one slot.
    pub(super) fn check(&self) -> Result<(), String> {
        let ends_within = self.lease + self.quorum_fresh;
        let needed = ends_within + ends_within / Self::DRIFT;
        if self.down_after < needed {
            return Err(format!(
                "a node is declared down after {:?}, but its lease may last for {needed:?} (lease {:?}, quorum {:?}, and drift)",
                self.down_after, self.lease, self.quorum_fresh
            ));
        }
        Ok(())
    }

    /// How long a renewal waits for its answer: two fit into a lease.
    pub(super) fn renewal_timeout(&self) -> Duration {
        self.lease * 2 / 5
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_that_may_outlast_the_wait_is_refused() {
        assert_eq!(Timing::default().check(), Ok(()));
        let hasty = Timing { down_after: Duration::from_millis(1_000), ..Timing::default() };
        assert!(hasty.check().is_err());
    }
}
