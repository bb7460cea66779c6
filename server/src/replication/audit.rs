//! Digests that owners send, so that copies which differ are found.

use std::time::Duration;

use forebay_cluster::SLOT_COUNT;
use forebay_store::{DigestLimits, UnixMillis};

use super::effect::Record;
use super::{Host, Replication};

/// In this time every slot has its turn.
const ROUND: Duration = Duration::from_secs(60);

/// Slots that have their turn together.
const AT_ONCE: u16 = 32;

/// A slot with more than this is not compared, since all of it would have to be gone through under one lock: what is here takes half a
/// millisecond. Such slots hold large values or collections, or keys that share a tag; their effects are numbered and their commands
/// checked as those of others are.
const LIMITS: DigestLimits = DigestLimits { items: 4096, bytes: 1024 * 1024 };

/// What will be late within this time is not compared, in milliseconds: the holders' clocks are not quite the same.
const MARGIN: UnixMillis = 60_000;

impl Replication {
    /// Sends digests of all slots of this node, all the time, a few at once. Runs for ever.
    pub async fn audit(&self, host: &dyn Host) {
        let mut ticks = tokio::time::interval(ROUND * u32::from(AT_ONCE) / u32::from(SLOT_COUNT));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for first in (0..SLOT_COUNT).step_by(usize::from(AT_ONCE)).cycle() {
            ticks.tick().await;
            (first..first + AT_ONCE).for_each(|slot| self.audit_slot(host, slot));
        }
    }

    /// Sends the digest of a slot to the holders of copies.
    pub fn audit_slot(&self, host: &dyn Host, slot: u16) {
        let now = host.now();
        if self.log(slot).lock().targets.is_empty() {
            return;
        }
        let keyspace = host.store().lock(slot, now);
        let mut log = self.log(slot).lock();
        log.offer_again(slot);
        let horizon = now + MARGIN;
        if let Some(digest) = keyspace.digest_slot(slot, horizon, LIMITS) {
            let mut record = Vec::with_capacity(64);
            Record::Digest { slot, sequence: log.position.sequence, horizon, digest }.write(&mut record);
            log.send_digest(&mut record);
        }
    }

    /// The digest of what this node holds of the slot, without what is late at `horizon`, and how many entries that are.
    pub fn digest(&self, host: &dyn Host, slot: u16, horizon: UnixMillis) -> (u64, usize) {
        let keyspace = host.store().lock(slot, host.now());
        let digest = keyspace.digest_slot(slot, horizon, DigestLimits::NONE);
        (digest.unwrap_or_default(), keyspace.count_slot(slot))
    }
}
